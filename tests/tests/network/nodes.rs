//! Nodes on the hosts of a network.

use std::{net::Ipv4Addr, time::Instant};

use tests::{
    Client, Cluster, Relay,
    cluster::{in_state, registry, view},
    eventually, measured,
    netns::Network,
};

/// Starts a node on each host, with its mesh port at the address that `mesh` gives the host, and in that
/// region; waits until each knows all.
pub(crate) async fn start(
    network: &Network,
    mesh: impl Fn(usize) -> Ipv4Addr,
    regions: &[&str],
) -> Cluster {
    let addresses: Vec<Ipv4Addr> = (0..network.len()).map(mesh).collect();
    let mut cluster = Cluster::unstarted(&addresses, &[]);
    for (host, address) in addresses.iter().enumerate() {
        let own = network.address(host).to_string();
        let settings = [
            ("HOST", own.as_str()),
            ("STATS_HOST", &own),
            ("REGION", regions[host]),
            // Gossip's own words fill the log.
            ("LOG_LEVEL", "info"),
        ];
        network.host(host).run(|| cluster.add_at(*address, &settings));
    }
    cluster.is_whole().await;
    // On a busy machine the first election may come later than the links.
    for node in &cluster.nodes {
        eventually("names can be registered", || async {
            registry(node).await["available"] == true
        })
        .await;
    }
    cluster
}

/// The same in one region, with the mesh on the bridge.
pub(crate) async fn on_bridge(network: &Network) -> Cluster {
    start(network, |host| network.address(host), &vec!["default"; network.len()]).await
}

/// Waits until the node sees exactly these alive, and all others in one of those states.
pub(crate) async fn sees(node: &Relay, alive: &[&str], others: &[&str]) {
    let start = Instant::now();
    eventually(&format!("exactly {alive:?} are alive, and the others {others:?}"), || async {
        let view = view(node).await;
        let mut seen = in_state(&view, "alive");
        seen.sort();
        let nodes = view["nodes"].as_array().map_or(0, Vec::len);
        let gone: usize = others.iter().map(|state| in_state(&view, state).len()).sum();
        seen == alive && gone + alive.len() == nodes
    })
    .await;
    measured(&format!("{alive:?} alive, the others {others:?}: after {:.1?}", start.elapsed()));
}

/// Waits until the node has links to exactly these.
pub(crate) async fn links(node: &Relay, peers: &[&str]) {
    eventually(&format!("there are links to exactly {peers:?}"), || async {
        let view = view(node).await;
        let links = view["links"].as_array().expect("a list of links");
        links.len() == peers.len()
            && links.iter().all(|link| peers.iter().any(|peer| link["peer"] == *peer))
    })
    .await;
}

/// Mends the network, and waits until the cluster is one again.
pub(crate) async fn heal(network: &Network, cluster: &Cluster, what: &str) {
    network.heal();
    let healed = Instant::now();
    cluster.is_whole().await;
    measured(&format!("{what}: one cluster again after {:.1?}", healed.elapsed()));
}

/// Waits until every node counts this many sessions in the whole cluster.
pub(crate) async fn count_sessions(cluster: &Cluster, sessions: usize) {
    for node in &cluster.nodes {
        eventually(&format!("{sessions} sessions are counted everywhere"), || async {
            node.stats().await["active_connections"] == sessions
        })
        .await;
    }
}

/// Connects, and says how long the welcome took.
pub(crate) async fn admitted(node: &Relay, token: &str, what: &str) -> Client {
    let start = Instant::now();
    let client = Client::connect(node, token).await;
    measured(&format!("{what}: welcome after {:.1?}", start.elapsed()));
    client
}
