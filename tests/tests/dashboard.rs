//! The dashboard and the landing page in Chromium: clicked through, by keyboard, by the rules of
//! accessibility, in both themes, on a phone, while nodes die and hang; and with clusters that no test can
//! start. The pictures are kept in `target/dashboard`, to be looked at.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde_json::json;
use tests::{Cluster, process::Running, scripts, skip, target_dir};
use tokio::time::interval;

/// A few messages a second, so that there is something to see.
const MESSAGE_EVERY: Duration = Duration::from_millis(100);

#[tokio::test]
async fn an_operator_sees_what_happens() {
    let Some((mut command, pictures)) = browser("live.js") else { return };
    let cluster =
        Cluster::with(3, &[("RATE_LIMIT_PER_MIN", "6000"), ("RATE_LIMIT_PER_HOUR", "100000")])
            .await;
    cluster.is_kept_by(3).await;
    let [seen, other, victim] = &cluster.nodes[..] else { panic!("three were started") };
    let (_listens, mut talks) = (seen.agent("listener").await, other.agent("talker").await);
    command.args([seen.ops, seen.public].map(|address| address.to_string()));
    command.args([&seen.pid().to_string(), "node-2", &victim.pid().to_string()]).arg(pictures);
    let talking = async {
        let mut tick = interval(MESSAGE_EVERY);
        loop {
            tick.tick().await;
            talks.send(json!({ "to": ["listener"], "payload": "hello" })).await;
        }
    };
    tokio::select! {
        () = goes_well(command) => {},
        () = talking => {},
    }
}

#[tokio::test]
async fn clusters_of_any_size_and_state_can_be_read() {
    let Some((mut command, pictures)) = browser("many.js") else { return };
    command.arg(pictures);
    goes_well(command).await;
}

/// A command for a script that looks with Chromium, and where it is to leave its pictures; none, and said
/// so, where there is no browser.
fn browser(script: &str) -> Option<(Command, PathBuf)> {
    let mut command = scripts::node()?;
    let Some(chromium) = chromium() else {
        skip("there is no chromium: install it");
        return None;
    };
    let pictures = target_dir().join("dashboard");
    fs::create_dir_all(&pictures).expect("the target folder can be written");
    let script = scripts::script("tests/clients/dashboard").join(script);
    command.env("CHROMIUM", chromium).arg(script);
    Some((command, pictures))
}

async fn goes_well(command: Command) {
    let mut browser = Running::start(command);
    let mut last = None;
    while let Some(line) = browser.line().await {
        last = Some(line);
    }
    assert_eq!(browser.code().await, Some(0), "after {last:?}");
    assert_eq!(last.as_deref(), Some("ok"));
}

/// Where Debian's Chromium is; none if it is not installed.
fn chromium() -> Option<String> {
    let found = Command::new("sh").args(["-c", "command -v chromium"]).output().ok()?;
    let path = String::from_utf8(found.stdout).ok()?.trim().to_owned();
    (!path.is_empty()).then_some(path)
}
