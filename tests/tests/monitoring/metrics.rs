//! `/metrics`, as Prometheus reads it.

use std::collections::BTreeSet;

use serde_json::json;
use tests::{Cluster, Relay, eventually};

use crate::promtool::promtool;

/// The text of a node's `/metrics`.
pub(crate) async fn scraped(relay: &Relay) -> String {
    tests::http::get(relay.ops, "/metrics").await.expect_status(200).text()
}

/// The names that a scrape has samples of, or announces.
pub(crate) fn names(scrape: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type has a name");
        names.insert(name.to_owned());
        if kind == "histogram" {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    names
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_in_what_nodes_say() {
    let cluster = Cluster::start(2).await;
    let [a, b] = &cluster.nodes[..] else { panic!("there are two") };
    let mut ann = a.agent("ann-1").await;
    let mut bob = b.agent("bob-1").await;
    ann.send(json!({"to": ["bob-1"], "payload": 1})).await;
    bob.next().await;
    for node in [a, b] {
        let scrape = scraped(node).await;
        promtool(&["check", "metrics"], node.folder(), &scrape);
    }
}

#[tokio::test]
async fn each_link_and_each_voter_has_a_series_that_ends_with_it() {
    let mut cluster = Cluster::start(3).await;
    let scrape = scraped(&cluster.nodes[0]).await;
    let of = |scrape: &str, name: &str| {
        scrape.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count()
    };
    assert_eq!(of(&scrape, "arc_link_rtt_seconds"), 2, "{scrape}");
    assert_eq!(of(&scrape, "arc_link_packets_sent_total"), 2, "{scrape}");
    assert_eq!(of(&scrape, "arc_registry_voter_up"), 3, "{scrape}");
    cluster.nodes[2].kill9();
    eventually("the lost one has no link, and is a voter that is down", || async {
        let scrape = scraped(&cluster.nodes[0]).await;
        let down = scrape
            .lines()
            .filter(|line| line.starts_with("arc_registry_voter_up{") && line.ends_with(" 0"));
        down.count() == 1 && of(&scrape, "arc_link_rtt_seconds") == 1
    })
    .await;
}

#[tokio::test]
async fn the_registrys_writes_and_the_process_are_measured() {
    let relay = Relay::start();
    relay.agent("ann-1").await;
    let metrics = relay.metrics().await;
    assert!(metrics.count("arc_registry_write_seconds_count", &[]) > 0);
    assert!(metrics.count("arc_registry_file_bytes", &[]) > 4096);
    assert_eq!(metrics.count("arc_registry_role", &[("role", "leader")]), 1);
    assert_eq!(metrics.count("arc_phase", &[("phase", "serving")]), 1);
    let files = std::fs::read_dir(format!("/proc/{}/fd", relay.pid())).expect("it runs").count();
    let told = metrics.count("process_open_fds", &[]);
    assert!(told.abs_diff(files as u64) <= 5, "{told} told, {files} open");
}
