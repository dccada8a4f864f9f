//! A registry's way into a backup, and out of it.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::{
    AgentId,
    registry::{
        AdminError, Administration as _, Claim, Place, RegisterError, Registry as _, Revocation,
        Settings, SharedRegistry,
    },
    token::TokenError,
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

/// A node that is alone, with its registry, until it is closed.
struct Node {
    registry: Arc<SharedRegistry>,
    serving: JoinSet<()>,
}

impl Node {
    async fn start(data_dir: &Path, secret: &Secret) -> Self {
        let at_rest = AtRest::open(data_dir, Some(secret), None).unwrap();
        let settings = Settings { token_ttl: None, now: Arc::new(|| NOW), at_rest };
        let registry = SharedRegistry::open(data_dir, settings).unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(Arc::clone(&registry).serve(Place::alone()));
        tokio::time::timeout(Duration::from_secs(30), async {
            while !registry.status().available {
                yield_now().await;
            }
        })
        .await
        .expect("a node that is alone can decide");
        Self { registry, serving }
    }

    async fn register(&self, name: &str) -> String {
        self.registry.register(Some(id(name)), Claim::random()).await.unwrap().token
    }

    async fn stop(mut self) {
        self.serving.shutdown().await;
        self.registry.close().await;
    }
}

/// A registry with all that a backup should keep.
struct Written {
    folder: tempfile::TempDir,
    secret: Secret,
    registry: RegistryId,
    good: String,
    of_former_key: String,
    revoked: String,
    banned: String,
    backup: Vec<u8>,
}

async fn written() -> Written {
    let (folder, secret) = (tempfile::tempdir().unwrap(), Secret::generate());
    let node = Node::start(folder.path(), &secret).await;
    let registry = &node.registry;
    let of_former_key = node.register("old-key").await;
    let revoked = node.register("revoked-1").await;
    let banned = node.register("banned-1").await;
    registry.revoke(Revocation::Agent(id("revoked-1"))).await.unwrap();
    registry.ban(&id("banned-1")).await.unwrap();
    registry.rotate_key(Duration::from_hours(1)).await.unwrap();
    let good = node.register("good-1").await;
    registry.import(vec![id("imported-1")]).await.unwrap();
    let id = registry.status().id.unwrap();
    let header = BackupHeader { registry: id, created: NOW, release: "1.2.3".into() };
    let mut writer = BackupWriter::new(&secret, &header);
    let mut backup = writer.header().to_vec();
    let mut content = registry.export().await.unwrap();
    while let Some(chunk) = content.next().await {
        backup.extend(writer.chunk(&chunk.unwrap()).unwrap());
    }
    backup.extend(writer.finish().unwrap());
    drop(content);
    node.stop().await;
    Written { folder, secret, registry: id, good, of_former_key, revoked, banned, backup }
}

impl Written {
    /// Restores a backup of it, and looks whether everything is there.
    async fn comes_back(&self, backup: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("new");
        let restored = restore(backup, &self.secret, None, &data_dir, NOW).await.unwrap();
        assert_eq!((restored.backup.registry, restored.agents), (self.registry, 5));
        assert_ne!(restored.registry, self.registry, "it is another registry");
        let node = Node::start(&data_dir, &self.secret).await;
        let registry = &node.registry;
        assert_eq!(registry.lineage(), (Some(restored.registry), vec![self.registry]));
        assert_eq!(registry.registered_agents(), 5);
        for good in [&self.good, &self.of_former_key] {
            assert!(registry.verify(good, NOW).is_ok());
        }
        for bad in [&self.revoked, &self.banned] {
            assert!(matches!(registry.verify(bad, NOW), Err(TokenError::Revoked)));
        }
        assert!(matches!(registry.reissue(&id("banned-1")).await, Err(AdminError::Banned)));
        let again = registry.register(Some(id("imported-1")), Claim::random()).await;
        assert!(matches!(again, Err(RegisterError::Taken)));
        let token = node.register("new-1").await;
        let serial = registry.verify(&token, NOW).unwrap().serial();
        assert!(serial > registry.verify(&self.good, NOW).unwrap().serial(), "serials go on");
        node.stop().await;
    }
}

#[tokio::test]
async fn all_comes_back_from_a_live_and_from_an_offline_backup() {
    let written = written().await;
    written.comes_back(&written.backup).await;
    let mut offline = Vec::new();
    let take = |bytes: &[u8]| {
        offline.extend_from_slice(bytes);
        Ok(())
    };
    let data_dir = written.folder.path();
    let backup = back_up_offline(data_dir, &written.secret, None, "1.2.3", NOW, take);
    let OfflineBackup { header, undecided } = backup.await.unwrap();
    assert_eq!((header.registry, undecided), (written.registry, 0));
    written.comes_back(&offline).await;
}

#[tokio::test]
async fn a_bad_backup_is_refused_and_leaves_nothing_behind() {
    let written = written().await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("new");
    let other = Secret::generate();
    let mut altered = written.backup.clone();
    altered[200] ^= 1;
    let half = &written.backup[..written.backup.len() / 2];
    let rows = [
        (&b"junk"[..], &written.secret, "it is no backup"),
        (half, &written.secret, "it is cut off"),
        (&altered, &written.secret, "it was altered"),
        (&written.backup, &other, "another CLUSTER_SECRET"),
    ];
    for (backup, secret, says) in rows {
        let error = restore(backup, secret, None, &data_dir, NOW).await.unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains(says), "{says}: {error}: {why}");
        assert!(!data_dir.exists(), "{says}");
    }
    restore(&written.backup[..], &other, Some(&written.secret), &data_dir, NOW).await.unwrap();
    let again = restore(&written.backup[..], &written.secret, None, &data_dir, NOW).await;
    assert!(matches!(again, Err(RestoreError::NotEmpty(_))), "nothing is replaced");
}

#[tokio::test]
async fn a_content_that_is_no_registry_is_refused() {
    let (folder, secret) = (tempfile::tempdir().unwrap(), Secret::generate());
    let header =
        BackupHeader { registry: RegistryId::random(), created: NOW, release: "1.2.3".into() };
    let mut writer = BackupWriter::new(&secret, &header);
    let chunk = writer.chunk(b"no book").unwrap();
    let backup = [writer.header().to_vec(), chunk, writer.finish().unwrap()].concat();
    let error = restore(&backup[..], &secret, None, folder.path(), NOW).await.unwrap_err();
    assert!(matches!(error, RestoreError::Content(_)), "{error}");
}

#[tokio::test]
async fn a_directory_without_a_registry_has_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let secret = Secret::generate();
    let backup = back_up_offline(folder.path(), &secret, None, "1.2.3", NOW, |_| Ok(())).await;
    assert!(matches!(backup, Err(OfflineError::NoRegistry(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "and gets none");
}
