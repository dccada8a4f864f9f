//! The book of names inside one transaction: decides, and writes what was decided.
//!
//! Requests of one transaction see each other's writes, so of many claims to one name the first
//! wins. Nothing here is true until the transaction is committed.

use std::time::Duration;

use rand::Rng;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    super::{AdminError, AgentRecord, RegisterError, Registration, Revocation, standing::Revoked},
    record::{AgentEntry, RevokedEntry},
    store::{self, StoreError},
};
use crate::{
    AgentId, UnixMillis,
    database::META,
    token::{Serial, TokenSigner},
};

/// Random characters of an assigned id: 36^10 of them leave a collision to the retry below.
const ASSIGNED_CHARS: usize = 10;

/// How often an assigned id may turn out to be taken before something must be wrong.
const ASSIGN_ATTEMPTS: usize = 16;

/// An answer, unless the store failed.
pub(in super::super) type Decided<T, E> = Result<Result<T, E>, StoreError>;

/// How tokens are issued.
#[derive(Debug)]
pub(in super::super) struct Issuer {
    pub(in super::super) signer: TokenSigner,
    pub(in super::super) token_ttl: Option<Duration>,
}

/// What a transaction has changed that lives in memory too.
pub(in super::super) struct Change {
    /// How many ids are registered now.
    pub(in super::super) registered: u64,
    pub(in super::super) newly_revoked: Revoked,
}

/// The tables, open in one write transaction.
pub(in super::super) struct Book<'t> {
    agents: Table<'t, &'static str, &'static [u8]>,
    revoked_tokens: Table<'t, u64, &'static [u8]>,
    revoked_agents: Table<'t, &'static str, &'static [u8]>,
    meta: Table<'t, &'static str, &'static [u8]>,
    issuer: &'t Issuer,
    now: UnixMillis,
    newly_revoked: Revoked,
    changed: bool,
}

impl<'t> Book<'t> {
    pub(in super::super) fn open(
        transaction: &'t WriteTransaction,
        issuer: &'t Issuer,
        now: UnixMillis,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            agents: transaction.open_table(store::AGENTS)?,
            revoked_tokens: transaction.open_table(store::REVOKED_TOKENS)?,
            revoked_agents: transaction.open_table(store::REVOKED_AGENTS)?,
            meta: transaction.open_table(META)?,
            issuer,
            now,
            newly_revoked: Revoked::default(),
            changed: false,
        })
    }

    /// What to follow once the transaction is durable; none if there is nothing to commit.
    pub(in super::super) fn close(self) -> Result<Option<Change>, StoreError> {
        let change = Change { registered: self.agents.len()?, newly_revoked: self.newly_revoked };
        Ok(self.changed.then_some(change))
    }

    pub(in super::super) fn register(
        &mut self,
        wanted: Option<&AgentId>,
    ) -> Decided<Registration, RegisterError> {
        let agent = match wanted {
            Some(id) if id.is_reserved() => return Ok(Err(RegisterError::Reserved)),
            Some(id) if self.entry(id)?.is_some() => return Ok(Err(RegisterError::Taken)),
            Some(id) => id.clone(),
            None => match self.unused_id()? {
                Some(id) => id,
                None => return Ok(Err(RegisterError::Unavailable("no free id was found".into()))),
            },
        };
        self.issue(agent, self.now).map(Ok)
    }

    pub(in super::super) fn reissue(
        &mut self,
        agent: &AgentId,
    ) -> Decided<Registration, AdminError> {
        match self.entry(agent)? {
            Some(entry) => self.issue(agent.clone(), entry.registered_at).map(Ok),
            None => Ok(Err(AdminError::UnknownAgent)),
        }
    }

    pub(in super::super) fn revoke(&mut self, what: &Revocation) -> Decided<(), AdminError> {
        let forget_at = UnixMillis(store::number(&self.meta, store::META_TOKENS_END)?);
        match what {
            Revocation::Token(serial) => {
                let issued = 1..=store::number(&self.meta, store::META_SERIAL)?;
                if !issued.contains(&serial.0) {
                    return Ok(Err(AdminError::UnknownToken));
                }
                let entry = RevokedEntry { until: *serial, forget_at };
                self.revoked_tokens.insert(serial.0, entry.to_bytes().as_slice())?;
                self.newly_revoked.tokens.insert(*serial);
            }
            Revocation::Agent(agent) => {
                let Some(AgentEntry { serial: until, .. }) = self.entry(agent)? else {
                    return Ok(Err(AdminError::UnknownAgent));
                };
                let entry = RevokedEntry { until, forget_at };
                self.revoked_agents.insert(agent.as_str(), entry.to_bytes().as_slice())?;
                self.newly_revoked.agents.insert(agent.clone(), until);
            }
        }
        self.changed = true;
        Ok(Ok(()))
    }

    pub(in super::super) fn agent(
        &self,
        agent: &AgentId,
    ) -> Decided<Option<AgentRecord>, AdminError> {
        let Some(AgentEntry { serial, registered_at }) = self.entry(agent)? else {
            return Ok(Ok(None));
        };
        let revoked = self.is_revoked(agent, serial)?;
        Ok(Ok(Some(AgentRecord { registered_at, serial, revoked, banned: false })))
    }

    fn entry(&self, agent: &AgentId) -> Result<Option<AgentEntry>, StoreError> {
        let Some(stored) = self.agents.get(agent.as_str())? else { return Ok(None) };
        let entry = AgentEntry::from_bytes(stored.value());
        entry.ok_or(StoreError::Damaged("agent")).map(Some)
    }

    fn is_revoked(&self, agent: &AgentId, serial: Serial) -> Result<bool, StoreError> {
        if self.revoked_tokens.get(serial.0)?.is_some() {
            return Ok(true);
        }
        let Some(stored) = self.revoked_agents.get(agent.as_str())? else { return Ok(false) };
        let entry = RevokedEntry::from_bytes(stored.value());
        Ok(serial <= entry.ok_or(StoreError::Damaged("revoked agent"))?.until)
    }

    fn issue(
        &mut self,
        agent: AgentId,
        registered_at: UnixMillis,
    ) -> Result<Registration, StoreError> {
        let serial = Serial(store::number(&self.meta, store::META_SERIAL)?.saturating_add(1));
        let expires = self.issuer.token_ttl.map(|ttl| self.now.plus(ttl));
        let token = self.issuer.signer.issue(&agent, serial, self.now, expires)?;
        self.meta.insert(store::META_SERIAL, serial.0.to_be_bytes().as_slice())?;
        self.note_expiry(expires)?;
        let entry = AgentEntry { serial, registered_at };
        self.agents.insert(agent.as_str(), entry.to_bytes().as_slice())?;
        self.changed = true;
        Ok(Registration { agent, token })
    }

    /// Keeps the end of the token that lives longest, so that revocations can be forgotten after it.
    fn note_expiry(&mut self, expires: Option<UnixMillis>) -> Result<(), StoreError> {
        // A second more, because tokens round their expiry up to the next.
        let end = expires.map_or(u64::MAX, |expires| expires.0.saturating_add(1000));
        if end > store::number(&self.meta, store::META_TOKENS_END)? {
            self.meta.insert(store::META_TOKENS_END, end.to_be_bytes().as_slice())?;
        }
        Ok(())
    }

    fn unused_id(&self) -> Result<Option<AgentId>, StoreError> {
        for _ in 0..ASSIGN_ATTEMPTS {
            if let Ok(id) = random_id().parse::<AgentId>()
                && self.entry(&id)?.is_none()
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// `agent-` and random characters (PROTOCOL section 2).
fn random_id() -> String {
    let mut rng = rand::rng();
    let random = (0..ASSIGNED_CHARS).filter_map(|_| char::from_digit(rng.random_range(0..36), 36));
    "agent-".chars().chain(random).collect()
}
