//! What holds for every token, narrowing and text.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use biscuit_auth::builder::{
    Binary, BlockBuilder, Check, CheckKind, Expression, Op, Term, Unary, constrained_rule, pred,
    var,
};
use proptest::prelude::*;

use super::{
    tests::{NOW, bytes, narrow, narrow_with, signer, text, token, verify},
    *,
};

/// Checks in the vocabulary, with dates around `NOW`.
fn check() -> impl Strategy<Value = String> {
    let date = (0_u32..6).prop_map(|s| format!("2026-11-22T10:00:0{s}Z"));
    let comparison = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let time = (comparison, date).prop_map(|(op, date)| format!("time($t), $t {op} {date}"));
    let operation =
        prop::sample::select(vec![r#"operation("send")"#, r#"operation("receive")"#, "true"]);
    let recipient = prop::sample::select(vec!["bob", "carol", "*"])
        .prop_map(|to| format!(r#"recipient($r), $r == "{to}""#));
    let part = prop_oneof![time, operation.prop_map(str::to_owned), recipient];
    let query = prop::collection::vec(part, 1..3).prop_map(|parts| {
        // Predicates come first in datalog; `true` and comparisons are expressions.
        let mut parts: Vec<_> = parts.iter().flat_map(|p| p.split(", ")).collect();
        parts.sort_by_key(|part| !part.contains('('));
        parts.join(", ")
    });
    let kind = prop::sample::select(vec!["check if", "check all"]);
    (kind, prop::collection::vec(query, 1..3))
        .prop_map(|(kind, queries)| format!("{kind} {};", queries.join(" or ")))
}

fn term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        Just(var("t")),
        any::<i64>().prop_map(Term::Integer),
        "[a-z*]{0,3}".prop_map(Term::Str),
        any::<u64>().prop_map(Term::Date),
        any::<bool>().prop_map(Term::Bool),
        Just(Term::Null),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::btree_set("[a-z]{1,2}".prop_map(Term::Str), 0..4).prop_map(Term::Set),
            prop::collection::vec(inner, 0..4).prop_map(Term::Array),
        ]
    })
}

/// Any sequence of operations, sensible or not, within the vocabulary or not.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let unary = prop::sample::select(vec![
        Unary::Negate,
        Unary::Parens,
        Unary::Length,
        Unary::TypeOf,
        Unary::Ffi("f".into()),
    ]);
    let binary = prop::sample::select(vec![
        Binary::LessThan,
        Binary::Equal,
        Binary::HeterogeneousNotEqual,
        Binary::Contains,
        Binary::Prefix,
        Binary::Suffix,
        Binary::And,
        Binary::Or,
        Binary::LazyAnd,
        Binary::LazyOr,
        Binary::Add,
        Binary::Regex,
        Binary::Get,
        Binary::All,
        Binary::TryOr,
    ]);
    let leaf = prop_oneof![
        4 => term().prop_map(Op::Value),
        1 => unary.prop_map(Op::Unary),
        3 => binary.prop_map(Op::Binary),
    ];
    let op = leaf.prop_recursive(3, 16, 4, |inner| {
        (prop::collection::vec("[a-z]", 0..2), prop::collection::vec(inner, 0..4))
            .prop_map(|(params, ops)| Op::Closure(params, ops))
    });
    prop::collection::vec(op, 0..6)
}

fn answers(grant: &Grant, now: UnixMillis) -> [bool; 5] {
    [
        grant.check_time(now).is_ok(),
        grant.may_receive(now),
        grant.may_send("bob", now),
        grant.may_send("carol", now),
        grant.may_send("*", now),
    ]
}

/// Narrowed, but read without looking at the clock, so that expired ones can be asked as well.
fn grant_of(checks: &[String]) -> Grant {
    let code = checks.concat();
    let token = narrow(&token(), &code);
    signer().verifier().read(&token).expect(&code)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_narrowing_never_adds(first in check(), second in check(), ms in 0_u64..7_000) {
        let (parent, child) = (grant_of(std::slice::from_ref(&first)), grant_of(&[first, second]));
        let now = UnixMillis(NOW.0 + ms);
        for (child, parent) in answers(&child, now).into_iter().zip(answers(&parent, now)) {
            prop_assert!(parent || !child);
        }
    }

    #[test]
    fn no_answer_changes_before_next_change(
        checks in prop::collection::vec(check(), 1..3),
        start in 0_u64..7_000,
    ) {
        let grant = grant_of(&checks);
        let now = UnixMillis(NOW.0 + start);
        let next = grant.next_change(now);
        prop_assert!(next.is_none_or(|next| next > now));
        let last = next.map_or(NOW.0 + 20_000, |next| next.0 - 1);
        for moment in [last, u64::midpoint(now.0, last)] {
            prop_assert_eq!(answers(&grant, now), answers(&grant, UnixMillis(moment)));
        }
    }

    #[test]
    fn no_text_panics(token in ".{0,300}") {
        prop_assert_eq!(verify(&token).unwrap_err(), TokenError::Invalid);
        prop_assert_eq!(verify(&format!("tok_{token}")).unwrap_err(), TokenError::Invalid);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(verify(&text(&bytes)).unwrap_err(), TokenError::Invalid);
    }

    #[test]
    fn no_expression_panics(ops in ops(), terms in prop::collection::vec(term(), 1..2)) {
        let query = constrained_rule(
            "query",
            &[] as &[Term],
            &[pred("time", &terms), pred("time", &[var("t")])],
            &[Expression { ops }],
        );
        let mut block = BlockBuilder::new();
        block.checks.push(Check { queries: vec![query], kind: CheckKind::All });
        match signer().verifier().read(&narrow_with(&token(), block)) {
            Ok(grant) => drop((answers(&grant, NOW), grant.next_change(NOW))),
            Err(error) => {
                prop_assert!(matches!(error, TokenError::Unsupported(_) | TokenError::Invalid));
            }
        }
    }

    /// What verifies all the same is the same token written differently: in protobuf a field that nobody knows
    /// is passed over, and one that is missing has its default.
    #[test]
    fn no_damage_adds(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let narrowed = narrow(&token(), r#"check if recipient("bob"), time($t), $t < 2099-01-01T00:00:00Z;"#);
        let mut damaged = bytes(&narrowed);
        let at = at.index(damaged.len());
        prop_assume!(damaged[at] != with);
        damaged[at] = with;
        if let Ok(grant) = verify(&text(&damaged)) {
            let whole = verify(&narrowed).unwrap();
            prop_assert_eq!((grant.agent(), grant.serial()), (whole.agent(), whole.serial()));
            prop_assert_eq!(answers(&grant, NOW), answers(&whole, NOW));
        }
    }
}
