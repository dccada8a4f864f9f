//! Of two sessions of an agent the newest wins, and only the older is closed with 4009 (PROTOCOL
//! section 3).
//!
//! Exempt: sessions on two nodes that had no undisturbed link from two seconds before the later one
//! opened. Their clocks had not met, so which of the two is the newer nobody knows.

use std::time::Duration;

use super::Breach;
use crate::core::history::{Ending, History};

pub(super) const NAME: &str = "the newest session of an agent wins";

/// A ping that tells of the time comes at least so often.
const CLOCKS_MEET: Duration = Duration::from_secs(2);

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (index, by) in &history.replaced {
        let session = &history.sessions[*index];
        let newer = history.sessions.iter().position(|s| s.id == *by && s.agent == session.agent);
        let right =
            newer.is_some_and(|newer| newer > *index || !clocks_had_met(history, newer, *index));
        if !right {
            breaches.push(Breach {
                promise: NAME,
                what: format!(
                    "session {} of agent-{} was closed with 4009 for {by}, which is not newer",
                    session.id, session.agent
                ),
                agents: vec![session.agent],
                messages: Vec::new(),
                from: session.opened.saturating_sub(Duration::from_secs(3)),
                until: session.ended.map_or(history.ended, |(ended, _)| ended),
            });
        }
    }
    breaches
}

/// Whether the later session's node knew the time of the earlier one's when it opened.
fn clocks_had_met(history: &History, earlier: usize, later: usize) -> bool {
    let (earlier, later) = (&history.sessions[earlier], &history.sessions[later]);
    debug_assert!(later.ended.is_some_and(|(_, why)| why == Ending::Replaced));
    let before = later.opened.saturating_sub(CLOCKS_MEET);
    earlier.opened <= before
        && history.undisturbed_within(earlier.home.node, later.home.node, before, later.opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::example;

    #[test]
    fn the_older_gives_way() {
        let mut history = example::three();
        history.sessions.push(example::session(1, 0, 5_000));
        let (old, new) = (history.sessions[1].id, history.sessions[3].id);
        history.replaced = vec![(1, new)];
        assert_eq!(breaches(&history), []);
        history.sessions[3].ended = Some((Duration::from_secs(6), Ending::Replaced));
        history.replaced = vec![(3, old)];
        assert_eq!(breaches(&history).len(), 1);
        history.note_pair(0, 1, false, false, Duration::from_secs(1));
        assert_eq!(breaches(&history), [], "the nodes did not know each other's time");
    }
}
