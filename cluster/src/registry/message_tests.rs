//! The bytes of everything that registries say to each other, as other releases read them.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use data_encoding::HEXLOWER;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, SnapshotMeta, Vote};

use super::*;
use crate::{
    AgentId, NodeId,
    registry::{
        AgentPage, AgentRecord, Audience, Claim, Imported, KeyId, KeyInfo, KeyRotation, Revocation,
        VoterChange,
        command::{Batch, Command, Secret},
        raft::{Entry, VoterAddress},
        request::Answer,
    },
    token::Serial,
};

fn hex(value: &impl Serialize) -> String {
    HEXLOWER.encode(&to_bytes(value))
}

/// That the value has these bytes, and they this value.
#[track_caller]
fn frozen<T: Serialize + DeserializeOwned>(value: &T, bytes: &str) {
    assert_eq!(hex(value), bytes);
    let read: T = from_bytes(&to_bytes(value)).unwrap();
    assert_eq!(hex(&read), bytes);
}

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

fn claim() -> Claim {
    Claim { id: [7; 16], repeatable: true }
}

fn log_id() -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(2, 3), 4)
}

fn membership() -> Membership<u64, VoterAddress> {
    let address = VoterAddress { seed: "a:1".into() };
    Membership::new(vec![[9].into()], std::collections::BTreeMap::from([(9, address)]))
}

#[test]
fn what_rafts_ask_is_frozen() {
    let command = Command::Register { agent: id("abc"), claim: claim(), expires: None };
    let batch = Batch { time: UnixMillis(5), commands: vec![command] };
    let payloads =
        [EntryPayload::Blank, EntryPayload::Normal(batch), EntryPayload::Membership(membership())];
    let append = AppendEntriesRequest {
        vote: Vote::new_committed(2, 3),
        prev_log_id: None,
        entries: payloads.map(|payload| Entry { log_id: log_id(), payload }).into(),
        leader_commit: Some(log_id()),
    };
    frozen(&Question::Append(append), "APPEND");
    let vote = VoteRequest { vote: Vote::new(2, 3), last_log_id: Some(log_id()) };
    frozen(&Question::Vote(vote), "VOTE");
    let meta = SnapshotMeta {
        last_log_id: Some(log_id()),
        last_membership: openraft::StoredMembership::new(Some(log_id()), membership()),
        snapshot_id: "s".into(),
    };
    let chunk = bytes::Bytes::from_static(b"xy");
    let last = Some((Vote::new_committed(2, 3), meta));
    frozen(&Question::Snapshot(Piece { transfer: 1, number: 2, chunk, last }), "PIECE");
    frozen(&Taken::Next, "NEXT");
    frozen(&Taken::All(Vote::new(2, 3)), "ALL");
    frozen(&Taken::Broken, "BROKEN");
}

#[test]
fn what_is_asked_and_told_of_the_book_is_frozen() {
    frozen(&Question::View { index: None, offset: 0 }, "VIEW0");
    frozen(&Question::View { index: Some(300), offset: 70_000 }, "VIEW1");
    frozen(&Question::Applied, "APPLIED");
    let bytes = bytes::Bytes::from_static(b"xy");
    frozen(&Page { index: 300, total: 2, bytes }, "PAGE");
    let news = Telling::News {
        registry: RegistryId(7),
        from: 1,
        to: 2,
        facts: Facts { registered: 3, ..Facts::default() },
    };
    frozen(&news, "NEWS");
}

#[test]
fn requests_are_frozen() {
    let secret = || Secret(zeroize::Zeroizing::new(vec![1, 2]));
    let put = |value, audience| {
        let key = "acme".into();
        Request::PutVault { key, expected: 1, value, audience }
    };
    let agent = id("abc");
    for (request, bytes) in [
        (Request::Register { agent: agent.clone(), claim: claim() }, "R0"),
        (Request::Release { agent: agent.clone(), claim: claim() }, "R1"),
        (Request::Reissue(agent.clone()), "R2"),
        (Request::Revoke(Revocation::Token(Serial(7))), "R3"),
        (Request::Revoke(Revocation::Agent(agent.clone())), "R4"),
        (Request::Ban(agent.clone()), "R5"),
        (Request::Unban(agent.clone()), "R6"),
        (Request::Import(vec![agent.clone()]), "R7"),
        (Request::RotateKey { retire_after_ms: 9 }, "R8"),
        (Request::ChangeVoters(VoterChange::Set(vec!["a:1".into()])), "R9"),
        (Request::ChangeVoters(VoterChange::FollowSeeds), "R10"),
        (Request::ChangeVoters(VoterChange::Replace { old: "a".into(), new: "b".into() }), "R11"),
        (put(Some(secret()), Audience::All), "R12"),
        (put(None, Audience::Voters), "R13"),
        (Request::Agent(agent.clone()), "R14"),
        (Request::Agents { after: Some(agent), limit: 100 }, "R15"),
        (Request::Keys, "R16"),
    ] {
        frozen(&request, bytes);
    }
    let made = UnixMillis(5);
    frozen(&Question::Request { request: Request::Keys, made, patience_ms: 900 }, "R17");
}

#[test]
fn answers_are_frozen() {
    let record = AgentRecord {
        registered_at: UnixMillis(1),
        serial: Serial(2),
        revoked: true,
        banned: false,
    };
    let key = |number| KeyInfo {
        id: KeyId(number),
        public: vec![1, 2],
        created_at: UnixMillis(3),
        retires_at: None,
    };
    let page = AgentPage { agents: vec![(id("abc"), record.clone())], more: true };
    let imported = Imported { added: 1, existing: vec![id("abc")] };
    for (answer, bytes) in [
        (Answer::Done, "A0"),
        (Answer::Registered { agent: id("abc"), token: "tok_x".into() }, "A1"),
        (Answer::Taken, "A2"),
        (Answer::Reserved, "A3"),
        (Answer::Released, "A4"),
        (Answer::UnknownAgent, "A5"),
        (Answer::UnknownToken, "A6"),
        (Answer::Banned, "A7"),
        (Answer::Imported(imported), "A8"),
        (Answer::Rotated(KeyRotation { signs: key(1), retires: key(0) }), "A9"),
        (Answer::Version(4), "A10"),
        (Answer::Conflict(4), "A11"),
        (Answer::Agent(Some(record)), "A12"),
        (Answer::Agent(None), "A13"),
        (Answer::Agents(page), "A14"),
        (Answer::Keys(vec![key(0)]), "A15"),
        (Answer::Refused("no".into()), "A16"),
        (Answer::NotLeader(Some(NodeId(9))), "A17"),
        (Answer::Unavailable { why: "disk".into(), unknown: true }, "A18"),
    ] {
        frozen(&answer, bytes);
    }
}

#[test]
fn what_is_not_understood_is_nothing() {
    for bytes in [b"".as_slice(), b"\xc1", b"\xa7Unknown", &[0x91; 4_096]] {
        assert!(from_bytes::<Question>(bytes).is_none());
        assert!(from_bytes::<Telling>(bytes).is_none());
        assert!(from_bytes::<Answer>(bytes).is_none());
    }
}

#[test]
fn an_answer_that_fits_no_question_shows_no_token() {
    let answer = Answer::Registered { agent: id("abc"), token: "tok_secret".into() };
    assert!(!format!("{answer:?}").contains("secret"));
    let error = answer.into_done().unwrap_err().to_string();
    assert!(error.contains("registered") && !error.contains("secret"), "{error}");
}
