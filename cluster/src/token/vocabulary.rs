//! What a narrowing may say: the closed list that `docs/tokens.md` publishes.
//!
//! Everybody who holds a token can write blocks, so this list is what keeps their evaluation short:
//! no facts and no rules (nothing can be derived), no loops (`.all`, `.any`), nothing that builds
//! strings or compiles patterns. What is not on the list is refused when the token is shown, so that
//! nobody believes in a limit that the relay would not enforce.

use biscuit_auth::{
    builder::CheckKind,
    datalog::{Binary, Check, Op, Predicate, Rule, SymbolTable, Term, Unary},
    format::schema::SnapshotBlock,
};

/// `time(date)`: the current second.
pub(super) const TIME: &str = "time";
/// `operation("send")` or `operation("receive")`.
pub(super) const OPERATION: &str = "operation";
/// `recipient("id")`, or `recipient("*")` for a broadcast; only with `operation("send")`.
pub(super) const RECIPIENT: &str = "recipient";
/// `agent("id")`: whom the token speaks for.
pub(super) const AGENT: &str = "agent";

/// The most predicates of one alternative. The library matches them by recursion.
const PREDICATES_MAX: usize = 8;

/// Whether a block holds checks only; if not, why not.
pub(super) fn vet_block(block: &SnapshotBlock) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("a block adds {what}, and may add only checks"));
    if !block.facts.is_empty() {
        return refuse("facts");
    }
    if !block.rules.is_empty() {
        return refuse("rules");
    }
    if block.scope.is_empty() { Ok(()) } else { refuse("a trusted origin") }
}

/// Whether a check keeps to the list; if not, why not.
pub(super) fn vet_check(check: &Check, symbols: &SymbolTable) -> Result<(), String> {
    if check.kind == CheckKind::Reject {
        return Err("`reject if`: write `check if` or `check all`".to_owned());
    }
    check.queries.iter().try_for_each(|query| vet_query(query, symbols))
}

/// Whether a check speaks of nothing but time, so that it fails for every operation alike.
pub(super) fn is_of_time(check: &Check, symbols: &SymbolTable) -> bool {
    let mut predicates = check.queries.iter().flat_map(|query| &query.body);
    predicates.all(|predicate| symbols.get_symbol(predicate.name) == Some(TIME))
}

/// Adds every date that the check names.
pub(super) fn dates(check: &Check, found: &mut Vec<u64>) {
    for query in &check.queries {
        query.body.iter().flat_map(|p| &p.terms).for_each(|term| dates_of_term(term, found));
        query.expressions.iter().for_each(|e| dates_of_ops(&e.ops, found));
    }
}

fn vet_query(query: &Rule, symbols: &SymbolTable) -> Result<(), String> {
    if !query.scopes.is_empty() {
        return Err("`trusting`: only the relay's own facts count".to_owned());
    }
    if query.body.len() > PREDICATES_MAX {
        return Err(format!("a check has more than {PREDICATES_MAX} predicates"));
    }
    query.body.iter().try_for_each(|predicate| vet_predicate(predicate, symbols))?;
    query.expressions.iter().try_for_each(|expression| vet_ops(&expression.ops))
}

fn vet_predicate(predicate: &Predicate, symbols: &SymbolTable) -> Result<(), String> {
    let name = symbols.get_symbol(predicate.name).unwrap_or_default();
    match (name, predicate.terms.len()) {
        (TIME | OPERATION | RECIPIENT | AGENT, 1) => Ok(()),
        (TIME | OPERATION | RECIPIENT | AGENT, _) => {
            Err(format!("`{name}` takes exactly one term"))
        }
        _ => {
            Err("a check asks for something other than time, operation, recipient or agent".into())
        }
    }
}

fn vet_ops(ops: &[Op]) -> Result<(), String> {
    ops.iter().try_for_each(|op| match op {
        Op::Value(_) | Op::Unary(Unary::Negate | Unary::Parens) => Ok(()),
        Op::Unary(_) => Err("methods other than contains, starts_with and ends_with".to_owned()),
        Op::Binary(operator) => vet_operator(operator),
        // Without parameters it is the right side of `&&` or `||`: evaluated once at most.
        Op::Closure(params, inner) if params.is_empty() => vet_ops(inner),
        Op::Closure(..) => Err("closures".to_owned()),
    })
}

fn vet_operator(operator: &Binary) -> Result<(), String> {
    match operator {
        Binary::LessThan
        | Binary::GreaterThan
        | Binary::LessOrEqual
        | Binary::GreaterOrEqual
        | Binary::Equal
        | Binary::NotEqual
        | Binary::HeterogeneousEqual
        | Binary::HeterogeneousNotEqual
        | Binary::Contains
        | Binary::Prefix
        | Binary::Suffix
        | Binary::And
        | Binary::Or
        | Binary::LazyAnd
        | Binary::LazyOr => Ok(()),
        // Patterns cost what their writer likes; concatenation makes long strings of short tokens.
        Binary::Regex => Err("regular expressions".to_owned()),
        Binary::Add
        | Binary::Sub
        | Binary::Mul
        | Binary::Div
        | Binary::BitwiseAnd
        | Binary::BitwiseOr
        | Binary::BitwiseXor => Err("arithmetic".to_owned()),
        Binary::All | Binary::Any | Binary::TryOr => Err("closures".to_owned()),
        Binary::Intersection | Binary::Union | Binary::Get | Binary::Ffi(_) => {
            Err("methods other than contains, starts_with and ends_with".to_owned())
        }
    }
}

fn dates_of_ops(ops: &[Op], found: &mut Vec<u64>) {
    for op in ops {
        match op {
            Op::Value(term) => dates_of_term(term, found),
            Op::Closure(_, inner) => dates_of_ops(inner, found),
            Op::Unary(_) | Op::Binary(_) => {}
        }
    }
}

fn dates_of_term(term: &Term, found: &mut Vec<u64>) {
    match term {
        Term::Date(date) => found.push(*date),
        Term::Set(terms) => terms.iter().for_each(|term| dates_of_term(term, found)),
        Term::Array(terms) => terms.iter().for_each(|term| dates_of_term(term, found)),
        Term::Map(entries) => entries.values().for_each(|term| dates_of_term(term, found)),
        Term::Variable(_)
        | Term::Integer(_)
        | Term::Str(_)
        | Term::Bytes(_)
        | Term::Bool(_)
        | Term::Null => {}
    }
}
