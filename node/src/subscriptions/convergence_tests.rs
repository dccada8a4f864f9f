//! Nodes that keep the same subscriptions while agents move, links are cut and time passes: in the end
//! all agree, and nobody who is connected is forgotten.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use cluster::{AgentId, Generation, Incarnation, NodeId, UnixMillis};
use proptest::prelude::*;

use super::{Subscriptions, records::Records};

const TTL: Duration = Duration::from_hours(1);
const NOW: UnixMillis = UnixMillis(1_000_000);

fn id(n: usize) -> AgentId {
    format!("agent-{n}").parse().unwrap()
}

fn ids(range: std::ops::Range<usize>) -> BTreeSet<AgentId> {
    range.map(id).collect()
}

fn node(n: u64) -> Incarnation {
    Incarnation { node: NodeId(n), generation: Generation(1) }
}

/// Tells one node what the other says, and the other what that one answers.
fn tell(from: &mut Subscriptions, to: &mut Subscriptions, bodies: Vec<Vec<u8>>, now: UnixMillis) {
    for body in bodies {
        for answer in to.told(&body, now, TTL).unwrap() {
            for last in from.told(&answer, now, TTL).unwrap() {
                assert!(to.told(&last, now, TTL).unwrap().is_empty());
            }
        }
    }
}

/// What happens when a link comes up.
fn exchange(a: &mut Subscriptions, b: &mut Subscriptions, now: UnixMillis) {
    let (of_a, of_b) = (a.digest(), b.digest());
    tell(a, b, vec![of_a], now);
    tell(b, a, vec![of_b], now);
}

const NODES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    /// The agent's newest session is on that node now; its former node notices so later.
    Arrive(usize, usize),
    Leave(usize),
    Tell(usize),
    Cut(usize, usize),
    Link(usize, usize),
    Sweep(usize),
    /// What changes again may be told again.
    Rest,
    Wait,
}

struct Cluster {
    nodes: Vec<Subscriptions>,
    cut: BTreeSet<(usize, usize)>,
    /// Where each agent is, and what it believes to follow.
    agents: Vec<(Option<usize>, BTreeSet<AgentId>)>,
    /// Whether a list may be lost: a link was cut, or time passed while an agent was away.
    loose: bool,
    now: UnixMillis,
}

impl Cluster {
    fn pair(&mut self, a: usize, b: usize) -> [&mut Subscriptions; 2] {
        self.nodes.get_disjoint_mut([a, b]).unwrap()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn tell(&mut self, from: usize) -> bool {
        let (at, now) = (Duration::from_millis(self.now.0 - NOW.0), self.now);
        let news = self.nodes[from].take_news(at);
        for to in (0..NODES).filter(|to| *to != from) {
            if !self.is_cut(from, to) {
                let [from, to] = self.pair(from, to);
                tell(from, to, news.clone(), now);
            }
        }
        !news.is_empty()
    }

    fn link(&mut self, a: usize, b: usize) {
        if a != b {
            self.cut.remove(&(a.min(b), a.max(b)));
            let now = self.now;
            let [a, b] = self.pair(a, b);
            exchange(a, b, now);
        }
    }

    fn sweep(&mut self, n: usize) {
        let cut: BTreeSet<_> = (0..NODES).filter(|other| self.is_cut(n, *other)).collect();
        let alive = |home: Incarnation| !cut.contains(&usize::try_from(home.node.0).unwrap());
        self.nodes[n].homes_lost(self.now, alive);
        let here = |agent: &AgentId| {
            (0..).map(id).zip(&self.agents).any(|(id, (home, _))| id == *agent && *home == Some(n))
        };
        self.nodes[n].sweep(self.now, TTL, here);
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Subscribe(who, whom) => {
                if let (Some(home), list) = &mut self.agents[who] {
                    list.insert(id(whom));
                    self.nodes[*home].subscribe(&id(who), &ids(whom..whom + 1), now).unwrap();
                }
            }
            Step::Unsubscribe(who, whom) => {
                if let (Some(home), list) = &mut self.agents[who] {
                    list.remove(&id(whom));
                    self.nodes[*home].unsubscribe(&id(who), &ids(whom..whom + 1), now);
                }
            }
            Step::Arrive(who, at) => {
                let before = self.agents[who].0.replace(at);
                self.nodes[at].arrived(&id(who), now);
                if let Some(before) = before.filter(|before| *before != at) {
                    self.nodes[before].left(&id(who), now.plus(Duration::from_millis(3)));
                }
            }
            Step::Leave(who) => {
                if let Some(home) = self.agents[who].0.take() {
                    self.nodes[home].left(&id(who), now);
                }
            }
            Step::Tell(from) => {
                self.tell(from);
            }
            Step::Cut(a, b) if a != b => {
                self.loose = true;
                self.cut.insert((a.min(b), a.max(b)));
            }
            Step::Cut(..) => {}
            Step::Link(a, b) => self.link(a, b),
            Step::Sweep(n) => self.sweep(n),
            Step::Rest => self.now = self.now.plus(Duration::from_secs(1)),
            Step::Wait => {
                self.loose |= self.agents.iter().any(|(home, _)| home.is_none());
                self.now = self.now.plus(TTL / 3);
            }
        }
        self.now = self.now.plus(Duration::from_millis(1));
        if !self.loose {
            (0..NODES).for_each(|n| {
                self.tell(n);
            });
        }
    }

    /// All links are there, and all has been said.
    fn heal(&mut self) {
        for _ in 0..2 {
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                self.link(a, b);
            }
            (0..NODES).for_each(|n| self.sweep(n));
            self.now = self.now.plus(Duration::from_secs(1));
            while (0..NODES).any(|n| self.tell(n)) {}
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, node) = (|| 0..3_usize, || 0..NODES);
    let step = prop_oneof![
        4 => (who(), 0..5_usize).prop_map(|(who, whom)| Step::Subscribe(who, whom)),
        3 => (who(), 0..5_usize).prop_map(|(who, whom)| Step::Unsubscribe(who, whom)),
        4 => (who(), node()).prop_map(|(who, node)| Step::Arrive(who, node)),
        2 => who().prop_map(Step::Leave),
        4 => node().prop_map(Step::Tell),
        1 => (node(), node()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => (node(), node()).prop_map(|(a, b)| Step::Link(a, b)),
        2 => node().prop_map(Step::Sweep),
        3 => Just(Step::Rest),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn all_nodes_come_to_agree_and_forget_nobody_who_is_connected(steps in steps()) {
        let mut cluster = Cluster {
            nodes: (0..NODES as u64).map(|n| Subscriptions::restored(node(n), Vec::new(), NOW)).collect(),
            cut: BTreeSet::new(),
            agents: vec![(Some(0), BTreeSet::new()); 3],
            loose: false,
            now: NOW,
        };
        for step in steps {
            cluster.step(step);
        }
        cluster.heal();
        for subs in &cluster.nodes {
            let mut anew = Records::default();
            subs.following.iter().for_each(|(follower, it)| anew.insert(follower, it.clone()));
            prop_assert_eq!(&anew, &subs.following, "the digest is kept with each change");
        }
        let (first, others) = cluster.nodes.split_first().unwrap();
        for other in others {
            prop_assert_eq!(first.digest(), other.digest());
            prop_assert_eq!(&first.followers, &other.followers);
            prop_assert_eq!(first.following.keys().collect::<BTreeSet<_>>(),
                other.following.keys().collect::<BTreeSet<_>>());
        }
        for (who, (home, list)) in cluster.agents.iter().enumerate() {
            let Some(home) = home else { continue };
            if let Some(following) = first.following.get(&id(who)).filter(|f| !f.agents.is_empty()) {
                prop_assert_eq!(following.stay, super::Stay::Home(node(*home as u64)));
            }
            if !cluster.loose {
                prop_assert_eq!(&first.of(&id(who)).cloned().collect::<BTreeSet<_>>(), list);
            }
        }
    }
}

/// What happens to an agent that moves while news are under way.
#[derive(Clone, Copy, Debug)]
enum Moving {
    Subscribe(usize),
    Unsubscribe(usize),
    Move(usize),
    Tell(usize),
    Arrive(usize, usize),
}

/// Nodes that hear of each other in order, and late.
struct Late {
    nodes: Vec<Subscriptions>,
    wires: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    home: usize,
    /// What the agent believes to follow.
    list: BTreeSet<AgentId>,
    now: UnixMillis,
}

impl Late {
    fn new() -> Self {
        let on = |n| Subscriptions::restored(node(n), Vec::new(), NOW);
        let nodes = (0..NODES as u64).map(on).collect();
        Self { nodes, wires: BTreeMap::new(), home: 0, list: BTreeSet::new(), now: NOW }
    }

    fn step(&mut self, step: Moving) {
        let now = self.now;
        let here = &mut self.nodes[self.home];
        match step {
            Moving::Subscribe(whom) => {
                self.list.insert(id(whom));
                here.subscribe(&id(0), &ids(whom..whom + 1), now).unwrap();
            }
            Moving::Unsubscribe(whom) => {
                self.list.remove(&id(whom));
                here.unsubscribe(&id(0), &ids(whom..whom + 1), now);
            }
            Moving::Move(to) => {
                here.left(&id(0), now);
                self.home = to;
                self.nodes[to].arrived(&id(0), now);
            }
            Moving::Tell(from) => {
                self.tell(from);
            }
            Moving::Arrive(from, to) => {
                self.arrive(from, to);
            }
        }
        self.now = now.plus(Duration::from_millis(1));
    }

    fn tell(&mut self, from: usize) -> bool {
        let news = self.nodes[from].take_news(Duration::from_millis(self.now.0 - NOW.0));
        for to in (0..NODES).filter(|to| *to != from) {
            self.wires.entry((from, to)).or_default().extend(news.clone());
        }
        !news.is_empty()
    }

    fn arrive(&mut self, from: usize, to: usize) -> bool {
        let body = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let Some(body) = body else { return false };
        let answers = self.nodes[to].told(&body, self.now, TTL).unwrap();
        self.wires.entry((to, from)).or_default().extend(answers);
        true
    }

    /// All is told, and all has arrived.
    fn settle(&mut self) {
        self.now = self.now.plus(Duration::from_secs(1));
        loop {
            let told = (0..NODES).filter(|n| self.tell(*n)).count();
            let pairs = (0..NODES * NODES).map(|pair| (pair / NODES, pair % NODES));
            let arrived = pairs.filter(|(from, to)| self.arrive(*from, *to)).count();
            if told + arrived == 0 {
                return;
            }
            self.now = self.now.plus(Duration::from_millis(1));
        }
    }
}

fn moves() -> impl Strategy<Value = Vec<Moving>> {
    let step = prop_oneof![
        3 => (1..5_usize).prop_map(Moving::Subscribe),
        2 => (1..5_usize).prop_map(Moving::Unsubscribe),
        3 => (0..NODES).prop_map(Moving::Move),
        3 => (0..NODES).prop_map(Moving::Tell),
        6 => (0..NODES, 0..NODES).prop_map(|(from, to)| Moving::Arrive(from, to)),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn what_an_agent_asked_for_is_done_however_fast_it_moves(moves in moves()) {
        let mut late = Late::new();
        for step in moves {
            late.step(step);
        }
        late.settle();
        late.now = late.now.plus(Duration::from_mins(1));
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let [a, b] = late.nodes.get_disjoint_mut([a, b]).unwrap();
            exchange(a, b, late.now);
        }
        for node in &late.nodes {
            prop_assert_eq!(&node.of(&id(0)).cloned().collect::<BTreeSet<_>>(), &late.list);
        }
    }
}
