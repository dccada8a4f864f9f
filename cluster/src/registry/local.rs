//! The registry of a node that is alone.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{
    AdminError, Administration, AgentPage, AgentRecord, Claim, Imported, KeyInfo, KeyRotation,
    OpenError, RegisterError, Registration, Registry, RegistryStatus, Revocation, VoterChange,
    former::{
        book::{Book, Decided, Issuer},
        store::{self, Identity},
        writer::{Job, Request, Unavailable, Writer, unreadable},
    },
    standing::{Revoked, Standing},
};
use crate::{
    AgentId, Generation, Incarnation, NodeId, UnixMillis,
    database::Source,
    subscription_store,
    token::{Grant, TokenError, TokenVerifier},
};

/// How many requests may wait for the writer: four full batches, about 400 KiB.
const QUEUE_MAX: usize = 1024;

/// How a registry is kept.
#[derive(Clone)]
pub struct Options {
    /// How long a token is good; none means for ever.
    pub token_ttl: Option<Duration>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
}

/// The book of names of a node that is alone: one file, written by one thread.
///
/// Dropping it ends the thread, which finishes the transaction it is in.
pub struct LocalRegistry {
    node: NodeId,
    generation: Generation,
    verifier: TokenVerifier,
    standing: Arc<Standing>,
    /// None only while this is dropped.
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
}

impl LocalRegistry {
    /// Opens the registry in `data_dir`, or founds one there. Reads the whole file to check it.
    ///
    /// Directory and file are created for their owner alone. Blocks on the disk.
    pub fn open(data_dir: &Path, options: Options) -> Result<Self, OpenError> {
        // Every start makes the subscriptions' file after the registry.
        let had_one = data_dir.join(subscription_store::FILE).exists();
        Self::open_source(store::file(data_dir), had_one, options)
    }

    pub(super) fn open_source<S: Source>(
        source: S,
        had_one: bool,
        options: Options,
    ) -> Result<Self, OpenError> {
        let Options { token_ttl, now } = options;
        let database = store::open(&source)?;
        let Identity { node, generation, signer } =
            store::start(&database, had_one, now()).map_err(|error| unreadable(&source, &error))?;
        let (registered, revoked) =
            store::standing(&database).map_err(|error| unreadable(&source, &error))?;
        let standing = Arc::new(Standing::new(registered, revoked));
        let verifier = signer.verifier();
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let dir = source.dir().to_owned();
        let issuer = Issuer { signer, token_ttl };
        let writer = Writer {
            source,
            database: Some(database),
            issuer,
            standing: standing.clone(),
            now,
            failing: false,
        };
        let writer = thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::Io { dir, source })?;
        Ok(Self { node, generation, verifier, standing, jobs: Some(jobs), writer: Some(writer) })
    }

    /// This node's name for ever, and which of its lives this is.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { node: self.node, generation: self.generation }
    }

    /// What verifies this registry's tokens, without their revocations.
    pub fn verifier(&self) -> &TokenVerifier {
        &self.verifier
    }

    /// Lets `look` see what is revoked.
    pub(super) fn with_revoked(&self, look: impl FnOnce(&Revoked)) {
        self.standing.with_revoked(look);
    }

    /// Has the writer do `work` in a transaction, and answers when that is durable. Who stops
    /// waiting withdraws what has not been decided yet.
    async fn ask<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
        F: FnMut(&mut Book<'_>) -> Decided<T, E> + Send + 'static,
    {
        let unavailable = |reason: &str| E::from(Unavailable(reason.to_owned()));
        let stopped = || unavailable("its writer has stopped: restart the relay");
        let (request, answer) = Request::new(work);
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.try_send(Box::new(request)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => unavailable("too many requests wait: try again"),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

#[async_trait]
impl Registry for LocalRegistry {
    async fn register(
        &self,
        wanted: Option<AgentId>,
        _: Claim,
    ) -> Result<Registration, RegisterError> {
        self.ask(move |book| book.register(wanted.as_ref())).await
    }

    fn registered_agents(&self) -> u64 {
        self.standing.registered()
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        let grant = self.verifier.verify(token, now)?;
        if self.is_revoked(&grant) { Err(TokenError::Revoked) } else { Ok(grant) }
    }

    fn is_revoked(&self, grant: &Grant) -> bool {
        self.standing.is_revoked(grant)
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.standing.changes()
    }

    fn status(&self) -> RegistryStatus {
        RegistryStatus {
            id: None,
            role: super::Role::Leader,
            available: true,
            waiting: None,
            leader: None,
            term: 0,
            applied: 0,
            voters: Vec::new(),
            failure: None,
        }
    }
}

#[async_trait]
impl Administration for LocalRegistry {
    async fn reissue(&self, agent: &AgentId) -> Result<Registration, AdminError> {
        let agent = agent.clone();
        self.ask(move |book| book.reissue(&agent)).await
    }

    async fn revoke(&self, what: Revocation) -> Result<(), AdminError> {
        self.ask(move |book| book.revoke(&what)).await
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError> {
        let agent = agent.clone();
        self.ask(move |book| book.agent(&agent)).await
    }

    async fn agents(&self, _: Option<AgentId>, _: usize) -> Result<AgentPage, AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn ban(&self, _: &AgentId) -> Result<(), AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn unban(&self, _: &AgentId) -> Result<(), AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn import(&self, _: Vec<AgentId>) -> Result<Imported, AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn keys(&self) -> Result<Vec<KeyInfo>, AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn rotate_key(&self, _: Duration) -> Result<KeyRotation, AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn change_voters(&self, _: VoterChange) -> Result<(), AdminError> {
        Err(AdminError::Unavailable("not here".into()))
    }

    async fn export(
        &self,
    ) -> Result<
        futures_util::stream::BoxStream<'static, Result<bytes::Bytes, AdminError>>,
        AdminError,
    > {
        Err(AdminError::Unavailable("not here".into()))
    }
}

impl Drop for LocalRegistry {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the registry's writer had panicked");
        }
    }
}

impl fmt::Debug for LocalRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalRegistry({}, generation {})", self.node, self.generation)
    }
}
