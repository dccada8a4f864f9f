//! The client in the relay's own binary, as a user runs it in a shell and a script reads it.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::{
    Client, Relay, arc_relay,
    process::{self, Finished, Running},
};

/// `arc-relay WORDS…` in a shell where `ARC_RELAY`, and `ARC_TOKEN` if given, are set.
fn shell(relay: &Relay, token: Option<&str>, words: &[&str]) -> Command {
    let mut command = Command::new(arc_relay());
    command.args(words).current_dir(relay.folder()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("ARC_RELAY", relay.http_url());
    command.envs(token.map(|token| ("ARC_TOKEN", token)));
    command
}

/// Runs `arc-relay agent WORDS…` to its end.
async fn agent(relay: &Relay, token: Option<&str>, words: &[&str]) -> Finished {
    process::run(shell(relay, token, &[&["agent"], words].concat())).await
}

/// Starts `arc-relay agent listen --json` and waits until it is connected.
async fn listen(relay: &Relay, token: &str, words: &[&str]) -> Running {
    let words = [&["agent", "listen", "--json"], words].concat();
    let mut command = shell(relay, Some(token), &words);
    command.stderr(Stdio::null());
    let running = Running::start(command);
    relay.wait_for_connections(1).await;
    running
}

#[tokio::test]
async fn the_quick_start_works_as_it_is_written() {
    let relay = Relay::start();
    let token_of = |finished: Finished| -> String {
        let object: Value = serde_json::from_str(&finished.expect_code(0).stdout).expect("JSON");
        object["token"].as_str().expect("a token is a string").to_owned()
    };
    let ann = token_of(agent(&relay, None, &["register", "ann-1", "--json"]).await);
    let bob = token_of(agent(&relay, None, &["register", "--agent-id", "bob-1", "--json"]).await);

    let pong = agent(&relay, Some(&ann), &["ping"]).await.expect_code(0);
    assert!(pong.stdout.contains("ann-1") && pong.stdout.contains("pong"), "{pong:?}");

    let subscribed = agent(&relay, Some(&bob), &["subscribe", "ann-1"]).await.expect_code(0);
    assert!(subscribed.stdout.contains("ann-1"), "{subscribed:?}");

    relay.wait_for_connections(0).await;
    let mut bob = listen(&relay, &bob, &["--count", "2"]).await;
    let text = ["send", "hällo", "--to", "bob-1", "--type", "greeting"];
    agent(&relay, Some(&ann), &text).await.expect_code(0);
    agent(&relay, Some(&ann), &["send", "--payload", r#"{"n":1.10}"#]).await.expect_code(0);
    let greeting: Value = serde_json::from_str(&bob.line().await.expect("a line")).expect("JSON");
    assert_eq!((&greeting["from"], &greeting["payload"]), (&json!("ann-1"), &json!("hällo")));
    assert_eq!(greeting["type"], "greeting");
    let broadcast = bob.line().await.expect("a line");
    assert!(broadcast.contains(r#""payload":{"n":1.10}"#), "byte for byte: {broadcast}");
    assert_eq!(bob.code().await, Some(0), "two messages were asked for");
}

#[tokio::test]
async fn what_a_person_reads_names_the_next_step_and_the_token_once() {
    let relay = Relay::start();
    let registered = agent(&relay, None, &["register", "ann-1"]).await.expect_code(0);
    assert_eq!(registered.stdout.matches("tok_").count(), 1, "{registered:?}");
    assert!(registered.stdout.contains("export ARC_TOKEN="), "{registered:?}");
    let token = registered.stdout.split("ARC_TOKEN=").nth(1).expect("the variable is set");
    let token = token.split_whitespace().next().expect("a token").trim_matches('\'');
    assert_eq!(Client::connect(&relay, token).await.id, "ann-1");
}

#[tokio::test]
async fn exit_codes_tell_a_script_what_happened() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let token = Some(token.as_str());
    let rows: [(i32, Option<&str>, &[&str]); 11] = [
        (0, token, &["ping", "--count", "2", "--interval", "10ms"]),
        (0, token, &["subscribe", "--list"]),
        (2, None, &["ping"]),
        (2, token, &["send"]),
        (2, token, &["send", "--payload", "{no json"]),
        (2, token, &["send", "x", "--to", "Not An Id"]),
        (2, token, &["dance"]),
        (3, None, &["register", "ann-1"]),
        (4, Some("tok_bad"), &["ping"]),
        (4, Some("tok_bad"), &["listen"]),
        (1, token, &["ping", "--relay", "http://127.0.0.1:1"]),
    ];
    for (code, token, words) in rows {
        let finished = agent(&relay, token, words).await;
        assert_eq!(finished.code, Some(code), "agent {words:?}: {finished:#?}");
        if code != 0 {
            assert!(!finished.stderr.is_empty(), "agent {words:?} says why");
        }
        assert!(!finished.stderr.contains("tok_"), "no token in messages: {finished:?}");
    }
}

#[tokio::test]
async fn a_listener_comes_back_after_a_restart() {
    let mut relay = Relay::start();
    let token = relay.register("ann-1").await;
    let mut ann = listen(&relay, &token, &[]).await;
    // The address must stay the same for the listener to find the relay again.
    let port = relay.public.port();
    relay.kill9();
    relay.set("PORT", &port.to_string());
    relay.start_again();
    relay.wait_for_connections(1).await;
    let mut bob = relay.agent("bob-1").await;
    bob.send(json!({"to": ["ann-1"], "payload": "welcome back"})).await;
    assert!(ann.line().await.expect("a line").contains("welcome back"));

    let pid = i32::try_from(ann.pid()).ok().and_then(Pid::from_raw).expect("a process has an id");
    kill_process(pid, Signal::TERM).expect("the listener runs");
    assert_eq!(ann.code().await, Some(0), "told to stop, it has done its work");
    relay.wait_for_connections(1).await;
}

#[tokio::test]
async fn a_listener_that_is_replaced_gives_way() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let mut old = listen(&relay, &token, &[]).await;
    let _new = Client::connect(&relay, &token).await;
    assert_eq!(old.code().await, Some(5), "two listeners must not fight over one name");
}

#[tokio::test]
async fn a_listener_whose_token_is_revoked_ends() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let mut ann = listen(&relay, &token, &[]).await;
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
    assert_eq!(ann.code().await, Some(4));
}

#[tokio::test]
async fn an_operator_revokes_and_reissues_from_the_shell() {
    let relay = Relay::start();
    let mut ann = relay.agent("ann-1").await;
    let ops = format!("http://{}", relay.ops);
    let operate = async |words: &[&str]| {
        let words = [&["agents"], words, &["--ops", &ops, "--data-dir", "data"]].concat();
        process::run(shell(&relay, None, &words)).await
    };
    let shown = operate(&["show", "ann-1", "--json"]).await.expect_code(0);
    assert!(shown.stdout.contains("ann-1"), "{shown:?}");
    operate(&["revoke", "ann-1", "--yes"]).await.expect_code(0);
    ann.expect_close(4001).await;
    let reissued = operate(&["reissue", "ann-1", "--json"]).await.expect_code(0);
    let object: Value = serde_json::from_str(&reissued.stdout).expect("JSON");
    let token = object["token"].as_str().expect("a token is a string");
    assert_eq!(Client::connect(&relay, token).await.id, "ann-1");
    operate(&["show", "nobody-1"]).await.expect_code(3);
}

#[tokio::test]
async fn an_operator_sees_the_state_of_the_relay() {
    let relay = Relay::with(&[("NODE_NAME", "solo"), ("REGION", "eu")]);
    let _ann = relay.agent("ann-1").await;
    let ops = relay.ops.to_string();
    let shown = process::run(shell(&relay, None, &["status", "--ops", &ops])).await.expect_code(0);
    assert!(shown.stdout.starts_with("1 node, 1 agent"), "{shown:?}");
    for cell in ["solo", "eu", "alive", "100%"] {
        assert!(shown.stdout.contains(cell), "{cell} in {shown:?}");
    }
    let words = ["status", "--ops", &ops, "--json"];
    let report = process::run(shell(&relay, None, &words)).await.expect_code(0);
    let report: Value = serde_json::from_str(&report.stdout).expect("JSON");
    let node = &report["nodes"][0];
    assert_eq!((&node["agents"], &node["ring_share"]), (&json!(1), &json!(1.0)));
    assert_eq!((&report["node"], &report["links"]), (&node["id"], &json!([])));

    let nobody = ["status", "--ops", "127.0.0.1:1"];
    process::run(shell(&relay, None, &nobody)).await.expect_code(1);
}
