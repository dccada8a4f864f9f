//! What the deciding parts of the mesh ask the engine to do, as values that can be compared.
//!
//! A frame to this node itself is handed back to the part that it is for, like a peer's: an owner
//! treats its own sessions as it treats those of others. What comes of that is done after all that
//! is in the list already. Never does anything itself.

use crate::{AgentId, NodeId, SessionId, wire::Control};

/// One thing to be done, after those before it in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the frame; to this node itself if that is the receiver. Without a link it is dropped:
    /// what matters of it is made up for when the link is there.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: Control,
    },
    /// The session's arrival is known wherever it matters: it may greet its agent. Once for each
    /// session, and never after [`Outdone`](Self::Outdone).
    Admit {
        /// Whose session.
        agent: AgentId,
        /// Which one.
        session: SessionId,
    },
    /// The session is admitted next, though this node has not said on all lanes that it knows of it:
    /// its broadcasts pass the session by until it does.
    PassBy {
        /// Whose session.
        agent: AgentId,
        /// Which one.
        session: SessionId,
        /// The node that may not know of it.
        node: NodeId,
        /// The lanes on which it has said so: a bit for each.
        heard: u8,
    },
    /// The agent has a newer session: this one is closed with 4009. No [`Presence::closed`] is
    /// needed, and one does no harm.
    ///
    /// [`Presence::closed`]: super::presence::Presence::closed
    Outdone {
        /// Whose session.
        agent: AgentId,
        /// The older one, which was here.
        session: SessionId,
        /// The newer one.
        by: SessionId,
    },
}
