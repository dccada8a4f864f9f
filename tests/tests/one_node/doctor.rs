//! What is wrong with a machine or a configuration, said before it hurts.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;
use tests::{Relay, process};

/// The doctor's exit code and findings for a relay with these settings, whose folder this is.
async fn findings(folder: &Path, settings: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let mut command = Relay::command(folder);
    command.envs(settings.iter().copied()).args(["doctor", "--json"]);
    let finished = process::run(command).await;
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    assert_eq!(report["ok"], finished.code == Some(0), "{finished:?}");
    (finished.code, report["findings"].as_array().cloned().unwrap_or_default())
}

/// The findings of a check at a level.
fn of<'a>(findings: &'a [Value], check: &str, level: &str) -> Vec<&'a str> {
    let of_it = findings.iter().filter(|it| it["check"] == check && it["level"] == level);
    of_it.filter_map(|it| it["found"].as_str()).collect()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

#[tokio::test]
async fn a_machine_is_examined_before_the_first_start_and_left_as_it_was() {
    let folder = temporary();
    let (code, all) = findings(folder.path(), &[]).await;
    assert_eq!(code, Some(0), "{all:#?}");
    assert_eq!(of(&all, "config", "ok"), ["no problem"]);
    for check in ["ports", "disk", "node"] {
        assert!(!of(&all, check, "ok").is_empty(), "{check}: {all:#?}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
    let mut command = Relay::command(folder.path());
    command.arg("doctor");
    let told = process::run(command).await.expect_code(0).stdout;
    assert!(told.contains("ok       ports") && !told.contains('\u{1b}'), "{told}");
}

#[tokio::test]
async fn a_node_that_runs_is_examined_with_its_own_configuration() {
    let relay = Relay::with(&[("NODE_NAME", "solo")]);
    let (public, ops) = (relay.public.port().to_string(), relay.ops.port().to_string());
    let settings = [("PORT", public.as_str()), ("STATS_PORT", &ops), ("NODE_NAME", "solo")];
    let (code, all) = findings(relay.folder(), &settings).await;
    assert_eq!(code, Some(0), "{all:#?}");
    assert_eq!(of(&all, "node", "ok"), ["runs, and takes agents"]);
    assert_eq!(of(&all, "ports", "ok").len(), 2, "{all:#?}");
    assert_eq!(of(&all, "cluster", "ok"), ["1 node alive, names can be registered"]);

    let token = relay.data_dir().join("admin.token");
    for (path, mode) in [(&relay.data_dir(), 0o755), (&token, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    let (code, all) = findings(relay.folder(), &settings).await;
    assert_eq!(code, Some(1), "{all:#?}");
    let open = of(&all, "disk", "error");
    assert!(open.len() == 1 && open[0].contains("admin.token"), "{all:#?}");

    // Another relay that wants the same port, and looks for itself elsewhere.
    let other = temporary();
    let (code, all) = findings(other.path(), &[("PORT", public.as_str())]).await;
    let clash = of(&all, "ports", "error");
    assert!(code == Some(1) && clash.len() == 1 && clash[0].contains(&public), "{all:#?}");
}

#[tokio::test]
async fn what_is_configured_wrongly_is_named() {
    let folder = temporary();
    let (code, all) = findings(folder.path(), &[("PORT", "http"), ("SEEDS", "a")]).await;
    assert_eq!(code, Some(1));
    assert_eq!(of(&all, "config", "error").len(), 2, "{all:#?}");

    let files = [("TLS_CERT", "missing.pem"), ("TLS_KEY", "missing.key"), ("TLS_PORT", "0")];
    let more = [("HTTP_PORT", "none"), ("MAX_CONNECTION", "5"), ("REGISTRATION_KEY", "aaaaaaaa")];
    let (code, all) = findings(folder.path(), &[&files[..], &more].concat()).await;
    assert_eq!(code, Some(1));
    let refused = of(&all, "certificate", "error");
    assert!(refused.len() == 1 && refused[0].contains("missing.pem"), "{all:#?}");
    let warned = of(&all, "config", "warning");
    assert!(warned.iter().any(|it| it.contains("MAX_CONNECTIONS?")), "{all:#?}");
    assert!(of(&all, "secrets", "warning").iter().any(|it| it.contains("REGISTRATION_KEY")));
}

#[tokio::test]
async fn a_secret_that_others_may_read_is_named_with_its_file() {
    let folder = temporary();
    let file = folder.path().join(".env");
    let secret = tests::cluster::new_secret();
    fs::write(&file, format!("CLUSTER_SECRET={secret}\n")).expect("the folder can be written");
    for (mode, code) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("it is ours");
        let (ended, all) = findings(folder.path(), &[]).await;
        assert_eq!(ended, Some(code), "{all:#?}");
        assert_eq!(of(&all, "secrets", "error").len(), usize::from(code == 1), "{all:#?}");
        assert!(!all.iter().any(|it| it.to_string().contains(&secret)), "it is not shown");
    }
}
