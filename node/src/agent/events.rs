//! `arc-relay events`: what happened, as one node remembers it, and with `--follow` what happens.
//!
//! Asks again and again rather than holding a stream open: so a follower outlives the node's restart by
//! nothing but asking once more, and takes none of the places of dashboards.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    args::OpsArgs,
    failure::Failure,
    http::Call,
    message::moment,
    output::Output,
    paint::{Hue, Paint},
    recovery::{Recovery, recovery},
    text::{counted, escaped, on_one_line},
};

/// Events that a node remembers at the most.
const ALL: usize = 512;

/// How often a follower asks.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Options of `arc-relay events`.
#[derive(clap::Args, Clone, Debug)]
pub struct EventsArgs {
    /// Go on with what happens, until Ctrl-C; a restart of the node does not end it
    #[arg(short, long)]
    follow: bool,

    /// Show events of this level and above: info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "info", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(LEVELS).map(|level| rank(&level)))]
    level: usize,

    /// Show so many of the latest first, 512 at the most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    last: usize,

    #[command(flatten)]
    ops: OpsArgs,
}

/// From the least to the most urgent.
const LEVELS: [&str; 3] = ["info", "warn", "error"];

/// The node's answer; events are passed on to programs as they are.
#[derive(Deserialize)]
struct Page {
    epoch: u64,
    events: Vec<Box<RawValue>>,
    next: u64,
    missed: u64,
}

/// As much of an event as is shown; a later release may have other levels and kinds.
#[derive(Deserialize)]
struct Told {
    ts: u64,
    level: String,
    kind: String,
    node: String,
    text: String,
}

/// Until where this reader has read, in which of the node's lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    epoch: u64,
    after: u64,
}

/// Shows the latest, and what comes until `stop`.
pub(super) async fn run(
    args: &EventsArgs,
    output: &mut Output,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let shown = async {
        let page = ask(&args.ops, None).await?;
        let wanted: Vec<_> = page.events.iter().filter(|it| is_wanted(it, args.level)).collect();
        for event in wanted.iter().skip(wanted.len().saturating_sub(args.last)) {
            show(args, event, output).await?;
        }
        if args.follow { follow(args, page.place(), output).await } else { Ok(()) }
    };
    tokio::select! {
        outcome = shown => outcome,
        () = stop => Ok(()),
    }
}

async fn follow(args: &EventsArgs, mut place: Place, output: &mut Output) -> Result<(), Failure> {
    let mut is_lost = false;
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let page = match ask(&args.ops, Some(place)).await {
            Ok(page) => page,
            Err(failure) if recovery(&failure) == Recovery::Stop => return Err(failure),
            Err(failure) => {
                if !is_lost {
                    output.note(&format!("{failure}; trying again")).await;
                }
                is_lost = true;
                continue;
            }
        };
        if std::mem::take(&mut is_lost) || page.epoch != place.epoch {
            let what = if page.epoch == place.epoch { "answers" } else { "was started" };
            output.note(&format!("the node {what} again")).await;
        }
        if page.missed > 0 {
            let missed = counted(page.missed, "event");
            output.note(&format!("{missed} came too fast, and the node has forgotten them")).await;
        }
        for event in page.events.iter().filter(|event| is_wanted(event, args.level)) {
            show(args, event, output).await?;
        }
        place = page.place();
    }
}

async fn ask(ops: &OpsArgs, place: Option<Place>) -> Result<Page, Failure> {
    let since = place
        .map_or_else(String::new, |Place { epoch, after }| format!("&after={after}&epoch={epoch}"));
    let path = format!("/events?limit={ALL}{since}");
    ops.ask(Call { path: &path, ..Call::default() }).await
}

impl Page {
    fn place(&self) -> Place {
        Place { epoch: self.epoch, after: self.next }
    }
}

async fn show(args: &EventsArgs, event: &RawValue, output: &mut Output) -> Result<(), Failure> {
    let line = match read(event) {
        Some(told) if !args.ops.json => line(&told, output.paint()),
        _ => on_one_line(event.get()),
    };
    output.result(&line).await
}

fn read(event: &RawValue) -> Option<Told> {
    serde_json::from_str(event.get()).ok()
}

/// What cannot be judged is shown.
fn is_wanted(event: &RawValue, least: usize) -> bool {
    read(event).is_none_or(|told| rank(&told.level) >= least)
}

/// A level that is not known is the most urgent.
fn rank(level: &str) -> usize {
    LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len())
}

fn line(told: &Told, paint: Paint) -> String {
    let hue = match rank(&told.level) {
        0 => None,
        1 => Some(Hue::Doubtful),
        _ => Some(Hue::Bad),
    };
    let level = paint.on(hue, &format!("{:<5}", escaped(&told.level)));
    let (node, kind, text) = (escaped(&told.node), escaped(&told.kind), escaped(&told.text));
    format!("{}  {level}  {kind:<11}  {node}: {text}", moment(Some(told.ts)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn event(level: &str) -> Box<RawValue> {
        let json = format!(
            r#"{{"seq":1,"ts":0,"level":"{level}","kind":"link","node":"a","text":"lost\u001b[2J"}}"#
        );
        RawValue::from_string(json).unwrap()
    }

    #[test]
    fn events_are_shown_from_a_level_on() {
        for (level, least, wanted) in [
            ("info", "info", true),
            ("info", "warn", false),
            ("error", "warn", true),
            ("dire", "error", true),
        ] {
            assert_eq!(is_wanted(&event(level), rank(least)), wanted, "{level} {least}");
        }
        assert!(is_wanted(&RawValue::from_string("7".into()).unwrap(), 2), "whatever it is");
    }

    #[test]
    fn an_event_is_a_line_that_moves_nothing() {
        let told = read(&event("warn")).unwrap();
        let expected = "1970-01-01T00:00:00.000Z  warn   link         a: lost\\u{1b}[2J";
        assert_eq!(line(&told, Paint::Plain), expected);
        assert!(line(&told, Paint::Colours).contains("\u{1b}[33mwarn "));
    }
}
