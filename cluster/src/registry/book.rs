//! The rules of the book: what each command does to it. The state machine of the registry's consensus.
//!
//! A command's outcome depends on the book and on what is in the log, and on nothing else: no clock, no
//! randomness, no setting of this node. So all voters decide alike, however many entries they apply at
//! once. Everything happens inside one transaction, and is true when that is committed.

use std::time::Duration;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    Claim, KeyId, RegistryId, Revocation,
    command::{Audience, Batch, Command, Issued, Outcome, Secret},
    facts::{Facts, Founded, VaultFact},
    keys::Keys,
    record::{AgentEntry, Claimed, RevokedEntry, VaultRecord},
    sealing::{Place, Sealing},
    tables::{self, Head, Reading, StoreError, meta},
};
use crate::{AgentId, UnixMillis, token::Serial};

/// How long the claim of a released name is remembered: twice as long as leaders take it for new.
const RELEASED_KEPT: Duration = Duration::from_mins(1);

/// How long a revocation is remembered behind the end of all tokens that it touches: as far as the log's
/// time may be ahead of the nodes' clocks, since some leader's clock once was, without a revoked token's
/// being good again.
const REVOCATION_KEPT: Duration = Duration::from_hours(7 * 24);

/// How often, in log time, what has expired is dropped: whenever the time passes a multiple of it.
const FORGET_EVERY_MILLIS: u64 = 60_000;

/// The longest value in the vault, in bytes: a chain of certificates and its key take a few thousand.
pub(super) const VAULT_BYTES_MAX: usize = 64 << 10;

/// The longest key of a value in the vault, in bytes.
const VAULT_KEY_BYTES_MAX: usize = 256;

/// The tables of the book, open in one transaction.
pub(super) struct Book<'t> {
    transaction: &'t WriteTransaction,
    agents: Table<'t, &'static str, &'static [u8]>,
    revoked_tokens: Table<'t, u64, &'static [u8]>,
    revoked_agents: Table<'t, &'static str, &'static [u8]>,
    banned: Table<'t, &'static str, ()>,
    vault: Table<'t, &'static str, &'static [u8]>,
    released: Table<'t, &'static [u8; 16], u64>,
    keys: Keys<'t>,
    sealing: &'t Sealing,
    head: Head,
    facts: Facts,
}

impl<'t> Book<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        sealing: &'t Sealing,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            transaction,
            agents: transaction.open_table(tables::AGENTS)?,
            revoked_tokens: transaction.open_table(tables::REVOKED_TOKENS)?,
            revoked_agents: transaction.open_table(tables::REVOKED_AGENTS)?,
            banned: transaction.open_table(tables::BANNED)?,
            vault: transaction.open_table(tables::VAULT)?,
            released: transaction.open_table(tables::RELEASED)?,
            keys: Keys::open(transaction, sealing)?,
            sealing,
            head: transaction.head()?,
            facts: Facts::default(),
        })
    }

    /// What has changed.
    pub(super) fn close(mut self) -> Result<Facts, StoreError> {
        tables::put_meta(self.transaction, meta::HEAD, &self.head)?;
        self.facts.registered = self.agents.len()?;
        Ok(self.facts)
    }

    /// Does what an entry of the log says; the outcomes are in the commands' order.
    pub(super) fn apply(&mut self, batch: Batch) -> Result<Vec<Outcome>, StoreError> {
        self.pass_time(batch.time)?;
        batch.commands.into_iter().map(|command| self.obey(command)).collect()
    }

    fn obey(&mut self, command: Command) -> Result<Outcome, StoreError> {
        if self.head.founded.is_some() == matches!(command, Command::Found { .. }) {
            return Ok(Outcome::Unfounded);
        }
        match command {
            Command::Found { registry, key } => self.found(registry, &key),
            Command::Register { agent, claim, expires } => self.register(&agent, claim, expires),
            Command::Release { agent, claim } => self.release(&agent, claim),
            Command::Reissue { agent, expires } => self.reissue(&agent, expires),
            Command::Revoke(Revocation::Token(serial)) => self.revoke_token(serial),
            Command::Revoke(Revocation::Agent(agent)) => self.revoke_agent(agent),
            Command::Ban(agent) => self.set_ban(agent, true),
            Command::Unban(agent) => self.set_ban(agent, false),
            Command::Import(agents) => self.import(agents),
            Command::AddKey { secret, retires_at } => self.add_key(&secret, retires_at),
            Command::PutVault { key, expected, value, audience } => {
                self.put_vault(key, expected, value, audience)
            }
            Command::WantVoters(seeds) => {
                self.head.wanted_voters = seeds.unwrap_or_default();
                self.facts.wanted_voters = Some(self.head.wanted_voters.clone());
                Ok(Outcome::Done)
            }
        }
    }

    fn found(&mut self, registry: RegistryId, secret: &Secret) -> Result<Outcome, StoreError> {
        if !self.keys.add(KeyId(0), secret, self.head.time)? {
            return Ok(Outcome::Malformed);
        }
        self.head.keys = 1;
        self.facts.keys = Some(self.keys.facts()?);
        let founded = Founded { registry, lineage: Vec::new() };
        self.head.founded = Some(founded.clone());
        self.facts.founded = Some(founded);
        Ok(Outcome::Done)
    }

    fn register(
        &mut self,
        agent: &AgentId,
        claim: Claim,
        expires: Option<UnixMillis>,
    ) -> Result<Outcome, StoreError> {
        if let Some(entry) = self.entry(agent)? {
            return Ok(match entry.claimed {
                // The same end of life as before: a revocation may be forgotten after it.
                Some(claimed) if claimed.claim == claim => Outcome::Issued(Issued {
                    agent: agent.clone(),
                    serial: entry.serial,
                    issued_at: entry.registered_at,
                    expires: claimed.expires,
                }),
                // It is not somebody else's who is told so: its token was replaced before it was known.
                _ if self.was_released(claim)? => Outcome::Released,
                _ => Outcome::Taken,
            });
        }
        if agent.is_reserved() {
            return Ok(Outcome::Taken);
        }
        if self.was_released(claim)? {
            return Ok(Outcome::Released);
        }
        let claimed = Some(Claimed { claim, expires });
        let registered_at = self.head.time;
        self.issue(agent, AgentEntry { serial: Serial(0), registered_at, claimed }, expires)
    }

    fn release(&mut self, agent: &AgentId, claim: Claim) -> Result<Outcome, StoreError> {
        let claimed = self.entry(agent)?.and_then(|entry| entry.claimed);
        if claimed.is_some_and(|claimed| claimed.claim == claim) {
            self.agents.remove(agent.as_str())?;
        }
        self.end_claim(claim)?;
        Ok(Outcome::Done)
    }

    /// Remembers for a while that nobody gets a token by this claim any more.
    fn end_claim(&mut self, claim: Claim) -> Result<(), StoreError> {
        self.released.insert(&claim.id, self.head.time.plus(RELEASED_KEPT).0)?;
        Ok(())
    }

    fn reissue(
        &mut self,
        agent: &AgentId,
        expires: Option<UnixMillis>,
    ) -> Result<Outcome, StoreError> {
        let Some(entry) = self.entry(agent)? else { return Ok(Outcome::UnknownAgent) };
        if self.banned.get(agent.as_str())?.is_some() {
            return Ok(Outcome::Banned);
        }
        // Whoever claimed the name has no claim to the new token, and may not know of the old one yet: a
        // retry is not to hear that the name is somebody else's.
        if let Some(Claimed { claim, .. }) = entry.claimed {
            self.end_claim(claim)?;
        }
        self.issue(agent, AgentEntry { claimed: None, ..entry }, expires)
    }

    fn issue(
        &mut self,
        agent: &AgentId,
        entry: AgentEntry,
        expires: Option<UnixMillis>,
    ) -> Result<Outcome, StoreError> {
        // The serial is a signed number in a token.
        let Some(serial) = self.head.serial.0.checked_add(1).filter(|n| i64::try_from(*n).is_ok())
        else {
            return Ok(Outcome::Malformed);
        };
        self.head.serial = Serial(serial);
        // A second more, because tokens round their expiry up to the next.
        let end = expires.map_or(UnixMillis(u64::MAX), |end| end.plus(Duration::from_secs(1)));
        self.head.tokens_end = self.head.tokens_end.max(end);
        let entry = AgentEntry { serial: self.head.serial, ..entry };
        self.agents.insert(agent.as_str(), entry.to_bytes().as_slice())?;
        Ok(Outcome::Issued(Issued {
            agent: agent.clone(),
            serial: entry.serial,
            issued_at: self.head.time,
            expires,
        }))
    }

    fn revoke_token(&mut self, serial: Serial) -> Result<Outcome, StoreError> {
        if !(1..=self.head.serial.0).contains(&serial.0) {
            return Ok(Outcome::UnknownToken);
        }
        let entry = RevokedEntry { until: serial, forget_at: self.forget_at() };
        self.revoked_tokens.insert(serial.0, entry.to_bytes().as_slice())?;
        self.facts.tokens.insert(serial, true);
        Ok(Outcome::Done)
    }

    fn revoke_agent(&mut self, agent: AgentId) -> Result<Outcome, StoreError> {
        let Some(AgentEntry { serial: until, .. }) = self.entry(&agent)? else {
            return Ok(Outcome::UnknownAgent);
        };
        let entry = RevokedEntry { until, forget_at: self.forget_at() };
        self.revoked_agents.insert(agent.as_str(), entry.to_bytes().as_slice())?;
        self.facts.agents.insert(agent, Some(until));
        Ok(Outcome::Done)
    }

    /// When a revocation made now may be forgotten.
    fn forget_at(&self) -> UnixMillis {
        self.head.tokens_end.plus(REVOCATION_KEPT)
    }

    fn set_ban(&mut self, agent: AgentId, banned: bool) -> Result<Outcome, StoreError> {
        if self.entry(&agent)?.is_none() {
            return Ok(Outcome::UnknownAgent);
        }
        if banned {
            self.banned.insert(agent.as_str(), ())?;
        } else {
            self.banned.remove(agent.as_str())?;
        }
        self.facts.bans.insert(agent, banned);
        Ok(Outcome::Done)
    }

    fn import(&mut self, agents: Vec<AgentId>) -> Result<Outcome, StoreError> {
        let (mut added, mut existing) = (0, Vec::new());
        for agent in agents {
            if agent.is_reserved() || self.entry(&agent)?.is_some() {
                existing.push(agent);
                continue;
            }
            let registered_at = self.head.time;
            let entry = AgentEntry { serial: Serial(0), registered_at, claimed: None };
            self.agents.insert(agent.as_str(), entry.to_bytes().as_slice())?;
            added += 1;
        }
        Ok(Outcome::Imported { added, existing })
    }

    fn add_key(&mut self, secret: &Secret, retires_at: UnixMillis) -> Result<Outcome, StoreError> {
        let id = KeyId(self.head.keys);
        if id > KeyId::MAX || !self.keys.add(id, secret, self.head.time)? {
            return Ok(Outcome::Malformed);
        }
        self.keys.retire_at(KeyId(id.0 - 1), retires_at)?;
        self.head.keys += 1;
        self.head.keys_change_at = self.keys.next_change()?;
        self.facts.keys = Some(self.keys.facts()?);
        Ok(Outcome::Key(id))
    }

    fn put_vault(
        &mut self,
        key: String,
        expected: u64,
        value: Option<Secret>,
        audience: Audience,
    ) -> Result<Outcome, StoreError> {
        let length = value.as_ref().map_or(0, |value| value.0.len());
        if length > VAULT_BYTES_MAX || key.len() > VAULT_KEY_BYTES_MAX {
            return Ok(Outcome::Malformed);
        }
        let stored = self.vault.get(key.as_str())?;
        let present = stored.as_ref().map(|stored| VaultRecord::from_bytes(stored.value()));
        let present = match present {
            None => 0,
            Some(record) => record.ok_or(StoreError::Damaged("vault"))?.0.version,
        };
        drop(stored);
        if present != expected {
            return Ok(Outcome::Conflict(present));
        }
        self.head.vault_version += 1;
        let version = self.head.vault_version;
        if let Some(value) = &value {
            let place = Place(VAULT_PLACE, key.as_bytes());
            let sealed = self.sealing.seal(place, &value.0)?;
            let record = VaultRecord { version, audience }.to_bytes(&sealed);
            self.vault.insert(key.as_str(), record.as_slice())?;
        } else {
            self.vault.remove(key.as_str())?;
        }
        let outcome = Outcome::Version(if value.is_some() { version } else { 0 });
        self.facts.vault.insert(key, VaultFact { audience, version, value });
        Ok(outcome)
    }

    /// Log time never goes back, and what is due by then is done before the commands.
    fn pass_time(&mut self, time: UnixMillis) -> Result<(), StoreError> {
        let before = self.head.time;
        self.head.time = before.max(time);
        if before.0 / FORGET_EVERY_MILLIS != self.head.time.0 / FORGET_EVERY_MILLIS {
            self.forget()?;
        }
        if self.head.keys_change_at.is_some_and(|at| at <= self.head.time) {
            self.keys.retire(self.head.time)?;
            self.head.keys_change_at = self.keys.next_change()?;
            self.facts.keys = Some(self.keys.facts()?);
        }
        Ok(())
    }

    /// Drops the revocations of tokens that have all expired, and claims that nobody can repeat.
    fn forget(&mut self) -> Result<(), StoreError> {
        let (now, facts) = (self.head.time, &mut self.facts);
        let expired = |bytes: &[u8]| {
            RevokedEntry::from_bytes(bytes).is_some_and(|entry| entry.forget_at <= now)
        };
        self.revoked_tokens.retain(|serial, bytes| {
            let expired = expired(bytes);
            if expired {
                facts.tokens.insert(Serial(serial), false);
            }
            !expired
        })?;
        self.revoked_agents.retain(|agent, bytes| {
            let expired = expired(bytes);
            if let (true, Ok(agent)) = (expired, agent.parse()) {
                facts.agents.insert(agent, None);
            }
            !expired
        })?;
        self.released.retain(|_, until| until > now.0)?;
        Ok(())
    }

    fn entry(&self, agent: &AgentId) -> Result<Option<AgentEntry>, StoreError> {
        let Some(stored) = self.agents.get(agent.as_str())? else { return Ok(None) };
        AgentEntry::from_bytes(stored.value()).ok_or(StoreError::Damaged("agent")).map(Some)
    }

    fn was_released(&self, claim: Claim) -> Result<bool, StoreError> {
        let until = self.released.get(&claim.id)?;
        Ok(until.is_some_and(|until| until.value() > self.head.time.0))
    }
}

/// Where the vault's values are sealed for.
pub(super) const VAULT_PLACE: &str = "vault";
