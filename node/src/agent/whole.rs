//! Whether a cluster is whole, so that any one of its nodes may be taken away: what
//! `arc-relay health --whole` goes by, and so the scripts that upgrade one node after the other.
//!
//! Pure: it reads what one node says of the cluster. What only other nodes see, they have to be asked.

use std::time::Duration;

use cluster::membership::SUSPECT_AFTER;

use super::text::{counted, escaped};
use crate::{
    admin::{RegistryReport, Voter},
    report::{ClusterReport, NodeReport},
};

/// Entries that a voter may be behind: a busy registry is never quite told.
const LAG_MAX: u64 = 100;

/// How large a cluster is that is whole; or what it lacks, each in a few words.
pub(super) fn whole(report: &ClusterReport) -> Result<String, Vec<String>> {
    let mut lacks = Vec::new();
    // Who said goodbye is missed by nobody, unless it keeps the names.
    let here: Vec<_> = report.nodes.iter().filter(|node| node.state != "left").collect();
    for node in &here {
        if node.state != "alive" {
            lacks.push(format!("{} is {}", escaped(&node.name), escaped(&node.state)));
        } else if node.id != report.node
            && let Some(lack) = link_lacks(report, node)
        {
            lacks.push(lack);
        }
    }
    let Some(registry) = &report.registry else {
        lacks.push("the node does not say how the registry is: upgrade it by itself".to_owned());
        return Err(lacks);
    };
    registry_lacks(registry, &report.nodes, &mut lacks);
    if !lacks.is_empty() {
        return Err(lacks);
    }
    let keepers = match registry.voters.len() {
        0 => String::new(),
        1 => ", 1 keeps the names".to_owned(),
        several => format!(", {several} keep the names"),
    };
    Ok(format!("whole: {}{keepers}", counted(here.len() as u64, "node")))
}

fn link_lacks(report: &ClusterReport, node: &NodeReport) -> Option<String> {
    let name = escaped(&node.name);
    match report.links.iter().find(|link| link.id == node.id) {
        None => Some(format!("there is no link to {name}")),
        Some(link) if Duration::from_millis(link.silent_ms) > SUSPECT_AFTER => {
            Some(format!("{name} is silent"))
        }
        Some(_) => None,
    }
}

fn registry_lacks(registry: &RegistryReport, nodes: &[NodeReport], lacks: &mut Vec<String>) {
    if let Some(failure) = &registry.failure {
        lacks.push(format!("this node's registry has failed: {}", escaped(failure)));
    }
    match &registry.waiting {
        Some(waiting) => lacks.push(escaped(&waiting.reason)),
        None if !registry.available => lacks.push("names cannot be registered".to_owned()),
        None => {}
    }
    lacks.extend(registry.voters.iter().filter_map(|voter| voter_lacks(voter, nodes)));
}

fn voter_lacks(voter: &Voter, nodes: &[NodeReport]) -> Option<String> {
    let node = nodes.iter().find(|node| node.id == voter.node);
    let name = match node {
        Some(node) => escaped(&node.name),
        None if voter.seed.is_empty() => escaped(&voter.node),
        None => escaped(&voter.seed),
    };
    if node.is_none_or(|node| node.state == "left") {
        Some(format!("{name} keeps the names and is not there"))
    } else if !voter.votes {
        Some(format!("{name} is being given the names"))
    } else {
        let lag = voter.lag.filter(|lag| *lag > LAG_MAX)?;
        Some(format!("{name} is {} behind with the names", counted(lag, "change")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::Waiting,
        report::{LinkReport, testing},
    };

    fn node(name: &str) -> NodeReport {
        NodeReport { id: format!("id-{name}"), ..testing::node(name, "alive") }
    }

    fn link(name: &str) -> LinkReport {
        LinkReport {
            peer: name.into(),
            id: format!("id-{name}"),
            rtt_ms: 0.3,
            queue_bytes: 0,
            sent_bytes: 0,
            received_bytes: 0,
            silent_ms: 40,
        }
    }

    fn voter(name: &str) -> Voter {
        let node = format!("id-{name}");
        Voter { node, seed: format!("{name}:7946"), votes: true, lag: Some(0) }
    }

    /// Three nodes, all of which keep the names, as the first sees them.
    fn three() -> ClusterReport {
        let registry = RegistryReport {
            id: Some("7".into()),
            role: "leader".into(),
            available: true,
            waiting: None,
            leader: Some("id-a".into()),
            term: 1,
            applied: 5,
            voters: ["a", "b", "c"].map(voter).into(),
            failure: None,
        };
        ClusterReport {
            node: "id-a".into(),
            nodes: ["a", "b", "c"].map(node).into(),
            links: ["b", "c"].map(link).into(),
            registry: Some(registry),
            tls: None,
        }
    }

    /// What three nodes lack after that was done to them.
    fn lacks(harm: impl FnOnce(&mut ClusterReport)) -> Vec<String> {
        let mut report = three();
        harm(&mut report);
        whole(&report).expect_err("it is not whole")
    }

    fn registry(report: &mut ClusterReport) -> &mut RegistryReport {
        report.registry.as_mut().expect("the three have one")
    }

    #[test]
    fn three_that_see_each_other_are_whole() {
        assert_eq!(whole(&three()), Ok("whole: 3 nodes, 3 keep the names".into()));
        let mut report = three();
        report.nodes.push(NodeReport { state: "left".into(), ..node("former") });
        assert_eq!(
            whole(&report),
            Ok("whole: 3 nodes, 3 keep the names".into()),
            "it is missed by nobody"
        );
    }

    #[test]
    fn a_relay_that_is_alone_is_whole() {
        let mut alone = three();
        alone.nodes.truncate(1);
        alone.links.clear();
        registry(&mut alone).voters.truncate(1);
        assert_eq!(whole(&alone), Ok("whole: 1 node, 1 keeps the names".into()));
    }

    #[test]
    fn each_node_must_be_there() {
        for state in ["joining", "suspect", "leaving", "dead"] {
            let found = lacks(|report| report.nodes[1].state = state.into());
            assert_eq!(found, [format!("b is {state}")]);
        }
        let found = lacks(|report| report.nodes[1].state = "left".into());
        assert_eq!(found, ["b keeps the names and is not there"]);
        let found = lacks(|report| drop(report.nodes.remove(2)));
        assert_eq!(found, ["c:7946 keeps the names and is not there"], "forgotten, too");
    }

    #[test]
    fn each_node_must_be_linked() {
        assert_eq!(lacks(|report| drop(report.links.remove(0))), ["there is no link to b"]);
        assert_eq!(lacks(|report| report.links[1].silent_ms = 1_501), ["c is silent"]);
    }

    #[test]
    fn the_registry_must_have_one_to_spare() {
        let waiting = Waiting { reason: "start c:7946".into(), seeds: Vec::new() };
        for (found, says) in [
            (lacks(|it| registry(it).available = false), "names cannot be registered"),
            (lacks(|it| registry(it).waiting = Some(waiting)), "start c:7946"),
            (
                lacks(|it| registry(it).failure = Some("disk full".into())),
                "this node's registry has failed: disk full",
            ),
            (lacks(|it| registry(it).voters[2].votes = false), "c is being given the names"),
            (
                lacks(|it| registry(it).voters[1].lag = Some(101)),
                "b is 101 changes behind with the names",
            ),
            (
                lacks(|it| it.registry = None),
                "the node does not say how the registry is: upgrade it by itself",
            ),
        ] {
            assert_eq!(found, [says]);
        }
    }
}
