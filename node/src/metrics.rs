//! What the relay counts and measures, and how Prometheus reads it.
//!
//! All handles are made once, at start: counting is an addition or two on the hot path. Nothing here has
//! a label per agent, so the size of `/metrics` does not grow with the number of agents.

/// Makes a struct of counters that differ in one label, with a constructor.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident, $metric:literal, $label:literal, { $($(#[$field_doc:meta])* $field:ident => $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Counter,)+
            counted: Vec<(&'static str, $crate::metrics::tally::Shared)>,
        }

        impl $name {
            fn new() -> Self {
                let mut counted = Vec::new();
                $(
                    let ($field, tally) = $crate::metrics::tally::readable(counter!($metric, $label => $value));
                    counted.push(($value, tally));
                )+
                Self { $($field,)+ counted }
            }

            /// What was counted since the start, by label.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                self.counted.iter().map(|(label, tally)| (*label, tally.read()))
            }
        }
    };
}

mod machine;
mod mesh;
mod page;
mod registry;
mod scrape;
mod tally;
mod tls;
mod traces;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

pub use machine::{Machine, Seen};
pub use mesh::MeshMetrics;
pub use registry::RegistryMetrics;
pub use scrape::scrape;
pub use tls::TlsMetrics;
pub use traces::{SpansDropped, TraceMetrics};

/// Upper bounds of the histograms' buckets, in seconds.
const SECONDS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Handles of everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// Live sessions.
    pub sessions: Gauge,
    /// Registered agent ids.
    pub registered_agents: Gauge,
    /// Subscriptions of all agents.
    pub subscriptions: Gauge,
    /// Agents whose subscriptions are not on disk as they are.
    pub subscriptions_unsaved: Gauge,
    /// 1 if the subscriptions on disk could not be read at start.
    pub subscriptions_lost: Gauge,
    /// Attempts to save subscriptions that failed.
    pub subscription_save_failures: Counter,
    /// Bytes that wait in all outboxes.
    pub outbox_bytes: Gauge,
    /// Seconds since the start.
    pub uptime: Gauge,
    /// Messages accepted, by kind.
    pub received: Received,
    /// Messages put into outboxes, by kind.
    pub delivered: Delivered,
    /// Messages lost, by reason.
    pub dropped: Dropped,
    /// Requests for a session, by outcome.
    pub handshakes: Handshakes,
    /// Ends of sessions, by reason.
    pub closed: Closed,
    /// Registrations, by outcome.
    pub registrations: Registrations,
    /// What ran into a limit, by limit.
    pub limited: Limited,
    /// Connections that took too long, by limit.
    pub timed_out: TimedOut,
    /// Tasks that panicked: each is a bug.
    pub panics: Counter,
    /// From a request for a session to its answer.
    pub handshake_seconds: Histogram,
    /// From a request for a name to its answer.
    pub registration_seconds: Histogram,
    /// From reading messages off a socket to having written them, or left them to their readers'
    /// own tasks; of one read in 64.
    pub relay_seconds: Histogram,
    /// Agents' TLS.
    pub tls: TlsMetrics,
    /// Other nodes, and the links to them.
    pub mesh: MeshMetrics,
    /// How the registry is.
    pub registry: RegistryMetrics,
    /// Traces of messages.
    pub traces: TraceMetrics,
    panicked: tally::Shared,
    handle: PrometheusHandle,
}

/// A count as gauges take it.
#[allow(clippy::cast_precision_loss)] // exact up to 2^53, which nothing here reaches
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

labelled!(
    /// Messages accepted from agents.
    Received, "arc_messages_received_total", "kind", {
    /// To named agents.
    direct => "direct",
    /// To everybody.
    broadcast => "broadcast",
    /// To the relay.
    command => "command",
});

labelled!(
    /// Messages put into outboxes.
    Delivered, "arc_messages_delivered_total", "kind", {
    /// From an agent, to the agents it named.
    direct => "direct",
    /// From an agent, to everybody.
    broadcast => "broadcast",
    /// From an agent, to those who follow it and were not named.
    followed => "followed",
    /// From the relay itself.
    relay => "relay",
});

labelled!(
    /// Messages lost; one that fails for three recipients counts three times.
    Dropped, "arc_messages_dropped_total", "reason", {
    /// The recipient is not connected, or unknown.
    offline => "offline",
    /// Where the recipient is could not be found out in time.
    unresolved => "unresolved",
    /// Too many waited for the recipient's place to be found out.
    route_full => "route_full",
    /// The queue to the recipient's node was full.
    link_full => "link_full",
    /// The link to the recipient's node was lost, or was not there.
    link_lost => "link_lost",
    /// It came back from a former node of the recipient too late to keep its order.
    stale => "stale",
    /// Another node sent it in a way that it has no business to.
    stray => "stray",
    /// The recipient's session was closing, or its token allows it to receive nothing.
    refused => "refused",
    /// The recipient was cut off as a slow consumer, with what waited for it.
    slow_consumer => "slow_consumer",
    /// What waited for a session whose socket failed, or that went silent.
    session_lost => "session_lost",
    /// The sender was over its rate.
    rate_limit => "rate_limit",
    /// It was no valid message.
    invalid => "invalid",
    /// The sender's token does not allow it.
    not_permitted => "not_permitted",
});

labelled!(
    /// Requests for a session.
    Handshakes, "arc_handshakes_total", "outcome", {
    /// It got one.
    accepted => "accepted",
    /// It asked for none, or wrongly.
    malformed => "malformed",
    /// No token, a bad one, a revoked or expired one.
    unauthorized => "unauthorized",
    /// From an origin that is not allowed.
    origin => "origin_not_allowed",
    /// The relay, or the address, has too many.
    limited => "limited",
    /// The node has not found the others yet.
    joining => "joining",
    /// The relay is draining.
    draining => "draining",
    /// The connection broke before it was a session.
    broken => "broken",
});

labelled!(
    /// Ends of sessions.
    Closed, "arc_sessions_closed_total", "reason", {
    /// The agent said goodbye.
    client => "client",
    /// The connection broke, or ended without a goodbye.
    lost => "lost",
    /// Nothing was heard of it.
    silent => "silent",
    /// 4008.
    slow_consumer => "slow_consumer",
    /// 4009.
    replaced => "replaced",
    /// 4001.
    token => "token",
    /// 4029.
    rate_limit => "rate_limit",
    /// 1002, 1007, 1009.
    violation => "violation",
    /// 1001.
    draining => "draining",
});

labelled!(
    /// Registrations.
    Registrations, "arc_registrations_total", "outcome", {
    /// A name was registered.
    registered => "registered",
    /// It was taken or reserved.
    taken => "taken",
    /// The request was malformed, or closed to this client.
    refused => "refused",
    /// The registry could not decide.
    unavailable => "unavailable",
});

labelled!(
    /// What ran into a limit.
    Limited, "arc_rate_limited_total", "limit", {
    /// Messages per agent.
    messages => "messages",
    /// Registrations per address.
    registrations => "registrations",
    /// Connections per address.
    connections => "connections",
    /// Unfinished handshakes per address.
    handshakes => "handshakes",
    /// Sessions of the node.
    sessions => "sessions",
    /// Connections that speak HTTP.
    http => "http",
});

labelled!(
    /// Connections of strangers that were closed because they took too long.
    TimedOut, "arc_http_timeouts_total", "limit", {
    /// There was no whole request head within the handshake deadline, or no other one after an answer.
    head => "head",
    /// It had spoken HTTP for as long as any may.
    lifetime => "lifetime",
});

impl Metrics {
    /// All metrics at zero, in a recorder of their own.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new().set_buckets(SECONDS)?.build_recorder();
        let handle = recorder.handle();
        let metrics = metrics::with_local_recorder(&recorder, || Self::registered(handle));
        Ok(metrics)
    }

    fn registered(handle: PrometheusHandle) -> Self {
        describe();
        let (panics, panicked) = tally::readable(counter!("arc_task_panics_total"));
        gauge!("arc_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self {
            sessions: gauge!("arc_sessions"),
            registered_agents: gauge!("arc_registered_agents"),
            subscriptions: gauge!("arc_subscriptions"),
            subscriptions_unsaved: gauge!("arc_subscriptions_unsaved"),
            subscriptions_lost: gauge!("arc_subscriptions_lost"),
            subscription_save_failures: counter!("arc_subscription_save_failures_total"),
            outbox_bytes: gauge!("arc_outbox_bytes"),
            uptime: gauge!("arc_uptime_seconds"),
            received: Received::new(),
            delivered: Delivered::new(),
            dropped: Dropped::new(),
            handshakes: Handshakes::new(),
            closed: Closed::new(),
            registrations: Registrations::new(),
            limited: Limited::new(),
            timed_out: TimedOut::new(),
            mesh: MeshMetrics::registered(panics.clone()),
            panics,
            panicked,
            handshake_seconds: histogram!("arc_handshake_seconds"),
            registration_seconds: histogram!("arc_registration_seconds"),
            relay_seconds: histogram!("arc_relay_seconds"),
            tls: TlsMetrics::registered(),
            registry: RegistryMetrics::registered(),
            traces: TraceMetrics::registered(),
            handle,
        }
    }

    /// Tasks that have panicked since the start.
    pub fn panics_so_far(&self) -> u64 {
        self.panicked.read()
    }

    /// All that the recorder has, in Prometheus' text format; [`scrape`] has the rest, too.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Moves what the histograms collected into their buckets; until then each sample takes memory.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("arc_build_info", "1, with the version of the relay");
    describe_gauge!("arc_sessions", "live sessions on this node");
    describe_gauge!("arc_registered_agents", "agent ids in the registry");
    describe_gauge!("arc_subscriptions", "subscriptions of all agents");
    describe_gauge!("arc_subscriptions_unsaved", "agents with subscriptions not on disk yet");
    describe_gauge!("arc_subscriptions_lost", "1 if those on disk could not be read at start");
    describe_gauge!("arc_outbox_bytes", "bytes waiting in all outboxes");
    describe_gauge!("arc_uptime_seconds", "seconds since this node started");
    describe_counter!("arc_messages_received_total", "messages accepted from agents, by kind");
    describe_counter!("arc_messages_delivered_total", "messages put into outboxes, by kind");
    describe_counter!("arc_messages_dropped_total", "messages lost, per recipient, by reason");
    describe_counter!("arc_handshakes_total", "requests for a session, by outcome");
    describe_counter!("arc_sessions_closed_total", "ends of sessions, by reason");
    describe_counter!("arc_registrations_total", "requests for a name, by outcome");
    describe_counter!("arc_rate_limited_total", "what ran into a limit, by limit");
    describe_counter!("arc_http_timeouts_total", "connections that took too long, by limit");
    describe_counter!("arc_task_panics_total", "tasks that panicked; each is a bug");
    describe_counter!("arc_subscription_save_failures_total", "attempts to save that failed");
    describe_histogram!("arc_handshake_seconds", "from a request for a session to its answer");
    describe_histogram!("arc_registration_seconds", "from a request for a name to its answer");
    describe_histogram!(
        "arc_relay_seconds",
        "from reading messages off a socket to having passed them on, of one read in 64"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_there_from_the_start() {
        let metrics = Metrics::new().unwrap();
        metrics.dropped.offline.increment(3);
        assert!(metrics.dropped.counts().any(|count| count == ("offline", 3)));
        metrics.relay_seconds.record(0.002);
        metrics.upkeep();
        let text = metrics.render();
        for line in [
            "arc_messages_dropped_total{reason=\"offline\"} 3",
            "arc_sessions_closed_total{reason=\"slow_consumer\"} 0",
            "arc_relay_seconds_bucket{le=\"0.0025\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
