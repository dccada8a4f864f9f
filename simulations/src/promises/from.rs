//! Promise 4: `from` is the sender's, and a message is what was sent, to those it was sent to.
//!
//! The bytes are checked where they arrive, since the sender's name is in them: what arrives is, byte
//! for byte, a message that was accepted, from its sender, for the agent that gets it. No exemption.

use std::time::Duration;

use super::Breach;
use crate::core::history::History;

pub(super) const NAME: &str = "a message is its sender's, and only for those it names";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let mut breaches: Vec<Breach> = history
        .nonsense
        .iter()
        .map(|nonsense| breach(history, nonsense.what.clone(), nonsense.agent, nonsense.message))
        .collect();
    for session in &history.sessions {
        for number in &session.received {
            let Some(message) = history.messages.get(*number) else {
                let what = format!("message {number} was never sent");
                breaches.push(breach(history, what, Some(session.agent), Some(*number)));
                continue;
            };
            let sender = history.sessions[message.session].agent;
            if !message.to.include(session.agent, sender) {
                let what = format!(
                    "message {number} of agent-{sender} for {:?} reached agent-{}",
                    message.to, session.agent
                );
                breaches.push(breach(history, what, Some(session.agent), Some(*number)));
            }
        }
    }
    breaches
}

fn breach(history: &History, what: String, agent: Option<usize>, message: Option<usize>) -> Breach {
    let (agents, messages) = (agent.into_iter().collect(), message.into_iter().collect());
    let (from, until) = (Duration::ZERO, history.ended);
    Breach { promise: NAME, what, agents, messages, from, until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::history::Recipients, promises::example};

    #[test]
    fn only_the_addressed_get_a_message() {
        let mut history = example::three();
        example::send(&mut history, 0, 1, Recipients::Agents(vec![1]), &[1]);
        example::send(&mut history, 0, 1, Recipients::All, &[1, 2]);
        assert_eq!(breaches(&history), []);
        example::send(&mut history, 0, 1, Recipients::Agents(vec![1]), &[2]);
        example::send(&mut history, 0, 1, Recipients::All, &[0]);
        history.sessions[1].received.push(99);
        assert_eq!(breaches(&history).len(), 3);
    }
}
