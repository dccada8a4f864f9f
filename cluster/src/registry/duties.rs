//! What a node does for the registry without being asked: founds it, and as its leader sees to it that
//! the right nodes keep it.
//!
//! Decides nothing itself, [`bootstrap`] and [`voters`] do; it shows them what there is, does what they
//! say, and says for whom they wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{
    AdminError, Registry, RegistryId, VoterChange, Waiting,
    bootstrap::{self, Store},
    command::{Batch, Command, Outcome, Secret},
    complaints::{Availability, Back, Complaint, Led, REMIND, TELL_AGAIN, missing},
    consensus::{self, Consensus, ConsensusError},
    hello::{Hello, Part, slots},
    raft::VoterAddress,
    shared::SharedRegistry,
    voters::{self, Learner, Step},
};
use crate::{NodeId, link::Allegiance, token::TokenSigner};

/// How often everything is looked at, whatever happens.
const ROUND: Duration = Duration::from_secs(1);

/// After a step, until what has come of it is known here.
const BREATH: Duration = Duration::from_millis(50);

/// How long a step may take before it is looked at anew.
const STEP_PATIENCE: Duration = Duration::from_secs(10);

/// Sees to the duties for as long as consensus runs; dropped when it ends.
pub(super) async fn attend(registry: &SharedRegistry, consensus: &Consensus) {
    let (mut heard, mut leads) = (registry.heard().watch(), registry.leads.subscribe());
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut complaint, mut rounds) = (Complaint::default(), 0);
    let (mut names, mut led) = (Availability::none_since(registry.now()), Led::default());
    let mut removed = None;
    loop {
        heard.mark_unchanged();
        let before = std::mem::replace(&mut removed, registry.removed());
        if let Some(error) = removed.as_ref().filter(|_| before.is_none()) {
            tracing::error!(error, "what is registered here will not be found again");
        }
        say_how_it_is(registry, &mut names, &mut led);
        let hellos = registry.hellos();
        let wait = match tend(registry, consensus, &hellos).await {
            Next::Again => {
                sleep(BREATH).await;
                continue;
            }
            Next::Rest => None,
            Next::Wait(waiting, again) => Some((waiting, again)),
        };
        registry.set_waiting(wait.as_ref().map(|(waiting, _)| waiting.clone()));
        if let Some(waiting) = complaint.due(wait, rounds) {
            tracing::warn!(
                waiting = waiting.reason,
                seeds = waiting.seeds.join(","),
                "the registry waits"
            );
        }
        tokio::select! {
            _ = round.tick() => rounds += 1,
            Ok(()) = heard.changed() => {}
            Ok(()) = leads.changed() => {}
        }
    }
}

/// Says that names can be registered when they could not, and who leads when it is another.
fn say_how_it_is(registry: &SharedRegistry, names: &mut Availability, led: &mut Led) {
    let leader = registry.heard_leader();
    if let Some(leader) = led.is_now(leader).filter(|_| !registry.place().is_alone()) {
        let seed = registry.seed_of(leader);
        if leader == registry.identity().node {
            tracing::info!(node = %leader, seed, "this node leads the registry");
        } else {
            tracing::info!(node = %leader, seed, "another node leads the registry");
        }
    }
    match names.is_now(registry.status().available, registry.now()) {
        Some(Back::First(after)) => tracing::info!(?after, "names can be registered"),
        Some(Back::Again(after)) => tracing::info!(?after, "names can be registered again"),
        None => {}
    }
}

/// What comes after a look at everything.
enum Next {
    /// The next look, for something has been done.
    Again,
    /// Nothing, until something happens.
    Rest,
    /// Nothing, until what is waited for has come; and how often to say so.
    Wait(Waiting, u64),
}

/// Does what is due.
async fn tend(
    registry: &SharedRegistry,
    consensus: &Consensus,
    heard: &BTreeMap<NodeId, Hello>,
) -> Next {
    let me = registry.identity().node;
    let situation = consensus.situation();
    if situation.leads && situation.available {
        return lead(registry, consensus, heard).await;
    }
    if situation.votes(me) {
        let silent = |(node, member): (&NodeId, &consensus::Member)| {
            let is_silent = member.votes && *node != me && !heard.contains_key(node);
            is_silent.then(|| called(*node, &member.address.seed))
        };
        let seeds: Vec<_> = situation.members.iter().filter_map(silent).collect();
        if registry.followed_leader().is_some() || seeds.is_empty() {
            return Next::Rest;
        }
        let what =
            "most of the nodes that keep the names are out of reach, so none can be registered";
        return Next::Wait(missing(what, seeds, &registry.refusals()), TELL_AGAIN);
    }
    let again = if registry.leader().is_some() { REMIND } else { TELL_AGAIN };
    let waiting = begin(registry, consensus, heard).await;
    waiting.map_or(Next::Rest, |waiting| Next::Wait(waiting, again))
}

/// Founds a registry, or says why not.
async fn begin(
    registry: &SharedRegistry,
    consensus: &Consensus,
    heard: &BTreeMap<NodeId, Hello>,
) -> Option<Waiting> {
    let me = registry.identity().node;
    let place = registry.place();
    let step = if place.is_alone() {
        match store(registry) {
            Store::Empty => bootstrap::Step::Found([(me, String::new())].into()),
            Store::Begun | Store::Founded(_) => return None,
        }
    } else if let part = Part::of(&place.seeds, place.slot.as_deref())
        && part.slot().is_some()
        && let Part::Candidate { slot, seeds } = part
    {
        bootstrap::next(&bootstrap::Own { node: me, slot, seeds, store: store(registry) }, heard)
    } else {
        return observe(registry, heard);
    };
    match step {
        bootstrap::Step::Found(members) => found(consensus, members).await.map(plain),
        bootstrap::Step::Join(_) if is_passed_over(registry) => None,
        bootstrap::Step::Join(known) => Some(plain(joins(known))),
        bootstrap::Step::Wait(wait) => {
            let refusals = registry.refusals();
            let unrefused = !wait.missing.iter().any(|seed| refusals.contains_key(seed));
            let what = "there is no registry yet, and it is founded only when all seeds are there";
            Some(if unrefused {
                Waiting { reason: wait.reason, seeds: wait.missing }
            } else {
                missing(what, wait.missing, &refusals)
            })
        }
        bootstrap::Step::Refuse(text) => Some(plain(text)),
    }
}

/// What a node waits for that keeps no names.
fn observe(registry: &SharedRegistry, heard: &BTreeMap<NodeId, Hello>) -> Option<Waiting> {
    if let Some(leader) = registry.leader() {
        let absent = absent(registry.wanted_voters(), leader, heard);
        let what = "not all nodes that should keep the names do so and are in reach";
        return (!absent.is_empty()).then(|| missing(what, absent, &registry.refusals()));
    }
    let held: BTreeSet<_> = heard.values().filter_map(|hello| hello.part.seed()).collect();
    let seeds = slots(&registry.place().seeds).iter();
    let seeds: Vec<_> = seeds.filter(|seed| !held.contains(seed.as_str())).cloned().collect();
    Some(if seeds.is_empty() {
        let what = "the nodes that keep the names have no leader yet: most of them must run and be \
                    in reach";
        plain(what.to_owned())
    } else {
        missing("the nodes that keep the names are out of reach", seeds, &registry.refusals())
    })
}

/// The slots that an operator wants, or else the leader's list, and that nobody in reach says to keep the
/// book in. Whoever keeps none is told of voters by nobody but themselves.
fn absent(
    ordered: Option<Vec<String>>,
    leader: NodeId,
    heard: &BTreeMap<NodeId, Hello>,
) -> Vec<String> {
    let listed = || heard.get(&leader).map(|hello| slots(hello.part.seeds()).to_vec());
    let mut wanted = ordered.or_else(listed).unwrap_or_default();
    let voters = || heard.iter().filter(|(_, hello)| hello.voter);
    let keeps = |slot: &String| {
        voters().any(|(node, hello)| {
            hello.part.seed() == Some(slot.as_str()) || node.to_string() == *slot
        })
    };
    wanted.retain(|slot| !keeps(slot));
    wanted
}

/// What is in this node's store.
fn store(registry: &SharedRegistry) -> Store {
    match (registry.lineage().0, registry.is_stored()) {
        (Some(known), _) => Store::Founded(known),
        (None, true) => Store::Begun,
        (None, false) => Store::Empty,
    }
}

async fn found(consensus: &Consensus, members: BTreeMap<NodeId, String>) -> Option<String> {
    let voters: Vec<_> = members.values().cloned().collect();
    let members = members.into_iter().map(|(node, seed)| (node, VoterAddress { seed })).collect();
    match consensus.initialize(members).await {
        Ok(()) if voters.iter().all(String::is_empty) => {
            tracing::info!("founding the registry: this node keeps the names alone");
            None
        }
        Ok(()) => {
            tracing::info!(voters = voters.join(","), "founding the registry");
            None
        }
        Err(error) => Some(format!("the registry cannot be founded now: {error}")),
    }
}

/// Whether an operator has decided that others keep the names.
fn is_passed_over(registry: &SharedRegistry) -> bool {
    let slot = registry.place().slot.as_ref();
    registry.wanted_voters().is_some_and(|wanted| slot.is_none_or(|slot| !wanted.contains(slot)))
}

fn joins(known: Option<RegistryId>) -> String {
    match known {
        Some(registry) => format!(
            "this node is to keep the names of registry {registry}, and waits for its leader to let \
             it in: that must run, be in reach, and have this node in its SEEDS"
        ),
        None => {
            "other seeds are founding the registry: most of them must run and be in reach".into()
        }
    }
}

/// Does what the leader has to do.
async fn lead(
    registry: &SharedRegistry,
    consensus: &Consensus,
    heard: &BTreeMap<NodeId, Hello>,
) -> Next {
    if registry.lineage().0.is_none() {
        let why = name(registry, consensus).await;
        return why.map_or(Next::Rest, |why| Next::Wait(plain(why), TELL_AGAIN));
    }
    if let Some(voters) = consensus.unfinished() {
        return carry_out(consensus, Step::Change(voters)).await;
    }
    let situation = shown(registry, consensus, heard, registry.wanted_voters().as_deref());
    carry_out(consensus, voters::next(&situation)).await
}

/// Makes the registry that was founded one with an id and a key.
async fn name(registry: &SharedRegistry, consensus: &Consensus) -> Option<String> {
    let id = RegistryId::random();
    let key = Secret(TokenSigner::generate().secret());
    let batch =
        Batch { time: registry.now(), commands: vec![Command::Found { registry: id, key }] };
    let decided = async { consensus::outcomes(consensus.propose(batch).await?).await };
    match timeout(STEP_PATIENCE, decided).await {
        Ok(Ok(outcomes)) if outcomes.first() == Some(&Outcome::Done) => {
            tracing::info!(registry = %id, "founded the registry");
            None
        }
        Ok(Ok(_)) => None, // another leader was first
        Ok(Err(error)) => Some(format!("the registry is not founded yet: {error}")),
        Err(_) => Some("the registry is not founded yet: most voters do not answer".into()),
    }
}

async fn carry_out(consensus: &Consensus, step: Step) -> Next {
    let wait = |why: String| Next::Wait(plain(why), REMIND);
    let (what, done) = match step {
        Step::Rest => return Next::Rest,
        Step::Wait(why) => return wait(why),
        Step::Teach { node, slot } => {
            let what = format!("gives the names to {slot}");
            let address = VoterAddress { seed: slot };
            (what, timeout(STEP_PATIENCE, consensus.add_learner(node, address)).await)
        }
        Step::Correct { node, slot } => {
            let what = format!("tells {slot} that it keeps the names no longer");
            let address = VoterAddress { seed: slot };
            (what, timeout(STEP_PATIENCE, consensus.add_learner(node, address)).await)
        }
        Step::Rename { node, slot } => {
            let what = format!("knows voter {node} as {slot}");
            let address = VoterAddress { seed: slot };
            (what, timeout(STEP_PATIENCE, consensus.rename(node, address)).await)
        }
        Step::Forget(node) => {
            let what = format!("no longer gives the names to {node}");
            (what, timeout(STEP_PATIENCE, consensus.remove_learner(node)).await)
        }
        Step::Change(voters) => {
            let names: Vec<_> = voters.iter().map(ToString::to_string).collect();
            let what = format!("lets these nodes keep the names: {}", names.join(", "));
            (what, timeout(STEP_PATIENCE, consensus.change_voters(voters)).await)
        }
    };
    match done {
        Ok(Ok(())) => {
            tracing::info!("the registry's leader {what}");
            Next::Again
        }
        Ok(Err(ConsensusError::NotLeader(_))) => Next::Rest, // the next one will
        Ok(Err(error)) => wait(format!("the leader cannot do this now: it {what} ({error})")),
        Err(_) => wait(format!("most voters do not answer, while the leader {what}")),
    }
}

/// What the leader's choice of voters depends on, if an operator wants the slots `ordered`.
fn shown(
    registry: &SharedRegistry,
    consensus: &Consensus,
    heard: &BTreeMap<NodeId, Hello>,
    ordered: Option<&[String]>,
) -> voters::Situation {
    let me = registry.identity().node;
    let (place, own) = (registry.place(), registry.lineage().0);
    let members = consensus.situation().members;
    let own_part = Part::of(&place.seeds, place.slot.as_deref());
    let may_vote = |node: &NodeId, hello: &Hello| {
        members.contains_key(node) || !hello.stored || hello.registry == own
    };
    let theirs = heard.iter().filter(|(node, hello)| may_vote(node, hello));
    let claims = heard.iter().filter(|(_, hello)| hello.voter && hello.registry == own);
    let claimants = claims.map(|(node, _)| *node).collect();
    let slot = |node: NodeId, part: &Part| {
        let slot = voters::slot(node, part.seed(), ordered.unwrap_or_default());
        slot.map(|slot| (node, slot))
    };
    let theirs = theirs.filter_map(|(node, hello)| slot(*node, &hello.part));
    let mine = slot(me, &own_part);
    let of = |(node, it): (&NodeId, &consensus::Member)| (*node, it.address.seed.clone());
    let learner = |(node, it): (&NodeId, &consensus::Member)| {
        (*node, Learner { slot: it.address.seed.clone(), lag: it.lag })
    };
    let voters: BTreeMap<_, _> = members.iter().filter(|(_, it)| it.votes).map(of).collect();
    let wanted = match ordered {
        Some(wanted) => wanted.to_vec(),
        None if place.seeds.is_empty() => voters.values().cloned().collect(),
        None => slots(&place.seeds).to_vec(),
    };
    voters::Situation {
        learners: members.iter().filter(|(_, it)| !it.votes).map(learner).collect(),
        voters,
        wanted,
        candidates: theirs.chain(mine).collect(),
        alive: heard.keys().copied().chain([me]).collect(),
        claimants,
    }
}

/// The command that an operator's wish comes to; for the leader.
///
/// # Errors
/// It cannot be had, or not now.
pub(super) fn wish(
    registry: &SharedRegistry,
    consensus: &Consensus,
    change: VoterChange,
) -> Result<Command, AdminError> {
    let heard = registry.heard().all();
    let now = shown(registry, consensus, &heard, registry.wanted_voters().as_deref());
    let wanted = match change {
        VoterChange::FollowSeeds => return Ok(Command::WantVoters(None)),
        VoterChange::Set(wanted) => wanted,
        VoterChange::Replace { old, new } => instead(&now, &old, &new)?,
    };
    let by_seed = |named: String| voters::by_seed(named, &now);
    let wanted: Vec<_> = wanted.into_iter().map(by_seed).collect();
    let now = shown(registry, consensus, &heard, Some(&wanted));
    match voters::objection(&now, &wanted) {
        Some(why) => Err(AdminError::Refused(why)),
        None => Ok(Command::WantVoters(Some(wanted))),
    }
}

/// The present voters' slots, with `new` in the place of `old`.
fn instead(now: &voters::Situation, old: &str, new: &str) -> Result<Vec<String>, AdminError> {
    let is_old = |node: &NodeId, slot: &str| slot == old || node.to_string() == old;
    if !now.voters.iter().any(|(node, slot)| is_old(node, slot)) {
        let voters: Vec<_> = now.voters.iter().map(|(node, slot)| called(*node, slot)).collect();
        return Err(AdminError::Refused(match voters.as_slice() {
            [alone] => format!("{old} keeps no names: {alone} keeps them alone"),
            _ => format!("{old} keeps no names: the voters are {}", voters.join(", ")),
        }));
    }
    let then = now.voters.iter().map(|(node, slot)| if is_old(node, slot) { new } else { slot });
    Ok(then.map(str::to_owned).collect())
}

/// The linked nodes whose registry does not go with this one's: they may not stay linked.
pub(super) fn strangers(registry: &SharedRegistry) -> BTreeSet<NodeId> {
    let Some(own) = registry.allegiance() else { return BTreeSet::new() };
    let is_stranger = |hello: &Hello| {
        let of = |other| Allegiance::new(other, hello.lineage.clone()).stored(hello.stored);
        hello.registry.map(of).is_some_and(|other| !own.goes_with(&other))
    };
    let heard = registry.heard().all();
    heard.into_iter().filter(|(_, hello)| is_stranger(hello)).map(|(node, _)| node).collect()
}

fn plain(reason: String) -> Waiting {
    Waiting { reason, seeds: Vec::new() }
}

fn called(node: NodeId, seed: &str) -> String {
    if seed.is_empty() { format!("node {node}") } else { seed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_no_book_misses_those_that_the_leaders_list_or_an_operator_wants() {
        let seeds = ["a", "b", "c", "d"].map(str::to_owned);
        let hello = |slot: Option<&str>, voter| Hello {
            registry: None,
            lineage: Vec::new(),
            part: Part::of(&seeds, slot),
            stored: true,
            voter,
            leader: None,
            applied: 0,
        };
        let [a, b, x] = [1, 2, 9].map(NodeId);
        let heard = |b_votes| {
            [(a, hello(Some("a"), true)), (b, hello(Some("b"), b_votes)), (x, hello(None, true))]
        };
        assert_eq!(absent(None, a, &heard(true).into()), ["c"], "the fourth is no slot");
        assert_eq!(absent(None, a, &heard(false).into()), ["b", "c"]);
        let ordered = vec!["a".to_owned(), "b".to_owned(), x.to_string()];
        assert_eq!(absent(Some(ordered), a, &heard(true).into()), [""; 0]);
        assert_eq!(absent(None, x, &heard(true).into()), [""; 0], "it has no list");
    }

    #[test]
    fn a_voter_is_replaced_by_its_seed_or_its_id() {
        let voters = [(1, "a"), (2, "b"), (3, "c")].map(|(id, slot)| (NodeId(id), slot.into()));
        let now = voters::Situation { voters: voters.into(), ..voters::Situation::default() };
        for old in ["b", &NodeId(2).to_string()] {
            let then = instead(&now, old, "d");
            assert_eq!(then.ok(), Some(["a", "d", "c"].map(str::to_owned).to_vec()));
        }
        let refused = instead(&now, "x", "d");
        assert!(matches!(refused, Err(AdminError::Refused(why)) if why.contains("a, b, c")));
        let alone = [(NodeId(1), String::new())].into();
        let alone = voters::Situation { voters: alone, ..voters::Situation::default() };
        let text = format!("x keeps no names: node {} keeps them alone", NodeId(1));
        let refused = instead(&alone, "x", "d");
        assert!(matches!(refused, Err(AdminError::Refused(why)) if why == text));
    }
}
