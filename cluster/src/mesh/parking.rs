//! Rate limits between two homes: what an agent has spent waits at its global owner until its next
//! home takes it, so that a hop to another node resets nothing (PROTOCOL section 8).
//!
//! The state moves and is never copied: whoever has it, parked or taken, is the only one. Knows no
//! quota: a debt is the time until its quota would be full again, and shrinks as time passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use super::{action::Action, ring::Rings};
use crate::{
    AgentId, NodeId, SessionId,
    wire::{Control, Spent},
};

/// Agents that are known here at most, some 200 bytes each; beyond it those go whose time ends
/// first. The fair share of an owner among 100 nodes, with a million agents that all left within the
/// hour, is a tenth of it.
const ENTRIES_MAX: usize = 100_000;

/// After a change of the rings so many entries are looked at in a tick of 50 ms, so that nobody waits
/// long for the lock: all of them in a second.
const LOOKED_AT_MAX: usize = 8_192;

/// For so long it is known who took a state: an older home that parks late has its part forwarded.
const TAKER_KNOWN: Duration = Duration::from_mins(2);

/// For so long refusals count after they were parked.
const REFUSALS: Duration = Duration::from_mins(1);

/// No debt is longer than its quota's period.
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What this node keeps of others' limits, as their agents' global owner.
#[derive(Debug)]
pub(super) struct Parking {
    me: NodeId,
    rings: Rings,
    entries: BTreeMap<AgentId, Entry>,
    /// When each entry is of no use any more.
    ends: BTreeSet<(Duration, AgentId)>,
    /// Behind whom the entries have not been looked at since the rings changed; none if all were.
    to_look_at: Option<Bound<AgentId>>,
}

#[derive(Debug)]
struct Entry {
    /// The newest session that parked or took.
    session: SessionId,
    /// What is parked; none if it was taken by the session.
    spent: Option<Spent>,
    since: Duration,
}

impl Entry {
    fn end(&self) -> Duration {
        self.since + self.spent.as_ref().map_or(TAKER_KNOWN, lifetime)
    }
}

impl Parking {
    /// An owner of nothing.
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            rings: Rings::default(),
            entries: BTreeMap::new(),
            ends: BTreeSet::new(),
            to_look_at: None,
        }
    }

    /// An agent's last session on its node has ended: what it has spent waits here, or goes on to the
    /// newer session that has asked for it.
    pub(super) fn park(
        &mut self,
        agent: &AgentId,
        session: SessionId,
        spent: Spent,
        now: Duration,
    ) -> Vec<Action> {
        self.expire(now);
        let spent = capped(spent);
        match self.take(agent) {
            Some(Entry { session: taker, spent: None, since }) if taker > session => {
                self.enter(agent, Entry { session: taker, spent: None, since });
                vec![give(agent, taker, spent)]
            }
            known => {
                let before = known.as_ref().map_or(session, |known| known.session);
                let parked = known.and_then(|known| left(&known, now)).unwrap_or_default();
                let spent = Some(sum(parked, spent));
                self.enter(agent, Entry { session: session.max(before), spent, since: now });
                Vec::new()
            }
        }
    }

    /// A session has opened: it gets what is parked, and what is still to come. An older one than is
    /// known gets nothing.
    pub(super) fn unpark(
        &mut self,
        agent: &AgentId,
        session: SessionId,
        now: Duration,
    ) -> Vec<Action> {
        self.expire(now);
        match self.take(agent) {
            Some(newer) if newer.session > session => {
                self.enter(agent, newer);
                Vec::new()
            }
            known => {
                let spent = known.and_then(|known| left(&known, now));
                self.enter(agent, Entry { session, spent: None, since: now });
                spent.into_iter().map(|spent| give(agent, session, spent)).collect()
            }
        }
    }

    /// The rings have changed: what others own now is handed over to them, at the ticks to come. Until
    /// then it waits here: whoever opens a session gets it from the new owner, to whom it comes late.
    pub(super) fn ring_changed(&mut self, rings: Rings) {
        self.rings = rings;
        self.to_look_at = Some(Bound::Unbounded);
    }

    /// Time passes: debts end, and what others own is handed over.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.expire(now);
        let Some(from) = self.to_look_at.take() else { return Vec::new() };
        let owner = |agent: &AgentId| self.rings.global_owner(agent.as_str());
        let mut moved = Vec::new();
        for (n, agent) in self.entries.range((from, Bound::Unbounded)).map(|(it, _)| it).enumerate()
        {
            if let Some(to) = owner(agent).filter(|owner| *owner != self.me) {
                moved.push((agent.clone(), to));
            }
            if n + 1 == LOOKED_AT_MAX {
                self.to_look_at = Some(Bound::Excluded(agent.clone()));
                break;
            }
        }
        moved.into_iter().filter_map(|(agent, to)| self.hand_over(&agent, to, now)).collect()
    }

    fn hand_over(&mut self, agent: &AgentId, to: NodeId, now: Duration) -> Option<Action> {
        let entry = self.take(agent)?;
        let (agent, session) = (agent.clone(), entry.session);
        let frame = match left(&entry, now) {
            Some(spent) => Control::Park { agent, session, spent },
            None => Control::Unpark { agent, session },
        };
        Some(Action::Send { to, frame })
    }

    fn expire(&mut self, now: Duration) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, agent)) = self.ends.pop_first() {
            self.entries.remove(&agent);
        }
    }

    fn take(&mut self, agent: &AgentId) -> Option<Entry> {
        let entry = self.entries.remove(agent)?;
        self.ends.remove(&(entry.end(), agent.clone()));
        Some(entry)
    }

    fn enter(&mut self, agent: &AgentId, entry: Entry) {
        if self.entries.len() >= ENTRIES_MAX {
            self.drop_first();
        }
        self.ends.insert((entry.end(), agent.clone()));
        self.entries.insert(agent.clone(), entry);
    }
}

fn give(agent: &AgentId, to: SessionId, spent: Spent) -> Action {
    let frame = Control::Spent { agent: agent.clone(), session: to, spent };
    Action::Send { to: to.node, frame }
}

/// How long a debt is one.
fn lifetime(spent: &Spent) -> Duration {
    let refused = if spent.refusals > 0 { REFUSALS } else { Duration::ZERO };
    Duration::from_nanos(spent.minute_ns.max(spent.hour_ns)).max(refused)
}

/// What is left of a parked debt; none if nothing is parked, or all is over.
fn left(entry: &Entry, now: Duration) -> Option<Spent> {
    let spent = entry.spent?;
    let passed = now.saturating_sub(entry.since);
    let left = Spent {
        minute_ns: spent.minute_ns.saturating_sub(nanos(passed)),
        hour_ns: spent.hour_ns.saturating_sub(nanos(passed)),
        refusals: if passed < REFUSALS { spent.refusals } else { 0 },
    };
    (left != Spent::default()).then_some(left)
}

/// Debts of two homes, which count together.
fn sum(one: Spent, other: Spent) -> Spent {
    capped(Spent {
        minute_ns: one.minute_ns.saturating_add(other.minute_ns),
        hour_ns: one.hour_ns.saturating_add(other.hour_ns),
        refusals: one.refusals.saturating_add(other.refusals),
    })
}

fn capped(spent: Spent) -> Spent {
    Spent {
        minute_ns: spent.minute_ns.min(nanos(MINUTE)),
        hour_ns: spent.hour_ns.min(nanos(HOUR)),
        ..spent
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Generation, Incarnation,
        membership::{Load, Member, MemberState},
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn agent(name: &str) -> AgentId {
        name.parse().expect("a name")
    }

    fn session(time: u64, node: u64) -> SessionId {
        SessionId { time, node: NodeId(node) }
    }

    /// Seconds of the minute's quota, of the hour's, and refusals.
    fn spent(minute: u64, hour: u64, refusals: u32) -> Spent {
        Spent { minute_ns: nanos(at(minute)), hour_ns: nanos(at(hour)), refusals }
    }

    fn parking() -> Parking {
        Parking::new(NodeId(1))
    }

    fn all_owned_by_another() -> Rings {
        let other = Member {
            incarnation: Incarnation { node: NodeId(9), generation: Generation(1) },
            name: String::new(),
            region: String::new(),
            version: String::new(),
            address: "127.0.0.1:1".parse().expect("an address"),
            state: MemberState::Alive,
            load: Load::default(),
        };
        Rings::default().changed(&[other], at(10)).expect("it is new")
    }

    #[test]
    fn what_was_parked_shrinks_until_the_next_home_takes_it_all() {
        let (mut parking, abc) = (parking(), agent("abc"));
        assert_eq!(parking.park(&abc, session(1, 2), spent(30, 100, 3), at(0)), []);
        let next = session(2, 3);
        assert_eq!(parking.unpark(&abc, next, at(10)), [give(&abc, next, spent(20, 90, 3))]);
        assert_eq!(parking.unpark(&abc, session(3, 4), at(11)), [], "it is not given twice");
    }

    #[test]
    fn a_late_home_has_its_part_forwarded_to_the_newest() {
        let (mut parking, abc) = (parking(), agent("abc"));
        let (old, new) = (session(1, 2), session(2, 3));
        assert_eq!(parking.unpark(&abc, new, at(0)), []);
        let late = parking.park(&abc, old, spent(30, 100, 0), at(1));
        assert_eq!(late, [give(&abc, new, spent(30, 100, 0))]);
        assert_eq!(parking.park(&abc, new, spent(5, 50, 0), at(2)), [], "its own part waits");
        let newest = session(3, 2);
        assert_eq!(parking.unpark(&abc, newest, at(2)), [give(&abc, newest, spent(5, 50, 0))]);
    }

    #[test]
    fn debts_of_two_homes_add_up_but_to_no_more_than_all() {
        let (mut parking, abc) = (parking(), agent("abc"));
        parking.park(&abc, session(2, 2), spent(40, 100, 1), at(0));
        parking.park(&abc, session(1, 3), spent(40, 100, 1), at(10));
        let next = session(3, 4);
        assert_eq!(parking.unpark(&abc, next, at(10)), [give(&abc, next, spent(60, 190, 2))]);
    }

    #[test]
    fn an_older_session_gets_nothing() {
        let (mut parking, abc) = (parking(), agent("abc"));
        parking.park(&abc, session(5, 2), spent(30, 100, 0), at(0));
        assert_eq!(parking.unpark(&abc, session(4, 3), at(1)), []);
        let next = session(6, 3);
        assert_eq!(parking.unpark(&abc, next, at(1)), [give(&abc, next, spent(29, 99, 0))]);
    }

    #[test]
    fn everything_ends() {
        let mut parking = parking();
        parking.park(&agent("debt"), session(1, 2), spent(0, 9_999, 0), at(0));
        parking.park(&agent("refused"), session(1, 2), spent(0, 0, 9), at(0));
        parking.park(&agent("nothing"), session(1, 2), spent(0, 0, 0), at(0));
        parking.unpark(&agent("taken"), session(1, 2), at(0));
        let mut known = |seconds| {
            parking.tick(at(seconds));
            parking.entries.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(known(59), ["debt", "refused", "taken"]);
        assert_eq!(known(60), ["debt", "taken"]);
        assert_eq!(known(120), ["debt"]);
        assert_eq!(known(3599), ["debt"]);
        assert_eq!(known(3600), Vec::<String>::new());
        assert!(parking.entries.is_empty() && parking.ends.is_empty());
    }

    #[test]
    fn full_it_forgets_whose_time_ends_first() {
        let mut parking = parking();
        parking.park(&agent("short"), session(1, 2), spent(0, 10, 0), at(0));
        for n in 1..ENTRIES_MAX {
            parking.park(&agent(&format!("long-{n}")), session(1, 2), spent(0, 100, 0), at(0));
        }
        assert_eq!(parking.unpark(&agent("short"), session(2, 2), at(0)).len(), 1);
        parking.park(&agent("short"), session(2, 2), spent(0, 10, 0), at(0));
        parking.park(&agent("one-more"), session(1, 2), spent(0, 100, 0), at(0));
        assert_eq!(parking.entries.len(), ENTRIES_MAX);
        assert_eq!(parking.unpark(&agent("short"), session(3, 2), at(0)), []);
    }

    #[test]
    fn another_owner_gets_what_is_its_own() {
        let (mut parking, parked, taken) = (parking(), agent("parked"), agent("taken"));
        parking.park(&parked, session(1, 2), spent(30, 100, 0), at(0));
        parking.unpark(&taken, session(2, 3), at(0));
        let park = Control::Park { agent: parked, session: session(1, 2), spent: spent(20, 90, 0) };
        let unpark = Control::Unpark { agent: taken, session: session(2, 3) };
        let handed = [park, unpark].map(|frame| Action::Send { to: NodeId(9), frame });
        parking.ring_changed(all_owned_by_another());
        assert_eq!(parking.tick(at(10)), handed);
        assert!(parking.entries.is_empty() && parking.ends.is_empty());
        assert_eq!(parking.tick(at(10)), []);
    }

    #[test]
    fn however_much_is_handed_over_a_tick_does_a_part_of_it() {
        let (mut parking, all) = (parking(), LOOKED_AT_MAX * 2 + 1);
        for n in 0..all {
            parking.park(&agent(&format!("agent-{n}")), session(1, 2), spent(0, 100, 0), at(0));
        }
        parking.ring_changed(all_owned_by_another());
        let ticks: Vec<usize> = (0..4).map(|_| parking.tick(at(10)).len()).collect();
        assert_eq!(ticks, [LOOKED_AT_MAX, LOOKED_AT_MAX, 1, 0]);
        assert!(parking.entries.is_empty() && parking.ends.is_empty());
    }

    proptest! {
        /// In whatever order the frames of a hop come, the newest session gets the whole debt.
        #[test]
        fn nothing_is_reset_by_a_hop(hops in 1u64..6, order in any::<u64>()) {
            let (mut parking, abc) = (parking(), agent("abc"));
            // Each home parks one second of debt after it has opened; both may come late.
            let mut queues: Vec<Vec<bool>> = (0..hops).map(|_| vec![true, false]).collect();
            let (mut seed, mut given) = (order, 0);
            let last = session(hops, hops);
            while queues.iter().any(|queue| !queue.is_empty()) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let n = usize::try_from((seed >> 33) % hops).expect("few");
                let Some(is_park) = queues[n].pop() else { continue };
                let own = session(n as u64 + 1, n as u64 + 1);
                let actions = match is_park {
                    true if own == last => Vec::new(),
                    true => parking.park(&abc, own, spent(0, 1, 0), at(0)),
                    false => parking.unpark(&abc, own, at(0)),
                };
                for action in actions {
                    let Action::Send { to, frame: Control::Spent { spent, .. } } = action else {
                        panic!("{action:?}")
                    };
                    if to == last.node {
                        given += spent.hour_ns;
                    } else {
                        // Who gets it and is no more the home parks it again.
                        let old = session(to.0, to.0);
                        for action in parking.park(&abc, old, spent, at(0)) {
                            prop_assert_eq!(&action, &give(&abc, last, spent));
                            given += spent.hour_ns;
                        }
                    }
                }
            }
            prop_assert_eq!(given, nanos(at(hops - 1)));
        }
    }
}
