//! Backups, from a relay that runs and from one that does not, and what is restored from them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tests::{
    Client, Cluster, Relay,
    cluster::new_secret,
    eventually, http,
    process::{self, Finished},
};

use super::commands::run;

/// `arc-relay WORDS…` in `folder`, where the cluster's secret may be known.
async fn arc(folder: &Path, secret: Option<&str>, words: &[&str]) -> Finished {
    let mut command = Relay::command(folder);
    command.args(words).envs(secret.map(|secret| ("CLUSTER_SECRET", secret)));
    process::run(command).await
}

/// Restores the backup into a relay of its own, and starts that.
async fn restored(backup: &Path, secret: &str) -> Relay {
    let mut relay = Relay::with(&[("CLUSTER_SECRET", secret)]);
    relay.kill9();
    fs::remove_dir_all(relay.data_dir()).expect("the data folder can be removed");
    let backup = backup.to_str().expect("temporary paths are text");
    let words = ["restore", backup, "--data-dir", "data"];
    let said = arc(relay.folder(), Some(secret), &words).await.expect_code(0);
    assert!(said.stdout.starts_with("restored 3 names of registry "), "{said:?}");
    relay.start_again();
    relay
}

async fn is_as_before(relay: &Relay, good: &str, revoked: &str) {
    assert_eq!(Client::connect(relay, good).await.id, "ann-1");
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {revoked}"));
    http::send(relay.public, request, "").await.expect_error(401, "token_revoked");
    let taken = http::post(relay.public, "/register", r#"{"agent_id":"cid-1"}"#).await;
    taken.expect_error(409, "agent_id_taken");
    relay.register("new-1").await;
}

#[tokio::test]
async fn every_name_and_token_comes_back_on_a_new_machine() {
    let secret = new_secret();
    let mut relay = Relay::with(&[("CLUSTER_SECRET", &secret)]);
    let good = relay.register("ann-1").await;
    let revoked = relay.register("bob-1").await;
    relay.admin("POST", "/agents/bob-1/revoke").await.expect_status(200);
    relay.admin_with("POST", "/agents/import", r#"["cid-1"]"#).await.expect_status(200);
    let said = run(&relay, &["backup", "live.backup"]).await.expect_code(0);
    assert!(said.stdout.starts_with("wrote live.backup ("), "{said:?}");
    let live = relay.folder().join("live.backup");
    let mode = fs::metadata(&live).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = run(&relay, &["backup", "live.backup"]).await.expect_code(2);
    assert!(again.stderr.contains("--force"), "{again:?}");
    run(&relay, &["backup", "live.backup", "--force"]).await.expect_code(0);

    let words = ["backup", "--offline", "data", "offline.backup"];
    let running = arc(relay.folder(), Some(&secret), &words).await.expect_code(1);
    assert!(running.stderr.contains("another arc-relay runs"), "{running:?}");
    relay.terminate();
    relay.wait_exit();
    arc(relay.folder(), Some(&secret), &words).await.expect_code(0);
    let offline = relay.folder().join("offline.backup");
    for backup in [&live, &offline] {
        is_as_before(&restored(backup, &secret).await, &good, &revoked).await;
    }
}

#[tokio::test]
async fn a_cluster_that_was_lost_is_founded_anew_from_its_backup() {
    let mut cluster = Cluster::start(3).await;
    let secret = cluster.secret().to_owned();
    let token = cluster.nodes[1].register("ann-1").await;
    run(&cluster.nodes[0], &["backup", "arc.backup"]).await.expect_code(0);
    let former = cluster.nodes[0].admin("GET", "/registry").await.json()["id"].clone();
    for node in &mut cluster.nodes {
        node.kill9();
        fs::remove_dir_all(node.data_dir()).expect("the data folder can be removed");
    }
    let words = ["restore", "arc.backup", "--data-dir", "data"];
    arc(cluster.nodes[0].folder(), Some(&secret), &words).await.expect_code(0);
    for node in &mut cluster.nodes {
        node.start_again();
    }
    cluster.is_whole().await;
    eventually("all seeds are voters again", || async {
        let status = cluster.nodes[0].admin("GET", "/registry").await.json();
        let voters = status["voters"].as_array().cloned().unwrap_or_default();
        assert_ne!(status["id"], former, "it is another registry");
        voters.iter().filter(|voter| voter["votes"] == true).count() == 3
    })
    .await;
    for node in &cluster.nodes {
        assert_eq!(Client::connect(node, &token).await.id, "ann-1");
        let refused = http::post(node.public, "/register", r#"{"agent_id":"ann-1"}"#).await;
        refused.expect_error(409, "agent_id_taken");
    }
    cluster.nodes[2].register("new-1").await;
}

#[tokio::test]
async fn what_one_survivor_of_three_has_is_founded_anew() {
    let mut cluster = Cluster::start(3).await;
    let secret = cluster.secret().to_owned();
    let token = cluster.nodes[0].register("ann-1").await;
    eventually("all have it", || async {
        let mut all = true;
        for node in &cluster.nodes {
            all &= node.admin("GET", "/agents/ann-1").await.status == 200;
        }
        all
    })
    .await;
    cluster.nodes.iter_mut().for_each(Relay::kill9);
    let survivor = &mut cluster.nodes[2];
    let words = ["backup", "--offline", "data", "last.backup"];
    arc(survivor.folder(), Some(&secret), &words).await.expect_code(0);
    fs::rename(survivor.data_dir(), survivor.folder().join("former")).expect("it can be moved");
    let words = ["restore", "last.backup", "--data-dir", "data"];
    arc(survivor.folder(), Some(&secret), &words).await.expect_code(0);
    survivor.start_again();
    survivor.is_ready().await;
    assert_eq!(Client::connect(survivor, &token).await.id, "ann-1");
    survivor.register("new-1").await;
}

#[tokio::test]
async fn a_bad_backup_is_refused_with_the_reason_and_nothing_is_made() {
    let secret = new_secret();
    let relay = Relay::with(&[("CLUSTER_SECRET", &secret)]);
    relay.register("ann-1").await;
    run(&relay, &["backup", "good"]).await.expect_code(0);
    let folder = relay.folder();
    let good = fs::read(folder.join("good")).expect("it was written");
    let mut altered = good.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    for (name, bytes) in
        [("cut", &good[..good.len() - 1]), ("altered", &altered), ("foreign", b"a diary")]
    {
        fs::write(folder.join(name), bytes).expect("the folder can be written");
    }
    let other = new_secret();
    for (name, secret, code, says) in [
        ("cut", Some(&secret), 1, "it is cut off"),
        ("altered", Some(&secret), 1, "it was altered or damaged"),
        ("foreign", Some(&secret), 1, "it is no backup of arc-relay"),
        ("good", Some(&other), 1, "another CLUSTER_SECRET"),
        ("good", None, 2, "CLUSTER_SECRET is not set"),
        ("missing", Some(&secret), 1, "cannot read missing"),
    ] {
        let words = ["restore", name, "--data-dir", "new"];
        let refused = arc(folder, secret.map(String::as_str), &words).await.expect_code(code);
        assert!(refused.stderr.contains(says), "{says}: {refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "one clear line: {refused:?}");
        assert!(!folder.join("new").exists(), "{says}");
    }
    let words = ["restore", "good", "--data-dir", "data"];
    let refused = arc(folder, Some(&secret), &words).await.expect_code(2);
    assert!(refused.stderr.contains("is not empty"), "{refused:?}");
}

#[tokio::test]
async fn without_a_clusters_secret_there_is_no_backup() {
    let relay = Relay::start();
    let refused = run(&relay, &["backup", "arc.backup"]).await.expect_code(3);
    assert!(refused.stderr.contains("arc-relay secret"), "{refused:?}");
    assert!(!relay.folder().join("arc.backup").exists());
    let words = ["backup", "--offline", "data", "arc.backup"];
    arc(relay.folder(), None, &words).await.expect_code(2);
}
