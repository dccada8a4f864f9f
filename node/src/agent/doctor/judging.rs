//! What is wrong with what was seen, and what to do about it. Pure.

use std::{io::ErrorKind, time::Duration};

use cluster::link::{CLOCK_SKEW_MAX, quic::SOCKET_BUFFER_BYTES};

use super::{
    facts::{
        Authority, Certificate, Disk, Facts, Memory, Mesh, Met, Name, Node, Port, Running, Seed,
        Validity,
    },
    finding::{Finding, Level},
};
use crate::{
    agent::{
        status::time,
        text::{counted, size},
        tls::Finding as TlsFinding,
    },
    config::{Notice, Problems},
    files,
    relay::VERSION,
    report::NodeReport,
};

/// Bytes that an idle agent's connection takes: twice what was measured.
const AGENT_BYTES: u64 = 16 << 10;

/// The same with TLS.
const ENCRYPTED_AGENT_BYTES: u64 = 32 << 10;

/// Bytes that a node takes without agents.
const NODE_BYTES: u64 = 64 << 20;

/// With less room the disk will soon be full: logs and the registry's own repair need some.
const ROOM_MIN: u64 = 100 << 20;

/// With less room somebody should look.
const ROOM_LOW: u64 = 1 << 30;

/// With fewer files that can be made still, the disk will soon be full.
const FILES_MIN: u64 = 1_000;

/// Clocks that differ more are not kept by NTP.
const CLOCKS_LOW: Duration = Duration::from_secs(3);

/// Characters of a good registration key, of which half are different.
const KEY_CHARS: usize = 16;

/// A certificate's end is near.
const NEAR: Duration = Duration::from_hours(24 * 14);

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

/// A configuration that may not be used.
pub(super) fn problems(problems: &Problems) -> Vec<Finding> {
    let finding = |problem: &crate::config::Problem| {
        let remedy = "the node does not start until this is mended: `arc-relay --check-config`";
        Finding::error("config", problem.to_string(), remedy)
    };
    problems.0.iter().map(finding).collect()
}

/// A configuration that may be used.
pub(super) fn notices(notices: &[Notice]) -> Vec<Finding> {
    let warnings = notices.iter().filter(|notice| notice.is_warning());
    let remedy = "`arc-relay --check-config` shows what is set, and where";
    let findings: Vec<_> =
        warnings.map(|it| Finding::warning("config", it.to_string(), remedy)).collect();
    match findings.is_empty() {
        true => vec![Finding::ok("config", "no problem")],
        false => findings,
    }
}

/// All of it.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let running = match &facts.node {
        Node::Running(running) => Some(&**running),
        _ => None,
    };
    let mut all = node(&facts.node, &facts.node_name);
    all.extend(facts.ports.iter().map(|it| port(it, running.is_some())));
    all.push(file_limit(facts.max_connections, facts.file_limit));
    all.push(memory(facts.memory, facts.max_connections, facts.encrypted));
    all.extend(disk(&facts.disk));
    all.extend(secrets(&facts.mesh, facts.registration_key));
    all.extend(facts.certificate.iter().flat_map(|it| certificate(it, facts.at.0)));
    all.extend(running.iter().flat_map(|it| served(it.certificates.as_deref())));
    all.extend(facts.names.iter().map(name));
    if !facts.seeds.is_empty() {
        all.push(buffers(facts.buffers));
        all.extend(seeds(&facts.seeds, running));
    }
    all.extend(running.iter().flat_map(|it| peers(it)));
    all.extend(clocks(running, facts.authority.as_ref(), facts.at.0));
    all
}

/// The node that runs here.
pub(super) fn node(node: &Node, name: &str) -> Vec<Finding> {
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

/// A port that the node wants.
pub(super) fn port(port: &Port, running: bool) -> Finding {
    let Port { variable, host, address, udp, tried } = port;
    let check = "ports";
    let kind = if *udp { "UDP" } else { "TCP" };
    let what = format!("{kind} {address} ({variable})");
    if address.port() == 0 {
        return Finding::ok(check, format!("{what}: the system chooses one"));
    }
    let list = if *udp { "ss -lunp" } else { "ss -ltnp" };
    match (tried, running) {
        (Ok(()), false) => Finding::ok(check, format!("{what} is free")),
        (Ok(()), true) => Finding::warning(
            check,
            format!("{what} is free, although the node runs: it was started with other settings"),
            "run this with the node's own configuration, or start the node again",
        ),
        (Err(ErrorKind::AddrInUse), true) => Finding::ok(check, format!("{what} is the node's")),
        (Err(ErrorKind::AddrInUse), false) => Finding::error(
            check,
            format!("{what} is taken by another program"),
            format!(
                "see which (`{list} | grep :{}`), and end that or set {variable}",
                address.port()
            ),
        ),
        (Err(ErrorKind::PermissionDenied), true) => {
            Finding::ok(check, format!("{what} cannot be tried as this user; the node runs"))
        }
        (Err(ErrorKind::PermissionDenied), false) => Finding::warning(
            check,
            format!("{what} cannot be had by this user"),
            "ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit gives: run this as \
             the node is run, or set a higher port",
        ),
        (Err(ErrorKind::AddrNotAvailable), _) => Finding::error(
            check,
            format!("{what}: the machine has no such address"),
            format!("set {host} to one that it has (`ip address`), or to ::"),
        ),
        (Err(other), _) => Finding::error(
            check,
            format!("{what} cannot be had: {other}"),
            format!("set {host} and {variable} to what the machine has"),
        ),
    }
}

/// The limit on open files.
pub(super) fn file_limit(max_connections: usize, limit: u64) -> Finding {
    match files::shortage(max_connections, limit) {
        None => Finding::ok("files", format!("{limit} may be open, enough for MAX_CONNECTIONS")),
        Some(short) => Finding::warning(
            "files",
            format!(
                "{limit} may be open: no more than {} of {max_connections} agents (MAX_CONNECTIONS)",
                short.fits
            ),
            format!("{}; a service has a limit of its own", short.remedy()),
        ),
    }
}

/// Whether the memory is enough for all agents that may come.
pub(super) fn memory(memory: Memory, max_connections: usize, encrypted: bool) -> Finding {
    let check = "memory";
    let Some(there) = memory.limit.or(memory.total) else {
        return Finding::ok(check, "the system does not say how much there is");
    };
    let each = if encrypted { ENCRYPTED_AGENT_BYTES } else { AGENT_BYTES };
    let needed = NODE_BYTES.saturating_add(each.saturating_mul(max_connections as u64));
    let whose =
        if memory.limit.is_some() { "this control group may have" } else { "the machine has" };
    let found = format!(
        "{whose} {}; {max_connections} idle agents (MAX_CONNECTIONS) take up to {}",
        size(there),
        size(needed)
    );
    if needed <= there {
        return Finding::ok(check, found);
    }
    let fits = there.saturating_sub(NODE_BYTES) / each;
    Finding::warning(check, found, format!("set MAX_CONNECTIONS to {fits}, or give it more memory"))
}

/// The data directory.
pub(super) fn disk(disk: &Disk) -> Vec<Finding> {
    let check = "disk";
    let path = disk.path.display();
    let mut all = Vec::new();
    if let Some(why) = &disk.refused {
        let remedy = "let it belong to the user that runs the relay (chown), or set DATA_DIR";
        let finding = Finding::error(check, format!("DATA_DIR cannot be written: {why}"), remedy);
        // What this user may not, the node's own may.
        all.push(match disk.is_anothers {
            true => Finding {
                level: Level::Warning,
                remedy: Some(format!("run this as the user that runs the relay; or {remedy}")),
                ..finding
            },
            false => finding,
        });
    }
    let few = disk.free_files.is_some_and(|files| files < FILES_MIN);
    match disk.free {
        Some(free) if free < ROOM_MIN || few => all.push(Finding::error(
            check,
            format!("{path}: {} and {} files are left", size(free), left(disk.free_files)),
            "make room: without any, no name can be registered",
        )),
        Some(free) if free < ROOM_LOW => all.push(Finding::warning(
            check,
            format!("{path}: {} are left", size(free)),
            "make room: the registry grows by some 100 bytes an agent, and logs by more",
        )),
        _ => {}
    }
    if disk.exists && disk.mode & 0o055 != 0 && !disk.open_files.is_empty() {
        all.push(Finding::error(
            check,
            format!("others may read what is secret in {path}: {}", disk.open_files.join(", ")),
            format!("chmod -R go= {path}"),
        ));
    }
    if !disk.foreign_files.is_empty() {
        all.push(Finding::error(
            check,
            format!("not all in {path} is of one owner: {}", disk.foreign_files.join(", ")),
            format!("chown -R --reference={path} {path}: something was run as another user there"),
        ));
    }
    if all.is_empty() {
        let state = if disk.exists { "" } else { " is made at the start;" };
        let room = disk.free.map_or_else(String::new, |free| format!(" {} are left", size(free)));
        all.push(Finding::ok(check, format!("{path}{state}{room}")));
    }
    all
}

fn left(files: Option<u64>) -> String {
    files.map_or_else(|| "any number of".to_owned(), |files| files.to_string())
}

/// What nodes know each other by, and what keeps strangers from registering.
pub(super) fn secrets(mesh: &Mesh, registration_key: Option<(usize, usize)>) -> Vec<Finding> {
    let check = "secrets";
    let mut all = vec![match mesh {
        Mesh::None => Finding::warning(
            check,
            "there is no CLUSTER_SECRET: no backup can be taken, and no other node can join",
            "make one with `arc-relay secret`, set it, and keep a copy elsewhere",
        ),
        Mesh::Secret { previous: true } => Finding::warning(
            check,
            "CLUSTER_SECRET_PREVIOUS is believed, too",
            "remove it from all nodes when all have the new one",
        ),
        Mesh::Secret { previous: false } => {
            Finding::ok(check, "CLUSTER_SECRET is whole: 256 random bits")
        }
        Mesh::Files(Ok(_)) => Finding::ok(check, "MESH_CA, MESH_CERT and MESH_KEY fit"),
        Mesh::Files(Err(why)) => Finding::error(
            check,
            format!("the mesh's files are refused: {why}"),
            "mend MESH_CA, MESH_CERT and MESH_KEY: peers would refuse this node",
        ),
    }];
    if let Some((chars, different)) = registration_key {
        all.push(match chars < KEY_CHARS || different < KEY_CHARS / 2 {
            true => Finding::warning(
                check,
                "REGISTRATION_KEY can be guessed: it is short, or of few different characters",
                "make another one: openssl rand -base64 24 | tr '+/' '-_'",
            ),
            false => Finding::ok(check, "REGISTRATION_KEY is long enough"),
        });
    }
    all
}

/// The operator's certificate for agents.
pub(super) fn certificate(certificate: &Certificate, now: u64) -> Vec<Finding> {
    let check = "certificate";
    let Certificate { cert, key, key_is_open, read } = certificate;
    let mut all = Vec::new();
    if *key_is_open {
        all.push(Finding::error(
            check,
            format!("everybody on this machine may read the key {}", key.display()),
            format!("chmod o= {}; if strangers were here, get another certificate", key.display()),
        ));
    }
    let validity = match read {
        Ok(validity) => validity,
        Err(why) => {
            let found = format!("{} and its key are refused: {why}", cert.display());
            all.push(Finding::error(check, found, "mend TLS_CERT and TLS_KEY: agents are refused"));
            return all;
        }
    };
    let Validity { not_before, not_after, names } = validity;
    let now = Duration::from_millis(now);
    let renew = "renew it, and put it into TLS_CERT and TLS_KEY: a node sees that by itself";
    let whose = format!("{} for {}", cert.display(), names.join(", "));
    all.push(match (not_after.checked_sub(now), not_before.checked_sub(now)) {
        (None | Some(Duration::ZERO), _) => {
            let over = time(now.saturating_sub(*not_after).as_secs());
            Finding::error(check, format!("{whose} expired {over} ago"), renew)
        }
        (_, Some(wait)) if !wait.is_zero() => Finding::error(
            check,
            format!("{whose} is good only in {}", time(wait.as_secs())),
            "set this machine's clock, or wait",
        ),
        (Some(left), _) if left < NEAR && left < (*not_after - *not_before) / 6 => {
            Finding::warning(check, format!("{whose} expires in {}", time(left.as_secs())), renew)
        }
        (Some(left), _) => {
            Finding::ok(check, format!("{whose} is good for {}", time(left.as_secs())))
        }
    });
    all
}

/// What `arc-relay tls check` has found of all nodes.
pub(super) fn served(findings: Option<&[TlsFinding]>) -> Vec<Finding> {
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
        match TLS_WARNINGS.contains(&it.code) {
            true => Finding::warning(check, found, it.remedy.clone()),
            false => Finding::error(check, found, it.remedy.clone()),
        }
    };
    findings.iter().map(finding).collect()
}

/// A name that must be found.
pub(super) fn name(name: &Name) -> Finding {
    let Name { variable, name, found } = name;
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

/// The room for the mesh's packets.
pub(super) fn buffers(buffers: Option<(u64, u64)>) -> Finding {
    let wanted = SOCKET_BUFFER_BYTES as u64;
    match buffers {
        None => Finding::ok("buffers", "the system does not say how large UDP buffers may be"),
        Some((receive, send)) if receive.min(send) >= wanted => {
            Finding::ok("buffers", format!("UDP buffers may have {}", size(receive.min(send))))
        }
        Some((receive, send)) => Finding::warning(
            "buffers",
            format!(
                "UDP buffers may have {}, and the mesh wants {}: packets are lost under load",
                size(receive.min(send)),
                size(wanted)
            ),
            format!(
                "sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}, and put both into \
                     /etc/sysctl.d/90-arc-relay.conf; for a container, on its host"
            ),
        ),
    }
}

/// The nodes to start from.
pub(super) fn seeds(seeds: &[Seed], running: Option<&Running>) -> Vec<Finding> {
    seeds.iter().filter_map(|it| seed(it, running)).collect()
}

fn seed(seed: &Seed, running: Option<&Running>) -> Option<Finding> {
    let (check, Seed { seed, met }) = ("peers", seed);
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
pub(super) fn peers(running: &Running) -> Vec<Finding> {
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

/// This machine's clock against those of others.
pub(super) fn clocks(
    running: Option<&Running>,
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
