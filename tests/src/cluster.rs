//! Several relays that are one: started with each other as seeds, on loopback addresses of their own.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::{Relay, arc_relay, eventually, http};

/// The mesh port of every node; each has an address of its own.
const MESH_PORT: u16 = 7946;

/// Loopback addresses given out by this process.
static ADDRESSES: AtomicU32 = AtomicU32::new(0);

/// Running relays that form one mesh; all end with this value.
pub struct Cluster {
    /// The nodes, in the order in which they were started.
    pub nodes: Vec<Relay>,
    seeds: String,
    secret: String,
    settings: Vec<(String, String)>,
}

impl Cluster {
    /// Starts `nodes` nodes, all of them seeds, and waits until each knows all.
    pub async fn start(nodes: usize) -> Self {
        Self::with(nodes, &[]).await
    }

    /// The same, with these environment variables on every node.
    pub async fn with(nodes: usize, settings: &[(&str, &str)]) -> Self {
        let addresses: Vec<Ipv4Addr> = (0..nodes).map(|_| loopback_address()).collect();
        let mut cluster = Self::unstarted(&addresses, settings);
        for address in addresses {
            cluster.add_at(address, &[]);
        }
        cluster.is_whole().await;
        cluster
    }

    /// A cluster with these seeds, none of which runs yet.
    pub fn unstarted(seeds: &[Ipv4Addr], settings: &[(&str, &str)]) -> Self {
        let seeds: Vec<String> = seeds.iter().map(|seed| format!("{seed}:{MESH_PORT}")).collect();
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { nodes: Vec::new(), seeds: seeds.join(","), secret: new_secret(), settings }
    }

    /// Starts one more node, which is no seed, and gives its number.
    pub fn add(&mut self, settings: &[(&str, &str)]) -> usize {
        self.add_at(loopback_address(), settings)
    }

    /// Starts one more node with its mesh port at `address`, and gives its number.
    pub fn add_at(&mut self, address: Ipv4Addr, settings: &[(&str, &str)]) -> usize {
        let number = self.nodes.len();
        let (address, name) = (address.to_string(), format!("node-{number}"));
        let mut all = vec![
            ("SEEDS", self.seeds.as_str()),
            ("CLUSTER_SECRET", &self.secret),
            ("NODE_NAME", &name),
            ("MESH_HOST", &address),
        ];
        all.extend(self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        all.extend(settings);
        let node = Relay::with(&all);
        self.nodes.push(node);
        number
    }

    /// The secret that its nodes share.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The seeds, as `SEEDS` has them.
    pub fn seeds(&self) -> &str {
        &self.seeds
    }

    /// Waits until the registry is led, as every node sees it, and is kept by so many nodes.
    pub async fn is_kept_by(&self, voters: usize) {
        for node in &self.nodes {
            kept_by(node, voters).await;
        }
    }

    /// Waits until all nodes are ready, and each is linked to all others and sees them alive.
    pub async fn is_whole(&self) {
        let nodes: Vec<&Relay> = self.nodes.iter().collect();
        are_one(&nodes).await;
    }
}

/// Waits until these nodes are ready, and each is linked to all others and sees exactly them alive.
pub async fn are_one(nodes: &[&Relay]) {
    // Before a restarted node is ready, others may still see its former life.
    for node in nodes {
        node.is_ready().await;
    }
    for node in nodes {
        eventually("the node sees all others", || async {
            let cluster = view(node).await;
            let alive = in_state(&cluster, "alive").len();
            let links = cluster["links"].as_array().map_or(0, Vec::len);
            alive == nodes.len() && links + 1 >= nodes.len()
        })
        .await;
    }
}

/// Waits until the registry is led, as the node sees it, and, if it knows, kept by so many nodes.
pub async fn kept_by(node: &Relay, voters: usize) {
    eventually(&format!("{voters} nodes keep the names"), || async {
        let registry = registry(node).await;
        let known = voting(&registry).len();
        registry["available"] == true && (known == voters || known == 0)
    })
    .await;
}

/// What the node says of the registry.
pub async fn registry(node: &Relay) -> Value {
    view(node).await["registry"].clone()
}

/// The ids of the nodes that keep the names, as a node says that is one of them.
pub fn voting(registry: &Value) -> Vec<String> {
    let voters = registry["voters"].as_array().cloned().unwrap_or_default();
    let voting = voters.into_iter().filter(|voter| voter["votes"] == true);
    voting.filter_map(|voter| voter["node"].as_str().map(str::to_owned)).collect()
}

/// What the node says of the cluster.
pub async fn view(node: &Relay) -> Value {
    http::get(node.ops, "/cluster").await.expect_status(200).json()
}

/// The names of the nodes in that state.
pub fn in_state(view: &Value, state: &str) -> Vec<String> {
    let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
    let with = nodes.into_iter().filter(|node| node["state"] == state);
    with.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect()
}

/// A loopback address that no other test of this machine's run uses.
pub fn loopback_address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed);
    let number = u8::try_from(number % 250 + 1).expect("below 256");
    Ipv4Addr::new(127, high | 0x80, low, number)
}

/// What `arc-relay secret` prints.
pub fn new_secret() -> String {
    let output = Command::new(arc_relay()).arg("secret").output().expect("the binary can be run");
    String::from_utf8(output.stdout).expect("a secret is text").trim().to_owned()
}
