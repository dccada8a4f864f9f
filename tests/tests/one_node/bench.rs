//! `arc-relay bench` against one node: small numbers, the whole way.

use std::process::Command;

use serde_json::Value;
use tests::{Relay, arc_relay, process};

/// `arc-relay bench WORDS…`, with its agents' file in the relay's folder.
fn bench(relay: &Relay, words: &[&str]) -> Command {
    let mut command = Command::new(arc_relay());
    command.arg("bench").args(words).current_dir(relay.folder()).env_clear();
    command.env("ARC_RELAY", format!("ws://{}", relay.public));
    command.env("HOME", relay.folder());
    command
}

/// The result as JSON of a run that ended well.
async fn result(relay: &Relay, words: &[&str]) -> Value {
    let words = [words, &["--agents", "6", "--duration", "300ms", "--json", "-"]].concat();
    let finished = process::run(bench(relay, &words)).await.expect_code(0);
    serde_json::from_str(&finished.stdout).expect("the result is JSON")
}

#[tokio::test]
async fn all_scenarios_in_turn_and_each_message_once() {
    let relay = Relay::start();
    let report = result(&relay, &[]).await;
    assert_eq!(report["version"], 1);
    let environment = &report["environment"];
    assert_eq!(environment["relays"][0]["version"], environment["client_version"]);
    let scenarios = report["scenarios"].as_array().expect("there are results");
    let names: Vec<&str> = scenarios.iter().filter_map(|s| s["scenario"].as_str()).collect();
    assert_eq!(names, ["connect", "latency", "direct", "broadcast"]);
    for scenario in scenarios {
        assert_eq!(scenario["connect"]["handshake_us"]["count"], 6, "{scenario}");
        let messages = &scenario["messages"];
        if scenario["scenario"] != "connect" {
            assert_eq!(messages["delivered"], messages["expected"], "{scenario}");
            assert!(messages["delivered"].as_u64() > Some(5), "{scenario}");
            assert!(messages["latency_us"]["p99_9"].as_f64() > Some(0.0), "{scenario}");
        }
    }
    assert_eq!(relay.stats().await["registered_agents"], 6);

    let again = result(&relay, &["direct", "--size", "1000", "--window", "2"]).await;
    assert_eq!(again["scenarios"][0]["messages"]["size_bytes"], 1_000);
    assert_eq!(relay.stats().await["registered_agents"], 6, "the same names");
    let file = relay.folder().join(".local/state/arc-relay/bench-agents.json");
    assert!(file.exists(), "the tokens are where the help says");
}

#[tokio::test]
async fn a_person_reads_a_table_and_a_script_a_file() {
    let relay = Relay::start();
    let words = ["latency", "--agents", "2", "--duration", "200ms", "--json", "result.json"];
    let finished = process::run(bench(&relay, &words)).await.expect_code(0);
    for part in ["latency: 2 agents on 1 node", "delivery    exact", "p99.9", "client lag"] {
        assert!(finished.stdout.contains(part), "{part} is missing: {finished:?}");
    }
    assert!(finished.stderr.contains("for good"), "{finished:?}");
    let file = std::fs::read(relay.folder().join("result.json")).expect("the file is there");
    let report: Value = serde_json::from_slice(&file).expect("it is JSON");
    assert_eq!(report["scenarios"][0]["messages"]["rate_per_s"], 50.0);
}

#[tokio::test]
async fn the_relays_limits_are_named_and_never_measured() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_MIN", "30")]);
    let direct = ["direct", "--agents", "2", "--duration", "1s"];
    let refused = process::run(bench(&relay, &direct)).await.expect_code(3);
    assert!(refused.stderr.contains("30/min") && refused.stdout.is_empty(), "{refused:?}");
    assert!(refused.stderr.contains("RATE_LIMIT_PER_MIN"), "{refused:?}");

    // The first run uses up what the second one finds missing on its way.
    let slow = ["latency", "--agents", "2", "--rate", "24", "--duration", "1s"];
    process::run(bench(&relay, &slow)).await.expect_code(0);
    let limited = process::run(bench(&relay, &slow)).await.expect_code(3);
    assert!(limited.stderr.contains("RATE_LIMIT_PER_MIN"), "{limited:?}");
    assert!(!limited.stdout.contains("delivered"), "{limited:?}");

    let relay = Relay::with(&[("CONNECTIONS_PER_ADDRESS", "3")]);
    let connect = ["connect", "--agents", "5", "--duration", "100ms"];
    let limited = process::run(bench(&relay, &connect)).await.expect_code(3);
    assert!(limited.stderr.contains("CONNECTIONS_PER_ADDRESS"), "{limited:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_one_line_and_touches_nothing() {
    let relay = Relay::start();
    let one_line = async |words: &[&str], part: &str| {
        let refused = process::run(bench(&relay, words)).await.expect_code(2);
        assert!(refused.stderr.contains(part) && refused.stdout.is_empty(), "{refused:?}");
        let errors = refused.stderr.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{refused:?}");
    };
    one_line(&["--agents", "1"], "--agents").await;
    one_line(&["--agents", "900000"], "ulimit -n 900064").await;
    one_line(&["--url", "ftp://x"], "--url").await;
    one_line(&["--json", "/no/such/folder/file"], "/no/such/folder/file").await;
    assert_eq!(relay.stats().await["registered_agents"], 0);
    one_line(&["direct", "--agents", "2", "--size", "65536"], "MAX_MESSAGE_SIZE").await;
}
