//! What every node holds of the book in memory, so that tokens are answered without asking anybody.
//!
//! Filled from whichever source is ahead: the entries that this node applied itself, the news and views
//! of other voters, or what was saved. An index says how far it goes, so that nothing is taken twice or
//! out of order. Never ahead of what a quorum has decided.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use tls::acme::Value;
use tokio::sync::{Notify, watch};

use super::{
    RegistryId,
    facts::{Facts, Follow, Founded, KeyFact, VaultFact},
};
use crate::{
    AgentId, UnixMillis,
    token::{Grant, KeyId, Serial, TokenError, TokenVerifier},
};

/// What is known of the book.
#[derive(Debug, Default)]
struct Known {
    founded: Option<Founded>,
    /// The last entry of the log that is in it.
    index: u64,
    registered: u64,
    tokens: HashSet<Serial>,
    /// The last revoked serial of an agent; what it was issued later is good.
    agents: HashMap<AgentId, Serial>,
    bans: HashSet<AgentId>,
    keys: Vec<KeyFact>,
    /// Those whose tokens are refused, since they retired or are gone.
    retired: HashSet<KeyId>,
    vault: HashMap<String, (VaultFact, Value)>,
    wanted_voters: Vec<String>,
}

/// What is known of the book, for all who ask.
#[derive(Debug)]
pub(super) struct Standing {
    known: RwLock<Known>,
    registered: AtomicU64,
    index: AtomicU64,
    /// Spares the usual relay, where nothing is revoked, the lock.
    any_revoked: AtomicBool,
    verifier: ArcSwapOption<TokenVerifier>,
    revocations: watch::Sender<u64>,
    vault: watch::Sender<u64>,
    /// Grows with each change but those of the count.
    version: watch::Sender<u64>,
    untold: Mutex<Option<Untold>>,
    /// There is something to tell that does not wait.
    urgent: Notify,
}

/// What this node has applied and not told yet.
#[derive(Debug)]
pub(super) struct Untold {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) facts: Facts,
}

/// What became of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// They are known now.
    Taken,
    /// They were known before.
    Old,
    /// What came before them is not known: ask for everything.
    Gap,
    /// They are of another registry.
    Foreign,
}

impl Standing {
    /// What `all` says at `index`.
    pub(super) fn new(index: u64, all: Facts) -> Self {
        let standing = Self {
            known: RwLock::default(),
            registered: AtomicU64::new(0),
            index: AtomicU64::new(0),
            any_revoked: AtomicBool::new(false),
            verifier: ArcSwapOption::empty(),
            revocations: watch::Sender::new(0),
            vault: watch::Sender::new(0),
            version: watch::Sender::new(0),
            untold: Mutex::default(),
            urgent: Notify::new(),
        };
        standing.replace(&mut standing.known.write(), index, all);
        standing
    }

    pub(super) fn registered(&self) -> u64 {
        self.registered.load(Ordering::Relaxed)
    }

    /// The last entry of the log that is known here.
    pub(super) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    pub(super) fn founded(&self) -> Option<Founded> {
        self.known.read().founded.clone()
    }

    pub(super) fn wanted_voters(&self) -> Vec<String> {
        self.known.read().wanted_voters.clone()
    }

    /// Whether a token that is good but for that was revoked.
    pub(super) fn is_revoked(&self, grant: &Grant) -> bool {
        self.any_revoked.load(Ordering::Acquire) && self.known.read().covers(grant)
    }

    /// Checks a token by all that is known.
    pub(super) fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        let verifier = self.verifier.load();
        let grant = verifier.as_ref().ok_or(TokenError::Invalid)?.verify(token, now)?;
        if self.is_revoked(&grant) { Err(TokenError::Revoked) } else { Ok(grant) }
    }

    /// Whether tokens can be verified at all.
    pub(super) fn is_informed(&self) -> bool {
        self.verifier.load().is_some()
    }

    /// The key that signs now: the newest.
    pub(super) fn signing_key(&self) -> Option<KeyId> {
        self.known.read().keys.iter().map(|key| key.id).max()
    }

    /// Whether a key is to retire by `now` and has not.
    pub(super) fn retirement_is_due(&self, now: UnixMillis) -> bool {
        let due = |key: &KeyFact| !key.retired && key.retires_at.is_some_and(|at| at <= now);
        self.known.read().keys.iter().any(due)
    }

    pub(super) fn vault(&self, key: &str) -> Option<Value> {
        self.known.read().vault.get(key).map(|(_, value)| value.clone())
    }

    /// Changes whenever something was revoked.
    pub(super) fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// Changes whenever a value in the vault has changed.
    pub(super) fn vault_changes(&self) -> watch::Receiver<u64> {
        self.vault.subscribe()
    }

    /// Changes whenever anything but the count has changed.
    pub(super) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// All of it for whoever keeps no book, and its index.
    pub(super) fn view(&self) -> (u64, Facts) {
        let known = self.known.read();
        (known.index, known.facts().for_observers())
    }

    /// Returns when there are news that do not wait.
    pub(super) async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// What was applied here since this was asked last.
    pub(super) fn take_untold(&self) -> Option<Untold> {
        self.untold.lock().take()
    }

    /// What a voter tells of the entries after `from` up to `to`.
    pub(super) fn learn(&self, registry: RegistryId, from: u64, to: u64, facts: Facts) -> Learned {
        let mut known = self.known.write();
        let own = known.founded.as_ref().map(|founded| founded.registry);
        let follows =
            |of: RegistryId| facts.founded.as_ref().is_some_and(|founded| founded.registry == of);
        match own {
            Some(own) if own != registry => return Learned::Foreign,
            None if !(from == 0 && follows(registry)) => return Learned::Gap,
            _ => {}
        }
        if to <= known.index {
            return Learned::Old;
        }
        if from > known.index {
            return Learned::Gap;
        }
        let change = known.take(to, facts);
        self.announce(&known, change);
        Learned::Taken
    }

    /// What a voter says is everything at `index`. Not taken if it is known, or of a registry that
    /// is neither this one nor made of a backup of it.
    pub(super) fn learn_all(&self, index: u64, all: Facts) -> Learned {
        let Some(new) = all.founded.clone() else { return Learned::Foreign };
        let mut known = self.known.write();
        match &known.founded {
            Some(own) if own.registry == new.registry && index <= known.index => {
                return Learned::Old;
            }
            Some(own) if own.registry == new.registry => {}
            Some(own) if !new.lineage.contains(&own.registry) => return Learned::Foreign,
            Some(own) => tracing::warn!(
                former = %own.registry, registry = %new.registry,
                "the registry was restored from a backup, and is followed from now on"
            ),
            None => {}
        }
        self.replace(&mut known, index, all);
        Learned::Taken
    }

    fn replace(&self, known: &mut Known, index: u64, all: Facts) {
        let before = std::mem::take(known);
        let mut change = known.take(index, all);
        change.revoked = !before.revokes_all_of(known);
        change.vault |= before.vault.len() != known.vault.len();
        self.announce(known, change);
    }

    fn announce(&self, known: &Known, change: Change) {
        self.registered.store(known.registered, Ordering::Relaxed);
        self.any_revoked.store(known.revokes(), Ordering::Release);
        self.index.store(known.index, Ordering::Release);
        if change.keys {
            let keys = known.keys.iter().map(|key| (key.id, key.public));
            let verifier = (!known.keys.is_empty()).then(|| TokenVerifier::new(keys));
            self.verifier.store(verifier.map(Arc::new));
        }
        let bump = |version: &watch::Sender<u64>| version.send_modify(|version| *version += 1);
        if change.revoked {
            bump(&self.revocations);
        }
        if change.vault {
            bump(&self.vault);
        }
        if change.any {
            bump(&self.version);
        }
    }
}

impl Follow for Standing {
    fn applied(&self, from: u64, to: u64, facts: Facts) {
        let (urgent, in_vault) = (!facts.is_count_only(), !facts.vault.is_empty());
        {
            let mut untold = self.untold.lock();
            match &mut *untold {
                Some(untold) if untold.to == from => {
                    untold.to = to;
                    untold.facts.extend(facts.clone());
                }
                gone => *gone = Some(Untold { from, to, facts: facts.clone() }),
            }
        }
        let mut known = self.known.write();
        if facts.founded.is_some() && facts.founded != known.founded {
            *known = Known::default();
        }
        // What is known already may be ahead of what this node is still applying.
        if known.index < to {
            let change = known.take(to, facts);
            self.announce(&known, change);
        } else if in_vault {
            // But only this node's own book has what is for voters alone.
            self.vault.send_modify(|version| *version += 1);
        }
        drop(known);
        if urgent {
            self.urgent.notify_one();
        }
    }

    fn replaced(&self, index: u64, all: Facts) {
        *self.untold.lock() = None;
        let mut known = self.known.write();
        let registry = |founded: &Option<Founded>| founded.as_ref().map(|it| it.registry);
        if index > known.index || registry(&known.founded) != registry(&all.founded) {
            self.replace(&mut known, index, all);
        }
    }
}

/// What whoever waits is to be told.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)] // each is what somebody else waits for
struct Change {
    any: bool,
    revoked: bool,
    keys: bool,
    vault: bool,
}

impl Known {
    fn covers(&self, grant: &Grant) -> bool {
        self.tokens.contains(&grant.serial())
            || self.agents.get(grant.agent()).is_some_and(|until| grant.serial() <= *until)
            || self.bans.contains(grant.agent())
            || self.retired.contains(&grant.key())
    }

    fn revokes(&self) -> bool {
        !(self.tokens.is_empty()
            && self.agents.is_empty()
            && self.bans.is_empty()
            && self.retired.is_empty())
    }

    /// Whether all that is revoked there is so here.
    fn revokes_all_of(&self, other: &Self) -> bool {
        other.tokens.is_subset(&self.tokens)
            && other.bans.is_subset(&self.bans)
            && other.retired.is_subset(&self.retired)
            && other.agents.iter().all(|(agent, until)| self.agents.get(agent) >= Some(until))
    }

    /// Takes over what is new up to `index`.
    fn take(&mut self, index: u64, facts: Facts) -> Change {
        let mut change = Change { any: !facts.is_count_only(), ..Change::default() };
        self.index = index;
        self.registered = facts.registered;
        for (serial, revoked) in facts.tokens {
            let changed =
                if revoked { self.tokens.insert(serial) } else { self.tokens.remove(&serial) };
            change.revoked |= changed && revoked;
        }
        for (agent, until) in facts.agents {
            match until {
                Some(until) => {
                    change.revoked |= self.agents.insert(agent, until) != Some(until);
                }
                None => drop(self.agents.remove(&agent)),
            }
        }
        for (agent, banned) in facts.bans {
            let changed = if banned { self.bans.insert(agent) } else { self.bans.remove(&agent) };
            change.revoked |= changed && banned;
        }
        if let Some(keys) = facts.keys {
            let before = self.retired.len();
            let is_there = |key: &KeyFact| keys.iter().any(|it| it.id == key.id);
            let gone = self.keys.iter().filter(|key| !is_there(key));
            let retired = keys.iter().filter(|key| key.retired).chain(gone);
            self.retired.extend(retired.map(|key| key.id));
            change.revoked |= self.retired.len() > before;
            (self.keys, change.keys) = (keys, true);
        }
        change.vault = !facts.vault.is_empty();
        for (key, fact) in facts.vault {
            match fact.shelved() {
                Some(value) => drop(self.vault.insert(key, (fact, value))),
                None => drop(self.vault.remove(&key)),
            }
        }
        if let Some(founded) = facts.founded {
            self.founded = Some(founded);
        }
        if let Some(wanted) = facts.wanted_voters {
            self.wanted_voters = wanted;
        }
        change
    }

    /// All of it, as a difference to nothing.
    fn facts(&self) -> Facts {
        Facts {
            founded: self.founded.clone(),
            registered: self.registered,
            tokens: self.tokens.iter().map(|serial| (*serial, true)).collect(),
            agents: self.agents.iter().map(|(id, until)| (id.clone(), Some(*until))).collect(),
            bans: self.bans.iter().map(|agent| (agent.clone(), true)).collect(),
            keys: Some(self.keys.clone()),
            vault: self.vault.iter().map(|(key, (fact, _))| (key.clone(), fact.clone())).collect(),
            wanted_voters: Some(self.wanted_voters.clone()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{registry::command::Audience, token::TokenSigner};

    const NOW: UnixMillis = UnixMillis(1_795_341_600_000);

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn founded(registry: u128, lineage: &[u128]) -> Founded {
        let lineage = lineage.iter().copied().map(RegistryId).collect();
        Founded { registry: RegistryId(registry), lineage }
    }

    fn key(signer: &TokenSigner, retired: bool) -> KeyFact {
        KeyFact {
            id: signer.id(),
            public: signer.public(),
            created_at: NOW,
            retires_at: retired.then_some(NOW),
            retired,
        }
    }

    /// A book at index 10 with one key and nothing revoked, and a token of it.
    fn book(signer: &TokenSigner) -> (Standing, Grant) {
        let keys = Some(vec![key(signer, false)]);
        let all = Facts { founded: Some(founded(7, &[])), keys, ..Facts::default() };
        let standing = Standing::new(10, all);
        let token = signer.issue(&id("abc"), Serial(5), NOW, None).unwrap();
        let grant = standing.verify(&token, NOW).unwrap();
        (standing, grant)
    }

    fn bans(agent: &str, banned: bool) -> Facts {
        Facts { bans: [(id(agent), banned)].into(), ..Facts::default() }
    }

    #[test]
    fn news_are_taken_in_their_order_and_once() {
        let (standing, grant) = book(&TokenSigner::generate());
        let changes = standing.revocations();
        let learn = |from, to, facts| standing.learn(RegistryId(7), from, to, facts);
        assert_eq!(learn(11, 12, bans("abc", true)), Learned::Gap);
        assert_eq!(learn(5, 10, bans("abc", true)), Learned::Old);
        assert_eq!(standing.learn(RegistryId(8), 10, 11, bans("abc", true)), Learned::Foreign);
        assert!(!standing.is_revoked(&grant) && !changes.has_changed().unwrap());
        assert_eq!(learn(8, 12, bans("abc", true)), Learned::Taken);
        assert!(standing.is_revoked(&grant) && changes.has_changed().unwrap());
        assert_eq!((learn(10, 12, bans("abc", false)), standing.index()), (Learned::Old, 12));
        assert_eq!(learn(12, 13, bans("abc", false)), Learned::Taken);
        assert!(!standing.is_revoked(&grant));
    }

    #[test]
    fn what_is_applied_here_and_known_already_changes_nothing() {
        let (standing, grant) = book(&TokenSigner::generate());
        standing.learn(RegistryId(7), 10, 20, bans("abc", true));
        standing.applied(14, 15, bans("abc", false));
        assert!(standing.is_revoked(&grant), "15 was before the ban at 20");
        standing.applied(15, 21, Facts { registered: 3, ..bans("abc", true) });
        assert_eq!((standing.index(), standing.registered()), (21, 3));
        let untold = standing.take_untold().unwrap();
        assert_eq!((untold.from, untold.to, untold.facts.bans[&id("abc")]), (14, 21, true));
        assert!(standing.take_untold().is_none());
    }

    #[test]
    fn a_view_is_believed_if_it_is_newer_or_of_a_restored_registry() {
        let signer = TokenSigner::generate();
        let (standing, grant) = book(&signer);
        let all = |registry, lineage: &[u128]| Facts {
            founded: Some(founded(registry, lineage)),
            keys: Some(vec![key(&signer, false)]),
            ..bans("abc", true)
        };
        assert_eq!(standing.learn_all(10, all(7, &[])), Learned::Old);
        assert_eq!(standing.learn_all(99, all(8, &[6])), Learned::Foreign);
        assert!(!standing.is_revoked(&grant));
        assert_eq!(standing.learn_all(11, all(7, &[])), Learned::Taken);
        assert!(standing.is_revoked(&grant));
        let restored = Facts { bans: [].into(), ..all(8, &[7]) };
        assert_eq!(standing.learn_all(3, restored), Learned::Taken);
        assert!(!standing.is_revoked(&grant));
        assert_eq!((standing.index(), standing.founded()), (3, Some(founded(8, &[7]))));
    }

    #[test]
    fn a_retired_keys_tokens_are_refused() {
        let (first, second) =
            (TokenSigner::generate(), TokenSigner::generate().with_id(crate::token::KeyId(1)));
        let (standing, grant) = book(&first);
        let keys = |retired| Facts {
            keys: Some(vec![key(&first, retired), key(&second, false)]),
            ..Facts::default()
        };
        standing.applied(10, 11, keys(false));
        assert_eq!(standing.signing_key(), Some(KeyId(1)));
        assert!(!standing.is_revoked(&grant));
        let changes = standing.revocations();
        standing.applied(11, 12, keys(true));
        assert!(standing.is_revoked(&grant) && changes.has_changed().unwrap());
        let token = second.issue(&id("abc"), Serial(6), NOW, None).unwrap();
        assert!(standing.verify(&token, NOW).is_ok());
        let gone = Facts { keys: Some(vec![key(&second, false)]), ..Facts::default() };
        standing.applied(12, 13, gone);
        assert!(standing.is_revoked(&grant), "also when nobody knows the key any more");
    }

    #[test]
    fn only_the_count_is_no_urgent_news() {
        let (standing, _) = book(&TokenSigner::generate());
        standing.applied(10, 11, Facts { registered: 1, ..Facts::default() });
        assert!(standing.urgent().now_or_never().is_none());
        standing.applied(11, 12, bans("abc", true));
        assert!(standing.urgent().now_or_never().is_some());
    }

    #[test]
    fn observers_are_given_no_secrets() {
        let (standing, _) = book(&TokenSigner::generate());
        let value = |audience| VaultFact {
            audience,
            version: 1,
            value: Some(super::super::command::Secret(zeroize::Zeroizing::new(vec![1]))),
        };
        let vault = [("all", Audience::All), ("ours", Audience::Voters)];
        let vault = vault.map(|(key, audience)| (key.to_owned(), value(audience))).into();
        standing.applied(10, 11, Facts { vault, ..Facts::default() });
        assert!(standing.vault("all").is_some() && standing.vault("ours").is_some());
        let observer = Standing::new(0, Facts::default());
        let (index, view) = standing.view();
        assert_eq!(observer.learn_all(index, view), Learned::Taken);
        assert!(observer.vault("all").is_some() && observer.vault("ours").is_none());
    }
}
