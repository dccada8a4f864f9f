//! The agents of a model: their names, homes and partners, all from a seed.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use cluster::AgentId;

/// The home of an agent without a session.
const NOWHERE: u16 = u16::MAX;

/// Which node each agent is on. Clones are the same agents.
#[derive(Clone, Debug)]
pub(super) struct Agents {
    homes: Arc<[AtomicU16]>,
    seed: u64,
}

impl Agents {
    /// So many agents, none of them connected.
    pub(super) fn new(agents: usize, seed: u64) -> Self {
        Self { homes: (0..agents).map(|_| AtomicU16::new(NOWHERE)).collect(), seed }
    }

    pub(super) fn len(&self) -> usize {
        self.homes.len()
    }

    /// The place of the agent's node.
    pub(super) fn home(&self, agent: usize) -> Option<usize> {
        let home = self.homes[agent].load(Ordering::Relaxed);
        (home != NOWHERE).then_some(usize::from(home))
    }

    pub(super) fn connect(&self, agent: usize, place: usize) {
        let place = u16::try_from(place).expect("fewer nodes than that");
        self.homes[agent].store(place, Ordering::Relaxed);
    }

    /// The agents of one node, in order.
    pub(super) fn on(&self, place: usize) -> Vec<usize> {
        (0..self.len()).filter(|agent| self.home(*agent) == Some(place)).collect()
    }

    /// A number that belongs to an agent, a purpose and a count of it: below `bound`.
    pub(super) fn draw(&self, agent: usize, purpose: u64, count: u64, bound: usize) -> usize {
        let mixed = mix(mix(mix(self.seed ^ purpose) ^ agent as u64) ^ count);
        usize::try_from(mixed % bound as u64).unwrap_or_default()
    }
}

/// The agent's name.
pub(super) fn name(agent: usize) -> AgentId {
    format!("agent-{agent:07}").parse().expect("it is well-formed")
}

/// The agent of a name.
pub(super) fn number(name: &str) -> Option<usize> {
    name.strip_prefix("agent-")?.parse().ok()
}

/// The finalizer of `SplitMix64`.
fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers() {
        for agent in [0, 7, 999_999, 12_345_678] {
            assert_eq!(number(name(agent).as_str()), Some(agent));
        }
        assert_eq!(number("bob"), None);
    }

    #[test]
    fn agents_are_where_they_connected() {
        let agents = Agents::new(5, 1);
        agents.connect(2, 9);
        agents.connect(4, 9);
        assert_eq!((agents.home(2), agents.home(3)), (Some(9), None));
        assert_eq!(agents.on(9), [2, 4]);
        assert_eq!(agents.draw(3, 1, 0, 1_000), agents.draw(3, 1, 0, 1_000));
        assert_ne!(agents.draw(3, 1, 0, 1_000_000), agents.draw(3, 2, 0, 1_000_000));
    }
}
