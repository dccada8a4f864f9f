//! What the registry promises, each promise in a file of its own.
//!
//! Each looks at what was seen in a run and at nothing else: it knows neither logs nor leaders. What a
//! promise does not cover is written down at it.

mod equal_books;
mod healed;
mod in_time;
mod linearizable;
mod nothing_lost;
mod one_owner;
mod order;
mod released;
mod replaced;
mod revoked;
mod undisturbed;

use std::fmt;

use cluster::AgentId;

use super::history::History;

/// A promise: its name, and what breaks it in a run.
type Promise = (&'static str, fn(&History) -> Vec<Breach>);

/// All promises, in the order in which they are judged: what explains others comes first.
pub const PROMISES: [Promise; 10] = [
    (one_owner::NAME, one_owner::breaches),
    (nothing_lost::NAME, nothing_lost::breaches),
    (linearizable::NAME, linearizable::breaches),
    (revoked::NAME, revoked::breaches),
    (undisturbed::NAME, undisturbed::breaches),
    (replaced::NAME, replaced::breaches),
    (released::NAME, released::breaches),
    (equal_books::NAME, equal_books::breaches),
    (in_time::NAME, in_time::breaches),
    (healed::NAME, healed::breaches),
];

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which promise.
    pub promise: &'static str,
    /// What was seen, in words.
    pub what: String,
    /// The agent that it concerns, if one.
    pub agent: Option<AgentId>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What breaks the promises in a run.
pub fn breaches(history: &History) -> Vec<Breach> {
    PROMISES.iter().flat_map(|(_, breaches)| breaches(history)).collect()
}

/// How many names' histories could not be told to have an order or none.
pub fn undecided(history: &History) -> usize {
    linearizable::undecided(history)
}

/// Histories for the promises' own tests.
#[cfg(test)]
pub(crate) mod example {
    use std::time::Duration;

    use cluster::AgentId;

    use crate::registry::history::{Call, History, Outcome, What};

    pub(crate) fn agent() -> AgentId {
        "name-0".parse().unwrap()
    }

    pub(crate) fn register(claim: usize, repeatable: bool) -> What {
        What::Register { agent: agent(), claim, repeatable }
    }

    pub(crate) fn granted() -> Outcome {
        Outcome::Granted(String::new(), None)
    }

    /// A call from and until these milliseconds.
    pub(crate) fn call(from: u64, until: u64, what: What, outcome: Outcome) -> Call {
        let [at, done] = [from, until].map(Duration::from_millis);
        Call { node: 0, at, what, done: Some(done), outcome }
    }

    pub(crate) fn history(calls: Vec<Call>) -> History {
        let ended = Duration::from_mins(1);
        History { calls, voters: 3, healed: Some(ended), ended, ..History::default() }
    }
}
