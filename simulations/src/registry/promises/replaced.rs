//! A leader that most voters are out of reach of is replaced, though one of those whose votes are needed
//! still hears it: a name can be registered with the others soon.

use super::Breach;
use crate::registry::history::History;

pub(super) const NAME: &str = "a leader that most are out of reach of is replaced";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let asked = history.after_stranding.map(|number| (number, &history.calls[number]));
    let refused = asked.filter(|(_, call)| call.is_answered() && !call.is_granted());
    let breach = |(number, call): (usize, &crate::registry::history::Call)| Breach {
        promise: NAME,
        what: format!(
            "call #{number} on node-{}, which most voters are in reach of, could not register a name: {:?}",
            call.node, call.outcome
        ),
        agent: Some(call.what.agent().clone()),
    };
    refused.map(breach).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{history::Outcome, promises::example::*};

    #[test]
    fn a_name_that_cannot_be_registered_is_found() {
        let found = |outcome| {
            let mut history = history(vec![call(0, 10, register(0, false), outcome)]);
            let unasked = breaches(&history).len();
            history.after_stranding = Some(0);
            (unasked, breaches(&history).len())
        };
        assert_eq!(found(granted()), (0, 0));
        assert_eq!(found(Outcome::Unavailable(String::new())), (0, 1));
    }
}
