//! The audit lines: one for each attempt at a change, and never a secret in one.

use serde_json::{Value, json};
use tests::{Relay, eventually, http};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::api::REQUESTS;

/// What an audit line says: action, what, outcome.
fn told(line: &Value) -> (String, Option<String>, String) {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    (text("action").expect("an action"), text("what"), text("outcome").expect("an outcome"))
}

async fn lines(relay: &Relay, count: usize) -> Vec<Value> {
    eventually("the audit lines are written", || async {
        relay.log.of_target("audit").len() >= count
    })
    .await;
    let lines = relay.log.of_target("audit");
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[tokio::test]
async fn every_attempt_at_a_change_is_a_line_whatever_came_of_it() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    let changes: Vec<_> = REQUESTS.iter().filter(|(method, ..)| *method != "GET").collect();
    for (method, path, body) in &changes {
        relay.admin_with(method, path, *body).await;
    }
    let lines = lines(&relay, changes.len()).await;
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("revoke an agent's tokens", some("ann-1"), "done"),
        ("ban an agent", some("ann-1"), "done"),
        ("lift a ban", some("ann-1"), "done"),
        ("reissue a token", some("ann-1"), "done"),
        ("import names", some("1 names"), "done"),
        ("revoke a token", some("1"), "done"),
        ("change the voters", some("follow SEEDS"), "done"),
        ("rotate the signing key", some("the present key retires after 3600 s"), "done"),
        ("back up", None, "no_cluster_secret"),
    ];
    for (line, (action, what, outcome)) in lines.iter().zip(expected) {
        assert_eq!(told(line), (action.to_owned(), what, outcome.to_owned()));
        assert_eq!(line["from"], "127.0.0.1", "{line}");
    }
}

#[tokio::test]
async fn refusals_are_lines_too_and_looking_is_none() {
    let relay = Relay::start();
    relay.admin("GET", "/agents").await.expect_status(200);
    relay.admin("POST", "/agents/nobody-1/ban").await.expect_error(404, "unknown_agent");
    relay.admin("POST", "/agents/NOBODY/ban").await.expect_error(400, "invalid_agent_id");
    let stranger = |method, path| {
        http::request(method, path).header("authorization", "Bearer tok_somebodys-token")
    };
    http::send(relay.ops, stranger("POST", "/agents/ann-1/ban"), "").await.expect_status(401);
    http::send(relay.ops, stranger("GET", "/agents"), "").await.expect_status(401);
    relay.admin("POST", "/agents/%FF/ban").await.expect_error(400, "invalid_agent_id");
    let lines = lines(&relay, 5).await;
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].clone()).collect();
    let expected =
        ["unknown_agent", "invalid_agent_id", "unauthorized", "unauthorized", "invalid_agent_id"];
    assert_eq!(outcomes, expected.map(|outcome| json!(outcome)));
    assert!(lines.iter().all(|line| line["level"] == "WARN" && line["reason"].is_string()));
    assert!(!relay.log.text().contains("tok_"), "a token is in the log");
}

#[tokio::test]
async fn who_hangs_up_before_the_answer_leaves_a_line_all_the_same() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    let token = std::fs::read_to_string(relay.data_dir().join("admin.token"));
    let token = token.expect("the relay writes the administrator's token");
    let ban = format!(
        "POST /agents/ann-1/ban HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    let unseen = || {
        let lines = relay.log.of_target("audit");
        lines.into_iter().find(|line| line["outcome"] == "unknown")
    };
    // The relay may be done before it sees that nobody waits, or not have begun.
    eventually("an attempt has no outcome", || async {
        let mut stream = TcpStream::connect(relay.ops).await.expect("the relay accepts");
        stream.write_all(ban.as_bytes()).await.expect("the relay reads");
        drop(stream);
        unseen().is_some()
    })
    .await;
    let line = unseen().expect("it is there");
    let (action, what, _) = told(&line);
    assert_eq!((action.as_str(), what.as_deref()), ("ban an agent", Some("ann-1")));
    assert!(line["level"] == "WARN" && line["reason"].is_string(), "{line}");
}
