//! The log's last entries in memory: those that are still on their way to the disk, and those that will
//! be asked for next, to be sent and applied.

use std::collections::BTreeMap;

use super::raft::{Entry, LogId};

/// How many bytes of entries are kept at most beside those not yet on the disk, as they are encoded; in
/// memory they are about three times as large.
const BYTES_MAX: usize = 4 << 20;

/// Consecutive entries, up to the log's end.
#[derive(Default)]
pub(super) struct Tail {
    entries: BTreeMap<u64, Kept>,
    bytes: usize,
}

struct Kept {
    entry: Entry,
    bytes: usize,
    flushed: bool,
}

impl Tail {
    /// A new end of the log, on its way to the disk.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        let index = entry.log_id.index;
        self.bytes += bytes;
        if let Some(former) = self.entries.insert(index, Kept { entry, bytes, flushed: false }) {
            self.bytes -= former.bytes;
        }
    }

    /// These entries are on the disk.
    pub(super) fn flushed(&mut self, ids: &[LogId]) {
        for id in ids {
            // Another entry may have come in its place.
            if let Some(kept) = self.entries.get_mut(&id.index)
                && kept.entry.log_id == *id
            {
                kept.flushed = true;
            }
        }
        while self.bytes > BYTES_MAX
            && let Some(first) = self.entries.first_entry()
            && first.get().flushed
        {
            self.bytes -= first.remove().bytes;
        }
    }

    /// What was behind `index`, and itself, is no more.
    pub(super) fn truncate(&mut self, index: u64) {
        let removed = self.entries.split_off(&index);
        self.bytes -= removed.values().map(|kept| kept.bytes).sum::<usize>();
    }

    /// What was before `index`, and itself, is no more.
    pub(super) fn purge(&mut self, index: u64) {
        let kept = self.entries.split_off(&index.saturating_add(1));
        let removed = std::mem::replace(&mut self.entries, kept);
        self.bytes -= removed.values().map(|kept| kept.bytes).sum::<usize>();
    }

    /// The entries from `start` to before `end`, each with its encoded length.
    pub(super) fn range(&self, start: u64, end: u64) -> impl Iterator<Item = (&Entry, usize)> {
        // A range that ends before it starts panics.
        let range = self.entries.range(start..end.max(start));
        range.map(|(_, kept)| (&kept.entry, kept.bytes))
    }

    pub(super) fn first_index(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(index, _)| *index)
    }

    pub(super) fn last_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, kept)| kept.entry.log_id)
    }
}
