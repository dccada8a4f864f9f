//! Traces of sampled messages: which steps a message took, on which nodes, and how long each lasted, for a
//! collector that speaks OTLP.
//!
//! Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set; then one of some messages is traced, chosen by
//! its id, on every node alike (`ids`). The message's path never waits: what finds no room in the
//! queue to the collector is dropped and counted. No span names an agent.

mod collector;
mod encode;
mod export;
pub(crate) mod ids;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use cluster::{
    NodeId, UnixMillis,
    mesh::{Lost, Pushed},
};
use tokio::sync::{Mutex, mpsc};

pub use collector::{Collector, InvalidCollector, TraceConfig, headers};
pub(crate) use export::export;

use self::ids::{Ratio, Step, Traced};
use crate::metrics::TraceMetrics;

/// Spans that wait to be handed to the collector: some 2 MB.
const WAITING_MAX: usize = 8_192;

/// What a node says of the messages that it traces.
#[derive(Debug)]
pub struct Traces(Option<Tracing>);

#[derive(Debug)]
struct Tracing {
    ratio: Ratio,
    node: NodeId,
    /// How the ids of messages end that this process gives.
    process: String,
    /// Unix time at the clock's zero, in nanoseconds; moves when the wall clock is set.
    zero_ns: AtomicU64,
    spans: mpsc::Sender<Finished>,
    /// Locked by whoever hands them on, and free for another when that has died.
    waiting: Mutex<mpsc::Receiver<Finished>>,
    metrics: TraceMetrics,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    pub(crate) parent: Option<[u8; 8]>,
    pub(crate) name: &'static str,
    pub(crate) message: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) counts: Vec<(&'static str, u64)>,
    pub(crate) peer: Option<String>,
    /// Why the step failed, if it did.
    pub(crate) error: Option<&'static str>,
}

/// How a step went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) counts: Vec<(&'static str, u64)>,
    pub(crate) peer: Option<NodeId>,
    pub(crate) error: Option<&'static str>,
}

impl Traces {
    /// As it is configured, for a node whose messages' ids end with `process`.
    pub(crate) fn new(
        config: &TraceConfig,
        node: NodeId,
        process: String,
        metrics: TraceMetrics,
    ) -> Self {
        let tracing = || {
            let (spans, waiting) = mpsc::channel(WAITING_MAX);
            Tracing {
                ratio: Ratio::of_million(config.parts_per_million),
                node,
                process,
                zero_ns: AtomicU64::new(0),
                spans,
                waiting: Mutex::new(waiting),
                metrics,
            }
        };
        Self(config.collector.is_some().then(tracing))
    }

    /// Whether any message is traced.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The message in a finished frame, if it is traced.
    pub(crate) fn traced<'m>(&self, frame: &'m [u8]) -> Option<Traced<'m>> {
        self.0.as_ref()?.ratio.traced(frame)
    }

    /// The sender's node has taken a message, and found out who is here and who is not.
    pub(crate) fn accepted(&self, of: Traced<'_>, times: [Duration; 3], counts: [u64; 2]) {
        let [start, routing, end] = times;
        let [here, elsewhere] = counts;
        self.record(of, Step::Accept, "arc.accept", [start, end], Outcome::default());
        let counts = vec![("arc.recipients.here", here), ("arc.recipients.elsewhere", elsewhere)];
        let outcome = Outcome { counts, ..Outcome::default() };
        self.record(of, Step::Route, "arc.route", [routing, end], outcome);
    }

    /// A message was given to the link to a node, or was not.
    pub(crate) fn sent(&self, of: Traced<'_>, to: NodeId, pushed: Pushed, now: Duration) {
        let error = match pushed {
            Pushed::Queued => None,
            Pushed::Full => Some("link_full"),
            Pushed::NoLink => Some("link_lost"),
        };
        let outcome = Outcome { peer: Some(to), error, ..Outcome::default() };
        self.record(of, Step::Send(to.0), "arc.send", [now, now], outcome);
    }

    /// A message was put into outboxes here: an agent's, or (empty) those of all.
    pub(crate) fn delivered(
        &self,
        of: Traced<'_>,
        agent: &str,
        times: [Duration; 2],
        outcome: Outcome,
    ) {
        let Some(tracing) = &self.0 else { return };
        let step = Step::Deliver(tracing.node.0, agent);
        self.record(of, step, "arc.deliver", times, outcome);
    }

    /// A message was lost here, for one recipient at least.
    pub(crate) fn lost(&self, of: Traced<'_>, why: Lost, now: Duration) {
        let Some(tracing) = &self.0 else { return };
        let why = why.label();
        let outcome = Outcome { error: Some(why), ..Outcome::default() };
        self.record(of, Step::Drop(tracing.node.0, why), "arc.drop", [now, now], outcome);
    }

    /// What the wall clock says at this moment of the other clock.
    pub(crate) fn set_clock(&self, now: Duration, wall: UnixMillis) {
        if let Some(tracing) = &self.0 {
            let zero = wall.0.saturating_mul(1_000_000).saturating_sub(nanos(now));
            tracing.zero_ns.store(zero, Relaxed);
        }
    }

    fn record(
        &self,
        of: Traced<'_>,
        step: Step<'_>,
        name: &'static str,
        [start, end]: [Duration; 2],
        outcome: Outcome,
    ) {
        let Some(tracing) = &self.0 else { return };
        let zero = tracing.zero_ns.load(Relaxed);
        let span = Finished {
            trace: of.trace.bytes(),
            span: of.trace.span(step),
            parent: tracing.parent(of, step),
            name,
            message: of.message.to_owned(),
            start_ns: zero.saturating_add(nanos(start)),
            end_ns: zero.saturating_add(nanos(end)),
            counts: outcome.counts,
            peer: outcome.peer.map(|peer| peer.to_string()),
            error: outcome.error,
        };
        if tracing.spans.try_send(span).is_err() {
            tracing.metrics.dropped.full.increment(1);
        }
    }
}

impl Tracing {
    /// What led to a step: on the sender's node its routing, on another that it was sent there.
    fn parent(&self, of: Traced<'_>, step: Step<'_>) -> Option<[u8; 8]> {
        match step {
            Step::Accept => None,
            Step::Route => Some(of.trace.span(Step::Accept)),
            _ if of.is_of(&self.process) => Some(of.trace.span(Step::Route)),
            _ => Some(of.trace.span(Step::Send(self.node.0))),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::{mesh::Deliver as _, wire::Body};

    use super::*;
    use crate::{config::Config, deliver::Sink, relay::testing::configured};

    /// Names of the spans that come of a frame that was passed on and one that was lost.
    fn told(collector: Option<&str>) -> Vec<&'static str> {
        let mut config = Config::default();
        config.traces.collector = collector.map(|text| text.parse().unwrap());
        config.traces.parts_per_million = 1_000_000;
        let (relay, _, _) = configured(config);
        let sink = Sink::new(&relay);
        let frame = [b"\x81\x30{\"id\":\"".as_slice(), &[b'a'; 32], b"\"}"].concat();
        let body = Body::Borrowed(&frame);
        sink.passed(NodeId(2), &body, Pushed::Queued);
        sink.missed(Lost::Offline, &body);
        let Some(tracing) = &relay.traces.0 else { return Vec::new() };
        let mut waiting = tracing.waiting.try_lock().unwrap();
        std::iter::from_fn(|| waiting.try_recv().ok()).map(|span| span.name).collect()
    }

    #[test]
    fn what_the_mesh_passes_on_is_traced_if_there_is_a_collector() {
        assert_eq!(told(Some("http://127.0.0.1:4318")), ["arc.send", "arc.drop"]);
        assert!(told(None).is_empty());
    }
}
