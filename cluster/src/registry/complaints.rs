//! What a node says of that for which it waits, of the end of it, and of who leads: what, and when. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::Waiting;
use crate::{NodeId, UnixMillis};

/// What is waited for is told after so many rounds, for most of it comes by itself...
const PATIENCE: u64 = 2;

/// ...and again so often: while nothing works, and while all works but should be safer.
pub(super) const TELL_AGAIN: u64 = 30;
pub(super) const REMIND: u64 = 600;

/// That `seeds` are missing: those that refuse this node run, so that to start them would mend nothing.
pub(super) fn missing(
    what: &str,
    seeds: Vec<String>,
    refusals: &BTreeMap<String, String>,
) -> Waiting {
    let silent: Vec<_> =
        seeds.iter().filter(|seed| !refusals.contains_key(*seed)).map(String::as_str).collect();
    let start = (!silent.is_empty()).then(|| format!("start {}", silent.join(", ")));
    let refused = seeds.iter().filter_map(|seed| refusals.get(seed).cloned());
    let todo: Vec<_> = start.into_iter().chain(refused).collect();
    Waiting { reason: format!("{what}: {}", todo.join("; ")), seeds }
}

/// When to say for what this node waits: not at once, and not all the time.
#[derive(Default)]
pub(super) struct Complaint(Option<(Waiting, u64)>);

impl Complaint {
    /// What is to be said in this round, if `wait` is what is waited for and how often to say so.
    pub(super) fn due(&mut self, wait: Option<(Waiting, u64)>, round: u64) -> Option<Waiting> {
        let Some((waiting, again)) = wait else {
            self.0 = None;
            return None;
        };
        match &mut self.0 {
            Some((before, due)) if *before == waiting => {
                if round < *due {
                    return None;
                }
                *due = round + again;
                Some(waiting)
            }
            other => {
                *other = Some((waiting, round + PATIENCE));
                None
            }
        }
    }
}

/// Whether names can be registered, as it was said last.
pub(super) struct Availability {
    /// Since when they cannot.
    lost: Option<UnixMillis>,
    /// Whether they ever could in this life.
    ever: bool,
}

/// That names can be registered, after so long without.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// For the first time in this life of the node.
    First(Duration),
    Again(Duration),
}

impl Availability {
    pub(super) fn none_since(start: UnixMillis) -> Self {
        Self { lost: Some(start), ever: false }
    }

    /// What is to be said of how it is now.
    pub(super) fn is_now(&mut self, available: bool, now: UnixMillis) -> Option<Back> {
        if !available {
            self.lost.get_or_insert(now);
            return None;
        }
        let lasted = Duration::from_millis(now.0.saturating_sub(self.lost.take()?.0));
        let again = std::mem::replace(&mut self.ever, true);
        Some(if again { Back::Again(lasted) } else { Back::First(lasted) })
    }
}

/// Who leads, as it was said last.
#[derive(Default)]
pub(super) struct Led(Option<NodeId>);

impl Led {
    /// The leader, if it is another than the last that was known.
    pub(super) fn is_now(&mut self, leader: Option<NodeId>) -> Option<NodeId> {
        let leader = leader.filter(|leader| self.0 != Some(*leader))?;
        self.0 = Some(leader);
        Some(leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(reason: &str) -> Waiting {
        Waiting { reason: reason.into(), seeds: Vec::new() }
    }

    #[test]
    fn what_is_waited_for_is_said_after_a_while_and_then_now_and_again() {
        let mut complaint = Complaint::default();
        let wait = |reason: &str| Some((plain(reason), TELL_AGAIN));
        let said: Vec<_> =
            (0..70).filter(|round| complaint.due(wait("b"), *round).is_some()).collect();
        assert_eq!(said, [2, 32, 62]);
        assert_eq!(complaint.due(wait("c"), 70), None, "something else, which may come by itself");
        assert_eq!(complaint.due(wait("c"), 72), Some(plain("c")));
        assert_eq!(complaint.due(None, 73), None);
        assert_eq!(complaint.due(wait("c"), 74), None);
    }

    #[test]
    fn seeds_that_refuse_are_not_to_be_started() {
        let refusals = BTreeMap::from([("b".to_owned(), "b refuses this node".to_owned())]);
        let said = |seeds: &[&str]| {
            let seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect();
            missing("out of reach", seeds, &refusals).reason
        };
        assert_eq!(said(&["a", "c"]), "out of reach: start a, c");
        assert_eq!(said(&["a", "b", "c"]), "out of reach: start a, c; b refuses this node");
        assert_eq!(said(&["b"]), "out of reach: b refuses this node");
    }

    #[test]
    fn that_names_can_be_registered_is_said_once_and_after_each_outage() {
        let mut names = Availability::none_since(UnixMillis(1_000));
        let said = [(false, 2_000), (true, 3_000), (true, 4_000), (false, 5_000), (false, 6_000)]
            .map(|(available, at)| names.is_now(available, UnixMillis(at)));
        assert_eq!(said, [None, Some(Back::First(Duration::from_secs(2))), None, None, None]);
        let back = names.is_now(true, UnixMillis(9_000));
        assert_eq!(back, Some(Back::Again(Duration::from_secs(4))));
    }

    #[test]
    fn a_leader_is_told_of_when_it_is_another() {
        let mut led = Led::default();
        let [a, b] = [1, 2].map(|id| Some(NodeId(id)));
        assert_eq!(
            [a, a, None, a, b, None].map(|leader| led.is_now(leader)),
            [a, None, None, None, b, None]
        );
    }
}
