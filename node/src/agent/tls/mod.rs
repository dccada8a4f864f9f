//! `arc-relay tls check`: which certificates the nodes serve to agents, whether agents and the authority
//! get to them, and what to do where they do not.
//!
//! What is there is [observed](observing), then [judged](findings), which is pure, then [told](telling).

mod domains;
mod findings;
mod observed;
mod observing;
mod telling;

#[cfg(test)]
mod findings_tests;

use std::process::ExitCode;

use serde::Serialize;

pub(super) use self::findings::Finding;
use self::{
    findings::findings,
    observed::Observed,
    observing::{Given, observe},
};
use super::{args::OpsArgs, failure::Failure, output::Output};
use crate::clock::Clock;

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  something is not: each finding says what to do
  2  it could not be checked: bad options, or the node does not answer";

/// What an operator can ask about agents' certificates.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum TlsCommand {
    /// Check the certificates, the DNS and the ports of all nodes, and say what to do
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
}

/// Options of `tls check`.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub struct CheckArgs {
    #[command(flatten)]
    ops: OpsArgs,

    /// Take this for what the DNS says of a name, as before it is changed; may be given several times
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = given)]
    resolve: Vec<Given>,
}

/// The whole answer, for programs.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether there are no findings.
    ok: bool,
    findings: &'a [Finding],
    #[serde(flatten)]
    observed: &'a Observed,
}

/// Runs a command of `arc-relay tls` and tells how it ended, on standard error and by exit code.
pub(super) async fn run(command: TlsCommand, mut output: Output, clock: &Clock) -> ExitCode {
    let TlsCommand::Check(args) = command;
    match check(&args, &mut output, clock).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => output.fail(&failure.report().exiting(2)).await,
    }
}

/// What is wrong with agents' TLS, as the node at this port and the doors of all nodes show it.
pub(super) async fn examine(ops: &OpsArgs, clock: &Clock) -> Result<Vec<Finding>, Failure> {
    Ok(findings(&observe(ops, &[], clock).await?))
}

/// Whether all is well.
async fn check(args: &CheckArgs, output: &mut Output, clock: &Clock) -> Result<bool, Failure> {
    let observed = observe(&args.ops, &args.resolve, clock).await?;
    let findings = findings(&observed);
    let ok = findings.is_empty();
    let told = if args.ops.json {
        let report = Report { ok, findings: &findings, observed: &observed };
        serde_json::to_string(&report).map_err(|error| Failure::NotRelay(error.to_string()))?
    } else {
        telling::told(&observed, &findings)
    };
    match output.result(&told).await {
        // Who has read enough has heard the verdict.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ok),
        written => written.map(|()| ok),
    }
}

fn given(text: &str) -> Result<Given, String> {
    let read = || {
        let (name, address) = text.split_once('=')?;
        Some((name.trim_end_matches('.').to_ascii_lowercase(), address.parse().ok()?))
    };
    read().ok_or_else(|| "write NAME=ADDRESS, as in relay.example.com=192.0.2.1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dns_is_to_say_is_a_name_and_an_address() {
        let expected = ("relay.example".to_owned(), [192, 0, 2, 1].into());
        assert_eq!(given("Relay.Example.=192.0.2.1"), Ok(expected));
        assert!(given("a=::1").is_ok());
        for bad in ["a", "a=b", "=", "a=1.2.3.4:5"] {
            assert!(given(bad).is_err(), "{bad}");
        }
    }
}
