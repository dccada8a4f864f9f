//! Lost messages by reason: how many in the last minute, and when it is worth a word. Pure.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::event::Level;

/// What is looked back on.
const MINUTE: Duration = Duration::from_mins(1);

/// Losses that an operator can do something about: the others are agents' own doing.
const ALARMING: [&str; 8] = [
    "unresolved",
    "route_full",
    "link_full",
    "link_lost",
    "stale",
    "stray",
    "slow_consumer",
    "session_lost",
];

/// Messages that were lost for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Loss {
    /// Why, as in `arc_messages_dropped_total`.
    pub reason: String,
    /// Since the node's start.
    pub total: u64,
    /// In the last minute.
    pub last_minute: u64,
    /// For how many seconds it has gone on without a minute's pause; 0 if nothing was lost in the last
    /// minute, or the node does not say.
    #[serde(default)]
    pub lasting_s: u64,
}

impl Loss {
    /// Adds what another node lost for the same reason.
    pub(super) fn add(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.last_minute = self.last_minute.saturating_add(other.last_minute);
        self.lasting_s = self.lasting_s.max(other.lasting_s);
    }
}

/// What was lost until now.
#[derive(Debug, Default)]
pub struct Losses {
    /// What was counted at each look of the last minute, the latest last.
    looks: VecDeque<(Duration, Vec<u64>)>,
    /// By reason: the count that was last spoken of, and when.
    told: Vec<(u64, Option<Duration>)>,
    /// By reason: since when there was a loss in each minute.
    since: Vec<Option<Duration>>,
    reasons: Vec<&'static str>,
}

impl Losses {
    /// Takes the counts by reason, always the same reasons in the same order, and says what is worth an
    /// event: for each reason the first loss at once, and then once a minute what was lost meanwhile.
    pub fn look(
        &mut self,
        now: Duration,
        counts: impl Iterator<Item = (&'static str, u64)>,
    ) -> Vec<(Level, String)> {
        let (reasons, counts): (Vec<_>, Vec<_>) = counts.unzip();
        self.told.resize(reasons.len(), (0, None));
        self.reasons = reasons;
        let mut told = Vec::new();
        for ((reason, count), last) in self.reasons.iter().zip(&counts).zip(&mut self.told) {
            let (before, at) = *last;
            if *count > before && at.is_none_or(|at| now.saturating_sub(at) >= MINUTE) {
                *last = (*count, Some(now));
                told.push((level(reason), sentence(*count - before, reason)));
            }
        }
        self.looks.push_back((now, counts));
        while self.looks.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= MINUTE) {
            self.looks.pop_front();
        }
        self.note_since(now);
        told
    }

    fn note_since(&mut self, now: Duration) {
        let (Some((_, first)), Some((_, last))) = (self.looks.front(), self.looks.back()) else {
            return;
        };
        self.since.resize(last.len(), None);
        for (since, (first, last)) in self.since.iter_mut().zip(first.iter().zip(last)) {
            *since = (last > first).then(|| since.unwrap_or(now));
        }
    }

    /// What was lost until the last look, for the reasons for which anything was.
    pub fn all(&self) -> Vec<Loss> {
        let (Some((_, first)), Some((now, last))) = (self.looks.front(), self.looks.back()) else {
            return Vec::new();
        };
        let each = self.reasons.iter().zip(&self.since).zip(first.iter().zip(last));
        let losses = each.map(|((reason, since), (first, last))| Loss {
            reason: (*reason).to_owned(),
            total: *last,
            last_minute: last.saturating_sub(*first),
            lasting_s: since.map_or(0, |since| now.saturating_sub(since).as_secs()),
        });
        losses.filter(|loss| loss.total > 0).collect()
    }
}

fn level(reason: &str) -> Level {
    if ALARMING.contains(&reason) { Level::Warn } else { Level::Info }
}

fn sentence(lost: u64, reason: &str) -> String {
    let messages = if lost == 1 { "1 message was".into() } else { format!("{lost} messages were") };
    let why = match reason {
        "offline" => "the recipient is not connected",
        "unresolved" => "the recipient's place was not found out in time",
        "route_full" => "too many waited for the recipient's place",
        "link_full" => "the queue to the recipient's node was full",
        "link_lost" => "the link to the recipient's node was lost",
        "stale" => "they came back from a former node of the recipient too late",
        "stray" => "another node had no business to send them",
        "refused" => "the recipient takes none",
        "slow_consumer" => "the recipient read too slowly and was cut off",
        "session_lost" => "the recipient's connection broke or went silent",
        "rate_limit" => "the sender was over its rate",
        "invalid" => "they were no valid messages",
        "not_permitted" => "the sender's token does not allow them",
        other => other,
    };
    format!("{messages} dropped: {why} ({reason})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(
        losses: &mut Losses,
        second: u64,
        offline: u64,
        link_full: u64,
    ) -> Vec<(Level, String)> {
        let counts = [("offline", offline), ("link_full", link_full)];
        losses.look(Duration::from_secs(second), counts.into_iter())
    }

    #[test]
    fn a_loss_is_told_at_once_and_then_once_a_minute() {
        let mut losses = Losses::default();
        assert_eq!(look(&mut losses, 0, 0, 0), []);
        let first = "1 message was dropped: the recipient is not connected (offline)";
        assert_eq!(look(&mut losses, 1, 1, 0), [(Level::Info, first.into())]);
        assert_eq!(look(&mut losses, 2, 500, 0), [], "not each second");
        let told = look(&mut losses, 3, 500, 2);
        assert_eq!(told.len(), 1, "another reason has its own minute");
        assert_eq!(told[0].0, Level::Warn);
        assert_eq!(look(&mut losses, 60, 500, 2), []);
        let later = look(&mut losses, 61, 500, 2);
        assert!(later[0].1.starts_with("499 messages were dropped"), "{later:?}");
        assert_eq!(look(&mut losses, 200, 500, 2), [], "nothing is told twice");
    }

    #[test]
    fn the_last_minute_is_what_came_in_it() {
        let mut losses = Losses::default();
        for second in 0..=90 {
            look(&mut losses, second, second * 2, 0);
        }
        let (total, last_minute, lasting_s) = (180, 120, 89);
        let expected = Loss { reason: "offline".into(), total, last_minute, lasting_s };
        assert_eq!(losses.all(), [expected]);
        assert!(losses.looks.len() <= 62, "{}", losses.looks.len());
    }

    #[test]
    fn a_loss_lasts_until_a_minute_is_without() {
        let mut losses = Losses::default();
        let mut lasting = |second, offline| {
            look(&mut losses, second, offline, 0);
            losses.all().first().map(|loss| (loss.last_minute, loss.lasting_s))
        };
        let mut told = Vec::new();
        for second in 0..300 {
            // One at second 10, one at 60, and then none before 200.
            let lost = [10, 60, 200].iter().filter(|at| second >= **at).count() as u64;
            told.push(lasting(second, lost));
        }
        assert_eq!(told[9], None, "nothing was lost");
        assert_eq!((told[10], told[60]), (Some((1, 0)), Some((2, 50))));
        assert_eq!(told[119], Some((1, 109)));
        assert_eq!(told[120], Some((0, 0)), "a minute has passed");
        assert_eq!((told[200], told[230]), (Some((1, 0)), Some((1, 30))), "that is another one");
    }
}
