//! Once an agent has its welcome, every message accepted anywhere in the cluster after that moment
//! reaches it (PROTOCOL section 3).
//!
//! The same as [`nothing_lost`](super::nothing_lost) with the same exemptions, for the first two
//! seconds of a session: there the cause is its arrival.

use super::{Breach, missing, not_got, nothing_lost::NEW_FOR};
use crate::core::history::History;

pub(super) const NAME: &str = "after its welcome everything reaches a session";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let missing = missing(history, |due| {
        let session = &history.sessions[due.session];
        let accepted = history.messages[due.message].accepted;
        session.admitted.is_some_and(|admitted| admitted + NEW_FOR >= accepted)
            && due.message < history.probed.1
    });
    missing.into_iter().map(|due| not_got(NAME, history, due)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::history::Recipients, promises::example};

    #[test]
    fn the_welcome_is_the_moment() {
        let mut history = example::three();
        history.sessions.push(example::session(3, 1, 5_000));
        example::send(&mut history, 0, 4_999, Recipients::Agents(vec![3]), &[]);
        assert_eq!(breaches(&history), []);
        example::send(&mut history, 0, 5_000, Recipients::Agents(vec![3]), &[]);
        assert_eq!(breaches(&history).len(), 1);
    }
}
