//! Logging: one line an event on stdout, as text for people or JSON for machines.
//!
//! Owns the process-wide subscriber. Logs go to stdout in both formats, so that whoever runs the
//! process decides where they are kept; stderr is left to what keeps it from starting. A token never
//! reaches a line: what comes from a request's target passes through [`redact_query`] first.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

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

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is none, though the configuration was checked.
    #[error("{0:?} is not a log level or filter")]
    Filter(String),
    /// Something in this process logs already.
    #[error("logging is already set up: {0}")]
    Subscriber(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends everything logged from now on to stdout, shaped as `config` says; once per process.
pub fn init(config: &LogConfig) -> Result<(), Error> {
    let filter = filter(&config.level).ok_or_else(|| Error::Filter(config.level.clone()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stdout)
        // With stdout gone there is nobody to tell, and telling stderr of each line may fail too.
        .log_internal_errors(false);
    match config.format {
        LogFormat::Text => lines.with_ansi(io::stdout().is_terminal()).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    }
    .map_err(Error::Subscriber)
}

/// Reads `LOG_LEVEL`: a level, or comma-separated directives such as `info,node=debug`; none if it
/// is neither.
///
/// Stricter than `tracing-subscriber`, which takes a misspelt level for the name of a module and then
/// logs nothing at all.
pub fn filter(text: &str) -> Option<EnvFilter> {
    let directives: Option<Vec<_>> = text.split(',').map(|part| directive(part.trim())).collect();
    EnvFilter::builder().parse(directives?.join(",")).ok()
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

/// The path of a request's target with its query, which may hold a token, replaced by `?…`.
pub fn redact_query(target: &str) -> String {
    match target.find(['?', '#']) {
        Some(end) => format!("{}?…", &target[..end]),
        None => target.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test's panic is its verdict
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_query_is_never_shown() {
        for (target, shown) in [
            ("/arc?token=tok_secret", "/arc?…"),
            ("/arc?a=1&token=tok_secret?x", "/arc?…"),
            ("/arc?", "/arc?…"),
            ("/arc#tok_secret", "/arc?…"),
            ("ws://relay.example:8080/arc?token=tok_secret", "ws://relay.example:8080/arc?…"),
            ("?token=tok_secret", "?…"),
            ("/health", "/health"),
            ("", ""),
        ] {
            assert_eq!(redact_query(target), shown);
        }
    }

    #[test]
    fn levels_of_the_reference_and_directives_are_read() {
        let shown = |text| filter(text).map(|filter| filter.to_string());
        for (name, level) in LEVELS {
            assert_eq!(shown(name).as_deref(), Some(level));
        }
        assert_eq!(shown("INFO").as_deref(), Some("info"));
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
        fn no_text_panics(text in ".*", target in ".*") {
            let _ = filter(&text);
            prop_assert!(!redact_query(&format!("/arc?{target}")).contains("/arc?t"));
        }

        #[test]
        fn no_likely_text_panics(text in r"([a-z]{1,5}|[=,:\[\]{}*?\\(])*") {
            let _ = filter(&text);
        }
    }
}
