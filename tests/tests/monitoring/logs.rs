//! Logs to files (docs/monitoring.md).

use std::{net::SocketAddr, path::Path, process::Command};

use serde_json::Value;
use tests::{Relay, eventually, process};

/// A relay that logs to a file in `folder`, whose stdout must stay empty.
fn command(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Relay::command(folder);
    command.env("LOG_FILE", "relay.log").envs(settings.iter().copied());
    command
}

/// An address that nobody listens on: with no log, nobody says which port the system chose.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a port");
    listener.local_addr().expect("it is bound")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn says(path: &Path, message: &str) -> bool {
    lines(path).iter().any(|line| line["message"] == message)
}

#[tokio::test]
async fn lines_go_to_the_file_and_the_last_ones_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("relay.log");
    let mut relay = process::Running::start(command(folder.path(), &[]));
    eventually("it says that it listens", || async { says(&log, "listening") }).await;
    let pid = i32::try_from(relay.pid()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::TERM)
        .expect("it can be told to stop");
    assert_eq!(relay.code().await, Some(0));
    assert_eq!(relay.line().await, None, "nothing on stdout");
    assert!(says(&log, "stopped"), "{:?}", lines(&log));
}

#[tokio::test]
async fn a_file_is_rotated_and_only_so_many_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    // Whatever the relay said before.
    for name in ["relay.log", "relay.log.1", "relay.log.2"] {
        std::fs::write(folder.path().join(name), "{}\n".repeat(23_334)).expect("it can be written");
    }
    let settings = [("LOG_FILE_SIZE", "64KiB"), ("LOG_FILES_MAX", "2")];
    let _relay = process::Running::start(command(folder.path(), &settings));
    let log = folder.path().join("relay.log");
    eventually("it says that it listens", || async { says(&log, "listening") }).await;
    let size = |name: &str| folder.path().join(name).metadata().map(|file| file.len()).ok();
    assert!(size("relay.log").expect("it is there") < 65_536);
    assert_eq!((size("relay.log.1"), size("relay.log.2")), (Some(70_002), Some(70_002)));
    assert_eq!(size("relay.log.3"), None);
}

#[tokio::test]
async fn a_relay_whose_log_finds_no_room_serves_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut full = Relay::command(folder.path());
    // A device that answers each write as a full disk does.
    let ops = free_address();
    full.env("LOG_FILE", "/dev/full").env("STATS_PORT", ops.port().to_string());
    let _relay = process::Running::start(full);
    eventually("it serves, and counts what it could not write", || async {
        let Ok(_) = tokio::net::TcpStream::connect(ops).await else { return false };
        let metrics = tests::http::get(ops, "/metrics").await.expect_status(200).text();
        let failures =
            metrics.lines().find_map(|l| l.strip_prefix("arc_log_write_failures_total "));
        failures.is_some_and(|count| count != "0")
    })
    .await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said_before_anything_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let command = command(folder.path(), &[("LOG_FILE", "no/such/folder/relay.log")]);
    let ended = process::run(command).await.expect_code(1);
    assert!(
        ended.stderr.contains("LOG_FILE") && ended.stderr.contains("no/such/folder"),
        "{ended:?}"
    );
}
