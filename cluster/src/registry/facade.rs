//! What the relay, its administrator and its certificates ask of the registry.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::join_all,
    stream::{self, BoxStream},
};
use tls::acme::{Shelf, ShelfError, Value};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use super::{
    AdminError, Administration, AgentPage, AgentRecord, Claim, Imported, KeyInfo, KeyRotation,
    RegisterError, Registration, Registry, RegistryStatus, Revocation, Role, StorageReport,
    VoterChange, VoterStatus,
    aside::aside,
    book::VAULT_BYTES_MAX,
    command::{Audience, Secret},
    consensus::Member,
    deciding::AGENTS_MAX,
    disk,
    hello::{Hello, Part},
    image::Image,
    message::{self, Question},
    request::{Answer, Request},
    shared::SharedRegistry,
    store::Store,
};
use crate::{
    AgentId, NodeId, UnixMillis,
    token::{Grant, TokenError},
};

/// How many assigned ids may turn out to be taken before something must be wrong: there are 36^10.
pub(super) const ASSIGN_ATTEMPTS: u8 = 16;

/// Digits and letters of an assigned id, behind `agent-` (PROTOCOL section 2).
const ASSIGNED_CHARS: usize = 10;

/// How long an id that is free is looked for: longer than a request is tried, so that a single one that
/// fails says why.
const ASSIGN_PATIENCE: Duration = Duration::from_millis(1_900);

/// How long a node is waited for that is asked what it knows, and after how long it is asked again.
const APPLIED_PATIENCE: Duration = Duration::from_millis(500);
const APPLIED_EVERY: Duration = Duration::from_millis(50);

#[async_trait]
impl Registry for SharedRegistry {
    async fn register(
        &self,
        wanted: Option<AgentId>,
        claim: Claim,
    ) -> Result<Registration, RegisterError> {
        if let Some(agent) = wanted {
            return self.take_name(agent, claim).await;
        }
        let assign = async {
            for number in 0..ASSIGN_ATTEMPTS {
                match self.take_name(assigned(&claim, number), claim).await {
                    Err(RegisterError::Taken) => {}
                    outcome => return outcome,
                }
            }
            Err(RegisterError::Unavailable("no free id was found".into()))
        };
        timeout(ASSIGN_PATIENCE, assign)
            .await
            .unwrap_or_else(|_| Err(RegisterError::Unavailable(self.why_unavailable())))
    }

    fn registered_agents(&self) -> u64 {
        self.standing().registered()
    }

    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        self.standing().verify(token, now)
    }

    fn is_revoked(&self, grant: &Grant) -> bool {
        self.standing().is_revoked(grant)
    }

    fn revocations(&self) -> watch::Receiver<u64> {
        self.standing().revocations()
    }

    fn status(&self) -> RegistryStatus {
        let (situation, me) = (self.situation(), self.identity().node);
        let place = self.place();
        let slot = Part::of(&place.seeds, place.slot.as_deref()).slot().is_some();
        let role = match situation.members.get(&me) {
            Some(_) if situation.leads && situation.available => Role::Leader,
            Some(member) if member.votes => Role::Follower,
            Some(_) if situation.is_given_log(me) => Role::Learner,
            _ if slot || place.is_alone() => Role::Candidate,
            _ => Role::Observer,
        };
        let (leader, failure) = (self.heard_leader(), self.failure());
        let fails_alone = place.is_alone() && failure.is_some();
        RegistryStatus {
            id: self.lineage().0,
            role,
            available: leader.is_some() && self.lineage().0.is_some() && !fails_alone,
            waiting: self.waiting(),
            leader,
            term: situation.term,
            applied: self.standing().index(),
            voters: self.voters(),
            failure,
        }
    }

    fn storage(&self) -> Option<StorageReport> {
        let situation = self.situation();
        Some(StorageReport {
            file_bytes: disk::file_bytes(self.data_dir()),
            log_entries: situation.last.saturating_sub(situation.purged),
            log_last: situation.last,
            snapshot: situation.snapshot,
            writes: self.store().shared().writes.counts(),
        })
    }
}

impl SharedRegistry {
    /// Who keeps the book: as its members know, or as this node has heard of those that are linked.
    fn voters(&self) -> Vec<VoterStatus> {
        let situation = self.situation();
        let mut voters: Vec<_> = if situation.is_given_log(self.identity().node) {
            let status = |(node, member): (&NodeId, &Member)| VoterStatus {
                node: *node,
                seed: member.address.seed.clone(),
                votes: member.votes,
                lag: member.lag,
            };
            situation.members.iter().map(status).collect()
        } else {
            let heard = self.heard().all().into_iter().filter(|(_, hello)| hello.voter);
            let status = |(node, hello): (NodeId, Hello)| VoterStatus {
                node,
                seed: hello.part.seed().unwrap_or_default().to_owned(),
                votes: true,
                lag: None,
            };
            heard.map(status).collect()
        };
        voters.sort_by_key(|voter| !voter.votes);
        voters
    }

    async fn take_name(&self, agent: AgentId, claim: Claim) -> Result<Registration, RegisterError> {
        if agent.is_reserved() {
            return Err(RegisterError::Reserved);
        }
        let busy = || RegisterError::Unavailable("too many requests wait: try again".into());
        let attempt = if claim.is_repeatable() {
            None
        } else {
            Some(self.releases().attempt(agent.clone(), claim).ok_or_else(busy)?)
        };
        let request = Request::Register { agent, claim };
        let (answer, may_come_late) = self.ask_leader_and_look_back(request).await;
        // A try that comes late would take the name when whoever has it now has given it back.
        if matches!(answer, Answer::Registered { .. }) || !may_come_late {
            attempt.into_iter().for_each(super::releases::Attempt::settled);
        }
        answer.into_registration()
    }
}

/// `agent-` and what looks random: each claim has a row of its own of such ids, so that whoever repeats
/// it comes to the same one.
pub(super) fn assigned(claim: &Claim, number: u8) -> AgentId {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let hash = digest::digest(&digest::SHA256, &[claim.id.as_slice(), &[number]].concat());
    let letters = hash.as_ref().iter().filter(|byte| **byte < 252).take(ASSIGNED_CHARS);
    let letters = letters.filter_map(|byte| ALPHABET.get(usize::from(byte % 36)));
    let text: String = "agent-".chars().chain(letters.map(|letter| char::from(*letter))).collect();
    AgentId::try_from(text).unwrap_or_else(|error| unreachable!("an assigned id: {error}"))
}

#[async_trait]
impl Administration for SharedRegistry {
    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError> {
        match self.ask_leader(Request::Agent(agent.clone())).await {
            Answer::Agent(record) => Ok(record),
            other => Err(other.into_error()),
        }
    }

    async fn agents(&self, after: Option<AgentId>, limit: usize) -> Result<AgentPage, AdminError> {
        let limit = u32::try_from(limit.clamp(1, AGENTS_MAX)).unwrap_or(1);
        match self.ask_voter(Request::Agents { after, limit }).await {
            Answer::Agents(page) => Ok(page),
            other => Err(other.into_error()),
        }
    }

    async fn reissue(&self, agent: &AgentId) -> Result<Registration, AdminError> {
        self.ask_leader(Request::Reissue(agent.clone())).await.into_reissued()
    }

    async fn revoke(&self, what: Revocation) -> Result<(), AdminError> {
        self.ask_leader(Request::Revoke(what)).await.into_done()
    }

    async fn ban(&self, agent: &AgentId) -> Result<(), AdminError> {
        self.ask_leader(Request::Ban(agent.clone())).await.into_done()
    }

    async fn unban(&self, agent: &AgentId) -> Result<(), AdminError> {
        self.ask_leader(Request::Unban(agent.clone())).await.into_done()
    }

    async fn import(&self, agents: Vec<AgentId>) -> Result<Imported, AdminError> {
        if let Some(agent) = agents.iter().find(|agent| agent.is_reserved()) {
            let why = format!("{} is the relay's own id: leave it out", agent.as_str());
            return Err(AdminError::Refused(why));
        }
        let mut all = Imported::default();
        for some in agents.chunks(AGENTS_MAX) {
            match self.ask_leader(Request::Import(some.to_vec())).await {
                Answer::Imported(Imported { added, existing }) => {
                    all.added += added;
                    all.existing.extend(existing);
                }
                other => return Err(other.into_error()),
            }
        }
        Ok(all)
    }

    async fn keys(&self) -> Result<Vec<KeyInfo>, AdminError> {
        match self.ask_voter(Request::Keys).await {
            Answer::Keys(keys) => Ok(keys),
            other => Err(other.into_error()),
        }
    }

    async fn rotate_key(&self, retire_after: Duration) -> Result<KeyRotation, AdminError> {
        let retire_after_ms = u64::try_from(retire_after.as_millis()).unwrap_or(u64::MAX);
        match self.ask_leader(Request::RotateKey { retire_after_ms }).await {
            Answer::Rotated(rotation) => Ok(rotation),
            other => Err(other.into_error()),
        }
    }

    async fn change_voters(&self, change: VoterChange) -> Result<(), AdminError> {
        self.ask_leader(Request::ChangeVoters(change)).await.into_done()
    }

    async fn export(&self) -> Result<BoxStream<'static, Result<Bytes, AdminError>>, AdminError> {
        if !self.keeps_book() {
            let name = |voter: VoterStatus| match voter.seed {
                seed if seed.is_empty() => voter.node.to_string(),
                seed => seed,
            };
            let voters: Vec<_> = self.voters().into_iter().map(name).collect();
            return Err(AdminError::Refused(if voters.is_empty() {
                "this node does not keep the names, and no voter is in reach: ask one of those"
                    .into()
            } else {
                format!(
                    "this node does not keep the names: ask one that does ({})",
                    voters.join(", ")
                )
            }));
        }
        let image = self.store().aside(Store::export).await.map_err(|error| broken(&error))?;
        let chunks = stream::try_unfold(Box::new(image), |image: Box<Image>| async move {
            let mut image = image;
            let read = aside(move || image.next_chunk().map(|chunk| (chunk, image)));
            let read = read.await.map_err(|error| broken(&error))?;
            let (chunk, image) = read.map_err(|error| broken(&error))?;
            Ok(chunk.map(|chunk| (chunk, image)))
        });
        Ok(chunks.boxed())
    }
}

fn broken(error: &impl ToString) -> AdminError {
    AdminError::Unavailable(error.to_string())
}

#[async_trait]
impl Shelf for SharedRegistry {
    fn get(&self, key: &str) -> Option<Value> {
        self.standing().vault(key)
    }

    async fn look_up(&self, key: &str) -> Option<Value> {
        match self.standing().vault(key) {
            Some(value) => Some(value),
            None => self.kept_in_vault(key).await,
        }
    }

    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        for_all: bool,
    ) -> Result<u64, ShelfError> {
        if value.as_ref().is_some_and(|value| value.len() > VAULT_BYTES_MAX) {
            let why = format!("a value has at most {VAULT_BYTES_MAX} bytes");
            return Err(ShelfError::Unavailable(why));
        }
        let audience = if for_all { Audience::All } else { Audience::Voters };
        let value = value.map(Secret);
        let request = Request::PutVault { key: key.to_owned(), expected, value, audience };
        self.ask_leader(request).await.into_version()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.standing().vault_changes()
    }

    async fn spread(&self, deadline: Duration) -> Result<(), String> {
        let index = self.standing().index();
        let mut behind: BTreeSet<NodeId> = self.other_nodes();
        let all_know = async {
            while !behind.is_empty() {
                let asked = join_all(behind.iter().map(|node| self.applied_of(*node))).await;
                let known: Vec<_> = behind.iter().copied().zip(asked).collect();
                let others = self.other_nodes();
                behind = known
                    .into_iter()
                    .filter(|(node, applied)| {
                        others.contains(node) && applied.is_none_or(|applied| applied < index)
                    })
                    .map(|(node, _)| node)
                    .collect();
                if !behind.is_empty() {
                    sleep(APPLIED_EVERY).await;
                }
            }
        };
        timeout(deadline, all_know).await.map_err(|_| {
            let nodes: Vec<_> = behind.iter().map(ToString::to_string).collect();
            format!("{} did not follow within {deadline:?}", nodes.join(", "))
        })
    }

    fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }
}

impl SharedRegistry {
    /// A value of this node's own book. What voters hear of each other leaves out what is for voters
    /// alone, so the memory of one that was out of its leader's reach may lack it.
    async fn kept_in_vault(&self, key: &str) -> Option<Value> {
        if !self.keeps_book() {
            return None;
        }
        let wanted = key.to_owned();
        let kept = self.store().aside(move |store| store.vault(&wanted)).await;
        let kept = kept.inspect_err(|error| tracing::error!(%error, key, "cannot read the vault"));
        kept.ok().flatten()?.shelved()
    }

    /// The last entry that a node knows.
    async fn applied_of(&self, node: NodeId) -> Option<u64> {
        let carry = self.place().carry.as_ref()?;
        let question = message::to_bytes(&Question::Applied);
        message::from_bytes(&carry.ask(node, question, APPLIED_PATIENCE).await?)
    }
}
