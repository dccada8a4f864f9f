//! What is wrong with the node that runs, its peers, and the clocks and names around it. Pure.

use std::time::Duration;

use cluster::link::CLOCK_SKEW_MAX;

use super::super::{
    facts::{Authority, Clocks, Met, Name, Node, Running, Seed},
    finding::Finding,
};
use crate::{
    agent::{text::counted, tls::Finding as TlsFinding},
    relay::VERSION,
    report::NodeReport,
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

/// What the node that runs says of the others.
pub(in crate::agent::doctor) fn peers(running: &Running) -> Vec<Finding> {
    let check = "cluster";
    let cluster = &running.cluster;
    let mut all: Vec<_> = cluster.nodes.iter().filter_map(|node| peer(node, running)).collect();
    if let Some(registry) = &cluster.registry {
        if let Some(failure) = &registry.failure {
            let remedy = "mend the disk, or empty the data directory and start it again: the others have all";
            all.push(Finding::error(check, format!("its registry has failed: {failure}"), remedy));
        }
        if !registry.available {
            let why = registry.waiting.as_ref().map(|waiting| waiting.reason.as_str());
            let found =
                format!("names cannot be registered: {}", why.unwrap_or("no majority of voters"));
            let remedy = "start the voters that are missing (`arc-relay cluster voters`); if one is lost for \
                          ever, replace it";
            all.push(Finding::error(check, found, remedy));
        }
    }
    if all.is_empty() {
        let alive = cluster.nodes.iter().filter(|node| node.state == "alive").count() as u64;
        all.push(Finding::ok(
            check,
            format!("{} alive, names can be registered", counted(alive, "node")),
        ));
    }
    all
}

fn peer(node: &NodeReport, running: &Running) -> Option<Finding> {
    let silent =
        running.cluster.links.iter().find(|link| link.id == node.id && link.silent_ms > 3_000);
    let found = match node.state.as_str() {
        "dead" => format!("{} is dead", node.name),
        "suspect" => format!("{} does not answer", node.name),
        "alive" if silent.is_some() => format!("the link to {} is silent", node.name),
        _ => return None,
    };
    let remedy = "see on its machine whether it runs (`arc-relay doctor` there), and whether the network \
                  between the two works";
    Some(Finding::warning("cluster", found, remedy))
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
