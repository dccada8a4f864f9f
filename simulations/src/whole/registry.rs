//! One book of names for all nodes of a simulated world, in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cluster::{
    AgentId, UnixMillis,
    registry::{AdminError, AgentRecord, RegisterError, Registration, Registry, Revocation},
    token::{Grant, Serial, TokenError, TokenSigner, TokenVerifier},
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// What agents and nodes are told when they want what simulations have no use for.
const NOT_HERE: &str = "nothing is revoked in this simulation";

/// The book.
pub(super) struct Names {
    signer: TokenSigner,
    verifier: TokenVerifier,
    issued: Mutex<BTreeMap<AgentId, Serial>>,
    revocations: watch::Sender<u64>,
    issued_at: UnixMillis,
}

impl Names {
    /// An empty book, signed by a key of this thread's randomness; its tokens are of that time.
    pub(super) fn new(issued_at: UnixMillis) -> Self {
        let signer = TokenSigner::generate();
        Self {
            verifier: signer.verifier(),
            signer,
            issued: Mutex::default(),
            revocations: watch::Sender::new(0),
            issued_at,
        }
    }
}

#[async_trait]
impl Registry for Names {
    async fn register(&self, wanted: Option<AgentId>) -> Result<Registration, RegisterError> {
        let unavailable = |why: &str| RegisterError::Unavailable(why.to_owned());
        let agent = wanted.ok_or_else(|| unavailable("simulated agents have names"))?;
        let mut issued = self.issued.lock();
        let serial = Serial(issued.len() as u64 + 1);
        let token = self.signer.issue(&agent, serial, self.issued_at, None);
        let token = token.map_err(|error| unavailable(&error.to_string()))?;
        if issued.insert(agent.clone(), serial).is_some() {
            return Err(RegisterError::Taken);
        }
        Ok(Registration { agent, token })
    }

    async fn reissue(&self, _: &AgentId) -> Result<Registration, AdminError> {
        Err(AdminError::Unavailable(NOT_HERE.into()))
    }

    async fn revoke(&self, _: Revocation) -> Result<(), AdminError> {
        Err(AdminError::Unavailable(NOT_HERE.into()))
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError> {
        let record = |serial| AgentRecord { registered_at: self.issued_at, serial, revoked: false };
        Ok(self.issued.lock().get(agent).copied().map(record))
    }

    fn registered_agents(&self) -> u64 {
        self.issued.lock().len() as u64
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        self.verifier.verify(token, now)
    }

    fn is_revoked(&self, _: &Grant) -> bool {
        false
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }
}
