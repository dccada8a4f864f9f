//! When all faults are over, ten quiet seconds make the cluster one again: then every agent reaches
//! every other, exactly once, wherever the two are.
//!
//! Looked at from outside: every agent writes to each other one and to all. So every node's routes,
//! every owner's directory and every sequence of broadcasts must agree with the truth. A session
//! that began or ended after the healing's end has no part in it.

use std::{collections::HashSet, time::Duration};

use super::{Breach, Due, not_got};
use crate::core::history::History;

pub(super) const NAME: &str = "after healing every agent reaches every other";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let (probed, first) = history.probed;
    let took_part = |session: &crate::core::history::SessionRecord| {
        session.admitted.is_some_and(|admitted| admitted <= probed) && session.ended.is_none()
    };
    let mut breaches = Vec::new();
    for (index, session) in history.sessions.iter().enumerate().filter(|(_, s)| took_part(s)) {
        let got: HashSet<usize> = session.received.iter().copied().collect();
        for (number, message) in history.messages.iter().enumerate().skip(first) {
            let sender = history.sessions[message.session].agent;
            if message.certain
                && message.to.include(session.agent, sender)
                && !got.contains(&number)
            {
                breaches.push(not_got(NAME, history, Due { message: number, session: index }));
            }
        }
    }
    breaches.extend(idle_agents(history, probed));
    breaches
}

/// Agents connect as soon as there is a node to connect to: one without a welcome is locked out.
fn idle_agents(history: &History, probed: Duration) -> Vec<Breach> {
    let never_admitted = |s: &&crate::core::history::SessionRecord| {
        s.ended.is_none() && s.admitted.is_none() && s.opened + Duration::from_secs(2) < probed
    };
    let idle = history.sessions.iter().filter(never_admitted);
    let breach = |session: &crate::core::history::SessionRecord| Breach {
        promise: NAME,
        what: format!("session {} of agent-{} has no welcome", session.id, session.agent),
        agents: vec![session.agent],
        messages: Vec::new(),
        from: session.opened.saturating_sub(Duration::from_secs(1)),
        until: session.opened + Duration::from_secs(4),
    };
    idle.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::history::Recipients, promises::example};

    #[test]
    fn all_reach_all() {
        let mut history = example::three();
        history.probed.1 = 0;
        example::send(&mut history, 0, 50_000, Recipients::All, &[1, 2]);
        example::send(&mut history, 2, 50_000, Recipients::Agents(vec![1]), &[1]);
        assert_eq!(breaches(&history), []);
        example::send(&mut history, 1, 50_000, Recipients::Agents(vec![0]), &[]);
        assert_eq!(breaches(&history).len(), 1);
    }

    #[test]
    fn nobody_waits_for_a_welcome_for_ever() {
        let mut history = example::three();
        history.sessions[1].admitted = None;
        assert_eq!(breaches(&history).len(), 1);
    }
}
