//! Whether a cluster is whole, so that any one of its nodes may be taken away: what
//! `arc-relay health --whole` and `arc-relay doctor` go by, and so the scripts that upgrade one node after
//! the other.
//!
//! Pure: it reads what one node says of the cluster. What only other nodes see, they have to be asked.

use std::{fmt, time::Duration};

use cluster::membership::SUSPECT_AFTER;

use super::text::counted;
use crate::{
    admin::{RegistryReport, Voter},
    report::{ClusterReport, NodeReport, is_replaced, is_there},
};

/// Entries that a voter may be behind: a busy registry is never quite told.
const LAG_MAX: u64 = 100;

/// What a cluster lacks; its text, a few words, holds what others said and is not escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lack {
    /// A node is not there as it should be.
    #[error("{name} is {state}")]
    State { id: String, name: String, state: String },
    /// A node is there, and this one has no link to it.
    #[error("there is no link to {0}")]
    NoLink(String),
    /// The link to a node answers no pings.
    #[error("{0} is silent")]
    Silent(String),
    /// The node that was asked is of a release that does not say how the registry is.
    #[error("the node does not say how the registry is: upgrade it by itself")]
    Untold,
    /// The disk of the node that was asked is of no use.
    #[error("this node's registry has failed: {0}")]
    Failed(String),
    /// The registry waits for something, in one sentence.
    #[error("{0}")]
    Waiting(String),
    /// No names can be registered, and nothing says why.
    #[error("names cannot be registered")]
    Unavailable,
    /// A node that keeps the names has left, or was never seen.
    #[error("{0} keeps the names and is not there")]
    Absent(String),
    /// A node is to keep the names, and does not yet.
    #[error("{0} is being given the names")]
    Learns(String),
    /// A node keeps the names, but not the latest.
    #[error("{name} is {} behind with the names", counted(*.changes, "change"))]
    Behind { name: String, changes: u64 },
}

/// How many keep the names, and how many of them are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepers {
    votes: usize,
    gone: usize,
}

impl Keepers {
    /// As one node sees them.
    pub(super) fn of(registry: &RegistryReport, nodes: &[NodeReport]) -> Self {
        let voting = || registry.voters.iter().filter(|voter| voter.votes);
        let here = |voter: &&Voter| {
            nodes.iter().any(|node| node.id == voter.node && is_there(&node.state))
        };
        let votes = voting().count();
        Self { votes, gone: votes - voting().filter(here).count() }
    }

    /// Whether all of them are there.
    pub(super) fn is_complete(self) -> bool {
        self.gone == 0
    }
}

impl fmt::Display for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { votes, gone } = *self;
        let is = if gone == 1 { "is" } else { "are" };
        write!(f, "{gone} of {} that keep the names {is} gone: ", counted(votes as u64, "node"))?;
        match (votes.saturating_sub(1) / 2).checked_sub(gone) {
            Some(0) => f.write_str("no further loss can be borne"),
            Some(1) => f.write_str("1 further loss can be borne"),
            Some(spare) => write!(f, "{spare} further losses can be borne"),
            None => f.write_str("the others are no majority"),
        }
    }
}

/// How large a cluster is that is whole; or what it lacks.
pub(super) fn whole(report: &ClusterReport) -> Result<String, Vec<Lack>> {
    let mut lacks = Vec::new();
    let here: Vec<_> = report.nodes.iter().filter(|it| is_missed(it, &report.nodes)).collect();
    for node in &here {
        if node.state != "alive" {
            let NodeReport { id, name, state, .. } = (*node).clone();
            lacks.push(Lack::State { id, name, state });
        } else if node.id != report.node
            && let Some(lack) = link_lacks(report, node)
        {
            lacks.push(lack);
        }
    }
    let Some(registry) = &report.registry else {
        lacks.push(Lack::Untold);
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

/// Whether a node is to be there: it has not said goodbye, nor died and been replaced. If it keeps the
/// names, it lacks all the same.
fn is_missed(node: &NodeReport, nodes: &[NodeReport]) -> bool {
    match node.state.as_str() {
        "left" => false,
        "dead" => !is_replaced(node, nodes),
        _ => true,
    }
}

fn link_lacks(report: &ClusterReport, node: &NodeReport) -> Option<Lack> {
    let name = node.name.clone();
    match report.links.iter().find(|link| link.id == node.id) {
        None => Some(Lack::NoLink(name)),
        Some(link) if Duration::from_millis(link.silent_ms) > SUSPECT_AFTER => {
            Some(Lack::Silent(name))
        }
        Some(_) => None,
    }
}

fn registry_lacks(registry: &RegistryReport, nodes: &[NodeReport], lacks: &mut Vec<Lack>) {
    lacks.extend(registry.failure.clone().map(Lack::Failed));
    match &registry.waiting {
        Some(waiting) => lacks.push(Lack::Waiting(waiting.reason.clone())),
        None if !registry.available => lacks.push(Lack::Unavailable),
        None => {}
    }
    lacks.extend(registry.voters.iter().filter_map(|voter| voter_lacks(voter, nodes)));
}

fn voter_lacks(voter: &Voter, nodes: &[NodeReport]) -> Option<Lack> {
    let node = nodes.iter().find(|node| node.id == voter.node);
    let name = match node.filter(|node| !is_replaced(node, nodes)) {
        Some(node) => node.name.clone(),
        None if voter.seed.is_empty() => voter.node.clone(),
        None => voter.seed.clone(),
    };
    if node.is_none_or(|node| !is_missed(node, nodes)) {
        Some(Lack::Absent(name))
    } else if !voter.votes {
        Some(Lack::Learns(name))
    } else {
        let changes = voter.lag.filter(|lag| *lag > LAG_MAX)?;
        Some(Lack::Behind { name, changes })
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
        whole(&report).expect_err("it is not whole").iter().map(ToString::to_string).collect()
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
    fn who_was_replaced_is_missed_only_where_it_keeps_the_names() {
        let dead = |name: &str| {
            let address = Some(([10, 0, 0, 3], 7_946).into());
            NodeReport { id: "id-former".into(), address, ..testing::node(name, "dead") }
        };
        let mut report = three();
        report.nodes.push(dead("c"));
        let whole_again = Ok("whole: 3 nodes, 3 keep the names".into());
        assert_eq!(whole(&report), whole_again, "by name");
        report.nodes[3] = dead("former");
        assert_eq!(lacks(|it| *it = report.clone()), ["former is dead"]);
        report.nodes[2].address = report.nodes[3].address;
        assert_eq!(whole(&report), whole_again, "by address");
        registry(&mut report).voters[2].node = "id-former".into();
        assert_eq!(lacks(|it| *it = report), ["c:7946 keeps the names and is not there"]);
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

    #[test]
    fn how_many_may_go_is_told_of_those_that_vote_and_are_there() {
        let keepers = |voters: usize, states: &[&str]| {
            let names = ["a", "b", "c", "d", "e"];
            let mut report = three();
            registry(&mut report).voters = names[..voters].iter().map(|name| voter(name)).collect();
            let state =
                |(name, state): (&&str, &&str)| NodeReport { state: (*state).into(), ..node(name) };
            let nodes: Vec<_> = names.iter().zip(states).map(state).collect();
            Keepers::of(registry(&mut report), &nodes)
        };
        for complete in [keepers(1, &["alive"]), keepers(3, &["alive", "leaving", "suspect"])] {
            assert!(complete.is_complete(), "{complete}");
        }
        let told = |voters, states: &[&str]| keepers(voters, states).to_string();
        assert_eq!(
            told(3, &["alive", "left", "alive"]),
            "1 of 3 nodes that keep the names is gone: no further loss can be borne"
        );
        assert_eq!(
            told(5, &["alive", "alive", "alive", "dead"]),
            "2 of 5 nodes that keep the names are gone: no further loss can be borne"
        );
        assert_eq!(
            told(5, &["alive", "alive", "alive", "dead", "alive"]),
            "1 of 5 nodes that keep the names is gone: 1 further loss can be borne"
        );
        assert_eq!(
            told(3, &["alive", "dead"]),
            "2 of 3 nodes that keep the names are gone: the others are no majority"
        );
    }
}
