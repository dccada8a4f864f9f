//! What was revoked is refused a second after the answer by every node that nothing has happened to,
//! and a second after all links are whole again by those that were cut off.
//!
//! Not covered: nodes that were cut off, slow or dead, or whose voters were, within two seconds
//! before; they are looked at when all is whole.

use std::time::Duration;

use super::Breach;
use crate::registry::{
    clients::revokes,
    history::{History, What},
};

pub(super) const NAME: &str = "what is revoked is refused everywhere within a second";

/// What happened so long before is over: links are made anew, and a leader is found.
const BEFORE: Duration = Duration::from_secs(2);

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for probe in history.probes.iter().filter(|probe| !probe.refused) {
        let call = &history.calls[probe.revoked_by];
        let quiet = history.is_calm(probe.node, call.at.saturating_sub(BEFORE), probe.at);
        if probe.scripted || quiet {
            let what = format!(
                "node-{} does not know {:.3} s after the answer what call #{} has revoked",
                probe.node,
                (probe.at.saturating_sub(call.done.unwrap_or_default())).as_secs_f64(),
                probe.revoked_by
            );
            let agent = Some(call.what.agent().clone());
            breaches.push(Breach { promise: NAME, what, agent });
        }
    }
    for seen in history.tokens.iter().filter(|seen| seen.good.is_ok()) {
        let granted = &history.calls[seen.call];
        let mut about = history.about(granted.what.agent());
        let revoked = about.find(|(_, call)| {
            let revocation = matches!(call.what, What::RevokeAgent(_) | What::RevokeToken(..));
            revocation && call.is_certain() && revokes(call, granted, &history.calls)
        });
        if let Some((number, call)) = revoked {
            let what = format!(
                "node-{} takes the token of call #{} at the end, which call #{number} has revoked",
                seen.node, seen.call
            );
            breaches.push(Breach { promise: NAME, what, agent: Some(call.what.agent().clone()) });
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{
        history::{Disturbance, Outcome, Probe, TokenSeen},
        promises::example::*,
    };

    #[test]
    fn a_node_in_calm_knows_after_a_second() {
        let mut history = history(vec![
            call(0, 1, register(0, false), granted()),
            call(10_000, 10_100, What::RevokeAgent(agent()), Outcome::Done),
        ]);
        let at = Duration::from_millis(11_100);
        history.probes.push(Probe { revoked_by: 1, node: 4, at, scripted: false, refused: false });
        assert_eq!(breaches(&history).len(), 1);
        let [from, until] = [9_000, 9_500].map(Duration::from_millis);
        history.disturbances.push(Disturbance {
            from,
            until,
            nodes: vec![2],
            stopped: false,
            ways: vec![],
        });
        assert_eq!(breaches(&history), []);
        history.tokens.push(TokenSeen { call: 0, node: 4, good: Ok(()) });
        assert_eq!(breaches(&history).len(), 1);
    }
}
