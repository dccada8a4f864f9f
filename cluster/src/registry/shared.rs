//! The registry as every node has it, whether it keeps the book or asks those who do.
//!
//! Owns a node's store, its part in the consensus while that runs, and what it knows of the book in
//! memory. What it does by itself is in `serving`, what is asked of it in `facade`; here is what others
//! say to it, and what both need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    AtRest, Carry, OpenError, RegistryId, Waiting,
    consensus::{Consensus, LogLimits, Situation},
    disk, duties, elections,
    heard::Heard,
    hello::{Hello, Part},
    message::{self, Question, Telling},
    network,
    news::News,
    proposer::{self, Proposal},
    releases::Releases,
    request::{Answer, Request},
    saved::Saved,
    standing::Standing,
    store::{Opened, Store, StoreError},
};
use crate::{
    Incarnation, NodeId, UnixMillis, database::Source, link::Allegiance, token::TokenSigner,
};

/// A request to take a name that is older than this is refused: it may have been given up long ago. So
/// is one from a clock that goes so wrong.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(30);

/// Other nodes' requests that are worked on at a time. A quarter of the room for peers' questions is left
/// for the consensus: a leader that many ask must not look dead to the voters.
pub(super) const REQUESTS_MAX: usize = 3_072;

/// The longest that another node's request is worked on.
const REQUEST_PATIENCE_MAX: Duration = Duration::from_secs(2);

/// The wall clock.
pub(super) type Wall = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// How the registry is kept.
pub struct Settings {
    /// How long a token is good; none means for ever.
    pub token_ttl: Option<Duration>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// What seals that which is stored.
    pub at_rest: AtRest,
}

/// A node's place among the others.
pub struct Place {
    /// The way to the others; none for a node that has none.
    pub carry: Option<Arc<dyn Carry>>,
    /// The seeds, as the node's own list has them.
    pub seeds: Vec<String>,
    /// Which of them is this node; none: it observes.
    pub slot: Option<String>,
}

impl Place {
    /// Of a node that is alone: it founds a registry at once, and is its only voter.
    pub fn alone() -> Self {
        Self { carry: None, seeds: Vec::new(), slot: None }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.carry.is_none()
    }
}

/// The registry as one node has it.
pub struct SharedRegistry {
    identity: Incarnation,
    token_ttl: Option<Duration>,
    now: Wall,
    data_dir: PathBuf,
    /// Whether the store is a file in the data directory; a test's may be none.
    has_file: bool,
    log_limits: LogLimits,
    store: Store,
    /// Whether the store has been seen to hold something; it will not be empty again.
    stored: AtomicBool,
    standing: Arc<Standing>,
    consensus: ArcSwapOption<Consensus>,
    pub(super) situation: watch::Sender<Arc<Situation>>,
    pub(super) leads: watch::Sender<bool>,
    place: OnceLock<Place>,
    heard: Heard,
    living: Mutex<BTreeSet<NodeId>>,
    /// Room for what other nodes ask to be done.
    pub(super) requests: Semaphore,
    proposals: mpsc::Sender<Proposal>,
    pub(super) queue: tokio::sync::Mutex<mpsc::Receiver<Proposal>>,
    releases: Releases,
    news: News,
    signer: ArcSwapOption<TokenSigner>,
    waiting: Mutex<Option<Waiting>>,
    /// Why the disk is of no use now.
    failure: Mutex<Option<String>>,
}

impl SharedRegistry {
    /// Opens what is stored in `data_dir`, or makes an empty store there. Blocks on the disk, and
    /// reads the whole file to check it.
    ///
    /// # Errors
    /// The directory cannot be used, or holds what is no registry of this release and these secrets.
    pub fn open(data_dir: &Path, settings: Settings) -> Result<Arc<Self>, OpenError> {
        let had_one = disk::TRACES.iter().any(|file| data_dir.join(file).exists());
        Self::open_source(disk::file(data_dir), data_dir, had_one, settings)
    }

    pub(super) fn open_source(
        source: impl Source,
        data_dir: &Path,
        had_one: bool,
        settings: Settings,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_limited(source, data_dir, had_one, settings, LogLimits::default())
    }

    pub(super) fn open_limited(
        source: impl Source,
        data_dir: &Path,
        had_one: bool,
        settings: Settings,
        log_limits: LogLimits,
    ) -> Result<Arc<Self>, OpenError> {
        let Settings { token_ttl, now, at_rest } = settings;
        let Opened { identity, store, facts, index } =
            Store::open(source, &at_rest, had_one, now())?;
        let standing = Standing::new(index, facts);
        // What one keeps alone, nobody knows better; of a book that cannot be read, openraft will say so.
        let saved = if store.is_kept_alone_by(identity.node).unwrap_or(false) {
            Saved::remove(data_dir).map(|()| None)
        } else {
            Saved::read(data_dir, &store.sealing())
        };
        let saved = saved.map_err(|source| OpenError::Io { dir: data_dir.to_owned(), source })?;
        if let Some(Saved { index, facts }) = saved {
            standing.learn_all(index, facts);
        }
        let (proposals, queue) = mpsc::channel(proposer::QUEUE_MAX);
        let has_file = !disk::is_missing(data_dir);
        Ok(Arc::new(Self {
            identity,
            token_ttl,
            now,
            data_dir: data_dir.to_owned(),
            has_file,
            log_limits,
            store,
            stored: AtomicBool::new(false),
            standing: Arc::new(standing),
            consensus: ArcSwapOption::empty(),
            situation: watch::Sender::default(),
            leads: watch::Sender::new(false),
            place: OnceLock::new(),
            heard: Heard::new(),
            living: Mutex::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            proposals,
            queue: tokio::sync::Mutex::new(queue),
            releases: Releases::new(),
            news: News::default(),
            signer: ArcSwapOption::empty(),
            waiting: Mutex::default(),
            failure: Mutex::default(),
        }))
    }

    /// This node's name for ever, and which of its lives this is.
    pub fn identity(&self) -> Incarnation {
        self.identity
    }

    /// Which registry this node knows, and those that it was restored from, oldest first.
    pub fn lineage(&self) -> (Option<RegistryId>, Vec<RegistryId>) {
        self.standing
            .founded()
            .map_or_else(Default::default, |founded| (Some(founded.registry), founded.lineage))
    }

    /// The same, as it is said in the handshake of a link; none before there is a registry.
    pub fn allegiance(&self) -> Option<Allegiance> {
        let (registry, lineage) = self.lineage();
        Some(Allegiance::new(registry?, lineage).stored(self.is_stored()))
    }

    /// All that the registry does on this node, until it is dropped. It never ends by itself; a disk
    /// that fails is tried again and again.
    ///
    /// Its place is known when this returns; nothing is done before the future is polled. Once only.
    pub fn serve(self: Arc<Self>, place: Place) -> impl Future<Output = ()> + Send {
        let _ = self.place.set(place);
        async move { self.run().await }
    }

    /// Closes the store, when [`serve`](Self::serve)'s future has been dropped.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Returns when tokens can be verified: the book has been heard of, now or in an earlier life.
    pub async fn informed(&self) {
        let mut versions = self.standing.versions();
        while !self.standing.is_informed() {
            // The sender is this value's own.
            let _ = versions.changed().await;
        }
    }

    /// These nodes live, linked or not.
    pub fn living(&self, nodes: impl IntoIterator<Item = NodeId>) {
        *self.living.lock() = nodes.into_iter().collect();
    }

    /// What a peer that was linked is to be told first.
    pub fn first_word(&self) -> Vec<u8> {
        message::to_bytes(&Telling::Hello(self.hello()))
    }

    /// A peer is not linked any more.
    pub fn unlinked(&self, peer: NodeId) {
        self.heard.lost(peer);
        if let Some(consensus) = self.consensus() {
            consensus.receiving.broken_off(peer);
        }
    }

    /// A peer told something; what it is to be told in return, if anything. What is not understood is
    /// ignored.
    pub fn told(&self, from: NodeId, body: &[u8]) -> Option<Vec<u8>> {
        match message::from_bytes(body)? {
            Telling::Hello(hello) => {
                let is_behind = self.greeted(from, hello);
                is_behind.then(|| message::to_bytes(&Telling::Hello(self.hello())))
            }
            news @ Telling::News { .. } => {
                self.learn(from, news);
                None
            }
        }
    }

    /// A peer asked something. No bytes are the answer to what is not understood, or cannot be
    /// answered here now.
    pub async fn asked(&self, from: NodeId, body: Vec<u8>) -> Vec<u8> {
        let Some(question) = message::from_bytes(&body) else { return Vec::new() };
        match (question, self.consensus()) {
            (Question::Append(request), Some(raft)) => network::append(&raft, request).await,
            (Question::Vote(request), Some(raft)) => network::vote(&raft, request).await,
            (Question::Snapshot(piece), Some(raft)) => network::take(&raft, from, piece).await,
            (Question::Request { request, made, patience_ms }, _) => {
                let patience = Duration::from_millis(patience_ms.into()).min(REQUEST_PATIENCE_MAX);
                message::to_bytes(&self.requested(request, made, patience).await)
            }
            (Question::View { index, offset }, _) if self.keeps_book() => {
                message::answer(self.news.page(&self.standing, index, offset).as_ref())
            }
            (Question::WouldElect(last), Some(raft)) => {
                message::to_bytes(&elections::would_elect(self, &raft, last))
            }
            (Question::Applied, _) => message::to_bytes(&self.standing.index()),
            _ => Vec::new(),
        }
    }

    async fn requested(&self, request: Request, made: UnixMillis, patience: Duration) -> Answer {
        let Ok(_place) = self.requests.try_acquire() else {
            let why = "too many requests wait: try again".into();
            return Answer::Unavailable { why, unknown: false };
        };
        let age = self.now().0.abs_diff(made.0);
        if matches!(request, Request::Register { .. })
            && u128::from(age) > REQUEST_AGE_MAX.as_millis()
        {
            let why = format!(
                "the request is more than {} s old, or the clocks of its node and of the leader \
                 differ by as much: set them right",
                REQUEST_AGE_MAX.as_secs()
            );
            return Answer::Unavailable { why, unknown: false };
        }
        self.carry_out(request, patience).await
    }

    /// The linked nodes that know another registry, neither of the two restored from the other: their
    /// links are to be cut.
    pub fn strangers(&self) -> BTreeSet<NodeId> {
        duties::strangers(self)
    }
}

/// What its other parts need.
impl SharedRegistry {
    /// Whether there is anything of a registry in the store: a log, a vote or a book.
    pub(super) fn is_stored(&self) -> bool {
        // Asked only while the file is empty, and so small that all of it is in the cache since it was
        // opened. Of a disk that fails nobody knows.
        let holds = || !self.store.is_empty().unwrap_or(false);
        let stored = self.stored.load(Ordering::Relaxed) || holds();
        self.stored.store(stored, Ordering::Relaxed);
        stored
    }

    /// Who is to keep the book instead of the leader's seeds, by an operator's command.
    pub(super) fn wanted_voters(&self) -> Option<Vec<String>> {
        Some(self.standing.wanted_voters()).filter(|wanted| !wanted.is_empty())
    }

    /// The wall clock.
    pub(super) fn now(&self) -> UnixMillis {
        (self.now)()
    }

    pub(super) fn clock(&self) -> &Wall {
        &self.now
    }

    pub(super) fn token_ttl(&self) -> Option<Duration> {
        self.token_ttl
    }

    pub(super) fn log_limits(&self) -> LogLimits {
        self.log_limits
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn place(&self) -> &Place {
        static ALONE: Place = Place { carry: None, seeds: Vec::new(), slot: None };
        self.place.get().unwrap_or(&ALONE)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// What the others have said of themselves.
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    pub(super) fn news(&self) -> &News {
        &self.news
    }

    pub(super) fn releases(&self) -> &Releases {
        &self.releases
    }

    pub(super) fn proposals(&self) -> &mpsc::Sender<Proposal> {
        &self.proposals
    }

    /// This node's part in the consensus, while it runs.
    pub(super) fn consensus(&self) -> Option<Arc<Consensus>> {
        self.consensus.load_full()
    }

    pub(super) fn set_consensus(&self, consensus: Option<Arc<Consensus>>) {
        self.consensus.store(consensus);
    }

    /// How the consensus stands, as far as this node takes part.
    pub(super) fn situation(&self) -> Arc<Situation> {
        Arc::clone(&self.situation.borrow())
    }

    /// Whether this node keeps the book: it is a voter, and its disk works.
    pub(super) fn keeps_book(&self) -> bool {
        self.situation().votes(self.identity.node)
    }

    /// Whether this node keeps the book, or will once its consensus has read what is stored.
    pub(super) fn is_to_keep_book(&self) -> bool {
        let begins = || {
            let unread = self.situation().members.is_empty() && self.failure().is_none();
            unread && self.is_stored()
        };
        self.place().is_alone() || self.keeps_book() || begins()
    }

    /// Whether this node hears of what is decided from its own log: it keeps the book, and a leader is in
    /// reach that does not say itself that it decides nothing.
    pub(super) fn follows_log(&self) -> bool {
        let leader = self.followed_leader();
        let in_reach = |leader| leader == self.identity.node || self.is_linked(leader);
        self.keeps_book() && leader.is_some_and(in_reach)
    }

    /// Whether this node leads, and most voters follow it. openraft lets a leader that has lost them
    /// lead on.
    pub(super) fn decides(&self) -> bool {
        let situation = self.situation();
        situation.leads && situation.available
    }

    /// The node that leads this one, unless that says itself that it decides nothing.
    pub(super) fn followed_leader(&self) -> Option<NodeId> {
        let leader = self.situation().followed_leader();
        leader.filter(|leader| self.heard.says_to_lead(*leader) != Some(false))
    }

    /// The node that leads and can be asked: this one, or one that is linked.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let me = self.identity.node;
        let followed = self.followed_leader();
        if followed == Some(me) {
            return followed;
        }
        let in_reach = |node: &NodeId| *node != me && self.is_linked(*node);
        followed.filter(in_reach).or_else(|| self.heard.leader().filter(in_reach))
    }

    /// The same, if it answers: it may have crashed.
    pub(super) fn heard_leader(&self) -> Option<NodeId> {
        let answering = self.answering_nodes();
        let answers = |leader: &NodeId| *leader == self.identity.node || answering.contains(leader);
        self.leader().filter(answers)
    }

    /// What those of the other nodes have said last that answer.
    pub(super) fn hellos(&self) -> BTreeMap<NodeId, Hello> {
        let answering = self.answering_nodes();
        let mut hellos = self.heard.all();
        hellos.retain(|node, _| answering.contains(node));
        hellos
    }

    fn answering_nodes(&self) -> Vec<NodeId> {
        self.place().carry.as_ref().map(|carry| carry.heard()).unwrap_or_default()
    }

    fn is_linked(&self, node: NodeId) -> bool {
        self.linked_nodes().contains(&node)
    }

    pub(super) fn linked_nodes(&self) -> Vec<NodeId> {
        self.place().carry.as_ref().map(|carry| carry.linked()).unwrap_or_default()
    }

    /// The other nodes that live or are linked.
    pub(super) fn other_nodes(&self) -> BTreeSet<NodeId> {
        let mut nodes = self.living.lock().clone();
        nodes.extend(self.linked_nodes());
        nodes.remove(&self.identity.node);
        nodes
    }

    /// What this node says of itself now; told to all linked nodes whenever it changes.
    pub(super) fn hello(&self) -> Hello {
        let (registry, lineage) = self.lineage();
        let place = self.place();
        Hello {
            registry,
            lineage,
            part: Part::of(&place.seeds, place.slot.as_deref()),
            stored: self.is_stored(),
            voter: self.keeps_book(),
            leader: self.followed_leader(),
            applied: self.standing.index(),
        }
    }

    /// What signs tokens; none before the founding.
    pub(super) async fn signer(&self) -> Result<Option<Arc<TokenSigner>>, StoreError> {
        let newest = self.standing.signing_key();
        let known = self.signer.load_full();
        if known.as_ref().map(|signer| signer.id()) == newest && known.is_some() {
            return Ok(known);
        }
        let signer = self.store.aside(Store::signer).await?.map(Arc::new);
        self.signer.store(signer.clone());
        Ok(signer)
    }

    /// What operators are to read of what this node waits for.
    pub(super) fn set_waiting(&self, waiting: Option<Waiting>) {
        *self.waiting.lock() = waiting;
    }

    /// The seeds that refuse this node, each with a sentence that says why.
    pub(super) fn refusals(&self) -> BTreeMap<String, String> {
        self.place().carry.as_ref().map(|carry| carry.refusals()).unwrap_or_default()
    }

    /// The seed that a node is, as far as it is known; empty if it is none.
    pub(super) fn seed_of(&self, node: NodeId) -> String {
        let member = self.situation().members.get(&node).map(|it| it.address.seed.clone());
        let said = || self.heard.all().get(&node)?.part.seed().map(str::to_owned);
        member.or_else(said).unwrap_or_default()
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.waiting.lock().clone()
    }

    /// Why the disk is of no use now, and what it was before.
    pub(super) fn set_failure(&self, failure: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock(), failure)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone().or_else(|| self.removed())
    }

    /// That somebody has removed the file, and what to do: the system keeps what is in it for this process
    /// alone, and not beyond its end.
    pub(super) fn removed(&self) -> Option<String> {
        let is_removed = self.has_file && disk::is_missing(&self.data_dir);
        let remedy = if self.place().is_alone() {
            "move it back; or, before this relay is stopped, take all names by `arc-relay backup FILE`, \
             for which you need the admin token, and restore them"
        } else {
            "start this node again: it joins as a new one"
        };
        is_removed
            .then(|| format!("the registry's file was removed from the data directory: {remedy}"))
    }

    /// Whether nobody but this node could decide, and it cannot.
    pub(super) fn is_hopeless(&self) -> bool {
        self.place().is_alone() && self.failure.lock().is_some()
    }

    /// One sentence for whoever is refused.
    pub(super) fn why_unavailable(&self) -> String {
        let own = self.failure().or_else(|| self.waiting().map(|waiting| waiting.reason));
        own.unwrap_or_else(|| {
            "no node leads it, for a majority of the nodes that keep it is out of reach".into()
        })
    }
}

impl Drop for SharedRegistry {
    fn drop(&mut self) {
        let names = self.releases.names();
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|(agent, _)| agent.as_str()).collect();
            tracing::warn!(
                names = names.join(","),
                "these names may be taken though nobody was given their tokens, and could not be \
                 given back before this node stopped: reissue them to whoever should have them"
            );
        }
    }
}

impl fmt::Debug for SharedRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegistry").field("node", &self.identity).finish_non_exhaustive()
    }
}
