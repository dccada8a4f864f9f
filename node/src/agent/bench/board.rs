//! What all agents of one measurement share: who sends, how far each is, what was counted.
//!
//! Counters only; takes no decision but whose turn it is.

use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{schedule::Pacing, statistics::Times};
use crate::clock::Clock;

/// The state of one measurement.
pub(super) struct Board {
    /// The clock that all times are read from.
    pub(super) clock: Clock,
    /// What marks this run's messages.
    pub(super) run: u32,
    /// Bytes of each payload.
    pub(super) size: usize,
    /// One for each sender.
    pub(super) flows: Box<[Flow]>,
    /// Connections that may still be begun at once.
    pub(super) doors: Semaphore,
    /// Agents that have their welcome.
    pub(super) connected: AtomicUsize,
    /// From the first packet to the welcome.
    pub(super) handshakes: Times,
    /// From when a message was due to when it was received.
    pub(super) latencies: Times,
    /// From when a message was due to when it was written.
    pub(super) lags: Times,
    /// Messages received, each by each recipient once.
    pub(super) delivered: AtomicU64,
    /// The same, received while it counted.
    pub(super) delivered_measured: AtomicU64,
    /// Set when all are connected.
    pub(super) round: OnceLock<Round>,
    /// Ends everything.
    pub(super) stop: CancellationToken,
}

/// When and how it is sent.
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// How senders are paced.
    pub(super) pacing: Pacing,
    /// When it counts, in nanoseconds of the clock; nothing is sent after it.
    pub(super) measured_ns: Range<u64>,
}

/// One sender and what becomes of its messages.
pub(super) struct Flow {
    /// The sender's name.
    pub(super) name: String,
    /// Recipients of each message.
    pub(super) recipients: u64,
    /// Messages sent; only the sender writes it, before the message can arrive anywhere.
    pub(super) sent: AtomicU64,
    /// Receipts, each recipient's of each message once.
    pub(super) delivered: AtomicU64,
    /// Wakes the sender when it may be its turn.
    pub(super) turn: Notify,
}

impl Board {
    /// Nanoseconds of the clock.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Messages sent, and receipts that they should lead to.
    pub(super) fn sent(&self) -> (u64, u64) {
        self.flows.iter().fold((0, 0), |(sent, expected), flow| {
            let messages = flow.sent.load(Ordering::Acquire);
            (sent + messages, expected + messages * flow.recipients)
        })
    }

    /// Wakes all senders.
    pub(super) fn wake_all(&self) {
        for flow in &self.flows {
            flow.turn.notify_one();
        }
    }
}

impl Flow {
    /// A sender with so many recipients, that has sent nothing yet.
    pub(super) fn new(name: String, recipients: usize) -> Self {
        Self {
            name,
            recipients: u64::try_from(recipients).unwrap_or(u64::MAX),
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            turn: Notify::new(),
        }
    }

    /// Messages that every recipient may be waiting for still, rounded up.
    fn under_way(&self) -> u64 {
        let expected = self.sent.load(Ordering::Acquire) * self.recipients;
        let missing = expected.saturating_sub(self.delivered.load(Ordering::Acquire));
        missing.div_ceil(self.recipients.max(1))
    }
}

impl Round {
    /// When the sender's next message is due, if that is now or was before; none if it has to wait.
    pub(super) fn next_due(&self, flow: &Flow, sender: usize, now_ns: u64) -> Option<u64> {
        if now_ns >= self.measured_ns.end {
            return None;
        }
        match self.pacing {
            Pacing::Window(window) => (flow.under_way() < window).then_some(now_ns),
            Pacing::Fixed(schedule) => {
                let due = schedule.due_ns(sender, flow.sent.load(Ordering::Acquire));
                (due <= now_ns).then_some(due)
            }
        }
    }
}

/// Nanoseconds of a duration, at most what fits.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::bench::schedule::Schedule;

    fn round(pacing: Pacing) -> Round {
        Round { pacing, measured_ns: 0..10_000_000_000 }
    }

    #[test]
    fn a_window_opens_when_all_recipients_have_a_message() {
        let flow = Flow::new("ann-1".into(), 3);
        let round = round(Pacing::Window(2));
        assert_eq!(round.next_due(&flow, 0, 7), Some(7));
        flow.sent.store(2, Ordering::Release);
        flow.delivered.store(2, Ordering::Release);
        assert_eq!(round.next_due(&flow, 0, 8), None);
        flow.delivered.store(3, Ordering::Release);
        assert_eq!(round.next_due(&flow, 0, 9), Some(9));
    }

    #[test]
    fn a_schedule_does_not_wait_for_recipients() {
        let flow = Flow::new("ann-1".into(), 1);
        let rate = "1000".parse().expect("a rate");
        let round = round(Pacing::Fixed(Schedule::new(0, 1, rate)));
        flow.sent.store(5, Ordering::Release);
        assert_eq!(round.next_due(&flow, 0, 4_999_999), None);
        assert_eq!(
            round.next_due(&flow, 0, 9_000_000),
            Some(5_000_000),
            "as it was due, not as now"
        );
    }

    #[test]
    fn nothing_is_sent_after_the_end() {
        let flow = Flow::new("ann-1".into(), 1);
        assert_eq!(round(Pacing::Window(9)).next_due(&flow, 0, 10_000_000_000), None);
    }
}
