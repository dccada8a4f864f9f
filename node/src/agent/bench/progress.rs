//! How a measurement goes, while it goes.

use std::{sync::atomic::Ordering, time::Duration};

use super::{args::Plan, board::Board};
use crate::agent::output::Output;

/// How often a terminal shows a new state, and how often a file gets a line.
const LIVE: Duration = Duration::from_millis(250);
const LINES: Duration = Duration::from_secs(5);

/// Tells the user.
pub(super) struct Progress<'a> {
    plan: &'a Plan,
    output: &'a mut Output,
    /// When it was last told, and how many deliveries there were.
    last: Option<(Duration, u64)>,
}

impl<'a> Progress<'a> {
    /// Nothing told yet.
    pub(super) fn new(plan: &'a Plan, output: &'a mut Output) -> Self {
        Self { plan, output, last: None }
    }

    /// Tells how it stands, if that was long enough ago.
    pub(super) async fn show(&mut self, board: &Board, now: Duration) {
        let every = if self.output.is_live() { LIVE } else { LINES };
        let delivered = board.delivered.load(Ordering::Acquire);
        let Some((then, before)) = self.last else {
            self.last = Some((now, delivered));
            return;
        };
        let since = now.saturating_sub(then);
        if since < every {
            return;
        }
        self.last = Some((now, delivered));
        let line = line(self.plan, board, delivered.saturating_sub(before), since);
        self.output.progress(&line).await;
    }
}

fn line(plan: &Plan, board: &Board, delivered: u64, since: Duration) -> String {
    let Plan { scenario, agents, .. } = plan;
    let Some(round) = board.round.get() else {
        let connected = board.connected.load(Ordering::Acquire);
        if connected == *agents {
            return format!("{scenario}: {agents} agents are connected and idle");
        }
        return format!("{scenario}: {connected} of {agents} agents connected");
    };
    let now = board.now_ns();
    let phase = if now < round.measured_ns.start {
        "warming up"
    } else if now < round.measured_ns.end {
        "measuring"
    } else {
        "waiting for the last messages"
    };
    let per_s = u128::from(delivered) * 1_000_000 / since.as_micros().max(1);
    let left = Duration::from_nanos(round.measured_ns.end.saturating_sub(now)).as_secs_f64();
    format!("{scenario}: {phase}, {per_s} deliveries/s, {left:.0} s left")
}
