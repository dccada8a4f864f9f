//! Prometheus text, read.

use std::collections::BTreeSet;

/// The samples of one scrape.
#[derive(Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: String,
    value: String,
}

impl Metrics {
    /// Reads the text exposition format; fails on any line that does not follow it.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(Sample::parse).collect())
    }

    /// The sum over all samples of `name` whose labels include every one of `labels`; 0 if there
    /// are none. They must be whole numbers, as all are that count something.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let matches = |sample: &&Sample| {
            sample.name == name && wanted.iter().all(|label| sample.labels.contains(label))
        };
        let whole =
            |value: &str| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is {value}"));
        self.0.iter().filter(matches).map(|sample| whole(&sample.value)).sum()
    }

    /// The names of all samples.
    pub fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|sample| sample.name.as_str()).collect()
    }

    /// The text of all labels, for tests of what must not be in them.
    pub fn labels(&self) -> Vec<&str> {
        self.0.iter().map(|sample| sample.labels.as_str()).collect()
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        assert!(value.parse::<f64>().is_ok(), "no number: {line}");
        let labels = labels.trim_end_matches('}').to_owned();
        Self { name: name.to_owned(), labels, value: value.to_owned() }
    }
}
