//! Who was cut off and is linked again disturbs nobody: where names could be registered they can be, as
//! fast as ever.
//!
//! Not covered: where they could not, since the leader was among those that were cut off and no other was
//! elected yet.

use std::time::Duration;

use super::Breach;
use crate::registry::history::{Call, History};

pub(super) const NAME: &str = "who was cut off and comes back disturbs nobody";

/// How long a registration takes at most where all is well; an election takes longer.
const FAST: Duration = Duration::from_millis(400);

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let Some((before, after)) = history.around_return.split_first() else { return Vec::new() };
    let call = |number: usize| &history.calls[number];
    let took = |call: &Call| call.done.unwrap_or(history.ended).saturating_sub(call.at);
    if !call(*before).is_granted() || took(call(*before)) > FAST {
        return Vec::new();
    }
    // What was still under way when nobody waited any more may have been on time.
    let disturbed = after.iter().filter(|number| {
        let call = call(**number);
        took(call) > FAST || call.is_answered() && !call.is_granted()
    });
    let breach = |number: &usize| Breach {
        promise: NAME,
        what: format!("call #{number} could not register a name at once"),
        agent: Some(call(*number).what.agent().clone()),
    };
    disturbed.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{history::Outcome, promises::example::*};

    #[test]
    fn what_fails_or_takes_long_after_the_return_is_found() {
        let fast = call(0, 10, register(0, false), granted());
        let slow = call(20, 500, register(1, false), granted());
        let unavailable = call(20, 30, register(1, false), Outcome::Unavailable(String::new()));
        let given_up = call(20, 30, register(1, false), Outcome::GaveUp);
        let found = |calls: [&Call; 2]| {
            let mut history = history(calls.map(Clone::clone).into());
            history.around_return = vec![0, 1];
            breaches(&history).len()
        };
        assert_eq!(found([&fast, &fast]), 0);
        assert_eq!(found([&fast, &slow]), 1);
        assert_eq!(found([&fast, &unavailable]), 1);
        assert_eq!(found([&fast, &given_up]), 0, "it had no time");
        assert_eq!(found([&unavailable, &unavailable]), 0, "as it was before");
    }
}
