//! Tokens as their holders see them: issued, shown, narrowed, forged.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use biscuit_auth::{
    KeyPair, PrivateKey, UnverifiedBiscuit,
    builder::{Algorithm, BlockBuilder},
};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};

use super::*;
use crate::AgentId;

/// 2026-11-22T10:00:00Z, and the datalog literal of that moment.
pub(super) const NOW: UnixMillis = UnixMillis(1_795_341_600_000);
const HOUR: u64 = 3_600_000;

pub(super) fn signer() -> TokenSigner {
    TokenSigner::from_secret(&[7; 32]).unwrap()
}

fn agent() -> AgentId {
    "rawk-042".parse().unwrap()
}

pub(super) fn token() -> String {
    signer().issue(&agent(), Serial(7), NOW, None).unwrap()
}

pub(super) fn bytes(token: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(&token.as_bytes()[4..]).unwrap()
}

pub(super) fn text(biscuit: &[u8]) -> String {
    format!("tok_{}", BASE64URL_NOPAD.encode(biscuit))
}

pub(super) fn narrow_with(token: &str, block: BlockBuilder) -> String {
    let biscuit = UnverifiedBiscuit::from(bytes(token)).unwrap();
    text(&biscuit.append(block).unwrap().to_vec().unwrap())
}

pub(super) fn narrow(token: &str, code: &str) -> String {
    narrow_with(token, BlockBuilder::new().code(code).expect(code))
}

pub(super) fn verify(token: &str) -> Result<Grant, TokenError> {
    signer().verifier().verify(token, NOW)
}

fn narrowed(code: &str) -> Grant {
    verify(&narrow(&token(), code)).expect(code)
}

fn refused(token: &str) -> String {
    match verify(token) {
        Err(TokenError::Unsupported(reason)) => reason,
        other => panic!("not refused as unsupported: {other:?}"),
    }
}

#[test]
fn what_was_issued_is_read_back() {
    let grant = verify(&token()).unwrap();
    assert_eq!(grant.agent(), &agent());
    assert_eq!(grant.serial(), Serial(7));
    assert_eq!(grant.expires(), None);
    assert!(!grant.is_narrowed());
    assert!(grant.may_receive(NOW) && grant.may_send("bob", NOW) && grant.may_send("*", NOW));
    assert_eq!(grant.next_change(NOW), None);
    assert!(token().len() < 400, "{}", token().len());
}

#[test]
fn several_keys_verify_and_each_token_names_its_own() {
    let signers = [(0, 7), (1, 8), (300, 9)]
        .map(|(id, secret)| TokenSigner::from_secret(&[secret; 32]).unwrap().with_id(KeyId(id)));
    let verifier = TokenVerifier::new(signers.iter().rev().map(|key| (key.id(), key.public())));
    for signer in &signers {
        let token = signer.issue(&agent(), Serial(1), NOW, None).unwrap();
        let grant = verifier.verify(&token, NOW).unwrap();
        assert_eq!((grant.key(), grant.serial()), (signer.id(), Serial(1)));
        let narrow = narrow(&token, r#"check if operation("send");"#);
        assert_eq!(verifier.verify(&narrow, NOW).unwrap().key(), signer.id());
        // By a number that is not its own, a key is not found, or another one.
        let biscuit = UnverifiedBiscuit::from(bytes(&token)).unwrap();
        assert_eq!(biscuit.root_key_id(), (signer.id().0 > 0).then_some(signer.id().0));
        for id in [0, 1, 2, 300, 1 << 24].map(KeyId) {
            let other = TokenVerifier::new([(id, signer.public())]);
            assert_eq!(other.verify(&token, NOW).is_ok(), id == signer.id());
        }
    }
    let without_first = TokenVerifier::new([(KeyId(1), signers[1].public())]);
    assert_eq!(without_first.verify(&token(), NOW).unwrap_err(), TokenError::Invalid);
    assert_eq!(
        TokenVerifier::new([(KeyId(0), [0xff; 32])]).verify(&token(), NOW).unwrap_err(),
        TokenError::Invalid
    );
}

#[test]
fn a_stored_key_makes_the_same_verifier() {
    let made = TokenSigner::generate();
    let stored = TokenSigner::from_secret(&made.secret()).unwrap();
    let token = stored.issue(&agent(), Serial(1), NOW, None).unwrap();
    assert!(made.verifier().verify(&token, NOW).is_ok());
    assert!(TokenSigner::from_secret(&[1; 31]).is_err());
    assert_eq!(format!("{made:?}"), "TokenSigner(..)");
}

#[test]
fn expires_at_the_second_after() {
    let expires = UnixMillis(NOW.0 + 1_001);
    let token = signer().issue(&agent(), Serial(7), NOW, Some(expires)).unwrap();
    let grant = verify(&token).unwrap();
    let end = UnixMillis(NOW.0 + 2_000);
    assert_eq!(grant.expires(), Some(end));
    assert_eq!(grant.next_change(NOW), Some(end));
    let last = UnixMillis(end.0 - 1);
    assert!(grant.check_time(last).is_ok() && grant.may_receive(last) && grant.may_send("*", last));
    assert_eq!(grant.check_time(end), Err(TokenError::Expired));
    assert!(!grant.may_receive(end) && !grant.may_send("bob", end));
    assert_eq!(grant.next_change(end), None);
    assert_eq!(signer().verifier().verify(&token, end).unwrap_err(), TokenError::Expired);
}

#[test]
fn one_changed_character_is_enough_to_be_invalid() {
    let token = token();
    for position in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(verify(&changed).unwrap_err(), TokenError::Invalid, "at {position}");
    }
}

#[test]
fn texts_that_are_no_tokens_are_invalid() {
    let token = token();
    let padded = format!("tok_{}", BASE64URL.encode(&bytes(&token)));
    assert!(verify(&padded).is_ok(), "biscuit's own tools write padding");
    let foreign = TokenSigner::generate().issue(&agent(), Serial(7), NOW, None).unwrap();
    let huge = format!("{token}{}", "A".repeat(1 << 20));
    let odd = [
        String::new(),
        "tok_".to_owned(),
        token[4..].to_owned(),
        format!("TOK_{}", &token[4..]),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}===="),
        token.replace('_', "/"),
        foreign,
        huge,
    ];
    for text in odd {
        assert_eq!(verify(&text).unwrap_err(), TokenError::Invalid, "{text:.40}");
    }
    for length in 0..token.len() {
        assert_eq!(verify(&token[..length]).unwrap_err(), TokenError::Invalid, "{length}");
    }
}

/// What a narrowing leaves: receive, send to `bob`, send to `carol`, broadcast.
#[test]
fn every_kind_of_narrowing_is_enforced() {
    let send_only = r#"check if operation("send");"#;
    let receive_only = r#"check if operation("receive");"#;
    let to_bob = r#"check if operation("receive") or recipient("bob");"#;
    let cases: [(&[&str], [bool; 4]); 12] = [
        (&["check if true;"], [true, true, true, true]),
        (&[send_only], [false, true, true, true]),
        (&[receive_only], [true, false, false, false]),
        (&[to_bob], [true, true, false, false]),
        (&[r#"check if operation("receive") or recipient("*");"#], [true, false, false, true]),
        (
            &[r#"check if operation("receive") or recipient("bob") or recipient("carol");"#],
            [true, true, true, false],
        ),
        (
            &[r#"check if operation("receive") or recipient($r), {"bob", "*"}.contains($r);"#],
            [true, true, false, true],
        ),
        (&[r#"check if operation($o), $o == "receive" || $o == "send";"#], [true; 4]),
        (
            &[
                r#"check if operation("receive") or recipient($r), $r.starts_with("ca") && !($r == "*");"#,
            ],
            [true, false, true, false],
        ),
        (&[to_bob, send_only], [false, true, false, false]),
        (&[send_only, receive_only], [false; 4]),
        (
            &[to_bob, r#"check if operation("receive") or recipient("carol");"#],
            [true, false, false, false],
        ),
    ];
    for (codes, expected) in cases {
        let together = narrowed(&codes.concat());
        let one_by_one = codes.iter().fold(token(), |token, code| narrow(&token, code));
        for grant in [together, verify(&one_by_one).unwrap()] {
            let allowed = [
                grant.may_receive(NOW),
                grant.may_send("bob", NOW),
                grant.may_send("carol", NOW),
                grant.may_send("*", NOW),
            ];
            assert_eq!(allowed, expected, "{codes:?}");
            assert!(grant.is_narrowed());
            assert_eq!((grant.agent(), grant.serial()), (&agent(), Serial(7)));
        }
    }
}

#[test]
fn a_check_on_the_agent_knows_who_holds_the_token() {
    assert!(narrowed(r#"check if agent("rawk-042");"#).may_receive(NOW));
    let other = narrowed(r#"check if agent("rawk-043");"#);
    assert!(!other.may_receive(NOW) && !other.may_send("rawk-043", NOW));
}

#[test]
fn a_narrowings_expiry_turns_exactly_where_next_change_says() {
    let (before, end) = (UnixMillis(NOW.0 + HOUR - 1), UnixMillis(NOW.0 + HOUR));
    let exclusive = narrowed("check if time($t), $t < 2026-11-22T11:00:00Z;");
    assert_eq!(exclusive.next_change(NOW), Some(end));
    assert!(exclusive.check_time(before).is_ok() && exclusive.may_receive(before));
    assert_eq!(exclusive.check_time(end), Err(TokenError::Expired));
    assert!(!exclusive.may_receive(end) && !exclusive.may_send("bob", end));

    let inclusive = narrowed("check if time($t), $t <= 2026-11-22T11:00:00Z;");
    let (last, after) = (UnixMillis(end.0 + 999), UnixMillis(end.0 + 1_000));
    assert!(inclusive.check_time(last).is_ok());
    assert_eq!(inclusive.check_time(after), Err(TokenError::Expired));
    assert_eq!(inclusive.next_change(end), Some(after));
    assert_eq!(inclusive.next_change(after), None);
}

#[test]
fn an_expired_narrowing_is_refused_when_shown() {
    let past = narrow(&token(), "check if time($t), $t < 2026-11-22T10:00:00Z;");
    assert_eq!(verify(&past).unwrap_err(), TokenError::Expired);
    let future = narrow(&token(), "check if time($t), $t >= 2026-11-22T11:00:00Z;");
    assert_eq!(verify(&future).unwrap_err(), TokenError::Expired);
}

#[test]
fn a_time_limit_on_one_operation_does_not_end_the_session() {
    let grant = narrowed(
        r#"check if operation("receive") or operation("send"), time($t), $t < 2026-11-22T11:00:00Z;"#,
    );
    let end = UnixMillis(NOW.0 + HOUR);
    assert_eq!(grant.next_change(NOW), Some(end));
    assert!(grant.may_send("bob", NOW) && !grant.may_send("bob", end));
    assert!(grant.check_time(end).is_ok() && grant.may_receive(end));
}

#[test]
fn dates_inside_sets_arrays_and_maps_are_changes_too() {
    for code in [
        "check if time($t), {2026-11-22T10:30:00Z, 2026-11-22T11:00:00Z}.contains($t) || true;",
        "check if time($t), [2026-11-22T10:30:00Z].contains($t) || true;",
        r#"check if time($t), {"a": 2026-11-22T10:30:00Z} == $t || true;"#,
        "check if time(2026-11-22T10:30:00Z) or true;",
        "check if true || (false || 2026-11-22T10:30:00Z == 2026-11-22T10:30:00Z);",
    ] {
        assert_eq!(narrowed(code).next_change(NOW), Some(UnixMillis(NOW.0 + HOUR / 2)), "{code}");
    }
}

#[test]
fn the_lines_that_the_documentation_offers_are_accepted() {
    let documentation = include_str!("../../../docs/tokens.md");
    let lines: Vec<_> = documentation
        .lines()
        .filter_map(|line| line.strip_suffix(";` |")?.split_once("| `check if "))
        .map(|(_, check)| format!("check if {check};"))
        .collect();
    assert!(lines.len() >= 8, "{lines:?}");
    for line in lines {
        assert!(narrowed(&line).is_narrowed());
    }
}

#[test]
fn what_cannot_be_computed_fails_the_check() {
    for code in ["check if time($t), $t < 5;", "check if time($t), $t && true;", "check if 7;"] {
        let token = narrow(&token(), code);
        assert_eq!(verify(&token).unwrap_err(), TokenError::Expired, "{code}");
    }
    // As in biscuit, an alternative that cannot be computed spoils those after it.
    let grant = narrowed(r"check if recipient($r), $r < 5 or operation($o);");
    assert!(grant.may_receive(NOW) && !grant.may_send("bob", NOW));
}

#[test]
fn a_later_block_forges_nothing() {
    let facts = refused(&narrow(&token(), r#"agent("victim");"#));
    assert!(facts.contains("facts"), "{facts}");
    refused(&narrow(&token(), "serial(1);"));
    refused(&narrow(&token(), "expires(2099-01-01T00:00:00Z);"));
    refused(&narrow(&token(), r#"operation("send"); check if operation("send");"#));
    let rules = refused(&narrow(&token(), r#"agent("victim") <- agent($a);"#));
    assert!(rules.contains("rules"), "{rules}");
}

#[test]
fn no_block_gives_a_token_more_time() {
    let expires = UnixMillis(NOW.0 + HOUR);
    let short = signer().issue(&agent(), Serial(7), NOW, Some(expires)).unwrap();
    let longer = narrow(&short, "check if time($t), $t < 2099-01-01T00:00:00Z;");
    let grant = verify(&longer).unwrap();
    assert_eq!(grant.expires(), Some(expires));
    assert_eq!(grant.check_time(expires), Err(TokenError::Expired));
    let (forged, narrow_first) = (
        narrow(&short, "expires(2099-01-01T00:00:00Z);"),
        narrow(&token(), "check if time($t), $t < 2026-11-22T10:00:01Z;"),
    );
    refused(&forged);
    let widened = narrow(&narrow_first, "check if time($t), $t < 2099-01-01T00:00:00Z;");
    let verifier = signer().verifier();
    let late = UnixMillis(NOW.0 + 1_000);
    assert_eq!(verifier.verify(&widened, late).unwrap_err(), TokenError::Expired);
}

#[test]
fn a_removed_narrowing_is_invalid() {
    let narrow = narrow(&token(), r#"check if operation("send");"#);
    // The appended block is cut out, the proof kept: all that a holder of the narrowed token has.
    let whole = bytes(&narrow);
    let length = usize::from(whole[1] & 0x7f) | usize::from(whole[2]) << 7;
    let (authority, proof) = (&whole[..3 + length], &whole[whole.len() - 36..]);
    let cut = [authority, proof].concat();
    assert!(UnverifiedBiscuit::from(&cut).is_ok(), "the cut token must at least parse");
    assert_eq!(verify(&text(&cut)).unwrap_err(), TokenError::Invalid);
}

#[test]
fn what_is_not_in_the_vocabulary_is_refused() {
    let nine = format!("check if {};", ["time($t)"; 9].join(", "));
    for (code, reason) in [
        (r#"reject if operation("send");"#, "reject"),
        (r#"check if admin("me");"#, "something other"),
        (r"check if time($t), serial(7);", "something other"),
        ("check if time($a, $b);", "one term"),
        (r#"check if recipient("bob", "carol");"#, "one term"),
        (r#"check if recipient($r), $r.matches("b.*");"#, "regular"),
        (r#"check if recipient($r), $r + "x" == "bobx";"#, "arithmetic"),
        ("check if 1 + 1 == 2;", "arithmetic"),
        (r#"check if recipient($r), ["bob"].any($x -> $x == $r);"#, "closures"),
        (r#"check if recipient($r), ["bob"].all($x -> $x == $r);"#, "closures"),
        (r"check if recipient($r), $r.length() < 4;", "methods"),
        (r#"check if recipient($r), $r.type() == "string";"#, "methods"),
        (r"check if {1}.union({2}).contains(2);", "methods"),
        (r"check if (true || 1 + 1 == 2);", "arithmetic"),
        (r#"check if operation("send") trusting previous;"#, "trusting"),
        (&nine, "8 predicates"),
    ] {
        let told = refused(&narrow(&token(), code));
        assert!(told.contains(reason), "{code}: {told}");
    }
}

#[test]
fn what_a_third_party_signs_is_refused() {
    let (third_party, biscuit) =
        (KeyPair::new(), UnverifiedBiscuit::from(bytes(&token())).unwrap());
    let block = BlockBuilder::new().code(r#"check if operation("send");"#).unwrap();
    let request = biscuit.third_party_request().unwrap();
    let signed = request.create_block(&third_party.private(), block).unwrap();
    let signed = signed.serialize().unwrap();
    let token = text(&biscuit.append_third_party(&signed).unwrap().to_vec().unwrap());
    assert!(refused(&token).contains("third party"));
}

#[test]
fn sixteen_blocks_are_the_most() {
    let mut token = token();
    for _ in 1..TOKEN_BLOCKS_MAX {
        token = narrow(&token, "check if true;");
    }
    assert!(token.len() < TOKEN_BYTES_MAX, "{}", token.len());
    assert!(verify(&token).is_ok());
    assert!(refused(&narrow(&token, "check if true;")).contains("16 blocks"));
}

#[test]
fn what_this_key_signed_but_no_registry_wrote_is_invalid() {
    let secret = PrivateKey::from_bytes(&[7; 32], Algorithm::Ed25519).unwrap();
    for code in [
        "",
        r#"agent("rawk-042"); serial(7);"#,
        r#"agent("rawk-042"); issued(2026-11-22T10:00:00Z);"#,
        r#"agent("Rawk"); serial(7); issued(2026-11-22T10:00:00Z);"#,
        r#"agent("rawk-042"); agent("other"); serial(7); issued(2026-11-22T10:00:00Z);"#,
        r#"agent("rawk-042"); serial(-7); issued(2026-11-22T10:00:00Z);"#,
        r#"agent("rawk-042"); serial(7); issued(2026-11-22T10:00:00Z); admin(true);"#,
    ] {
        let biscuit = biscuit_auth::Biscuit::builder().code(code).unwrap();
        let biscuit = biscuit.build(&KeyPair::from(&secret)).unwrap();
        let token = text(&biscuit.to_vec().unwrap());
        assert_eq!(verify(&token).unwrap_err(), TokenError::Invalid, "{code}");
    }
}

#[test]
fn a_sealed_token_is_good() {
    let sealed = UnverifiedBiscuit::from(bytes(&token())).unwrap().seal().unwrap();
    assert!(verify(&text(&sealed.to_vec().unwrap())).is_ok());
}

#[test]
fn nothing_shows_a_narrowing_but_its_size() {
    let shown = format!("{:?}", narrowed(r#"check if recipient("secret-friend");"#));
    assert!(shown.contains("1 checks") && !shown.contains("secret-friend"), "{shown}");
}

/// [`token`], narrowed by `docs/examples/narrow_token.py` with biscuit-python 0.4.0: first
/// `--to bob,carol`, then `--send-only --expires-in 36500d`.
const MADE_IN_PYTHON: &str = "tok_EuYBCnwKBWFnZW50CghyYXdrLTA0MgoGc2VyaWFsCgZpc3N1ZWQKBnNpZ25lchgDIgoKCAiACBIDGIEIIgkK\
    BwiCCBICEAciDQoLCIMIEgYgoPqK2AYiKQonCIQIEiIqIOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs\
    EiQIABIg9elXPAlmTcREeh14Ju9aEHgUv0xo_tzwSHtM-yHXJ5AaQDzMDCfjJzUkCb2OYEDqtzvBZ0bBlFMC6OMK\
    qNllMj0zRii4U3aaYNA2wYV0oSrMyxGt08PDkpH8J2Ax-7Le9gYazwEKZQoHcmVjZWl2ZQoJcmVjaXBpZW50CgFy\
    CgNib2IKBWNhcm9sGAMyPgoNCgIIGxIHCAMSAxiFCAotCgIIGxIICIYIEgMIhwgaHQoOCgw6CgoDGIgICgMYiQgK\
    BQoDCIcICgQaAggFEiQIABIgRgiwn8YtgdKwuy2nGLQV3oG5HE8sAR9XwJa7hUeuMdAaQOOjsXb-RtUPdOnvDUkg\
    aJPIAYmqPmciH9KVQadvCkqCU9Sqmr8-r5XzJwtW4Vbhu-m9sdtzwyuA84rYqAU7-AUasAEKRgoBdAoEc2VuZBgD\
    MigKJgoCCBsSBwgFEgMIiggaFwoFCgMIiggKCAoGINnV67cSCgQaAggAMg8KDQoCCBsSBwgDEgMYiwgSJAgAEiAK\
    a6_CSQcNX__Ui1TWBgxRFjaZ5v3qt-MkIMxDPs2OKxpAWMGVGjNDCB6czAer8t4Gu_EwOxYLyYOFLLEoONKL82C6\
    mxr9c32X2QYjlht5bVBHMcmUm1cWKYv-f3ojn06TDiIiCiCHZd1NFgUIVGlpbMwWuPI0DzHeaz2cfM3avp7rdYOm\
    Eg";

#[test]
fn what_another_biscuit_library_made_is_enforced() {
    let grant = verify(MADE_IN_PYTHON).unwrap();
    assert_eq!((grant.agent(), grant.serial()), (&agent(), Serial(7)));
    assert!(grant.may_send("bob", NOW) && grant.may_send("carol", NOW));
    assert!(!grant.may_send("dave", NOW) && !grant.may_send("*", NOW) && !grant.may_receive(NOW));
    let end = grant.next_change(NOW).unwrap();
    assert!(grant.check_time(UnixMillis(end.0 - 1)).is_ok());
    assert_eq!(grant.check_time(end), Err(TokenError::Expired));
}
