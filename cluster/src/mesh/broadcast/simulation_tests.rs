//! An origin and the nodes of another region, whose gateways change, hang and die: whoever stays gets
//! every broadcast once, and all that one lane carries in the order in which it was sent.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Reception, Sent, Verdict, gateway, kept::Kept, reception::Missing};
use crate::{
    NodeId,
    wire::{Body, Broadcast, Data, Direct, Names},
};

const ORIGIN: usize = 0;
const NODES: usize = 5;

/// No frame is longer under way.
const DELAY_MAX_MS: u64 = 200;

/// How long what is missing is waited for, at least, but for the time that a request and its answer
/// take.
const WAITED_MS: u64 = 1_000;

/// What the origin, or fate, does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Broadcast,
    Direct(usize),
    Fence(usize),
    /// The node dies with all that is under way from and to it; its peers notice later.
    Crash(usize),
    /// The origin has not heard of the node for a while, or hears of it again.
    Suspect(usize, bool),
    /// The link between the origin and the node breaks, with all that is in it.
    Cut(usize),
    /// It is there again.
    Link(usize),
}

/// What happens at a node.
#[derive(Debug)]
enum Event {
    Deed(Deed),
    /// A frame of a lane from the origin, in that life of the link.
    Lane(Kept, u32),
    /// A broadcast that this gateway passed on.
    Relayed(Kept, usize),
    /// To the origin: what the node misses.
    Resend(usize, Missing),
    /// The origin notices that the node is dead.
    Lost(usize),
    Tick,
}

#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
struct Node {
    alive: bool,
    /// Whether the origin has a link to it, and the how manieth.
    linked: bool,
    links: u32,
    suspect: bool,
    /// When the last frame arrives that was sent on its lane.
    lane_ms: u64,
    reception: Reception,
    /// What its agents got: the mark of each broadcast, direct message and fence.
    got: Vec<u64>,
    /// Marks of what could get lost: it was sent on a link that broke.
    excused: Vec<u64>,
    /// When it lost its link.
    cut_ms: u64,
    /// Whether it was without its link for so long, or so often, that it gave up what only the origin
    /// could send.
    cut_off: bool,
    /// The first mark after its link came up.
    link_mark: u64,
    /// The same for the first link that brought its `Start`: what is above it, is for the node.
    first_mark: Option<u64>,
}

struct World {
    now_ms: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    pending: BTreeMap<u64, Event>,
    scheduled: u64,
    rng: StdRng,
    sent: Sent,
    nodes: Vec<Node>,
    /// Marks in the order of their sending, each with its only recipient or none.
    marks: Vec<Option<usize>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let node = |_| Node {
            alive: true,
            linked: false,
            links: 0,
            suspect: false,
            lane_ms: 0,
            reception: Reception::default(),
            got: Vec::new(),
            excused: Vec::new(),
            cut_ms: 0,
            cut_off: false,
            link_mark: 0,
            first_mark: None,
        };
        Self {
            now_ms: 0,
            events: BinaryHeap::new(),
            pending: BTreeMap::new(),
            scheduled: 0,
            rng: StdRng::seed_from_u64(seed),
            sent: Sent::default(),
            nodes: (0..NODES).map(node).collect(),
            marks: Vec::new(),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    fn at(&mut self, ms: u64, node: usize, event: Event) {
        self.scheduled += 1;
        self.pending.insert(self.scheduled, event);
        self.events.push(Reverse((ms, self.scheduled, node)));
    }

    fn soon(&mut self, node: usize, event: Event) {
        let delay = self.rng.random_range(1..=DELAY_MAX_MS);
        self.at(self.now_ms + delay, node, event);
    }

    /// Pushes a frame onto the lane to the node: what is sent later arrives later.
    fn push(&mut self, to: usize, frame: &Data<'_>) {
        let delay = self.rng.random_range(1..=DELAY_MAX_MS);
        let node = &mut self.nodes[to];
        if !node.linked {
            return;
        }
        node.lane_ms = node.lane_ms.max(self.now_ms + delay);
        let (at, link) = (node.lane_ms, node.links);
        self.at(at, to, Event::Lane(Kept::new(frame), link));
    }

    fn mark(&mut self, to: Option<usize>) -> [u8; 8] {
        self.marks.push(to);
        (self.marks.len() as u64).to_le_bytes()
    }

    fn broadcast(&mut self) {
        let mark = self.mark(None);
        let seq = self.sent.next_number();
        let body = Body::Borrowed(&mark);
        let broadcast = Broadcast { seq, from: "ann", except: Names::NONE, body };
        self.sent.retain(&broadcast, self.now());
        let usable = |node: NodeId| {
            let node = &self.nodes[usize::try_from(node.0).unwrap()];
            node.linked && !node.suspect
        };
        let region = (1..NODES as u64).map(NodeId);
        let chosen = gateway(NodeId(7), region, usable);
        for node in 1..NODES {
            if chosen == Some(NodeId(node as u64)) {
                self.push(node, &Data::Broadcast(broadcast.clone()));
            } else {
                self.push(node, &Data::Start { seq });
            }
        }
    }

    fn lane_only(&mut self, to: usize, is_direct: bool) {
        if !self.nodes[to].linked {
            return;
        }
        let mark = self.mark(Some(to));
        let (targets, body) = (Names::List(&["bob"]), Body::Borrowed(&mark));
        let epoch = u64::from_le_bytes(mark);
        if is_direct {
            let direct =
                Direct { followed: false, resent: false, era: 0, from: "ann", targets, body };
            self.push(to, &Data::Direct(direct));
        } else {
            self.push(to, &Data::Fence { agent: "bob", epoch });
        }
    }

    fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Broadcast => self.broadcast(),
            Deed::Direct(to) => self.lane_only(to, true),
            Deed::Fence(to) => self.lane_only(to, false),
            Deed::Suspect(node, suspect) => self.nodes[node].suspect = suspect,
            Deed::Crash(node) => {
                self.nodes[node].alive = false;
                let notice = self.rng.random_range(1..=800);
                self.at(self.now_ms + notice, ORIGIN, Event::Lost(node));
            }
            Deed::Cut(node) => self.cut(node),
            Deed::Link(node) => self.link(node),
        }
    }

    fn cut(&mut self, node: usize) {
        if !std::mem::take(&mut self.nodes[node].linked) {
            return;
        }
        let sent = (1_u64..).zip(&self.marks).filter(|(_, to)| **to == Some(node));
        let lost: Vec<u64> = sent.map(|(mark, _)| mark).collect();
        let cut = &mut self.nodes[node];
        cut.excused.extend(lost);
        cut.cut_ms = self.now_ms;
        cut.reception.link_lost();
        self.drain(node);
    }

    fn link(&mut self, to: usize) {
        let node = &mut self.nodes[to];
        if node.linked || !node.alive {
            return;
        }
        (node.linked, node.links, node.lane_ms) = (true, node.links + 1, self.now_ms);
        node.link_mark = self.marks.len() as u64 + 1;
        node.cut_off |= node.links > 1 && self.now_ms > node.cut_ms + WAITED_MS || node.links > 2;
        node.reception.link_up();
        let seq = self.sent.last();
        self.push(to, &Data::Start { seq });
    }

    fn happen(&mut self, at: usize, event: Event) {
        match event {
            Event::Deed(deed) => self.deed(deed),
            Event::Lost(node) => self.cut(node),
            Event::Resend(node, Missing { from, to }) => {
                let kept = |broadcast| Kept::new(&Data::Broadcast(broadcast));
                let again: Vec<Kept> = self.sent.resend(from, to).map(kept).collect();
                for kept in again {
                    self.push(node, &kept.frame());
                }
            }
            _ if !self.nodes[at].alive => {}
            Event::Lane(kept, link) => {
                if self.nodes[at].linked && self.nodes[at].links == link {
                    self.receive(at, &kept.frame());
                }
            }
            Event::Relayed(kept, by) => {
                if self.nodes[by].alive {
                    self.receive_relayed(at, &kept.frame());
                }
            }
            Event::Tick => {
                let now = self.now();
                if let Some(missing) = self.nodes[at].reception.poll(now) {
                    self.soon(ORIGIN, Event::Resend(at, missing));
                }
                self.drain(at);
            }
        }
    }

    fn receive(&mut self, at: usize, frame: &Data<'_>) {
        let now = self.now();
        let Node { reception, first_mark, link_mark, .. } = &mut self.nodes[at];
        let verdict = match frame {
            Data::Start { seq } => {
                first_mark.get_or_insert(*link_mark);
                reception.start(*seq, now);
                Verdict::Held
            }
            Data::Broadcast(broadcast) => {
                let passes_on = reception.passes_on(broadcast.seq);
                let verdict = reception.broadcast(broadcast, now);
                for other in (1..NODES).filter(|other| passes_on && *other != at) {
                    self.soon(other, Event::Relayed(Kept::new(frame), at));
                }
                verdict
            }
            other => reception.follow(other),
        };
        self.settle(at, verdict, frame);
    }

    fn receive_relayed(&mut self, at: usize, frame: &Data<'_>) {
        if let Data::Broadcast(broadcast) = frame {
            let now = self.now();
            let verdict = self.nodes[at].reception.relayed(broadcast, now);
            self.settle(at, verdict, frame);
        }
    }

    fn settle(&mut self, at: usize, verdict: Verdict, frame: &Data<'_>) {
        if verdict == Verdict::Deliver {
            self.nodes[at].got.push(mark_of(frame));
        }
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while let Some(kept) = node.reception.released() {
            node.got.push(mark_of(&kept.frame()));
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((ms, id, node))) = self.events.pop() {
            self.now_ms = ms;
            let event = self.pending.remove(&id).expect("it is scheduled once");
            self.happen(node, event);
        }
    }

    /// Whoever lives got all that was for it since its first link, in the order of sending.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for (id, node) in self.nodes.iter_mut().enumerate().skip(1) {
            let Some(first) = node.first_mark.filter(|_| node.alive) else { continue };
            let sent = (1_u64..).zip(&self.marks).filter(|(mark, _)| *mark >= first);
            let (mut due, mut missed) = (Vec::new(), 0);
            for (mark, to) in sent {
                let (got, excused) = (node.got.contains(&mark), node.excused.contains(&mark));
                match to {
                    None if !got && node.cut_off => missed += 1,
                    Some(to) if *to != id || !got && excused => {}
                    _ => due.push(mark),
                }
            }
            prop_assert_eq!(&node.got, &due, "at node {}", id);
            prop_assert_eq!(node.reception.take_missed(), missed, "at node {}", id);
            prop_assert_eq!(node.reception.held_bytes(), 0);
        }
        Ok(())
    }
}

fn mark_of(frame: &Data<'_>) -> u64 {
    let body = match frame {
        Data::Fence { epoch, .. } => return *epoch,
        Data::Direct(direct) => &direct.body,
        Data::Broadcast(broadcast) => &broadcast.body,
        other => panic!("no such frame is sent: {other:?}"),
    };
    u64::from_le_bytes(body.as_slice().try_into().expect("a mark"))
}

fn deeds() -> impl Strategy<Value = Vec<(u64, Deed)>> {
    let node = || 1..NODES;
    let deed = prop_oneof![
        40 => Just(Deed::Broadcast),
        30 => node().prop_map(Deed::Direct),
        10 => node().prop_map(Deed::Fence),
        4 => (node(), any::<bool>()).prop_map(|(node, is)| Deed::Suspect(node, is)),
        1 => node().prop_map(Deed::Crash),
        2 => node().prop_map(Deed::Cut),
        4 => node().prop_map(Deed::Link),
    ];
    proptest::collection::vec((0_u64..60, deed), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whoever_stays_gets_every_broadcast_once_and_all_in_order(
        seed in any::<u64>(),
        linked in 1..NODES,
        deeds in deeds(),
    ) {
        let mut world = World::new(seed);
        (1..=linked).for_each(|node| world.link(node));
        let mut at = 0;
        for (pause, deed) in deeds {
            at += pause;
            world.at(at, ORIGIN, Event::Deed(deed));
        }
        // At the end all links are there, so that what is still missing can be asked for.
        (1..NODES).for_each(|node| world.at(at + 1, ORIGIN, Event::Deed(Deed::Link(node))));
        for tick in 0..(at + 6_000) / 50 {
            (1..NODES).for_each(|node| world.at(tick * 50, node, Event::Tick));
        }
        world.run();
        world.check()?;
    }
}
