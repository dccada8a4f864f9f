//! `--json`: whatever command has it, a program can read what it did, and what went wrong.

use std::process::Command;

use serde_json::{Value, json};
use tests::{
    Relay, arc_relay,
    cluster::{loopback_address, new_secret},
    process::{self, Finished},
};

/// `arc-relay WORDS… --json` in the folder of a relay, with what its operator has set.
async fn run(relay: &Relay, words: &str, variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(arc_relay());
    command.args(words.split(' ')).arg("--json").current_dir(relay.folder()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("DATA_DIR", relay.data_dir());
    command.env("ARC_OPS", format!("http://{}", relay.ops)).env("ARC_RELAY", relay.http_url());
    command.env("STATS_HOST", relay.ops.ip().to_string());
    command.env("STATS_PORT", relay.ops.port().to_string());
    command.envs(variables.iter().copied());
    process::run(command).await
}

/// The lines of a text, each of which must be JSON.
fn objects(text: &str, of: &Finished) -> Vec<Value> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {of:#?}"));
    text.lines().map(object).collect()
}

/// What a command said went wrong: one object on standard error, and nothing but results before it.
fn failure(finished: &Finished) -> Value {
    objects(&finished.stdout, finished);
    let last = finished.stderr.lines().last().unwrap_or_default();
    let failure = objects(last, finished).pop().unwrap_or_default();
    assert_eq!(failure["exit_code"], json!(finished.code), "{finished:#?}");
    assert!(failure["message"].as_str().is_some_and(|text| !text.is_empty()), "{finished:#?}");
    failure
}

#[tokio::test]
async fn what_every_command_did_can_be_read() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let secret = new_secret();
    let secret = [("CLUSTER_SECRET", secret.as_str())];
    let as_ann = [("ARC_TOKEN", token.as_str())];
    for (words, variables) in [
        ("agent register bob-1", &[][..]),
        ("agent ping", &as_ann),
        ("agent subscribe bob-1", &as_ann),
        ("agents", &[]),
        ("agents list", &[]),
        ("agents show ann-1", &[]),
        ("agents ban bob-1 --yes", &[]),
        ("agents unban bob-1", &[]),
        ("agents revoke bob-1 --yes", &[]),
        ("agents reissue bob-1", &[]),
        ("cluster voters", &[]),
        ("cluster keys", &[]),
        ("cluster keys rotate --retire-after 30d --yes", &[]),
        ("events", &[]),
        ("health", &[]),
        ("health --ready", &[]),
        ("health --whole", &[]),
        ("nodes", &[]),
        ("status", &[]),
        ("tls check", &[]),
        ("doctor", &secret),
    ] {
        let finished = run(&relay, words, variables).await;
        // The doctor and `tls check` have something to say of a relay that is set up for a test.
        let judges = ["doctor", "tls check"].contains(&words);
        assert!(finished.code == Some(0) || judges, "{words}: {finished:#?}");
        assert!(!objects(&finished.stdout, &finished).is_empty(), "{words}: {finished:#?}");
    }
    let left = run(&relay, "drain --yes", &[]).await.expect_code(0);
    assert_eq!(objects(&left.stdout, &left)[0]["state"], "left");
}

#[tokio::test]
async fn a_backup_and_what_was_restored_can_be_read() {
    let (secret, own) = (new_secret(), loopback_address().to_string());
    let secret = [("CLUSTER_SECRET", secret.as_str())];
    let mut relay = Relay::with(&[secret[0], ("MESH_HOST", &own), ("ADVERTISE", &own)]);
    relay.register("ann-1").await;
    let online = run(&relay, "backup online.backup", &secret).await.expect_code(0);
    let told = &objects(&online.stdout, &online)[0];
    assert_eq!(told["file"], "online.backup");
    assert!(told["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{told}");
    let again = failure(&run(&relay, "backup online.backup", &secret).await.expect_code(2));
    assert_eq!(again["error"], "file_exists");
    let running = failure(&run(&relay, "backup f --offline data", &secret).await.expect_code(1));
    assert_eq!(running["error"], "in_use");
    relay.kill9();
    let offline = run(&relay, "backup off.backup --offline data", &secret).await.expect_code(0);
    assert!(objects(&offline.stdout, &offline)[0]["registry"].is_string());
    let restored = run(&relay, "restore off.backup --data-dir new", &secret).await.expect_code(0);
    assert_eq!(objects(&restored.stdout, &restored)[0]["agents"], 1);
    let full = run(&relay, "restore off.backup --data-dir new", &secret).await.expect_code(2);
    assert_eq!(failure(&full)["error"], "not_empty");
}

#[tokio::test]
async fn what_went_wrong_can_be_read_whatever_the_command() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    let nobody = [("ARC_OPS", "http://127.0.0.1:1"), ("STATS_PORT", "1")];
    for words in [
        "agents",
        "agents show ann-1",
        "backup f.backup",
        "cluster voters",
        "cluster keys",
        "drain",
        "events",
        "health",
        "health --ready",
        "health --whole",
        "nodes",
        "status",
    ] {
        let finished = run(&relay, words, &nobody).await.expect_code(1);
        assert_eq!(failure(&finished)["error"], "unreachable", "{words}: {finished:?}");
        assert_eq!(finished.stdout, "", "{words}");
    }
    let checked = run(&relay, "tls check", &nobody).await.expect_code(2);
    assert_eq!(failure(&checked)["error"], "unreachable");
    let public = relay.http_url();
    for (words, variables, code, error) in [
        ("agents show nobody-1", &[][..], 3, "unknown_agent"),
        ("agent register ann-1", &[], 3, "agent_id_taken"),
        ("agent ping", &[("ARC_TOKEN", "tok_bad")], 4, "unauthorized"),
        ("agent listen", &[], 2, "no_token"),
        ("agents ban ann-1", &[], 2, "unconfirmed"),
        ("agents", &[("DATA_DIR", "elsewhere")], 2, "no_admin_token"),
        ("agents", &[("ARC_OPS", public.as_str())], 1, "not_the_ops_port"),
        ("status", &[("ARC_OPS", "http://")], 2, "invalid_address"),
        ("health", &[("STATS_PORT", "many")], 2, "invalid_configuration"),
        ("restore f --data-dir new", &[], 2, "no_secret"),
        ("status --timeout -1", &[], 2, "usage"),
        ("cluster keys rotate --retire-after -5d", &[], 2, "usage"),
        ("agents show", &[], 2, "usage"),
    ] {
        let finished = run(&relay, words, variables).await.expect_code(code);
        let told = failure(&finished);
        assert_eq!(told["error"], error, "{words}: {told}");
        assert_eq!(finished.stdout, "", "{words}");
    }
    let refused = failure(&run(&relay, "agents show nobody-1", &[]).await);
    assert_eq!(refused["status"], 404, "{refused}");
    let negative = failure(&run(&relay, "status --timeout -1", &[]).await);
    let message = negative["message"].as_str().expect("a text");
    assert!(message.contains("a time cannot be negative"), "{message}");
}
