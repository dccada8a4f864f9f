//! A name that was given is there at the end, and its tokens are good on every node unless they may
//! have been revoked, whatever crashed.

use cluster::token::Grant;

use super::Breach;
use crate::registry::history::{Call, History, What};

pub(super) const NAME: &str = "no name that was given is ever lost";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    if history.healed.is_none() {
        return Vec::new(); // which is a breach of its own, and nobody could look
    }
    let mut breaches = Vec::new();
    let mut breach = |call: &Call, what: String| {
        let agent = Some(call.what.agent().clone());
        breaches.push(Breach { promise: NAME, what, agent });
    };
    for (number, call) in history.calls.iter().enumerate().filter(|(_, call)| call.is_granted()) {
        let agent = call.what.agent();
        let serial = call.grant().map(Grant::serial);
        match history.names.get(agent) {
            None => breach(call, format!("{agent}, given by call #{number}, is gone")),
            Some(record) if serial.is_some_and(|serial| serial > record.serial) => {
                breach(call, format!("the token of call #{number} was never issued"));
            }
            Some(_) => {}
        }
    }
    for seen in &history.tokens {
        let call = &history.calls[seen.call];
        if let Err(why) = &seen.good
            && !may_be_refused(history, call)
        {
            breach(
                call,
                format!("the token of call #{} is no good on node-{}: {why}", seen.call, seen.node),
            );
        }
    }
    breaches
}

/// Whether something was done, or may have been, because of which the token is refused.
fn may_be_refused(history: &History, granted: &Call) -> bool {
    let agent = granted.what.agent();
    // A token that comes of a claim may have been issued as early as that claim was first made.
    let issued_after = |revoked: &Call| {
        let first = history.about(agent).find(|(_, call)| match (&call.what, &granted.what) {
            (What::Register { claim: one, .. }, What::Register { claim: other, .. }) => {
                one == other
            }
            _ => false,
        });
        let asked = first.map_or(granted.at, |(_, call)| call.at);
        revoked.is_certain() && revoked.done.is_some_and(|done| done < asked)
    };
    history.about(agent).any(|(_, call)| match &call.what {
        What::RevokeAgent(_) => !issued_after(call),
        // Of another token, perhaps; the harm of being wrong is to see too little. A token that nobody
        // could read may be any.
        What::RevokeToken(_, of) => {
            let serial = granted.grant().map(Grant::serial);
            serial.is_none() || history.calls[*of].grant().map(Grant::serial) == serial
        }
        What::Ban(_) => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::{UnixMillis, registry::AgentRecord, token::Serial};

    use super::*;
    use crate::registry::{
        history::{Outcome, TokenSeen},
        promises::example::*,
    };

    #[test]
    fn a_name_and_its_token_outlive_everything() {
        let mut history = history(vec![call(0, 1, register(0, false), granted())]);
        assert_eq!(breaches(&history).len(), 1, "the name is gone");
        let record = AgentRecord {
            registered_at: UnixMillis(0),
            serial: Serial(1),
            revoked: false,
            banned: false,
        };
        history.names.insert(agent(), record);
        assert_eq!(breaches(&history), []);
        history.tokens.push(TokenSeen { call: 0, node: 1, good: Err("revoked".into()) });
        assert_eq!(breaches(&history).len(), 1);
        let mut revoke = call(2, 3, What::RevokeAgent(agent()), Outcome::Done);
        history.calls.push(revoke.clone());
        assert_eq!(breaches(&history), []);
        revoke.at = Duration::ZERO;
    }
}
