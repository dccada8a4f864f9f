//! The last hour in numbers, in steps of ten seconds. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use cluster::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What one number of a column stands for.
const STEP: Duration = Duration::from_secs(10);

/// Numbers of a column: an hour. All columns together take 30 KB.
const STEPS_MAX: usize = 360;

/// How the values of one step become one.
#[derive(Clone, Copy)]
enum Merge {
    Mean,
    Highest,
    Lowest,
}

/// The columns, in the order of [`Sample`]'s values.
const COLUMNS: [(&str, Merge); 8] = [
    ("nodes", Merge::Lowest),
    ("agents", Merge::Highest),
    ("messages_per_second", Merge::Mean),
    ("accepted_per_second", Merge::Mean),
    ("delivered_per_second", Merge::Mean),
    ("dropped_per_second", Merge::Mean),
    ("slowest_link_ms", Merge::Highest),
    ("link_queue_bytes", Merge::Highest),
];

/// How it is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Sample {
    /// Nodes that are there.
    pub nodes: f64,
    /// Agents that are connected, in the cluster.
    pub agents: f64,
    /// Messages accepted in the cluster, on the average of the last minute.
    pub messages_per_second: f64,
    /// Messages that this node accepted since the last moment, per second.
    pub accepted_per_second: f64,
    /// Messages that this node put into outboxes since then, per second.
    pub delivered_per_second: f64,
    /// Messages that this node dropped since then, per second.
    pub dropped_per_second: f64,
    /// The longest round trip of this node's links, in milliseconds.
    pub slowest_link_ms: f64,
    /// Bytes that wait in this node's links.
    pub link_queue_bytes: f64,
}

/// The last hour: the body of `GET /history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryReport {
    /// When the last step began, in Unix milliseconds; it is not over yet.
    #[schema(value_type = u64)]
    pub last: UnixMillis,
    /// How long a step is, in milliseconds.
    pub step_ms: u64,
    /// For each column a number per step, the oldest first; null where the node did not look. The highest,
    /// lowest or mean of the step's values, whichever shows trouble. Of the cluster: `nodes`, `agents`,
    /// `messages_per_second`; of the node that is asked: `accepted_per_second`, `delivered_per_second`,
    /// `dropped_per_second`, `slowest_link_ms`, `link_queue_bytes`.
    pub columns: BTreeMap<String, Vec<Option<f64>>>,
}

/// The last hour of [samples](Sample).
#[derive(Debug, Default)]
pub struct History {
    steps: VecDeque<Step>,
    /// Which step the last one is, counted from the node's start.
    last: u64,
}

/// The values of one step, as far as they have come.
#[derive(Clone, Debug, Default)]
struct Step {
    samples: u32,
    values: [f64; COLUMNS.len()],
}

impl Sample {
    fn values(&self) -> [f64; COLUMNS.len()] {
        [
            self.nodes,
            self.agents,
            self.messages_per_second,
            self.accepted_per_second,
            self.delivered_per_second,
            self.dropped_per_second,
            self.slowest_link_ms,
            self.link_queue_bytes,
        ]
    }
}

impl History {
    /// Takes a sample of the time `now` since the node's start.
    pub fn add(&mut self, now: Duration, sample: &Sample) {
        let step = step_of(now);
        if self.steps.is_empty() {
            (self.last, self.steps) = (step, VecDeque::from([Step::default()]));
        }
        let skipped = usize::try_from(step.saturating_sub(self.last)).unwrap_or(usize::MAX);
        for _ in 0..skipped.min(STEPS_MAX) {
            self.steps.push_back(Step::default());
        }
        self.last = self.last.max(step);
        self.steps.drain(..self.steps.len().saturating_sub(STEPS_MAX));
        if let Some(last) = self.steps.back_mut() {
            last.add(sample.values());
        }
    }

    /// The hour before the time `now` since the node's start, which is `wall`.
    pub fn report(&self, now: Duration, wall: UnixMillis) -> HistoryReport {
        let begun = STEP * u32::try_from(self.last).unwrap_or(u32::MAX);
        let ago = u64::try_from(now.saturating_sub(begun).as_millis()).unwrap_or(u64::MAX);
        let column = |place: usize| {
            let value = |step: &Step| {
                let value = step.values.get(place).copied().filter(|_| step.samples > 0);
                value.map(|value| (value * 100.0).round() / 100.0)
            };
            self.steps.iter().map(value).collect::<Vec<_>>()
        };
        let columns =
            COLUMNS.iter().enumerate().map(|(place, (name, _))| ((*name).into(), column(place)));
        HistoryReport {
            last: UnixMillis(wall.0.saturating_sub(ago)),
            step_ms: u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX),
            columns: columns.collect(),
        }
    }
}

impl Step {
    fn add(&mut self, values: [f64; COLUMNS.len()]) {
        self.samples += 1;
        for ((sum, value), (_, merge)) in self.values.iter_mut().zip(values).zip(COLUMNS) {
            *sum = match merge {
                _ if self.samples == 1 => value,
                Merge::Mean => *sum + (value - *sum) / f64::from(self.samples),
                Merge::Highest => sum.max(value),
                Merge::Lowest => sum.min(value),
            };
        }
    }
}

fn step_of(now: Duration) -> u64 {
    now.as_secs() / STEP.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: f64) -> Sample {
        Sample { nodes: number, agents: number, accepted_per_second: number, ..Sample::default() }
    }

    fn column(history: &History, second: u64, name: &str) -> Vec<Option<f64>> {
        let now = Duration::from_secs(second);
        history.report(now, UnixMillis(1_000_000)).columns[name].clone()
    }

    #[test]
    fn a_step_shows_what_matters_of_its_seconds() {
        let mut history = History::default();
        for (second, number) in [(20, 4.0), (25, 2.0), (29, 6.0), (30, 1.0)] {
            history.add(Duration::from_secs(second), &sample(number));
        }
        assert_eq!(column(&history, 33, "agents"), [Some(6.0), Some(1.0)]);
        assert_eq!(column(&history, 33, "nodes"), [Some(2.0), Some(1.0)]);
        assert_eq!(column(&history, 33, "accepted_per_second"), [Some(4.0), Some(1.0)]);
        let report = history.report(Duration::from_secs(33), UnixMillis(1_000_000));
        assert_eq!((report.last, report.step_ms), (UnixMillis(997_000), 10_000));
    }

    #[test]
    fn what_was_not_looked_at_is_not_made_up() {
        let mut history = History::default();
        history.add(Duration::from_secs(0), &sample(1.0));
        history.add(Duration::from_secs(30), &sample(2.0));
        assert_eq!(column(&history, 30, "agents"), [Some(1.0), None, None, Some(2.0)]);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        for second in 0..2 * 3_600 {
            history.add(
                Duration::from_secs(second),
                &sample(f64::from(u32::try_from(second).unwrap())),
            );
        }
        let agents = column(&history, 7_200, "agents");
        assert_eq!((agents.len(), agents[0], agents[359]), (360, Some(3_609.0), Some(7_199.0)));
        history.add(Duration::from_hours(100), &sample(1.0));
        let agents = column(&history, 360_000, "agents");
        assert_eq!((agents.len(), agents[0], agents[359]), (360, None, Some(1.0)));
    }
}
