//! Frames of the control lane.

use serde::{Deserialize, Serialize};

use super::LANES;
use crate::{AgentId, NodeId, SessionId, UnixMillis};

/// What nodes tell each other about sessions, routes and themselves. Small, and never dropped while
/// the link lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Kind 1: are you there? Answered by `Pong` with the same number.
    Ping {
        /// Told back.
        number: u64,
        /// The sender's mesh time.
        time: UnixMillis,
        /// The last broadcast of the sender's own on each lane.
        broadcasts: [u64; LANES],
    },
    /// Kind 2: here I am.
    Pong {
        /// The ping's number.
        number: u64,
        /// The sender's mesh time.
        time: UnixMillis,
    },
    /// Kind 3, home to owner: the agent's session is with me. Answered by `Published`.
    Publish {
        /// Whose session.
        agent: AgentId,
        /// Its id; its node is the sender.
        session: SessionId,
        /// Whether the session is new, so that others are to be told; else the record is renewed.
        arrival: bool,
    },
    /// Kind 4, owner to home: what became of a `Publish`.
    Published {
        /// Whose session.
        agent: AgentId,
        /// The published session.
        session: SessionId,
        /// What became of it.
        outcome: Published,
    },
    /// Kind 5, home to owner: this session is no more.
    Withdraw {
        /// Whose session.
        agent: AgentId,
        /// Its id.
        session: SessionId,
    },
    /// Kind 6: you have been told of all my sessions that you own under this ring.
    Synced {
        /// The version of the ring of the receiver's region.
        ring: u64,
    },
    /// Kind 7: where is the agent's session? Answered by `Located`.
    Lookup {
        /// Told back.
        ask: u64,
        /// Whose session.
        agent: AgentId,
        /// Answer from what is known for sure here; never `Unsettled`; the asker is not told of
        /// changes.
        home_only: bool,
    },
    /// Kind 8: the answer to a `Lookup`.
    Located {
        /// The question's number.
        ask: u64,
        /// Whose session.
        agent: AgentId,
        /// Where it is.
        place: Located,
    },
    /// Kind 9: the agent's session is elsewhere now, or nowhere. If it is somewhere, a `Barrier` is
    /// sent to its home on each data lane.
    Moved {
        /// Whose session.
        agent: AgentId,
        /// Where it was, if that is known.
        was: Option<SessionId>,
        /// Where it is now; none if the agent has left.
        now: Option<SessionId>,
    },
    /// Kind 10: I stop soon; I own nothing from now on.
    Leaving,
    /// Kind 11, to the origin of broadcasts: these did not come, send them to me directly.
    Resend {
        /// The lane.
        lane: u8,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// Kind 12, to an agent's global owner: the state of its rate limit, which its former home gives
    /// away.
    Park {
        /// Whose limit.
        agent: AgentId,
        /// The session that spent it.
        session: SessionId,
        /// What it has spent.
        spent: Spent,
    },
    /// Kind 13, to an agent's global owner: give me what it has spent.
    Unpark {
        /// Whose limit.
        agent: AgentId,
        /// The session that opened.
        session: SessionId,
    },
    /// Kind 14, global owner to home: the agent has spent this elsewhere.
    Spent {
        /// Whose limit.
        agent: AgentId,
        /// The session that asked for it.
        session: SessionId,
        /// What it has spent.
        spent: Spent,
    },
    /// Kind 15: a request of the node's own, opaque here. Answered by `Answer`, or not at all.
    Ask {
        /// Told back.
        ask: u64,
        /// The request.
        body: Vec<u8>,
    },
    /// Kind 16: the answer to an `Ask`.
    Answer {
        /// The question's number.
        ask: u64,
        /// The answer.
        body: Vec<u8>,
    },
    /// Kind 17: something that the node tells its peers, opaque here; not answered.
    Tell {
        /// What is told.
        body: Vec<u8>,
    },
}

/// What became of a `Publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Published {
    /// The record says so now; these nodes must know and will send their barriers to the home.
    Accepted {
        /// Who was told, or is to be told by the home, since the owner has no link to it.
        notified: Vec<NodeId>,
    },
    /// The owner knows this newer session.
    Outdone(SessionId),
}

/// The answer to a `Lookup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Located {
    /// This session, on its node.
    At(SessionId),
    /// The agent has no session.
    Nobody,
    /// The owner cannot say yet: not all nodes have told it of their sessions.
    Unsettled,
}

/// What an agent has spent of its rate limits: how long each quota would take to be full again, in
/// nanoseconds, and how often it was refused of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Of the minute's quota.
    pub minute_ns: u64,
    /// Of the hour's quota.
    pub hour_ns: u64,
    /// Refusals in the present window.
    pub refusals: u32,
}
