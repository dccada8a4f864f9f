//! What has changed between two looks at the cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Happening, Kind, Level};
use crate::{
    admin::RegistryReport,
    certificates::TlsReport,
    relay::Phase,
    report::{ClusterReport, LinkReport, NodeReport, is_there},
};

/// So many bytes that wait in one link are half of what its queue holds.
const QUEUE_BYTES: u64 = 16 << 20;

/// From so many seconds before a certificate's end on there is something wrong with its renewal.
const EXPIRES_SOON_S: i64 = 7 * 86_400;

/// What one look at the cluster shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The cluster as this node sees it.
    pub report: ClusterReport,
    /// How far this node's life is.
    pub phase: Phase,
    /// Tasks of this node that have panicked.
    pub panics: u64,
}

/// What happened between two looks, in the order in which it is told.
pub fn changes(before: &Snapshot, after: &Snapshot) -> Vec<Happening> {
    let mut told = Telling { me: name_of(&after.report, &after.report.node), happened: Vec::new() };
    told.own(before, after);
    told.nodes(&before.report, &after.report);
    told.links(&before.report, &after.report);
    if let (Some(before), Some(registry)) = (&before.report.registry, &after.report.registry) {
        told.registry(before, registry, &after.report);
    }
    if let (Some(before), Some(after)) = (&before.report.tls, &after.report.tls) {
        told.certificate(before, after);
    }
    told.happened
}

struct Telling {
    /// This node's name.
    me: String,
    happened: Vec<Happening>,
}

impl Telling {
    fn tell(&mut self, level: Level, kind: Kind, node: &str, text: impl Into<String>) {
        self.happened.push(Happening { level, kind, node: node.into(), text: text.into() });
    }

    fn tell_own(&mut self, level: Level, kind: Kind, text: impl Into<String>) {
        let (node, text) = (self.me.clone(), text.into());
        self.happened.push(Happening { level, kind, node, text });
    }

    fn own(&mut self, before: &Snapshot, after: &Snapshot) {
        match (before.phase, after.phase) {
            (before, after) if before == after => {}
            (_, Phase::Serving) => self.tell_own(Level::Info, Kind::Relay, "takes agents"),
            (_, Phase::Draining) => {
                self.tell_own(Level::Warn, Kind::Relay, "stops, and sends its agents elsewhere");
            }
            (_, Phase::Joining) => {}
        }
        if after.panics > before.panics {
            let text = "a task has panicked, which is a bug: the log has it in full";
            self.tell_own(Level::Error, Kind::Relay, text);
        }
    }

    fn nodes(&mut self, before: &ClusterReport, after: &ClusterReport) {
        let known: BTreeMap<_, _> = before.nodes.iter().map(|node| (&node.id, node)).collect();
        for node in after.nodes.iter().filter(|node| node.id != after.node) {
            match known.get(&node.id) {
                None if is_there(&node.state) => {
                    let text = format!("is in the cluster, in region {}", node.region);
                    self.tell(Level::Info, Kind::Node, &node.name, text);
                }
                None => {}
                Some(before) => self.node(before, node),
            }
        }
        let still: BTreeSet<_> = after.nodes.iter().map(|node| &node.id).collect();
        for node in before.nodes.iter().filter(|node| !still.contains(&node.id)) {
            if is_there(&node.state) {
                self.tell(Level::Warn, Kind::Node, &node.name, "is not known any more");
            }
        }
    }

    fn node(&mut self, before: &NodeReport, after: &NodeReport) {
        if before.state != after.state {
            let (level, text) = match (before.state.as_str(), after.state.as_str()) {
                ("suspect", "alive") => (Level::Info, "is heard again"),
                (_, "alive") => (Level::Info, "is back"),
                (_, "suspect") => (Level::Warn, "is not heard: it may be gone"),
                (_, "leaving") => (Level::Info, "is leaving"),
                (_, "left") => (Level::Info, "has left"),
                (_, "dead") => (Level::Error, "is dead: it went without a word"),
                _ => (Level::Info, "is in a state that this release does not know"),
            };
            self.tell(level, Kind::Node, &after.name, text);
        }
        if before.version != after.version {
            let text = format!("runs release {} now, not {}", after.version, before.version);
            self.tell(Level::Info, Kind::Node, &after.name, text);
        }
    }

    fn links(&mut self, before: &ClusterReport, after: &ClusterReport) {
        let known: BTreeMap<_, _> = before.links.iter().map(|link| (&link.id, link)).collect();
        for link in &after.links {
            match known.get(&link.id) {
                None => {
                    let text = format!("link to {} is up", link.peer);
                    self.tell_own(Level::Info, Kind::Link, text);
                }
                Some(before) => self.link(before, link),
            }
        }
        let still: BTreeSet<_> = after.links.iter().map(|link| &link.id).collect();
        for link in before.links.iter().filter(|link| !still.contains(&link.id)) {
            let peer = after.nodes.iter().find(|node| node.id == link.id);
            let said_so = peer.is_some_and(|node| ["leaving", "left"].contains(&&*node.state));
            let level = if said_so { Level::Info } else { Level::Warn };
            self.tell_own(level, Kind::Link, format!("link to {} is down", link.peer));
        }
    }

    fn link(&mut self, before: &LinkReport, after: &LinkReport) {
        match (before.is_silent(), after.is_silent()) {
            (false, true) => {
                let text = format!("link to {} is silent: no ping is answered", after.peer);
                self.tell_own(Level::Warn, Kind::Link, text);
            }
            (true, false) => {
                let text = format!("link to {} answers again", after.peer);
                self.tell_own(Level::Info, Kind::Link, text);
            }
            _ => {}
        }
        if before.queue_bytes < QUEUE_BYTES && after.queue_bytes >= QUEUE_BYTES {
            let text = format!(
                "the queue to {} is half full: it takes less than it is sent, and what finds no room \
                 will be dropped",
                after.peer
            );
            self.tell_own(Level::Warn, Kind::Link, text);
        }
    }

    fn registry(&mut self, before: &RegistryReport, after: &RegistryReport, all: &ClusterReport) {
        match (before.available, after.available) {
            (true, false) => {
                let why = after.waiting.as_ref().map(|waiting| format!(": {}", waiting.reason));
                let text = format!("no names can be registered{}", why.unwrap_or_default());
                self.tell_own(Level::Error, Kind::Registry, text);
            }
            (false, true) => self.tell_own(Level::Info, Kind::Registry, "names can be registered"),
            _ => {}
        }
        if let Some(leader) = &after.leader
            && before.leader.as_ref() != Some(leader)
        {
            let name = name_of(all, leader);
            self.tell(Level::Info, Kind::Registry, &name, "leads the registry");
        }
        let (voted, vote) = (voters(before, all), voters(after, all));
        if voted != vote && !vote.is_empty() {
            let names = vote.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!("the registry is kept by {names}");
            self.tell_own(Level::Info, Kind::Registry, text);
        }
        if let Some(failure) = after.failure.as_ref().filter(|_| before.failure.is_none()) {
            let text = format!("this node's disk is of no use to the registry: {failure}");
            self.tell_own(Level::Error, Kind::Registry, text);
        }
    }

    fn certificate(&mut self, before: &TlsReport, after: &TlsReport) {
        if before.problem != after.problem {
            let mended = "what was wrong with the certificate is mended";
            let level = if after.problem.is_some() { Level::Warn } else { Level::Info };
            let text = after.problem.as_deref().unwrap_or(mended);
            self.tell_own(level, Kind::Certificate, text);
        }
        if before.expires_at != after.expires_at && after.expires_at.is_some() {
            let days = after.expires_in.unwrap_or_default() / 86_400;
            let text = format!("another certificate is served, good for {days} days");
            self.tell_own(Level::Info, Kind::Certificate, text);
        }
        let crosses = |limit: i64| {
            let is_under = |report: &TlsReport| report.expires_in.is_some_and(|left| left < limit);
            !is_under(before) && is_under(after)
        };
        if crosses(0) {
            let text = "the certificate has expired: agents that check it cannot connect";
            self.tell_own(Level::Error, Kind::Certificate, text);
        } else if crosses(EXPIRES_SOON_S) {
            let text = "the certificate expires within a week: it should have been renewed";
            self.tell_own(Level::Warn, Kind::Certificate, text);
        }
        let failures = |report: &TlsReport| report.acme.as_ref().map_or(0, |acme| acme.failures);
        if failures(after) > failures(before) {
            let text = format!("an order of a certificate failed, {} in a row", failures(after));
            self.tell_own(Level::Warn, Kind::Certificate, text);
        }
    }
}

/// The name of a node; its id if it is not known.
fn name_of(report: &ClusterReport, id: &str) -> String {
    let node = report.nodes.iter().find(|node| node.id == id);
    node.map_or_else(|| id.to_owned(), |node| node.name.clone())
}

/// The names of those who decide what is in the registry.
fn voters(registry: &RegistryReport, all: &ClusterReport) -> BTreeSet<String> {
    registry.voters.iter().filter(|v| v.votes).map(|v| name_of(all, &v.node)).collect()
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
