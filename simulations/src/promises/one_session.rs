//! After healing an agent has one live session in the whole cluster, also if it was on both sides of
//! a partition (PROTOCOL section 3).

use std::collections::BTreeMap;

use super::Breach;
use crate::core::history::History;

pub(super) const NAME: &str = "after healing an agent has one session";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let (probed, _) = history.probed;
    let mut live: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for session in &history.sessions {
        if session.opened < probed && session.ended.is_none_or(|(ended, _)| ended > probed) {
            let name = format!("{} on node-{}", session.id, session.home.node);
            live.entry(session.agent).or_default().push(name);
        }
    }
    let several = live.into_iter().filter(|(_, sessions)| sessions.len() > 1);
    let breach = |(agent, sessions): (usize, Vec<String>)| Breach {
        promise: NAME,
        what: format!("agent-{agent} has sessions {}", sessions.join(" and ")),
        agents: vec![agent],
        messages: Vec::new(),
        from: std::time::Duration::ZERO,
        until: probed,
    };
    several.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{core::history::Ending, promises::example};

    #[test]
    fn two_are_one_too_many() {
        let mut history = example::three();
        history.sessions.push(example::session(1, 0, 5_000));
        assert_eq!(breaches(&history).len(), 1);
        history.sessions[1].ended = Some((Duration::from_secs(6), Ending::Replaced));
        assert_eq!(breaches(&history), []);
    }
}
