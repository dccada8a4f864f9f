//! The dashboard in Chromium: clicked through, in both themes, on a phone, while nodes die and hang. The
//! pictures are kept in `target/dashboard`, to be looked at.

use std::{fs, process::Command};

use tests::{Cluster, process::Running, scripts, skip, target_dir};

#[tokio::test]
async fn an_operator_sees_what_happens() {
    let Some(mut command) = scripts::node() else { return };
    let Some(chromium) = chromium() else { return skip("there is no chromium: install it") };
    let pictures = target_dir().join("dashboard");
    fs::create_dir_all(&pictures).expect("the target folder can be written");
    let cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    let [seen, .., victim] = &cluster.nodes[..] else { panic!("three were started") };
    command.env("CHROMIUM", chromium).arg(scripts::script("tests/clients/dashboard.js"));
    command.args([seen.ops.to_string(), seen.pid().to_string()]);
    command.args(["node-2", &victim.pid().to_string()]).arg(&pictures);
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
