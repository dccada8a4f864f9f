//! Leaving: a node that stops takes nobody in, tells its agents when to come back, and goes when they
//! have gone or its time is over.
//!
//! Where agents can go on another node at once, they are told so in waves: a thousand that connect
//! in the same moment would be a burden there. A node that is alone tells all at once, since each
//! moment counts until its successor is there.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::relay::{Phase, Relay};

/// What is left of the drain deadline for each of the last steps, once the sessions' time is over:
/// goodbyes to the other nodes, requests under way, what is to be saved.
pub(crate) const LAST_STEPS: Duration = Duration::from_millis(250);

/// The others are told of the end again and again for so long, while some did not hear it and the drain
/// deadline allows it: some round trips of a slow network. A node whose others are all gone waits for so long
/// to hear from one that it was just dialling.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// From one wave to the next.
const WAVE_EVERY: Duration = Duration::from_millis(100);

/// The least sessions that are sent away together.
const WAVE_MIN: usize = 100;

/// Waves take this part of the drain deadline at most.
const WAVES_PART: u32 = 3;

/// Takes no new sessions, tells the old ones when to come back, and returns when all have ended and
/// the other nodes know, or the drain deadline is near.
pub(crate) async fn drain(relay: &Relay) {
    relay.enter_phase(Phase::Draining);
    if let Some(peers) = relay.peers() {
        peers.leave();
    }
    let time = relay.config.timing.drain_deadline.saturating_sub(LAST_STEPS * 3);
    if timeout(time, send_all_away(relay)).await.is_err() {
        let sessions = sessions_left(relay);
        tracing::warn!(sessions, "the drain deadline is over: dropping the rest");
    }
    if let Some(peers) = relay.peers() {
        let _ = timeout(LAST_STEPS, peers.goodbye()).await;
    }
}

async fn send_all_away(relay: &Relay) {
    let sessions = relay.sessions.all();
    tracing::info!(sessions = sessions.len(), "draining");
    let elsewhere = relay.has_others();
    let time = relay.config.timing.drain_deadline / WAVES_PART;
    let size = if elsewhere { wave_size(sessions.len(), time) } else { sessions.len() };
    for (n, wave) in sessions.chunks(size.max(1)).enumerate() {
        if n > 0 {
            sleep(WAVE_EVERY).await;
        }
        for session in wave {
            relay.send_away(session, elsewhere);
        }
    }
    drop(sessions);
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while sessions_left(relay) > 0 {
        tick.tick().await;
    }
}

/// How many sessions are sent away together, so that all are within `time`.
fn wave_size(sessions: usize, time: Duration) -> usize {
    let waves = usize::try_from(time.as_millis() / WAVE_EVERY.as_millis()).unwrap_or(usize::MAX);
    sessions.div_ceil(waves.max(1)).max(WAVE_MIN)
}

/// Sessions that have not ended, those included that have been told to.
pub(crate) fn sessions_left(relay: &Relay) -> usize {
    relay.config.limits.max_connections - relay.permits.available_permits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_fit_into_their_time() {
        for (sessions, seconds, size) in
            [(0, 10, 100), (99, 10, 100), (10_000, 10, 100), (1_000_000, 10, 10_000), (500, 0, 500)]
        {
            let time = Duration::from_secs(seconds);
            assert_eq!(wave_size(sessions, time), size, "{sessions} in {seconds} s");
            let pauses = sessions.div_ceil(size).saturating_sub(1);
            assert!(WAVE_EVERY * u32::try_from(pauses).unwrap() <= time);
        }
    }
}
