//! Whole commands, from their arguments to their output, against a scripted relay on a real socket.

#![allow(clippy::unwrap_used)] // test code: what cannot go on fails

use std::{future::pending, time::Duration};

use clap::Parser;

use super::{
    AgentsArgs, BackupArgs, ClusterCommand, Command, StatusArgs, agents, backup, carry_out,
    cluster,
    failure::Failure,
    output::tests::captured,
    status,
    test_relay::{Act, TestRelay, TlsFront, Turn},
};
use crate::clock::Clock;

const TOKEN: &str = "tok_secret";
/// A command that took this long will never end.
const HANGS: Duration = Duration::from_secs(20);

#[derive(Parser)]
enum Line {
    #[command(subcommand)]
    Agent(Command),
    #[command(args_conflicts_with_subcommands = true)]
    Agents(AgentsArgs),
    #[command(subcommand)]
    Cluster(ClusterCommand),
    Backup(BackupArgs),
    Status(StatusArgs),
}

/// What a command came to.
struct Ended {
    outcome: Result<(), Failure>,
    results: String,
    notes: String,
}

impl Ended {
    fn code(&self) -> u8 {
        self.outcome.as_ref().err().map_or(0, Failure::exit_code)
    }

    fn error(&self) -> String {
        self.outcome.as_ref().unwrap_err().to_string()
    }
}

async fn run(line: &[&str]) -> Ended {
    let line = Line::try_parse_from(["arc-relay"].iter().chain(line)).unwrap();
    let (mut output, results, notes) = captured();
    let clock = Clock::system();
    let ending = async {
        match line {
            Line::Agent(command) => carry_out(command, &mut output, &clock, pending()).await,
            Line::Agents(args) => agents::run(args, &mut output).await,
            Line::Cluster(command) => cluster::run(command, &mut output).await,
            Line::Backup(args) => backup::run(&args, &mut output).await,
            Line::Status(args) => status::run(&args, &mut output, pending()).await,
        }
    };
    let outcome = tokio::time::timeout(HANGS, ending).await.expect("the command hangs");
    let ended = Ended { outcome, results: results.text(), notes: notes.text() };
    let shown = format!("{:?}{}{}", ended.outcome, ended.results, ended.notes);
    assert!(!shown.contains(TOKEN), "the token was shown: {shown}");
    ended
}

async fn agent(relay: &TestRelay, command: &str, rest: &[&str]) -> Ended {
    let address = relay.address();
    let start = ["agent", command, "--relay", &address, "--token", TOKEN];
    run(&[&start, rest].concat()).await
}

fn message(payload: &str) -> &'static str {
    let text = format!(
        r#"{{"id":"msg_2","from":"rawk-042","to":["*"],"type":"thought","payload":{payload},"ts":0}}"#
    );
    Box::leak(text.into_boxed_str())
}

const DECLINED: &str = r#"{"from":"relay","to":["me-myself"],"type":"error",
    "payload":{"code":"rate_limit","message":"too fast"},"ts":1}"#;

const OK: &str = "200 OK";

#[tokio::test]
async fn a_message_is_sent_and_taken() {
    let relay = TestRelay::start(vec![Turn::Session(vec![Act::Hear])]).await;
    let rest = ["--to", "rawk-042,rawk-043", "--type", "question", "--ref", "msg_0", "how?"];
    let ended = agent(&relay, "send", &rest).await;
    assert_eq!((ended.code(), ended.results.as_str()), (0, "sent to rawk-042, rawk-043\n"));
    let heard = relay.heard();
    assert_eq!(heard[0], "Bearer tok_secret");
    assert_eq!(
        heard[1],
        r#"{"to":["rawk-042","rawk-043"],"type":"question","ref":"msg_0","payload":"how?"}"#
    );
    assert_eq!(heard[2], "close 1000");
}

#[tokio::test]
async fn json_is_sent_as_it_is() {
    for rest in [&["--json", r#"{"n": 1e999}"#][..], &["--payload", r#"{"n": 1e999}"#]] {
        let relay = TestRelay::start(vec![Turn::Session(vec![Act::Hear])]).await;
        assert_eq!(agent(&relay, "send", rest).await.results, "sent to everybody\n");
        assert_eq!(relay.heard()[1], r#"{"to":["*"],"payload":{"n": 1e999}}"#);
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_before_connecting() {
    let relay = TestRelay::start(Vec::new()).await;
    let ended = agent(&relay, "send", &["--payload", "{"]).await;
    assert_eq!(ended.code(), 2);
    assert!(ended.error().starts_with("the payload is not JSON: "));
}

#[tokio::test]
async fn a_message_over_the_relays_limit_stays_here() {
    let relay = TestRelay::start(vec![Turn::Session(vec![])]).await;
    let ended = agent(&relay, "send", &[&"x".repeat(1_000)]).await;
    assert_eq!(ended.code(), 3);
    assert_eq!(ended.error(), "the message has 1025 bytes, and this relay takes 1000");
}

#[tokio::test]
async fn an_error_answer_fails_the_send() {
    let acts = vec![Act::Hear, Act::Say(message("1")), Act::Say(DECLINED)];
    let relay = TestRelay::start(vec![Turn::Session(acts)]).await;
    let ended = agent(&relay, "send", &["hello"]).await;
    assert_eq!(ended.code(), 3);
    assert_eq!(ended.error(), "refused by the relay: too fast (rate_limit)");
    assert_eq!(ended.results, "");
}

#[tokio::test]
async fn a_refused_token_is_told_with_the_relays_words() {
    let body = r#"{"error":"token_revoked","message":"the token was revoked"}"#;
    let relay = TestRelay::start(vec![Turn::Http("401 Unauthorized", body)]).await;
    let ended = agent(&relay, "listen", &[]).await;
    assert_eq!(ended.code(), 4);
    let told = "refused: the token was revoked (token_revoked, HTTP 401 Unauthorized)";
    assert_eq!(ended.error(), told);
    assert!(relay.heard()[0].contains("authorization: Bearer tok_secret\r\n"));
}

#[tokio::test]
async fn a_relay_that_does_not_answer_is_given_up() {
    let relay = TestRelay::start(vec![Turn::Nothing]).await;
    let ended = agent(&relay, "ping", &["--timeout", "50ms"]).await;
    assert_eq!(
        (ended.code(), ended.error().as_str()),
        (1, "no welcome from the relay within 50ms")
    );
}

#[tokio::test]
async fn pings_are_counted_and_timed() {
    let pong = r#"{"from":"relay","to":["me-myself"],"type":"pong","ts":1}"#;
    let acts = vec![Act::Hear, Act::Say(message("1")), Act::Say(pong), Act::Hear, Act::Say(pong)];
    let relay = TestRelay::start(vec![Turn::Session(acts)]).await;
    let rest = ["--count", "2", "--interval", "1ms", "--json"];
    let ended = agent(&relay, "ping", &rest).await;
    assert_eq!(ended.code(), 0);
    let seqs: Vec<u64> = ended
        .results
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .inspect(|pong| assert!(pong["round_trip_ms"].as_f64().unwrap() > 0.0))
        .map(|pong| pong["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2]);
    assert_eq!(relay.heard()[1], r#"{"to":["relay"],"type":"ping"}"#);
}

#[tokio::test]
async fn listening_filters_counts_and_leaves_in_good_order() {
    let other = r#"{"from":"other-one","to":["*"],"type":"thought","payload":0,"ts":0}"#;
    let acts = [message("1"), other, message("\"a\\nb\""), message("3")].map(Act::Say);
    let relay = TestRelay::start(vec![Turn::Session(acts.into())]).await;
    let ended = agent(&relay, "listen", &["--from", "rawk-042", "--count", "2"]).await;
    assert_eq!(ended.code(), 0);
    let time = "1970-01-01T00:00:00.000Z rawk-042 thought";
    assert_eq!(ended.results, format!("{time} 1\n{time} a\\nb\n"));
    assert_eq!(ended.notes, format!("listening as me-myself on ws://{}/arc\n", relay.address()));
    assert_eq!(relay.heard()[1..], ["close 1000"]);
}

#[tokio::test]
async fn a_listener_comes_back_when_told_to() {
    let relay = TestRelay::start(vec![
        Turn::Session(vec![Act::Say(message("1")), Act::Close(1001, "draining, retry_ms=1")]),
        Turn::Session(vec![Act::Say(message("2"))]),
    ])
    .await;
    let ended = agent(&relay, "listen", &["--count", "2", "--json"]).await;
    assert_eq!(ended.code(), 0);
    assert_eq!(ended.results, format!("{}\n{}\n", message("1"), message("2")));
    assert!(ended.notes.contains("retry_ms=1); trying again in 1."), "{}", ended.notes);
}

#[tokio::test]
async fn a_listener_comes_back_after_a_busy_relay() {
    let busy = "503 Service Unavailable\r\nretry-after: 0";
    let relay =
        TestRelay::start(vec![Turn::Http(busy, ""), Turn::Session(vec![Act::Say(message("1"))])])
            .await;
    let ended = agent(&relay, "listen", &["--count", "1", "--json"]).await;
    assert_eq!((ended.code(), ended.results), (0, format!("{}\n", message("1"))));
}

#[tokio::test]
async fn a_listener_that_was_replaced_stays_away() {
    for (code, exit) in [(4009, 5), (4001, 4)] {
        let relay = TestRelay::start(vec![Turn::Session(vec![Act::Close(code, "")])]).await;
        assert_eq!(agent(&relay, "listen", &[]).await.code(), exit);
    }
}

#[tokio::test]
async fn a_listener_that_shall_not_come_back_ends() {
    let relay = TestRelay::start(vec![Turn::Session(vec![Act::Close(1001, "retry_ms=1")])]).await;
    assert_eq!(agent(&relay, "listen", &["--no-reconnect"]).await.code(), 1);
}

#[tokio::test]
async fn a_listener_that_is_stopped_says_goodbye() {
    let relay = TestRelay::start(vec![Turn::Session(vec![Act::Say(message("1"))])]).await;
    let (mut output, results, _) = captured();
    let address = relay.address();
    let line = ["arc-relay", "agent", "listen", "--relay", &address, "--token", TOKEN];
    let Line::Agent(command) = Line::try_parse_from(line).unwrap() else { unreachable!() };
    let printed = async {
        while results.text().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    carry_out(command, &mut output, &Clock::system(), printed).await.unwrap();
    assert_eq!(relay.heard()[1..], ["close 1000"]);
}

#[tokio::test(start_paused = true)]
async fn a_listener_waits_ever_longer_for_a_relay_that_does_not_answer() {
    let relay = TestRelay::start((0..20).map(|_| Turn::Nothing).collect()).await;
    let (mut output, _, notes) = captured();
    let address = relay.address();
    let line = ["arc-relay", "agent", "listen", "--relay", &address, "--token", TOKEN];
    let Line::Agent(command) = Line::try_parse_from(line).unwrap() else { unreachable!() };
    let stop = tokio::time::sleep(Duration::from_mins(5));
    carry_out(command, &mut output, &Clock::system(), stop).await.unwrap();
    let tries = notes.text().lines().count();
    assert!((8..=14).contains(&tries), "{tries} tries of 10 s each\n{}", notes.text());
}

#[tokio::test]
async fn subscriptions_are_told_in_words_or_as_json() {
    let answer = r#"{"from":"relay","type":"subscribed","payload":{"agents":["abc"],"count":1}}"#;
    for (flag, printed) in [(None, "now following abc (count: 1)"), (Some("--json"), answer)] {
        let acts = vec![Act::Hear, Act::Say(message("1")), Act::Say(answer)];
        let relay = TestRelay::start(vec![Turn::Session(acts)]).await;
        let rest: Vec<_> = ["abc"].into_iter().chain(flag).collect();
        let ended = agent(&relay, "subscribe", &rest).await;
        assert_eq!((ended.code(), ended.results), (0, format!("{printed}\n")));
        let command = r#"{"to":["relay"],"type":"subscribe","payload":{"agents":["abc"]}}"#;
        assert_eq!(relay.heard()[1], command);
    }
}

#[tokio::test]
async fn a_new_name_comes_with_its_token_in_a_file() {
    let answer = r#"{"agent_id":"rawk-042","token":"tok_secret"}"#;
    let relay = TestRelay::start(vec![Turn::Http(OK, answer)]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token").to_string_lossy().into_owned();
    let address = relay.address();
    let line = ["agent", "register", "rawk-042", "--relay", &address, "--key", "k", "--save"];
    let ended = run(&[&line[..], &[&path]].concat()).await;
    assert_eq!(ended.code(), 0);
    assert!(ended.results.contains(&format!("agent listen --token-file {path} --relay ws://")));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "tok_secret\n");
    let heard = relay.heard();
    assert!(heard[0].starts_with("POST /register HTTP/1.1\r\n"), "{}", heard[0]);
    assert!(heard[0].contains("authorization: Bearer k\r\n"), "{}", heard[0]);
    assert!(heard[0].ends_with("\r\n\r\n{\"agent_id\":\"rawk-042\"}"), "{}", heard[0]);
}

#[tokio::test]
async fn a_taken_name_leaves_no_file() {
    let answer = r#"{"error":"agent_id_taken","message":"taken"}"#;
    let relay = TestRelay::start(vec![Turn::Http("409 Conflict", answer)]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token").to_string_lossy().into_owned();
    let address = relay.address();
    let line = ["agent", "register", "rawk-042", "--relay", &address, "--save", &path];
    let ended = run(&line).await;
    assert_eq!(ended.code(), 3);
    assert_eq!(ended.error(), "refused: taken (agent_id_taken, HTTP 409 Conflict)");
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn an_operator_revokes_and_looks() {
    let record = r#"{"agent_id":"rawk-042","registered_at":0,"serial":7,"revoked":true,
        "connected":true,"node":"node-1"}"#;
    let revoked = r#"{"agent_id":"rawk-042","revoked":true}"#;
    let token = r#"{"serial":7,"revoked":true}"#;
    let turns = [Turn::Http(OK, revoked), Turn::Http(OK, token), Turn::Http(OK, record)];
    let relay = TestRelay::start(turns.into()).await;
    let address = relay.address();
    let rest = ["--ops", &address, "--admin-token", TOKEN];
    let revoked = run(&[&["agents", "revoke", "rawk-042", "--yes"], &rest[..]].concat()).await;
    assert_eq!(revoked.results, "revoked all tokens of rawk-042\n");
    let revoked = run(&[&["agents", "revoke", "--serial", "7", "--yes"], &rest[..]].concat()).await;
    assert_eq!(revoked.results, "revoked token 7\n");
    let shown = run(&[&["agents", "show", "rawk-042"], &rest[..]].concat()).await;
    assert!(shown.results.contains("registered  1970-01-01T00:00:00.000Z\n"), "{}", shown.results);
    assert!(shown.results.ends_with("connected   yes, to node-1\n"), "{}", shown.results);
    let heard = relay.heard();
    assert!(heard[0].starts_with("POST /agents/rawk-042/revoke HTTP/1.1\r\n"));
    assert!(heard[0].contains("authorization: Bearer tok_secret\r\n"));
    assert!(heard[1].starts_with("POST /tokens/7/revoke HTTP/1.1\r\n"));
    assert!(heard[2].starts_with("GET /agents/rawk-042 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_registration_is_repeated_with_its_key_until_its_outcome_is_known() {
    let unavailable = r#"{"error":"registry_unavailable","message":"no quorum"}"#;
    let credentials = r#"{"agent_id":"rawk-042","token":"tok_new"}"#;
    let relay = TestRelay::start(vec![
        Turn::Http("503 Service Unavailable\r\nretry-after: 0", unavailable),
        Turn::Hangup,
        Turn::Http(OK, credentials),
    ])
    .await;
    let address = relay.address();
    let ended = run(&["agent", "register", "rawk-042", "--relay", &address]).await;
    assert_eq!(ended.code(), 0, "{}", ended.notes);
    assert!(ended.results.contains("export ARC_TOKEN=tok_new"));
    assert!(ended.notes.contains("no quorum"), "{}", ended.notes);
    let heard = relay.heard();
    let key = |request: &str| {
        let (_, rest) = request.split_once("idempotency-key: ").unwrap();
        rest.split_once("\r\n").unwrap().0.to_owned()
    };
    assert_eq!((heard.len(), key(&heard[0]).len()), (2, 32));
    assert_eq!(key(&heard[0]), key(&heard[1]), "one attempt, one key");
}

#[tokio::test]
async fn names_are_listed_and_imported() {
    let page = r#"{"agents":[{"agent_id":"ann-1","registered_at":0,"serial":1,"revoked":false,
        "banned":true,"connected":true}],"next":"ann-1"}"#;
    let last = r#"{"agents":[{"agent_id":"bob-1","registered_at":0,"serial":null,"revoked":false,
        "banned":false,"connected":false}],"next":null}"#;
    let imported = r#"{"added":1,"existing":["ann-1"]}"#;
    let turns = [Turn::Http(OK, page), Turn::Http(OK, last), Turn::Http(OK, imported)];
    let relay = TestRelay::start(turns.into()).await;
    let address = relay.address();
    let rest = ["--ops", &address, "--admin-token", TOKEN];
    let listed = run(&[&["agents", "list"], &rest[..]].concat()).await;
    let expected = "\
REGISTERED                  SERIAL  STATE      AGENT
1970-01-01T00:00:00.000Z         1  banned     ann-1
1970-01-01T00:00:00.000Z         -  no token   bob-1
";
    assert_eq!(listed.results, expected);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.json").to_string_lossy().into_owned();
    std::fs::write(&path, r#"["ann-1", {"agent_id": "bob-1"}]"#).unwrap();
    let said = run(&[&["agents", "import", &path], &rest[..]].concat()).await;
    assert_eq!(said.results, "imported 1 name; registered already: 1\n");
    let heard = relay.heard();
    assert!(
        heard[1].starts_with("GET /agents?limit=1000&after=ann-1 HTTP/1.1\r\n"),
        "{}",
        heard[1]
    );
    assert!(heard[2].ends_with("\r\n\r\n[\"ann-1\",\"bob-1\"]"), "{}", heard[2]);
    for (list, says) in [
        ("[", "EOF"),
        (r#"["ann-1", "NO"]"#, "name 2"),
        (r#"[{"agent_id":"ann-1","nick":1}]"#, "`nick`"),
    ] {
        std::fs::write(&path, list).unwrap();
        let said = run(&[&["agents", "import", &path], &rest[..]].concat()).await;
        assert_eq!(said.code(), 2);
        assert!(said.error().contains(says), "{}", said.error());
    }
}

#[tokio::test]
async fn voters_and_keys_are_changed_by_command() {
    let report = r#"{"id":"ab","role":"leader","available":true,"waiting":null,"leader":"a1",
        "term":1,"applied":7,"voters":[],"failure":null}"#;
    let key = r#"{"id":1,"public":"0a","created_at":0,"retires_at":1000}"#;
    let rotated = format!(r#"{{"signs":{key},"retires":{key}}}"#);
    let rotated: &'static str = rotated.leak();
    let turns = vec![
        Turn::Http(OK, report),
        Turn::Http(OK, report),
        Turn::Http(OK, report),
        Turn::Http(OK, rotated),
    ];
    let relay = TestRelay::start(turns).await;
    let address = relay.address();
    for line in [
        &["cluster", "voters"][..],
        &["cluster", "voters", "set", "a:1,b:1,c:1", "--yes"],
        &["cluster", "voters", "replace", "a:1", "d:1", "--yes"],
        &["cluster", "key", "rotate", "--retire-after", "30d", "--yes"],
    ] {
        let ended = run(&[line, &["--ops", &address, "--admin-token", TOKEN]].concat()).await;
        assert_eq!(ended.code(), 0, "{line:?}: {}", ended.notes);
    }
    let heard = relay.heard();
    let bodies = [
        "\r\n\r\n",
        r#"{"change":"set","seeds":["a:1","b:1","c:1"]}"#,
        r#"{"change":"replace","old":"a:1","new":"d:1"}"#,
        r#"{"retire_after_seconds":2592000}"#,
    ];
    for (request, body) in heard.iter().zip(bodies) {
        assert!(request.ends_with(body), "{request}");
    }
}

#[tokio::test]
async fn a_backup_that_ends_early_leaves_no_file() {
    let truncated = "200 OK\r\nconnection: close\r\ntransfer-encoding: chunked";
    let turns =
        vec![Turn::Raw(truncated, "3\r\nARC\r\n"), Turn::Raw(truncated, "3\r\nARC\r\n0\r\n\r\n")];
    let relay = TestRelay::start(turns).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arc.backup").to_string_lossy().into_owned();
    let address = relay.address();
    let line = ["backup", &path, "--ops", &address, "--admin-token", TOKEN];
    assert_eq!(run(&line).await.code(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let ended = run(&line).await;
    assert_eq!((ended.code(), std::fs::read_to_string(&path).unwrap()), (0, "ARC".to_owned()));
    let again = run(&line).await;
    assert_eq!(again.code(), 2);
    assert!(again.error().contains("--force"), "{}", again.error());
}

#[tokio::test]
async fn tls_is_spoken_with_those_who_are_trusted_only() {
    let relay = TestRelay::start(vec![Turn::Session(vec![Act::Hear])]).await;
    let front = TlsFront::start(relay.address()).await;
    let (folder, url) = (tempfile::tempdir().unwrap(), front.url());
    let path = folder.path().join("ca.pem").to_string_lossy().into_owned();
    std::fs::write(&path, &front.certificate_pem).unwrap();
    let line = ["agent", "send", "--relay", &url, "--token", TOKEN, "hello"];

    let stranger = run(&line).await;
    assert_eq!(stranger.code(), 1);
    assert!(stranger.error().starts_with("no TLS session with 127.0.0.1:"), "{}", stranger.error());
    assert_eq!(relay.heard(), Vec::<String>::new());

    let friend = run(&[&line[..], &["--ca", &path]].concat()).await;
    assert_eq!((friend.code(), friend.results.as_str()), (0, "sent to everybody\n"));
    assert_eq!(relay.heard()[0], "Bearer tok_secret");
}

#[tokio::test]
async fn a_mistyped_option_is_no_message() {
    assert!(Line::try_parse_from(["arc-relay", "agent", "send", "--verbos", "hello"]).is_err());
    assert!(Line::try_parse_from(["arc-relay", "agent", "send"]).is_err());
    assert!(Line::try_parse_from(["arc-relay", "agent", "send", "-5"]).is_ok());
    assert!(Line::try_parse_from(["arc-relay", "agent", "send", "a", "--to", "Bad_Id"]).is_err());
    assert!(Line::try_parse_from(["arc-relay", "agent", "send", "a", "--to", "*,abc"]).is_ok());
}

#[tokio::test]
async fn the_state_of_a_cluster_is_a_table_or_the_relays_own_words() {
    let report = r#"{"node":"id-1","nodes":[{"id":"id-1","name":"one","region":"eu","state":"alive",
        "version":"0.1.0","agents":7}],"links":[]}"#;
    let relay = TestRelay::start(vec![Turn::Http(OK, report), Turn::Http(OK, report)]).await;
    let table = run(&["status", "--ops", &relay.address()]).await;
    assert_eq!(table.code(), 0);
    assert!(table.results.starts_with("1 node, 7 agents"), "{}", table.results);
    let own_words = run(&["status", "--ops", &relay.address(), "--json"]).await;
    assert_eq!(own_words.results, format!("{}\n", report.replace('\n', " ")));
    assert!(relay.heard()[0].contains("/cluster"), "{:?}", relay.heard());
}
