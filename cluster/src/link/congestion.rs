//! How much of a QUIC link may be on its way: what CUBIC says, but never next to nothing.
//!
//! Decides nothing about losses itself. Two habits of quinn make a floor necessary:
//!
//! - Its window grows only while it is filled. A mesh link is quiet most of the time, so each lost or
//!   overtaken packet makes the window smaller for good, down to two packets.
//! - While there is data to send and the window is full, it sends no acknowledgements either. After a
//!   stall both ends have filled a small window and have more to send; then each waits for the other's
//!   acknowledgement, until the timer of a lost packet fires. That doubles with each time it has fired
//!   in vain, so the link stands still for as long again as the stall was.

use std::{any::Any, sync::Arc, time::Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// The floor: what may be on its way in any case, spread over a round trip by pacing. 5 Mbit/s over
/// 100 ms, and some seconds of a quiet link's traffic while nothing is acknowledged.
const WINDOW_MIN_BYTES: u64 = 64 << 10;

/// Makes the controllers of links.
#[derive(Debug, Default)]
pub(super) struct Congestion(Arc<CubicConfig>);

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Floored(Arc::clone(&self.0).build(now, current_mtu)))
    }
}

/// A controller with a floor under its window.
struct Floored(Box<dyn Controller>);

impl Controller for Floored {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window().max(WINDOW_MIN_BYTES)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window().max(WINDOW_MIN_BYTES)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MTU: u16 = 1_452;

    #[test]
    #[allow(clippy::disallowed_methods)] // quinn's controllers take the system's time
    fn losses_leave_room() {
        let start = Instant::now();
        let mut controller = Arc::new(Congestion::default()).build(start, MTU);
        assert_eq!(controller.window(), WINDOW_MIN_BYTES);
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            controller.on_congestion_event(now, now, true, MTU.into());
        }
        assert_eq!(controller.clone_box().window(), WINDOW_MIN_BYTES);
        assert_eq!(controller.metrics().congestion_window, WINDOW_MIN_BYTES);
    }
}
