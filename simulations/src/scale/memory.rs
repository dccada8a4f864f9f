//! What the engine keeps for a session, a record, a watcher and a route, in bytes that it has asked
//! the allocator for.

use std::time::Duration;

use cluster::{
    Generation, Incarnation, NodeId, SessionId,
    mesh::{Home, directory::Directory, presence::Presence},
};

use super::{
    Agents, Plan, World,
    agents::name,
    report::Section,
    table::{Table, whole},
    world::region,
};

/// Of how many of each the mean is taken: about what a node of the whole model has.
const EACH: usize = 25_000;

/// Watchers of a record, to see what one costs.
const WATCHERS: u64 = 10;

/// Routes of the node that is looked at.
const ROUTES: usize = 200_000;

/// Bytes for one of each.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    session: usize,
    record: usize,
    watcher: usize,
    route: usize,
    routes: usize,
}

/// Fills parts of an engine, and looks at what is allocated before and after.
pub(super) fn run(plan: &Plan, allocated: fn() -> usize) -> Memory {
    let grows = |make: &mut dyn FnMut()| {
        let before = allocated();
        make();
        allocated().saturating_sub(before)
    };
    let me = Incarnation { node: NodeId(1), generation: Generation(1) };
    let home = Home { me, region: region(0) };
    let session = |n: usize| SessionId { time: n as u64 + 1, node: me.node };
    let mut presence = Presence::new(&home);
    let sessions = grows(&mut || {
        for n in 0..EACH {
            presence.opened(&name(n), session(n), Duration::ZERO);
        }
    });
    let mut directory = Directory::new(&home);
    let records = grows(&mut || {
        for n in 0..EACH {
            directory.publish(me.node, &name(n), session(n), true, Duration::ZERO);
        }
    });
    let peers = (2..2 + WATCHERS).map(NodeId);
    for node in peers.clone() {
        let generation = Generation(1);
        directory.link_up(Incarnation { node, generation }, Duration::ZERO);
    }
    let watchers = grows(&mut || {
        for peer in peers.clone() {
            for n in 0..EACH {
                directory.lookup(peer, name(n).as_str(), false);
            }
        }
    });
    let routes = ROUTES.min(plan.agents);
    Memory {
        session: sessions / EACH,
        record: records / EACH,
        watcher: watchers / EACH / usize::try_from(WATCHERS).unwrap_or(1),
        route: route(plan, routes, &grows),
        routes,
    }
}

/// Two nodes; the agents of one are all sent to by one of the other. The watchers are the first of
/// their records, and eight bytes each.
fn route(plan: &Plan, routes: usize, grows: &dyn Fn(&mut dyn FnMut()) -> usize) -> usize {
    const WATCHER: usize = size_of::<NodeId>();
    let mut world = World::new(&[2], Agents::new(routes + 1, plan.seed), plan.pace);
    world.connect(routes, 0);
    for agent in 0..routes {
        world.connect(agent, 1);
        world.pass(Duration::from_micros(100));
    }
    world.pass(Duration::from_secs(1));
    let bytes = grows(&mut || {
        for agent in 0..routes {
            world.direct(routes, agent, b"{}");
            world.pass(Duration::from_micros(100));
        }
        world.pass(Duration::from_secs(1));
    });
    (bytes / routes).saturating_sub(WATCHER)
}

impl Memory {
    pub(super) fn section(&self) -> Section {
        let mut table = Table::new(["", "bytes", "of how many"]);
        let each = whole(EACH);
        table.row(["a session, at its home".to_owned(), whole(self.session), each.clone()]);
        table.row([
            "a presence record, at each owner".to_owned(),
            whole(self.record),
            each.clone(),
        ]);
        table.row(["a watcher of a record".to_owned(), whole(self.watcher), each]);
        table.row([
            "a route, at a sender's node".to_owned(),
            whole(self.route),
            whole(self.routes),
        ]);
        let text = format!(
            "Names of 13 bytes and the maps' own room included, as asked of the allocator, which adds \
             some. A session's outbox and socket are not the engine's.\n\n{table}"
        );
        Section::new("Memory of the engine", text)
    }
}
