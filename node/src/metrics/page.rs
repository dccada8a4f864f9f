//! Prometheus' text format, for what is known only when it is asked for: series whose labels name peers,
//! certificates or voters, and end with them.
//!
//! What is counted is the recorder's, which never forgets a series; here nothing is kept from one scrape
//! to the next. Writes numbers and labels; decides nothing.

use std::fmt::{self, Write};

/// A page of metrics that is being written.
#[derive(Debug)]
pub(super) struct Page(String);

/// The series of one metric.
#[derive(Debug)]
pub(super) struct Family<'p> {
    page: &'p mut String,
    name: &'static str,
}

/// Names and values of labels.
pub(super) type Labels<'l> = [(&'static str, &'l str)];

/// The text of a label's value, or of a description: no line break, no quotation mark unescaped.
struct Escaped<'t>(&'t str);

impl Page {
    /// A page that goes on where another text ends.
    pub(super) fn behind(text: String) -> Self {
        Self(text)
    }

    /// Begins a metric whose value goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Begins a metric that only grows, until it begins again.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// Writes a histogram without labels: how many fell at or below each bound and above the one before,
    /// how many above all, and their sum.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        buckets: impl Iterator<Item = (f64, u64)>,
        above: u64,
        sum: f64,
    ) {
        self.family(name, "histogram", help);
        let mut count = 0;
        for (bound, within) in buckets {
            count += within;
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {count}"); // a String takes it all
        }
        count += above;
        let _ = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(self.0, "{name}_sum {sum}\n{name}_count {count}");
    }

    /// The page.
    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let _ = write!(self.0, "\n# HELP {name} {}\n# TYPE {name} {kind}\n", Escaped(help));
        Family { page: &mut self.0, name }
    }
}

impl Family<'_> {
    /// One of its series; `value` is a number.
    pub(super) fn with(&mut self, labels: &Labels<'_>, value: impl fmt::Display) -> &mut Self {
        self.page.push_str(self.name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(self.page, "{before}{label}=\"{}\"", Escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{after} {value}");
        self
    }

    /// Its only series.
    pub(super) fn is(&mut self, value: impl fmt::Display) {
        self.with(&[], value);
    }

    /// One series for each state that there may be: 1 for the one that is, 0 for the others.
    pub(super) fn state(&mut self, label: &'static str, states: &[&str], now: &str) {
        for state in states {
            self.with(&[(label, state)], u8::from(*state == now));
        }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::behind("before 1\n".into());
        page.gauge("arc_a", "what it is").with(&[("peer", "x\"\\\ny"), ("of", "")], 0.5);
        page.counter("arc_b_total", "counted").is(7_u64);
        page.gauge("arc_phase", "where").state("phase", &["on", "off"], "off");
        let expected = "before 1\n\n\
            # HELP arc_a what it is\n# TYPE arc_a gauge\narc_a{peer=\"x\\\"\\\\\\ny\",of=\"\"} 0.5\n\n\
            # HELP arc_b_total counted\n# TYPE arc_b_total counter\narc_b_total 7\n\n\
            # HELP arc_phase where\n# TYPE arc_phase gauge\n\
            arc_phase{phase=\"on\"} 0\narc_phase{phase=\"off\"} 1\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn a_histogram_adds_up() {
        let mut page = Page::behind(String::new());
        page.histogram("arc_h_seconds", "h", [(0.001, 2), (0.1, 0), (1.0, 3)].into_iter(), 1, 4.5);
        let text = page.into_text();
        for line in [
            "arc_h_seconds_bucket{le=\"0.001\"} 2",
            "arc_h_seconds_bucket{le=\"0.1\"} 2",
            "arc_h_seconds_bucket{le=\"1\"} 5",
            "arc_h_seconds_bucket{le=\"+Inf\"} 6",
            "arc_h_seconds_sum 4.5",
            "arc_h_seconds_count 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
