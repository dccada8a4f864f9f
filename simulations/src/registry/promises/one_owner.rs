//! No id is ever owned by two, and no two tokens have one serial.

use std::collections::BTreeMap;

use cluster::token::Grant;

use super::Breach;
use crate::registry::history::{History, What};

pub(super) const NAME: &str = "no name is ever owned by two";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let mut owners = BTreeMap::new();
    let mut serials = BTreeMap::new();
    let mut breaches = Vec::new();
    for (number, call) in history.calls.iter().enumerate().filter(|(_, call)| call.is_granted()) {
        let agent = call.what.agent();
        let serial = call.grant().map(Grant::serial);
        let mut breach = |what: String| {
            breaches.push(Breach { promise: NAME, what, agent: Some(agent.clone()) });
        };
        // Whoever repeats a claim is given the same; every other token is a new one.
        let issue = match &call.what {
            What::Register { claim, .. } => (agent.clone(), Ok(*claim)),
            _ => (agent.clone(), Err(number)),
        };
        if let What::Register { claim, .. } = &call.what {
            let (owner, first) = *owners.entry(agent.clone()).or_insert((*claim, number));
            if owner != *claim {
                breach(format!(
                    "{agent} was given to claim {owner} by call #{first} and to claim {claim} by call #{number}"
                ));
            }
        }
        if let Some(serial) = serial {
            let (of, first) = serials.entry(serial).or_insert_with(|| (issue.clone(), number));
            if *of != issue {
                breach(format!("calls #{first} and #{number} were both given serial {}", serial.0));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::promises::example::*;

    #[test]
    fn two_owners_are_one_too_many() {
        let one = call(0, 1, register(0, true), granted());
        let again = call(2, 3, register(0, true), granted());
        let other = call(4, 5, register(1, true), granted());
        assert_eq!(breaches(&history(vec![one.clone(), again])), []);
        assert_eq!(breaches(&history(vec![one, other])).len(), 1);
    }
}
