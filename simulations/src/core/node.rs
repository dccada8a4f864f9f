//! One simulated node: an engine, its sessions and its clock, from start to end and start again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use cluster::{
    Generation, Incarnation, NodeId, UnixMillis,
    membership::{Load, Member, MemberState},
    mesh::{Home, Mesh},
};

use super::{
    event::{Event, Life},
    gossip::Table,
    outbox::Outbox,
    sessions::Sessions,
};

/// The true wall-clock time at a run's start.
const EPOCH: UnixMillis = UnixMillis(1_800_000_000_000);

/// A node that came up takes agents once it has a link, or after this.
const READY_AFTER: Duration = Duration::from_millis(1_500);

/// A place where a node lives, and dies, and lives again.
pub(super) struct Node {
    pub place: usize,
    pub region: String,
    pub lives: u64,
    /// None while it is down.
    pub running: Option<Running>,
    /// How far its clock is from the true time.
    pub skew_ms: i64,
    /// Whether its start is planned already.
    pub starts: bool,
}

/// A node that runs, or hangs.
pub(super) struct Running {
    pub mesh: Arc<Mesh>,
    pub outbox: Arc<Outbox>,
    pub sessions: Arc<Sessions>,
    pub started: Duration,
    pub table: Table,
    /// The members that the engine was told of last.
    pub told: Vec<Member>,
    /// While it stands still, what it will have to do when it goes on.
    pub hanging: Option<Vec<Event>>,
    /// Since when it drains, and, once no session is left, since when that is so.
    pub draining: Option<Draining>,
    pub pings: u64,
    pub was_linked: bool,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draining {
    Sessions,
    Empty { since: Duration },
}

/// The node's id. Ids are in no order of the places.
pub(super) fn id_of(place: usize) -> NodeId {
    NodeId((place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// One life as the cluster names it.
pub(super) fn incarnation(life: Life) -> Incarnation {
    Incarnation { node: id_of(life.node), generation: Generation(life.number) }
}

/// What gossip says of a node.
pub(super) fn member(life: Life, region: &str, state: MemberState) -> Member {
    let port = 7000 + u16::try_from(life.node).unwrap_or_default();
    Member {
        incarnation: incarnation(life),
        name: format!("node-{}", life.node),
        region: region.to_owned(),
        version: "0".to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        state,
        load: Load::default(),
    }
}

impl Node {
    pub(super) fn new(place: usize, region: usize, skew_ms: i64) -> Self {
        let region = format!("region-{region}");
        Self { place, region, lives: 0, running: None, skew_ms, starts: false }
    }

    /// Its present life, or its last.
    pub(super) fn life(&self) -> Life {
        Life { node: self.place, number: self.lives }
    }

    pub(super) fn is_in(&self, life: Life) -> bool {
        self.running.is_some() && self.life() == life
    }

    /// Starts it for another life.
    pub(super) fn start(&mut self, nodes: usize, now: Duration) {
        self.lives += 1;
        self.starts = false;
        let home = Home { me: incarnation(self.life()), region: self.region.clone() };
        let (outbox, sessions) = (Arc::new(Outbox::default()), Arc::new(Sessions::default()));
        let mut table = Table::new(nodes);
        table.beat(self.place, self.lives, false, now);
        self.running = Some(Running {
            mesh: Arc::new(Mesh::new(home, outbox.clone(), sessions.clone())),
            outbox,
            sessions,
            started: now,
            table,
            told: Vec::new(),
            hanging: None,
            draining: None,
            pings: 0,
            was_linked: false,
        });
    }

    /// Whether agents may connect.
    pub(super) fn is_ready(&self, now: Duration) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let waited = now >= running.started + READY_AFTER;
            running.draining.is_none()
                && running.hanging.is_none()
                && (running.was_linked || waited)
        })
    }

    /// What its wall clock says.
    pub(super) fn wall(&self, now: Duration) -> UnixMillis {
        UnixMillis(EPOCH.plus(now).0.saturating_add_signed(self.skew_ms))
    }

    pub(super) fn hangs(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.hanging.is_some())
    }
}
