//! What a dashboard shows at one moment. Pure but for asking the relay its names and its time.

use std::collections::BTreeMap;

use cluster::UnixMillis;
use serde::Serialize;

use super::{Events, LinkView, Loss, RegionView, STEP, Sample, Sights};
use crate::{
    admin::RegistryReport,
    certificates::TlsReport,
    relay::{Relay, VERSION},
    report::{ClusterReport, NodeReport},
};

/// With more nodes than this links are told by region: a hundred nodes have five thousand.
const NODES_WITH_LINKS_MAX: usize = 24;

/// With more nodes than that, certificates are told of that end within so many seconds.
const EXPIRES_SOON_S: i64 = 30 * 86_400;

/// What a dashboard shows. Other releases' pages never see it: pages and views come from one node.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    epoch: UnixMillis,
    now: UnixMillis,
    /// Seconds since the node's start.
    uptime: u64,
    relay: &'a str,
    version: &'static str,
    /// The id of the node that says so.
    node: &'a str,
    nodes: &'a [NodeReport],
    registered_agents: u64,
    sample: &'a Sample,
    /// None if there are too many; then by region.
    links: Option<Vec<LinkView<'a>>>,
    regions: Vec<RegionView<'a>>,
    /// The ids of the nodes whose links and losses are not known.
    untold: Vec<&'a str>,
    losses: Vec<Loss>,
    registry: Option<&'a RegistryReport>,
    certificates: BTreeMap<&'a str, &'a TlsReport>,
    /// The number of the latest event: whoever has not seen it asks for those that are new.
    latest_event: u64,
    /// Milliseconds between two numbers of the history.
    step_ms: u128,
}

impl<'a> View<'a> {
    pub(super) fn new(
        relay: &'a Relay,
        events: &Events,
        sights: &'a Sights,
        report: &'a ClusterReport,
        (sample, registered_agents): (&'a Sample, u64),
    ) -> Self {
        let nodes = report.nodes.as_slice();
        let is_small = nodes.len() <= NODES_WITH_LINKS_MAX;
        let matters = |tls: &TlsReport| {
            let ends_soon = tls.expires_in.is_none_or(|left| left < EXPIRES_SOON_S);
            is_small || tls.problem.is_some() || ends_soon
        };
        Self {
            epoch: events.epoch(),
            now: relay.clock.wall(),
            uptime: relay.clock.elapsed().as_secs(),
            relay: &relay.config.relay_name,
            version: VERSION,
            node: &report.node,
            nodes,
            registered_agents,
            sample,
            links: is_small.then(|| sights.links().collect()),
            regions: sights.regions(nodes),
            untold: sights.untold(nodes),
            losses: sights.losses(),
            registry: report.registry.as_ref(),
            certificates: sights.certificates().filter(|(_, tls)| matters(tls)).collect(),
            latest_event: events.last(),
            step_ms: STEP.as_millis(),
        }
    }
}
