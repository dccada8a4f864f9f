//! What an operator may call a node that is to keep the names: its seed, its id, its name, or the
//! address that it advertises. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::{
    admin::{Voter, VoterChange},
    report::{self, NodeReport},
};

/// Several nodes are meant, and only one may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} may be any of the nodes {}: name one by its id", ids.join(", "))]
pub(super) struct Ambiguous {
    text: String,
    ids: Vec<String>,
}

/// The change with nodes' ids in the place of names and addresses. What is no node's stays as it is: it
/// may be a seed, which only the leader knows.
pub(super) fn by_ids(
    change: VoterChange,
    nodes: &[NodeReport],
    voters: &[Voter],
) -> Result<VoterChange, Ambiguous> {
    let is_alive = |node: &NodeReport| node.state == "alive";
    let is_voter = |node: &NodeReport| voters.iter().any(|voter| voter.node == node.id);
    let named = |text: String, fits: &dyn Fn(&NodeReport) -> bool| {
        let is_seed = voters.iter().any(|voter| voter.seed == text);
        if is_seed { Ok(text) } else { id_of(text, nodes, fits) }
    };
    Ok(match change {
        VoterChange::Set { seeds } => {
            let ids = seeds.into_iter().map(|text| named(text, &is_alive));
            VoterChange::Set { seeds: ids.collect::<Result<_, _>>()? }
        }
        VoterChange::Replace { old, new } => {
            VoterChange::Replace { old: named(old, &is_voter)?, new: named(new, &is_alive)? }
        }
        VoterChange::Follow {} => VoterChange::Follow {},
    })
}

/// The one node that is called so, of several the one that is there; none if there is none.
pub(super) fn meant<'a>(
    text: &str,
    nodes: &'a [NodeReport],
) -> Result<Option<&'a NodeReport>, Ambiguous> {
    let id = id_of(text.to_owned(), nodes, &|node| report::is_there(&node.state))?;
    Ok(nodes.iter().find(|node| node.id == id))
}

/// The id of the one node that is called so; if there are several, of the one that fits.
fn id_of(
    text: String,
    nodes: &[NodeReport],
    fits: &dyn Fn(&NodeReport) -> bool,
) -> Result<String, Ambiguous> {
    let meant: Vec<_> = nodes.iter().filter(|node| is_called(node, &text)).collect();
    let fitting: Vec<_> = meant.iter().copied().filter(|node| fits(node)).collect();
    match (meant.as_slice(), fitting.as_slice()) {
        ([], _) => Ok(text),
        ([one], _) | (_, [one]) => Ok(one.id.clone()),
        (several, _) => {
            let ids = several.iter().map(|node| node.id.clone()).collect();
            Err(Ambiguous { text, ids })
        }
    }
}

fn is_called(node: &NodeReport, text: &str) -> bool {
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let is_at = node.address.map(canonical).is_some_and(|address| {
        let whole = text.parse().map(canonical) == Ok(address);
        whole || text.parse().map(|ip: IpAddr| ip.to_canonical()) == Ok(address.ip())
    });
    node.id == text.to_ascii_lowercase() || node.name == text || is_at
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;
    use crate::report::testing;

    fn node(id: u8, name: &str, state: &str) -> NodeReport {
        let address = Some(([10, 0, 0, id], 7_946).into());
        NodeReport { id: format!("{id:016x}"), address, ..testing::node(name, state) }
    }

    fn voter(id: u8, seed: &str) -> Voter {
        Voter { node: format!("{id:016x}"), seed: seed.into(), votes: true, lag: None }
    }

    fn set(words: &[&str], nodes: &[NodeReport]) -> Result<Vec<String>, Ambiguous> {
        let seeds = words.iter().map(|&word| word.to_owned()).collect();
        let voters = [voter(1, "10.0.0.1:7946")];
        match by_ids(VoterChange::Set { seeds }, nodes, &voters)? {
            VoterChange::Set { seeds } => Ok(seeds),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nodes_are_named_by_id_name_and_address() {
        let nodes = [node(1, "a", "alive"), node(2, "b", "alive"), node(10, "c", "alive")];
        let two = format!("{:016x}", 2);
        for word in ["b", "10.0.0.2", "10.0.0.2:7946", "[::ffff:10.0.0.2]:7946", &two] {
            assert_eq!(set(&[word], &nodes).unwrap().concat(), two, "{word}");
        }
        assert_eq!(set(&["000000000000000A"], &nodes).unwrap(), ["000000000000000a"]);
        let others = ["10.0.0.2:1", "d", "node-9:7946"];
        assert_eq!(set(&others, &nodes).unwrap(), others, "that may be a seed");
        assert_eq!(set(&["10.0.0.1:7946"], &nodes).unwrap(), ["10.0.0.1:7946"], "that is one");
    }

    #[test]
    fn of_several_with_one_name_the_living_one_is_meant_or_nobody() {
        let lost = [node(1, "a", "dead"), node(2, "a", "alive")];
        assert_eq!(set(&["a"], &lost).unwrap(), [lost[1].id.clone()]);
        let both = [node(1, "a", "alive"), node(2, "a", "alive")];
        let refused = set(&["a"], &both).unwrap_err().to_string();
        assert!(both.iter().all(|node| refused.contains(&node.id)), "{refused}");
    }

    #[test]
    fn the_one_that_goes_is_the_one_that_votes() {
        let nodes = [node(1, "a", "dead"), node(2, "a", "alive"), node(3, "b", "alive")];
        let change = VoterChange::Replace { old: "a".into(), new: "b".into() };
        let by_ids = by_ids(change, &nodes, &[voter(1, "x")]).unwrap();
        let [old, .., new] = nodes.map(|node| node.id);
        assert_eq!(by_ids, VoterChange::Replace { old, new });
        let follow = super::by_ids(VoterChange::Follow {}, &[], &[]).unwrap();
        assert_eq!(follow, VoterChange::Follow {});
    }
}
