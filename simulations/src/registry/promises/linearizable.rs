//! All that is asked about a name happens at once, at some moment between question and answer, as
//! with one book that one clerk keeps. Names have nothing to do with each other, so each has a history
//! of its own.
//!
//! A call whose outcome is not known may have been carried out at any time since it was made, or
//! never; and unless whoever asked comes again with the same claim, the name may be given back at any
//! time after. A node repeats what is not answered: what found a name taken may have taken it itself
//! before, if a token was issued anew meanwhile. Bans are not in the model: a reissue that was refused
//! for one says that the name is taken.

use cluster::AgentId;

use super::{
    Breach,
    order::{self, Asked, Model, Verdict},
};
use crate::registry::history::{Call, History, Outcome, What};

pub(super) const NAME: &str = "what is asked about a name happens in one order";

/// One name in the one book: whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Owner {
    #[default]
    Nobody,
    Claim(usize),
    /// Of who has the token that was issued anew: no claim is good any more.
    Token,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Register(usize),
    Release(usize),
    Reissue,
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ret {
    Granted,
    Taken,
    /// Of a release.
    Done,
    Unknown,
    Present,
}

type Step = Asked<Op, Ret>;

impl Model for Owner {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: Op) -> Ret {
        match (op, *self) {
            (Op::Register(claim), Self::Nobody) => {
                *self = Self::Claim(claim);
                Ret::Granted
            }
            (Op::Register(claim), owner) if owner == Self::Claim(claim) => Ret::Granted,
            (Op::Register(_), _) => Ret::Taken,
            (Op::Release(claim), owner) => {
                if owner == Self::Claim(claim) {
                    *self = Self::Nobody;
                }
                Ret::Done
            }
            (Op::Reissue | Op::Read, Self::Nobody) => Ret::Unknown,
            (Op::Reissue, _) => {
                *self = Self::Token;
                Ret::Granted
            }
            (Op::Read, _) => Ret::Present,
        }
    }
}

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    let breach = |agent: AgentId| Breach {
        promise: NAME,
        what: format!("no order of the calls about {agent} explains their outcomes"),
        agent: Some(agent),
    };
    with(history, Verdict::Unordered).map(breach).collect()
}

/// How many names' histories could not be decided.
pub(super) fn undecided(history: &History) -> usize {
    with(history, Verdict::Undecided).count()
}

/// The agents of whose histories this is said.
fn with(history: &History, verdict: Verdict) -> impl Iterator<Item = AgentId> {
    let agents = history.agents().into_iter();
    agents.filter(move |agent| order::judge::<Owner>(steps(history, agent)) == verdict)
}

/// All that happened to a name, or may have happened.
fn steps(history: &History, agent: &AgentId) -> Vec<Step> {
    let about: Vec<&Call> = history.about(agent).map(|(_, call)| call).collect();
    about.iter().flat_map(|call| steps_of(call, &about)).collect()
}

fn steps_of(call: &Call, about: &[&Call]) -> Vec<Step> {
    let Some((op, ret)) = understood(call) else { return Vec::new() };
    let asked = Asked { at: call.at, op, answer: None };
    if let (Some(ret), Some(done)) = (ret, call.done) {
        let answered = Asked { answer: Some((done, ret)), ..asked };
        let may_have_been_before =
            ret == Ret::Taken && about.iter().any(|other| reissues_during(other, call));
        return if may_have_been_before { vec![asked, answered] } else { vec![answered] };
    }
    match call.what {
        // A read that was not answered says nothing, as it changes nothing.
        What::Register { claim, repeatable: false, .. } => {
            let at = call.done.unwrap_or(call.at);
            vec![asked, Asked { at, op: Op::Release(claim), answer: None }]
        }
        _ => vec![asked],
    }
}

/// What a call asks and is answered, as the model has it.
fn understood(call: &Call) -> Option<(Op, Option<Ret>)> {
    let op = match (&call.what, &call.outcome) {
        (What::Register { claim, .. }, _) => Op::Register(*claim),
        (What::Reissue(_), Outcome::Banned) | (What::Read(_), _) => Op::Read,
        (What::Reissue(_), _) => Op::Reissue,
        _ => return None,
    };
    let ret = match &call.outcome {
        Outcome::Granted(..) => Some(Ret::Granted),
        Outcome::Taken => Some(Ret::Taken),
        Outcome::UnknownAgent | Outcome::Read(None) => Some(Ret::Unknown),
        Outcome::Banned | Outcome::Read(Some(_)) => Some(Ret::Present),
        _ => None,
    };
    Some((op, ret))
}

/// A node repeats a request that is not answered. If the first one took the name, and a token was
/// issued anew before the second, the second finds it taken: by who has that token.
fn reissues_during(other: &Call, call: &Call) -> bool {
    matches!(other.what, What::Reissue(_))
        && call.done.is_some_and(|done| other.at <= done)
        && !matches!(other.outcome, Outcome::UnknownAgent | Outcome::Banned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::promises::example::*;

    fn lost() -> Outcome {
        Outcome::Unavailable(String::new())
    }

    #[test]
    fn one_wins_and_all_others_come_too_late() {
        let first = call(0, 10, register(0, false), granted());
        let second = call(5, 8, register(1, false), Outcome::Taken);
        assert_eq!(breaches(&history(vec![first.clone(), second])), []);
        let early = call(0, 4, register(1, false), Outcome::Taken);
        let late = call(5, 10, register(0, false), granted());
        assert_eq!(breaches(&history(vec![early, late])).len(), 1, "taken by whom?");
        let second = call(11, 12, register(1, false), granted());
        assert_eq!(breaches(&history(vec![first, second])).len(), 1, "taken twice");
    }

    #[test]
    fn what_is_not_known_may_have_happened_and_be_given_back() {
        let unknown = call(0, 10, register(0, false), lost());
        let taken = call(11, 12, register(1, false), Outcome::Taken);
        let given = call(20, 21, register(2, false), granted());
        let calls = vec![unknown, taken.clone(), given.clone()];
        assert_eq!(breaches(&history(calls)), []);
        let kept = call(0, 10, register(0, true), lost());
        assert_eq!(breaches(&history(vec![kept, taken, given])).len(), 1);
    }

    #[test]
    fn the_same_claim_has_the_same_outcome_until_a_token_is_issued_anew() {
        let again = |from| call(from, from + 1, register(0, true), granted());
        let reissue = call(4, 5, What::Reissue(agent()), granted());
        assert_eq!(breaches(&history(vec![again(0), again(2), reissue.clone()])), []);
        assert_eq!(breaches(&history(vec![again(0), reissue, again(6)])).len(), 1);
    }

    #[test]
    fn who_repeats_may_find_what_it_took_issued_anew() {
        let taken = call(0, 10, register(0, true), Outcome::Taken);
        assert_eq!(breaches(&history(vec![taken.clone()])).len(), 1, "by whom?");
        let reissue = call(4, 5, What::Reissue(agent()), granted());
        assert_eq!(breaches(&history(vec![taken, reissue])), []);
    }

    #[test]
    fn many_that_are_not_known_hide_no_order() {
        let mut calls: Vec<_> = (1..9).map(|n| call(5, 50, register(n, false), lost())).collect();
        calls.push(call(60, 90, register(20, true), granted()));
        calls.push(call(61, 80, What::Read(agent()), Outcome::Read(None)));
        assert_eq!(breaches(&history(calls)), []);
    }

    #[test]
    fn who_reads_late_sees_it() {
        let taken = call(0, 1, register(0, false), granted());
        let read = call(2, 3, What::Read(agent()), Outcome::Read(None));
        assert_eq!(breaches(&history(vec![taken, read])).len(), 1);
    }
}
