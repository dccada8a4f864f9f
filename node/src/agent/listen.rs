//! `agent listen`: prints what comes, and comes back when the connection goes.
//!
//! Keeps one session at a time. What is sent to the agent while it has none is lost, as PROTOCOL
//! section 5 says; nothing here pretends otherwise.

use std::time::Duration;

use super::{
    args::{RelayArgs, TokenArgs},
    failure::Failure,
    message::Received,
    output::Output,
    recovery::{Recovery, delay, hinted_delay, recovery},
    session::{Dialer, Session},
    text::{escaped, on_one_line},
};
use crate::clock::Clock;

/// A session that lasted this long was a good one: the next failure counts as the first.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// Options of `agent listen`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Print only what these agents sent, separated by commas or in several options
    #[arg(long, value_name = "AGENT_ID", value_delimiter = ',')]
    from: Vec<String>,

    /// Print only messages of these types
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    kinds: Vec<String>,

    /// End after printing this many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Print each message as the JSON it is, one per line
    #[arg(long)]
    json: bool,

    /// End when the connection is lost, or was never made
    #[arg(long)]
    no_reconnect: bool,

    #[command(flatten)]
    relay: RelayArgs,

    #[command(flatten)]
    token: TokenArgs,
}

/// Listens until enough is printed, something ends it for good, or `stop` comes.
pub(super) async fn run(
    args: &Args,
    output: &mut Output,
    clock: &Clock,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let dialer = args.relay.dialer(&args.token)?;
    let mut listener = Listener {
        args,
        dialer,
        output,
        clock,
        session: None,
        opened: None,
        printed: 0,
        failures: 0,
    };
    let outcome = tokio::select! {
        outcome = listener.listen() => outcome,
        () = stop => Ok(()),
    };
    if let Some(session) = listener.session.take() {
        session.close().await;
    }
    outcome
}

/// Resolves when the user or the system asks the process to end.
pub(super) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without a handler the signal ends the process by itself.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

struct Listener<'a> {
    args: &'a Args,
    dialer: Dialer,
    output: &'a mut Output,
    clock: &'a Clock,
    session: Option<Session>,
    /// When that was opened.
    opened: Option<Duration>,
    printed: u64,
    /// In a row, since the last good session.
    failures: u32,
}

impl Listener<'_> {
    /// Ends well when all that was asked for is printed.
    async fn listen(&mut self) -> Result<(), Failure> {
        loop {
            let Err(failure) = self.one_session().await else { return Ok(()) };
            let lasted = |opened| self.clock.elapsed().saturating_sub(opened);
            if self.opened.take().map(lasted) >= Some(GOOD_SESSION) {
                self.failures = 0;
            }
            let wait = self.judge(failure).await?;
            self.session = None;
            tokio::time::sleep(wait).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// One session from its opening to its end, which is a failure unless enough is printed.
    async fn one_session(&mut self) -> Result<(), Failure> {
        let session = self.session.insert(self.dialer.open().await?);
        self.opened = Some(self.clock.elapsed());
        let connected = format!("listening as {} on {}", session.agent, self.dialer.relay);
        self.output.note(&escaped(&connected)).await;
        while self.args.count.is_none_or(|count| self.printed < count) {
            let message = session.next().await?;
            if is_wanted(self.args, &message) {
                self.output.result(&shown(self.args, &message)).await?;
                self.printed += 1;
            }
        }
        Ok(())
    }

    /// How long to wait before the next session; or the failure, if there shall be none.
    async fn judge(&mut self, failure: Failure) -> Result<Duration, Failure> {
        let wait = match recovery(&failure) {
            _ if self.args.no_reconnect => return Err(failure),
            Recovery::Stop => return Err(failure),
            Recovery::Retry => delay(self.failures, rand::random()),
            Recovery::RetryAfter(hint) => hinted_delay(hint, self.failures, rand::random()),
        };
        self.output.note(&format!("{failure}; trying again in {wait:.1?}")).await;
        Ok(wait)
    }
}

/// Whether the message passes the filters; what has no readable sender or type passes none.
fn is_wanted(args: &Args, message: &Received) -> bool {
    let among = |list: &[String], word: &str| list.is_empty() || list.iter().any(|w| w == word);
    among(&args.from, message.sender()) && among(&args.kinds, message.kind().unwrap_or_default())
}

fn shown(args: &Args, message: &Received) -> String {
    if args.json { on_one_line(&message.text) } else { message.line(args.relay.verbose) }
}
