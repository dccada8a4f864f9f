//! Who is asked for: one node's agents send, and the node's routes fill.
//!
//! Each agent sends one message a second: four of five to one of its partners, one to anybody. One
//! node is looked at; all do the same.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Plan, World,
    report::Section,
    table::{Table, ratio, tenths, whole},
    tally::kind,
};

/// How many partners an agent has.
const PARTNERS: usize = 20;

/// Of ten messages so many go to partners.
const TO_PARTNERS: usize = 8;

/// A route that is not used for so long is forgotten.
const IDLE_SECONDS: u64 = 600;

/// For how long agents send before the mesh changes.
const WARM_SECONDS: u64 = 10;

/// What draws are for.
const PARTNER: u64 = 10;
const CHOICE: u64 = 11;
const WHICH: u64 = 12;
const ANYBODY: u64 = 13;

/// What one node did in a minute.
#[derive(Clone, Debug)]
pub(super) struct Minute {
    number: u64,
    /// To agents of other nodes.
    messages: u64,
    /// Of them, those that went out at once.
    known: u64,
    lookups: u64,
    /// Routes at its end.
    routes: usize,
}

/// Lets one node's agents send for a moment.
pub(super) fn warm(world: &mut World, sender: usize) {
    let senders = world.agents.on(sender);
    for _ in 0..WARM_SECONDS {
        send(world, sender, &senders, |_| ());
    }
}

/// Lets one node's agents send for so many minutes.
pub(super) fn run(world: &mut World, sender: usize, minutes: u64) -> Vec<Minute> {
    let senders = world.agents.on(sender);
    let mut used: BTreeMap<usize, u64> = BTreeMap::new();
    let minute = |number: u64| {
        let before = world.sent_by(sender).of(kind::LOOKUP).frames;
        let (mut messages, mut known) = (0, 0);
        for second in (number - 1) * 60..number * 60 {
            known += send(world, sender, &senders, |to| {
                messages += 1;
                used.insert(to, second);
            });
        }
        used.retain(|_, last| number * 60 - *last <= IDLE_SECONDS);
        let lookups = world.sent_by(sender).of(kind::LOOKUP).frames - before;
        Minute { number, messages, known, lookups, routes: used.len() }
    };
    (1..=minutes).map(minute).collect()
}

/// Lets each of the agents send once, in a second; returns how often the way was known.
fn send(world: &mut World, node: usize, senders: &[usize], mut sent: impl FnMut(usize)) -> u64 {
    let (start, mut known) = (world.now, 0);
    for (n, from) in senders.iter().enumerate() {
        world.run_until(start + Duration::from_secs_f64(ratio(n, senders.len())));
        let to = target(world, *from, start.as_secs());
        if world.agents.home(to).is_some_and(|home| home != node) {
            known += u64::from(world.direct(*from, to, b"{}"));
            sent(to);
        }
    }
    world.run_until(start + Duration::from_secs(1));
    known
}

/// Whom an agent sends to in that second.
fn target(world: &World, from: usize, second: u64) -> usize {
    let agents = &world.agents;
    if agents.draw(from, CHOICE, second, 10) < TO_PARTNERS {
        let which = agents.draw(from, WHICH, second, PARTNERS);
        agents.draw(from, PARTNER, which as u64, agents.len())
    } else {
        agents.draw(from, ANYBODY, second, agents.len())
    }
}

/// The table of the minutes.
pub(super) fn section(minutes: &[Minute], plan: &Plan) -> Section {
    let mut table = Table::new([
        "minute",
        "messages to other nodes each second",
        "of them sent at once",
        "look-ups each second",
        "routes at its end",
        "watchers of a record in the largest region, if all nodes do the same",
    ]);
    let largest = plan.regions.iter().max().copied().unwrap_or_default();
    for minute in minutes {
        let share = ratio(minute.routes, plan.agents);
        table.row([
            minute.number.to_string(),
            whole(minute.messages / 60),
            format!("{:.1} %", 100.0 * ratio(minute.known, minute.messages)),
            format!("{:.0}", ratio(minute.lookups, 60_u64)),
            whole(minute.routes),
            tenths(share * ratio(largest, 1_usize)),
        ]);
    }
    let text = format!(
        "Each agent sends one message a second, {TO_PARTNERS} of 10 to one of its {PARTNERS} \
         partners, the others to anybody of all. One node is looked at, whose routes were empty but \
         for {WARM_SECONDS} s of this before the mesh changed. A message to somebody unknown waits for \
         one question to the owner in the same region: 2 ms here. Routes end when they are idle for \
         10 minutes; who watches a record does so until its agent leaves. As many look-ups as a node \
         asks, it answers.\n\n{table}"
    );
    Section::new("Look-ups", text)
}
