//! What the registry does on a node by itself: takes part in the consensus, hears and tells news, saves
//! what it knows, and gives back names that nobody was told of.
//!
//! A disk that fails ends the consensus here, and nothing else: the node goes on as one that keeps no
//! book, and tries the disk again and again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Carry,
    aside::aside,
    command::Batch,
    consensus::Consensus,
    duties, elections,
    facts::Follow,
    message::{self, Telling},
    proposer, quiet,
    request::{Answer, Request},
    saved::Saved,
    shared::SharedRegistry,
};
use crate::NodeId;

/// How often a disk that failed is tried again.
const REOPEN_EVERY: Duration = Duration::from_secs(5);

/// How often is looked whether a key is to retire, and whether what is known is to be saved.
const ROUND: Duration = Duration::from_secs(1);

/// What this node says of itself is told at most so often.
const HELLO_EVERY: Duration = Duration::from_millis(20);

/// Names that could not be given back are tried again after so long, so many at a time.
const RELEASE_EVERY: Duration = Duration::from_millis(500);
const RELEASES_AT_A_TIME: usize = 64;

impl SharedRegistry {
    /// All of it, without end.
    pub(super) async fn run(&self) {
        tokio::join!(
            self.take_part(),
            self.tell_hello(),
            self.tell_news(),
            self.catch_up(),
            self.give_back(),
            self.save_view(),
        );
    }

    /// Takes part in the consensus, whenever the disk allows.
    async fn take_part(&self) {
        loop {
            let why = self.live().await;
            let mut why = self.store().failure().borrow().clone().unwrap_or(why);
            loop {
                self.say_failure(&why);
                sleep(REOPEN_EVERY).await;
                match self.store().reopen().await {
                    Ok((index, facts)) => break self.standing().replaced(index, facts),
                    Err(error) => why = error.to_string(),
                }
            }
        }
    }

    /// Takes part until it ends; returns why.
    async fn live(&self) -> String {
        let me = self.identity().node;
        let mut failure = self.store().failure();
        let machine = self.store().machine(Arc::clone(self.standing()) as Arc<dyn Follow>);
        let carry = self.place().carry.clone().unwrap_or_else(|| Arc::new(Nobody));
        let log = self.store().log();
        let started = Consensus::start(me, log, machine, carry, self.log_limits()).await;
        let consensus = match started {
            Ok(consensus) => Arc::new(consensus),
            Err(error) => return error.to_string(),
        };
        let part = Part::begin(self, &consensus);
        if self.set_failure(None).is_some() {
            tracing::info!("this node takes part in the registry again");
        }
        let why = {
            let mut queue = self.queue.lock().await;
            tokio::select! {
                why = self.follow(&consensus) => why,
                why = failed(&mut failure) => why,
                () = proposer::run(&consensus, &mut queue, self.clock()) => String::new(),
                () = duties::attend(self, &consensus) => String::new(),
                () = elections::attend(self, &consensus) => String::new(),
                () = quiet::attend(self, &consensus) => String::new(),
                () = self.retire_keys(&consensus) => String::new(),
            }
        };
        drop(part);
        consensus.shutdown().await;
        why
    }

    fn say_failure(&self, why: &str) {
        let said = self.store().failure().borrow().is_some(); // by the store
        if self.set_failure(Some(why.to_owned())).is_none() && !said {
            tracing::error!(error = why, "this node cannot take part in the registry");
        }
    }

    /// Keeps what is known of the consensus up to date until it ends; returns why.
    async fn follow(&self, consensus: &Consensus) -> String {
        let (mut metrics, mut hears) = (consensus.metrics(), consensus.hearing.watch());
        loop {
            let situation = consensus.situation_in(&metrics.borrow_and_update());
            if let Some(why) = situation.ended {
                return why;
            }
            let leads = situation.leads && situation.available;
            self.leads.send_if_modified(|led| std::mem::replace(led, leads) != leads);
            self.situation.send_replace(Arc::new(situation));
            tokio::select! {
                changed = metrics.changed() => {
                    if changed.is_err() {
                        return "its consensus has ended".into();
                    }
                }
                Ok(()) = hears.changed() => {}
            }
        }
    }

    /// As the leader, lets the log's time pass when a key is to retire and nobody writes anything.
    async fn retire_keys(&self, consensus: &Consensus) {
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            let time = self.now();
            if self.decides() && self.standing().retirement_is_due(time) {
                let batch = Batch { time, commands: Vec::new() };
                // What comes of it is seen in the next round.
                let _ = consensus.propose(batch).await;
            }
        }
    }

    /// Tells all linked nodes when what this one says of itself has changed.
    async fn tell_hello(&self) {
        let (mut situation, mut versions) =
            (self.situation.subscribe(), self.standing().versions());
        let mut heard = self.heard().watch();
        let mut told = None;
        loop {
            let mut hello = self.hello();
            let applied = std::mem::take(&mut hello.applied);
            if told.as_ref() != Some(&hello) {
                told = Some(hello.clone());
                hello.applied = applied;
                let bytes = message::to_bytes(&Telling::Hello(hello));
                for node in self.linked_nodes() {
                    if let Some(carry) = &self.place().carry {
                        carry.tell(node, bytes.clone());
                    }
                }
            }
            sleep(HELLO_EVERY).await;
            tokio::select! {
                _ = situation.changed() => {}
                _ = versions.changed() => {}
                _ = heard.changed() => {}
            }
        }
    }

    /// Gives back the names that may have been taken for nobody.
    async fn give_back(&self) {
        loop {
            let names = self.releases().pending().await;
            let count = names.len();
            let given = stream::iter(names).map(|(agent, claim)| async move {
                let answer = self.ask_leader(Request::Release { agent, claim }).await;
                if answer == Answer::Done {
                    self.releases().given_back(&claim);
                    return 1;
                }
                0
            });
            let given: usize = given
                .buffer_unordered(RELEASES_AT_A_TIME)
                .fold(0, async |sum, one| sum + one)
                .await;
            if given < count {
                sleep(RELEASE_EVERY).await;
            }
        }
    }

    /// Saves what is known, on a node that keeps no book.
    async fn save_view(&self) {
        let mut versions = self.standing().versions();
        versions.mark_changed();
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            round.tick().await;
            let is_due = versions.has_changed().unwrap_or(false);
            if !is_due || self.is_to_keep_book() || !self.standing().is_informed() {
                continue;
            }
            versions.mark_unchanged();
            let (index, facts) = self.standing().view();
            let (dir, sealing) = (self.data_dir().to_owned(), self.store().sealing());
            let saved = aside(move || Saved { index, facts }.write(&dir, &sealing)).await;
            let error = match saved {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = error {
                versions.mark_changed();
                if !failing {
                    tracing::error!(
                        error,
                        "cannot save what this node knows of the registry: after a restart out of \
                         reach of all voters it would serve nobody"
                    );
                }
                failing = true;
            } else {
                failing = false;
            }
        }
    }
}

/// A node's part in the consensus; it has none any more when this is dropped, however that comes.
struct Part<'r>(&'r SharedRegistry);

impl<'r> Part<'r> {
    fn begin(registry: &'r SharedRegistry, consensus: &Arc<Consensus>) -> Self {
        registry.set_consensus(Some(Arc::clone(consensus)));
        Self(registry)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.0.set_consensus(None);
        self.0.leads.send_replace(false);
        self.0.situation.send_replace(Arc::default());
    }
}

/// Returns when the disk has failed, with the reason.
async fn failed(failure: &mut watch::Receiver<Option<String>>) -> String {
    match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => "its writer has ended".into(),
    }
}

/// The others of a node that is alone.
struct Nobody;

#[async_trait]
impl Carry for Nobody {
    async fn ask(&self, _: NodeId, _: Vec<u8>, _: Duration) -> Option<Vec<u8>> {
        None
    }

    fn tell(&self, _: NodeId, _: Vec<u8>) {}

    fn linked(&self) -> Vec<NodeId> {
        Vec::new()
    }
}
