//! What the nodes of a run have counted, read from their metrics as operators read them.

use std::collections::BTreeMap;

use crate::core::history::Reason;

/// The counters of all nodes together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Copies of messages that were lost, by reason.
    pub lost: BTreeMap<Reason, u64>,
    /// Messages of agents that were put into outboxes.
    pub delivered: u64,
    /// Links that went down.
    pub links_closed: u64,
}

/// The reasons' names in the metrics.
const REASONS: [(&str, Reason); 8] = [
    ("offline", Reason::Offline),
    ("unresolved", Reason::Unresolved),
    ("route_full", Reason::RouteFull),
    ("link_full", Reason::LinkFull),
    ("link_lost", Reason::LinkLost),
    ("stale", Reason::Stale),
    ("stray", Reason::Stray),
    ("refused", Reason::Refused),
];

impl Counted {
    /// Adds a node's metrics, in Prometheus' text format.
    pub(super) fn add(&mut self, metrics: &str) {
        for (name, label, value) in metrics.lines().filter_map(sample) {
            match name {
                "arc_messages_dropped_total" => {
                    if let Some((_, reason)) = REASONS.iter().find(|(name, _)| *name == label) {
                        *self.lost.entry(*reason).or_default() += value;
                    }
                }
                "arc_messages_delivered_total" if label != "relay" => self.delivered += value,
                "arc_links_closed_total" => self.links_closed += value,
                _ => {}
            }
        }
    }
}

/// A sample with one label: the metric's name, the label's value, and its own.
fn sample(line: &str) -> Option<(&str, &str, u64)> {
    let (name, rest) = line.split_once('{')?;
    let (_, rest) = rest.split_once("=\"")?;
    let (label, value) = rest.split_once("\"} ")?;
    Some((name, label, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use node::metrics::Metrics;

    use super::*;

    #[test]
    fn what_nodes_count_is_read() {
        let metrics = Metrics::new().expect("a recorder");
        metrics.dropped.stale.increment(2);
        metrics.dropped.refused.increment(1);
        metrics.dropped.invalid.increment(7);
        metrics.delivered.direct.increment(3);
        metrics.delivered.broadcast.increment(4);
        metrics.delivered.relay.increment(9);
        let mut counted = Counted::default();
        counted.add(&metrics.render());
        counted.add(&metrics.render());
        counted.add("arc_links_closed_total{reason=\"lost\"} 5");
        assert_eq!(counted.lost.len(), REASONS.len(), "{:?}", counted.lost);
        assert_eq!((counted.lost[&Reason::Stale], counted.lost[&Reason::Refused]), (4, 2));
        assert_eq!((counted.delivered, counted.links_closed), (14, 5));
    }
}
