//! What is wrong with what was seen, and what to do about it. Pure.

mod machine;
mod network;

use std::path::Path;

pub(super) use self::{
    machine::{buffers, certificate, disk, file_limit, memory, port, secrets, shown},
    network::{clocks, name, node, peers, seeds, served},
};
use super::{
    facts::{Facts, Node},
    finding::Finding,
};
use crate::config::{Notice, Problem, Problems};

/// A configuration that may not be used.
pub(super) fn problems(problems: &Problems) -> Vec<Finding> {
    let finding = |problem: &Problem| {
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
    if findings.is_empty() { vec![Finding::ok("config", "no problem")] } else { findings }
}

/// Settings of this machine's service that are not those that were read: what was looked at is another node.
pub(super) fn unread(service: &Path) -> Finding {
    Finding::warning(
        "config",
        format!("the service of this machine has its settings in {}, not read", service.display()),
        "`arc-relay doctor --help` has the command that examines the service",
    )
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
    all.extend(secrets(&facts.mesh, facts.registration_key, facts.at.0));
    all.extend(shown(&facts.secrets));
    all.extend(facts.certificate.iter().flat_map(|it| certificate(it, facts.at.0)));
    all.extend(running.iter().flat_map(|it| served(it.certificates.as_deref())));
    all.extend(facts.names.iter().map(name));
    if !facts.seeds.is_empty() {
        all.push(buffers(facts.buffers));
        all.extend(seeds(&facts.seeds, running));
    }
    all.extend(running.iter().flat_map(|it| peers(it)));
    all.extend(clocks(running, &facts.seeds, facts.authority.as_ref(), facts.at.0));
    all
}
