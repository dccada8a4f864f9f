//! The mesh in numbers: members, links, and what this node owns and publishes.
//!
//! The mesh counts by itself; here its counts get their names. No label names a node: what is said of
//! each peer is written at the [scrape](super::scrape).

use std::sync::atomic::{AtomicU64, Ordering};

use cluster::{
    link::{Down, LaneKind, LinkCounters, LinkStatus, Reason},
    membership::{MemberCounters, MemberState},
    mesh::Mesh,
};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tls::mesh::MeshIdentity;

use crate::peers::NodeStatus;

/// Handles of what the mesh counts.
#[derive(Debug)]
pub struct MeshMetrics {
    members: [(MemberState, Gauge); MemberState::ALL.len()],
    changes: [(MemberState, Counter); MemberState::ALL.len()],
    restarts: Counter,
    gossip_dropped: Counter,
    gossip_malformed: Counter,
    links: Gauge,
    links_opened: Counter,
    links_closed: [(Down, Counter); Down::ALL.len()],
    refusals: [(Reason, Counter); Reason::ALL.len()],
    lanes: [(LaneKind, LaneMetrics); LaneKind::ALL.len()],
    records: Gauge,
    awaited: Gauge,
    pending: Gauge,
    certificate_begins: Gauge,
    certificate_ends: Gauge,
    panics: Counter,
    /// As many panics of the mesh's tasks are counted already.
    panics_counted: AtomicU64,
}

/// What went through the lanes of one kind.
#[derive(Debug)]
struct LaneMetrics {
    frames_sent: Counter,
    bytes_sent: Counter,
    frames_received: Counter,
    bytes_received: Counter,
    dropped: Counter,
    lost: Counter,
}

impl MeshMetrics {
    /// All at zero, in the recorder of the thread. Panics are counted with those of other tasks.
    pub(super) fn registered(panics: Counter) -> Self {
        describe();
        let certificate_ends = gauge!("arc_mesh_certificate_not_after_timestamp_seconds");
        certificate_ends.set(f64::INFINITY);
        Self {
            members: MemberState::ALL
                .map(|state| (state, gauge!("arc_members", "state" => state.as_str()))),
            changes: MemberState::ALL
                .map(|to| (to, counter!("arc_member_changes_total", "to" => to.as_str()))),
            restarts: counter!("arc_member_changes_total", "to" => "restarted"),
            gossip_dropped: counter!("arc_gossip_dropped_total"),
            gossip_malformed: counter!("arc_gossip_malformed_total"),
            links: gauge!("arc_links"),
            links_opened: counter!("arc_links_opened_total"),
            links_closed: Down::ALL
                .map(|why| (why, counter!("arc_links_closed_total", "reason" => why.label()))),
            refusals: Reason::ALL
                .map(|why| (why, counter!("arc_link_refusals_total", "reason" => why.label()))),
            lanes: LaneKind::ALL.map(|kind| (kind, LaneMetrics::of(kind))),
            records: gauge!("arc_presence_records"),
            awaited: gauge!("arc_presence_awaited_nodes"),
            pending: gauge!("arc_sessions_pending"),
            certificate_begins: gauge!("arc_mesh_certificate_not_before_timestamp_seconds"),
            certificate_ends,
            panics,
            panics_counted: AtomicU64::new(0),
        }
    }

    /// The members as they are.
    pub fn set_members(&self, nodes: &[NodeStatus]) {
        for (state, gauge) in &self.members {
            let members = nodes.iter().filter(|node| node.member.state == *state);
            gauge.set(float(members.count()));
        }
    }

    /// The links as they are.
    pub fn set_links(&self, links: &[LinkStatus]) {
        self.links.set(float(links.len()));
    }

    /// What the links and the membership have counted since the start.
    pub fn set_counters(&self, counted: &LinkCounters, members: &MemberCounters) {
        for (to, counter) in &self.changes {
            counter.absolute(members.changes(*to));
        }
        self.restarts.absolute(members.restarts());
        self.gossip_dropped.absolute(members.gossip_dropped());
        self.gossip_malformed.absolute(members.gossip_malformed());
        self.links_opened.absolute(counted.ups());
        let panics = counted.panics();
        let before = self.panics_counted.fetch_max(panics, Ordering::Relaxed);
        self.panics.increment(panics.saturating_sub(before));
        for (why, counter) in &self.links_closed {
            counter.absolute(counted.downs(*why));
        }
        for (why, counter) in &self.refusals {
            counter.absolute(counted.refused(*why));
        }
        for (kind, lane) in &self.lanes {
            let counts = counted.lane(*kind);
            lane.frames_sent.absolute(counts.frames_sent);
            lane.bytes_sent.absolute(counts.bytes_sent);
            lane.frames_received.absolute(counts.frames_received);
            lane.bytes_received.absolute(counts.bytes_received);
            lane.dropped.absolute(counts.dropped_full);
            lane.lost.absolute(counts.lost);
        }
    }

    /// The certificate that this node shows its peers.
    pub fn set_certificate(&self, identity: &MeshIdentity) {
        self.certificate_begins.set(identity.not_before().as_secs_f64());
        self.certificate_ends.set(identity.not_after().as_secs_f64());
    }

    /// What this node owns and publishes.
    pub fn set_presence(&self, mesh: &Mesh) {
        let (directory, presence) = mesh.counts();
        self.records.set(float(directory.records));
        self.awaited.set(float(directory.awaited));
        self.pending.set(float(presence.pending));
    }
}

impl LaneMetrics {
    fn of(kind: LaneKind) -> Self {
        let lane = kind.label();
        Self {
            frames_sent: counter!("arc_link_frames_sent_total", "lane" => lane),
            bytes_sent: counter!("arc_link_sent_bytes_total", "lane" => lane),
            frames_received: counter!("arc_link_frames_received_total", "lane" => lane),
            bytes_received: counter!("arc_link_received_bytes_total", "lane" => lane),
            dropped: counter!("arc_link_frames_dropped_total", "lane" => lane),
            lost: counter!("arc_link_frames_lost_total", "lane" => lane),
        }
    }
}

fn describe() {
    describe_gauge!("arc_members", "nodes of the cluster as this one sees them, by state");
    describe_counter!("arc_member_changes_total", "changes of members' states, by new state");
    describe_counter!("arc_gossip_dropped_total", "messages of gossip that found no room");
    describe_counter!("arc_gossip_malformed_total", "messages of gossip that were none");
    describe_gauge!("arc_links", "links to other nodes");
    describe_counter!("arc_links_opened_total", "links that came up");
    describe_counter!("arc_links_closed_total", "links that went down, by reason");
    describe_counter!("arc_link_refusals_total", "handshakes of links that failed, by reason");
    describe_counter!("arc_link_frames_sent_total", "frames sent to other nodes, by lane");
    describe_counter!("arc_link_sent_bytes_total", "bytes sent to other nodes, by lane");
    describe_counter!("arc_link_frames_received_total", "frames of other nodes, by lane");
    describe_counter!("arc_link_received_bytes_total", "bytes of other nodes, by lane");
    describe_counter!("arc_link_frames_dropped_total", "frames that found a lane full, by lane");
    describe_counter!(
        "arc_link_frames_lost_total",
        "frames that waited when a link went down, by lane"
    );
    describe_gauge!("arc_presence_records", "agents whose place this node keeps for the others");
    describe_gauge!(
        "arc_presence_awaited_nodes",
        "nodes that have not told yet which agents they have; for seconds after a change only"
    );
    describe_gauge!("arc_sessions_pending", "sessions that other nodes do not know of yet");
    describe_gauge!(
        "arc_mesh_certificate_not_before_timestamp_seconds",
        "from when on this node's certificate for the mesh is good, Unix time"
    );
    describe_gauge!(
        "arc_mesh_certificate_not_after_timestamp_seconds",
        "until when this node's certificate for the mesh is good, Unix time; without end if it is alone"
    );
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53, which nothing here reaches
fn float(number: usize) -> f64 {
    number as f64
}
