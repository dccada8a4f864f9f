//! What dashboards show at one moment, and how it is written: once for all of them. Pure.

use std::{collections::BTreeMap, io::Write as _};

use bytes::Bytes;
use cluster::UnixMillis;
use serde::Serialize;

use super::{LinkView, LossView, RegionView, Sample, Sights};
use crate::{
    admin::RegistryReport,
    certificates::TlsReport,
    report::{ClusterReport, NodeReport},
};

/// With more nodes than this links are told by region: a hundred nodes have five thousand.
const NODES_WITH_LINKS_MAX: usize = 24;

/// With more nodes than that, certificates are told of that end within so many seconds.
const EXPIRES_SOON_S: i64 = 30 * 86_400;

/// What the node that shows says of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Showing<'a> {
    /// When it started.
    pub epoch: UnixMillis,
    /// Its time.
    pub now: UnixMillis,
    /// Seconds since its start.
    pub uptime: u64,
    /// What the relay is called.
    pub relay: &'a str,
    /// Its release.
    pub version: &'a str,
    /// Names that are taken, in the cluster.
    pub registered_agents: u64,
    /// The number of the latest event: whoever has not seen it asks for those that are new.
    pub latest_event: u64,
}

/// What a dashboard shows. Other releases' pages never see it: pages and views come from one node.
#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    showing: Showing<'a>,
    /// The id of the node that says so.
    node: &'a str,
    nodes: &'a [NodeReport],
    sample: &'a Sample,
    /// None if there are too many; then by region.
    links: Option<Vec<LinkView<'a>>>,
    regions: Vec<RegionView<'a>>,
    /// The ids of the nodes whose links and losses are not known.
    untold: Vec<&'a str>,
    losses: Vec<LossView>,
    registry: Option<&'a RegistryReport>,
    certificates: BTreeMap<&'a str, &'a TlsReport>,
}

/// The server-sent event that all dashboards get; empty if it cannot be written, which cannot be.
pub fn frame(showing: Showing, report: &ClusterReport, sample: &Sample, sights: &Sights) -> Bytes {
    let view = View::new(showing, report, sample, sights);
    let mut frame = b"data: ".to_vec();
    let written = serde_json::to_writer(&mut frame, &view).map_err(Into::into);
    match written.and_then(|()| frame.write_all(b"\n\n")) {
        Ok(()) => frame.into(),
        Err(_) => Bytes::new(),
    }
}

impl<'a> View<'a> {
    fn new(
        showing: Showing<'a>,
        report: &'a ClusterReport,
        sample: &'a Sample,
        sights: &'a Sights,
    ) -> Self {
        let nodes = report.nodes.as_slice();
        let is_small = nodes.len() <= NODES_WITH_LINKS_MAX;
        let matters = |tls: &TlsReport| {
            let ends_soon = tls.expires_in.is_none_or(|left| left < EXPIRES_SOON_S);
            is_small || tls.problem.is_some() || ends_soon
        };
        Self {
            showing,
            node: &report.node,
            nodes,
            sample,
            links: is_small.then(|| sights.links().collect()),
            regions: sights.regions(nodes),
            untold: sights.untold(nodes),
            losses: sights.losses().into_iter().map(LossView::from).collect(),
            registry: report.registry.as_ref(),
            certificates: sights.certificates().filter(|(_, tls)| matters(tls)).collect(),
        }
    }
}
