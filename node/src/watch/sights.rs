//! What the nodes see that others cannot: their links, and what they dropped. Pure.
//!
//! Each node speaks for itself; the one that has viewers asks the others by turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::losses::Loss;
use crate::{
    certificates::TlsReport,
    report::{LinkReport, NodeReport, is_there},
};

/// What a node saw so long ago is not shown any more: with a hundred nodes each is asked every eight
/// seconds.
const FRESH: Duration = Duration::from_secs(20);

/// A link that was not heard for so many milliseconds is in doubt.
const SILENT_MS: u64 = 3_000;

/// What a node sees: the answer to a question over the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSees {
    /// Its links.
    pub links: Vec<LinkReport>,
    /// What it dropped.
    pub losses: Vec<Loss>,
    /// Agents' TLS there; none if they connect without.
    pub tls: Option<TlsReport>,
}

/// A link as one of its ends sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkView<'a> {
    /// The id of the node that says so.
    pub from: &'a str,
    /// The peer's id.
    pub to: &'a str,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
    /// Bytes sent per second; none before it was seen twice.
    pub bytes_per_second: Option<f64>,
    /// Bytes that wait.
    pub queue_bytes: u64,
    /// Milliseconds since it answered.
    pub silent_ms: u64,
}

/// All links between two regions, or within one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegionView<'a> {
    /// A region.
    pub a: &'a str,
    /// The other, or the same.
    pub b: &'a str,
    /// How many links there are.
    pub links: usize,
    /// The round trip that half of them exceed, in milliseconds.
    pub rtt_ms: f64,
    /// The longest round trip.
    pub worst_ms: f64,
    /// Bytes sent per second over all of them, both ways, as far as is known.
    pub bytes_per_second: f64,
    /// How many of them do not answer.
    pub silent: usize,
}

/// What the nodes have told.
#[derive(Debug, Default)]
pub struct Sights(BTreeMap<String, Sight>);

#[derive(Debug)]
struct Sight {
    at: Duration,
    sees: NodeSees,
    /// Bytes sent per second, by peer.
    rates: BTreeMap<String, f64>,
}

impl Sights {
    /// A node told what it sees.
    pub fn take(&mut self, now: Duration, node: &str, sees: NodeSees) {
        let rates = self.0.get(node).map(|before| before.rates_until(now, &sees));
        let sight = Sight { at: now, sees, rates: rates.unwrap_or_default() };
        self.0.insert(node.to_owned(), sight);
    }

    /// Forgets what is not true any more.
    pub fn forget(&mut self, now: Duration, nodes: &[NodeReport]) {
        let there: BTreeSet<_> =
            nodes.iter().filter(|node| is_there(&node.state)).map(|node| &node.id).collect();
        self.0.retain(|node, sight| now.saturating_sub(sight.at) < FRESH && there.contains(node));
    }

    /// The ids of the nodes that are to be asked next, those first that told longest ago.
    pub fn turn<'a>(&self, nodes: &'a [NodeReport], me: &str, most: usize) -> Vec<&'a str> {
        let mut due: Vec<_> = nodes
            .iter()
            .filter(|node| node.id != me && is_there(&node.state))
            .map(|node| (self.0.get(&node.id).map(|sight| sight.at), node.id.as_str()))
            .collect();
        due.sort_unstable();
        due.into_iter().take(most).map(|(_, node)| node).collect()
    }

    /// All links, once from each end that told.
    pub fn links(&self) -> impl Iterator<Item = LinkView<'_>> {
        self.0.iter().flat_map(|(node, sight)| {
            sight.sees.links.iter().map(|link| LinkView {
                from: node,
                to: &link.id,
                rtt_ms: link.rtt_ms,
                bytes_per_second: sight.rates.get(&link.id).copied(),
                queue_bytes: link.queue_bytes,
                silent_ms: link.silent_ms,
            })
        })
    }

    /// The links by the regions that they join.
    pub fn regions<'a>(&self, nodes: &'a [NodeReport]) -> Vec<RegionView<'a>> {
        let region_of: BTreeMap<&str, &str> =
            nodes.iter().map(|node| (node.id.as_str(), node.region.as_str())).collect();
        let mut between: BTreeMap<(&str, &str), Group<'_>> = BTreeMap::new();
        for link in self.links() {
            let ends = region_of.get(link.from).zip(region_of.get(link.to));
            let Some((from, to)) = ends else { continue };
            let group = between.entry((*from.min(to), *from.max(to))).or_default();
            group.pairs.insert((link.from.min(link.to), link.from.max(link.to)));
            group.silent += usize::from(link.silent_ms >= SILENT_MS);
            group.bytes_per_second += link.bytes_per_second.unwrap_or_default();
            group.rtts.push(link.rtt_ms);
        }
        between.into_iter().map(|((a, b), group)| group.view(a, b)).collect()
    }

    /// The ids of nodes that should tell and have not.
    pub fn untold<'a>(&self, nodes: &'a [NodeReport]) -> Vec<&'a str> {
        let silent =
            nodes.iter().filter(|node| is_there(&node.state) && !self.0.contains_key(&node.id));
        silent.map(|node| node.id.as_str()).collect()
    }

    /// What was lost, on all nodes that told together.
    pub fn losses(&self) -> Vec<Loss> {
        let mut sums: BTreeMap<&str, Loss> = BTreeMap::new();
        for loss in self.0.values().flat_map(|sight| &sight.sees.losses) {
            sums.entry(&loss.reason)
                .and_modify(|sum| sum.add(loss))
                .or_insert_with(|| loss.clone());
        }
        sums.into_values().collect()
    }

    /// How it is with agents' TLS on the nodes that told, by id.
    pub fn certificates(&self) -> impl Iterator<Item = (&str, &TlsReport)> {
        let of = |(node, sight)| Some((node, Sight::tls(sight)?));
        self.0.iter().filter_map(move |(node, sight)| of((node.as_str(), sight)))
    }
}

/// Links that join the same regions.
#[derive(Default)]
struct Group<'s> {
    pairs: BTreeSet<(&'s str, &'s str)>,
    rtts: Vec<f64>,
    bytes_per_second: f64,
    silent: usize,
}

impl Group<'_> {
    fn view<'a>(mut self, a: &'a str, b: &'a str) -> RegionView<'a> {
        self.rtts.sort_by(f64::total_cmp);
        RegionView {
            a,
            b,
            links: self.pairs.len(),
            rtt_ms: self.rtts.get(self.rtts.len() / 2).copied().unwrap_or_default(),
            worst_ms: self.rtts.last().copied().unwrap_or_default(),
            bytes_per_second: self.bytes_per_second.round(),
            silent: self.silent,
        }
    }
}

impl Sight {
    fn tls(&self) -> Option<&TlsReport> {
        self.sees.tls.as_ref()
    }

    /// Bytes sent per second between this sight and a later one of the same node. A link that came up
    /// again meanwhile has none.
    fn rates_until(&self, now: Duration, later: &NodeSees) -> BTreeMap<String, f64> {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        let before: BTreeMap<_, _> =
            self.sees.links.iter().map(|link| (&link.id, link.sent_bytes)).collect();
        let rate = |link: &LinkReport| {
            let sent = link.sent_bytes.checked_sub(*before.get(&link.id)?)?;
            let sent = f64::from(u32::try_from(sent).unwrap_or(u32::MAX));
            (seconds > 0.0).then(|| (link.id.clone(), (sent / seconds).round()))
        };
        later.links.iter().filter_map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    fn node(id: &str, region: &str, state: &str) -> NodeReport {
        NodeReport { region: region.into(), ..testing::node(id, state) }
    }

    fn link(id: &str, rtt_ms: f64, sent_bytes: u64) -> LinkReport {
        let (peer, queue_bytes, received_bytes, silent_ms) = (id.into(), 0, 0, 0);
        LinkReport {
            peer,
            id: id.into(),
            rtt_ms,
            queue_bytes,
            sent_bytes,
            received_bytes,
            silent_ms,
        }
    }

    fn sees(links: Vec<LinkReport>, lost: u64) -> NodeSees {
        let (reason, last_minute) = ("offline".into(), 1);
        let losses = vec![Loss { reason, total: lost, last_minute, lasting_s: 10 * lost }];
        NodeSees { links, losses, tls: None }
    }

    const fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_rate_needs_two_looks_at_the_same_link() {
        let mut sights = Sights::default();
        let rate = |sights: &Sights| sights.links().next().unwrap().bytes_per_second;
        sights.take(second(1), "a", sees(vec![link("b", 1.0, 1_000)], 0));
        assert_eq!(rate(&sights), None);
        sights.take(second(3), "a", sees(vec![link("b", 1.0, 5_000)], 0));
        assert_eq!(rate(&sights), Some(2_000.0));
        sights.take(second(4), "a", sees(vec![link("b", 1.0, 10)], 0));
        assert_eq!(rate(&sights), None, "it came up again meanwhile");
    }

    #[test]
    fn who_is_gone_or_silent_is_forgotten_and_known_to_be() {
        let nodes = [node("a", "eu", "alive"), node("b", "eu", "suspect"), node("c", "eu", "dead")];
        let mut sights = Sights::default();
        for id in ["a", "b", "c"] {
            sights.take(second(1), id, sees(vec![link("x", 1.0, 0)], 0));
        }
        sights.forget(second(2), &nodes);
        assert_eq!(sights.links().map(|link| link.from).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(sights.untold(&nodes), Vec::<&str>::new());
        sights.take(second(15), "a", NodeSees::default());
        sights.forget(second(25), &nodes);
        assert_eq!(sights.untold(&nodes), ["b"], "and not the dead one");
    }

    #[test]
    fn nodes_are_asked_by_turns() {
        let nodes = ["a", "b", "c", "d"].map(|id| node(id, "eu", "alive"));
        let mut sights = Sights::default();
        assert_eq!(sights.turn(&nodes, "a", 2), ["b", "c"]);
        sights.take(second(1), "b", NodeSees::default());
        sights.take(second(2), "c", NodeSees::default());
        assert_eq!(sights.turn(&nodes, "a", 2), ["d", "b"]);
    }

    #[test]
    fn many_links_are_told_by_region() {
        let nodes = [node("a", "eu", "alive"), node("b", "eu", "alive"), node("c", "us", "alive")];
        let mut sights = Sights::default();
        sights.take(second(1), "a", sees(vec![link("b", 1.0, 0), link("c", 80.0, 0)], 3));
        let mut silent = link("c", 90.0, 0);
        silent.silent_ms = 4_000;
        sights.take(second(1), "b", sees(vec![link("a", 2.0, 0), silent, link("?", 9.0, 0)], 4));
        let regions = sights.regions(&nodes);
        let shown: Vec<_> = regions.iter().map(|it| (it.a, it.b, it.links, it.worst_ms)).collect();
        assert_eq!(shown, [("eu", "eu", 1, 2.0), ("eu", "us", 2, 90.0)]);
        assert_eq!((regions[1].silent, regions[1].rtt_ms), (1, 90.0));
        let losses = sights.losses();
        let Loss { total, last_minute, lasting_s, .. } = losses[0];
        assert_eq!((total, last_minute, lasting_s), (7, 2, 40), "it lasts where it began first");
    }
}
