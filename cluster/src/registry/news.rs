//! How nodes that keep no book hear of it: voters tell what changed, and answer what all of it is.
//!
//! News go to every linked node that keeps no book, at once but for the count, which is told once a
//! second. They say which entries they cover, so that whoever missed some notices, and asks for the whole
//! view, which comes in pages of one index.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    facts::Facts,
    message::{self, Page, Question, Telling},
    shared::SharedRegistry,
    standing::{Learned, Standing},
};
use crate::NodeId;

/// How often the count of names is told.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The longest page of a view, in bytes.
const PAGE_BYTES: usize = 64 << 10;

/// The longest view that is taken: more than two million revocations.
const VIEW_BYTES_MAX: u64 = 64 << 20;

/// How many views are kept for those who are half-way through one.
const VIEWS_KEPT: usize = 2;

/// How long a page is waited for.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// A view that could not be had is asked for again after so long.
const PAUSE: Duration = Duration::from_millis(200);

/// The views that this node gives, and the one that it needs.
#[derive(Debug, Default)]
pub(super) struct News {
    given: Mutex<VecDeque<(u64, Bytes)>>,
    /// The voter that knows more than this node.
    ahead: Mutex<Option<NodeId>>,
    missed: Notify,
}

impl News {
    /// Some of the bytes of all that is known here. None if `index` is none that is still had.
    pub(super) fn page(
        &self,
        standing: &Standing,
        index: Option<u64>,
        offset: u64,
    ) -> Option<Page> {
        let mut given = self.given.lock();
        let wanted = index.unwrap_or_else(|| standing.index());
        let (index, view) = match given.iter().find(|(index, _)| *index == wanted) {
            Some((index, view)) => (*index, view.clone()),
            None if index.is_some() => return None,
            None => {
                standing.founded()?;
                let (index, facts) = standing.view();
                let view = Bytes::from(message::to_bytes(&facts));
                given.truncate(VIEWS_KEPT - 1);
                given.push_front((index, view.clone()));
                (index, view)
            }
        };
        let from = usize::try_from(offset).ok().filter(|from| *from <= view.len())?;
        let bytes = view.slice(from..view.len().min(from + PAGE_BYTES));
        Some(Page { index, total: view.len() as u64, bytes })
    }

    /// This voter knows what this node has missed.
    pub(super) fn missed(&self, voter: NodeId) {
        *self.ahead.lock() = Some(voter);
        self.missed.notify_one();
    }

    async fn voter_ahead(&self) -> NodeId {
        loop {
            let missed = self.missed.notified();
            if let Some(voter) = self.ahead.lock().take() {
                return voter;
            }
            missed.await;
        }
    }
}

impl SharedRegistry {
    /// Tells the others what this node, as a voter, has applied.
    pub(super) async fn tell_news(&self) {
        let mut count = interval(COUNT_EVERY);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.standing().urgent() => {}
                _ = count.tick() => {}
            }
            let Some(untold) = self.standing().take_untold() else { continue };
            let Some(carry) = self.place().carry.as_ref().filter(|_| self.keeps_book()) else {
                continue;
            };
            let Some(founded) = self.standing().founded() else { continue };
            let news = Telling::News {
                registry: founded.registry,
                from: untold.from,
                to: untold.to,
                facts: untold.facts.for_observers(),
            };
            let news = message::to_bytes(&news);
            for node in self.listeners(carry.linked()) {
                carry.tell(node, news.clone());
            }
        }
    }

    /// Those of the linked nodes that keep no book of their own.
    fn listeners(&self, linked: Vec<NodeId>) -> Vec<NodeId> {
        let heard = self.heard().all();
        let listens = |node: &NodeId| heard.get(node).is_none_or(|hello| !hello.voter);
        linked.into_iter().filter(listens).collect()
    }

    /// Takes a voter's news, unless this node has its own log for that.
    pub(super) fn learn(&self, from: NodeId, news: Telling) {
        let Telling::News { registry, from: first, to, facts } = news else { return };
        if self.follows_log() {
            return;
        }
        match self.standing().learn(registry, first, to, facts) {
            Learned::Taken | Learned::Old => {}
            Learned::Gap => self.news().missed(from),
            Learned::Foreign => {
                if self.heard().all().get(&from).is_some_and(|hello| hello.voter) {
                    self.news().missed(from); // it may have been restored from this one
                }
            }
        }
    }

    /// Asks for views whenever news were missed.
    pub(super) async fn catch_up(&self) {
        loop {
            let voter = self.news().voter_ahead().await;
            if self.follows_log() {
                continue;
            }
            if let Some((index, facts)) = self.view_of(voter).await {
                if self.has_kept_another(&facts) {
                    // The link to that node is cut, and the next try to make it says what to do.
                    continue;
                }
                if self.standing().learn_all(index, facts) == Learned::Foreign {
                    tracing::warn!(%voter, "a voter told of another registry, which is not believed");
                }
                continue;
            }
            sleep(PAUSE).await;
            // Another voter, if there is one; or the same again, if it is still there.
            let voters = self.heard().voters();
            let another = voters.iter().find(|other| **other != voter);
            if let Some(next) = another.or_else(|| voters.first()) {
                self.news().missed(*next);
            }
        }
    }

    /// Whether this node has some of the log of another registry than the one that these facts are of.
    fn has_kept_another(&self, facts: &Facts) -> bool {
        let (own, of) = (self.lineage().0, facts.founded.as_ref().map(|founded| founded.registry));
        self.is_stored() && own.is_some() && of != own
    }

    /// All that a voter knows.
    async fn view_of(&self, voter: NodeId) -> Option<(u64, Facts)> {
        let carry = self.place().carry.as_ref()?;
        let (mut view, mut at) = (BytesMut::new(), None);
        loop {
            let question = Question::View { index: at, offset: view.len() as u64 };
            let answer = carry.ask(voter, message::to_bytes(&question), PAGE_PATIENCE).await?;
            let page: Page = message::from_bytes(&answer)?;
            if at.is_some_and(|at| at != page.index) || page.total > VIEW_BYTES_MAX {
                return None;
            }
            at = Some(page.index);
            view.extend_from_slice(&page.bytes);
            if view.len() as u64 >= page.total {
                return message::from_bytes(&view).map(|facts| (page.index, facts));
            }
            if page.bytes.is_empty() {
                return None;
            }
        }
    }
}
