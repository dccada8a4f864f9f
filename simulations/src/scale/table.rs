//! Tables as Markdown has them, and numbers as people read them.

use std::{fmt, time::Duration};

/// Rows under a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).into(), rows: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        let rule: Vec<&str> =
            (0..self.head.len()).map(|n| if n == 0 { "---" } else { "---:" }).collect();
        writeln!(f, "| {} |", rule.join(" | "))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// With a comma between thousands.
pub(super) fn whole(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

/// A part in so many.
pub(super) fn ratio(part: impl TryInto<u64>, whole: impl TryInto<u64>) -> f64 {
    let float = |number: u64| {
        #[allow(clippy::cast_precision_loss, reason = "for people to read")]
        let float = number as f64;
        float
    };
    let number = |number: Result<u64, _>| float(number.unwrap_or(u64::MAX));
    number(part.try_into().map_err(|_| ())) / number(whole.try_into().map_err(|_| ())).max(1.0)
}

/// With one decimal.
pub(super) fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// In whole milliseconds, or with a decimal if it is below ten.
pub(super) fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

/// The value below which so many of a hundred are; sorts them.
pub(super) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_tables_are_markdown() {
        assert_eq!(whole(0_u64), "0");
        assert_eq!(whole(999_u64), "999");
        assert_eq!(whole(1_234_567_u64), "1,234,567");
        assert!((ratio(1_u64, 4_u64) - 0.25).abs() < 1e-9);
        assert_eq!(millis(Duration::from_micros(1_520)), "1.5 ms");
        assert_eq!(millis(Duration::from_millis(152)), "152 ms");
        let mut table = Table::new(["what", "how many"]);
        table.row(["records".to_owned(), whole(7_000_u64)]);
        let expected = "| what | how many |\n| --- | ---: |\n| records | 7,000 |\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn percentiles_are_of_what_there_is() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 50), Duration::from_millis(51));
        assert_eq!(percentile(&mut times, 100), Duration::from_millis(100));
        assert_eq!(percentile(&mut [], 99), Duration::ZERO);
    }
}
