//! Which messages are traced, and how their traces and spans are called: worked out by every node for itself.
//!
//! A message's id is in its first bytes, the same on every node that it comes to. Its hash is the trace's
//! id, and says whether the message is traced: so all nodes with the same ratio trace the same messages, and
//! their spans join one trace, though not a byte of it travels with the message. Pure.

use siphasher::sip128::SipHasher13;

/// How a message's text begins, and how long its id is.
const BEGIN: &[u8] = b"{\"id\":\"";
const ID_LEN: usize = 32;

/// The characters at the end of an id that tell which process gave it.
const PROCESS_LEN: usize = 8;

/// Of a trace's id the last 56 bits are held against the ratio, as W3C Trace Context, level 2, has it.
const RANDOM_BITS: u32 = 56;

/// One million of these is every message.
const PARTS: u64 = 1_000_000;

/// Which messages are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio {
    /// Those whose bits are below this; 2^56 for all.
    below: u64,
}

/// The trace of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

/// A message that is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traced<'m> {
    /// Its id, as its recipients see it.
    pub(crate) message: &'m str,
    /// Its trace.
    pub(crate) trace: TraceId,
}

/// A step on a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'s> {
    /// The sender's node took it.
    Accept,
    /// That node looked up where its recipients are.
    Route,
    /// It was given to the link to this node, if it was.
    Send(u64),
    /// On this node, it was given to a named agent, or to all (empty).
    Deliver(u64, &'s str),
    /// On this node, it was lost for this reason.
    Drop(u64, &'s str),
}

impl Ratio {
    /// So many of a million messages, spread evenly.
    pub(crate) fn of_million(parts: u32) -> Self {
        Self { below: u64::from(parts).min(PARTS) * ((1 << RANDOM_BITS) / PARTS + 1) }
    }

    /// What is traced of a message that is given as a finished frame; none if it is not, or is no message.
    pub(crate) fn traced(self, frame: &[u8]) -> Option<Traced<'_>> {
        let message = id_of(frame)?;
        let trace = TraceId::of(message);
        let random = u64::try_from(trace.0 & ((1 << RANDOM_BITS) - 1)).ok()?;
        (random < self.below).then_some(Traced { message, trace })
    }
}

impl Traced<'_> {
    /// Whether the id was given by the process whose ids end so.
    pub(crate) fn is_of(&self, process: &str) -> bool {
        self.message.len() >= PROCESS_LEN && self.message.ends_with(process)
    }
}

impl TraceId {
    fn of(message: &str) -> Self {
        let hash = SipHasher13::new().hash(message.as_bytes());
        Self(hash.as_u128().max(1))
    }

    /// As it is sent.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The span of a step: no two steps have one, and no node need be asked for it.
    pub(crate) fn span(self, step: Step<'_>) -> [u8; 8] {
        let (kind, node, name) = match step {
            Step::Accept => (0_u8, 0, ""),
            Step::Route => (1, 0, ""),
            Step::Send(to) => (2, to, ""),
            Step::Deliver(node, agent) => (3, node, agent),
            Step::Drop(node, why) => (4, node, why),
        };
        let node = node.to_be_bytes();
        let text = [self.bytes().as_slice(), &[kind], &node, name.as_bytes()].concat();
        SipHasher13::new().hash(&text).h1.max(1).to_be_bytes()
    }
}

/// The id in a finished frame (RFC 6455 section 5.2; the relay masks none).
fn id_of(frame: &[u8]) -> Option<&str> {
    let header = match frame.get(1)? {
        ..=125 => 2,
        126 => 4,
        _ => 10,
    };
    let id = frame.get(header..)?.strip_prefix(BEGIN)?.get(..ID_LEN)?;
    std::str::from_utf8(id).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::UnixMillis;
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Author, ProcessTag, RelayMessage, SessionTag, Stamper, compose_relay};

    /// Finished frames of messages, as the relay writes them, with their ids.
    fn frames(count: u64, payload: &str) -> Vec<(String, Vec<u8>)> {
        let mut stamper = Stamper::new(SessionTag::new(ProcessTag::from_random(77), 1));
        let agent = "ann-1".parse().unwrap();
        let message =
            RelayMessage { to: &agent, kind: "x", reference: None, payload: Some(payload) };
        let frame = |n| {
            let stamp = stamper.next(UnixMillis(n));
            let mut frame = Vec::new();
            compose_relay(&Author::relay(), &stamp, &message, &mut frame);
            (stamp.id.to_string(), frame)
        };
        (0..count).map(frame).collect()
    }

    #[test]
    fn the_id_is_found_in_frames_of_every_size() {
        for len in [0, 200, 70_000] {
            let (id, frame) = frames(1, &format!("\"{}\"", "x".repeat(len))).remove(0);
            let traced = Ratio::of_million(1_000_000).traced(&frame).unwrap();
            assert_eq!(traced.message, id);
            assert!(traced.is_of(&id[ID_LEN - PROCESS_LEN..]) && !traced.is_of("0000000x"));
        }
    }

    #[test]
    fn a_ratio_is_what_it_says_and_a_larger_one_has_all_of_a_smaller() {
        let frames = frames(20_000, "1");
        let traced = |parts| -> Vec<_> {
            let ratio = Ratio::of_million(parts);
            frames.iter().filter(|(_, frame)| ratio.traced(frame).is_some()).collect()
        };
        assert_eq!((traced(0).len(), traced(1_000_000).len()), (0, 20_000));
        let (few, more) = (traced(10_000), traced(100_000));
        assert!((130..270).contains(&few.len()), "{}", few.len());
        assert!((1_800..2_200).contains(&more.len()), "{}", more.len());
        assert!(few.iter().all(|frame| more.contains(frame)));
    }

    /// Two releases side by side must agree.
    #[test]
    fn what_nodes_work_out_is_frozen() {
        let trace = TraceId::of("msg_0000000000000000000000000000");
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let steps = [Step::Accept, Step::Route, Step::Send(9), Step::Deliver(9, "bob-1")];
        let spans: Vec<_> = steps.iter().map(|step| hex(&trace.span(*step))).collect();
        assert_eq!(hex(&trace.bytes()), FROZEN_TRACE);
        assert_eq!(spans, FROZEN_SPANS);
    }

    const FROZEN_TRACE: &str = "a6d564ce6346f8c4a8289ba848cb6b79";
    const FROZEN_SPANS: [&str; 4] =
        ["782e0a4d4b710d0b", "ce98730b34f7f307", "a9fabeac53310ed2", "f13ef38386284fee"];

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Ratio::of_million(1_000_000).traced(&bytes);
        }
    }
}
