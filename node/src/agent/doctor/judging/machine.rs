//! What is wrong with the machine and with the files that the configuration names. Pure.

use std::{io::ErrorKind, time::Duration};

use cluster::link::quic::SOCKET_BUFFER_BYTES;

use super::super::{
    facts::{Certificate, Disk, Memory, Mesh, Port, SecretSetting, Validity},
    finding::{Finding, Level},
};
use crate::{
    agent::{status::time, text::size},
    files,
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

/// Characters of a good registration key, of which half are different.
const KEY_CHARS: usize = 16;

/// A certificate's end is near.
const NEAR: Duration = Duration::from_hours(24 * 14);

/// A port that the node wants.
pub(in crate::agent::doctor) fn port(port: &Port, running: bool) -> Finding {
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
pub(in crate::agent::doctor) fn file_limit(max_connections: usize, limit: u64) -> Finding {
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
pub(in crate::agent::doctor) fn memory(
    memory: Memory,
    max_connections: usize,
    encrypted: bool,
) -> Finding {
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
pub(in crate::agent::doctor) fn disk(disk: &Disk) -> Vec<Finding> {
    let check = "disk";
    let path = disk.path.display();
    let mut all = Vec::new();
    if let Some(why) = &disk.refused {
        let remedy = "let it belong to the user that runs the relay (chown), or set DATA_DIR";
        let finding = Finding::error(check, format!("DATA_DIR cannot be written: {why}"), remedy);
        // What this user may not, the node's own may.
        all.push(if disk.is_anothers {
            let remedy = Some(format!("run this as the user that runs the relay; or {remedy}"));
            Finding { level: Level::Warning, remedy, ..finding }
        } else {
            finding
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
pub(in crate::agent::doctor) fn secrets(
    mesh: &Mesh,
    registration_key: Option<(usize, usize)>,
    now: u64,
) -> Vec<Finding> {
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
        Mesh::Files(Ok(not_after)) => {
            let left = not_after.saturating_sub(Duration::from_millis(now));
            let found = format!("MESH_CERT fits, and is good for {}", time(left.as_secs()));
            if left < NEAR {
                let remedy = "renew MESH_CERT: without it, peers refuse this node";
                Finding::warning(check, found, remedy)
            } else {
                Finding::ok(check, found)
            }
        }
        Mesh::Files(Err(why)) => Finding::error(
            check,
            format!("the mesh's files are refused: {why}"),
            "mend MESH_CA, MESH_CERT and MESH_KEY: peers would refuse this node",
        ),
    }];
    if let Some((chars, different)) = registration_key {
        all.push(if chars < KEY_CHARS || different < KEY_CHARS / 2 {
            Finding::warning(
                check,
                "REGISTRATION_KEY can be guessed: it is short, or of few different characters",
                "make another one: openssl rand -base64 24 | tr '+/' '-_'",
            )
        } else {
            Finding::ok(check, "REGISTRATION_KEY is long enough")
        });
    }
    all
}

/// Whether others on the machine can see a secret where it is set.
pub(in crate::agent::doctor) fn shown(secrets: &[SecretSetting]) -> Vec<Finding> {
    let check = "secrets";
    let finding = |it: &SecretSetting| {
        let SecretSetting { variable, origin, is_open } = it;
        if origin.starts_with("flag ") {
            let found =
                format!("{variable} is given as a flag, which all users of the machine see");
            return Some(Finding::warning(check, found, "set it in the environment or in a file"));
        }
        is_open.then(|| {
            let file = origin.split(':').next().unwrap_or(origin);
            let found =
                format!("{variable} stands in {origin}, which everybody on this machine may read");
            Finding::error(check, found, format!("chmod o= {file}"))
        })
    };
    secrets.iter().filter_map(finding).collect()
}

/// The operator's certificate for agents.
pub(in crate::agent::doctor) fn certificate(certificate: &Certificate, now: u64) -> Vec<Finding> {
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
        (Some(left), _) if left < NEAR && left < not_after.saturating_sub(*not_before) / 6 => {
            Finding::warning(check, format!("{whose} expires in {}", time(left.as_secs())), renew)
        }
        (Some(left), _) => {
            Finding::ok(check, format!("{whose} is good for {}", time(left.as_secs())))
        }
    });
    all
}

/// The room for the mesh's packets.
pub(in crate::agent::doctor) fn buffers(buffers: Option<(u64, u64)>) -> Finding {
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
