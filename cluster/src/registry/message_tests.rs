//! The bytes of everything that registries say to each other, as other releases read them.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use data_encoding::HEXLOWER;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, SnapshotMeta, Vote};

use super::*;
use crate::{
    AgentId, NodeId,
    registry::{
        AgentPage, AgentRecord, Claim, Imported, KeyId, KeyInfo, KeyRotation, Revocation,
        VoterChange,
        command::{Audience, Batch, Command, Secret},
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
    frozen(
        &Question::Append(append),
        "81a6417070656e649492920203c3c093929292020304a5426c616e6b92929202030481a64e6f726d616c9205\
         9181a8526567697374657293a361626392c41007070707070707070707070707070707c3c092929202030481\
         aa4d656d6265727368697092919109810991a3613a319292020304",
    );
    let vote = VoteRequest { vote: Vote::new(2, 3), last_log_id: Some(log_id()) };
    frozen(&Question::Vote(vote), "81a4566f74659292920203c29292020304");
    frozen(&Question::WouldElect(Some(log_id())), "81aa576f756c64456c6563749292020304");
    frozen(&true, "c3");
    let meta = SnapshotMeta {
        last_log_id: Some(log_id()),
        last_membership: openraft::StoredMembership::new(Some(log_id()), membership()),
        snapshot_id: "s".into(),
    };
    let chunk = bytes::Bytes::from_static(b"xy");
    let last = Some((Vote::new_committed(2, 3), meta));
    frozen(
        &Question::Snapshot(Piece { transfer: 1, number: 2, chunk, last }),
        "81a8536e617073686f74940102c40278799292920203c393929202030492929202030492919109810991a361\
         3a31a173",
    );
    frozen(&Taken::Next, "a44e657874");
    frozen(&Taken::All(Vote::new(2, 3)), "81a3416c6c92920203c2");
    frozen(&Taken::Broken, "a642726f6b656e");
}

#[test]
fn what_is_asked_and_told_of_the_book_is_frozen() {
    frozen(&Question::View { index: None, offset: 0 }, "81a45669657792c000");
    frozen(&Question::View { index: Some(300), offset: 70_000 }, "81a45669657792cd012cce00011170");
    frozen(&Question::Applied, "a74170706c696564");
    let bytes = bytes::Bytes::from_static(b"xy");
    frozen(&Page { index: 300, total: 2, bytes }, "93cd012c02c4027879");
    let news = Telling::News {
        registry: RegistryId(7),
        from: 1,
        to: 2,
        facts: Facts { registered: 3, ..Facts::default() },
    };
    frozen(&news, "81a44e65777394c41000000000000000000000000000000007010298c003808080c080c0");
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
        (
            Request::Register { agent: agent.clone(), claim: claim() },
            "81a8526567697374657292a361626392c41007070707070707070707070707070707c3",
        ),
        (
            Request::Release { agent: agent.clone(), claim: claim() },
            "81a752656c6561736592a361626392c41007070707070707070707070707070707c3",
        ),
        (Request::Reissue(agent.clone()), "81a752656973737565a3616263"),
        (Request::Revoke(Revocation::Token(Serial(7))), "81a65265766f6b6581a5546f6b656e07"),
        (
            Request::Revoke(Revocation::Agent(agent.clone())),
            "81a65265766f6b6581a54167656e74a3616263",
        ),
        (Request::Ban(agent.clone()), "81a342616ea3616263"),
        (Request::Unban(agent.clone()), "81a5556e62616ea3616263"),
        (Request::Import(vec![agent.clone()]), "81a6496d706f727491a3616263"),
        (Request::RotateKey { retire_after_ms: 9 }, "81a9526f746174654b65799109"),
        (
            Request::ChangeVoters(VoterChange::Set(vec!["a:1".into()])),
            "81ac4368616e6765566f7465727381a353657491a3613a31",
        ),
        (
            Request::ChangeVoters(VoterChange::FollowSeeds),
            "81ac4368616e6765566f74657273ab466f6c6c6f775365656473",
        ),
        (
            Request::ChangeVoters(VoterChange::Replace { old: "a".into(), new: "b".into() }),
            "81ac4368616e6765566f7465727381a75265706c61636592a161a162",
        ),
        (put(Some(secret()), Audience::All), "81a85075745661756c7494a461636d6501c4020102a3416c6c"),
        (put(None, Audience::Voters), "81a85075745661756c7494a461636d6501c0a6566f74657273"),
        (Request::Agent(agent.clone()), "81a54167656e74a3616263"),
        (Request::Agents { after: Some(agent), limit: 100 }, "81a64167656e747392a361626364"),
        (Request::Keys, "a44b657973"),
    ] {
        frozen(&request, bytes);
    }
    let made = UnixMillis(5);
    frozen(
        &Question::Request { request: Request::Keys, made, patience_ms: 900 },
        "81a75265717565737493a44b65797305cd0384",
    );
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
        (Answer::Done, "a4446f6e65"),
        (
            Answer::Registered { agent: id("abc"), token: "tok_x".into() },
            "81aa5265676973746572656492a3616263a5746f6b5f78",
        ),
        (Answer::Taken, "a554616b656e"),
        (Answer::Reserved, "a85265736572766564"),
        (Answer::Released, "a852656c6561736564"),
        (Answer::UnknownAgent, "ac556e6b6e6f776e4167656e74"),
        (Answer::UnknownToken, "ac556e6b6e6f776e546f6b656e"),
        (Answer::Banned, "a642616e6e6564"),
        (Answer::Imported(imported), "81a8496d706f72746564920191a3616263"),
        (
            Answer::Rotated(KeyRotation { signs: key(1), retires: key(0) }),
            "81a7526f746174656492940192010203c0940092010203c0",
        ),
        (Answer::Version(4), "81a756657273696f6e04"),
        (Answer::Conflict(4), "81a8436f6e666c69637404"),
        (Answer::Agent(Some(record)), "81a54167656e74940102c3c2"),
        (Answer::Agent(None), "81a54167656e74c0"),
        (Answer::Agents(page), "81a64167656e7473929192a3616263940102c3c2c3"),
        (Answer::Keys(vec![key(0)]), "81a44b65797391940092010203c0"),
        (Answer::Refused("no".into()), "81a752656675736564a26e6f"),
        (Answer::NotLeader(Some(NodeId(9))), "81a94e6f744c656164657209"),
        (
            Answer::Unavailable { why: "disk".into(), unknown: true },
            "81ab556e617661696c61626c6592a46469736bc3",
        ),
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
