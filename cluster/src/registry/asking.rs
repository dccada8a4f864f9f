//! How a request gets to the node that leads, from wherever it is made, and how long it is tried.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    message::{self, Question},
    request::{Answer, Request},
    shared::SharedRegistry,
};
use crate::NodeId;

/// How long a request is tried, over all leaders.
const PATIENCE: Duration = Duration::from_millis(1_800);

/// How long one node is waited for before it is asked again: what was asked of it may be lost.
const TRY: Duration = Duration::from_millis(900);

/// Between two tries, and between two looks for a leader.
const PAUSE: Duration = Duration::from_millis(50);

/// Nobody is waited for once so little time is left.
const LEAST: Duration = Duration::from_millis(20);

/// What became of all tries.
struct Tries {
    /// What is answered if there is no other try.
    why: String,
    /// Whether one of them may have done what was asked, or may do so still.
    unknown: bool,
    /// Whom the last answer named as the leader.
    hint: Option<NodeId>,
}

impl SharedRegistry {
    /// Asks the node that leads, whichever it is, until it answers or [`PATIENCE`] is at its end.
    pub(super) async fn ask_leader(&self, request: Request) -> Answer {
        self.ask_leader_and_look_back(request).await.0
    }

    /// The same, and whether the request may be carried out once more later: an earlier try that was not
    /// answered may still be on its way.
    pub(super) async fn ask_leader_and_look_back(&self, request: Request) -> (Answer, bool) {
        // Whoever is alone would answer what is gone when it stops.
        if self.place().is_alone()
            && let Some(why) = self.removed()
        {
            return (Answer::Unavailable { why, unknown: false }, false);
        }
        let mut tries = Tries { why: String::new(), unknown: false, hint: None };
        let answer = timeout(PATIENCE, self.try_leaders(&request, &mut tries)).await;
        let answer = answer.unwrap_or_else(|_| {
            let why = if tries.why.is_empty() { self.why_unavailable() } else { tries.why };
            Answer::Unavailable { why, unknown: tries.unknown }
        });
        (answer, tries.unknown)
    }

    async fn try_leaders(&self, request: &Request, tries: &mut Tries) -> Answer {
        loop {
            let leader = tries.hint.take().or_else(|| self.leader());
            if let Some(leader) = leader {
                // Until it is answered, nobody knows.
                let unknown = std::mem::replace(&mut tries.unknown, true);
                match self.try_one(leader, request).await {
                    Some(Answer::NotLeader(named)) => {
                        (tries.unknown, tries.hint) = (unknown, named);
                    }
                    Some(Answer::Unavailable { why, unknown: this }) => {
                        tries.unknown = unknown || this;
                        tries.why = why;
                    }
                    Some(answer) => {
                        tries.unknown = unknown;
                        return answer;
                    }
                    None => {
                        tries.why = "the node that leads it does not answer".into();
                        let mut others = self.heard().voters().into_iter();
                        let stays = self.leader() == Some(leader);
                        tries.hint = others.find(|it| stays && *it != leader);
                    }
                }
                if tries.unknown && !request.is_repeatable() {
                    let why = "it is not known whether it was done: look, and ask again".into();
                    return Answer::Unavailable { why, unknown: true };
                }
            } else if self.is_hopeless() {
                return Answer::Unavailable { why: self.why_unavailable(), unknown: tries.unknown };
            }
            sleep(PAUSE).await;
        }
    }

    /// One try; none if there is no answer, or while it is waited for another node leads.
    async fn try_one(&self, leader: NodeId, request: &Request) -> Option<Answer> {
        let answered = async {
            if leader == self.identity().node {
                return Some(self.carry_out(request.clone(), TRY).await);
            }
            self.ask_one(leader, request.clone(), TRY).await
        };
        let deposed = async {
            while self.leader().is_none_or(|now| now == leader) {
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            answer = answered => answer,
            () = deposed => None,
        }
    }

    /// Asks one node.
    pub(super) async fn ask_one(
        &self,
        node: NodeId,
        request: Request,
        patience: Duration,
    ) -> Option<Answer> {
        let patience_ms = patience.saturating_sub(LEAST).as_millis();
        let patience_ms = u32::try_from(patience_ms).unwrap_or(u32::MAX);
        let question = Question::Request { request, made: self.now(), patience_ms };
        let carry = self.place().carry.as_ref()?;
        let answer = carry.ask(node, message::to_bytes(&question), patience).await?;
        message::from_bytes(&answer)
    }

    /// Asks any voter: this node, if it is one, or else one that is linked.
    pub(super) async fn ask_voter(&self, request: Request) -> Answer {
        if self.keeps_book() {
            return self.carry_out(request, PATIENCE).await;
        }
        for voter in self.heard().voters() {
            match self.ask_one(voter, request.clone(), TRY).await {
                None | Some(Answer::NotLeader(_) | Answer::Unavailable { .. }) => {}
                Some(answer) => return answer,
            }
        }
        Answer::Unavailable { why: self.why_unavailable(), unknown: false }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::{
        super::{
            AtRest, Carry, Claim, Place, RegisterError, Registry,
            hello::{Hello, Part},
            message::Telling,
            testing::{TestClock, id},
        },
        *,
    };

    const LEADER: NodeId = NodeId(7);

    /// A leader that answers so, the last answer first; none: the question is lost.
    struct Leader(Mutex<Vec<Option<Answer>>>);

    #[async_trait]
    impl Carry for Leader {
        async fn ask(&self, _: NodeId, _: Vec<u8>, _: Duration) -> Option<Vec<u8>> {
            let answer = self.0.lock().pop().unwrap();
            answer.map(|answer| message::to_bytes(&answer))
        }

        fn tell(&self, _: NodeId, _: Vec<u8>) {}

        fn linked(&self) -> Vec<NodeId> {
            vec![LEADER]
        }
    }

    /// What becomes of a name that is wanted, and how many are to be given back then.
    async fn register(answers: Vec<Option<Answer>>) -> (Result<(), RegisterError>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let settings = TestClock::new().settings(AtRest::generate(), None);
        let registry = SharedRegistry::open(dir.path(), settings).unwrap();
        let carry: Arc<dyn Carry> = Arc::new(Leader(Mutex::new(answers)));
        let place = Place { carry: Some(carry), seeds: Vec::new(), slot: None };
        drop(Arc::clone(&registry).serve(place));
        let hello = Hello {
            registry: None,
            lineage: Vec::new(),
            part: Part::Observer,
            stored: true,
            voter: true,
            leader: Some(LEADER),
            applied: 1,
        };
        registry.told(LEADER, &message::to_bytes(&Telling::Hello(hello)));
        let outcome = registry.register(Some(id("rawk-042")), Claim::random()).await;
        (outcome.map(drop), registry.releases().names().len())
    }

    #[tokio::test]
    async fn a_try_that_may_come_late_takes_no_name_for_nobody() {
        let token = "tok_".to_owned();
        let given = || Some(Answer::Registered { agent: id("rawk-042"), token: token.clone() });
        let anothers = || Some(Answer::Taken);
        let outcome = register(vec![anothers()]).await;
        assert!(matches!(outcome, (Err(RegisterError::Taken), 0)), "{outcome:?}");
        let outcome = register(vec![anothers(), None]).await;
        assert!(matches!(outcome, (Err(RegisterError::Taken), 1)), "{outcome:?}");
        let outcome = register(vec![given(), None]).await;
        assert!(matches!(outcome, (Ok(()), 0)), "{outcome:?}");
    }
}
