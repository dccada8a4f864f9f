//! The checks that holders appended to a token, and their answers.
//!
//! A check is asked against a handful of facts and there are no rules, so an answer takes work
//! linear in the token's length; no time limit is needed, and a busy machine gives no wrong answers.

use std::{collections::HashMap, fmt};

use biscuit_auth::{
    builder::CheckKind,
    datalog::{Check, Fact, FactSet, Origin, Rule, SymbolTable, Term, TrustedOrigins},
    format::{convert::proto_snapshot_block_to_token_block, schema::SnapshotBlock},
};

use super::{TokenError, start_of_second, vocabulary};
use crate::{AgentId, UnixMillis};

/// What a session is about to do.
#[derive(Clone, Copy)]
pub(super) enum Operation<'a> {
    /// Have a message delivered.
    Receive,
    /// Send to an agent id, or to `*`.
    Send { recipient: &'a str },
}

/// The appended checks, all of which must pass.
pub(super) struct Narrowing {
    symbols: SymbolTable,
    /// Speak of nothing but time: once one fails, the token has expired.
    of_time: Vec<Check>,
    /// Speak of what the session does, and are asked each time.
    of_operations: Vec<Check>,
    /// Where an answer may change, ascending.
    changes: Vec<UnixMillis>,
}

impl Narrowing {
    /// Reads appended blocks; refuses what [`vocabulary`] does not know.
    pub(super) fn read(blocks: &[SnapshotBlock], symbols: SymbolTable) -> Result<Self, TokenError> {
        let mut checks = Vec::new();
        for block in blocks {
            vocabulary::vet_block(block).map_err(TokenError::Unsupported)?;
            let block =
                proto_snapshot_block_to_token_block(block).map_err(|_| TokenError::Invalid)?;
            checks.extend(block.checks);
        }
        let mut dates = Vec::new();
        for check in &checks {
            vocabulary::vet_check(check, &symbols).map_err(TokenError::Unsupported)?;
            vocabulary::dates(check, &mut dates);
        }
        let (of_time, of_operations) =
            checks.into_iter().partition(|check| vocabulary::is_of_time(check, &symbols));
        Ok(Self { symbols, of_time, of_operations, changes: changes(&dates) })
    }

    /// Whether no check on time alone fails.
    pub(super) fn allows_time(&self, now: UnixMillis) -> bool {
        let mut question = Question::new(&self.symbols);
        question.tell_time(now);
        question.passes(&self.of_time)
    }

    /// Whether no check fails when `agent` does `operation`.
    pub(super) fn allows(
        &self,
        agent: &AgentId,
        operation: Operation<'_>,
        now: UnixMillis,
    ) -> bool {
        let mut question = Question::new(&self.symbols);
        question.tell_time(now);
        question.tell(vocabulary::AGENT, agent.as_str());
        match operation {
            Operation::Receive => question.tell(vocabulary::OPERATION, "receive"),
            Operation::Send { recipient } => {
                question.tell(vocabulary::OPERATION, "send");
                question.tell(vocabulary::RECIPIENT, recipient);
            }
        }
        question.passes(&self.of_time) && question.passes(&self.of_operations)
    }

    /// The first moment after `now` at which an answer may differ from that at `now`.
    pub(super) fn next_change(&self, now: UnixMillis) -> Option<UnixMillis> {
        let passed = self.changes.partition_point(|change| *change <= now);
        self.changes.get(passed).copied()
    }
}

impl fmt::Debug for Narrowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Narrowing({} checks)", self.of_time.len() + self.of_operations.len())
    }
}

/// Checks compare the running second with dates: `<` and `>=` turn as the date begins, `<=` and `>`
/// as it ends, `==` at both.
fn changes(dates: &[u64]) -> Vec<UnixMillis> {
    let mut changes: Vec<_> = dates
        .iter()
        .flat_map(|date| [start_of_second(*date), start_of_second(date.saturating_add(1))])
        .collect();
    changes.sort_unstable();
    changes.dedup();
    changes
}

/// The facts that checks are asked against: at most one of each name.
struct Question {
    facts: FactSet,
    symbols: SymbolTable,
    origin: Origin,
}

impl Question {
    fn new(symbols: &SymbolTable) -> Self {
        // usize::MAX is biscuit's number for the side that verifies; every check trusts it.
        let origin = [usize::MAX].into_iter().collect();
        Self { facts: FactSet::default(), symbols: symbols.clone(), origin }
    }

    fn tell_time(&mut self, now: UnixMillis) {
        self.add(vocabulary::TIME, Term::Date(now.0 / 1000));
    }

    fn tell(&mut self, name: &str, value: &str) {
        let value = self.symbols.add(value);
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: Term) {
        let fact = Fact::new(self.symbols.insert(name), &[value]);
        self.facts.insert(&self.origin, fact);
    }

    fn passes(&self, checks: &[Check]) -> bool {
        checks.iter().all(|check| self.check_passes(check))
    }

    /// As in biscuit: any of the alternatives, and an expression that cannot be computed fails the
    /// check whatever follows it.
    fn check_passes(&self, check: &Check) -> bool {
        for alternative in &check.queries {
            match self.matches(alternative, &check.kind) {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    fn matches(&self, query: &Rule, kind: &CheckKind) -> Option<bool> {
        let trusted = TrustedOrigins::default();
        let functions = HashMap::new();
        let (facts, symbols) = (&self.facts, &self.symbols);
        match kind {
            CheckKind::One => query.find_match(facts, usize::MAX, &trusted, symbols, &functions),
            CheckKind::All => query.check_match_all(facts, &trusted, symbols, &functions),
            CheckKind::Reject => return None,
        }
        .ok()
    }
}
