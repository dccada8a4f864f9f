//! The registry as a node sees it that does not keep the book itself.
//!
//! Verifies tokens and revocations from memory, and keeps what it needs for that on disk, so that it
//! serves its agents when the voter is out of reach. What must be decided is asked of the voter.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    AdminError, Administration, AgentPage, AgentRecord, Claim, Imported, KeyInfo, KeyRotation,
    RegisterError, Registration, Registry, RegistryStatus, Revocation, VoterChange,
    remote::{self, Answer, Request, View},
    standing::{Revoked, Standing},
};
use crate::{
    AgentId, UnixMillis, data_dir,
    token::{Grant, TokenError, TokenVerifier},
};

/// The file's name in the data directory.
const FILE: &str = "registry.view";

/// The way to the voter.
#[async_trait]
pub trait AskVoter: Send + Sync + 'static {
    /// The answer to a request; `None` if the voter cannot be reached or does not answer in time.
    async fn ask(&self, request: Vec<u8>) -> Option<Vec<u8>>;
}

/// A registry that is kept elsewhere.
pub struct Observer {
    voter: Arc<dyn AskVoter>,
    verifier: ArcSwapOption<TokenVerifier>,
    standing: Standing,
    file: PathBuf,
    known: Mutex<Known>,
    /// Whether tokens can be verified.
    informed: watch::Sender<bool>,
}

/// What was learned last, and whether the file holds it.
#[derive(Default)]
struct Known {
    view: Option<View>,
    unsaved: bool,
}

/// Why news of the registry were not taken.
#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    /// They are not what this release knows.
    #[error("the registry's news are not understood: run the same release on all nodes")]
    Malformed,
    /// Another key signs its tokens.
    #[error(
        "the registry of the first seed is not the one that this node knows: was its data directory \
         emptied, or is it another cluster's? Restore that directory, or remove {file} here to \
         accept the new registry", file = .0.display()
    )]
    Foreign(PathBuf),
    /// They could not be read or saved; what was learned holds until this node is restarted.
    #[error("cannot use {file}", file = file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Observer {
    /// An observer that knows what it knew when it last ran on this data directory.
    ///
    /// # Errors
    /// [`NewsError::Io`] if the file is there and cannot be read.
    pub fn open(data_dir: &Path, voter: Arc<dyn AskVoter>) -> Result<Self, NewsError> {
        let file = data_dir.join(FILE);
        let view = match fs::read(&file) {
            Ok(bytes) => remote::from_bytes::<View>(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(NewsError::Io { file, source }),
        };
        let verifier = view.as_ref().and_then(|view| TokenVerifier::from_key_bytes(&view.key));
        let view = view.filter(|_| verifier.is_some());
        let registered = view.as_ref().map_or(0, |view| view.registered);
        let revoked = view.as_ref().map(View::revoked).unwrap_or_default();
        Ok(Self {
            voter,
            informed: watch::Sender::new(verifier.is_some()),
            verifier: ArcSwapOption::from(verifier.map(Arc::new)),
            standing: Standing::new(registered, revoked),
            file,
            known: Mutex::new(Known { view, unsaved: false }),
        })
    }

    /// Returns when tokens can be verified: the voter has been heard of, now or in an earlier life.
    pub async fn informed(&self) {
        // The sender is this value's own.
        let _ = self.informed.subscribe().wait_for(|informed| *informed).await;
    }

    /// Takes the voter's news, which are to be [saved](Self::save) soon.
    pub fn learn(&self, news: &[u8]) -> Result<(), NewsError> {
        let view: View = remote::from_bytes(news).ok_or(NewsError::Malformed)?;
        let verifier = TokenVerifier::from_key_bytes(&view.key).ok_or(NewsError::Malformed)?;
        let mut known = self.known.lock();
        if known.view.as_ref().is_some_and(|known| known.key != view.key) {
            return Err(NewsError::Foreign(self.file.clone()));
        }
        self.verifier.store(Some(Arc::new(verifier)));
        self.standing.replace(view.registered, view.revoked());
        let same = |known: &View| known.tokens == view.tokens && known.agents == view.agents;
        known.unsaved |= !known.view.as_ref().is_some_and(same);
        known.view = Some(view);
        drop(known);
        self.informed.send_replace(true);
        Ok(())
    }

    /// Takes note of how many names there are.
    pub fn learn_count(&self, registered: u64) {
        self.standing.follow(registered, Revoked::default());
    }

    /// Whether something was learned that a restart would forget.
    pub fn is_unsaved(&self) -> bool {
        self.known.lock().unsaved
    }

    /// Saves what was learned. Blocks on the disk.
    pub fn save(&self) -> Result<(), NewsError> {
        let bytes = {
            let mut known = self.known.lock();
            known.unsaved = false;
            known.view.as_ref().map(remote::to_bytes)
        };
        let Some(bytes) = bytes else { return Ok(()) };
        data_dir::write_whole(&self.file, &bytes).map_err(|source| {
            self.known.lock().unsaved = true;
            NewsError::Io { file: self.file.clone(), source }
        })
    }

    async fn ask(&self, request: Request) -> Answer {
        let answer = self.voter.ask(remote::to_bytes(&request)).await;
        answer.and_then(|bytes| remote::from_bytes(&bytes)).unwrap_or_else(|| {
            Answer::Unavailable("the first seed, which keeps the names, does not answer".into())
        })
    }
}

#[async_trait]
impl Registry for Observer {
    async fn register(
        &self,
        wanted: Option<AgentId>,
        _: Claim,
    ) -> Result<Registration, RegisterError> {
        self.ask(Request::Register(wanted)).await.into_registration()
    }

    fn registered_agents(&self) -> u64 {
        self.standing.registered()
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        let verifier = self.verifier.load();
        let grant = verifier.as_ref().ok_or(TokenError::Invalid)?.verify(token, now)?;
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
impl Administration for Observer {
    async fn reissue(&self, agent: &AgentId) -> Result<Registration, AdminError> {
        self.ask(Request::Reissue(agent.clone())).await.into_reissued()
    }

    async fn revoke(&self, what: Revocation) -> Result<(), AdminError> {
        let request = match what.clone() {
            Revocation::Token(serial) => Request::RevokeToken(serial),
            Revocation::Agent(agent) => Request::RevokeAgent(agent),
        };
        self.ask(request).await.into_revoked()
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError> {
        self.ask(Request::Agent(agent.clone())).await.into_record()
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

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("informed", &*self.informed.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;
    use crate::registry::{LocalRegistry, Options, Voter};

    const NOW: UnixMillis = UnixMillis(1_795_341_600_000);

    /// A voter in the same process, which may be out of reach.
    struct Near(Mutex<Option<Voter>>);

    #[async_trait]
    impl AskVoter for Near {
        async fn ask(&self, request: Vec<u8>) -> Option<Vec<u8>> {
            let voter = self.0.lock().clone()?;
            Some(voter.answer(&request).await)
        }
    }

    fn voter(dir: &Path) -> Voter {
        let options = Options { token_ttl: None, now: Arc::new(|| NOW) };
        Voter::new(Arc::new(LocalRegistry::open(dir, options).unwrap()))
    }

    #[tokio::test]
    async fn names_tokens_and_revocations_are_the_voters() {
        let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let voter = voter(there.path());
        let near = Arc::new(Near(Mutex::new(Some(voter.clone()))));
        let observer = Observer::open(here.path(), near.clone()).unwrap();
        assert!(observer.verify("tok_x", NOW).is_err());
        observer.learn(&voter.news()).unwrap();
        let bob: AgentId = "bob".parse().unwrap();
        let registration = observer.register(Some(bob.clone()), Claim::random()).await.unwrap();
        let grant = observer.verify(&registration.token, NOW).unwrap();
        assert_eq!(grant.agent(), &bob);
        let taken = observer.register(Some(bob.clone()), Claim::random()).await;
        assert!(matches!(taken, Err(RegisterError::Taken)));
        let relay = observer.register(Some("relay".parse().unwrap()), Claim::random()).await;
        assert!(matches!(relay, Err(RegisterError::Reserved)));
        assert_eq!(observer.agent(&bob).await.unwrap().unwrap().serial, grant.serial());

        let mut changes = observer.revocations();
        observer.revoke(Revocation::Agent(bob.clone())).await.unwrap();
        observer.learn(&voter.news()).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(observer.verify(&registration.token, NOW).unwrap_err(), TokenError::Revoked);
        let again = observer.reissue(&bob).await.unwrap();
        observer.verify(&again.token, NOW).unwrap();
        let nobody = observer.revoke(Revocation::Agent("nobody".parse().unwrap())).await;
        assert!(matches!(nobody, Err(AdminError::UnknownAgent)));
        assert_eq!(observer.registered_agents(), 1);

        // Restarted while the voter is out of reach, it knows what it knew.
        assert!(observer.is_unsaved());
        observer.save().unwrap();
        assert!(!observer.is_unsaved());
        *near.0.lock() = None;
        let observer = Observer::open(here.path(), near).unwrap();
        observer.informed().await;
        assert_eq!(observer.verify(&registration.token, NOW).unwrap_err(), TokenError::Revoked);
        observer.verify(&again.token, NOW).unwrap();
        let refused = observer.register(None, Claim::random()).await;
        assert!(matches!(refused, Err(RegisterError::Unavailable(_))));
    }

    #[tokio::test]
    async fn another_registry_is_not_believed() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let near = Arc::new(Near(Mutex::default()));
        let observer = Observer::open(dirs[0].path(), near).unwrap();
        observer.learn(&voter(dirs[1].path()).news()).unwrap();
        let foreign = observer.learn(&voter(dirs[2].path()).news());
        assert!(matches!(foreign, Err(NewsError::Foreign(_))));
        assert!(matches!(observer.learn(b"junk"), Err(NewsError::Malformed)));
    }
}
