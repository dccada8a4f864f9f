//! Spans as OTLP has them: `ExportTraceServiceRequest`, in protobuf. Pure.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message as _;

use super::Finished;

/// The spans of this node, as the body of a request to a collector. `node` is who says so: names and values.
pub(super) fn request(node: &[(&'static str, String)], spans: Vec<Finished>) -> Vec<u8> {
    let attributes = node.iter().map(|(key, value)| text(key, value)).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let spans = spans.into_iter().map(span).collect();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    };
    request.encode_to_vec()
}

fn span(of: Finished) -> Span {
    let status =
        of.error.map(|why| Status { message: why.to_owned(), code: StatusCode::Error as i32 });
    let mut attributes = vec![text("messaging.message.id", &of.message)];
    attributes.extend(of.counts.iter().map(|(key, count)| number(key, *count)));
    attributes.extend(of.peer.map(|peer| text("arc.peer", &peer)));
    attributes.extend(of.error.map(|why| text("arc.drop.reason", why)));
    Span {
        trace_id: of.trace.to_vec(),
        span_id: of.span.to_vec(),
        parent_span_id: of.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
        name: of.name.into(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: of.start_ns,
        end_time_unix_nano: of.end_ns.max(of.start_ns),
        attributes,
        status,
        ..Span::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
