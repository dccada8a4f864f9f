//! `arc-relay health`: whether the relay that has this configuration is up, for health checks of
//! containers, which know success and failure only; or its whole cluster, for who takes nodes away.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use hyper::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    args::duration,
    connect::Connector,
    failure::{Failure, NO_CONFIGURED_OPS},
    http::{self, Call},
    output::Output,
    text::{escaped, on_one_line},
    url::Endpoint,
    whole::whole,
};
use crate::report::ClusterReport;

/// Options of `arc-relay health`.
#[derive(clap::Args, Clone, Debug)]
pub struct HealthArgs {
    /// Ask whether it takes new agents: a relay that is full is up, and takes none
    #[arg(long)]
    ready: bool,

    /// Ask whether its whole cluster is well, as it sees it: all nodes there and linked, the names kept by all
    /// that should, so that any one node may be taken away
    #[arg(long, conflicts_with = "ready")]
    whole: bool,

    /// How long the relay may take to answer: 10s, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration, allow_hyphen_values = true)]
    timeout: Duration,

    /// Print JSON: what the relay says of itself, as it says it; with --whole, whether it is whole
    #[arg(long)]
    json: bool,
}

/// As much of the answer as is of interest.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    registry: Option<String>,
    #[serde(default)]
    waiting: Option<String>,
    #[serde(default)]
    failure: Option<String>,
}

impl Answer {
    /// How it is, in a line. A relay is up that can register nobody: agents that have a token do not notice.
    fn told(&self) -> String {
        let Self { status, waiting, failure, .. } = self;
        let cannot_register =
            status == "ok" && self.registry.as_ref().is_some_and(|it| it == "unavailable");
        let ails = match (cannot_register, failure) {
            (true, Some(failure)) => {
                format!(", but names cannot be registered: this node's disk fails: {failure}")
            }
            (true, None) => ", but names cannot be registered".to_owned(),
            (false, Some(failure)) => format!(", but this node's disk fails: {failure}"),
            (false, None) => String::new(),
        };
        let waiting = waiting.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        escaped(&format!("{status}{ails}{waiting}"))
    }
}

/// Asks the relay whose ops listener is bound to `ops`; prints what it says of itself.
pub(super) async fn run(
    args: &HealthArgs,
    ops: SocketAddr,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = match (args.ready, args.whole) {
        (true, _) => "/ready",
        (_, true) => "/cluster",
        _ => "/health",
    };
    let endpoint =
        Endpoint { tls: false, host: reached_at(ops.ip()).to_string(), port: ops.port() };
    let connector = Connector::new(&endpoint, None)?;
    let call = Call { path, ..Call::default() };
    let answer = http::answer(&connector, args.timeout, call).await;
    let (status, body) = answer.map_err(|failure| failure.advising(NO_CONFIGURED_OPS))?;
    if args.whole {
        let report: ClusterReport = read(&body)?;
        return match whole(&report) {
            Ok(told) if args.json => {
                output.result(&json!({"whole": true, "told": told}).to_string()).await
            }
            Ok(told) => output.result(&told).await,
            Err(lacks) => {
                let lacks: Vec<_> = lacks.iter().map(|lack| escaped(&lack.to_string())).collect();
                Err(Failure::NotWhole(lacks.join("; ")))
            }
        };
    }
    let answer: Answer = read(&body)?;
    match status {
        StatusCode::OK if args.json => {
            output.result(&on_one_line(&String::from_utf8_lossy(&body))).await
        }
        StatusCode::OK => output.result(&answer.told()).await,
        _ => Err(Failure::Unwell(answer.told())),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::NotRelay(error.to_string()))
}

/// Where what is bound to this address is reached from the same machine.
pub(super) fn reached_at(bound: IpAddr) -> IpAddr {
    if bound.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bound }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            output::tests::captured,
            test_relay::{TestRelay, Turn},
        },
        *,
    };

    /// What the command says of a relay that answers so: (result, how it failed).
    async fn asked(head: &'static str, body: &'static str) -> (String, Option<Failure>) {
        let relay = TestRelay::start(vec![Turn::Http(head, body)]).await;
        let (ready, whole, json) = (false, false, false);
        let args = HealthArgs { ready, whole, timeout: Duration::from_secs(10), json };
        let ops = relay.address().parse().expect("a test's relay has an address");
        let (mut output, results, _) = captured();
        let outcome = run(&args, ops, &mut output).await;
        (results.text(), outcome.err())
    }

    #[tokio::test]
    async fn a_relay_that_is_up_is_well() {
        let (told, failure) = asked("200 OK", r#"{"status":"ok","uptime":3}"#).await;
        assert!(told == "ok\n" && failure.is_none(), "{told} {failure:?}");
    }

    #[tokio::test]
    async fn a_relay_that_is_up_says_what_ails_it() {
        for (body, expected) in [
            (
                r#"{"status":"ok","registry":"unavailable","failure":"no space left"}"#,
                "ok, but names cannot be registered: this node's disk fails: no space left\n",
            ),
            (
                r#"{"status":"ok","registry":"unavailable","waiting":"start b"}"#,
                "ok, but names cannot be registered: start b\n",
            ),
            (
                r#"{"status":"ok","registry":"available","failure":"broken"}"#,
                "ok, but this node's disk fails: broken\n",
            ),
            (r#"{"status":"ok","registry":"available","waiting":"for c"}"#, "ok: for c\n"),
        ] {
            let (told, failure) = asked("200 OK", body).await;
            assert!(told == expected && failure.is_none(), "{told} {failure:?}");
        }
    }

    #[tokio::test]
    async fn a_relay_that_waits_says_for_whom() {
        let body = r#"{"status":"joining","waiting":"start relay-2"}"#;
        let (told, failure) = asked("503 Service Unavailable", body).await;
        let failure = failure.expect("it is not up");
        assert_eq!((told.as_str(), failure.exit_code()), ("", 1));
        assert_eq!(failure.to_string(), "the relay is not up: joining: start relay-2");
    }

    #[test]
    fn all_addresses_are_reached_at_this_machines_own() {
        for (bound, reached) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "127.0.0.1"),
            ("::1", "::1"),
            ("10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(bound.parse().map(reached_at), reached.parse());
        }
    }
}
