//! Promise 1: no message is delivered twice to a session. No exemption.

use std::{collections::HashSet, time::Duration};

use super::Breach;
use crate::core::history::History;

pub(super) const NAME: &str = "no message is delivered twice to a session";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for session in &history.sessions {
        let mut seen = HashSet::new();
        for number in &session.received {
            if !seen.insert(*number) {
                let accepted = history.messages.get(*number).map_or(Duration::ZERO, |m| m.accepted);
                breaches.push(Breach {
                    promise: NAME,
                    what: format!(
                        "message {number} reached session {} of agent-{} twice",
                        session.id, session.agent
                    ),
                    agents: vec![session.agent],
                    messages: vec![*number],
                    from: accepted.saturating_sub(Duration::from_secs(1)),
                    until: history.ended,
                });
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::history::Recipients, promises::example};

    #[test]
    fn twice_is_once_too_often() {
        let mut history = example::three();
        example::send(&mut history, 0, 1, Recipients::All, &[1, 2]);
        assert_eq!(breaches(&history), []);
        history.sessions[2].received.push(0);
        assert_eq!(breaches(&history).len(), 1);
    }
}
