//! Whoever asks is answered within two seconds, whatever is wrong with the other nodes.
//!
//! Not covered: nodes that stand still, and such whose own disk does or fails.

use std::time::Duration;

use super::Breach;
use crate::registry::history::{History, Outcome};

pub(super) const NAME: &str = "whoever asks is answered within two seconds";

/// Two seconds, and a little for the clock's steps.
const ANSWER_MAX: Duration = Duration::from_millis(2_010);

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let calls = history.calls.iter().enumerate();
    let answered =
        calls.filter(|(_, call)| !matches!(call.outcome, Outcome::Died | Outcome::GaveUp));
    let late = answered.filter(|(_, call)| {
        let done = call.done.unwrap_or(history.ended);
        let disturbed = history.disturbances.iter().any(|it| {
            it.stopped && it.nodes.contains(&call.node) && it.from <= done && it.until >= call.at
        });
        done.saturating_sub(call.at) > ANSWER_MAX && !disturbed
    });
    let breach = |(number, call): (usize, &crate::registry::history::Call)| Breach {
        promise: NAME,
        what: format!(
            "call #{number} on node-{}, made at {:.3} s, was answered at {:.3} s",
            call.node,
            call.at.as_secs_f64(),
            call.done.unwrap_or(history.ended).as_secs_f64()
        ),
        agent: Some(call.what.agent().clone()),
    };
    late.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::promises::example::*;

    #[test]
    fn a_late_answer_is_found() {
        let late = call(0, 2_500, register(0, false), Outcome::Taken);
        assert_eq!(breaches(&history(vec![late])).len(), 1);
    }
}
