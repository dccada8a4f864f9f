//! Handing spans to the collector: OTLP over HTTP, in batches.
//!
//! Owns the connection, and what is done when the collector is not there: a batch that cannot be handed
//! on is dropped and counted, with a line in the log once a minute at the most. The queue behind it is
//! bounded, so a collector that hangs costs spans and nothing else.

use std::{num::NonZero, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
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

/// How long it may take when the node ends.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

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

/// Hands spans on until the node ends, and then what waits.
pub(crate) async fn export(relay: Arc<Relay>, end: CancellationToken) {
    let (Some(tracing), Some(collector)) = (&relay.traces.0, &relay.config.traces.collector) else {
        return end.cancelled().await;
    };
    let mut waiting = tracing.waiting.lock().await;
    let mut said: Option<Duration> = None;
    while !end.is_cancelled() {
        relay.traces.set_clock(relay.clock.elapsed(), relay.clock.wall());
        let batch = end.run_until_cancelled(next(&mut waiting)).await;
        let batch = batch.unwrap_or_else(|| left(&mut waiting));
        let Some(count) = NonZero::new(batch.len() as u64) else { continue };
        let outcome = in_time(&relay, collector, batch, &end).await;
        count_spans(&relay.metrics.traces, count.get(), &outcome);
        let now = relay.clock.elapsed();
        if let Err(error) = outcome
            && said.is_none_or(|at| now.saturating_sub(at) >= SAY_EVERY)
        {
            said = Some(now);
            tracing::warn!(%error, %collector, spans = count, "traces cannot be handed on");
        }
    }
}

/// Hands a batch on, but does not wait for ever.
async fn in_time(
    relay: &Relay,
    collector: &Collector,
    batch: Vec<Finished>,
    end: &CancellationToken,
) -> Result<(), ExportError> {
    let body = encode::request(&who(relay), batch);
    let at_the_end = async {
        end.cancelled().await;
        sleep(LAST_PATIENCE).await;
    };
    tokio::select! {
        outcome = timeout(PATIENCE, hand_on(relay, collector, body)) => {
            outcome.unwrap_or_else(|_| Err(ExportError::Failed("it does not answer".into())))
        }
        () = at_the_end => Err(ExportError::Failed("it does not answer".into())),
    }
}

fn count_spans(metrics: &TraceMetrics, count: u64, outcome: &Result<(), ExportError>) {
    let counter = match outcome {
        Ok(()) => &metrics.exported,
        Err(ExportError::Failed(_)) => &metrics.dropped.failed,
        Err(ExportError::Refused(_)) => &metrics.dropped.refused,
    };
    counter.increment(count);
}

/// Waits for a span, and then a moment for more.
async fn next(waiting: &mut mpsc::Receiver<Finished>) -> Vec<Finished> {
    let mut batch = Vec::new();
    if timeout(BATCH_WAIT, waiting.recv_many(&mut batch, BATCH_MAX)).await.is_err() {
        return batch;
    }
    let fill = async {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            if waiting.recv_many(&mut batch, room).await == 0 {
                return;
            }
        }
    };
    // What has come by then is enough.
    let _ = timeout(BATCH_WAIT, fill).await;
    batch
}

/// What waits at the end.
fn left(waiting: &mut mpsc::Receiver<Finished>) -> Vec<Finished> {
    std::iter::from_fn(|| waiting.try_recv().ok()).collect()
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::relay::testing::relay;

    /// Answers with `head` and a chunk, and leaves the rest of the body owing until the other side goes.
    async fn owes_its_body(listener: TcpListener, head: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
        }
        let answer = format!("HTTP/1.1 {head}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        while !matches!(stream.read_buf(&mut request).await, Ok(0) | Err(_)) {}
    }

    #[tokio::test]
    async fn the_collectors_status_is_enough_whatever_its_body_does() {
        let (relay, _, _) = relay();
        for (head, is_taken) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let collector = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let end = CancellationToken::new();
            let exported = in_time(&relay, &collector, Vec::new(), &end);
            let (outcome, ()) = tokio::join!(exported, owes_its_body(listener, head));
            match outcome {
                Ok(()) => assert!(is_taken),
                Err(ExportError::Refused(status)) => assert!(!is_taken && status == 503),
                Err(failed) => panic!("{failed}"),
            }
        }
    }
}
