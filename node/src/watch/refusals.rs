//! Attempts to administrate without the admin token, or to ask as another site, and when they are worth an event:
//! anybody who reaches the ops port can make them, and must not push everything else out of the memory of events. Pure.

use std::time::Duration;

/// How often they are spoken of at the most.
const EVERY: Duration = Duration::from_mins(1);

/// The attempts that were not spoken of yet.
#[derive(Debug, Default)]
pub struct Refusals {
    waiting: u64,
    /// What the last of them wanted, and who it was.
    last: String,
    told: Option<Duration>,
}

impl Refusals {
    /// There was another. Gives the event's text if it is time for one.
    pub fn add(&mut self, now: Duration, attempt: String) -> Option<String> {
        self.waiting += 1;
        self.last = attempt;
        self.due(now)
    }

    /// The text of an event, if there is anything to tell: the first attempt at once, and then, once a minute,
    /// those that came meanwhile.
    pub fn due(&mut self, now: Duration) -> Option<String> {
        let is_early = self.told.is_some_and(|told| now.saturating_sub(told) < EVERY);
        if self.waiting == 0 || is_early {
            return None;
        }
        self.told = Some(now);
        let last = std::mem::take(&mut self.last);
        match std::mem::take(&mut self.waiting) {
            1 => Some(last),
            count => Some(format!("{last}; it was the last of {count} attempts")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn any_number_of_attempts_is_one_event_a_minute() {
        let mut refusals = Refusals::default();
        let mut told = Vec::new();
        for second in 0..150 {
            let now = SECOND * second;
            for part in 0..10 {
                told.extend(refusals.add(now, format!("{second}-{part}")).map(|it| (second, it)));
            }
            told.extend(refusals.due(now).map(|it| (second, it)));
        }
        let expected = [
            (0, "0-0"),
            (60, "60-0; it was the last of 600 attempts"),
            (120, "120-0; it was the last of 600 attempts"),
        ];
        assert_eq!(told, expected.map(|(second, text)| (second, text.to_owned())));
        assert_eq!(refusals.due(SECOND * 179), None);
        let rest = Some("149-9; it was the last of 299 attempts".to_owned());
        assert_eq!(refusals.due(SECOND * 180), rest, "none is forgotten when they end");
        assert_eq!(refusals.due(SECOND * 999), None, "what was told is not told again");
    }

    #[test]
    fn after_a_quiet_minute_the_next_is_told_at_once() {
        let mut refusals = Refusals::default();
        for now in [SECOND, SECOND * 61, SECOND * 200] {
            assert_eq!(refusals.add(now, "look".into()).as_deref(), Some("look"));
        }
    }
}
