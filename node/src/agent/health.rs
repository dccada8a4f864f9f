//! `arc-relay health`: whether the relay that has this configuration is up, for health checks of
//! containers, which know success and failure only; or its whole cluster, for who takes nodes away.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use hyper::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    args::duration,
    connect::Connector,
    failure::Failure,
    http::{self, Call},
    output::Output,
    text::escaped,
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
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration)]
    timeout: Duration,
}

/// As much of the answer as is of interest.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    waiting: Option<String>,
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
    let (status, body) = http::answer(&connector, args.timeout, call).await?;
    if args.whole {
        let report: ClusterReport = read(&body)?;
        return match whole(&report) {
            Ok(told) => output.result(&told).await,
            Err(lacks) => Err(Failure::NotWhole(lacks.join("; "))),
        };
    }
    let answer: Answer = read(&body)?;
    let waiting = answer.waiting.map_or_else(String::new, |reason| format!(": {reason}"));
    let told = escaped(&format!("{}{waiting}", answer.status));
    match status {
        StatusCode::OK => output.result(&told).await,
        _ => Err(Failure::Unwell(told)),
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
        let args = HealthArgs { ready: false, whole: false, timeout: Duration::from_secs(10) };
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
