//! Rate limits between two homes: what an agent has spent waits at its global owner until its next
//! home takes it, so that a hop to another node resets nothing (PROTOCOL section 8).
//!
//! The state moves and is never copied: whoever has it, parked or taken, is the only one. Knows no
//! quota: a debt is the time until its quota would be full again, and shrinks as time passes.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// For so long it is known who took a state: an older home that parks late has its part forwarded.
const TAKER_KNOWN: Duration = Duration::from_mins(2);

/// For so long refusals count after they were parked.
const REFUSALS: Duration = Duration::from_mins(1);

/// No debt is longer than its quota's period.
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What this node keeps of others' limits, as their agents' global owner.
#[derive(Debug)]
pub struct Parking {
    me: NodeId,
    rings: Rings,
    entries: BTreeMap<AgentId, Entry>,
    /// When each entry is of no use any more.
    ends: BTreeSet<(Duration, AgentId)>,
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
    pub fn new(me: NodeId) -> Self {
        Self { me, rings: Rings::default(), entries: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// An agent's last session on its node has ended: what it has spent waits here, or goes on to the
    /// newer session that has asked for it.
    pub fn park(
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
    pub fn unpark(&mut self, agent: &AgentId, session: SessionId, now: Duration) -> Vec<Action> {
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

    /// The rings have changed: what others own now is handed over to them.
    pub fn ring_changed(&mut self, rings: Rings, now: Duration) -> Vec<Action> {
        self.rings = rings;
        self.expire(now);
        let owner = |agent: &AgentId| self.rings.global_owner(agent.as_str());
        let moved: Vec<(AgentId, NodeId)> = self
            .entries
            .keys()
            .filter_map(|agent| Some((agent.clone(), owner(agent)?)))
            .filter(|(_, owner)| *owner != self.me)
            .collect();
        let hand_over = |(agent, to): (AgentId, NodeId)| {
            let entry = self.take(&agent)?;
            let session = entry.session;
            let frame = match left(&entry, now) {
                Some(spent) => Control::Park { agent, session, spent },
                None => Control::Unpark { agent, session },
            };
            Some(Action::Send { to, frame })
        };
        moved.into_iter().filter_map(hand_over).collect()
    }

    /// Time passes: debts end.
    pub fn tick(&mut self, now: Duration) {
        self.expire(now);
    }

    /// How many agents are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
    Action::Send { to: to.node, frame: Control::Spent { agent: agent.clone(), spent } }
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
