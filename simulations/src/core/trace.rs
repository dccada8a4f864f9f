//! What is written down of a run: always a digest, and lines if they are asked for.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// What is of interest when a run is repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What happens to these agents.
    pub agents: BTreeSet<usize>,
    /// And to these messages.
    pub messages: BTreeSet<usize>,
    /// In this time.
    pub from: Duration,
    /// Until then.
    pub until: Duration,
}

/// Writes down what happens.
#[derive(Debug, Default)]
pub(super) struct Trace {
    about: Option<About>,
    pub lines: Vec<String>,
    digest: DefaultHasher,
}

impl Trace {
    pub(super) fn new(about: Option<About>) -> Self {
        Self { about, ..Self::default() }
    }

    /// Something that belongs to the run's identity.
    pub(super) fn digest(&mut self, what: &impl Hash) {
        what.hash(&mut self.digest);
    }

    /// The identity of all that happened.
    pub(super) fn sum(&self) -> u64 {
        self.digest.finish()
    }

    /// Whether lines are written at all.
    pub(super) fn is_on(&self) -> bool {
        self.about.is_some()
    }

    /// Something that concerns the whole cluster.
    pub(super) fn all(&mut self, now: Duration, line: impl FnOnce() -> String) {
        if self.about.as_ref().is_some_and(|about| about.spans(now)) {
            self.write(now, &line());
        }
    }

    /// Something that an agent does or suffers, or what becomes of one of its messages.
    pub(super) fn agent(
        &mut self,
        now: Duration,
        agent: usize,
        message: Option<usize>,
        line: impl FnOnce() -> String,
    ) {
        let wanted = |about: &About| match message {
            Some(message) => about.spans(now) && about.messages.contains(&message),
            None => about.spans(now) && about.agents.contains(&agent),
        };
        if self.about.as_ref().is_some_and(wanted) {
            self.write(now, &line());
        }
    }

    /// A frame, if it carries a message or else speaks of an agent that is of interest.
    pub(super) fn frame(&mut self, now: Duration, text: &str) {
        let Some(about) = self.about.as_ref().filter(|about| about.spans(now)) else { return };
        let wanted = match number_after(text, "message ").next() {
            Some(message) => about.messages.contains(&message),
            None => number_after(text, "agent-").any(|agent| about.agents.contains(&agent)),
        };
        if wanted {
            self.write(now, text);
        }
    }

    fn write(&mut self, now: Duration, line: &str) {
        self.lines.push(format!("{:>10.6} s  {line}", now.as_secs_f64()));
    }
}

/// The numbers that follow a word in a text.
fn number_after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.split(word).skip(1).filter_map(|rest| {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest[..digits].parse().ok()
    })
}

impl About {
    fn spans(&self, now: Duration) -> bool {
        (self.from..=self.until).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_that_speak_of_what_is_looked_at() {
        let about = About {
            agents: [7].into(),
            messages: [12].into(),
            until: Duration::MAX,
            ..About::default()
        };
        let mut trace = Trace::new(Some(about));
        for text in ["Direct message 12 for agent-1", "Direct message 1 for agent-7"] {
            trace.frame(Duration::ZERO, text);
        }
        for text in ["Publish agent-7 ", "Publish agent-77"] {
            trace.frame(Duration::ZERO, text);
        }
        let found: Vec<bool> = trace.lines.iter().map(|line| line.contains("agent-7 ")).collect();
        assert_eq!(found, [false, true], "{:?}", trace.lines);
    }
}
