//! The questions that this node has asked its peers, until they are answered or nobody waits for the
//! answer any more.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::NodeId;

/// The open questions of a node that are answered by an `A`.
pub(super) struct Questions<A> {
    asked: AtomicU64,
    open: Mutex<HashMap<u64, Asker<A>>>,
}

/// Who was asked, and where its answer goes.
type Asker<A> = (NodeId, oneshot::Sender<A>);

/// An open question; forgotten when dropped, however whoever waits for the answer ends.
pub(super) struct Question<'q, A> {
    questions: &'q Questions<A>,
    pub(super) number: u64,
    answer: oneshot::Receiver<A>,
}

impl<A> Default for Questions<A> {
    fn default() -> Self {
        Self { asked: AtomicU64::default(), open: Mutex::default() }
    }
}

impl<A> Questions<A> {
    /// A question to a peer.
    pub(super) fn ask(&self, to: NodeId) -> Question<'_, A> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.open.lock().insert(number, (to, sender));
        Question { questions: self, number, answer }
    }

    /// A peer answers. Means nothing of a question that it was not asked.
    pub(super) fn answered(&self, from: NodeId, number: u64, answer: A) {
        let mut open = self.open.lock();
        if open.get(&number).is_none_or(|(asked, _)| *asked != from) {
            return;
        }
        if let Some((_, asker)) = open.remove(&number) {
            // An error means that nobody waits any more.
            let _ = asker.send(answer);
        }
    }
}

impl<A> Question<'_, A> {
    /// Waits for the answer; none if there never will be one.
    pub(super) async fn answer(&mut self) -> Option<A> {
        (&mut self.answer).await.ok()
    }
}

impl<A> Drop for Question<'_, A> {
    fn drop(&mut self) {
        self.questions.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const PEER: NodeId = NodeId(2);

    #[test]
    fn only_who_was_asked_answers() {
        let questions = Questions::default();
        let (mut one, mut other) = (questions.ask(PEER), questions.ask(PEER));
        questions.answered(NodeId(3), one.number, b"a lie".to_vec());
        questions.answered(PEER, 99, b"of nothing".to_vec());
        assert_eq!(one.answer().now_or_never(), None);
        questions.answered(PEER, one.number, b"so it is".to_vec());
        assert_eq!(one.answer().now_or_never(), Some(Some(b"so it is".to_vec())));
        assert_eq!(other.answer().now_or_never(), None);
    }

    #[test]
    fn a_question_that_nobody_waits_for_any_more_is_forgotten() {
        let questions = Questions::default();
        let number = {
            let mut question = questions.ask(PEER);
            assert_eq!(question.answer().now_or_never(), None);
            question.number
        };
        assert!(questions.open.lock().is_empty());
        questions.answered(PEER, number, b"too late".to_vec());
    }
}
