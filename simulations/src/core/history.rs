//! What was seen in a run, from outside: the oracle's evidence.
//!
//! Sessions, accepted messages, deliveries, losses that were counted, and when two nodes could not
//! speak to each other undisturbed. Written by the world as it goes; judged by [`crate::promises`].

use std::{collections::BTreeMap, time::Duration};

use cluster::{SessionId, mesh::Lost};

use super::event::Life;

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct History {
    /// All sessions, in the order in which they were opened.
    pub sessions: Vec<SessionRecord>,
    /// All accepted messages; a message's number is its place.
    pub messages: Vec<MessageRecord>,
    /// What two nodes' traffic suffered, by pair, the lower node first.
    pub disturbances: BTreeMap<(usize, usize), Vec<Disturbance>>,
    /// Lost messages that nodes counted, by reason, in all lives.
    pub lost: BTreeMap<Reason, u64>,
    /// Messages to one agent each that vanished with links, as far as the network saw.
    pub vanished: u64,
    /// Starts of nodes, but for the first ones.
    pub restarts: u64,
    /// Lives that ended, and when.
    pub deaths: Vec<(Life, Duration)>,
    /// Nodes that stopped as they were told to.
    pub stops: u64,
    /// Nodes that crashed: what they had accepted and not sent is gone with them.
    pub crashes: u64,
    /// Links that came up.
    pub links: u64,
    /// Frames that arrived.
    pub frames: u64,
    /// Sessions that the mesh had closed with 4009, here with the session that it gave as the newer.
    pub replaced: Vec<(usize, SessionId)>,
    /// Breaches that the world saw at once, in words: bytes that nobody sent, agents that are none.
    pub nonsense: Vec<Nonsense>,
    /// When all faults were over.
    pub healed: Duration,
    /// When the agents began to write to all others, and the number of the first such message.
    pub probed: (Duration, usize),
    /// When the run ended.
    pub ended: Duration,
}

/// Why a message was counted as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The agent has no session anywhere.
    Offline,
    /// Its place could not be found out in time.
    Unresolved,
    /// Too much waited.
    RouteFull,
    /// The queue to a node was full.
    LinkFull,
    /// A link was lost.
    LinkLost,
    /// It came back too late.
    Stale,
    /// It came from a node that has no business to send it so.
    Stray,
}

impl From<Lost> for Reason {
    fn from(why: Lost) -> Self {
        match why {
            Lost::Offline => Self::Offline,
            Lost::Unresolved => Self::Unresolved,
            Lost::RouteFull => Self::RouteFull,
            Lost::LinkFull => Self::LinkFull,
            Lost::LinkLost => Self::LinkLost,
            Lost::Stale => Self::Stale,
            Lost::Stray => Self::Stray,
        }
    }
}

/// A session as its agent and the world saw it.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Whose.
    pub agent: usize,
    /// Where.
    pub home: Life,
    /// Its id.
    pub id: SessionId,
    /// When its handshake was done.
    pub opened: Duration,
    /// When its welcome went out.
    pub admitted: Option<Duration>,
    /// When it ended, and why.
    pub ended: Option<(Duration, Ending)>,
    /// The messages that it got, in order.
    pub received: Vec<usize>,
    /// Messages that waited behind its welcome when it ended: gone with it.
    pub unwritten: u64,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The agent closed it.
    Closed,
    /// The agent has a newer one: 4009.
    Replaced,
    /// Its node drained: 1001.
    Drained,
    /// Its node crashed.
    Crashed,
}

/// An accepted message.
#[derive(Clone, Debug)]
pub struct MessageRecord {
    /// The sender's session.
    pub session: usize,
    /// When it was accepted.
    pub accepted: Duration,
    /// To whom.
    pub to: Recipients,
    /// Of a message to all: to whom it goes as a direct one, behind others that wait.
    pub held_back: Vec<usize>,
    /// Whether its sender knows that a node accepted it: what is under way when a session ends may
    /// never have reached one.
    pub certain: bool,
}

/// To whom a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// These agents, each once.
    Agents(Vec<usize>),
    /// All but the sender.
    All,
}

/// A time in which two nodes could not speak to each other undisturbed.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    /// When it began.
    pub from: Duration,
    /// When it was over, if it was.
    pub until: Option<Duration>,
    /// Whether it began with a goodbye: what was said before is not in danger.
    pub graceful: bool,
}

/// Something that no correct node does, seen at once.
#[derive(Clone, Debug)]
pub struct Nonsense {
    /// What.
    pub what: String,
    /// The agent that it was done to.
    pub agent: Option<usize>,
    /// The message.
    pub message: Option<usize>,
}

/// How long after it was accepted a message may still be on its way: the longest that one waits to
/// be resolved, plus a second for the way itself.
pub const UNDER_WAY_MAX: Duration = Duration::from_secs(5);

/// How long two nodes that have a link again take to tell each other of their sessions.
const MEETING_MAX: Duration = Duration::from_secs(1);

/// As [`UNDER_WAY_MAX`], before a goodbye, which comes after the sessions' end and when lanes are flushed.
const UNDER_WAY_MAX_GRACEFUL: Duration = Duration::from_millis(500);

impl History {
    /// Notes whether two nodes can speak to each other undisturbed from `now` on.
    pub(crate) fn note_pair(
        &mut self,
        a: usize,
        b: usize,
        good: bool,
        graceful: bool,
        now: Duration,
    ) {
        let pair = self.disturbances.entry((a.min(b), a.max(b))).or_default();
        match pair.last_mut() {
            Some(last) if last.until.is_none() => {
                last.graceful &= graceful;
                if good {
                    last.until = Some(now);
                }
            }
            _ if !good => pair.push(Disturbance { from: now, until: None, graceful }),
            _ => {}
        }
    }

    /// Whether nothing stood between two nodes from `accepted` for as long as a message may be under
    /// way. A node and itself are never disturbed here; whether it lived on, its sessions tell.
    pub fn undisturbed(&self, a: usize, b: usize, accepted: Duration) -> bool {
        if a == b {
            return true;
        }
        let pair = self.disturbances.get(&(a.min(b), a.max(b)));
        pair.into_iter().flatten().all(|disturbance| {
            let under_way =
                if disturbance.graceful { UNDER_WAY_MAX_GRACEFUL } else { UNDER_WAY_MAX };
            disturbance.from > accepted + under_way
                || disturbance.until.is_some_and(|until| until + MEETING_MAX < accepted)
        })
    }

    /// Whether nothing stood between two nodes all the time between two moments.
    pub fn undisturbed_within(&self, a: usize, b: usize, from: Duration, until: Duration) -> bool {
        let pair = self.disturbances.get(&(a.min(b), a.max(b)));
        pair.into_iter().flatten().all(|disturbance| {
            disturbance.from > until || disturbance.until.is_some_and(|end| end < from)
        })
    }

    /// Whether a node lived on while what it accepted at that moment may have been under way. One
    /// that stops as it is told to has lived on: it says goodbye when all is on its way.
    pub fn lived_on(&self, life: Life, accepted: Duration) -> bool {
        self.deaths.iter().all(|(dead, at)| *dead != life || *at > accepted + UNDER_WAY_MAX)
    }

    /// Whether the session's agent had a newer one that was open before `until`: opened later, or, if
    /// the clocks had not met, of a higher id.
    pub fn has_newer(&self, index: usize, until: Duration) -> bool {
        let session = &self.sessions[index];
        self.sessions.iter().enumerate().any(|(other, newer)| {
            let overlaps = newer.opened <= until
                && newer.ended.is_none_or(|(ended, _)| ended >= session.opened);
            newer.agent == session.agent && overlaps && (other > index || newer.id > session.id)
        })
    }

    /// Whether the session's agent had an older one, still open at that moment, on a node from which
    /// the session's own was cut off at some time since it opened.
    pub fn has_older_beyond_reach(&self, index: usize, accepted: Duration) -> bool {
        let session = &self.sessions[index];
        self.sessions[..index].iter().any(|older| {
            older.agent == session.agent
                && older.ended.is_none_or(|(ended, _)| ended > accepted)
                && !self.undisturbed_within(
                    older.home.node,
                    session.home.node,
                    session.opened.saturating_sub(MEETING_MAX),
                    accepted,
                )
        })
    }

    /// The message that a number names.
    pub fn sender(&self, message: usize) -> Option<&SessionRecord> {
        self.sessions.get(self.messages.get(message)?.session)
    }
}

impl SessionRecord {
    /// Whether the session was there from `from` until `until`.
    pub fn lived_through(&self, from: Duration, until: Duration) -> bool {
        self.admitted.is_some_and(|admitted| admitted <= from)
            && self.ended.is_none_or(|(ended, _)| ended > until)
    }
}

impl Recipients {
    /// Whether a message of `sender` to these is for `agent`.
    pub fn include(&self, agent: usize, sender: usize) -> bool {
        match self {
            Self::Agents(agents) => agents.contains(&agent),
            Self::All => agent != sender,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_disturbance_concerns_what_is_under_way_when_it_begins() {
        let mut history = History::default();
        history.note_pair(2, 1, true, false, seconds(1));
        assert!(history.undisturbed(1, 2, seconds(1)));
        history.note_pair(1, 2, false, false, seconds(10));
        history.note_pair(1, 2, false, false, seconds(11));
        history.note_pair(2, 1, true, false, seconds(12));
        for (accepted, undisturbed) in [(4, true), (5, false), (11, false), (13, false), (14, true)]
        {
            assert_eq!(history.undisturbed(1, 2, seconds(accepted)), undisturbed, "{accepted}");
        }
        assert!(history.undisturbed(1, 3, seconds(11)) && history.undisturbed(1, 1, seconds(11)));
    }

    #[test]
    fn a_goodbye_concerns_only_what_comes_late() {
        let mut history = History::default();
        history.note_pair(1, 2, false, true, seconds(10));
        assert!(history.undisturbed(1, 2, seconds(9)));
        assert!(!history.undisturbed(1, 2, seconds(10)));
    }
}
