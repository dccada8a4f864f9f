//! The `to` field: whom a message is for (PROTOCOL section 4).

use std::{borrow::Cow, collections::HashSet};

use smallvec::SmallVec;

use super::{
    ScanError,
    json::{Cursor, Quoted},
};

/// The most entries of `to`, repeated ones included (PROTOCOL section 4).
pub const RECIPIENTS_MAX: usize = 256;

/// Up to how many ids are compared with each other; beyond, hashing is faster.
const COMPARED_MAX: usize = 16;

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets<'a> {
    /// The relay itself: a command.
    Relay,
    /// Every connected agent but the sender.
    All,
    /// The named agents, each once, in the order in which they were first named. Whether there are
    /// such agents, and whether the texts could be agent ids at all, is not asked here.
    Agents(SmallVec<[Cow<'a, str>; 4]>),
}

/// The entries of one `to` array, not judged yet: a later `to` may replace it.
#[derive(Default)]
pub(super) struct Recipients<'a> {
    /// Well-formed ids as they came, while there are not too many entries.
    pub(super) ids: SmallVec<[Cow<'a, str>; 4]>,
    count: usize,
    relay: bool,
    all: bool,
    /// Whether any entry was something else than `relay`.
    others: bool,
}

/// What the entries of a `to` array amount to.
pub(super) enum Audience {
    /// The relay itself.
    Relay,
    /// Everybody.
    All,
    /// The agents in [`Recipients::ids`].
    Named,
}

impl<'a> Recipients<'a> {
    /// Replaces the entries by those of the array that follows. `false`, and a cursor that stands
    /// anywhere, if it is no array of strings or not even JSON.
    // In place, since copying what was just written stalls for longer than reading a short array.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'a>) -> bool {
        self.clear();
        self.read_array(cursor).is_some()
    }

    fn clear(&mut self) {
        self.ids.clear();
        (self.count, self.relay, self.all, self.others) = (0, false, false, false);
    }

    fn read_array(&mut self, cursor: &mut Cursor<'a>) -> Option<()> {
        if cursor.token() != b'[' {
            return None;
        }
        loop {
            cursor.step();
            if cursor.token() != b'"' {
                return None;
            }
            self.add(cursor.string().ok()?);
            match cursor.token() {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
        cursor.step();
        Some(())
    }

    fn add(&mut self, entry: Quoted<'a>) {
        self.count += 1;
        let id = entry.text();
        match &*id {
            "relay" => self.relay = true,
            "*" => {
                self.all = true;
                self.others = true;
            }
            _ => {
                self.others = true;
                if self.count <= RECIPIENTS_MAX {
                    self.ids.push(id);
                }
            }
        }
    }

    /// Applies the rules of PROTOCOL section 4; of ids named twice only the first stays.
    pub(super) fn judge(&mut self) -> Result<Audience, ScanError> {
        if self.count > RECIPIENTS_MAX {
            return Err(ScanError::TooManyRecipients);
        }
        match (self.relay, self.others) {
            (true, true) => Err(ScanError::RelayBesideOthers),
            (true, false) => Ok(Audience::Relay),
            (false, _) if self.all => Ok(Audience::All),
            (false, _) => {
                if self.ids.len() > 1 {
                    keep_first_of_each(&mut self.ids);
                }
                Ok(Audience::Named)
            }
        }
    }
}

fn keep_first_of_each(ids: &mut SmallVec<[Cow<'_, str>; 4]>) {
    if ids.len() <= COMPARED_MAX {
        let mut kept = 0;
        for next in 0..ids.len() {
            if !ids[..kept].contains(&ids[next]) {
                ids.swap(kept, next);
                kept += 1;
            }
        }
        ids.truncate(kept);
    } else {
        let mut seen = HashSet::with_capacity(ids.len());
        ids.retain(|id| seen.insert(id.clone()));
    }
}
