//! What is counted of traces.

use metrics::{Counter, counter, describe_counter};

/// Handles of what is counted of traces.
#[derive(Clone, Debug)]
pub struct TraceMetrics {
    /// Spans that the collector took.
    pub exported: Counter,
    /// Spans that it did not get.
    pub dropped: SpansDropped,
}

/// Spans that the collector did not get, by reason.
#[derive(Clone, Debug)]
pub struct SpansDropped {
    /// Too many waited for it.
    pub full: Counter,
    /// It could not be reached, or did not answer before it was given up or the node ended.
    pub failed: Counter,
    /// It did not want them.
    pub refused: Counter,
}

impl TraceMetrics {
    pub(super) fn registered() -> Self {
        describe_counter!("arc_trace_spans_exported_total", "spans that the collector took");
        describe_counter!("arc_trace_spans_dropped_total", "spans it did not get, by reason");
        let dropped =
            |reason: &'static str| counter!("arc_trace_spans_dropped_total", "reason" => reason);
        Self {
            exported: counter!("arc_trace_spans_exported_total"),
            dropped: SpansDropped {
                full: dropped("full"),
                failed: dropped("failed"),
                refused: dropped("refused"),
            },
        }
    }
}
