//! Who may leave. Two nodes that are sent away in the same moment must not both pass for the one that can be
//! spared, so one node decides, one wish after the other, and remembers whom it let go: the node that leads
//! the registry. While nobody leads it, there is no majority to be lost, and each node decides by itself.
//!
//! Owns whom this node let go a moment ago. Sends nobody away: whoever asked does.

use std::{collections::BTreeSet, time::Duration};

use cluster::{Incarnation, NodeId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    relay::Relay,
    report,
    standing::{self, Needed},
};

/// Whoever was let go is told so, tells the others, and is seen to leave within so long: an answer and a
/// question of two seconds each, and as much again. Who is not has stayed.
const GOES_WITHIN: Duration = Duration::from_secs(10);

/// How long whoever leads the registry may take to decide, others' wishes before this one among them, and
/// an election.
const PATIENCE: Duration = Duration::from_secs(6);

/// A leader that does not answer may be none: who leads is looked at again after so long.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// That a node leave: asked of the node that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which node.
    pub node: u64,
    /// Whether it leaves whatever speaks against it; then this is for others' wishes to reckon with.
    pub anyway: bool,
}

/// What is decided of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The node may leave, and is taken for one that does.
    MayLeave,
    /// It should stay.
    Stays(Needed),
}

/// Nobody could be found who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node that leads the registry does not answer, and it alone knows who else leaves: try again in a \
     moment"
)]
pub struct Undecided;

/// Whom this node let go; one wish is decided at a time.
#[derive(Debug)]
pub struct Leaves {
    turn: Semaphore,
    gone: Mutex<Gone>,
}

/// Lives of nodes that were let go, and until when they are taken for ones that leave.
#[derive(Debug, Default)]
struct Gone(Vec<(Incarnation, Duration)>);

impl Default for Leaves {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), gone: Mutex::default() }
    }
}

impl Gone {
    fn add(&mut self, node: Incarnation, now: Duration) {
        self.0.retain(|(other, _)| *other != node);
        self.0.push((node, now + GOES_WITHIN));
    }

    /// Who is on the way out of these. Who was started again since then is not.
    fn of(&mut self, living: &[Incarnation], now: Duration) -> BTreeSet<NodeId> {
        self.0.retain(|(node, until)| now < *until && living.contains(node));
        self.0.iter().map(|(node, _)| node.node).collect()
    }
}

/// Has it decided by whoever is to, wherever that is.
///
/// # Errors
/// The node that leads the registry does not answer. A wish that is meant whatever speaks against it is
/// granted then.
pub async fn decided(relay: &Relay, wish: Wish) -> Result<Verdict, Undecided> {
    let verdict = async {
        loop {
            let leader = relay.registry.status().leader.filter(|leader| *leader != relay.node);
            let (Some(leader), Some(peers)) = (leader, relay.peers()) else {
                return decide(relay, wish).await;
            };
            if let Some(verdict) = peers.may_leave(leader, wish).await {
                return verdict;
            }
            sleep(ASK_EVERY).await;
        }
    };
    match timeout(PATIENCE, verdict).await {
        Ok(verdict) => Ok(verdict),
        Err(_) if wish.anyway => Ok(Verdict::MayLeave),
        Err(_) => Err(Undecided),
    }
}

/// Another node asks; none if this one is not to decide it.
pub(crate) async fn asked(relay: &Relay, wish: Wish) -> Option<Verdict> {
    let leads = || relay.registry.status().leader == Some(relay.node);
    if leads() { Some(decide(relay, wish).await) } else { None }
}

/// Decides, after all that were wished before.
async fn decide(relay: &Relay, wish: Wish) -> Verdict {
    // The semaphore is never closed.
    let _turn = relay.leaves.turn.acquire().await;
    let members = relay.peers().map_or_else(Vec::new, |peers| peers.nodes());
    let lives: Vec<_> = members.iter().map(|node| node.member.incarnation).collect();
    let going = relay.leaves.gone.lock().of(&lives, relay.clock.elapsed());
    let mut nodes = report::nodes(relay);
    for node in &mut nodes {
        if standing::id(node).is_some_and(|id| going.contains(&id)) {
            node.state = "leaving".into();
        }
    }
    let wanted = NodeId(wish.node);
    if !wish.anyway
        && let Some(needed) = standing::needed(relay, &wanted.to_string(), &nodes).await
    {
        return Verdict::Stays(needed);
    }
    if let Some(life) = lives.into_iter().find(|life| life.node == wanted) {
        relay.leaves.gone.lock().add(life, relay.clock.elapsed());
    }
    Verdict::MayLeave
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use cluster::{
        AgentId, Generation,
        link::{LinkCounters, LinkStatus},
        membership::{Load, Member, MemberCounters, MemberState},
        registry::{Administration as _, VoterChange},
    };

    use super::*;
    use crate::{
        deliver::Sink,
        peers::{NodeStatus, Peers, testing::mesh},
        relay::{Phase, testing::relay},
        standing::Standing,
    };

    fn life(node: u64, generation: u64) -> Incarnation {
        Incarnation { node: NodeId(node), generation: Generation(generation) }
    }

    #[test]
    fn who_was_let_go_is_taken_for_gone_until_it_is_back_or_has_stayed() {
        let (mut gone, lives) = (Gone::default(), [life(1, 1), life(2, 1)]);
        gone.add(life(2, 1), Duration::ZERO);
        assert_eq!(gone.of(&lives, Duration::from_secs(9)), [NodeId(2)].into());
        assert!(gone.of(&lives, GOES_WITHIN).is_empty(), "it has stayed");
        gone.add(life(1, 1), Duration::ZERO);
        assert!(gone.of(&[life(1, 2)], Duration::ZERO).is_empty(), "it was started again");
    }

    #[test]
    fn the_bytes_are_frozen() {
        let wish = Wish { node: 7, anyway: true };
        assert_eq!(serde_json::to_string(&wish).unwrap(), r#"{"node":7,"anyway":true}"#);
        let stays = Verdict::Stays(Needed::Majority { left: 1, voters: 3 });
        for (verdict, json) in [
            (Verdict::MayLeave, r#""MayLeave""#),
            (stays, r#"{"Stays":{"Majority":{"left":1,"voters":3}}}"#),
            (Verdict::Stays(Needed::LastReady), r#"{"Stays":"LastReady"}"#),
        ] {
            assert_eq!(serde_json::to_string(&verdict).unwrap(), json);
            assert_eq!(serde_json::from_str::<Verdict>(json).unwrap(), verdict);
        }
    }

    /// Three nodes that take agents, the first of which is this one.
    struct Three;

    #[async_trait]
    impl Peers for Three {
        fn nodes(&self) -> Vec<NodeStatus> {
            let status = |node| {
                let member = Member {
                    incarnation: life(node, 1),
                    name: format!("node-{node}"),
                    region: "default".into(),
                    version: String::new(),
                    address: ([127, 0, 0, 1], 1).into(),
                    state: MemberState::Alive,
                    load: Load::default(),
                };
                NodeStatus { member, ring_share: 0.0 }
            };
            (1..=3).map(status).collect()
        }

        fn links(&self) -> Vec<LinkStatus> {
            Vec::new()
        }

        fn with_counters(&self, _: &mut dyn FnMut(&LinkCounters, &MemberCounters)) {}

        async fn home_of(&self, _: &AgentId) -> Option<NodeId> {
            None
        }

        async fn standing_of(&self, _: NodeId) -> Option<Standing> {
            Some(Standing { takes_agents: true, agents: 0 })
        }

        fn carry(&self, _: Load) {}

        async fn joined(&self) {}

        async fn displaced(&self) {}

        fn leave(&self) {}

        async fn goodbye(&self) {}
    }

    /// One of three voters, that decides by itself.
    async fn voter() -> (Arc<Relay>, crate::clock::Clock) {
        let (relay, clock, names) = relay();
        let seeds = (1..=3).map(|number| format!("node-{number}:7946")).collect();
        names.change_voters(VoterChange::Set(seeds)).await.unwrap();
        relay.join(mesh(relay.node, Arc::new(Sink::new(&relay))), Arc::new(Three));
        relay.enter_phase(Phase::Serving);
        (relay, clock)
    }

    #[tokio::test]
    async fn of_two_that_are_sent_away_at_once_one_stays() {
        let (relay, clock) = voter().await;
        let wish = |node| decided(&relay, Wish { node, anyway: false });
        let stays = Ok(Verdict::Stays(Needed::Majority { left: 1, voters: 3 }));
        assert_eq!(tokio::join!(wish(2), wish(3)), (Ok(Verdict::MayLeave), stays));
        assert_eq!(wish(1).await, stays);
        assert_eq!(wish(2).await, Ok(Verdict::MayLeave), "it leaves already");
        clock.advance(GOES_WITHIN);
        assert_eq!(wish(3).await, Ok(Verdict::MayLeave), "the other one has stayed");
    }

    #[tokio::test]
    async fn who_is_sent_away_in_spite_of_all_counts_for_those_who_come_after() {
        let (relay, _) = voter().await;
        let wish = |node, anyway| decided(&relay, Wish { node, anyway });
        assert_eq!(wish(2, true).await, Ok(Verdict::MayLeave));
        assert_eq!(wish(3, true).await, Ok(Verdict::MayLeave));
        assert_eq!(wish(1, false).await, Ok(Verdict::Stays(Needed::LastReady)));
    }

    #[tokio::test]
    async fn who_does_not_lead_decides_nothing_for_others() {
        let (relay, _) = voter().await;
        assert_eq!(asked(&relay, Wish { node: 2, anyway: false }).await, None);
    }
}
