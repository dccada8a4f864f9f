//! What has happened, as operators read it, and the last of it, numbered. Pure.

use std::collections::VecDeque;

use cluster::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Events that are kept; at some 200 bytes each they take 100 KB.
pub const EVENTS_MAX: usize = 512;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Info,
    /// Somebody should look at it in good time.
    Warn,
    /// Somebody should look at it now.
    Error,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A node of the cluster.
    Node,
    /// A link of this node.
    Link,
    /// The book of names.
    Registry,
    /// Agents' TLS on this node.
    Certificate,
    /// Messages that were lost.
    Drops,
    /// Somebody changed something, or tried to.
    Admin,
    /// This node itself.
    Relay,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// How much it matters.
    pub level: Level,
    /// What it is about.
    pub kind: Kind,
    /// The name of the node that it is about.
    pub node: String,
    /// What happened, in one sentence.
    pub text: String,
}

/// Something that happened, with its number and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number: 1 is the first since the node's start.
    pub seq: u64,
    /// When it was seen, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub ts: UnixMillis,
    /// How much it matters.
    pub level: Level,
    /// What it is about.
    pub kind: Kind,
    /// The name of the node that it is about.
    pub node: String,
    /// What happened, in one sentence.
    pub text: String,
}

/// Some of the events: the body of `GET /events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// When the node started, in Unix milliseconds: with another epoch numbers begin again.
    #[schema(value_type = u64)]
    pub epoch: UnixMillis,
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// What to give as `after` for those that come next.
    pub next: u64,
    /// How many came after the one that was asked for and are forgotten.
    pub missed: u64,
}

/// The last [`EVENTS_MAX`] events.
#[derive(Debug)]
pub struct Events {
    epoch: UnixMillis,
    kept: VecDeque<Event>,
    last: u64,
}

impl Events {
    /// None yet; the node starts now.
    pub fn new(epoch: UnixMillis) -> Self {
        Self { epoch, kept: VecDeque::new(), last: 0 }
    }

    /// When the node started.
    pub fn epoch(&self) -> UnixMillis {
        self.epoch
    }

    /// The number of the latest; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Something happened now.
    pub fn push(&mut self, ts: UnixMillis, happening: Happening) {
        let Happening { level, kind, node, text } = happening;
        self.last += 1;
        if self.kept.len() >= EVENTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Event { seq: self.last, ts, level, kind, node, text });
    }

    /// Up to `limit` events that follow `after`; without that, the latest. A number that was not given
    /// yet is one of an earlier epoch: then all that are kept follow it.
    pub fn page(&self, after: Option<u64>, limit: usize) -> EventPage {
        let latest = self.last.saturating_sub(limit as u64).max(self.forgotten());
        let after = after.map_or(latest, |after| self.begin(Some(after)));
        let known = after.max(self.forgotten());
        let events: Vec<_> =
            self.kept.iter().filter(|event| event.seq > known).take(limit).cloned().collect();
        let next = events.last().map_or(known, |event| event.seq);
        EventPage { epoch: self.epoch, events, next, missed: known - after }
    }

    /// Behind which number somebody reads on that has read until `after`: of an earlier epoch it means
    /// nothing, and without any only what comes is new.
    pub fn begin(&self, after: Option<u64>) -> u64 {
        match after {
            Some(after) if after > self.last => 0,
            Some(after) => after,
            None => self.last,
        }
    }

    /// The number of the last that is not kept any more.
    fn forgotten(&self) -> u64 {
        self.last - self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: u64) -> Events {
        let mut events = Events::new(UnixMillis(7));
        for number in 1..=count {
            let (level, kind) = (Level::Info, Kind::Node);
            let happening = Happening { level, kind, node: "n".into(), text: number.to_string() };
            events.push(UnixMillis(number), happening);
        }
        events
    }

    /// First and last of the page, what follows, and what was missed.
    fn page(events: &Events, after: Option<u64>, limit: usize) -> (u64, u64, u64, u64) {
        let page = events.page(after, limit);
        let seq = |event: Option<&Event>| event.map_or(0, |event| event.seq);
        (seq(page.events.first()), seq(page.events.last()), page.next, page.missed)
    }

    #[test]
    fn who_reads_on_misses_nothing() {
        let events = events(10);
        assert_eq!(page(&events, Some(0), 4), (1, 4, 4, 0));
        assert_eq!(page(&events, Some(4), 100), (5, 10, 10, 0));
        assert_eq!(page(&events, Some(10), 100), (0, 0, 10, 0));
        assert_eq!(page(&events, None, 3), (8, 10, 10, 0), "without a place: the latest");
        assert_eq!(page(&events, None, 0), (0, 0, 10, 0));
    }

    #[test]
    fn who_is_too_late_hears_how_much_it_missed() {
        let events = events(EVENTS_MAX as u64 + 100);
        assert_eq!(page(&events, Some(40), 1), (101, 101, 101, 60));
        assert_eq!(page(&events, None, 10_000), (101, 612, 612, 0));
    }

    #[test]
    fn a_number_of_another_epoch_begins_again() {
        assert_eq!(page(&events(3), Some(500), 10), (1, 3, 3, 0));
    }
}
