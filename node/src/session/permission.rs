//! What a session's token lets it send, remembered.
//!
//! A token that nobody narrowed allows everything and is never asked. The checks of a narrowed one
//! are evaluated once per recipient and kept until an answer may change.

use std::collections::HashMap;

use cluster::{UnixMillis, token::Grant};

use crate::message::Targets;

/// How many answers a session keeps; when there are more recipients it starts anew.
const KEPT_MAX: usize = 256;

/// The answers of one session's token so far.
#[derive(Debug, Default)]
pub(super) struct Permission {
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Box<str>, bool>,
    good_until: Option<UnixMillis>,
}

impl Permission {
    /// Whether a message may go to all of `targets`; commands to the relay always may.
    pub(super) fn allows(&mut self, grant: &Grant, targets: &Targets<'_>, now: UnixMillis) -> bool {
        if !grant.is_narrowed() {
            return true;
        }
        match targets {
            Targets::Relay => true,
            Targets::All => self.ask(grant, "*", now),
            Targets::Agents(agents) => agents.iter().all(|agent| self.ask(grant, agent, now)),
        }
    }

    fn ask(&mut self, grant: &Grant, recipient: &str, now: UnixMillis) -> bool {
        let kept = self.kept.get_or_insert_default();
        if kept.answers.len() >= KEPT_MAX || kept.good_until.is_some_and(|until| now >= until) {
            kept.answers.clear();
        }
        if kept.answers.is_empty() {
            kept.good_until = grant.next_change(now);
        }
        if let Some(answer) = kept.answers.get(recipient) {
            return *answer;
        }
        let answer = grant.may_send(recipient, now);
        kept.answers.insert(recipient.into(), answer);
        answer
    }
}
