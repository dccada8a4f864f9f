//! Promise 3: between two agents that stay connected nothing is lost while other nodes join, drain,
//! crash or are cut off, and agents come and go.
//!
//! What is exempt stands at [`missing`]. A session that was welcomed just before is
//! [`welcome`](super::welcome)'s matter; what is sent when all has healed is
//! [`healed`](super::healed)'s.

use std::time::Duration;

use super::{Breach, missing, not_got};
use crate::core::history::History;

pub(super) const NAME: &str = "nothing is lost between agents that stay connected";

/// From its welcome a session counts as new for so long.
pub(super) const NEW_FOR: Duration = Duration::from_secs(2);

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let missing = missing(history, |due| {
        let session = &history.sessions[due.session];
        let accepted = history.messages[due.message].accepted;
        session.admitted.is_some_and(|admitted| admitted + NEW_FOR < accepted)
            && due.message < history.probed.1
    });
    missing.into_iter().map(|due| not_got(NAME, history, due)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::history::{Ending, Recipients},
        promises::example,
    };

    /// Agent 0 sent to all at 10 s, and only agent 1 got it.
    fn one_misses_it() -> History {
        let mut history = example::three();
        example::send(&mut history, 0, 10_000, Recipients::All, &[1]);
        history
    }

    #[test]
    fn whoever_stays_gets_everything() {
        let mut history = one_misses_it();
        assert_eq!(breaches(&history).len(), 1);
        history.sessions[2].received.push(0);
        assert_eq!(breaches(&history), []);
    }

    #[test]
    fn who_leaves_while_it_is_under_way_may_miss_it() {
        let mut history = one_misses_it();
        history.sessions[2].ended = Some((Duration::from_secs(11), Ending::Closed));
        assert_eq!(breaches(&history), []);
        history.sessions[2].ended = Some((Duration::from_secs(20), Ending::Closed));
        assert_eq!(breaches(&history).len(), 1);
    }

    #[test]
    fn who_has_a_newer_session_gets_it_there() {
        let mut history = one_misses_it();
        history.sessions.push(example::session(2, 1, 12_000));
        assert_eq!(breaches(&history), []);
        history.sessions[3] = example::session(2, 1, 30_000);
        assert_eq!(breaches(&history).len(), 1);
    }

    #[test]
    fn only_what_befalls_the_two_nodes_excuses_a_loss() {
        let mut history = one_misses_it();
        history.note_pair(0, 1, false, false, Duration::from_secs(9));
        history.note_pair(1, 2, false, false, Duration::from_secs(9));
        assert_eq!(breaches(&history).len(), 1);
        history.note_pair(0, 2, false, false, Duration::from_secs(9));
        assert_eq!(breaches(&history), []);
    }

    #[test]
    fn a_node_that_crashes_may_take_its_messages_along() {
        let mut history = one_misses_it();
        let life = history.sessions[0].home;
        history.deaths.push((life, Duration::from_secs(10)));
        assert_eq!(breaches(&history), []);
    }
}
