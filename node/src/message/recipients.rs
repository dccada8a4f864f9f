//! The `to` field: whom a message is for (PROTOCOL section 4).

use std::{borrow::Cow, collections::HashSet};

use cluster::AgentId;
use smallvec::SmallVec;

use super::{
    ScanError,
    json::{Cursor, RawString},
    strings::unescape,
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
    /// The named agents, each once, in the order in which they were first named. Texts that are no
    /// well-formed agent id are left out, since they reach nobody; so there may be none at all.
    Agents(SmallVec<[Cow<'a, str>; 4]>),
}

/// The entries of one `to` array, not judged yet: a later `to` may replace it.
#[derive(Default)]
pub(super) struct Recipients<'a> {
    count: usize,
    relay: bool,
    all: bool,
    /// Whether any entry was something else than `relay`.
    others: bool,
    /// Well-formed ids as they came.
    ids: SmallVec<[Cow<'a, str>; 4]>,
}

impl<'a> Recipients<'a> {
    /// Reads an array of strings. `None`, and a cursor that stands anywhere, if it is none, or no
    /// JSON at all.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let mut recipients = Self::default();
        if cursor.token() != b'[' {
            return None;
        }
        loop {
            cursor.step();
            if cursor.token() != b'"' {
                return None;
            }
            recipients.add(cursor.string().ok()?);
            match cursor.token() {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
        cursor.step();
        Some(recipients)
    }

    fn add(&mut self, entry: RawString<'a>) {
        self.count += 1;
        let id = if entry.escaped { unescape(entry.raw) } else { Cow::Borrowed(entry.inner) };
        match &*id {
            "relay" => self.relay = true,
            "*" => {
                self.all = true;
                self.others = true;
            }
            _ => {
                self.others = true;
                if self.count <= RECIPIENTS_MAX && AgentId::is_well_formed(&id) {
                    self.ids.push(id);
                }
            }
        }
    }

    /// Applies the rules of PROTOCOL section 4.
    pub(super) fn judge(mut self) -> Result<Targets<'a>, ScanError> {
        if self.count > RECIPIENTS_MAX {
            return Err(ScanError::TooManyRecipients);
        }
        match (self.relay, self.others) {
            (true, true) => Err(ScanError::RelayBesideOthers),
            (true, false) => Ok(Targets::Relay),
            (false, _) if self.all => Ok(Targets::All),
            (false, _) => {
                keep_first_of_each(&mut self.ids);
                Ok(Targets::Agents(self.ids))
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
