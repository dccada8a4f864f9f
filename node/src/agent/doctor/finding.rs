//! What was found: how much it matters, what it is, what to do; and all of it as text for people.

use std::fmt::Write as _;

use serde::Serialize;

use crate::agent::{
    paint::{Hue, Paint},
    text::{counted, escaped},
};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It is as it should be.
    Ok,
    /// It works, and should be seen to.
    Warning,
    /// It keeps the node from doing its work.
    Error,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at, for programs.
    pub(super) check: &'static str,
    /// What is there.
    pub(super) found: String,
    /// What to do about it; none if it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, found: found.into(), remedy: None }
    }

    /// To be seen to.
    pub(super) fn warning(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, check, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// To be mended.
    pub(super) fn error(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Error, ..Self::warning(check, found, remedy) }
    }
}

/// A line each, and what to do below it; how many of which level at the end.
pub(super) fn told(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for Finding { level, check, found, remedy } in findings {
        let (word, hue) = match level {
            Level::Ok => ("ok", Hue::Good),
            Level::Warning => ("warning", Hue::Doubtful),
            Level::Error => ("error", Hue::Bad),
        };
        let word = paint.on(Some(hue), &format!("{word:<7}"));
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "{word}  {check:<12}  {}", escaped(found));
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:23}-> {}", "", escaped(remedy));
        }
    }
    let count = |level| findings.iter().filter(|it| it.level == level).count() as u64;
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let _ = match (errors, warnings) {
        (0, 0) => write!(text, "\nall is well"),
        (0, _) => write!(text, "\n{}", counted(warnings, "warning")),
        _ => write!(text, "\n{}, {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_what_to_do_below() {
        let findings = [
            Finding::ok("ports", "free\u{1b}[2J"),
            Finding::warning("clock", "slow", "set it"),
            Finding::error("disk", "full", "make room"),
        ];
        let expected = "\
ok       ports         free\\u{1b}[2J
warning  clock         slow
                       -> set it
error    disk          full
                       -> make room

1 error, 1 warning";
        assert_eq!(told(&findings, Paint::Plain), expected);
        assert!(told(&findings[..1], Paint::Plain).ends_with("all is well"));
        assert!(told(&findings[..2], Paint::Plain).ends_with("\n1 warning"));
        assert!(told(&findings, Paint::Colours).contains("\u{1b}[31merror  \u{1b}[0m"));
    }
}
