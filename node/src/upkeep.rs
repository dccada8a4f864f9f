//! What a node does once a second, and when something was revoked: it looks after its sessions and
//! its books.

use std::{sync::Arc, time::Duration};

use cluster::membership::Load;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    relay::Relay,
    session::{Due, End, Session},
    ws::CloseCode,
};

/// How often sessions are looked after.
const ROUND: Duration = Duration::from_secs(1);

/// A round that comes so much too late says that this process stood still, which its agents are not to pay
/// for: what they sent meanwhile is not read yet, and the pings that were due have not been sent.
const LATE_MIN: Duration = Duration::from_secs(2);

/// Every so many rounds what is not needed any more is forgotten.
const ROUNDS_TO_FORGET: u64 = 10;

/// Once a second: pings, silent sessions, stuck writes, expired tokens, and the books.
pub(crate) async fn look_after(relay: Arc<Relay>, stop: CancellationToken) {
    let mut rounds = 0_u64;
    let mut tick = interval(ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = relay.clock.elapsed();
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        relay.traffic.second();
        relay.addresses.sweep();
        let now = relay.clock.elapsed();
        let late = now.saturating_sub(std::mem::replace(&mut last, now) + ROUND);
        for session in relay.sessions.all().iter() {
            if late > LATE_MIN {
                session.forgive(late);
            }
            look_after_session(&relay, session);
        }
        if let Some(peers) = relay.peers() {
            peers.carry(load(&relay));
        }
        rounds += 1;
        if rounds.is_multiple_of(ROUNDS_TO_FORGET) {
            relay.forget();
            relay.metrics.upkeep();
        }
    }
}

/// Closes open sessions whose tokens were revoked.
pub(crate) async fn watch_revocations(
    relay: Arc<Relay>,
    mut revocations: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(revocations.changed()).await {
        for session in relay.sessions.all().iter() {
            if relay.registry.is_revoked(session.grant()) {
                session.close(CloseCode::TokenInvalid, "token revoked");
            }
        }
    }
}

/// How much the node carries.
pub(crate) fn load(relay: &Relay) -> Load {
    Load { sessions: relay.sessions.len() as u64, messages_per_minute: relay.traffic.last_minute() }
}

fn look_after_session(relay: &Relay, session: &Session) {
    let now = relay.clock.elapsed();
    let dropped = &relay.metrics.dropped;
    match session.due(now, &relay.config.timing) {
        Due::Nothing => {}
        Due::Ping => dropped.slow_consumer.increment(session.ping(now) as u64),
        Due::Silent => dropped.session_lost.increment(session.kill(End::Silent) as u64),
        Due::Stuck => {
            let lost = session
                .close(CloseCode::SlowConsumer, "slow consumer: a write waited for too long");
            dropped.slow_consumer.increment(lost.unwrap_or_default() as u64);
        }
    }
    if let Err(error) = session.recheck(relay.clock.wall()) {
        session.close(CloseCode::TokenInvalid, &error.to_string());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::{relay::testing::relay, session::testing};

    #[tokio::test(start_paused = true)]
    async fn agents_do_not_pay_for_the_time_that_this_process_stood_still() {
        let (relay, clock, _) = relay();
        let (bob, written) = testing::session("bob", 1);
        let _entry = relay.sessions.enter(Arc::clone(&bob));
        let stop = CancellationToken::new();
        let rounds = async |count: u32| {
            for _ in 0..count {
                clock.advance(ROUND);
                sleep(ROUND).await;
            }
        };
        let agent = async {
            rounds(25).await;
            clock.advance(Duration::from_secs(40));
            rounds(1).await;
            assert_eq!(bob.end(), None, "it was not even asked");
            bob.flush(clock.elapsed());
            assert!(!written.take().is_empty(), "it is now");
            rounds(33).await;
            assert_eq!(bob.end(), None, "that is a silence of 59 s");
            rounds(3).await;
            assert_eq!(bob.end(), Some(End::Silent));
            stop.cancel();
        };
        tokio::join!(look_after(Arc::clone(&relay), stop.clone()), agent);
    }
}
