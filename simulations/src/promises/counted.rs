//! Promise 5: what is dropped is counted, with the reason.
//!
//! Of direct messages, each copy to one agent ends in one of four ways: it reached a session; it
//! waited behind a welcome that was never written; it vanished with a link, where no node could see
//! it go; or a node counted it. So what is accepted and did not arrive is at most what is
//! accounted for, and no node counts what did arrive.
//!
//! Of whole nodes the counters are their metrics. What was put into an outbox and never reached its
//! agent vanished there; and when a link was lost, nobody outside knows what went with it. They are
//! not held to count too little, since nobody sees there which broadcasts went as direct messages.
//!
//! Exempt: runs in which a node crashed, since its memory and its counters are gone with it, and what
//! a node that stops had not counted yet. Messages of which nobody knows whether a node accepted them.
//! Of broadcasts only the copies are looked at that went behind waiting messages, as direct ones: the
//! others go to nodes, not to agents.

use super::Breach;
use crate::core::history::{History, MessageRecord, Reason, Recipients, SessionRecord};

pub(super) const NAME: &str = "what is dropped is counted";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    if history.crashes > 0 || history.stops > 0 {
        return Vec::new();
    }
    let accepted = || history.messages.iter().filter(|message| message.certain);
    let sent: usize = accepted().map(|message| direct_to(message).len()).sum();
    let got = |session: &SessionRecord| {
        let direct = |number: &&usize| {
            let message = history.messages.get(**number).filter(|message| message.certain);
            message.is_some_and(|message| direct_to(message).contains(&session.agent))
        };
        session.received.iter().filter(direct).count()
    };
    let arrived: usize = history.sessions.iter().map(got).sum();
    let (sent, arrived) = (sent as u64, arrived as u64);
    let unwritten: u64 = history.sessions.iter().map(|session| session.unwritten).sum();
    let counted: u64 = history.lost.values().sum();
    let missing = sent.saturating_sub(arrived + unwritten);
    // Broadcasts that were lost with links or for want of room are under these two reasons as well.
    let of_broadcasts_too = |reason: &Reason| matches!(reason, Reason::LinkLost | Reason::LinkFull);
    let certain: u64 =
        history.lost.iter().filter(|(reason, _)| !of_broadcasts_too(reason)).map(|(_, n)| n).sum();
    let at_least = certain.saturating_sub(history.unseen);
    if (at_least..=counted + history.vanished).contains(&missing) {
        return Vec::new();
    }
    let what = format!(
        "{sent} copies of direct messages were accepted, {arrived} arrived, {unwritten} waited \
         behind a welcome: of {missing} missing ones {counted} are counted ({:?}) and at most {} \
         vanished with links",
        history.lost, history.vanished
    );
    let (from, until) = (std::time::Duration::ZERO, history.ended);
    vec![Breach { promise: NAME, what, agents: Vec::new(), messages: Vec::new(), from, until }]
}

/// The agents that a message goes to as a direct one.
fn direct_to(message: &MessageRecord) -> &[usize] {
    match &message.to {
        Recipients::Agents(agents) => agents,
        Recipients::All => &message.held_back,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::example;

    #[test]
    fn neither_too_few_nor_too_many_are_counted() {
        let mut history = example::three();
        example::send(&mut history, 0, 1, Recipients::Agents(vec![1, 7, 8]), &[1]);
        example::send(&mut history, 0, 1, Recipients::All, &[]);
        assert_eq!(breaches(&history).len(), 1);
        history.lost.insert(Reason::Offline, 2);
        assert_eq!(breaches(&history), []);
        history.lost.insert(Reason::Stale, 1);
        assert_eq!(breaches(&history).len(), 1, "one is counted that arrived");
        history.lost.clear();
        history.vanished = 2;
        assert_eq!(breaches(&history), []);
    }

    #[test]
    fn what_nobody_sees_from_outside_is_no_breach() {
        let mut history = example::three();
        example::send(&mut history, 0, 1, Recipients::Agents(vec![1]), &[]);
        assert_eq!(breaches(&history).len(), 1);
        history.messages[0].certain = false;
        assert_eq!(breaches(&history), [], "no node may have got it");
        history.lost.insert(Reason::Stale, 1);
        assert_eq!(breaches(&history).len(), 1);
        history.unseen = 1;
        assert_eq!(breaches(&history), [], "it was a broadcast's copy");
    }
}
