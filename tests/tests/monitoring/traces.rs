//! Traces by OTLP (docs/monitoring.md): what a collector gets of messages within a node and between nodes.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::json;
use tests::{Cluster, Relay, eventually};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

/// A span, and the node that told of it.
#[derive(Clone, Debug)]
struct Span {
    node: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    message: String,
    reason: Option<String>,
    times: (u64, u64),
}

/// Takes traces as a collector does, and answers with a status.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Collector {
    async fn start(status: u16) -> Self {
        Self::slow(status, Duration::ZERO).await
    }

    /// One that keeps what it is sent when it answers, which takes so long.
    async fn slow(status: u16, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let (spans, headers) =
            (Arc::<Mutex<Vec<Span>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let mut serving = JoinSet::new();
        let (kept, seen) = (Arc::clone(&spans), Arc::clone(&headers));
        serving.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("it accepts");
                let take = service_fn(|request: Request<Incoming>| {
                    let (kept, seen) = (Arc::clone(&kept), Arc::clone(&seen));
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        let key = request
                            .headers()
                            .get("x-key")
                            .map(|key| key.to_str().map(str::to_owned));
                        seen.lock().extend(key.and_then(Result::ok));
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        sleep(takes).await;
                        kept.lock().extend(spans_in(&body));
                        let answer =
                            Response::builder().status(status).body(Full::new(bytes::Bytes::new()));
                        Ok::<_, Infallible>(answer.expect("an answer"))
                    }
                });
                // Who goes away in the middle will come again.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), take).await;
            }
        });
        Self { address, spans, headers, _serving: serving }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of a message.
    fn of(&self, message: &str) -> Vec<Span> {
        self.spans.lock().iter().filter(|span| span.message == message).cloned().collect()
    }

    /// Waits until there are so many spans of this name, and gives them.
    async fn wait_for(&self, message: &str, name: &str, count: usize) -> Vec<Span> {
        let found = || -> Vec<_> {
            self.of(message).into_iter().filter(|span| span.name == name).collect()
        };
        eventually(&format!("{count} spans {name}"), || async { found().len() >= count }).await;
        found()
    }
}

fn spans_in(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    let mut found = Vec::new();
    for told in request.resource_spans {
        let resource = told.resource.expect("it says whose");
        let node = text(&resource.attributes, "host.name").expect("it names the node");
        assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("arc-relay"));
        for span in told.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            assert!(
                span.attributes.iter().all(|of| !format!("{of:?}").contains("bob")),
                "{span:?}"
            );
            found.push(Span {
                node: node.clone(),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                message: text(&span.attributes, "messaging.message.id").expect("a message"),
                reason: text(&span.attributes, "arc.drop.reason"),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
            });
        }
    }
    found
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is no text: {other:?}"),
    }
}

async fn traced_cluster(collector: &Collector, nodes: usize) -> Cluster {
    let endpoint = collector.endpoint();
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret-7"),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ];
    Cluster::with(nodes, &settings).await
}

#[tokio::test]
async fn one_message_between_nodes_is_one_trace() {
    let collector = Collector::start(200).await;
    let cluster = traced_cluster(&collector, 3).await;
    let mut ann = cluster.nodes[0].agent("ann-1").await;
    let mut bob = cluster.nodes[1].agent("bob-1").await;
    ann.send(json!({"to": ["bob-1"], "payload": 1})).await;
    let got = bob.next().await;
    let message = got["id"].as_str().expect("it has an id");

    let delivered = collector.wait_for(message, "arc.deliver", 1).await.remove(0);
    let sent = collector.wait_for(message, "arc.send", 1).await.remove(0);
    let accepted = collector.wait_for(message, "arc.accept", 1).await.remove(0);
    let routed = collector.wait_for(message, "arc.route", 1).await.remove(0);
    assert_eq!((accepted.node.as_str(), delivered.node.as_str()), ("node-0", "node-1"));
    assert_eq!((sent.node.as_str(), routed.node.as_str()), ("node-0", "node-0"));
    for span in [&delivered, &sent, &routed] {
        assert_eq!(span.trace, accepted.trace);
        assert!(span.reason.is_none(), "{span:?}");
    }
    assert!(accepted.parent.is_empty());
    assert_eq!(routed.parent, accepted.id);
    assert_eq!(sent.parent, routed.id);
    assert_eq!(delivered.parent, sent.id);
    assert!(accepted.times.0 <= accepted.times.1 && accepted.times.0 <= delivered.times.1);
    assert_eq!(collector.of(message).len(), 4, "{:?}", collector.of(message));
    assert!(collector.headers.lock().iter().all(|key| key == "secret-7"));
    assert!(!collector.headers.lock().is_empty());
}

#[tokio::test]
async fn a_broadcast_is_one_trace_with_every_node_in_it_and_a_loss_says_why() {
    let collector = Collector::start(200).await;
    let cluster = traced_cluster(&collector, 3).await;
    let mut ann = cluster.nodes[0].agent("ann-1").await;
    let mut eve = cluster.nodes[2].agent("eve-1").await;
    ann.send(json!({"to": ["*"], "payload": 1})).await;
    let message = eve.next().await["id"].as_str().expect("it has an id").to_owned();
    let sent = collector.wait_for(&message, "arc.send", 2).await;
    let delivered = collector.wait_for(&message, "arc.deliver", 2).await;
    let far: Vec<_> = delivered.iter().filter(|span| span.node != "node-0").collect();
    assert_eq!(far.len(), 2, "{delivered:?}");
    for span in far {
        assert!(sent.iter().any(|sent| sent.id == span.parent), "{span:?} of {sent:?}");
    }
    let traces: std::collections::BTreeSet<_> =
        collector.of(&message).into_iter().map(|span| span.trace).collect();
    assert_eq!(traces.len(), 1);

    ann.send(json!({"to": ["nobody-1"], "payload": 1})).await;
    eventually("the loss is told", || async {
        let spans = collector.spans.lock();
        spans.iter().any(|s| s.name == "arc.drop" && s.reason.as_deref() == Some("offline"))
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_refuses_or_is_gone_costs_spans_and_one_line() {
    let refusing = Collector::start(503).await;
    let gone = Collector::start(200).await;
    let nowhere = gone.endpoint();
    drop(gone);
    for (endpoint, reason) in [(refusing.endpoint(), "refused"), (nowhere, "failed")] {
        let settings =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_TRACES_SAMPLER_ARG", "1")];
        let relay = Relay::with(&settings);
        let mut ann = relay.agent("ann-1").await;
        let mut bob = relay.agent("bob-1").await;
        let dropped = async || {
            relay.metrics().await.count("arc_trace_spans_dropped_total", &[("reason", reason)])
        };
        for round in 1..=2 {
            ann.send(json!({"to": ["bob-1"], "payload": round})).await;
            assert_eq!(bob.next().await["payload"], round, "messages go on");
            eventually("spans are counted", || async { dropped().await >= round * 3 }).await;
        }
        let said = relay.log.text().matches("traces cannot be handed on").count();
        assert_eq!(said, 1, "once a minute at the most");
    }
}

// The collector goes on while the test waits for the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_its_spans_on_or_counts_them() {
    const MESSAGES: usize = 300;
    for (takes, is_in_time) in [(Duration::from_millis(50), true), (Duration::from_mins(1), false)]
    {
        let collector = Collector::slow(200, takes).await;
        let endpoint = collector.endpoint();
        let settings =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_TRACES_SAMPLER_ARG", "1")];
        let mut relay = Relay::with(&settings);
        let mut ann = relay.agent("ann-1").await;
        for round in 0..MESSAGES {
            ann.send(json!({"to": ["ann-1"], "payload": round})).await;
        }
        for round in 0..MESSAGES {
            assert_eq!(ann.next().await["payload"], round);
        }
        drop(ann);
        relay.terminate();
        assert!(relay.wait_exit().success());
        let sent = collector.spans.lock().len();
        let left = relay.log.last("traces were not handed on before the end");
        let counted = left.map_or(0, |line| line["spans"].as_u64().expect("it says how many"));
        let made = 3 * MESSAGES; // accepted, routed, delivered
        assert_eq!(sent + usize::try_from(counted).expect("it fits"), made);
        assert_eq!(sent == made, is_in_time, "{sent} were handed on, {counted} were not");
    }
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let collector = Collector::start(200).await;
    let relay = Relay::with(&[("OTEL_TRACES_SAMPLER_ARG", "1")]);
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    ann.send(json!({"to": ["bob-1"], "payload": 1})).await;
    bob.next().await;
    assert_eq!(relay.metrics().await.count("arc_trace_spans_dropped_total", &[]), 0);
    assert!(collector.spans.lock().is_empty());
}
