//! `agent ping`: is the relay there, does it take the token, and how fast does it answer?

use std::time::Duration;

use super::{
    args::{RelayArgs, TokenArgs, duration},
    connect::within,
    failure::Failure,
    message::{Outgoing, RELAY},
    output::Output,
    session::Session,
    text::escaped,
};
use crate::clock::Clock;

/// Options of `agent ping`.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub struct Args {
    /// How many pings
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Pause between two pings
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration, allow_hyphen_values = true)]
    interval: Duration,

    /// Print one JSON object per ping: {"seq","round_trip_ms"}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    relay: RelayArgs,

    #[command(flatten)]
    token: TokenArgs,
}

pub(super) async fn run(args: &Args, output: &mut Output, clock: &Clock) -> Result<(), Failure> {
    let dialer = args.relay.dialer(&args.token)?;
    let start = clock.elapsed();
    let mut session = dialer.open().await?;
    let connected = clock.elapsed().saturating_sub(start);
    if !args.json {
        output.result(&greeting(&session, connected)).await?;
        if args.relay.verbose {
            let able = escaped(&session.welcome.capabilities.join(", "));
            output.result(&format!("capabilities: {able}")).await?;
        }
    }
    for seq in 1..=args.count {
        if seq > 1 {
            tokio::time::sleep(args.interval).await;
        }
        let round_trip = ping(&mut session, args.relay.timeout, clock).await?;
        let ms = round_trip.as_secs_f64() * 1_000.0;
        let line = if args.json {
            format!(r#"{{"seq":{seq},"round_trip_ms":{ms:.3}}}"#)
        } else {
            format!("pong {seq}: {ms:.3} ms")
        };
        output.result(&line).await?;
    }
    session.close().await;
    Ok(())
}

async fn ping(session: &mut Session, limit: Duration, clock: &Clock) -> Result<Duration, Failure> {
    let to = [RELAY.to_owned()];
    let command = Outgoing { to: &to, kind: Some("ping"), reference: None, payload: None };
    let start = clock.elapsed();
    within(limit, "pong from the relay", session.command(&command, "pong")).await?;
    Ok(clock.elapsed().saturating_sub(start))
}

fn greeting(session: &Session, connected: Duration) -> String {
    let welcome = &session.welcome;
    escaped(&format!(
        "connected as {} to {} {}, node {}, in {:.1} ms",
        session.agent,
        known(&welcome.relay),
        known(&welcome.version),
        known(&welcome.node),
        connected.as_secs_f64() * 1_000.0
    ))
}

fn known(text: &str) -> &str {
    if text.is_empty() { "(unnamed)" } else { text }
}
