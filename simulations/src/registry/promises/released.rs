//! When all is whole again, no name is taken with nobody holding its token.
//!
//! Not covered: attempts whose node died before it answered, and what a node still had to give back when
//! it died: it is gone with that, and says so in its log when it stops in order. And a name for which a
//! token may have been issued anew for an administrator who was not answered: it ends the claim, by which
//! alone the name could be given back; he knows the name, and asks again.

use super::Breach;
use crate::registry::history::{History, Outcome, What};

pub(super) const NAME: &str = "no name stays taken for nobody";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let known = history.names.keys().filter(|agent| !history.forgotten.contains(*agent));
    let nobodys = known.filter(|agent| {
        !history.about(agent).any(|(_, call)| {
            call.is_granted()
                || matches!(call.outcome, Outcome::Died)
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
