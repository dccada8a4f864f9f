//! Promise 2: order is kept per sender's session and recipient's session, broadcasts and directs
//! alike, across nodes. No exemption: whatever is lost, what arrives is in order.

use std::{collections::HashMap, time::Duration};

use super::Breach;
use crate::core::history::History;

pub(super) const NAME: &str = "order is kept between two sessions";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for session in &history.sessions {
        let mut last: HashMap<usize, usize> = HashMap::new();
        for number in &session.received {
            let Some(message) = history.messages.get(*number) else { continue };
            // Numbers are given in the order of acceptance.
            let before = last.entry(message.session).or_insert(*number);
            if *before > *number {
                let earlier = message.accepted;
                breaches.push(Breach {
                    promise: NAME,
                    what: format!(
                        "message {number} of agent-{} reached session {} of agent-{} after message \
                         {before}, which was accepted later",
                        history.sessions[message.session].agent, session.id, session.agent
                    ),
                    agents: vec![session.agent, history.sessions[message.session].agent],
                    messages: vec![*number, *before],
                    from: earlier.saturating_sub(Duration::from_millis(500)),
                    until: history.messages[*before].accepted + Duration::from_secs(2),
                });
            }
            *before = (*before).max(*number);
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::history::Recipients, promises::example};

    #[test]
    fn later_is_not_before_earlier() {
        let mut history = example::three();
        for sender in [0, 1] {
            example::send(&mut history, sender, 1, Recipients::Agents(vec![2]), &[]);
            example::send(&mut history, sender, 2, Recipients::All, &[]);
        }
        history.sessions[2].received = vec![2, 0, 1, 3];
        assert_eq!(breaches(&history), [], "two senders have no order");
        history.sessions[2].received = vec![2, 1, 3, 0];
        assert_eq!(breaches(&history).len(), 1);
        history.sessions[2].received = vec![1, 3];
        assert_eq!(breaches(&history), [], "a gap is no disorder");
    }
}
