//! The result: as JSON, whose format has a version, and as lines for a person.
//!
//! Pure: computes and words, and measures nothing.

use std::{fmt::Write as _, sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use super::{
    args::{Pace, Plan, Scenario},
    checker::Faults,
    cost::OwnCost,
    drive::{Measured, Sample},
    statistics::Percentiles,
};
use crate::agent::text::escaped;

/// Version of the JSON format: grows when a field goes or changes its meaning.
const VERSION: u32 = 1;
/// Share of its cores from which on the client, or the machine, is what limits.
const SATURATED: f64 = 0.9;
/// A client that is late by more than this part of a latency spoils it.
const LAG_SHARE: f64 = 0.5;

/// All that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    version: u32,
    /// Where and with what.
    pub(super) environment: Environment,
    /// In the order in which they were run.
    pub(super) scenarios: Vec<Outcome>,
    /// What was not, and why.
    pub(super) not_measured: Vec<NotMeasured>,
}

/// Who measured whom.
#[derive(Serialize)]
pub(super) struct Environment {
    /// The nodes, as they said of themselves.
    pub(super) relays: Vec<Relay>,
    /// Version of this program.
    pub(super) client_version: &'static str,
    /// Cores that it may use.
    pub(super) client_cores: usize,
    /// When it began, by this machine's clock, in Unix milliseconds.
    pub(super) started_ms: u64,
}

/// A node.
#[derive(Serialize)]
pub(super) struct Relay {
    /// Where it was reached.
    pub(super) url: String,
    /// Its version.
    pub(super) version: String,
    /// Its name.
    pub(super) node: String,
    /// What it lets an agent send.
    pub(super) rate_limit: Option<String>,
}

/// A scenario without a result.
#[derive(Serialize)]
pub(super) struct NotMeasured {
    /// Which.
    pub(super) scenario: Scenario,
    /// Why.
    pub(super) reason: String,
}

/// The result of one scenario.
#[derive(Serialize)]
pub(super) struct Outcome {
    scenario: Scenario,
    agents: usize,
    senders: usize,
    nodes: usize,
    warm_up_s: f64,
    measured_s: f64,
    connect: Connecting,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Client>,
    warnings: Vec<String>,
}

/// How agents were connected.
#[derive(Serialize)]
struct Connecting {
    took_s: f64,
    per_s: f64,
    /// From the first packet to the welcome.
    handshake_us: Option<Percentiles>,
}

/// What was sent and what came of it.
#[derive(Serialize)]
struct Messages {
    size_bytes: usize,
    rate_per_s: Option<f64>,
    window: Option<u64>,
    sent: u64,
    /// Due and not sent, because those before took too long.
    unsent: u64,
    expected: u64,
    delivered: u64,
    delivered_per_s: f64,
    #[serde(flatten)]
    faults: Faults,
    foreign: u64,
    /// From when a message was due; in a closed loop from when it was sent.
    latency_us: Option<Percentiles>,
    /// How late this program itself was.
    client_lag_us: Option<Percentiles>,
}

/// What the relay's nodes used, all together.
#[derive(Serialize)]
struct Cost {
    cpu_cores: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us_per_delivery: Option<f64>,
    resident_before_bytes: f64,
    resident_after_bytes: f64,
    /// What connections cost, where nothing else was done.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    connections: Option<ConnectionCost>,
}

/// What one agent's connection costs the relay while nothing is sent.
#[derive(Serialize)]
struct ConnectionCost {
    cpu_us_per_connect: f64,
    cpu_us_per_agent_and_s: f64,
    /// Growth of resident memory since before the first was connected.
    bytes_per_connection: f64,
}

/// What this program used.
#[derive(Serialize)]
struct Client {
    cpu_cores: f64,
    /// Of all programs on its machine.
    machine_busy_cores: f64,
    saturated: bool,
}

impl Report {
    /// A report without results yet.
    pub(super) fn new(environment: Environment) -> Self {
        Self { version: VERSION, environment, scenarios: Vec::new(), not_measured: Vec::new() }
    }

    /// Adds a result, and gives it as lines.
    pub(super) fn add(&mut self, plan: &Plan, measured: &Measured) -> String {
        let Environment { relays, client_cores, .. } = &self.environment;
        let outcome = Outcome::of(plan, measured, relays.len(), *client_cores);
        let lines = outcome.lines();
        self.scenarios.push(outcome);
        lines
    }

    /// What was wrong with the delivery, in all scenarios.
    pub(super) fn faults(&self) -> Faults {
        let mut all = Faults::default();
        for messages in self.scenarios.iter().filter_map(|outcome| outcome.messages.as_ref()) {
            all.add(&messages.faults);
        }
        all
    }

    /// The report as JSON.
    pub(super) fn json(&self) -> String {
        // Numbers, texts and lists of them can always be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Outcome {
    fn of(plan: &Plan, measured: &Measured, nodes: usize, cores: usize) -> Self {
        let messages = (plan.senders > 0).then(|| Messages::of(plan, measured));
        let client = Client::between(&measured.begin, &measured.end, cores);
        let relay = Cost::of(plan, measured);
        let mut outcome = Self {
            scenario: plan.scenario,
            agents: plan.agents,
            senders: plan.senders,
            nodes,
            warm_up_s: if plan.senders > 0 { plan.warm_up.as_secs_f64() } else { 0.0 },
            measured_s: plan.measured.as_secs_f64(),
            connect: Connecting::of(plan, measured),
            messages,
            relay,
            client,
            warnings: Vec::new(),
        };
        outcome.warnings = outcome.doubts();
        outcome
    }

    /// What makes the figures less than they seem.
    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.client.as_ref().is_some_and(|client| client.saturated) {
            doubts.push(
                "this program or its machine was busy throughout: the relay may do better with a \
                 client of its own machine"
                    .to_owned(),
            );
        }
        let Some(messages) = &self.messages else { return doubts };
        if messages.unsent > 0 {
            doubts.push(format!(
                "{} messages that were due were not sent in time: the rate is more than the relay, \
                 or this program, can do",
                messages.unsent
            ));
        }
        if messages.window.is_some() {
            doubts.push(
                "latencies are those of a full window; see `latency` for those of a message alone"
                    .to_owned(),
            );
        } else if let (Some(lag), Some(latency)) = (&messages.client_lag_us, &messages.latency_us)
            && lag.p99 > latency.p99 * LAG_SHARE
        {
            doubts.push(format!(
                "this program itself was late by {} at the 99th percentile, which the latencies \
                 include",
                time(lag.p99)
            ));
        }
        if messages.foreign > 0 {
            doubts.push(format!("{} messages of others were heard, too", messages.foreign));
        }
        doubts
    }

    fn lines(&self) -> String {
        let mut text =
            format!("{}: {} agents on {}", self.scenario, self.agents, nodes(self.nodes));
        if let Some(messages) = &self.messages {
            let Messages { size_bytes, rate_per_s, window, .. } = messages;
            let _ = write!(text, ", {} sending {size_bytes} B", self.senders);
            let _ = match (rate_per_s, window) {
                (Some(rate), _) => write!(text, ", {rate}/s on schedule"),
                (None, window) => write!(text, ", {} under way each", window.unwrap_or_default()),
            };
            let _ = write!(text, ", {} s", self.measured_s);
        }
        let Connecting { took_s, per_s, handshake_us } = &self.connect;
        let _ = write!(text, "\n  connected   in {took_s:.2} s, {per_s:.0}/s");
        if self.messages.is_none() {
            let _ = write!(text, "\n  handshake   {}", percentiles(handshake_us.as_ref()));
        }
        if let Some(messages) = &self.messages {
            messages.write(&mut text);
        }
        if let Some(relay) = &self.relay {
            relay.write(&mut text);
        }
        if let Some(Client { cpu_cores, machine_busy_cores, .. }) = &self.client {
            let _ = write!(
                text,
                "\n  client      {cpu_cores:.2} cores; its machine {machine_busy_cores:.2}"
            );
        }
        for warning in &self.warnings {
            let _ = write!(text, "\n  note        {}", escaped(warning));
        }
        text.push('\n');
        text
    }
}

impl Connecting {
    fn of(plan: &Plan, measured: &Measured) -> Self {
        let took_s = measured.connecting.as_secs_f64();
        Self {
            took_s,
            per_s: ratio(count(plan.agents), took_s),
            handshake_us: measured.board.handshakes.percentiles(),
        }
    }
}

impl Messages {
    fn of(plan: &Plan, measured: &Measured) -> Self {
        let board = &measured.board;
        let (sent, expected) = board.sent();
        let (rate_per_s, window) = match plan.pace {
            Pace::Rate(rate) => (Some(float(rate.per_1000_s()) / 1_000.0), None),
            Pace::Window(window) => (None, Some(window)),
        };
        let due = rate_per_s.map(|rate| rate * (plan.warm_up + plan.measured).as_secs_f64());
        Self {
            size_bytes: plan.size,
            rate_per_s,
            window,
            sent,
            unsent: due.map_or(0, |due| unsent(due, sent)),
            expected,
            delivered: board.delivered.load(Ordering::Acquire),
            delivered_per_s: ratio(
                float(board.delivered_measured.load(Ordering::Acquire)),
                plan.measured.as_secs_f64(),
            ),
            faults: measured.faults,
            foreign: measured.foreign,
            latency_us: board.latencies.percentiles(),
            client_lag_us: board.lags.percentiles(),
        }
    }

    fn write(&self, text: &mut String) {
        let Self { delivered, delivered_per_s, expected, faults, .. } = self;
        let Faults { lost, twice, out_of_order, spoilt } = faults;
        let verdict = if faults.is_none() { "exact" } else { "NOT EXACT" };
        let _ = write!(
            text,
            "\n  delivered   {delivered_per_s:.0}/s\
             \n  delivery    {verdict}: {delivered} of {expected}; lost {lost}, twice {twice}, out of \
             order {out_of_order}, spoilt {spoilt}\
             \n  latency     {}",
            percentiles(self.latency_us.as_ref())
        );
        if self.rate_per_s.is_some() {
            let _ = write!(text, "\n  client lag  {}", percentiles(self.client_lag_us.as_ref()));
        }
    }
}

impl Cost {
    fn of(plan: &Plan, measured: &Measured) -> Option<Self> {
        let Measured { before, begin, end, .. } = measured;
        let (before, begin_cost, end_cost) = (before.relay?, begin.relay?, end.relay?);
        let seconds = end.at.saturating_sub(begin.at).as_secs_f64();
        let cpu_us = (end_cost.cpu_s - begin_cost.cpu_s) * 1e6;
        let deliveries = float(end.delivered.saturating_sub(begin.delivered));
        let agents = count(plan.agents);
        let connections = ConnectionCost {
            cpu_us_per_connect: (begin_cost.cpu_s - before.cpu_s) * 1e6 / agents,
            cpu_us_per_agent_and_s: ratio(cpu_us, seconds * agents),
            bytes_per_connection: (end_cost.resident_bytes - before.resident_bytes) / agents,
        };
        Some(Self {
            cpu_cores: ratio(cpu_us / 1e6, seconds),
            cpu_us_per_delivery: (deliveries > 0.0).then(|| cpu_us / deliveries),
            resident_before_bytes: before.resident_bytes,
            resident_after_bytes: end_cost.resident_bytes,
            connections: (plan.senders == 0).then_some(connections),
        })
    }

    fn write(&self, text: &mut String) {
        let _ = write!(text, "\n  relay CPU   {:.3} cores", self.cpu_cores);
        if let Some(us) = self.cpu_us_per_delivery {
            let _ = write!(text, ", {us:.2} us per delivery");
        }
        if let Some(ConnectionCost { cpu_us_per_connect, cpu_us_per_agent_and_s: us, .. }) =
            &self.connections
        {
            // As many milliseconds for 1,000 agents as microseconds for one.
            let _ = write!(text, ", {us:.2} ms a second for 1,000 idle agents");
            let _ = write!(text, ", {cpu_us_per_connect:.0} us per connect");
        }
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (before, after) = (mib(self.resident_before_bytes), mib(self.resident_after_bytes));
        let _ = write!(text, "\n  relay RSS   {before:.1} MiB before, {after:.1} MiB after");
        if let Some(ConnectionCost { bytes_per_connection, .. }) = &self.connections {
            let _ = write!(text, ", {bytes_per_connection:.0} B per connection");
        }
    }
}

impl Client {
    fn between(begin: &Sample, end: &Sample, cores: usize) -> Option<Self> {
        let used = |cost: fn(&OwnCost) -> f64| {
            let (before, after) = (begin.client.as_ref()?, end.client.as_ref()?);
            Some(ratio(cost(after) - cost(before), end.at.saturating_sub(begin.at).as_secs_f64()))
        };
        let cpu_cores = used(|cost| cost.cpu_s)?;
        let machine_busy_cores = used(|cost| cost.machine_busy_s)?;
        let saturated = cpu_cores.max(machine_busy_cores) > SATURATED * count(cores);
        Some(Self { cpu_cores, machine_busy_cores, saturated })
    }
}

fn percentiles(times: Option<&Percentiles>) -> String {
    let Some(Percentiles { p50, p90, p99, p99_9, max, .. }) = times else { return "-".to_owned() };
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        time(*p50),
        time(*p90),
        time(*p99),
        time(*p99_9),
        time(*max)
    )
}

/// Microseconds, for a person.
fn time(us: f64) -> String {
    let time = Duration::from_secs_f64(us.max(0.0) / 1e6);
    if us < 10_000.0 {
        format!("{us:.0} us")
    } else {
        format!("{:.0} ms", time.as_secs_f64() * 1e3)
    }
}

fn nodes(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

/// Messages due and not sent; one or two at the end are a question of rounding.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count, and not negative
fn unsent(due: f64, sent: u64) -> u64 {
    let missing = due.floor() - float(sent);
    if missing > 2.0 { missing as u64 } else { 0 }
}

fn ratio(value: f64, by: f64) -> f64 {
    if by > 0.0 { value / by } else { 0.0 }
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53
fn float(value: u64) -> f64 {
    value as f64
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53
fn count(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::bench::cost;

    const TIMES: Percentiles = Percentiles {
        count: 1,
        mean: 100.0,
        p50: 90.0,
        p90: 200.0,
        p99: 400.0,
        p99_9: 20_000.0,
        max: 30_000.0,
    };

    fn outcome() -> Outcome {
        Outcome {
            scenario: Scenario::Latency,
            agents: 4,
            senders: 2,
            nodes: 1,
            warm_up_s: 1.0,
            measured_s: 5.0,
            connect: Connecting { took_s: 0.5, per_s: 8.0, handshake_us: Some(TIMES) },
            messages: Some(Messages {
                size_bytes: 128,
                rate_per_s: Some(50.0),
                window: None,
                sent: 300,
                unsent: 0,
                expected: 300,
                delivered: 300,
                delivered_per_s: 50.0,
                faults: Faults::default(),
                foreign: 0,
                latency_us: Some(TIMES),
                client_lag_us: Some(Percentiles { p99: 100.0, ..TIMES }),
            }),
            relay: None,
            client: Some(Client { cpu_cores: 0.1, machine_busy_cores: 0.2, saturated: false }),
            warnings: Vec::new(),
        }
    }

    fn with_messages(change: impl FnOnce(&mut Messages)) -> Outcome {
        let mut outcome = outcome();
        if let Some(messages) = &mut outcome.messages {
            change(messages);
        }
        outcome
    }

    #[test]
    fn a_good_result_raises_no_doubts() {
        assert_eq!(outcome().doubts(), [""; 0]);
        let lines = outcome().lines();
        for part in [
            "latency: 4 agents on 1 node, 2 sending 128 B, 50/s",
            "exact: 300 of 300",
            "p99.9 20 ms",
        ] {
            assert!(lines.contains(part), "{part} is missing: {lines}");
        }
    }

    #[test]
    fn what_makes_a_result_less_than_it_seems_is_said() {
        let mut busy = outcome();
        busy.client = Some(Client { cpu_cores: 1.9, machine_busy_cores: 1.9, saturated: true });
        assert!(busy.doubts()[0].contains("busy throughout"));
        let late = with_messages(|m| m.client_lag_us = Some(TIMES));
        assert!(late.doubts()[0].contains("late by 400 us"));
        let behind = with_messages(|m| m.unsent = 7);
        assert!(behind.doubts()[0].starts_with("7 messages that were due"));
        let windowed = with_messages(|m| m.window = Some(16));
        assert!(windowed.doubts()[0].contains("full window"));
        let crowded = with_messages(|m| m.foreign = 3);
        assert!(crowded.doubts()[0].starts_with("3 messages of others"));
    }

    #[test]
    fn a_fault_is_shouted() {
        let faulty = with_messages(|m| m.faults = Faults { twice: 1, ..Faults::default() });
        assert!(faulty.lines().contains("NOT EXACT: 300 of 300; lost 0, twice 1,"));
    }

    #[test]
    fn the_client_is_saturated_when_it_or_its_machine_has_no_core_left() {
        let at = |seconds, own, machine| Sample {
            at: Duration::from_secs(seconds),
            delivered: 0,
            relay: None,
            client: Some(cost::OwnCost { cpu_s: own, machine_busy_s: machine }),
        };
        let judged = |own, machine| {
            let client = Client::between(&at(10, 5.0, 50.0), &at(20, 5.0 + own, 50.0 + machine), 2);
            client.map(|client| client.saturated)
        };
        assert_eq!(judged(5.0, 10.0), Some(false));
        assert_eq!(judged(18.5, 18.6), Some(true));
        assert_eq!(judged(5.0, 19.5), Some(true));
    }

    #[test]
    fn messages_due_at_the_very_end_are_not_missed() {
        assert_eq!([unsent(300.0, 300), unsent(300.7, 299), unsent(300.0, 200)], [0, 0, 100]);
    }

    #[test]
    fn the_format_has_its_version_and_its_faults_beside_the_counts() {
        let environment =
            Environment { relays: Vec::new(), client_version: "0", client_cores: 2, started_ms: 1 };
        let mut report = Report::new(environment);
        report.scenarios.push(with_messages(|m| m.faults.lost = 2));
        assert_eq!(report.faults(), Faults { lost: 2, ..Faults::default() });
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["version"], 1);
        let messages = &json["scenarios"][0]["messages"];
        assert_eq!(
            (&messages["lost"], &messages["latency_us"]["p99_9"]),
            (&2.into(), &20_000.0.into())
        );
    }
}
