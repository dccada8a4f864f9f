//! The administrator's commands, as they are typed.

use std::fs;

use serde_json::{Value, json};
use tests::{
    Client, Relay,
    process::{self, Finished},
};

/// `arc-relay WORDS…` in the relay's folder.
pub(crate) async fn run(relay: &Relay, words: &[&str]) -> Finished {
    process::run(relay.operator(words)).await
}

#[tokio::test]
async fn agents_are_looked_after() {
    let relay = Relay::start();
    let mut agent = relay.agent("ann-1").await;
    fs::write(relay.folder().join("names.json"), r#"["bob-1", {"agent_id": "ann-1"}]"#)
        .expect("the folder can be written");
    let said = run(&relay, &["agents", "import", "names.json"]).await.expect_code(0).stdout;
    assert_eq!(said, "imported 1 name; registered already: 1\n");
    let said = run(&relay, &["agents", "list"]).await.expect_code(0).stdout;
    let ends: Vec<_> = said.lines().filter_map(|line| line.rsplit_once("  ")).collect();
    let names: Vec<_> = ends.iter().map(|(_, name)| name.trim()).collect();
    assert_eq!(names, ["AGENT", "ann-1", "bob-1"], "{said}");
    assert!(said.contains("connected") && said.contains("no token"), "{said}");
    let said = run(&relay, &["agents", "list", "--json"]).await.expect_code(0).stdout;
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[1]["serial"]), (2, &Value::Null));

    run(&relay, &["agents", "ban", "ann-1", "--yes"]).await.expect_code(0);
    agent.expect_close(4001).await;
    let refused = run(&relay, &["agents", "reissue", "ann-1"]).await.expect_code(3);
    assert!(refused.stderr.contains("lift the ban first"), "{refused:?}");
    let said = run(&relay, &["agents", "unban", "ann-1"]).await.expect_code(0).stdout;
    assert_eq!(said, "lifted the ban of ann-1\n");
    let mut agent = Client::connect(&relay, &agent.token).await;
    let shown = run(&relay, &["agents", "show", "ann-1", "--json"]).await.expect_code(0).stdout;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let serial = shown["serial"].to_string();
    run(&relay, &["agents", "revoke", "--serial", &serial, "--yes"]).await.expect_code(0);
    agent.expect_close(4001).await;
    let words = ["agents", "reissue", "ann-1", "--save", "ann.token"];
    run(&relay, &words).await.expect_code(0);
    let token = fs::read_to_string(relay.folder().join("ann.token")).expect("it was written");
    assert_eq!(Client::connect(&relay, token.trim()).await.id, "ann-1");
    let unknown = run(&relay, &["agents", "revoke", "nobody-1", "-y"]).await.expect_code(3);
    assert!(unknown.stderr.contains("no agent of this id"), "{unknown:?}");
}

#[tokio::test]
async fn voters_and_keys_are_looked_after() {
    let relay = Relay::start();
    let said = run(&relay, &["cluster", "voters"]).await.expect_code(0).stdout;
    assert!(said.contains("this node  leader") && said.contains("available  yes"), "{said}");
    let refused =
        run(&relay, &["cluster", "voters", "set", "a:1,b:1", "--yes"]).await.expect_code(3);
    assert_eq!(refused.stderr.lines().count(), 1, "one clear line: {refused:?}");
    run(&relay, &["cluster", "voters", "follow", "--yes"]).await.expect_code(0);
    let words = ["cluster", "key", "rotate", "--retire-after", "30d", "--yes"];
    let said = run(&relay, &words).await.expect_code(0).stdout;
    assert!(said.starts_with("key 1 signs now; tokens of key 0 are good until 2"), "{said}");
    let said = run(&relay, &["cluster", "keys", "--json"]).await.expect_code(0).stdout;
    let keys: Value = serde_json::from_str(&said).expect("JSON");
    let ids: Vec<_> = keys["keys"].as_array().expect("a list").iter().map(|k| &k["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(0)]);
    run(&relay, &["cluster", "key", "rotate"]).await.expect_code(2);
}

#[tokio::test]
async fn what_ends_something_must_be_meant() {
    let relay = Relay::start();
    let agent = relay.agent("ann-1").await;
    let rows: [&[&str]; 7] = [
        &["agents", "ban", "ann-1"],
        &["agents", "revoke", "ann-1"],
        &["agents", "revoke", "--serial", "1"],
        &["cluster", "voters", "set", "a:1"],
        &["cluster", "voters", "replace", "a:1", "b:1"],
        &["cluster", "voters", "follow"],
        &["cluster", "key", "rotate", "--retire-after", "1s"],
    ];
    for words in rows {
        let refused = run(&relay, words).await.expect_code(2).stderr;
        assert!(refused.lines().count() == 1 && refused.contains("--yes"), "{words:?}: {refused}");
    }
    drop(Client::connect(&relay, &agent.token).await);
    let said = run(&relay, &["cluster", "keys", "--json"]).await.expect_code(0).stdout;
    let keys: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "nothing was done");
}

#[tokio::test]
async fn agents_without_a_command_are_listed() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    let named = run(&relay, &["agents", "list", "--json"]).await.expect_code(0).stdout;
    let said = run(&relay, &["agents", "--json"]).await.expect_code(0).stdout;
    assert!(said == named && said.contains("ann-1"), "{said}");
}
