//! Whole beginnings: nodes that start, stop, lose their disks and each other's words in any order.

use proptest::prelude::*;

use super::*;

fn texts(seeds: &[&str]) -> Vec<String> {
    seeds.iter().map(|seed| (*seed).to_owned()).collect()
}

fn own(node: u64, slot: &str, seeds: &[&str]) -> Own {
    Own { node: NodeId(node), slot: slot.into(), seeds: texts(seeds), store: Store::Empty }
}

fn candidate(slot: &str, seeds: &[&str]) -> Hello {
    Hello {
        registry: None,
        lineage: Vec::new(),
        part: Part::Candidate { slot: slot.into(), seeds: texts(seeds) },
        stored: false,
        voter: false,
        leader: None,
        applied: 0,
    }
}

fn heard<const N: usize>(hellos: [(u64, Hello); N]) -> BTreeMap<NodeId, Hello> {
    hellos.into_iter().map(|(node, hello)| (NodeId(node), hello)).collect()
}

const ABC: [&str; 3] = ["a", "b", "c"];

#[test]
fn who_is_the_only_seed_founds_at_once() {
    let founds = Step::Found(BTreeMap::from([(NodeId(1), "a".to_owned())]));
    assert_eq!(next(&own(1, "a", &["a"]), &BTreeMap::new()), founds);
}

#[test]
fn the_lowest_seed_founds_when_all_are_there_whatever_their_order_in_the_list() {
    let list = ["b", "c", "a"];
    let others = heard([(2, candidate("b", &list)), (3, candidate("c", &list))]);
    let members = [(1, "a"), (2, "b"), (3, "c")].map(|(node, slot)| (NodeId(node), slot.into()));
    assert_eq!(next(&own(1, "a", &list), &others), Step::Found(BTreeMap::from(members)));
    let others = heard([(1, candidate("a", &list)), (3, candidate("c", &list))]);
    assert_eq!(next(&own(2, "b", &list), &others), Step::Join(None));
}

#[test]
fn a_seed_that_is_not_there_is_named() {
    let others = heard([(3, candidate("c", &ABC))]);
    let Step::Wait(wait) = next(&own(1, "a", &ABC), &others) else { panic!("it must wait") };
    assert_eq!(wait.missing, ["b"]);
    assert!(wait.reason.contains("start b;"), "{wait:?}");
}

#[test]
fn other_lists_are_refused_with_both_in_the_text() {
    let others = heard([(2, candidate("b", &["b", "c", "d"])), (3, candidate("c", &ABC))]);
    let Step::Refuse(text) = next(&own(1, "a", &ABC), &others) else { panic!("two would found") };
    assert!(text.contains("a,b,c") && text.contains("b,c,d"), "{text}");
    // Not even one that this node's list does not name.
    let others = heard([
        (2, candidate("b", &ABC)),
        (3, candidate("c", &ABC)),
        (4, candidate("d", &["d", "e", "f"])),
    ]);
    assert!(matches!(next(&own(1, "a", &ABC), &others), Step::Refuse(_)));
    let order = heard([(2, candidate("b", &["b", "a", "c"])), (3, candidate("c", &ABC))]);
    assert!(matches!(next(&own(1, "a", &ABC), &order), Step::Refuse(_)));
}

#[test]
fn two_nodes_in_one_slot_found_nothing() {
    let others =
        heard([(2, candidate("b", &ABC)), (3, candidate("c", &ABC)), (4, candidate("b", &ABC))]);
    let Step::Refuse(text) = next(&own(1, "a", &ABC), &others) else { panic!("two are b") };
    assert!(text.contains("seed b"), "{text}");
    let twin = heard([(2, candidate("a", &ABC))]);
    assert!(matches!(next(&own(1, "a", &ABC), &twin), Step::Refuse(_)));
}

#[test]
fn a_registry_anywhere_is_joined_and_two_are_refused() {
    let keeps = |slot, id| Hello { registry: Some(RegistryId(id)), ..candidate(slot, &ABC) };
    let others = heard([(2, keeps("b", 7))]);
    assert_eq!(next(&own(1, "a", &ABC), &others), Step::Join(Some(RegistryId(7))));
    let others = heard([(2, keeps("b", 7)), (3, keeps("c", 8))]);
    let Step::Refuse(text) = next(&own(1, "a", &ABC), &others) else { panic!("there are two") };
    assert!(text.contains("seed b knows") && text.contains("seed c knows"), "{text}");
    // A list that differs is no reason to stay out of what is there: the leader's own list counts.
    let observer = Hello { part: Part::Observer, ..keeps("x", 9) };
    let others = heard([(2, candidate("b", &["b"])), (4, observer)]);
    assert_eq!(next(&own(1, "a", &ABC), &others), Step::Join(Some(RegistryId(9))));
    let restored = Hello { lineage: vec![RegistryId(7)], ..keeps("c", 8) };
    let others = heard([(2, keeps("b", 7)), (3, restored)]);
    assert_eq!(next(&own(1, "a", &ABC), &others), Step::Join(Some(RegistryId(8))));
}

#[test]
fn a_store_that_is_not_empty_founds_nothing() {
    for store in [Store::Begun, Store::Founded(RegistryId(3))] {
        let others = heard([(2, candidate("b", &ABC)), (3, candidate("c", &ABC))]);
        let step = next(&Own { store, ..own(1, "a", &ABC) }, &others);
        assert!(matches!(step, Step::Join(_)), "{step:?}");
        assert!(matches!(next(&Own { store, ..own(1, "a", &["a"]) }, &heard([])), Step::Join(_)));
    }
    let voted = Hello { stored: true, ..candidate("b", &ABC) };
    let others = heard([(2, voted), (3, candidate("c", &ABC))]);
    assert_eq!(next(&own(1, "a", &ABC), &others), Step::Join(None));
}

#[test]
fn a_seed_that_is_not_to_keep_the_book_is_asked_all_the_same() {
    let list = ["a", "b"];
    let Step::Wait(wait) = next(&own(1, "a", &list), &heard([])) else { panic!("b may know one") };
    assert_eq!(wait.missing, ["b"]);
    let founds = Step::Found(BTreeMap::from([(NodeId(1), "a".to_owned())]));
    assert_eq!(next(&own(1, "a", &list), &heard([(2, candidate("b", &list))])), founds);
    assert_eq!(
        next(&own(2, "b", &list), &heard([(1, candidate("a", &list))])),
        Step::Join(None),
        "though it is there, too"
    );
    let known = Hello { registry: Some(RegistryId(7)), ..candidate("b", &list) };
    assert_eq!(next(&own(1, "a", &list), &heard([(2, known)])), Step::Join(Some(RegistryId(7))));
    let turned = heard([(2, candidate("b", &["b", "a"]))]);
    assert!(matches!(next(&own(1, "a", &list), &turned), Step::Refuse(_)));
}

/// A machine that a slot's node runs on, and its disk.
#[derive(Clone, Debug)]
struct Machine {
    node: NodeId,
    runs: bool,
    store: Store,
    seeds: Vec<String>,
    heard: BTreeMap<NodeId, Hello>,
    members: BTreeMap<NodeId, String>,
}

/// Machines, and the words on their way between them, in order for each pair.
struct World {
    slots: Vec<String>,
    machines: Vec<Machine>,
    words: BTreeMap<(usize, usize), Vec<Hello>>,
    nodes: u64,
    foundings: u64,
}

#[derive(Clone, Debug)]
enum Happening {
    Start(usize),
    Stop(usize),
    /// Its disk is lost, and replaced by an empty one while it is down.
    Wipe(usize),
    /// The first word on its way is heard, twice perhaps, or the whole way is lost and made anew.
    Hear(usize, usize),
    HearAgain(usize, usize),
    Relink(usize, usize),
    /// It looks at what it has heard.
    Decide(usize),
    /// A founder, or who got the log of one, passes it on.
    Replicate(usize, usize),
}

impl World {
    fn new(count: usize) -> Self {
        let slots: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
        let machine = |n: usize| Machine {
            node: NodeId(n as u64),
            runs: false,
            store: Store::Empty,
            seeds: slots.clone(),
            heard: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        let machines = (0..count).map(machine).collect();
        Self { slots, machines, words: BTreeMap::new(), nodes: count as u64, foundings: 0 }
    }

    fn hello(&self, n: usize) -> Hello {
        let machine = &self.machines[n];
        let registry = match machine.store {
            Store::Founded(registry) => Some(registry),
            _ => None,
        };
        Hello {
            registry,
            lineage: Vec::new(),
            part: Part::Candidate { slot: self.slots[n].clone(), seeds: machine.seeds.clone() },
            stored: machine.store != Store::Empty,
            voter: false,
            leader: None,
            applied: 0,
        }
    }

    fn link(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let node = self.machines[from].node;
            self.machines[to].heard.remove(&node);
            let both_run = self.machines[from].runs && self.machines[to].runs;
            let words = if both_run { vec![self.hello(from)] } else { Vec::new() };
            self.words.insert((from, to), words);
        }
    }

    fn link_all(&mut self, n: usize) {
        for other in (0..self.machines.len()).filter(|other| *other != n) {
            self.link(n, other);
        }
    }

    fn tell_all(&mut self, n: usize) {
        for other in 0..self.machines.len() {
            if other != n && self.machines[other].runs {
                let hello = self.hello(n);
                self.words.entry((n, other)).or_default().push(hello);
            }
        }
    }

    fn stop(&mut self, n: usize) {
        self.machines[n].runs = false;
        self.machines[n].heard.clear();
        self.link_all(n);
    }

    fn happen(&mut self, happening: &Happening) {
        let count = self.machines.len();
        match *happening {
            Happening::Start(n) if !self.machines[n].runs => {
                self.machines[n].runs = true;
                self.link_all(n);
            }
            Happening::Stop(n) => self.stop(n),
            Happening::Wipe(n) => {
                self.stop(n);
                self.nodes += 1;
                let (node, seeds) = (NodeId(self.nodes), self.machines[n].seeds.clone());
                self.machines[n] = Machine { node, seeds, ..Self::new(count).machines[n].clone() };
            }
            Happening::Hear(from, to) => self.hear(from, to, false),
            Happening::HearAgain(from, to) => self.hear(from, to, true),
            Happening::Relink(one, other) if one != other => self.link(one, other),
            Happening::Decide(n) if self.machines[n].runs => self.decide(n),
            Happening::Replicate(from, to) => self.replicate(from, to),
            _ => {}
        }
    }

    fn hear(&mut self, from: usize, to: usize, again: bool) {
        let Some(words) = self.words.get_mut(&(from, to)) else { return };
        let Some(hello) = words.first().cloned() else { return };
        if !again {
            words.remove(0);
        }
        let node = self.machines[from].node;
        self.machines[to].heard.insert(node, hello);
    }

    fn decide(&mut self, n: usize) {
        let machine = &self.machines[n];
        let own = Own {
            node: machine.node,
            slot: self.slots[n].clone(),
            seeds: machine.seeds.clone(),
            store: machine.store,
        };
        if let Step::Found(members) = next(&own, &machine.heard) {
            for (other, machine) in self.machines.iter().enumerate() {
                assert_eq!(machine.store, Store::Empty, "s{n} founds over the data of s{other}");
            }
            let keepers: BTreeSet<_> = slots(&self.slots).iter().collect();
            assert_eq!(members.values().collect::<BTreeSet<_>>(), keepers);
            assert!(members.contains_key(&own.node));
            self.foundings += 1;
            self.machines[n].store = Store::Begun;
            self.machines[n].members = members;
            self.settle();
            self.tell_all(n);
        }
    }

    /// Consensus, as far as it matters here: the log goes from member to member; what most have is
    /// decided.
    fn replicate(&mut self, from: usize, to: usize) {
        let (sender, receiver) = (&self.machines[from], &self.machines[to]);
        if sender.runs
            && receiver.runs
            && sender.store != Store::Empty
            && receiver.store == Store::Empty
            && sender.members.contains_key(&receiver.node)
        {
            self.machines[to].members = self.machines[from].members.clone();
            self.machines[to].store = Store::Begun;
            self.settle();
            self.tell_all(to);
        }
    }

    fn settle(&mut self) {
        let begun = self.machines.iter().filter(|machine| machine.store != Store::Empty).count();
        if begun > slots(&self.slots).len() / 2 {
            let id = RegistryId(u128::from(self.foundings));
            for machine in self.machines.iter_mut().filter(|it| it.store == Store::Begun) {
                machine.store = Store::Founded(id);
            }
        }
    }

    /// All run, all is heard, all decide: what was begun comes to its end.
    fn calm(&mut self) {
        let count = self.machines.len();
        for n in 0..count {
            self.happen(&Happening::Start(n));
        }
        for _ in 0..4 {
            for (from, to) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
                self.replicate(from, to);
                while self.words.get(&(from, to)).is_some_and(|words| !words.is_empty()) {
                    self.hear(from, to, false);
                }
            }
            for n in 0..count {
                self.decide(n);
            }
        }
    }
}

fn happening(count: usize) -> impl Strategy<Value = Happening> {
    let (n, m) = (0..count, 0..count);
    prop_oneof![
        3 => n.clone().prop_map(Happening::Start),
        1 => n.clone().prop_map(Happening::Stop),
        1 => n.clone().prop_map(Happening::Wipe),
        6 => (n.clone(), m.clone()).prop_map(|(a, b)| Happening::Hear(a, b)),
        1 => (n.clone(), m.clone()).prop_map(|(a, b)| Happening::HearAgain(a, b)),
        1 => (n.clone(), m.clone()).prop_map(|(a, b)| Happening::Relink(a, b)),
        4 => n.clone().prop_map(Happening::Decide),
        2 => (n, m).prop_map(|(a, b)| Happening::Replicate(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_nothing_is_founded_over_data(
        (count, happenings) in (1..=5_usize)
            .prop_flat_map(|n| (Just(n), proptest::collection::vec(happening(n), 0..120)))
    ) {
        let mut world = World::new(count);
        for happening in &happenings {
            world.happen(happening);
        }
        world.calm();
    }

    #[test]
    fn without_losses_there_is_one_founding_in_the_end(
        order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
        count in 1..=5_usize,
        happenings in proptest::collection::vec(happening(5), 0..60),
    ) {
        let mut world = World::new(count);
        let within = |happening: &Happening| match *happening {
            Happening::Wipe(_) => false,
            Happening::Start(n) | Happening::Stop(n) | Happening::Decide(n) => n < count,
            Happening::Hear(a, b) | Happening::HearAgain(a, b) | Happening::Relink(a, b)
            | Happening::Replicate(a, b) => a < count && b < count,
        };
        for n in order.into_iter().filter(|n| *n < count) {
            world.happen(&Happening::Start(n));
        }
        for happening in happenings.iter().filter(|it| within(it)) {
            world.happen(happening);
        }
        world.calm();
        prop_assert_eq!(world.foundings, 1);
        let keepers = world.machines.iter().take(slots(&world.slots).len());
        prop_assert!(keepers.clone().all(|it| it.store == Store::Founded(RegistryId(1))));
    }

    #[test]
    fn halves_with_different_lists_found_nothing(
        happenings in proptest::collection::vec(happening(3), 0..80), differs in 0..3_usize,
    ) {
        let mut world = World::new(3);
        world.machines[differs].seeds.swap(0, 1);
        for happening in &happenings {
            world.happen(happening);
        }
        world.calm();
        prop_assert_eq!(world.foundings, 0);
    }
}
