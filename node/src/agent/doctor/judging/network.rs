//! What is wrong with the node that runs, its peers, and the clocks and names around it. Pure.

use std::time::Duration;

use cluster::link::CLOCK_SKEW_MAX;

use super::super::{
    facts::{Authority, Clocks, Met, Name, Node, Running, Seed},
    finding::Finding,
};
use crate::{
    admin::Voter,
    agent::{
        text::counted,
        tls::Finding as TlsFinding,
        whole::{Keepers, Lack, whole},
    },
    relay::VERSION,
    report::ClusterReport,
};

/// Clocks that differ more are not kept by NTP.
const CLOCKS_LOW: Duration = Duration::from_secs(3);

/// What `arc-relay tls check` finds that agents can live with.
const TLS_WARNINGS: [&str; 8] = [
    "ends_soon",
    "untrusted",
    "no_tls",
    "dns_unknown",
    "http_closed",
    "differ",
    "port_80",
    "silent",
];

/// The node that runs here.
pub(in crate::agent::doctor) fn node(node: &Node, name: &str) -> Vec<Finding> {
    let check = "node";
    let running = match node {
        Node::Unknown => {
            return vec![Finding::ok(
                check,
                "STATS_PORT is 0: where it runs, if it does, is not known",
            )];
        }
        Node::Stopped => return vec![Finding::ok(check, "does not run here")],
        Node::Stranger(why) => {
            let found = format!("something else answers at STATS_PORT: {why}");
            let remedy = "see whose port it is (`ss -ltnp`), and end that or set STATS_PORT";
            return vec![Finding::error(check, found, remedy)];
        }
        Node::Running(running) => &**running,
    };
    let Running { health, waiting, ready, cluster, .. } = running;
    let mut all = Vec::new();
    let own = cluster.nodes.iter().find(|node| node.id == cluster.node);
    if let Some(own) = own.filter(|own| own.name != name) {
        let found = format!("{} runs here, and {name} is configured", own.name);
        let remedy = "run this with the configuration of the node, as its unit or container has it";
        all.push(Finding::warning(check, found, remedy));
    }
    if let Some(own) = own.filter(|own| own.version != VERSION) {
        let found = format!("release {} runs, and {VERSION} is installed", own.version);
        let remedy = "start it again (`arc-relay drain` first, in a cluster)";
        all.push(Finding::warning(check, found, remedy));
    }
    all.push(match (health.as_str(), ready.as_str()) {
        ("ok", "ready") => Finding::ok(check, "runs, and takes agents"),
        ("ok", "full") => Finding::warning(
            check,
            "runs, and is full: it takes no more agents",
            "raise MAX_CONNECTIONS, or add a node",
        ),
        (_, "draining") => Finding::warning(
            check,
            "leaves: it takes no agents",
            "wait until it has left; then start it again if that is meant",
        ),
        (health, _) => {
            let why = waiting.as_deref().unwrap_or("it does not say for what");
            let found = format!("takes no agents: {health}, {why}");
            Finding::error(check, found, "do what it waits for; its log says more")
        }
    });
    all
}

/// What `arc-relay tls check` has found of all nodes.
pub(in crate::agent::doctor) fn served(findings: Option<&[TlsFinding]>) -> Vec<Finding> {
    let check = "tls";
    let Some(findings) = findings else { return Vec::new() };
    if findings.is_empty() {
        return vec![Finding::ok(
            check,
            "all nodes serve good certificates (`arc-relay tls check`)",
        )];
    }
    let finding = |it: &TlsFinding| {
        let found = format!("{}: {}", it.about, it.problem);
        if TLS_WARNINGS.contains(&it.code) {
            Finding::warning(check, found, it.remedy.clone())
        } else {
            Finding::error(check, found, it.remedy.clone())
        }
    };
    findings.iter().map(finding).collect()
}

/// A name that must be found.
pub(in crate::agent::doctor) fn name(name: &Name) -> Finding {
    let Name { variable, text: name, found } = name;
    match found {
        Ok(addresses) => {
            Finding::ok("dns", format!("{name} ({variable}) has {}", addressed(*addresses as u64)))
        }
        Err(why) => Finding::error(
            "dns",
            format!("{name} ({variable}) is not found: {why}"),
            match *variable {
                "ACME_DOMAINS" => "set A or AAAA records to the public addresses of the nodes",
                _ => "set its record, or write an address that this machine can look up",
            },
        ),
    }
}

fn addressed(addresses: u64) -> String {
    match addresses {
        1 => "1 address".to_owned(),
        more => format!("{more} addresses"),
    }
}

/// The nodes to start from.
pub(in crate::agent::doctor) fn seeds(seeds: &[Seed], running: Option<&Running>) -> Vec<Finding> {
    seeds.iter().filter_map(|it| seed(it, running)).collect()
}

fn seed(seed: &Seed, running: Option<&Running>) -> Option<Finding> {
    let (check, Seed { text: seed, met, .. }) = ("peers", seed);
    let open = format!(
        "see that it runs, and that UDP {} is open from here to there and back (deploy/firewall.nft)",
        seed.rsplit(':').next().unwrap_or_default()
    );
    Some(match met {
        // It is told of among the names.
        Met::NotFound => return None,
        Met::Own => Finding::ok(check, format!("{seed} is this node")),
        Met::Answered { node, rtt } => {
            let (who, rtt) = (node.to_string(), rtt.as_secs_f64() * 1_000.0);
            let cluster = running.map(|running| &running.cluster.nodes);
            let known = cluster.and_then(|nodes| nodes.iter().find(|known| known.id == who));
            let who = known.map_or(who, |known| known.name.clone());
            Finding::ok(check, format!("{seed} answers, and trusts us: {who}, {rtt:.1} ms"))
        }
        Met::Distrusted => Finding::error(
            check,
            format!("{seed} is of another cluster: its CLUSTER_SECRET is not ours"),
            "give all nodes the same CLUSTER_SECRET (or certificates of one MESH_CA)",
        ),
        Met::Expired => Finding::error(
            check,
            format!("{seed}: a certificate is not good at this time"),
            "set both machines' clocks, by NTP; renew MESH_CERT if there is one",
        ),
        Met::Silent(why) if running.is_some() => {
            Finding::error(check, format!("{seed} does not answer: {why}"), open)
        }
        Met::Silent(why) => Finding::warning(check, format!("{seed} does not answer: {why}"), open),
        Met::Untried => Finding::warning(
            check,
            format!("{seed} could not be tried: this node has no certificate to show"),
            "mend what is said of its secrets",
        ),
    })
}

/// What the node that runs says of the others and of the registry: what `health --whole` goes by, too.
pub(in crate::agent::doctor) fn peers(running: &Running) -> Vec<Finding> {
    let check = "cluster";
    let cluster = &running.cluster;
    let Err(lacks) = whole(cluster) else {
        let alive = cluster.nodes.iter().filter(|node| node.state == "alive").count() as u64;
        let found = format!("{} alive, names can be registered", counted(alive, "node"));
        return vec![Finding::ok(check, found)];
    };
    let failed = lacks.iter().any(|lack| matches!(lack, Lack::Failed(_)));
    let is_told = |lack: &&Lack| match lack {
        // Of the node here it is told above that it is not there yet, or leaves.
        Lack::State { id, .. } => *id != cluster.node,
        Lack::Unavailable => !failed,
        _ => true,
    };
    let mut all: Vec<_> = lacks.iter().filter(is_told).map(|it| missed(it, cluster)).collect();
    if let Some(registry) = cluster.registry.as_ref().filter(|registry| registry.available) {
        let keepers = Keepers::of(registry, &cluster.nodes);
        if !keepers.is_complete() {
            let remedy = "start what is gone; if it is lost for ever, let another node take its place \
                          (`arc-relay cluster voters replace OLD NEW`)";
            all.push(Finding::warning(check, keepers.to_string(), remedy));
        }
    }
    all
}

/// What is missed, and what to do about it.
fn missed(lack: &Lack, cluster: &ClusterReport) -> Finding {
    let check = "cluster";
    let available = cluster.registry.as_ref().is_none_or(|registry| registry.available);
    match lack {
        Lack::Failed(why) => {
            let remedy = if others_have_all(cluster) {
                "make room on the disk of DATA_DIR, or mend it; if it is lost, start this node with an empty \
                 DATA_DIR: the others have all names"
            } else {
                "make room on the disk of DATA_DIR, or mend it, and keep what is in there: no other node is \
                 known to have all names; if it is lost, `arc-relay restore` takes them from a backup"
            };
            let and = if available { "" } else { ", and names cannot be registered" };
            Finding::error(check, format!("its registry has failed{and}: {why}"), remedy)
        }
        Lack::Waiting(_) | Lack::Unavailable if !available => {
            let why = match lack {
                Lack::Waiting(reason) => reason,
                _ => "a majority of the nodes that keep them is out of reach",
            };
            let remedy = "start the nodes that keep the names and are missing (`arc-relay cluster voters`); if \
                          one is lost for ever, let another take its place";
            Finding::error(check, format!("names cannot be registered: {why}"), remedy)
        }
        Lack::State { state, .. } if state == "leaving" || state == "joining" => {
            let remedy = "wait; if it lasts, `arc-relay health` there says what it waits for";
            Finding::warning(check, lack.to_string(), remedy)
        }
        Lack::State { .. } | Lack::NoLink(_) | Lack::Silent(_) => {
            let remedy = "see on its machine whether it runs (`arc-relay doctor` there), and whether the \
                          network between the two works";
            Finding::warning(check, lack.to_string(), remedy)
        }
        Lack::Absent(_) => {
            let remedy = "start it, and see in its log why it does not join";
            Finding::warning(check, lack.to_string(), remedy)
        }
        Lack::Learns(_) | Lack::Behind { .. } => {
            let remedy = "wait; if it lasts, see to its disk and to the network between the nodes";
            Finding::warning(check, lack.to_string(), remedy)
        }
        Lack::Untold | Lack::Waiting(_) | Lack::Unavailable => {
            let remedy = "`arc-relay cluster voters` shows what it waits for";
            Finding::warning(check, lack.to_string(), remedy)
        }
    }
}

/// Whether what is in the data directory here is all in those of others, too: a majority decides
/// without this node.
fn others_have_all(cluster: &ClusterReport) -> bool {
    cluster.registry.as_ref().is_some_and(|registry| {
        let is_another = |voter: &Voter| voter.votes && voter.node != cluster.node;
        registry.available && registry.voters.iter().any(is_another)
    })
}

/// This machine's clock against those of others: of all nodes, if the one here runs and was told, else of
/// the seeds.
pub(in crate::agent::doctor) fn clocks(
    running: Option<&Running>,
    seeds: &[Seed],
    authority: Option<&Authority>,
    now: u64,
) -> Vec<Finding> {
    let mut all = Vec::new();
    let nodes = running.and_then(|it| Some((it.asked_at, it.tls.as_ref()?)));
    if let Some((at, tls)) = nodes {
        for node in tls.nodes.iter().filter(|node| node.id != tls.node) {
            let Some(says) = &node.says else { continue };
            all.push(clock(&node.name, says.clock.0, at));
        }
    } else {
        let told = seeds.iter().filter_map(|it| Some((&it.text, it.clock?)));
        all.extend(told.map(|(seed, Clocks { here, there })| clock(seed, there, here)));
    }
    match authority {
        Some(Authority { directory, clock: Ok(Some(there)) }) => {
            all.push(clock(directory, *there, now));
        }
        Some(Authority { directory, clock: Err(why) }) => all.push(Finding::error(
            "authority",
            format!("{directory} does not answer: {why}"),
            "let this machine reach it (TCP 443 outwards), or set ACME_DIRECTORY and ACME_CA_ROOT",
        )),
        _ => {}
    }
    all
}

fn clock(whose: &str, there: u64, here: u64) -> Finding {
    let check = "clocks";
    let off = Duration::from_millis(there.abs_diff(here));
    let way = if there > here { "behind" } else { "ahead of" };
    let found = format!("this machine's clock is {:.1} s {way} that of {whose}", off.as_secs_f64());
    let remedy = "let NTP keep both (`timedatectl set-ntp true`)";
    match off {
        off if off > CLOCK_SKEW_MAX => Finding::error(
            check,
            found,
            format!(
                "{remedy}: nodes refuse each other that are {} s apart",
                CLOCK_SKEW_MAX.as_secs()
            ),
        ),
        off if off > CLOCKS_LOW => Finding::warning(check, found, remedy),
        _ => Finding::ok(check, format!("this machine's clock and that of {whose} agree")),
    }
}
