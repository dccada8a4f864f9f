//! A book of names in memory: for tests and simulations, which have no use for a disk and for voters.
//!
//! Answers at once, by the rules of the real one (one suite, `conformance`, holds both to them), and forgets
//! everything when it is dropped. Has no tasks, so it notices that a key has retired when it is asked next.
//! Built for tests alone, by the feature `memory`: never part of a relay that somebody runs.

use std::{
    collections::{BTreeMap, HashSet, btree_map},
    fmt,
    ops::Bound,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    AdminError, Administration, AgentPage, AgentRecord, Claim, Imported, KeyId, KeyInfo,
    KeyRotation, RegisterError, Registration, Registry, RegistryId, RegistryStatus, Revocation,
    Role, VoterChange, VoterStatus,
    deciding::AGENTS_MAX,
    facade::{ASSIGN_ATTEMPTS, assigned},
};
use crate::{
    AgentId, NodeId, UnixMillis,
    token::{Grant, Serial, TokenError, TokenSigner, TokenVerifier},
};

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
    /// The serial given out last.
    serial: Serial,
    /// In the order of their numbers, so that the last signs.
    keys: Vec<Key>,
    verifier: TokenVerifier,
    revoked: HashSet<Serial>,
    voters: Vec<String>,
}

struct Entry {
    registered_at: UnixMillis,
    /// Of the token issued last; 0 for a name without a token.
    serial: Serial,
    /// The claim that took the name, and the end of its token; none once another token was issued.
    claimed: Option<(Claim, Option<UnixMillis>)>,
    /// No token up to this serial is good.
    revoked_until: Serial,
    banned: bool,
}

struct Key {
    signer: TokenSigner,
    created_at: UnixMillis,
    retires_at: Option<UnixMillis>,
    retired: bool,
}

impl MemoryRegistry {
    /// An empty book whose tokens are good for `token_ttl`, or for ever; `now` is the wall clock. Its
    /// key is of this thread's randomness.
    pub fn new(
        token_ttl: Option<Duration>,
        now: impl Fn() -> UnixMillis + Send + Sync + 'static,
    ) -> Self {
        let mut book = Book {
            id: RegistryId::random(),
            unavailable: None,
            agents: BTreeMap::new(),
            serial: Serial(0),
            keys: Vec::new(),
            verifier: TokenVerifier::new([]),
            revoked: HashSet::new(),
            voters: Vec::new(),
        };
        book.add_key(now());
        let (book, revocations) = (Mutex::new(book), watch::Sender::new(0));
        Self { token_ttl, now: Box::new(now), book, revocations }
    }

    /// Lets the book decide nothing, for this reason, as if its quorum were lost; or, with none,
    /// decide again. Tokens are verified all the while.
    pub fn set_unavailable(&self, reason: Option<&str>) {
        self.book.lock().unavailable = reason.map(str::to_owned);
    }

    /// Looks at the book as it is now.
    fn look<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.book.lock();
        if book.unavailable.is_none() && book.retire_keys((self.now)()) {
            self.revocations.send_modify(|version| *version += 1);
        }
        look(&mut book)
    }

    /// Does `change` to the book if it can decide now.
    fn decide<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        self.look(|book| match &book.unavailable {
            Some(reason) => Err(AdminError::Unavailable(reason.clone())),
            None => change(book),
        })
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

    /// None if somebody else has the name.
    fn take(
        &self,
        book: &mut Book,
        agent: &AgentId,
        claim: Claim,
    ) -> Option<Result<Registration, AdminError>> {
        if let Some(entry) = book.agents.get(agent) {
            let (_, expires) = entry.claimed.filter(|(earlier, _)| *earlier == claim)?;
            return Some(book.sign(agent, entry.serial, entry.registered_at, expires));
        }
        let (now, expires) = ((self.now)(), self.expiry());
        let claimed = Some((claim, expires));
        book.agents.insert(agent.clone(), Entry { claimed, ..Entry::new(now) });
        let serial = book.next_serial(agent);
        Some(book.sign(agent, serial, now, expires))
    }

    fn expiry(&self) -> Option<UnixMillis> {
        self.token_ttl.map(|ttl| (self.now)().plus(ttl))
    }
}

impl Book {
    fn add_key(&mut self, now: UnixMillis) {
        let id = KeyId(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        let signer = TokenSigner::generate().with_id(id);
        self.keys.push(Key { signer, created_at: now, retires_at: None, retired: false });
        let keys = self.keys.iter().map(|key| (key.signer.id(), key.signer.public()));
        self.verifier = TokenVerifier::new(keys);
    }

    /// Whether one has retired that had not before.
    fn retire_keys(&mut self, now: UnixMillis) -> bool {
        let due = |key: &&mut Key| !key.retired && key.retires_at.is_some_and(|at| at <= now);
        let due = self.keys.iter_mut().filter(due);
        due.map(|key| key.retired = true).count() > 0
    }

    fn next_serial(&mut self, agent: &AgentId) -> Serial {
        self.serial = Serial(self.serial.0 + 1);
        if let Some(entry) = self.agents.get_mut(agent) {
            entry.serial = self.serial;
        }
        self.serial
    }

    fn sign(
        &self,
        agent: &AgentId,
        serial: Serial,
        issued_at: UnixMillis,
        expires: Option<UnixMillis>,
    ) -> Result<Registration, AdminError> {
        let unavailable = |reason: String| AdminError::Unavailable(reason);
        let key = self.keys.last().ok_or_else(|| unavailable("it has no key".into()))?;
        let token = key.signer.issue(agent, serial, issued_at, expires);
        let token = token.map_err(|error| unavailable(error.to_string()))?;
        Ok(Registration { agent: agent.clone(), token })
    }

    fn entry(&mut self, agent: &AgentId) -> Result<&mut Entry, AdminError> {
        self.agents.get_mut(agent).ok_or(AdminError::UnknownAgent)
    }

    fn ends(&self, grant: &Grant) -> bool {
        let of_agent = |entry: &Entry| entry.banned || grant.serial() <= entry.revoked_until;
        self.revoked.contains(&grant.serial())
            || self.agents.get(grant.agent()).is_some_and(of_agent)
            || self.keys.iter().any(|key| key.retired && key.signer.id() == grant.key())
    }

    fn record(&self, entry: &Entry) -> AgentRecord {
        let Entry { registered_at, serial, revoked_until, banned, .. } = *entry;
        let revoked = serial.0 > 0 && (serial <= revoked_until || self.revoked.contains(&serial));
        AgentRecord { registered_at, serial, revoked, banned }
    }
}

impl Key {
    fn info(&self) -> KeyInfo {
        KeyInfo {
            id: self.signer.id(),
            public: self.signer.public().to_vec(),
            created_at: self.created_at,
            retires_at: self.retires_at,
        }
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register(
        &self,
        wanted: Option<AgentId>,
        claim: Claim,
    ) -> Result<Registration, RegisterError> {
        let wanted = match wanted {
            Some(agent) if agent.is_reserved() => return Err(RegisterError::Reserved),
            Some(agent) => vec![agent],
            None => (0..ASSIGN_ATTEMPTS).map(|number| assigned(&claim, number)).collect(),
        };
        let taken = self.decide(|book| {
            let mut attempts = wanted.iter().filter_map(|agent| self.take(book, agent, claim));
            attempts.next().transpose()
        });
        match taken {
            Ok(registration) => registration.ok_or(RegisterError::Taken),
            Err(AdminError::Unavailable(reason)) => Err(RegisterError::Unavailable(reason)),
            Err(error) => Err(RegisterError::Unavailable(error.to_string())),
        }
    }

    fn registered_agents(&self) -> u64 {
        self.book.lock().agents.len() as u64
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        self.look(|book| {
            let grant = book.verifier.verify(token, now)?;
            if book.ends(&grant) { Err(TokenError::Revoked) } else { Ok(grant) }
        })
    }

    fn is_revoked(&self, grant: &Grant) -> bool {
        self.look(|book| book.ends(grant))
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
            applied: book.serial.0,
            voters: (1..).zip(&book.voters).map(voter).collect(),
            failure: book.unavailable.clone(),
        }
    }
}

#[async_trait]
impl Administration for MemoryRegistry {
    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError> {
        self.decide(|book| Ok(book.agents.get(agent).map(|entry| book.record(entry))))
    }

    async fn agents(&self, after: Option<AgentId>, limit: usize) -> Result<AgentPage, AdminError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.decide(|book| {
            let mut behind = book.agents.range((from, Bound::Unbounded));
            let some = behind.by_ref().take(limit.clamp(1, AGENTS_MAX));
            let record = |(agent, entry): (&AgentId, &Entry)| (agent.clone(), book.record(entry));
            let agents = some.map(record).collect();
            Ok(AgentPage { agents, more: behind.next().is_some() })
        })
    }

    async fn reissue(&self, agent: &AgentId) -> Result<Registration, AdminError> {
        let (now, expires) = ((self.now)(), self.expiry());
        self.decide(|book| {
            let entry = book.entry(agent)?;
            if entry.banned {
                return Err(AdminError::Banned);
            }
            entry.claimed = None;
            let serial = book.next_serial(agent);
            book.sign(agent, serial, now, expires)
        })
    }

    async fn revoke(&self, what: Revocation) -> Result<(), AdminError> {
        self.revoking(|book| {
            match what {
                Revocation::Agent(agent) => {
                    let entry = book.entry(&agent)?;
                    entry.revoked_until = entry.serial;
                }
                Revocation::Token(serial) if (1..=book.serial.0).contains(&serial.0) => {
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
        if let Some(agent) = agents.iter().find(|agent| agent.is_reserved()) {
            let why = format!("{} is the relay's own id: leave it out", agent.as_str());
            return Err(AdminError::Refused(why));
        }
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
            let keys = book.keys.iter().rev().filter(|key| !key.retired);
            Ok(keys.map(Key::info).collect())
        })
    }

    async fn rotate_key(&self, retire_after: Duration) -> Result<KeyRotation, AdminError> {
        let now = (self.now)();
        self.decide(|book| {
            if let Some(key) = book.keys.last_mut() {
                key.retires_at = Some(now.plus(retire_after));
            }
            book.add_key(now);
            match book.keys.as_slice() {
                [.., retires, signs] => {
                    Ok(KeyRotation { signs: signs.info(), retires: retires.info() })
                }
                _ => Err(AdminError::Unavailable("it has no key".into())),
            }
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
        Self {
            registered_at,
            serial: Serial(0),
            claimed: None,
            revoked_until: Serial(0),
            banned: false,
        }
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
    use super::*;

    #[tokio::test]
    async fn without_a_quorum_it_decides_nothing_and_verifies_tokens() {
        let book = MemoryRegistry::new(None, || UnixMillis(1_000_000));
        let register =
            async |name: &str| book.register(Some(name.parse().unwrap()), Claim::random()).await;
        let first = register("ann-1").await.unwrap();
        book.set_unavailable(Some("no quorum"));
        assert!(matches!(register("bob-1").await, Err(RegisterError::Unavailable(_))));
        assert!(book.verify(&first.token, UnixMillis(1)).is_ok());
        book.set_unavailable(None);
        register("bob-1").await.unwrap();
    }
}
