//! The promises of the routes, in a model network.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::model::{AGENTS, CONTROL, Got, How, NODES, Network, Op, SENDERS};

/// Operations, printed one a line.
#[derive(Clone)]
struct Ops(Vec<Op>);

impl std::fmt::Debug for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|op| write!(f, "\n    {op:?}"))
    }
}

fn several(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Ops> {
    prop::collection::vec(op, 0..300).prop_map(Ops)
}

/// What may happen while nothing breaks.
fn peace() -> impl Strategy<Value = Op> {
    let lane = (0..NODES, 0..NODES, prop_oneof![2 => Just(CONTROL), 3 => 0..CONTROL], 1..6_usize);
    prop_oneof![
        10 => (0..SENDERS.len(), 1..4_u8).prop_map(|(sender, agents)| Op::Direct { sender, agents }),
        5 => (0..SENDERS.len()).prop_map(|sender| Op::Broadcast { sender }),
        3 => (0..AGENTS.len(), 0..NODES).prop_map(|(agent, node)| Op::Open { agent, node }),
        1 => (0..AGENTS.len()).prop_map(|agent| Op::Close { agent }),
        90 => lane.prop_map(|(from, to, lane, frames)| Op::Arrive { from, to, lane, frames }),
        2 => Just(Op::Tick),
    ]
}

/// Messages, while nobody comes or goes.
fn traffic() -> impl Strategy<Value = Ops> {
    several(peace().prop_filter("nobody comes or goes", |op| {
        !matches!(op, Op::Open { .. } | Op::Close { .. })
    }))
}

/// Owners change, too.
fn unrest() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => peace(),
        1 => (0..NODES).prop_map(|node| Op::NewOwner { node }),
        1 => Just(Op::Settle),
    ]
}

/// Links break and fall silent, too.
fn war() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => unrest(),
        1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Op::Cut { a, b }),
        1 => (0..NODES, 0..NODES).prop_map(|(at, of)| Op::Silence { at, of }),
    ]
}

/// Lets fewer ticks pass than any message may wait.
fn run(Ops(ops): &Ops) -> Network {
    let mut network = Network::new();
    let mut ticks = 0..40;
    for op in ops.iter().filter(|op| !matches!(op, Op::Tick) || ticks.next().is_some()) {
        network.run(op);
    }
    network.heal();
    network
}

/// No session gets two messages of one sender in the wrong order.
fn check_order(network: &Network, which: impl Fn(How) -> bool) -> Result<(), TestCaseError> {
    for (session, got) in network.got() {
        let mut last = BTreeMap::new();
        for message in got.iter().filter(|message| which(message.how)) {
            let sender = message.text.split('/').next().unwrap();
            if let Some(before) = last.insert(sender, &message.text) {
                prop_assert!(
                    *before < message.text,
                    "{session:?}: {} after {before}",
                    message.text
                );
            }
        }
    }
    Ok(())
}

/// No session gets a message twice; no agent one that went along a route.
fn check_once(network: &Network) -> Result<(), TestCaseError> {
    let (mut sessions, mut agents) = (BTreeSet::new(), BTreeSet::new());
    for ((agent, session), got) in network.got() {
        for Got { text, how } in got {
            prop_assert!(sessions.insert((session, text.clone())), "{text} twice to {session}");
            let first = how == How::Broadcast || agents.insert((agent.clone(), text.clone()));
            prop_assert!(first, "{text} twice to {agent}");
        }
    }
    Ok(())
}

/// Nothing waits for ever, and everything arrived or was counted as lost.
fn check_accounts(network: &Network) -> Result<(), TestCaseError> {
    prop_assert_eq!(network.held(), (0, 0), "open routes, waiting bytes");
    prop_assert_eq!(network.fenced_sessions(), 0, "sessions that still count as fenced");
    let got = network.got();
    let arrived = got.values().flatten().filter(|got| got.how == How::Direct).count() as u64;
    prop_assert_eq!(network.directs, arrived + network.lost_in_all());
    Ok(())
}

/// Everything that was accepted after a session's welcome arrived, if the session did not end; or it
/// came to an older session that was outdone before it was greeted, and ended with that.
fn check_complete(network: &Network) -> Result<(), TestCaseError> {
    let got = network.got();
    for (agent, session) in network.open_sessions() {
        let of_agent = got.iter().filter(|((name, _), _)| *name == agent);
        let counted = of_agent
            .filter(|((_, s), _)| *s == session || !network.welcomed.contains_key(s))
            .flat_map(|(_, got)| got.iter().map(|got| &got.text));
        let arrived: BTreeSet<_> = counted.collect();
        for message in network.accepted.iter().skip(network.welcomed[&session]) {
            let is_there = message.agent != agent || arrived.contains(&message.text);
            prop_assert!(is_there, "{session} misses {message:?}");
        }
    }
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig { max_shrink_iters: 50_000, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn agents_that_move_get_everything_in_order(ops in several(peace())) {
        let network = run(&ops);
        check_once(&network)?;
        check_order(&network, |_| true)?;
        check_accounts(&network)?;
        check_complete(&network)?;
    }

    #[test]
    fn an_agent_that_moves_once_misses_no_direct_message(
        before in traffic(),
        after in traffic(),
        from in 0..NODES,
        by in 1..NODES,
    ) {
        let mut network = Network::new();
        network.run(&Op::Open { agent: 0, node: from });
        network.heal();
        before.0.iter().for_each(|op| network.run(op));
        network.run(&Op::Open { agent: 0, node: (from + by) % NODES });
        after.0.iter().for_each(|op| network.run(op));
        network.heal();
        check_once(&network)?;
        check_order(&network, |_| true)?;
        check_accounts(&network)?;
        let got = network.got();
        let arrived: BTreeSet<_> = got.values().flatten().map(|got| &got.text).collect();
        let mut sent = network.accepted.iter().filter(|m| m.agent == AGENTS[0] && !m.broadcast);
        prop_assert!(sent.all(|message| arrived.contains(&message.text)));
    }

    #[test]
    fn new_owners_change_nothing(ops in several(unrest())) {
        let network = run(&ops);
        check_once(&network)?;
        check_order(&network, |_| true)?;
        check_accounts(&network)?;
        check_complete(&network)?;
    }

    #[test]
    fn broken_links_neither_double_nor_hold_anything(ops in several(war())) {
        let network = run(&ops);
        check_once(&network)?;
        check_order(&network, |how| how == How::Direct)?;
        check_accounts(&network)?;
    }
}
