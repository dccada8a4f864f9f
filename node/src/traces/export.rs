//! Handing spans to the collector: OTLP over HTTP, in batches.
//!
//! Owns the connection, and what is done when the collector is not there: a batch that cannot be handed
//! on is dropped and counted, with a line in the log once a minute at the most. The queue behind it is
//! bounded, so a collector that hangs costs spans and nothing else. No span is lost without being counted,
//! not even when the node ends.

use std::{mem, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{MutexGuard, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Collector, Finished, collector::headers, encode};
use crate::{
    agent::connect::Connector,
    metrics::TraceMetrics,
    relay::{Relay, VERSION},
};

/// Spans that are handed on together.
const BATCH_MAX: usize = 512;

/// How long the first of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often its failure is spoken of.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{0}")]
    Failed(String),
    #[error("the collector answers {0}")]
    Refused(StatusCode),
}

/// Hands spans on until the node ends, and then once more what waits, for which whoever waits for this sets the
/// time: what is not handed on when this is dropped is counted as failed.
pub(crate) async fn export(relay: Arc<Relay>, end: CancellationToken) {
    let (Some(tracing), Some(collector)) = (&relay.traces.0, &relay.config.traces.collector) else {
        return end.cancelled().await;
    };
    let waiting = tracing.waiting.lock().await;
    let mut exporter = Exporter::new(&relay, collector, waiting, &end);
    while end.run_until_cancelled(exporter.gather()).await.is_some() {
        exporter.hand_on().await;
        relay.traces.set_clock(relay.clock.elapsed(), relay.clock.wall());
    }
    exporter.gather_rest();
    exporter.hand_on().await;
}

/// Spans on their way from the queue to the collector. Each is counted once, whenever this ends.
struct Exporter<'r> {
    relay: &'r Relay,
    collector: &'r Collector,
    waiting: MutexGuard<'r, mpsc::Receiver<Finished>>,
    end: &'r CancellationToken,
    batch: Vec<Finished>,
    /// Spans of the batch that the collector has not answered for yet.
    under_way: usize,
    /// When its failure was last spoken of.
    said: Option<Duration>,
}

impl<'r> Exporter<'r> {
    fn new(
        relay: &'r Relay,
        collector: &'r Collector,
        waiting: MutexGuard<'r, mpsc::Receiver<Finished>>,
        end: &'r CancellationToken,
    ) -> Self {
        relay.traces.set_clock(relay.clock.elapsed(), relay.clock.wall());
        Self { relay, collector, waiting, end, batch: Vec::new(), under_way: 0, said: None }
    }

    /// Waits for a span, and then a moment for more. What came stays in the batch if this is not waited for.
    async fn gather(&mut self) {
        let Self { waiting, batch, .. } = self;
        if timeout(BATCH_WAIT, waiting.recv_many(batch, BATCH_MAX)).await.is_err() {
            return;
        }
        let fill = async {
            while batch.len() < BATCH_MAX {
                let room = BATCH_MAX - batch.len();
                if waiting.recv_many(batch, room).await == 0 {
                    return;
                }
            }
        };
        // What has come by then is enough.
        let _ = timeout(BATCH_WAIT, fill).await;
    }

    /// Takes all that waits.
    fn gather_rest(&mut self) {
        self.batch.extend(std::iter::from_fn(|| self.waiting.try_recv().ok()));
    }

    /// Hands the batch on, or drops it.
    async fn hand_on(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.under_way = self.batch.len();
        let body = encode::request(&who(self.relay), mem::take(&mut self.batch));
        let outcome = in_time(self.relay, self.collector, body).await;
        let spans = mem::take(&mut self.under_way);
        count_spans(&self.relay.metrics.traces, spans, &outcome);
        let now = self.relay.clock.elapsed();
        if let Err(error) = outcome
            && self.said.is_none_or(|at| now.saturating_sub(at) >= SAY_EVERY)
        {
            self.said = Some(now);
            tracing::warn!(%error, collector = %self.collector, spans, "traces cannot be handed on");
        }
    }
}

impl Drop for Exporter<'_> {
    fn drop(&mut self) {
        // Whoever died before the end leaves what waits to whom is begun next.
        if self.end.is_cancelled() {
            self.waiting.close();
            self.gather_rest();
        }
        let spans = self.under_way + self.batch.len();
        if spans > 0 {
            self.relay.metrics.traces.dropped.failed.increment(spans as u64);
            let collector = self.collector;
            tracing::warn!(%collector, spans, "traces were not handed on before the end");
        }
    }
}

/// Hands a batch on, but does not wait for ever.
async fn in_time(relay: &Relay, collector: &Collector, body: Vec<u8>) -> Result<(), ExportError> {
    let outcome = timeout(PATIENCE, hand_on(relay, collector, body)).await;
    outcome.unwrap_or_else(|_| Err(ExportError::Failed("it does not answer".into())))
}

fn count_spans(metrics: &TraceMetrics, spans: usize, outcome: &Result<(), ExportError>) {
    let counter = match outcome {
        Ok(()) => &metrics.exported,
        Err(ExportError::Failed(_)) => &metrics.dropped.failed,
        Err(ExportError::Refused(_)) => &metrics.dropped.refused,
    };
    counter.increment(spans as u64);
}

/// Who says so, by the names that OpenTelemetry has for it.
fn who(relay: &Relay) -> [(&'static str, String); 5] {
    let config = &relay.config;
    [
        ("service.name", config.traces.service.clone()),
        ("service.version", VERSION.into()),
        ("service.instance.id", relay.node.to_string()),
        ("host.name", config.node_name.clone()),
        ("arc.region", config.region.clone()),
    ]
}

async fn hand_on(relay: &Relay, collector: &Collector, body: Vec<u8>) -> Result<(), ExportError> {
    let failed = |error: &dyn std::fmt::Display| ExportError::Failed(error.to_string());
    let endpoint = collector.endpoint();
    let connector = Connector::new(&endpoint, None).map_err(|error| failed(&error))?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(collector.path())
        .header(header::HOST, endpoint.to_string())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::CONNECTION, "close");
    let wanted = relay.config.traces.headers.as_deref().and_then(headers);
    for (name, value) in wanted.into_iter().flatten() {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| failed(&error))?;
    let stream = connector.dial().await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Nobody reads the body, which would hold the connection open as long as it is there.
    let answer = async move { sender.send_request(request).await.map(|answer| answer.status()) };
    let (status, _) = tokio::join!(answer, connection);
    let status = status.map_err(|error| failed(&error))?;
    if status.is_success() { Ok(()) } else { Err(ExportError::Refused(status)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::mesh::Lost;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::yield_now,
    };

    use super::*;
    use crate::{config::Config, relay::testing::configured};

    /// A relay that traces everything, and where its collector is to listen.
    async fn traced() -> (Arc<Relay>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::default();
        config.traces.collector =
            Some(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        config.traces.parts_per_million = 1_000_000;
        (configured(config).0, listener)
    }

    fn make(relay: &Relay, spans: usize) {
        let frame = [b"\x81\x30{\"id\":\"".as_slice(), &[b'a'; 32], b"\"}"].concat();
        for _ in 0..spans {
            let of = relay.traces.traced(&frame).unwrap();
            relay.traces.lost(of, Lost::Offline, relay.clock.elapsed());
        }
    }

    /// Spans that nobody has taken from the queue yet.
    fn waiting(relay: &Relay) -> usize {
        let spans = &relay.traces.0.as_ref().unwrap().spans;
        spans.max_capacity() - spans.capacity()
    }

    /// How many spans were taken by the collector, and how many were not, by reason.
    fn counted(relay: &Relay) -> [u64; 4] {
        let text = relay.metrics.render();
        let dropped = |reason| format!("arc_trace_spans_dropped_total{{reason=\"{reason}\"}} ");
        let exported = "arc_trace_spans_exported_total ".to_owned();
        [exported, dropped("failed"), dropped("refused"), dropped("full")].map(|series| {
            let value = text.lines().find_map(|line| line.strip_prefix(series.as_str()));
            value.unwrap().parse().unwrap()
        })
    }

    /// The collector's next request, as far as its head.
    async fn asked(listener: &TcpListener) -> TcpStream {
        let accepted = timeout(PATIENCE * 3, listener.accept()).await;
        let (mut stream, _) = accepted.expect("a request comes").unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
        }
        stream
    }

    /// Answers with `head` and a chunk, and leaves the rest of the body owing until the other side goes.
    async fn owe_the_body(mut stream: TcpStream, head: &str) {
        let answer = format!("HTTP/1.1 {head}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        while !matches!(stream.read_buf(&mut rest).await, Ok(0) | Err(_)) {}
    }

    #[tokio::test]
    async fn the_collectors_status_is_enough_whatever_its_body_does() {
        let (relay, listener) = traced().await;
        let collector = relay.config.traces.collector.as_ref().unwrap();
        for (head, is_taken) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let exported = in_time(&relay, collector, Vec::new());
            let answering = async { owe_the_body(asked(&listener).await, head).await };
            let (outcome, ()) = tokio::join!(exported, answering);
            match outcome {
                Ok(()) => assert!(is_taken),
                Err(ExportError::Refused(status)) => assert!(!is_taken && status == 503),
                Err(failed) => panic!("{failed}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_gathered_and_what_waits_is_handed_on_at_the_end() {
        let (relay, listener) = traced().await;
        let end = CancellationToken::new();
        make(&relay, 3);
        let ending = async {
            while waiting(&relay) > 0 {
                yield_now().await;
            }
            make(&relay, 2);
            end.cancel();
        };
        let answering = async { owe_the_body(asked(&listener).await, "200 OK").await };
        tokio::join!(export(Arc::clone(&relay), end.clone()), ending, answering);
        assert_eq!(counted(&relay), [5, 0, 0, 0]);
    }

    #[tokio::test]
    async fn a_batch_that_is_under_way_at_the_end_does_not_cost_those_behind_it() {
        let (relay, listener) = traced().await;
        let end = CancellationToken::new();
        make(&relay, BATCH_MAX + 5);
        let answering = async {
            let first = asked(&listener).await;
            end.cancel();
            owe_the_body(first, "200 OK").await;
            owe_the_body(asked(&listener).await, "503 Service Unavailable").await;
        };
        tokio::join!(export(Arc::clone(&relay), end.clone()), answering);
        assert_eq!(counted(&relay), [BATCH_MAX as u64, 0, 5, 0]);
    }

    #[tokio::test]
    async fn what_is_not_handed_on_in_time_is_counted() {
        let (relay, listener) = traced().await;
        let end = CancellationToken::new();
        make(&relay, BATCH_MAX + 5);
        let slow = async {
            let unanswered = asked(&listener).await;
            make(&relay, 2);
            end.cancel();
            unanswered
        };
        tokio::select! {
            () = export(Arc::clone(&relay), end.clone()) => panic!("nobody answers"),
            _unanswered = slow => {}
        }
        assert_eq!(counted(&relay), [0, BATCH_MAX as u64 + 7, 0, 0]);
        make(&relay, 1);
        assert_eq!(counted(&relay)[1], BATCH_MAX as u64 + 8, "nobody is there to take it");
    }
}
