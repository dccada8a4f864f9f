//! One scrape: what was counted, and how everything is at this moment.
//!
//! Series that have a label per peer, voter or certificate are written here and kept nowhere, so that they
//! end with what they name. Their number grows with the nodes of the cluster (seven for each link),
//! never with agents. What is told by several nodes, such as ring shares, each tells of itself alone:
//! Prometheus has the others' word from them.

use std::time::Duration;

use cluster::{
    NodeId,
    link::LinkStatus,
    membership::MemberState,
    registry::{RegistryStatus, Role, StorageReport, VoterStatus, WRITE_BUCKETS},
};
use tls::agents::{Chain, Description};

use super::{machine::Seen, page::Page};
use crate::{
    logging,
    peers::NodeStatus,
    relay::{Phase, Relay, VERSION},
};

/// What a link counts: its name, what it is, and how it is read.
type LinkCount = (&'static str, &'static str, fn(&LinkStatus) -> u64);

/// All metrics of the node as they are now, in Prometheus' text format, with what was seen of its machine.
pub fn scrape(relay: &Relay, seen: &Seen) -> String {
    relay.measure();
    let nodes = relay.peers().map_or_else(Vec::new, |peers| peers.nodes());
    let links = relay.peers().map_or_else(Vec::new, |peers| peers.links());
    let mut page = Page::behind(relay.metrics.render());
    node(&mut page, relay, &nodes);
    of_links(&mut page, &links);
    let status = relay.registry.status();
    registry(&mut page, &status);
    voters(&mut page, relay.node, &status, &nodes);
    if let Some(storage) = &seen.storage {
        of_storage(&mut page, storage);
    }
    certificates(&mut page, relay);
    system(&mut page, relay, seen);
    page.into_text()
}

fn node(page: &mut Page, relay: &Relay, nodes: &[NodeStatus]) {
    let config = &relay.config;
    page.gauge("arc_node_info", "1, with what the node is called and where it is").with(
        &[
            ("node", &relay.node.to_string()),
            ("name", &config.node_name),
            ("region", &config.region),
            ("version", VERSION),
        ],
        1,
    );
    let phase = match relay.phase() {
        Phase::Joining => "joining",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
    };
    let phases = ["joining", "serving", "draining"];
    page.gauge("arc_phase", "how far the node's life is: 1 for the phase it is in")
        .state("phase", &phases, phase);
    page.gauge("arc_sessions_max", "sessions that this node takes at most")
        .is(config.limits.max_connections);
    let wall = relay.clock.wall();
    page.gauge("arc_clock_seconds", "this node's wall clock, Unix time").is(seconds(wall.0));
    let ahead = relay.time().0.saturating_sub(wall.0);
    let help = "how far the cluster's time was moved ahead of this node's clock by faster ones";
    page.gauge("arc_mesh_time_offset_seconds", help).is(seconds(ahead));
    let own = nodes.iter().find(|node| node.member.node() == relay.node);
    let share = own.map_or(f64::from(u8::from(relay.peers().is_none())), |node| node.ring_share);
    let help = "this node's share of the presence records of its region, from 0 to 1";
    page.gauge("arc_ring_share_ratio", help).is(share);
}

fn of_links(page: &mut Page, links: &[LinkStatus]) {
    let mut family =
        page.gauge("arc_link_rtt_seconds", "round trip to the peer, as QUIC measures it");
    for link in links {
        family.with(&[("peer", &link.peer.name)], link.rtt.as_secs_f64());
    }
    let help = "since the last ping was sent to the peer that it has answered";
    let mut family = page.gauge("arc_link_silent_seconds", help);
    for link in links {
        family.with(&[("peer", &link.peer.name)], link.silent_for.as_secs_f64());
    }
    let mut family =
        page.gauge("arc_link_queue_bytes", "bytes that wait to be written to the peer");
    for link in links {
        family.with(&[("peer", &link.peer.name)], link.queue_bytes);
    }
    let counts: [LinkCount; 4] = [
        ("arc_link_peer_sent_bytes_total", "bytes of frames sent to the peer", |l| l.sent_bytes),
        ("arc_link_peer_received_bytes_total", "bytes of frames received from the peer", |l| {
            l.received_bytes
        }),
        ("arc_link_packets_sent_total", "datagrams sent to the peer", |l| l.packets.sent),
        (
            "arc_link_packets_lost_total",
            "datagrams to the peer that were lost, and their content sent again",
            |l| l.packets.lost,
        ),
    ];
    for (name, help, count) in counts {
        let mut family = page.counter(name, help);
        for link in links {
            family.with(&[("peer", &link.peer.name)], count(link));
        }
    }
}

fn registry(page: &mut Page, status: &RegistryStatus) {
    let role = match status.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Candidate => "candidate",
        Role::Observer => "observer",
    };
    let roles = ["leader", "follower", "learner", "candidate", "observer"];
    page.gauge("arc_registry_role", "what this node does for the registry: 1 for that")
        .state("role", &roles, role);
    page.gauge("arc_registry_leader_known", "1 if this node knows who leads the registry")
        .is(u8::from(status.leader.is_some()));
    page.gauge("arc_registry_waiting", "1 while this node waits for something of the registry")
        .is(u8::from(status.waiting.is_some()));
}

/// A voter is up if this node is it, or is linked with it: as far as it sees, it has that vote. Its node is
/// named too: one that is being replaced has its seed in common with the node that takes its place.
fn voters(page: &mut Page, me: NodeId, status: &RegistryStatus, nodes: &[NodeStatus]) {
    // Its seed stays when membership has forgotten a node that is gone, and with it its name.
    let name = |voter: &VoterStatus| match voter.seed.as_str() {
        "" => voter.node.to_string(),
        seed => seed.to_owned(),
    };
    let is_up = |id: NodeId| {
        let alive = |node: &NodeStatus| {
            node.member.node() == id
                && matches!(node.member.state, MemberState::Alive | MemberState::Leaving)
        };
        id == me || nodes.iter().any(alive)
    };
    let help = "1 for each node that keeps the names and that this node reaches, 0 if it does not";
    let mut family = page.gauge("arc_registry_voter_up", help);
    for voter in status.voters.iter().filter(|voter| voter.votes) {
        let (name, node) = (name(voter), voter.node.to_string());
        family.with(&[("voter", &name), ("node", &node)], u8::from(is_up(voter.node)));
    }
    let help = "entries that a node which keeps the names is behind, as the leader knows";
    let mut family = page.gauge("arc_registry_voter_lag_entries", help);
    for voter in &status.voters {
        if let Some(lag) = voter.lag {
            let (name, node) = (name(voter), voter.node.to_string());
            family.with(&[("voter", &name), ("node", &node)], lag);
        }
    }
}

fn of_storage(page: &mut Page, storage: &StorageReport) {
    page.gauge(
        "arc_registry_log_last_index",
        "last entry in this node's own log; 0 if it keeps none",
    )
    .is(storage.log_last);
    page.gauge("arc_registry_log_entries", "entries of the log that this node keeps")
        .is(storage.log_entries);
    page.gauge("arc_registry_snapshot_index", "last entry in the snapshot for voters far behind")
        .is(storage.snapshot);
    if let Some(bytes) = storage.file_bytes {
        page.gauge("arc_registry_file_bytes", "size of the registry's file: names and log")
            .is(bytes);
    }
    let writes = &storage.writes;
    page.counter("arc_registry_write_failures_total", "writes to the registry's file that failed")
        .is(writes.failures);
    page.histogram(
        "arc_registry_write_seconds",
        "from the beginning of a write to the registry's file until it is on the disk",
        WRITE_BUCKETS.into_iter().zip(writes.buckets),
        writes.slower,
        writes.took.as_secs_f64(),
    );
}

/// Certificates are named by their first host and by the beginning of their fingerprint, so that it is
/// seen whether all nodes serve the same.
fn certificates(page: &mut Page, relay: &Relay) {
    let certificates = relay.certificates();
    let report = certificates.map(|all| all.report(relay.clock.wall()));
    page.gauge("arc_tls_problem", "1 if a newer certificate is refused, or cannot be had")
        .is(u8::from(report.is_some_and(|report| report.problem.is_some())));
    let told: Vec<_> = certificates.map_or_else(Vec::new, |all| {
        let source = all.source();
        let told = |chain: &Chain| Some((source, chain.description()?));
        all.served().chains().iter().filter_map(told).collect()
    });
    let ends = [
        (
            "arc_tls_certificate_not_before_timestamp_seconds",
            "from when on the certificate for agents is good, Unix time",
            (|told| told.not_before) as fn(&Description) -> Duration,
        ),
        (
            "arc_tls_certificate_not_after_timestamp_seconds",
            "until when the certificate for agents is good, Unix time",
            |told| told.not_after,
        ),
    ];
    for (name, help, end) in ends {
        let mut family = page.gauge(name, help);
        for (source, told) in &told {
            let host = told.names.first().map_or("", String::as_str);
            let fingerprint = told.fingerprint.get(..16).unwrap_or_default();
            let labels = [("host", host), ("source", *source), ("fingerprint", fingerprint)];
            family.with(&labels, end(told).as_secs());
        }
    }
}

/// By the names that Prometheus' own clients give them.
fn system(page: &mut Page, relay: &Relay, Seen { process, disk, .. }: &Seen) {
    let start = seconds(relay.watch.epoch().0);
    page.gauge("process_start_time_seconds", "start of the process, Unix time").is(start);
    if let Some(cpu) = process.cpu_seconds {
        page.counter("process_cpu_seconds_total", "processor time, user and kernel").is(cpu);
    }
    let gauges = [
        ("process_open_fds", "open files, connections among them", process.open_files),
        ("process_max_fds", "files that may be open at most", process.open_files_max),
        ("process_resident_memory_bytes", "memory that is in use", process.resident_bytes),
        ("process_virtual_memory_bytes", "address space", process.virtual_bytes),
        ("process_threads", "threads", process.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            page.gauge(name, help).is(value);
        }
    }
    if let Some(disk) = disk {
        page.gauge("arc_disk_free_bytes", "what may still be written where DATA_DIR is")
            .is(disk.free_bytes);
        page.gauge("arc_disk_size_bytes", "size of the file system where DATA_DIR is")
            .is(disk.total_bytes);
    }
    page.counter("arc_log_lines_dropped_total", "lines of the log that nobody took in time")
        .is(logging::lines_dropped());
    page.counter("arc_log_write_failures_total", "lines that could not be written to LOG_FILE")
        .is(logging::write_failures());
}

#[allow(clippy::cast_precision_loss)] // exact for the next 285,000 years
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::{
        deliver::Sink,
        peers::testing::{Shown, link, mesh, node},
        relay::testing::relay,
        session::testing,
    };

    const NODES: u64 = 100;

    /// One of a hundred nodes, and its scrape with so many sessions; how long that took, of the best of ten.
    fn scraped(sessions: usize) -> (String, Duration) {
        let (relay, _, _) = relay();
        let nodes: Vec<_> = (1..=NODES).map(|id| node(id, MemberState::Alive, 0)).collect();
        let links = nodes.iter().skip(1).map(link).collect();
        relay.join(
            mesh(relay.node, Arc::new(Sink::new(&relay))),
            Arc::new(Shown { nodes, links, ..Shown::default() }),
        );
        let held: Vec<_> = (0..sessions)
            .map(|n| relay.sessions.enter(testing::session(&format!("agent-{n}"), 1).0))
            .collect();
        let clock = crate::clock::Clock::system();
        let took = |_| {
            let start = clock.elapsed();
            let _ = scrape(&relay, &Seen::of(&relay));
            clock.elapsed().saturating_sub(start)
        };
        let best = (0..10).map(took).min().unwrap();
        let text = scrape(&relay, &Seen::of(&relay));
        drop(held);
        (text, best)
    }

    /// The series of a page, none of which is there twice.
    fn series(text: &str) -> Vec<&str> {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series: Vec<_> = samples.map(|line| line.rsplit_once(' ').unwrap().0).collect();
        let mut seen = BTreeSet::new();
        let twice = series.iter().find(|series| !seen.insert(**series));
        assert_eq!(twice, None, "a series twice");
        series
    }

    #[test]
    fn a_voter_and_the_node_that_takes_its_place_are_told_apart() {
        let (relay, _, _) = relay();
        let voter = |node, votes| {
            let (node, seed) = (NodeId(node), "b:7946".to_owned());
            VoterStatus { node, seed, votes, lag: Some(node.0) }
        };
        // The third has been given the book; for a moment it and the dead one both vote.
        let voters = vec![voter(2, true), voter(3, true), voter(4, false)];
        let status = RegistryStatus { voters, ..relay.registry.status() };
        let mut page = Page::behind(String::new());
        super::voters(&mut page, NodeId(1), &status, &[node(3, MemberState::Alive, 0)]);
        let text = page.into_text();
        assert_eq!(series(&text).len(), 5, "{text}");
        let up = "arc_registry_voter_up{voter=\"b:7946\",node=\"0000000000000003\"} 1\n";
        assert!(text.contains(up), "{text}");
    }

    #[test]
    fn a_hundred_nodes_are_a_few_hundred_series_and_none_twice() {
        let (text, _) = scraped(100);
        let series = series(&text);
        let of_links = series.iter().filter(|series| series.contains("peer=\"")).count();
        assert_eq!(of_links, 7 * 99);
        assert!(series.len() < 7 * 99 + 400, "{}", series.len());
        assert!(text.contains("arc_link_packets_lost_total{peer=\"node-7\"} 3\n"));
        assert!(text.contains("arc_ring_share_ratio 0.01\n") && !text.contains("agent-7"));
    }

    /// `cargo test --release -p node --lib scrape -- --ignored --nocapture`
    #[test]
    #[ignore = "measures, and takes a while"]
    fn a_scrape_at_full_size() {
        let (text, best) = scraped(100_000);
        eprintln!("MEASURED: a scrape of {} bytes in {best:?}", text.len());
    }
}
