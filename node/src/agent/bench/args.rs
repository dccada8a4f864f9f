//! Options of `arc-relay bench`, and what they come to: a plan for each scenario, checked before
//! anything is sent.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::Serialize;

use super::{flaw::Flaw, stamp};
use crate::agent::{
    args::{DEFAULT_RELAY, duration},
    connect::Connector,
    failure::Failure,
    secret::Secret,
    url::{RelayUrl, UrlText},
};

/// How long each scenario is measured when it is asked for by name, and when all are run.
const DURATION: Duration = Duration::from_secs(10);
const DURATION_OF_EACH: Duration = Duration::from_secs(3);
/// Messages per second of all senders together where latency is measured: low enough for the limits
/// that a relay has by default.
const LATENCY_RATE: Rate = Rate(50_000);
/// Messages of one sender under way, where it goes as fast as it can.
const DIRECT_WINDOW: u64 = 16;
const BROADCAST_WINDOW: u64 = 4;
/// Descriptors for everything that is not an agent's connection.
const OTHER_FILES: u64 = 64;

/// Options of `arc-relay bench`.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub struct BenchArgs {
    /// What to measure; without it all in turn, 3 s each
    #[arg(value_name = "SCENARIO")]
    scenario: Option<Scenario>,

    /// The relay; several, separated by commas or in several options, are the nodes of one cluster:
    /// agents are spread over them, and each pair is on two
    #[arg(
        long,
        visible_alias = "relay",
        value_name = "URL",
        env = "ARC_RELAY",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = DEFAULT_RELAY
    )]
    url: Vec<UrlText>,

    /// How many agents
    #[arg(long, value_name = "N", default_value_t = 20)]
    agents: usize,

    /// Bytes of a message's payload
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,

    /// How long to measure each scenario, after a warm-up of a fifth of it, at most 2 s [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
    duration: Option<Duration>,

    /// Messages per second of all senders together, on a fixed schedule; without it `direct` and
    /// `broadcast` go as fast as they can, and `latency` sends 50
    #[arg(long, value_name = "RATE", conflicts_with = "window")]
    rate: Option<Rate>,

    /// Messages of one sender under way where it goes as fast as it can [default: 16, broadcast 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    window: Option<u64>,

    /// Agents that send in `broadcast`; every other agent hears each of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    senders: usize,

    /// Connections that are being opened at a time
    #[arg(long, value_name = "N", default_value_t = 32)]
    concurrency: usize,

    /// The relay's ops port, one for each node: shows its CPU and memory
    #[arg(long, value_name = "URL", env = "ARC_OPS", value_delimiter = ',')]
    ops: Vec<UrlText>,

    /// Write the result as JSON into this file; '-' prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Where the agents' tokens are kept, so that each run takes the same names
    /// [default: arc-relay/bench-agents.json below $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE")]
    pub(super) agents_file: Option<PathBuf>,

    /// Registration key, where the relay asks for one
    #[arg(long, value_name = "KEY", env = "REGISTRATION_KEY", hide_env_values = true)]
    pub(super) key: Option<Secret>,

    /// Trust the authorities in this PEM file too, besides those of the web
    #[arg(long, value_name = "FILE", env = "ARC_CA")]
    ca: Option<PathBuf>,

    /// How long the relay may take to answer: 10s, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, allow_hyphen_values = true)]
    pub(super) timeout: Duration,
}

/// What can be measured.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scenario {
    /// How fast agents connect, and what they cost while they are idle
    Connect,
    /// Messages from one agent to another, in pairs
    Direct,
    /// Messages from one agent to all: every agent that is connected hears them, yours too
    Broadcast,
    /// How long a message takes at a fixed rate, measured from when it was due
    Latency,
}

/// All scenarios, in the order in which they are run.
const ALL: [Scenario; 4] =
    [Scenario::Connect, Scenario::Latency, Scenario::Direct, Scenario::Broadcast];

/// Messages per second, to a thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(u64);

/// How senders are paced, before there is a start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// On a fixed schedule.
    Rate(Rate),
    /// As fast as it goes, with so many messages of each sender under way.
    Window(u64),
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Of what.
    pub(super) scenario: Scenario,
    /// Agents that are connected.
    pub(super) agents: usize,
    /// Agents that send; none where only connections are measured.
    pub(super) senders: usize,
    /// Bytes of each payload.
    pub(super) size: usize,
    /// How senders are paced.
    pub(super) pace: Pace,
    /// How long they send before it counts.
    pub(super) warm_up: Duration,
    /// How long it counts.
    pub(super) measured: Duration,
    /// Connections that are being opened at a time.
    pub(super) concurrency: usize,
}

/// A place where agents can connect.
#[derive(Clone)]
pub(super) struct Place {
    /// Its address.
    pub(super) relay: RelayUrl,
    /// The way there.
    pub(super) connector: Connector,
}

impl BenchArgs {
    /// The plans, in order; refuses what makes no sense.
    pub(super) fn plans(&self) -> Result<Vec<Plan>, Flaw> {
        let refuse = |why: String| Err(Flaw::Senseless(why));
        if self.agents < 2 {
            return refuse("--agents must be 2 or more: one sends, another receives".into());
        }
        if self.agents > AGENTS_MAX {
            return refuse(format!("--agents must be {AGENTS_MAX} or less"));
        }
        if self.size < stamp::SIZE_MIN {
            let least = stamp::SIZE_MIN;
            return refuse(format!("--size must be {least} or more: what is checked needs room"));
        }
        if !(1..=self.agents).contains(&self.senders) {
            return refuse(format!("--senders must be from 1 to {}, the agents", self.agents));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            return refuse(format!("--concurrency must be from 1 to {CONCURRENCY_MAX}"));
        }
        Ok(match self.scenario {
            Some(scenario) => vec![self.plan(scenario, DURATION)],
            None => ALL.iter().map(|scenario| self.plan(*scenario, DURATION_OF_EACH)).collect(),
        })
    }

    /// The nodes to connect to, in the order given.
    pub(super) fn places(&self) -> Result<Vec<Place>, Failure> {
        let place = |url: &UrlText| {
            let relay = url.relay().map_err(|source| Failure::Url { option: "--url", source })?;
            let connector = Connector::to_stranger(relay.endpoint(), self.ca.as_deref())?;
            Ok(Place { relay, connector })
        };
        self.url.iter().map(place).collect()
    }

    /// The ways to the ops ports.
    pub(super) fn ops(&self) -> Result<Vec<Connector>, Failure> {
        let connector = |url: &UrlText| {
            let endpoint = url.ops().map_err(|source| Failure::Url { option: "--ops", source })?;
            Connector::new(&endpoint, self.ca.as_deref())
        };
        self.ops.iter().map(connector).collect()
    }

    /// How many agents are needed.
    pub(super) fn agents(&self) -> usize {
        self.agents
    }

    fn plan(&self, scenario: Scenario, unless_told: Duration) -> Plan {
        let measured = self.duration.unwrap_or(unless_told);
        let (senders, window) = match scenario {
            Scenario::Connect => (0, 0),
            Scenario::Direct | Scenario::Latency => (self.agents / 2, DIRECT_WINDOW),
            Scenario::Broadcast => (self.senders, BROADCAST_WINDOW),
        };
        let pace = match (self.rate, scenario) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, Scenario::Latency) => Pace::Rate(LATENCY_RATE),
            (None, _) => Pace::Window(self.window.unwrap_or(window)),
        };
        Plan {
            scenario,
            // The last of an odd number has nobody to talk to.
            agents: if scenario.is_paired() { senders * 2 } else { self.agents },
            senders,
            size: self.size,
            pace,
            warm_up: (measured / 5).min(WARM_UP_MAX),
            measured,
            concurrency: self.concurrency,
        }
    }
}

/// Longest time of sending before it counts.
const WARM_UP_MAX: Duration = Duration::from_secs(2);
/// What the sender's number has room for.
const AGENTS_MAX: usize = 1_000_000;
/// More connections at a time than any machine opens faster for it.
const CONCURRENCY_MAX: usize = 10_000;

/// Whether so many agents fit under this limit on open files.
pub(super) fn check_files(agents: usize, limit: u64) -> Result<(), Flaw> {
    let needed = u64::try_from(agents).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    if needed <= limit { Ok(()) } else { Err(Flaw::Files { agents, needed, limit }) }
}

impl Scenario {
    /// Whether agents talk in pairs.
    pub(super) fn is_paired(self) -> bool {
        matches!(self, Self::Direct | Self::Latency)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Direct => "direct",
            Self::Broadcast => "broadcast",
            Self::Latency => "latency",
        })
    }
}

impl Rate {
    /// Messages per 1,000 s; never 0.
    pub(super) fn per_1000_s(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the bounds checked
    fn from_str(text: &str) -> Result<Self, String> {
        let per_s =
            text.trim_end_matches("/s").parse::<f64>().map_err(|error| error.to_string())?;
        if (0.001..=100_000_000.0).contains(&per_s) {
            Ok(Self((per_s * 1_000.0).round() as u64))
        } else {
            Err("must be from 0.001 to 100000000 messages per second".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn plans(words: &[&str]) -> Result<Vec<Plan>, String> {
        let line = Line::try_parse_from([&["bench"], words].concat()).map_err(|e| e.to_string())?;
        line.args.plans().map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn without_a_scenario_all_are_run_and_short() {
        let plans = plans(&[]).expect("the defaults make sense");
        assert_eq!(plans.iter().map(|plan| plan.scenario).collect::<Vec<_>>(), ALL);
        assert!(plans.iter().all(|plan| plan.measured == DURATION_OF_EACH));
    }

    #[test]
    fn the_default_latency_stays_below_a_relays_default_limits() {
        let plan = plans(&["latency"]).expect("the defaults make sense")[0];
        let Pace::Rate(rate) = plan.pace else { panic!("an open loop") };
        let seconds = (plan.warm_up + plan.measured).as_secs();
        let senders = u64::try_from(plan.senders).expect("a small number");
        assert!(rate.per_1000_s() / 1_000 * seconds / senders < 100, "RATE_LIMIT_PER_MIN");
        assert!(plan.agents < 30, "REGISTRATION_LIMIT_PER_MIN");
    }

    #[test]
    fn an_odd_agent_is_left_out_of_pairs() {
        let plan = plans(&["direct", "--agents", "5"]).expect("it makes sense")[0];
        assert_eq!((plan.agents, plan.senders), (4, 2));
        let plan = plans(&["broadcast", "--agents", "5"]).expect("it makes sense")[0];
        assert_eq!((plan.agents, plan.senders), (5, 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_line() {
        for (words, part) in [
            (&["--agents", "1"][..], "--agents"),
            (&["--agents", "2000000"], "--agents"),
            (&["--size", "10"], "--size"),
            (&["--senders", "0"], "--senders"),
            (&["--senders", "21"], "--senders"),
            (&["--concurrency", "0"], "--concurrency"),
        ] {
            let refusal = plans(words).expect_err("it makes no sense");
            assert!(refusal.contains(part) && refusal.lines().count() == 1, "{refusal}");
        }
        for words in [&["--rate", "0"][..], &["--rate", "x"], &["--rate", "1", "--window", "2"]] {
            assert!(plans(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn too_few_files_are_named_with_what_is_needed() {
        assert!(check_files(936, 1_000).is_ok());
        let text = check_files(937, 1_000).expect_err("one too many").to_string();
        assert!(text.contains("ulimit -n 1001"), "{text}");
    }
}
