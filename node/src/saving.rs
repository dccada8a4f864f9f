//! Saving the subscriptions, so that they outlive the process (PROTOCOL section 3).
//!
//! Fills the book at start, and writes what changed in it once a second, on threads that may wait
//! for a disk. No command waits for it: what changed in the second before a crash may be lost. Owns
//! neither the book, which is the relay's, nor the file's format.

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use cluster::{
    AgentId, Incarnation,
    subscription_store::{self, Following, List, OpenError, SubscriptionStore},
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{relay::Relay, subscriptions::Subscriptions};

/// How often changes are saved.
const ROUND: Duration = Duration::from_secs(1);

/// A disk that fails is spoken of at most this often.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Opens the store, and fills the book of the relay, which lives as `me` now, with what it holds.
/// Blocks on the disk.
///
/// A file that is damaged is set aside, and the relay starts without subscriptions: it says so as
/// an error and in a metric. Names and tokens are worth more than a list that agents can make again.
pub fn restore(relay: &Relay, me: Incarnation) -> Result<SubscriptionStore, OpenError> {
    let data_dir = &relay.config.data_dir;
    let (store, saved) = match open(data_dir) {
        Err(error @ OpenError::Unreadable { .. }) => {
            relay.metrics.subscriptions_lost.set(1.0);
            set_aside(data_dir, error)?;
            open(data_dir)?
        }
        opened => opened?,
    };
    *relay.subscriptions.write() = Subscriptions::restored(me, saved, relay.clock.wall());
    Ok(store)
}

/// Saves what changes until `stop`, and once more then.
pub async fn save_changes(relay: Arc<Relay>, store: SubscriptionStore, stop: CancellationToken) {
    let mut saving = Saving { relay, store: Arc::new(store), failing: None };
    let mut tick = interval(ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        saving.round().await;
    }
    saving.round().await;
    let unsaved = saving.relay.subscriptions.read().unsaved();
    if unsaved > 0 {
        tracing::error!(agents = unsaved, "the last changes of subscriptions are lost");
    }
}

fn open(data_dir: &Path) -> Result<(SubscriptionStore, Vec<Following>), OpenError> {
    let store = SubscriptionStore::open(data_dir)?;
    let saved = store.load()?;
    Ok((store, saved))
}

fn set_aside(data_dir: &Path, error: OpenError) -> Result<(), OpenError> {
    let Ok(place) = subscription_store::set_aside(data_dir) else { return Err(error) };
    tracing::error!(
        %error, set_aside_as = %place.display(),
        "the subscriptions of all agents are lost: they have to subscribe again"
    );
    Ok(())
}

/// What the saving task holds.
struct Saving {
    relay: Arc<Relay>,
    store: Arc<SubscriptionStore>,
    /// When it was last said that the disk fails; none while it does not.
    failing: Option<Duration>,
}

impl Saving {
    /// Saves what has changed since it was saved.
    async fn round(&mut self) {
        let changed = self.relay.subscriptions.write().take_changed();
        if changed.is_empty() {
            return;
        }
        let (relay, store) = (Arc::clone(&self.relay), Arc::clone(&self.store));
        let saved = spawn_blocking(move || {
            store.save(changed.into_iter().map(|follower| present(&relay, follower)))
        });
        match saved.await {
            Ok(Ok(())) => self.succeeded(),
            Ok(Err(error)) => self.failed(&error),
            Err(panic) => {
                self.relay.metrics.panics.increment(1);
                self.failed(&panic);
            }
        }
    }

    fn succeeded(&mut self) {
        self.relay.subscriptions.write().saved();
        if self.failing.take().is_some() {
            tracing::info!("subscriptions are saved again");
        }
    }

    fn failed(&mut self, error: &dyn Error) {
        self.relay.metrics.subscription_save_failures.increment(1);
        let now = self.relay.clock.elapsed();
        if self.failing.is_none_or(|said| now.saturating_sub(said) >= WARN_EVERY) {
            self.failing = Some(now);
            tracing::warn!(%error, "subscriptions cannot be saved: a restart would lose changes");
        }
    }
}

/// The agent's list at this moment, which may be later than the change that is being saved.
fn present(relay: &Relay, follower: AgentId) -> (AgentId, Option<List>) {
    let list = relay.subscriptions.read().list(&follower);
    (follower, list)
}
