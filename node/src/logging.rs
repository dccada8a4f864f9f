//! Logging: one line an event, as text for people or JSON for machines.
//!
//! Owns the process-wide subscriber. Lines go to stdout, so that whoever runs the process decides where
//! they are kept, or to a [file](FileConfig) where that is chosen; stderr is left to what keeps it from
//! starting. A token never reaches a line: of a request's target only the matched route is logged, and
//! secrets have a `Debug` that hides them.

mod file;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tracing::Dispatch;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt};

pub use file::FileConfig;

use self::file::LogFile;
use crate::{
    clock::Clock,
    config::{LogConfig, LogFormat},
};

/// The words that `LOG_LEVEL` takes, and the directive each one stands for.
const LEVELS: [(&str, &str); 7] = [
    ("silent", "off"),
    ("off", "off"),
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

/// Libraries that tell of every packet. `debug` and `trace` mean this relay; who wants these too names
/// them, as in `debug,quinn=debug`.
const TALKATIVE: [&str; 4] = ["chitchat", "hyper", "quinn", "rustls"];

/// The target of the lines that say what an administrator did. They are logged at any level but `off`,
/// unless they are named, as in `warn,audit=off`.
pub const AUDIT: &str = "audit";

/// It tells of its every step, and of each disk and link that fails, which the registry says in words
/// for operators; who wants it names it, as in `info,openraft=info`.
const SILENT: &str = "openraft=off";

/// Lines that may wait for a stdout which nobody reads, or a disk that hangs; further ones are dropped, so that the relay
/// goes on. Some 2 MB.
const LINES_MAX: usize = 8_192;

/// Counts the lines that found too many waiting: there is one log in a process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped since the start, because nobody took those before them.
pub fn lines_dropped() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Counts the lines that could not be written to the file.
static UNWRITTEN: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Lines since the start that could not be written to the file, and files that could not be rotated.
pub fn write_failures() -> u64 {
    UNWRITTEN.get().map_or(0, |counter| counter.load(Relaxed))
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is none, though the configuration was checked.
    #[error("{0:?} is not a log level or filter")]
    Filter(String),
    /// The file cannot be made or written.
    #[error("cannot write the log to {} (set by LOG_FILE): its folder must be there, and writable", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in this process logs already.
    #[error("logging is already set up")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends everything logged from now on to where `config` says, shaped as it says, until the writer is
/// dropped; once per process.
pub fn init(config: &LogConfig) -> Result<Writer, Error> {
    let threads = NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).thread_name("log");
    let (colours, (lines, writer)) = match &config.file.path {
        None => (io::stdout().is_terminal(), threads.finish(io::stdout())),
        Some(path) => {
            let opened = LogFile::open(path, &config.file, Clock::system());
            let file = opened.map_err(|source| Error::File { path: path.clone(), source })?;
            let _ = UNWRITTEN.set(file.failures());
            (false, threads.finish(file))
        }
    };
    let _ = DROPPED.set(lines.error_counter());
    let initialised = dispatch(config, lines, colours)?.try_init();
    initialised.map(|()| Writer(writer)).map_err(|error| Error::Twice(error.into()))
}

/// The thread that writes the log; what waits is written when this is dropped.
#[derive(Debug)]
pub struct Writer(#[allow(dead_code)] WorkerGuard); // held for its drop

fn dispatch<W>(config: &LogConfig, writer: W, colours: bool) -> Result<Dispatch, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = filter(&config.level).ok_or_else(|| Error::Filter(config.level.clone()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // With stdout gone there is nobody to tell, and telling stderr of each line may fail too.
        .log_internal_errors(false);
    Ok(match config.format {
        LogFormat::Text => Dispatch::new(lines.with_ansi(colours).finish()),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            Dispatch::new(lines.with_current_span(true).with_span_list(false).finish())
        }
    })
}

/// Reads `LOG_LEVEL`: a level, or comma-separated directives such as `info,node=debug`; none if it
/// is neither.
///
/// Stricter than `tracing-subscriber`, which takes a misspelt level for the name of a module and then
/// logs nothing at all.
pub fn filter(text: &str) -> Option<EnvFilter> {
    let written: Option<Vec<_>> = text.split(',').map(|part| directive(part.trim())).collect();
    let mut directives = written?;
    let says_it =
        |directive: &String| matches!(directive.as_str(), "off" | "info" | "debug" | "trace");
    if !directives.iter().any(says_it) {
        // Who changed what is not a question of how much else is said.
        directives.insert(0, format!("{AUDIT}=info"));
    }
    if directives.iter().any(|directive| matches!(directive.as_str(), "debug" | "trace")) {
        // Of two about the same target the later one counts.
        directives.splice(0..0, TALKATIVE.map(|library| format!("{library}=info")));
    }
    directives.insert(0, SILENT.to_owned());
    EnvFilter::builder().parse(directives.join(",")).ok()
}

fn directive(part: &str) -> Option<String> {
    let level = |word: &str| {
        LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
    };
    match part.rsplit_once('=') {
        _ if part.ends_with(']') => Some(part.into()), // a span with fields, all its levels
        Some((target, word)) if !target.is_empty() => Some(format!("{target}={}", level(word)?)),
        Some(_) => None,
        None => level(part).map(Into::into),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test's panic is its verdict
mod tests {
    use std::{fs::File, io::Read, io::Seek};

    use proptest::prelude::*;

    use super::*;

    /// What `work` logs.
    #[allow(clippy::disallowed_types)] // the only mutex that the library writes through
    fn logged(level: &str, format: LogFormat, work: impl FnOnce()) -> String {
        let mut file = tempfile::tempfile().unwrap();
        let config = LogConfig { level: level.into(), format, file: FileConfig::default() };
        let writer: File = file.try_clone().unwrap();
        tracing::dispatcher::with_default(
            &dispatch(&config, std::sync::Mutex::new(writer), false).unwrap(),
            work,
        );
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_administrators_deeds_are_logged_whatever_the_level() {
        let told = |level: &str| {
            logged(level, LogFormat::Text, || {
                tracing::info!(target: AUDIT, "banned");
                tracing::info!("chatter");
            })
        };
        for level in ["error", "warn"] {
            let text = told(level);
            assert!(text.contains("banned") && !text.contains("chatter"), "{level}: {text}");
        }
        assert_eq!(told("off") + &told("warn,audit=off"), "");
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let text = logged("info", LogFormat::Json, || {
            let span = tracing::info_span!("session", agent = "rawk-042");
            span.in_scope(|| tracing::warn!(bytes = 7, "two\nlines"));
            tracing::debug!("not shown");
        });
        let [line] = text.lines().collect::<Vec<_>>()[..] else { panic!("no single line: {text}") };
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["message"], "two\nlines");
        assert_eq!(event["bytes"], 7);
        assert_eq!(event["span"]["agent"], "rawk-042");
        assert!(event["timestamp"].is_string() && event["target"].is_string());
    }

    #[test]
    fn text_has_no_colours_without_a_terminal() {
        let text = logged("debug", LogFormat::Text, || tracing::debug!(port = 80, "listening"));
        assert!(text.contains("DEBUG") && text.contains("listening port=80"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_level_means_the_relay_and_not_the_libraries_below() {
        let say = || {
            tracing::debug!("ours");
            tracing::debug!(target: "rustls::client::hs", "a suite");
            tracing::debug!(target: "quinn_proto::connection", "a packet");
        };
        let text = logged("debug", LogFormat::Text, say);
        assert!(text.contains("ours") && !text.contains("suite") && !text.contains("packet"));
        let text = logged("debug,quinn=debug", LogFormat::Text, say);
        assert!(text.contains("ours") && !text.contains("suite") && text.contains("packet"));
    }

    #[test]
    fn silent_says_nothing() {
        assert_eq!(logged("silent", LogFormat::Text, || tracing::error!("gone")), "");
    }

    #[test]
    fn levels_of_the_reference_and_directives_are_read() {
        let shown = |text| filter(text).map(|filter| filter.to_string());
        for (name, level) in LEVELS {
            assert!(shown(name).unwrap().ends_with(level), "{name}");
        }
        assert_eq!(shown("INFO").as_deref(), Some("openraft=off,info"));
        assert!(shown("warn, node::http=debug").unwrap().contains("node::http=debug"));
        assert!(shown("info,[session{agent=a}]=trace").is_some());
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "verbose", "inof", "info,", "node=loud", "=debug", "info;debug", "3x"] {
            assert!(filter(text).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = filter(&text);
        }

        #[test]
        fn no_likely_text_panics(text in r"([a-z]{1,5}|[=,:\[\]{}*?\\(])*") {
            let _ = filter(&text);
        }
    }
}
