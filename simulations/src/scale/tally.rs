//! How many frames of each kind, and how many bytes they have as `cluster::wire` writes them.

use std::ops::{AddAssign, Sub};

/// Where a frame's kind stands: behind its length.
const KIND_AT: usize = 4;

/// Kinds are below this.
const KINDS: usize = 128;

/// Kinds that the model names; the numbers are the wire's.
pub(super) mod kind {
    pub(in super::super) const PUBLISH: u8 = 3;
    pub(in super::super) const SYNCED: u8 = 6;
    pub(in super::super) const LOOKUP: u8 = 7;
    pub(in super::super) const MOVED: u8 = 9;
    pub(in super::super) const START: u8 = 64;
    pub(in super::super) const DIRECT: u8 = 65;
    pub(in super::super) const BROADCAST: u8 = 67;
    pub(in super::super) const RELAYED: u8 = 68;
    pub(in super::super) const BARRIER: u8 = 71;
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Frames.
    pub frames: u64,
    /// Bytes, the frames' own lengths included.
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { frames: self.frames - other.frames, bytes: self.bytes - other.bytes }
    }
}

/// Amounts by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([Amount; KINDS]);

impl Default for Tally {
    fn default() -> Self {
        Self([Amount::default(); KINDS])
    }
}

impl Tally {
    pub(super) fn add(&mut self, frame: &[u8]) {
        self.0[usize::from(kind_of(frame))] += Amount { frames: 1, bytes: frame.len() as u64 };
    }

    /// What there is of one kind.
    pub fn of(&self, kind: u8) -> Amount {
        self.0[usize::from(kind)]
    }

    /// All of the control lane.
    pub fn control(&self) -> Amount {
        self.sum(0..64)
    }

    /// All of the data lanes.
    pub fn data(&self) -> Amount {
        self.sum(64..KINDS)
    }

    /// All.
    pub fn all(&self) -> Amount {
        self.sum(0..KINDS)
    }

    fn sum(&self, kinds: std::ops::Range<usize>) -> Amount {
        let mut sum = Amount::default();
        self.0[kinds].iter().for_each(|amount| sum += *amount);
        sum
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

impl Sub for &Tally {
    type Output = Tally;

    fn sub(self, other: Self) -> Tally {
        Tally(std::array::from_fn(|kind| self.0[kind] - other.0[kind]))
    }
}

pub(super) fn kind_of(frame: &[u8]) -> u8 {
    frame[KIND_AT]
}

#[cfg(test)]
mod tests {
    use cluster::wire::{Body, Broadcast, Control, Data, Names};

    use super::*;

    fn control(frame: &Control) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    #[test]
    fn frames_are_counted_by_kind_and_whole() {
        let synced = control(&Control::Synced { ring: 7 });
        let mut broadcast = Vec::new();
        let body = Body::Borrowed(&[0; 100]);
        Data::Broadcast(Broadcast { seq: 1, from: "ann", except: Names::NONE, body })
            .encode(&mut broadcast);
        let mut tally = Tally::default();
        tally.add(&synced);
        let before = tally.clone();
        tally.add(&synced);
        tally.add(&broadcast);
        let since = &tally - &before;
        assert_eq!(tally.of(kind::SYNCED).frames, 2);
        assert_eq!(since.of(kind::SYNCED), Amount { frames: 1, bytes: synced.len() as u64 });
        assert_eq!(since.data(), Amount { frames: 1, bytes: broadcast.len() as u64 });
        assert_eq!(since.of(kind::BROADCAST), since.data());
        assert_eq!(since.all().frames, 2);
    }
}
