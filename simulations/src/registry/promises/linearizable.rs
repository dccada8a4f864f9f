//! All that is asked about a name happens at once, at some moment between question and answer, as
//! with one book that one clerk keeps. Names have nothing to do with each other, so each has a history
//! of its own.
//!
//! A call whose outcome is not known may have been carried out at any time since it was made, or
//! never; and unless whoever asked comes again with the same claim, the name may be given back at any
//! time after. A node repeats what is not answered: what was told that its token was replaced may have
//! taken the name itself before. Bans are not in the model: a reissue that was refused for one says that
//! the name is taken.

use std::time::Duration;

use cluster::AgentId;

use super::{
    Breach,
    order::{self, Asked, Model, Verdict},
};
use crate::registry::history::{Call, History, Outcome, What};

pub(super) const NAME: &str = "what is asked about a name happens in one order";

/// For so long a claim is told that its token was replaced: a minute by the log's time, which goes with the
/// clocks of those who lead, and these differ.
const REPLACED_KEPT: Duration = Duration::from_secs(40);

/// One name in the one book: whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Owner {
    #[default]
    Nobody,
    Claim(usize),
    /// Of who has the token that was issued anew: the claim that the name was taken by is good no more.
    Token(usize),
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
    Replaced,
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
            (Op::Register(claim), owner) if owner == Self::Token(claim) => Ret::Replaced,
            (Op::Register(_), _) => Ret::Taken,
            (Op::Release(claim), owner) => {
                if owner == Self::Claim(claim) {
                    *self = Self::Nobody;
                }
                Ret::Done
            }
            (Op::Reissue | Op::Read, Self::Nobody) => Ret::Unknown,
            (Op::Reissue, Self::Claim(claim)) => {
                *self = Self::Token(claim);
                Ret::Granted
            }
            (Op::Reissue, Self::Token(_)) => Ret::Granted,
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
        return match ret {
            Ret::Taken if is_forgotten(call, about) => Vec::new(),
            Ret::Replaced => vec![asked, answered],
            _ => vec![answered],
        };
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
        Outcome::Replaced => Some(Ret::Replaced),
        Outcome::UnknownAgent | Outcome::Read(None) => Some(Ret::Unknown),
        Outcome::Banned | Outcome::Read(Some(_)) => Some(Ret::Present),
        _ => None,
    };
    Some((op, ret))
}

/// Whether what a claim is told may be that the name is taken, though it was taken by that claim and the
/// token was replaced: that is forgotten.
fn is_forgotten(call: &Call, about: &[&Call]) -> bool {
    let replaces = |other: &&Call| {
        matches!(other.what, What::Reissue(_))
            && call.done.is_some_and(|done| done.saturating_sub(other.at) > REPLACED_KEPT)
    };
    about.iter().any(replaces)
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
    fn who_comes_again_is_told_that_its_token_was_replaced() {
        let mine = call(0, 1, register(0, true), granted());
        let reissue = call(4, 5, What::Reissue(agent()), granted());
        let again = |claim, outcome| call(6, 7, register(claim, true), outcome);
        for (claim, outcome, explained) in [
            (0, Outcome::Replaced, true),
            (0, Outcome::Taken, false),
            (1, Outcome::Taken, true),
            (1, Outcome::Replaced, false),
        ] {
            let calls = vec![mine.clone(), reissue.clone(), again(claim, outcome)];
            assert_eq!(breaches(&history(calls)).is_empty(), explained);
        }
        let late = call(50_000, 50_001, register(0, true), Outcome::Taken);
        assert_eq!(breaches(&history(vec![mine, reissue, late])), [], "it is forgotten");
    }

    #[test]
    fn who_repeats_may_find_what_it_took_issued_anew() {
        let replaced = call(0, 10, register(0, true), Outcome::Replaced);
        assert_eq!(breaches(&history(vec![replaced.clone()])).len(), 1, "by whom?");
        let reissue = call(4, 5, What::Reissue(agent()), granted());
        assert_eq!(breaches(&history(vec![replaced, reissue.clone()])), []);
        let taken = call(0, 10, register(0, true), Outcome::Taken);
        assert_eq!(breaches(&history(vec![taken, reissue])).len(), 1, "by whom?");
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
