//! The node's memory of what happened, and what it shows to those who look: events, the last hour, and
//! the cluster as it is, once a second.
//!
//! Owns all of that, within bounds, and the places of those who follow it. Decides nothing that agents
//! notice, and nothing here outlives the process. What is worth an event, and how the hour becomes
//! numbers, is decided by the pure modules below.

mod changes;
mod event;
mod history;
mod losses;
mod refusals;
mod sights;
mod standstill;
mod view;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::UnixMillis;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::standstill::Moment;
pub use self::{
    changes::{Snapshot, changes},
    event::{EVENTS_MAX, Event, EventPage, Events, Happening, Kind, Level},
    history::{History, HistoryReport, Sample},
    losses::{Loss, LossView, Losses},
    refusals::Refusals,
    sights::{LinkView, NodeSees, RegionView, Sights},
    view::{Showing, frame},
};
use crate::{
    metrics::float,
    relay::{Relay, VERSION},
    report,
};

/// How often the node looks.
const ROUND: Duration = Duration::from_secs(1);

/// How often other nodes are asked what they see, while somebody looks.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Nodes that are asked at a time.
const ASKED_MAX: usize = 32;

/// What the node remembers and shows.
#[derive(Debug)]
pub struct Watch {
    memory: Mutex<Memory>,
    /// The number of the latest event.
    latest: watch::Sender<u64>,
    /// What dashboards show now, as it is sent to each of them.
    frames: watch::Sender<Bytes>,
    places: Arc<Semaphore>,
    /// When this is cancelled, nothing more will be told.
    over: CancellationToken,
}

#[derive(Debug)]
struct Memory {
    events: Events,
    history: History,
    losses: Losses,
    refusals: Refusals,
    sights: Sights,
}

/// A place among those who follow; given back when it is dropped.
#[derive(Debug)]
pub struct Follower {
    /// The number of the latest event, whenever there is another.
    pub latest: watch::Receiver<u64>,
    /// Cancelled when there will be none.
    pub over: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// Somebody who looks at the dashboard; while there is one, frames are made.
#[derive(Debug)]
pub struct Viewer {
    /// What is to be shown, once a second; empty before the first.
    pub frames: watch::Receiver<Bytes>,
    /// Cancelled when nothing more comes.
    pub over: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// Remembers nothing yet, and nobody may follow yet; the node starts now.
    pub fn new(epoch: UnixMillis) -> Self {
        let memory = Memory {
            events: Events::new(epoch),
            history: History::default(),
            losses: Losses::default(),
            refusals: Refusals::default(),
            sights: Sights::default(),
        };
        Self {
            memory: Mutex::new(memory),
            latest: watch::Sender::new(0),
            frames: watch::Sender::default(),
            places: Arc::new(Semaphore::new(0)),
            over: CancellationToken::new(),
        }
    }

    /// Lets people follow, events and dashboards together, on a listener with so many places: on half of
    /// them, so that there is always room for those who measure and administrate.
    pub fn open(&self, places: usize) {
        self.places.add_permits(places / 2);
    }

    /// Something happened.
    pub fn note(&self, now: UnixMillis, happening: Happening) {
        let last = {
            let events = &mut self.memory.lock().events;
            events.push(now, happening);
            events.last()
        };
        // A later one may have been faster.
        self.latest.send_if_modified(|latest| {
            let is_newer = last > *latest;
            *latest = last.max(*latest);
            is_newer
        });
    }

    /// Up to `limit` events that follow `after`; without that, the latest.
    pub fn events(&self, after: Option<u64>, limit: usize) -> EventPage {
        self.memory.lock().events.page(after, limit)
    }

    /// Behind which number somebody reads on that has read until `after`.
    pub fn begin(&self, after: Option<u64>) -> u64 {
        self.memory.lock().events.begin(after)
    }

    /// When the node started: with another epoch, numbers begin again.
    pub fn epoch(&self) -> UnixMillis {
        self.memory.lock().events.epoch()
    }

    /// The last hour.
    pub fn history(&self, now: Duration, wall: UnixMillis) -> HistoryReport {
        self.memory.lock().history.report(now, wall)
    }

    /// A place to follow events; none if all are taken.
    pub fn follow(&self) -> Option<Follower> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Follower { latest: self.latest.subscribe(), over: self.over.clone(), _place: place })
    }

    /// A place to look at the dashboard; none if all are taken.
    pub fn view(&self) -> Option<Viewer> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut frames = self.frames.subscribe();
        // The last frame may be of the last viewer's time.
        frames.mark_unchanged();
        Some(Viewer { frames, over: self.over.clone(), _place: place })
    }

    fn is_viewed(&self) -> bool {
        self.frames.receiver_count() > 0
    }
}

/// What this node sees, for another that asks.
pub(crate) fn sees(relay: &Relay) -> NodeSees {
    let losses = relay.watch.memory.lock().losses.all();
    NodeSees { links: report::links(relay), losses, tls: report::tls(relay) }
}

/// The node has started; when what this gives is dropped, whoever follows is told that nothing more comes.
pub(crate) fn begin(relay: &Relay) -> DropGuard {
    note(relay, Level::Info, Kind::Relay, format!("started, release {VERSION}"));
    relay.watch.over.clone().drop_guard()
}

/// Looks once a second, and remembers; shows it while somebody looks.
pub(crate) async fn watch(relay: Arc<Relay>, stop: CancellationToken) {
    let mut tick = interval(ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Moment::now(&relay.clock);
    let mut before = Looked::now(&relay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let now = Moment::now(&relay.clock);
        if let Some(text) = now.standstill(std::mem::replace(&mut last, now)) {
            tracing::warn!("{text}");
            let (level, kind, node) = (Level::Warn, Kind::Relay, relay.config.node_name.clone());
            relay.watch.note(relay.clock.wall(), Happening { level, kind, node, text });
        }
        before = look(&relay, &before);
    }
}

/// Asks other nodes what they see, while somebody looks.
pub(crate) async fn ask_others(relay: Arc<Relay>, stop: CancellationToken) {
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if relay.watch.is_viewed() {
            let _ = stop.run_until_cancelled(ask(&relay)).await;
        }
    }
}

async fn ask(relay: &Relay) {
    let (Some(peers), me) = (relay.peers(), relay.node.to_string()) else { return };
    let nodes = report::nodes(relay);
    let turn: Vec<String> = {
        let memory = relay.watch.memory.lock();
        memory.sights.turn(&nodes, &me, ASKED_MAX).into_iter().map(str::to_owned).collect()
    };
    let mut answers = stream::iter(turn)
        .map(|node| async move {
            let sees = peers.sight_of(node.parse().ok()?).await?;
            Some((node, sees))
        })
        .buffer_unordered(ASKED_MAX);
    while let Some(answer) = answers.next().await {
        if let Some((node, sees)) = answer {
            relay.watch.memory.lock().sights.take(relay.clock.elapsed(), &node, sees);
        }
    }
}

/// A look at the cluster and the counters.
struct Looked {
    at: Duration,
    snapshot: Snapshot,
    accepted: u64,
    delivered: u64,
    dropped: u64,
}

impl Looked {
    fn now(relay: &Relay) -> Self {
        let metrics = &relay.metrics;
        if let Some(peers) = relay.peers() {
            peers.with_counters(&mut |links, _| metrics.mesh.count_panics(links));
        }
        let sum =
            |counts: &mut dyn Iterator<Item = (&'static str, u64)>| counts.map(|(_, n)| n).sum();
        Self {
            at: relay.clock.elapsed(),
            snapshot: Snapshot {
                report: report::cluster(relay),
                phase: relay.phase(),
                panics: metrics.panics_so_far(),
            },
            accepted: sum(&mut metrics.received.counts()),
            delivered: sum(&mut metrics.delivered.counts()),
            dropped: sum(&mut metrics.dropped.counts()),
        }
    }

    fn sample(&self, before: &Self) -> Sample {
        let seconds = self.at.saturating_sub(before.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| float(now.saturating_sub(before)) / seconds;
        let report = &self.snapshot.report;
        let there = || report.nodes.iter().filter(|node| report::is_there(&node.state));
        Sample {
            nodes: float(there().count() as u64),
            agents: float(there().map(|node| node.agents).sum()),
            messages_per_second: float(there().map(|n| n.messages_per_minute).sum()) / 60.0,
            accepted_per_second: rate(self.accepted, before.accepted),
            delivered_per_second: rate(self.delivered, before.delivered),
            dropped_per_second: rate(self.dropped, before.dropped),
            slowest_link_ms: report.links.iter().map(|link| link.rtt_ms).fold(0.0, f64::max),
            link_queue_bytes: float(report.links.iter().map(|link| link.queue_bytes).sum()),
        }
    }
}

/// Looks, and tells what is new since the look before.
fn look(relay: &Relay, before: &Looked) -> Looked {
    let looked = Looked::now(relay);
    let (watch, wall) = (&relay.watch, relay.clock.wall());
    for happening in changes(&before.snapshot, &looked.snapshot) {
        watch.note(wall, happening);
    }
    let lost = watch.memory.lock().losses.look(looked.at, relay.metrics.dropped.counts());
    for (level, text) in lost {
        note(relay, level, Kind::Drops, text);
    }
    let refusals = watch.memory.lock().refusals.due(looked.at);
    if let Some(text) = refusals {
        note(relay, Level::Warn, Kind::Admin, text);
    }
    let sample = looked.sample(before);
    watch.memory.lock().history.add(looked.at, &sample);
    if watch.is_viewed() {
        show(relay, &looked, &sample);
    }
    looked
}

/// Makes the frame that all viewers get.
fn show(relay: &Relay, looked: &Looked, sample: &Sample) {
    let registered_agents = relay.registry.registered_agents();
    let memory = &mut *relay.watch.memory.lock();
    let report = &looked.snapshot.report;
    let sees = NodeSees {
        links: report.links.clone(),
        losses: memory.losses.all(),
        tls: report.tls.clone(),
    };
    memory.sights.take(looked.at, &report.node, sees);
    memory.sights.forget(looked.at, &report.nodes);
    let showing = Showing {
        epoch: memory.events.epoch(),
        now: relay.clock.wall(),
        uptime: looked.at.as_secs(),
        relay: &relay.config.relay_name,
        version: VERSION,
        registered_agents,
        latest_event: memory.events.last(),
    };
    relay.watch.frames.send_replace(frame(showing, report, sample, &memory.sights));
}

/// Somebody attempted what is not allowed at the ops listener, as `attempt` tells: an event, or a part of the next.
pub(crate) fn refused(relay: &Relay, attempt: String) {
    let due = relay.watch.memory.lock().refusals.add(relay.clock.elapsed(), attempt);
    if let Some(text) = due {
        note(relay, Level::Warn, Kind::Admin, text);
    }
}

/// Something happened that this node itself is about.
pub(crate) fn note(relay: &Relay, level: Level, kind: Kind, text: String) {
    let node = relay.config.node_name.clone();
    relay.watch.note(relay.clock.wall(), Happening { level, kind, node, text });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        deliver::Sink,
        peers::testing::{Shown, mesh},
        relay::testing::relay,
    };

    #[test]
    fn whoever_follows_leaves_half_of_the_places_to_those_who_measure() {
        for places in [1, 4, 16, 64] {
            let watch = Watch::new(UnixMillis(1));
            assert!(watch.follow().is_none(), "before the node listens");
            watch.open(places);
            let events: Vec<_> = std::iter::from_fn(|| watch.follow()).take(places / 4).collect();
            let viewers: Vec<_> = std::iter::from_fn(|| watch.view()).take(places).collect();
            assert_eq!(events.len() + viewers.len(), places / 2, "of {places} places");
            drop(viewers);
            assert_eq!(watch.follow().is_some(), places > 1, "{places}");
        }
    }

    #[test]
    fn a_panic_in_the_mesh_is_an_event_though_nobody_scrapes() {
        let (relay, ..) = relay();
        let peers = Arc::new(Shown::default());
        relay.join(mesh(relay.node, Arc::new(Sink::new(&relay))), Arc::clone(&peers) as _);
        let mut before = Looked::now(&relay);
        peers.counters.panicked();
        for _ in 0..2 {
            before = look(&relay, &before);
        }
        relay.measure();
        let events = relay.watch.events(None, EVENTS_MAX).events;
        let told: Vec<_> = events.iter().map(|event| (event.level, event.kind)).collect();
        assert_eq!(told, [(Level::Error, Kind::Relay)], "{events:?}");
        assert_eq!(relay.metrics.panics_so_far(), 1, "each is counted once");
    }
}
