//! How nodes hear of the book otherwise than by its log: voters tell what changed, and answer what all of
//! it is.
//!
//! News go to every linked node at once; those of the count alone once a second, and only to nodes that
//! keep no book or do not hear their leader. They say which entries they cover, so that whoever missed
//! some notices, and asks for the whole view, which comes in pages of one index. To a voter that hears
//! its leader they say only how far the others are: it asks for the view if its log does not bring it
//! there, as while it is given a long snapshot, or its disk stands still.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    facts::Facts,
    hello::Hello,
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

/// How many bytes of views are kept for those who are half-way through one, all together: two of the
/// longest.
const VIEWS_BYTES_MAX: usize = 128 << 20;

/// How many times the count is told while nobody asks for a page of a view, until it is dropped.
const IDLE_MAX: u32 = 10;

/// How long the news of a voter that was ahead may be on their way: until the count is told, and a bit.
const NEWS_PATIENCE: Duration = Duration::from_millis(1_250);

/// How long the log of a voter that hears its leader may take to bring what others have applied. What is
/// revoked is to be refused within a second, and it may be waited for twice.
const LOG_PATIENCE: Duration = Duration::from_millis(300);

/// How long a page is waited for.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// A view that could not be had is asked for again after so long.
const PAUSE: Duration = Duration::from_millis(200);

/// The views that this node gives, and the one that it needs.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The newest first.
    given: Mutex<VecDeque<Given>>,
    /// The voter that knows what this node has missed.
    ahead: Mutex<Option<NodeId>>,
    further: Mutex<Option<Further>>,
    missed: Notify,
}

/// Others know more than this node; it may be on its way here.
#[derive(Debug)]
struct Further {
    /// The last entry that one of them knows, and which of them.
    known: u64,
    voter: NodeId,
    /// The entry that is waited for now, and for how long.
    awaited: u64,
    patience: Duration,
}

/// A view that somebody is given, page by page.
#[derive(Debug)]
struct Given {
    index: u64,
    view: Bytes,
    /// How many times the count was told since somebody asked for a page.
    idle: u32,
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
        let (index, view) = match given.iter_mut().find(|it| it.index == wanted) {
            Some(it) => {
                it.idle = 0;
                (it.index, it.view.clone())
            }
            None if index.is_some() => return None,
            None => {
                standing.founded()?;
                let (index, facts) = standing.view();
                let view = Bytes::from(message::to_bytes(&facts));
                given.push_front(Given { index, view: view.clone(), idle: 0 });
                let mut bytes = 0;
                given.retain(|it| {
                    bytes += it.view.len();
                    bytes <= VIEWS_BYTES_MAX
                });
                (index, view)
            }
        };
        let from = usize::try_from(offset).ok().filter(|from| *from <= view.len())?;
        let bytes = view.slice(from..view.len().min(from + PAGE_BYTES));
        Some(Page { index, total: view.len() as u64, bytes })
    }

    /// The count was told once more: views that nobody has asked for since long are dropped.
    fn grow_old(&self) {
        self.given.lock().retain_mut(|it| {
            it.idle += 1;
            it.idle <= IDLE_MAX
        });
    }

    /// This voter knows what this node has missed.
    pub(super) fn missed(&self, voter: NodeId) {
        *self.ahead.lock() = Some(voter);
        self.missed.notify_one();
    }

    /// This voter knows the log up to `index`, of which this node will know, too, within `patience`,
    /// or is to ask.
    fn is_further(&self, voter: NodeId, index: u64, patience: Duration) {
        let mut further = self.further.lock();
        match &mut *further {
            // Whoever waits goes on, however often somebody is further.
            Some(it) if index > it.known => (it.voter, it.known) = (voter, index),
            Some(_) => {}
            none => {
                *none = Some(Further { voter, awaited: index, known: index, patience });
                self.missed.notify_one();
            }
        }
    }

    /// Whom to ask for everything, once this node, which knows what `standing` says, has missed some.
    async fn voter_ahead(&self, standing: &Standing) -> NodeId {
        loop {
            let missed = self.missed.notified();
            if let Some(voter) = self.ahead.lock().take() {
                return voter;
            }
            let patience = self.further.lock().as_ref().map(|it| it.patience);
            let Some(patience) = patience else {
                missed.await;
                continue;
            };
            if timeout(patience, missed).await.is_ok() {
                continue;
            }
            let mut further = self.further.lock();
            let Some(it) = further.take() else { continue };
            let index = standing.index();
            if index < it.awaited {
                return it.voter;
            }
            // What somebody knew later has had less time to come.
            *further = (index < it.known).then_some(Further { awaited: it.known, ..it });
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
                _ = count.tick() => self.news().grow_old(),
            }
            let Some(untold) = self.standing().take_untold() else { continue };
            let Some(carry) = self.place().carry.as_ref().filter(|_| self.keeps_book()) else {
                continue;
            };
            let Some(founded) = self.standing().founded() else { continue };
            let count_only = untold.facts.is_count_only();
            let news = Telling::News {
                registry: founded.registry,
                from: untold.from,
                to: untold.to,
                facts: untold.facts.for_observers(),
            };
            let news = message::to_bytes(&news);
            let heard = self.heard().all();
            let follows_log = |node: &NodeId| heard.get(node).is_some_and(Hello::follows_log);
            for node in carry.linked() {
                if !(count_only && follows_log(&node)) {
                    carry.tell(node, news.clone());
                }
            }
        }
    }

    /// A peer has said what its part is. Whether it is behind, listens, and is to hear this node's word.
    pub(super) fn greeted(&self, from: NodeId, hello: Hello) -> bool {
        let (own, index) = (self.lineage().0, self.standing().index());
        if hello.voter && hello.registry != own {
            self.news().missed(from);
        } else if hello.voter && hello.applied > index {
            // Who is told the same otherwise would ask at every election else, and so would all others.
            if self.follows_log() {
                self.news().is_further(from, hello.applied, LOG_PATIENCE);
            } else if !self.keeps_book() && self.heard().is_told_news() {
                self.news().is_further(from, hello.applied, NEWS_PATIENCE);
            } else {
                self.news().missed(from);
            }
        }
        let is_behind = hello.registry == own && hello.applied < index;
        let listens = self.keeps_book() && !hello.follows_log();
        self.heard().said(from, hello);
        is_behind && listens
    }

    /// Takes a voter's news; a node that has its own log for that sees to it that it brings them.
    pub(super) fn learn(&self, from: NodeId, news: Telling) {
        let Telling::News { registry, from: first, to, facts } = news else { return };
        if self.follows_log() {
            if self.lineage().0 == Some(registry) && to > self.standing().index() {
                self.news().is_further(from, to, LOG_PATIENCE);
            }
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
            let voter = self.news().voter_ahead(self.standing()).await;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::{
        super::{
            AtRest, RegistryId,
            facts::{Follow, Founded},
            hello::Part,
            testing::TestClock,
        },
        *,
    };
    use crate::test_disk::TestDisk;

    const VOTER: NodeId = NodeId(7);

    fn standing() -> Standing {
        let founded = Some(Founded { registry: RegistryId(1), lineage: Vec::new() });
        Standing::new(10, Facts { founded, ..Facts::default() })
    }

    fn hello(registry: Option<RegistryId>, leader: Option<NodeId>, applied: u64) -> Hello {
        let lineage = Vec::new();
        Hello {
            registry,
            lineage,
            part: Part::Observer,
            stored: true,
            voter: true,
            leader,
            applied,
        }
    }

    /// Whom a node that knows nothing asks at once when a voter says this, having heard these others.
    fn asked_after(word: Hello, others: &[Hello]) -> Option<NodeId> {
        let dir = tempfile::tempdir().unwrap();
        let settings = TestClock::new().settings(AtRest::generate(), None);
        let registry =
            SharedRegistry::open_source(TestDisk::default(), dir.path(), false, settings).unwrap();
        for (number, other) in (100..).zip(others) {
            registry.heard().said(NodeId(number), other.clone());
        }
        assert!(!registry.greeted(VOTER, word));
        *registry.news().ahead.lock()
    }

    #[test]
    fn who_is_told_news_does_not_ask_for_a_view_at_each_word() {
        let ahead = hello(None, Some(VOTER), 5);
        assert_eq!(asked_after(ahead.clone(), &[]), Some(VOTER));
        let cut_off = hello(None, None, 5);
        assert_eq!(asked_after(ahead.clone(), &[cut_off]), Some(VOTER), "which hears none itself");
        assert_eq!(asked_after(ahead.clone(), std::slice::from_ref(&ahead)), None);
        let restored = hello(Some(RegistryId(1)), Some(VOTER), 5);
        assert_eq!(asked_after(restored, &[ahead]), Some(VOTER));
        assert_eq!(asked_after(hello(None, Some(VOTER), 0), &[]), None, "it knows no more");
    }

    #[test]
    fn who_is_half_way_through_a_view_is_not_pushed_out_by_those_who_begin() {
        let (news, standing) = (News::default(), standing());
        for index in 10..50 {
            assert_eq!(news.page(&standing, None, 0).unwrap().index, index);
            standing.applied(index, index + 1, Facts::default());
        }
        let page = news.page(&standing, Some(10), 1).unwrap();
        assert_eq!((page.index, page.bytes.len() as u64), (10, page.total - 1));
    }

    #[test]
    fn a_view_that_nobody_asks_for_is_dropped() {
        let (news, standing) = (News::default(), standing());
        news.page(&standing, None, 0).unwrap();
        for _ in 0..3 * IDLE_MAX {
            news.grow_old();
            assert!(news.page(&standing, Some(10), 0).is_some(), "somebody does");
        }
        for _ in 0..=IDLE_MAX {
            news.grow_old();
        }
        assert!(news.page(&standing, Some(10), 0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_news_bring_is_not_asked_for() {
        let (news, standing) = (News::default(), standing());
        let mut waits = Box::pin(news.voter_ahead(&standing));
        news.is_further(VOTER, 11, NEWS_PATIENCE);
        assert!(waits.as_mut().now_or_never().is_none());
        standing.applied(10, 11, Facts::default());
        advance(NEWS_PATIENCE * 2).await;
        assert!(waits.as_mut().now_or_never().is_none());
        news.is_further(VOTER, 12, NEWS_PATIENCE);
        assert!(waits.as_mut().now_or_never().is_none());
        advance(NEWS_PATIENCE / 2).await;
        news.is_further(VOTER, 13, NEWS_PATIENCE);
        assert!(waits.as_mut().now_or_never().is_none());
        advance(NEWS_PATIENCE).await;
        assert_eq!(waits.await, VOTER, "however often somebody was further meanwhile");
        news.is_further(VOTER, 12, NEWS_PATIENCE);
        let mut waits = Box::pin(news.voter_ahead(&standing));
        assert!(waits.as_mut().now_or_never().is_none());
        advance(NEWS_PATIENCE / 2).await;
        news.is_further(NodeId(8), 13, NEWS_PATIENCE);
        standing.applied(11, 12, Facts::default());
        advance(NEWS_PATIENCE).await;
        assert!(waits.as_mut().now_or_never().is_none(), "what was waited for has come");
        advance(NEWS_PATIENCE).await;
        assert_eq!(waits.await, NodeId(8), "who knew more");
        news.is_further(VOTER, 13, NEWS_PATIENCE);
        news.missed(VOTER);
        assert_eq!(news.voter_ahead(&standing).now_or_never(), Some(VOTER));
    }
}
