//! The bytes of [`Control`] frames: the fields of each kind, in order, as one `MessagePack` array.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Visitor},
};

use super::{Control, WireError, frame};

/// How deep values may lie in each other; the library's own bound is more than a small stack bears.
/// The deepest in use: an array of fields, an outcome, its fields, a session's.
const DEPTH_MAX: usize = 8;

/// Writes both directions from one list, so that they cannot disagree.
macro_rules! kinds {
    ($( $kind:literal => $variant:ident { $( $field:ident $( as $form:ident )? ),* } )*) => {
        impl Control {
            /// Appends the frame, whole.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$variant { $( $field ),* } => {
                        append(out, $kind, &( $( $( $form )? ($field), )* ));
                    } )*
                }
            }

            /// Reads the body of a frame of this kind.
            ///
            /// # Errors
            /// [`WireError::UnknownKind`] if it is no kind of the control lane's, and
            /// [`WireError::Malformed`] if the body is not one frame's, or more than one's.
            #[allow(unused_parens)] // around a field that is written as it is
            pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
                match kind {
                    $( $kind => {
                        let ( $( $( $form )? ($field), )* ) = read(kind, body)?;
                        Ok(Self::$variant { $( $field ),* })
                    } )*
                    _ => Err(WireError::UnknownKind(kind)),
                }
            }
        }
    };
}

kinds! {
    1 => Ping { number, time, broadcasts }
    2 => Pong { number, time }
    3 => Publish { agent, session, arrival }
    4 => Published { agent, session, outcome }
    5 => Withdraw { agent, session }
    6 => Synced { ring }
    7 => Lookup { ask, agent, home_only }
    8 => Located { ask, agent, place }
    9 => Moved { agent, was, now }
    10 => Leaving {}
    11 => Resend { lane, from, to }
    12 => Park { agent, session, spent }
    13 => Unpark { agent, session }
    14 => Spent { agent, session, spent }
    15 => Ask { ask, body as Binary }
    16 => Answer { ask, body as Binary }
    17 => Tell { body as Binary }
}

fn append(out: &mut Vec<u8>, kind: u8, fields: &impl Serialize) {
    frame::append(out, kind, |out| {
        let written = rmp_serde::encode::write(out, fields);
        // All lengths are known and a `Vec` takes any bytes.
        debug_assert!(written.is_ok(), "{written:?}");
    });
}

fn read<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, WireError> {
    let mut reader = rmp_serde::Deserializer::new(body);
    reader.set_max_depth(DEPTH_MAX);
    match T::deserialize(&mut reader) {
        Ok(fields) if reader.into_inner().is_empty() => Ok(fields),
        _ => Err(WireError::Malformed(kind)),
    }
}

/// Bytes as `MessagePack`'s byte string, not as a list of numbers.
struct Binary<B>(B);

impl<B: AsRef<[u8]>> Serialize for Binary<B> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0.as_ref())
    }
}

impl<'de> Deserialize<'de> for Binary<Vec<u8>> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Copied;
        impl Visitor<'_> for Copied {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Copied).map(Self)
    }
}
