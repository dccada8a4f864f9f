//! A node is lost, another joins, a third drains: how long until every owner can say again who is
//! where, and what is said for it?

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use cluster::{
    membership::{MemberState, SUSPECT_AFTER},
    mesh::ring::Rings,
};

use super::{
    Amount, Gossip, World,
    agents::name,
    report::Section,
    table::{Table, millis, percentile, ratio, whole},
    tally::kind,
    world::{id_of, region},
};

/// Within this time after a node joined, gossip has told all nodes of it.
const JOIN_SPREAD: Duration = Duration::from_millis(300);

/// Within this time after a crash, its agents connect to other nodes.
const RETURN_WITHIN: Duration = Duration::from_secs(5);

/// What is not settled after this never will be.
const PATIENCE: Duration = Duration::from_secs(20);

/// A step of the model between two looks at whether all is settled.
const LOOK: Duration = Duration::from_millis(1);

/// What draws are for.
const SPREAD: u64 = 20;
const RETURN: u64 = 21;

/// All changes.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    pub(super) loss: Change,
    pub(super) join: Change,
    pub(super) drain: Change,
    storm: Storm,
}

/// One change of a region's ring.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Records that have another owner after it.
    pub(super) records: usize,
    publishes: Amount,
    synced: Amount,
    all: Amount,
    most: Amount,
    nodes: usize,
    /// Between the first and the last node that learned of it.
    spread: Duration,
    /// From the last node that learned of it until the first and the last owner was settled.
    first_settled: Duration,
    last_settled: Duration,
    /// When each record was told of, since the first node learned of the change; ascending.
    pub(super) told: Vec<Duration>,
}

/// A crash whose agents come back while it is noticed.
#[derive(Clone, Debug)]
struct Storm {
    agents: usize,
    all: Amount,
    moved: u64,
    barriers: u64,
    half: Duration,
    most: Duration,
    longest: Duration,
    settled: Duration,
}

/// Changes the largest region, one after the other. Gossip says when nodes notice a crash.
pub(super) fn run(world: &mut World, gossip: Option<&Gossip>) -> anyhow::Result<Changes> {
    let detected = gossip.map(|gossip| gossip.detected.as_slice()).unwrap_or_default();
    ensure!(!detected.is_empty(), "gossip must say when a crash is noticed");
    world.tick(&[]);
    world.pass(Duration::from_secs(1));
    let loss = lose(world, detected).context("after a loss")?;
    let join = join(world).context("after a join")?;
    let drain = drain(world).context("after a drain")?;
    let storm = storm(world, detected).context("while agents came back")?;
    Ok(Changes { loss, join, drain, storm })
}

/// Who learns of a change when, and what all know then.
struct News {
    times: Vec<(Duration, usize)>,
    but: BTreeMap<usize, MemberState>,
    /// Whose link is lost with it.
    unlinked: Option<usize>,
}

fn lose(world: &mut World, detected: &[Duration]) -> anyhow::Result<Change> {
    let lost = last_of_region(world, 0)?;
    world.crash(lost);
    let first = detected.first().copied().unwrap_or_default();
    let times =
        noticed(world, detected).map(|(at, place)| (at.saturating_sub(first), place)).collect();
    let but = BTreeMap::from([(lost, MemberState::Dead)]);
    let change = change(world, &News { times, but, unlinked: Some(lost) })?;
    connect_elsewhere(world, lost);
    Ok(change)
}

fn join(world: &mut World) -> anyhow::Result<Change> {
    let but = gone(world);
    let joined = world.add(0);
    world.pass(Duration::from_secs(1));
    let spread = usize::try_from(JOIN_SPREAD.as_micros())?;
    let time = |place: usize| world.agents.draw(place, SPREAD, 0, spread) as u64;
    let times = world.running().into_iter().map(|place| match place {
        place if place == joined => (Duration::ZERO, place),
        place => (Duration::from_micros(time(place)), place),
    });
    let times = times.collect();
    change(world, &News { times, but, unlinked: None })
}

fn drain(world: &mut World) -> anyhow::Result<Change> {
    let mut but = gone(world);
    let drained = last_of_region(world, 0)?;
    but.insert(drained, MemberState::Leaving);
    // It says so itself to each, on the links.
    let way = |place: usize| match place {
        place if place == drained => Duration::ZERO,
        place if world.region_of(place) == 0 => world.pace().near,
        _ => world.pace().far,
    };
    let times = world.running().into_iter().map(|place| (way(place), place)).collect();
    let change = change(world, &News { times, but, unlinked: None })?;
    connect_elsewhere(world, drained);
    world.crash(drained);
    let members = world.members(&gone(world));
    for place in world.running() {
        world.unlink(place, drained);
        world.tell_members(place, &members);
    }
    world.pass(Duration::from_secs(1));
    Ok(change)
}

/// The agents of a node connect to others, one after the other.
fn connect_elsewhere(world: &mut World, from: usize) {
    let mut others = world.running();
    others.retain(|place| *place != from);
    for agent in world.agents.on(from) {
        let to = others[world.agents.draw(agent, RETURN, 2, others.len())];
        world.connect(agent, to);
        world.pass(Duration::from_micros(100));
    }
    world.pass(Duration::from_secs(1));
}

/// Tells all nodes of a change, each at its time, and watches what they do.
fn change(world: &mut World, news: &News) -> anyhow::Result<Change> {
    let running = world.running();
    let own: BTreeMap<usize, _> =
        running.iter().map(|place| (*place, world.sent_by(*place).all())).collect();
    let (before, start) = (world.sent(), world.now);
    let former = world.mesh(running[0]).rings();
    let members = world.members(&news.but);
    let present = former.changed(&members, start).context("the rings are the same")?;
    let (told_to_others, told_to_itself) = moved(world, &former, &present);
    let records = told_to_others + told_to_itself;
    world.watch(0, former, present);
    let mut times = news.times.clone();
    times.sort_unstable();
    for (at, place) in &times {
        world.run_until(start + *at);
        if let Some(unlinked) = news.unlinked {
            world.unlink(*place, unlinked);
        }
        world.tell_members(*place, &members);
    }
    let spread = times.last().map_or(Duration::ZERO, |(at, _)| *at);
    let owners: Vec<usize> = world
        .of_region(0)
        .into_iter()
        .filter(|place| news.but.get(place) != Some(&MemberState::Leaving))
        .collect();
    let settled = until_settled(world, &owners)?;
    world.pass(Duration::from_secs(1));
    let sent = &world.sent() - &before;
    let mut most = Amount::default();
    for (place, before) in own {
        let sent = world.sent_by(place).all() - before;
        if sent.frames > most.frames {
            most = sent;
        }
    }
    let mut told = world.take_watched().map(|watched| watched.times).unwrap_or_default();
    ensure!(told.len() == told_to_others, "{} of {told_to_others} were told of", told.len());
    for time in &mut told {
        *time = time.saturating_sub(start);
    }
    let since =
        |at: Option<&Duration>| at.map_or(Duration::ZERO, |at| at.saturating_sub(start + spread));
    Ok(Change {
        records,
        publishes: sent.of(kind::PUBLISH),
        synced: sent.of(kind::SYNCED),
        all: sent.all(),
        most,
        nodes: running.len(),
        spread,
        first_settled: since(settled.first()),
        last_settled: since(settled.last()),
        told,
    })
}

/// How many records of connected agents have another owner in the first region now: those of which
/// their home must tell it, and those whose home it is.
fn moved(world: &World, former: &Rings, present: &Rings) -> (usize, usize) {
    let (mut others, mut own, running) = (0, 0, world.running());
    for agent in 0..world.agents.len() {
        let home = world.agents.home(agent).filter(|home| running.contains(home));
        let (Some(home), name, near) = (home, name(agent), region(0)) else { continue };
        let owner = present.owner(&near, name.as_str());
        if owner != former.owner(&near, name.as_str()) {
            let is_own = owner == Some(id_of(home));
            (others, own) = (others + usize::from(!is_own), own + usize::from(is_own));
        }
    }
    (others, own)
}

/// A node dies, its agents connect to others from that moment on, and the others notice.
fn storm(world: &mut World, detected: &[Duration]) -> anyhow::Result<Storm> {
    let running = world.running();
    world.tick(&running);
    world.pass(Duration::from_secs(1));
    world.take_waits();
    let mut but = gone(world);
    let lost = last_of_region(world, 0)?;
    world.crash(lost);
    but.insert(lost, MemberState::Dead);
    let members = world.members(&but);
    let (before, start) = (world.sent(), world.now);
    let agents = world.agents.on(lost);
    let others: Vec<usize> = world.running();
    let mut deeds = Vec::new();
    for agent in &agents {
        let within = usize::try_from(RETURN_WITHIN.as_micros())?;
        let at = world.agents.draw(*agent, RETURN, 0, within) as u64;
        let to = others[world.agents.draw(*agent, RETURN, 1, others.len())];
        deeds.push((Duration::from_micros(at), Deed::Connect(*agent, to)));
    }
    deeds.extend(others.iter().map(|place| (SUSPECT_AFTER, Deed::Suspect(*place))));
    deeds.extend(noticed(world, detected).map(|(at, place)| (at, Deed::Notice(place))));
    deeds.sort_by_key(|(at, _)| *at);
    let mut last_noticed = Duration::ZERO;
    for (at, deed) in deeds {
        world.run_until(start + at);
        match deed {
            Deed::Connect(agent, to) => world.connect(agent, to),
            Deed::Suspect(place) => world.suspect(place, lost),
            Deed::Notice(place) => {
                world.unlink(place, lost);
                world.tell_members(place, &members);
                last_noticed = start + at;
            }
        }
    }
    let owners = world.of_region(0);
    let settled = until_settled(world, &owners)?;
    world.pass(Duration::from_secs(2));
    let sent = &world.sent() - &before;
    let mut waits = world.take_waits();
    ensure!(waits.len() == agents.len(), "{} of {} admitted", waits.len(), agents.len());
    let settled = settled.last().copied().unwrap_or_default();
    Ok(Storm {
        agents: agents.len(),
        all: sent.all(),
        moved: sent.of(kind::MOVED).frames,
        barriers: sent.of(kind::BARRIER).frames,
        half: percentile(&mut waits, 50),
        most: percentile(&mut waits, 99),
        longest: percentile(&mut waits, 100),
        settled: settled.saturating_sub(last_noticed),
    })
}

enum Deed {
    Connect(usize, usize),
    Suspect(usize),
    Notice(usize),
}

/// When each running node notices a crash, as it was measured in real gossip.
fn noticed(
    world: &World,
    detected: &[Duration],
) -> impl Iterator<Item = (Duration, usize)> + use<> {
    let mut places = world.running();
    // In no order of the places.
    places.sort_by_key(|place| world.agents.draw(*place, SPREAD, 1, usize::MAX));
    let last = detected.len().saturating_sub(1);
    let all = places.len().saturating_sub(1).max(1);
    let detected = detected.to_vec();
    places.into_iter().enumerate().map(move |(n, place)| (detected[n * last / all], place))
}

/// The nodes that are no more.
fn gone(world: &World) -> BTreeMap<usize, MemberState> {
    let running = world.running();
    let all = world.members(&BTreeMap::new()).len();
    (0..all)
        .filter(|place| !running.contains(place))
        .map(|place| (place, MemberState::Dead))
        .collect()
}

fn last_of_region(world: &World, number: usize) -> anyhow::Result<usize> {
    world.of_region(number).last().copied().context("the region has no node")
}

/// When each of these nodes is settled, ascending.
fn until_settled(world: &mut World, owners: &[usize]) -> anyhow::Result<Vec<Duration>> {
    let start = world.now;
    loop {
        let settled: Vec<Duration> = world.settled(owners).into_iter().flatten().collect();
        if settled.len() == owners.len() {
            let mut settled = settled;
            settled.sort_unstable();
            return Ok(settled);
        }
        let passed = world.now.saturating_sub(start);
        ensure!(passed < PATIENCE, "{} of {} are settled", settled.len(), owners.len());
        world.pass(LOOK);
    }
}

impl Changes {
    pub(super) fn section(&self) -> Section {
        let mut table = Table::new([
            "",
            "records that move",
            "`Publish`: frames",
            "`Synced`: frames",
            "all frames",
            "all kB",
            "frames of a node, mean / most",
            "nodes learn within",
            "owners settled, first / last, after the last node learned",
        ]);
        let all = [("loss", &self.loss), ("join", &self.join), ("drain", &self.drain)];
        for (what, change) in all {
            table.row([
                what.to_owned(),
                whole(change.records),
                whole(change.publishes.frames),
                whole(change.synced.frames),
                whole(change.all.frames),
                whole(change.all.bytes / 1_000),
                format!(
                    "{:.0} / {}",
                    ratio(change.all.frames, change.nodes),
                    whole(change.most.frames)
                ),
                millis(change.spread),
                format!("{} / {}", millis(change.first_settled), millis(change.last_settled)),
            ]);
        }
        let text = format!(
            "One node of the largest region is lost, another joins it, another drains. Every node \
             tells the new owners of its sessions that moved, and all owners that it has. A loss is \
             noticed as gossip was measured to notice it (below), a join within {}, a drain by its \
             own word. Records of the lost node's own agents do not move; they end.\n\n{table}\n\
             ![Re-publication](republication.svg)\n\n{}",
            millis(JOIN_SPREAD),
            self.storm.text()
        );
        Section::new("A node is lost, joins, drains", text)
    }
}

impl Storm {
    fn text(&self) -> String {
        format!(
            "And all at once: a node crashes, and its {} agents connect to other nodes within {} s, \
             before, while and after the crash is noticed, beside the renewals: {} frames and {} MB \
             in all, of them {} `Moved` and {} `Barrier`, since an owner that is dead or not settled \
             is made up for by telling everybody. Agents waited {} (median), {} (99 %), {} (longest) \
             to be admitted; owners were settled {} after the last node noticed.\n",
            whole(self.agents),
            RETURN_WITHIN.as_secs(),
            whole(self.all.frames),
            whole(self.all.bytes / 1_000_000),
            whole(self.moved),
            whole(self.barriers),
            millis(self.half),
            millis(self.most),
            millis(self.longest),
            millis(self.settled),
        )
    }
}
