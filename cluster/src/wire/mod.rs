//! What nodes say to each other: every frame, in one numbered list.
//!
//! Knows the bytes of each frame and nothing of who sends it or why. A frame is a length (u32,
//! little-endian, of what follows), a kind (u8) and a body. Bodies of [`Control`] are `MessagePack`;
//! those of [`Data`] are laid out by hand, since they carry the messages: the agents' bytes are copied
//! once into the lane's buffer and sliced, not copied, out of what was received.
//! Numbers are never reused; frozen bytes of each kind are held by a test.

mod control;
mod control_codec;
mod data;
mod data_codec;
mod frame;
#[cfg(test)]
mod tests;

pub use control::{Control, Located, Published, Spent};
pub use data::{Body, Broadcast, Data, Direct, Names, Relayed};
pub use frame::split;

/// Data lanes of a link in each direction. A sender's messages keep to one, so that they stay in
/// order, and the loss of one sender's packet delays only its lane's.
pub const LANES: usize = 4;

/// The longest frame, its length field not counted: a message of the greatest size that can be
/// configured (16 MiB), what the relay adds to it, and [`NAMES_MAX`] names of the greatest length
/// with a length each. So no frame of [`Data`] that keeps to these bounds is too long, nor one of
/// [`Control`] whose opaque body is no longer than a message.
pub const FRAME_BYTES_MAX: usize = (16 << 20) + NAMES_MAX * 65 + (64 << 10);

/// The most names in one frame.
pub const NAMES_MAX: usize = 65_535;

/// One ordered stream of frames in a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// [`Control`] frames; sent before all others.
    Control,
    /// Opaque messages of the membership; lost ones are made up for.
    Gossip,
    /// [`Data`] frames; 0 to [`LANES`] − 1.
    Data(u8),
}

/// The data lane of a sender: the same on every node and for ever.
pub fn lane_of(sender: &str) -> u8 {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(sender.as_bytes());
    u8::try_from(hasher.finish() % LANES as u64).unwrap_or_default()
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length is above [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// A kind that this release does not know.
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    /// The body is not what its kind says; kind 0 if the frame is too short to have one.
    #[error("a malformed frame of kind {0}")]
    Malformed(u8),
}
