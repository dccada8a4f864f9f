//! A book of names in memory: for tests and simulations, which have no use for a disk and for voters.
//!
//! Answers at once, by the rules of the real one, and forgets everything when it is dropped. Never part
//! of a relay that somebody runs.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map},
    fmt,
    ops::Bound,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::watch;

use super::{
    AdminError, Administration, AgentPage, AgentRecord, Claim, Imported, KeyId, KeyInfo,
    KeyRotation, RegisterError, Registration, Registry, RegistryId, RegistryStatus, Revocation,
    Role, VoterChange, VoterStatus,
};
use crate::{
    AgentId, NodeId, UnixMillis,
    token::{Grant, Serial, TokenError, TokenSigner},
};

/// Digits and letters of an assigned id, behind `agent-`.
const ASSIGNED_CHARS: usize = 10;

/// One book of names, in memory, for as many nodes as share it.
pub struct MemoryRegistry {
    token_ttl: Option<Duration>,
    now: Box<dyn Fn() -> UnixMillis + Send + Sync>,
    book: Mutex<Book>,
    revocations: watch::Sender<u64>,
}

struct Book {
    id: RegistryId,
    /// Why nothing can be decided; none: it can.
    unavailable: Option<String>,
    agents: BTreeMap<AgentId, Entry>,
    claims: HashMap<[u8; 16], AgentId>,
    /// The key of each token, in the order of their serials, which begin at 1.
    issued: Vec<KeyId>,
    /// The one that signs last.
    keys: Vec<Key>,
    revoked: HashSet<Serial>,
    voters: Vec<String>,
}

struct Entry {
    registered_at: UnixMillis,
    /// Of the token issued last; 0 for a name without a token.
    serial: Serial,
    /// No token up to this serial is good.
    revoked_until: Serial,
    banned: bool,
}

struct Key {
    signer: TokenSigner,
    created_at: UnixMillis,
    retires_at: Option<UnixMillis>,
}

impl MemoryRegistry {
    /// An empty book whose tokens are good for `token_ttl`, or for ever; `now` is the wall clock. Its
    /// key is of this thread's randomness.
    pub fn new(
        token_ttl: Option<Duration>,
        now: impl Fn() -> UnixMillis + Send + Sync + 'static,
    ) -> Self {
        let key = Key { signer: TokenSigner::generate(), created_at: now(), retires_at: None };
        let book = Book {
            id: RegistryId::random(),
            unavailable: None,
            agents: BTreeMap::new(),
            claims: HashMap::new(),
            issued: Vec::new(),
            keys: vec![key],
            revoked: HashSet::new(),
            voters: Vec::new(),
        };
        let (book, revocations) = (Mutex::new(book), watch::Sender::new(0));
        Self { token_ttl, now: Box::new(now), book, revocations }
    }

    /// Lets the book decide nothing, for this reason, as if its quorum were lost; or, with none,
    /// decide again. Tokens are verified all the while.
    pub fn set_unavailable(&self, reason: Option<&str>) {
        self.book.lock().unavailable = reason.map(str::to_owned);
    }

    /// Does `change` to the book if it can decide now.
    fn decide<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        let mut book = self.book.lock();
        match &book.unavailable {
            Some(reason) => Err(AdminError::Unavailable(reason.clone())),
            None => change(&mut book),
        }
    }

    /// The same for what may end tokens.
    fn revoking(
        &self,
        change: impl FnOnce(&mut Book) -> Result<(), AdminError>,
    ) -> Result<(), AdminError> {
        self.decide(change)?;
        self.revocations.send_modify(|version| *version += 1);
        Ok(())
    }

    fn issue(&self, book: &mut Book, agent: &AgentId) -> Result<Registration, AdminError> {
        let serial = Serial(book.issued.len() as u64 + 1);
        let registration = self.sign(book, agent, serial)?;
        book.issued.push(book.signs());
        if let Some(entry) = book.agents.get_mut(agent) {
            entry.serial = serial;
        }
        Ok(registration)
    }

    fn sign(
        &self,
        book: &Book,
        agent: &AgentId,
        serial: Serial,
    ) -> Result<Registration, AdminError> {
        let now = (self.now)();
        let expires = self.token_ttl.map(|ttl| now.plus(ttl));
        let unavailable = |reason: String| AdminError::Unavailable(reason);
        let key = book.keys.last().ok_or_else(|| unavailable("it has no key".into()))?;
        let token = key.signer.issue(agent, serial, now, expires);
        let token = token.map_err(|error| unavailable(error.to_string()))?;
        Ok(Registration { agent: agent.clone(), token })
    }
}

impl Book {
    fn signs(&self) -> KeyId {
        KeyId(u32::try_from(self.keys.len().saturating_sub(1)).unwrap_or(u32::MAX))
    }

    fn entry(&mut self, agent: &AgentId) -> Result<&mut Entry, AdminError> {
        self.agents.get_mut(agent).ok_or(AdminError::UnknownAgent)
    }

    fn unused_id(&self) -> Option<AgentId> {
        let mut rng = rand::rng();
        let mut digits = move |_| char::from_digit(rng.random_range(0..36), 36);
        let drawn =
            || "agent-".chars().chain((0..ASSIGNED_CHARS).filter_map(&mut digits)).collect();
        std::iter::repeat_with(drawn)
            .filter_map(|id: String| id.parse().ok())
            .find(|id| !self.agents.contains_key(id))
    }

    fn ends(&self, agent: &AgentId, serial: Serial, now: UnixMillis) -> bool {
        let of_agent = |entry: &Entry| entry.banned || serial <= entry.revoked_until;
        self.revoked.contains(&serial)
            || self.agents.get(agent).is_some_and(of_agent)
            || self.has_retired(serial, now)
    }

    fn has_retired(&self, serial: Serial, now: UnixMillis) -> bool {
        let place = usize::try_from(serial.0).unwrap_or(usize::MAX).wrapping_sub(1);
        let key = self.issued.get(place).and_then(|key| self.keys.get(key.0 as usize));
        key.and_then(|key| key.retires_at).is_some_and(|end| end <= now)
    }

    fn record(&self, agent: &AgentId, entry: &Entry) -> AgentRecord {
        let revoked = |serial| serial <= entry.revoked_until || self.revoked.contains(&serial);
        AgentRecord {
            registered_at: entry.registered_at,
            serial: entry.serial,
            revoked: entry.serial.0 > 0 && revoked(entry.serial),
            banned: self.agents.get(agent).is_some_and(|entry| entry.banned),
        }
    }

    fn info(&self, key: KeyId) -> Option<KeyInfo> {
        let Key { signer, created_at, retires_at } = self.keys.get(key.0 as usize)?;
        let public = signer.verifier().key_bytes();
        Some(KeyInfo { id: key, public, created_at: *created_at, retires_at: *retires_at })
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register(
        &self,
        wanted: Option<AgentId>,
        claim: Claim,
    ) -> Result<Registration, RegisterError> {
        let mut book = self.book.lock();
        if let Some(reason) = &book.unavailable {
            return Err(RegisterError::Unavailable(reason.clone()));
        }
        let failed = |error: AdminError| RegisterError::Unavailable(error.to_string());
        let earlier = book.claims.get(&claim.id).filter(|_| claim.is_repeatable()).cloned();
        if let Some((agent, entry)) = earlier.and_then(|agent| book.agents.get_key_value(&agent)) {
            return self.sign(&book, agent, entry.serial).map_err(failed);
        }
        let agent = match wanted {
            Some(id) if id.is_reserved() => return Err(RegisterError::Reserved),
            Some(id) if book.agents.contains_key(&id) => return Err(RegisterError::Taken),
            Some(id) => id,
            None => book.unused_id().ok_or(RegisterError::Taken)?,
        };
        book.agents.insert(agent.clone(), Entry::new((self.now)()));
        book.claims.insert(claim.id, agent.clone());
        self.issue(&mut book, &agent).map_err(failed)
    }

    fn registered_agents(&self) -> u64 {
        self.book.lock().agents.len() as u64
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        let book = self.book.lock();
        let verified = |key: &Key| match key.signer.verifier().verify(token, now) {
            Err(TokenError::Invalid) => None,
            verified => Some(verified),
        };
        let grant = book.keys.iter().rev().find_map(verified).ok_or(TokenError::Invalid)??;
        if book.ends(grant.agent(), grant.serial(), now) {
            return Err(TokenError::Revoked);
        }
        Ok(grant)
    }

    fn is_revoked(&self, grant: &Grant) -> bool {
        self.book.lock().ends(grant.agent(), grant.serial(), (self.now)())
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    fn status(&self) -> RegistryStatus {
        let book = self.book.lock();
        let voter = |(number, seed): (u64, &String)| VoterStatus {
            node: NodeId(number),
            seed: seed.clone(),
            votes: true,
            lag: Some(0),
        };
        RegistryStatus {
            id: Some(book.id),
            role: Role::Leader,
            available: book.unavailable.is_none(),
            waiting: None,
            leader: None,
            term: 1,
            applied: book.issued.len() as u64,
            voters: (1..).zip(&book.voters).map(voter).collect(),
            failure: book.unavailable.clone(),
        }
    }
}

#[async_trait]
impl Administration for MemoryRegistry {
    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError> {
        self.decide(|book| Ok(book.agents.get(agent).map(|entry| book.record(agent, entry))))
    }

    async fn agents(&self, after: Option<AgentId>, limit: usize) -> Result<AgentPage, AdminError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.decide(|book| {
            let mut behind = book.agents.range((from, Bound::Unbounded));
            let some = behind.by_ref().take(limit.clamp(1, 1_000));
            let record =
                |(agent, entry): (&AgentId, &Entry)| (agent.clone(), book.record(agent, entry));
            let agents = some.map(record).collect();
            Ok(AgentPage { agents, more: behind.next().is_some() })
        })
    }

    async fn reissue(&self, agent: &AgentId) -> Result<Registration, AdminError> {
        self.decide(|book| match book.entry(agent)? {
            Entry { banned: true, .. } => Err(AdminError::Banned),
            _ => self.issue(book, agent),
        })
    }

    async fn revoke(&self, what: Revocation) -> Result<(), AdminError> {
        self.revoking(|book| {
            let last = Serial(book.issued.len() as u64);
            match what {
                Revocation::Agent(agent) => book.entry(&agent)?.revoked_until = last,
                Revocation::Token(serial) if (1..=last.0).contains(&serial.0) => {
                    book.revoked.insert(serial);
                }
                Revocation::Token(_) => return Err(AdminError::UnknownToken),
            }
            Ok(())
        })
    }

    async fn ban(&self, agent: &AgentId) -> Result<(), AdminError> {
        self.revoking(|book| {
            book.entry(agent)?.banned = true;
            Ok(())
        })
    }

    async fn unban(&self, agent: &AgentId) -> Result<(), AdminError> {
        self.decide(|book| {
            book.entry(agent)?.banned = false;
            Ok(())
        })
    }

    async fn import(&self, agents: Vec<AgentId>) -> Result<Imported, AdminError> {
        let now = (self.now)();
        self.decide(|book| {
            let mut imported = Imported::default();
            for agent in agents {
                match book.agents.entry(agent) {
                    btree_map::Entry::Occupied(known) => {
                        imported.existing.push(known.key().clone());
                    }
                    btree_map::Entry::Vacant(free) => {
                        free.insert(Entry::new(now));
                        imported.added += 1;
                    }
                }
            }
            Ok(imported)
        })
    }

    async fn keys(&self) -> Result<Vec<KeyInfo>, AdminError> {
        self.decide(|book| {
            let ids = (0..=book.signs().0).rev().map(KeyId);
            Ok(ids.filter_map(|key| book.info(key)).collect())
        })
    }

    async fn rotate_key(&self, retire_after: Duration) -> Result<KeyRotation, AdminError> {
        let now = (self.now)();
        self.decide(|book| {
            let former = book.signs();
            if let Some(key) = book.keys.last_mut() {
                key.retires_at = Some(now.plus(retire_after));
            }
            let signer = TokenSigner::generate();
            book.keys.push(Key { signer, created_at: now, retires_at: None });
            let keys = book.info(book.signs()).zip(book.info(former));
            let (signs, retires) = keys.ok_or(AdminError::Unavailable("it has no key".into()))?;
            Ok(KeyRotation { signs, retires })
        })
    }

    async fn change_voters(&self, change: VoterChange) -> Result<(), AdminError> {
        self.decide(|book| {
            match change {
                VoterChange::Set(seeds) if [1, 3, 5].contains(&seeds.len()) => book.voters = seeds,
                VoterChange::Set(_) => {
                    let reason = "there are 1, 3 or 5 voters: any other number is no safer";
                    return Err(AdminError::Refused(reason.into()));
                }
                VoterChange::FollowSeeds => {}
                VoterChange::Replace { old, new } => {
                    let unknown = || AdminError::Refused(format!("no voter is at {old}"));
                    let voter = book.voters.iter_mut().find(|voter| **voter == old);
                    *voter.ok_or_else(unknown)? = new;
                }
            }
            Ok(())
        })
    }

    /// The names, each with a line end: no restore reads this.
    async fn export(&self) -> Result<BoxStream<'static, Result<Bytes, AdminError>>, AdminError> {
        let names = self.decide(|book| {
            Ok(book.agents.keys().map(|id| Bytes::from(format!("{id}\n"))).collect::<Vec<_>>())
        })?;
        Ok(stream::iter(names).map(Ok).boxed())
    }
}

impl Entry {
    fn new(registered_at: UnixMillis) -> Self {
        Self { registered_at, serial: Serial(0), revoked_until: Serial(0), banned: false }
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryRegistry({} names)", self.registered_agents())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn book() -> (MemoryRegistry, Arc<AtomicU64>) {
        let time = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&time);
        (MemoryRegistry::new(None, move || UnixMillis(clock.load(Ordering::Relaxed))), time)
    }

    async fn register(book: &MemoryRegistry, name: &str) -> Result<String, RegisterError> {
        Ok(book.register(Some(id(name)), Claim::random()).await?.token)
    }

    #[tokio::test]
    async fn a_name_is_given_once_and_a_claim_as_often_as_it_comes() {
        let (book, _) = book();
        register(&book, "ann-1").await.unwrap();
        assert!(matches!(register(&book, "ann-1").await, Err(RegisterError::Taken)));
        assert!(matches!(register(&book, "relay").await, Err(RegisterError::Reserved)));
        let claim = Claim::repeatable("0123456789abcdef", None);
        let first = book.register(None, claim).await.unwrap();
        let again = book.register(None, claim).await.unwrap();
        assert_eq!(first.agent, again.agent);
        assert_eq!(book.registered_agents(), 2);
        book.set_unavailable(Some("no quorum"));
        assert!(matches!(register(&book, "bob-1").await, Err(RegisterError::Unavailable(_))));
        assert!(book.verify(&first.token, UnixMillis(1)).is_ok(), "tokens are good without it");
    }

    #[tokio::test]
    async fn tokens_end_by_serial_agent_ban_and_key() {
        let (book, time) = book();
        let now = UnixMillis(2_000_000);
        let mut first = book.register(Some(id("ann-1")), Claim::random()).await.unwrap().token;
        let refused = |token: &str| matches!(book.verify(token, now), Err(TokenError::Revoked));
        book.revoke(Revocation::Token(Serial(1))).await.unwrap();
        assert!(refused(&first) && book.agent(&id("ann-1")).await.unwrap().unwrap().revoked);
        first = book.reissue(&id("ann-1")).await.unwrap().token;
        assert!(!refused(&first));
        book.ban(&id("ann-1")).await.unwrap();
        assert!(refused(&first));
        assert!(matches!(book.reissue(&id("ann-1")).await, Err(AdminError::Banned)));
        book.unban(&id("ann-1")).await.unwrap();
        let grant = book.verify(&first, now).unwrap();
        let rotation = book.rotate_key(Duration::from_secs(1)).await.unwrap();
        assert_eq!((rotation.signs.id, rotation.retires.id), (KeyId(1), KeyId(0)));
        assert!(!book.is_revoked(&grant));
        time.fetch_add(1_000, Ordering::Relaxed);
        assert!(book.is_revoked(&grant), "its key has retired");
        let second = book.reissue(&id("ann-1")).await.unwrap().token;
        assert!(!refused(&second), "signed by the new key");
        book.revoke(Revocation::Agent(id("ann-1"))).await.unwrap();
        assert!(refused(&second));
        let unknown = book.revoke(Revocation::Token(Serial(9))).await;
        assert!(matches!(unknown, Err(AdminError::UnknownToken)));
    }

    #[tokio::test]
    async fn agents_come_in_pages() {
        let (book, _) = book();
        let names = ["ann-1", "bob-1", "cid-1"];
        let imported = book.import(names.map(id).to_vec()).await.unwrap();
        assert_eq!(imported, Imported { added: 3, existing: Vec::new() });
        assert_eq!(book.import(vec![id("bob-1")]).await.unwrap().existing, [id("bob-1")]);
        let page = book.agents(None, 2).await.unwrap();
        assert!(page.more && page.agents[1].0 == id("bob-1"));
        let page = book.agents(Some(id("bob-1")), 2).await.unwrap();
        assert!(!page.more && page.agents.len() == 1 && page.agents[0].1.serial == Serial(0));
    }
}
