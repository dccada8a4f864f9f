//! When all is whole again, no name is taken with nobody holding its token.
//!
//! Not covered: attempts whose node died before it answered. It is gone with all that it would have
//! given back, and says so in its log when it stops in order. And a name for which a token was issued
//! anew for an administrator who was not answered: no claim takes it away any more, and he asks again.

use super::Breach;
use crate::registry::history::{History, Outcome, What};

pub(super) const NAME: &str = "no name stays taken for nobody";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let nobodys = history.names.keys().filter(|agent| {
        !history.about(agent).any(|(number, call)| {
            call.is_granted()
                || matches!(call.outcome, Outcome::Died)
                || history.orphaned.contains(&number)
                || !call.is_certain()
                    && matches!(
                        call.what,
                        What::Register { repeatable: true, .. } | What::Reissue(_)
                    )
        })
    });
    let breach = |agent: &cluster::AgentId| Breach {
        promise: NAME,
        what: format!("{agent} is taken, and nobody was given a token"),
        agent: Some(agent.clone()),
    };
    nobodys.map(breach).collect()
}

#[cfg(test)]
mod tests {
    use cluster::{UnixMillis, registry::AgentRecord, token::Serial};

    use super::*;
    use crate::registry::promises::example::*;

    #[test]
    fn a_name_of_nobody_is_found() {
        let lost = Outcome::Unavailable(String::new());
        let mut history = history(vec![call(0, 1, register(0, false), lost)]);
        let record = AgentRecord {
            registered_at: UnixMillis(0),
            serial: Serial(1),
            revoked: false,
            banned: false,
        };
        history.names.insert(agent(), record);
        assert_eq!(breaches(&history).len(), 1);
        history.calls.push(call(2, 3, register(1, false), granted()));
        assert_eq!(breaches(&history), []);
    }
}
