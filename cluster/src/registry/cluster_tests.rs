//! Several registries together: leaders, forwarded requests, partitions, disks that fail, and those who
//! only observe.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{sync::atomic::Ordering, time::Duration};

use tls::acme::{Shelf, ShelfError};
use tokio::task::JoinSet;

use super::{
    command::Batch,
    consensus::outcomes,
    hello::Hello,
    message::{self, Question, Telling},
    testing::{Cluster, NOW, id, until, within, won_and_taken},
    *,
};
use crate::NodeId;

/// What the protocol allows a registration to take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_registered_on_any_node_and_known_on_all() {
    let cluster = Cluster::of(3, 1).await;
    for number in 0..4 {
        let agent = id(&format!("agent-{number}"));
        let registration =
            cluster.node(number).register(Some(agent.clone()), Claim::random()).await.unwrap();
        assert_eq!(registration.agent, agent);
        for node in cluster.running() {
            assert_eq!(node.verify(&registration.token, NOW).unwrap().agent(), &agent);
        }
        for other in 0..4 {
            let again = cluster.node(other).register(Some(agent.clone()), Claim::random()).await;
            assert!(matches!(again, Err(RegisterError::Taken)));
        }
        let record = cluster.node(3).agent(&agent).await.unwrap().unwrap();
        assert_eq!(record.serial, Serial(number as u64 + 1));
    }
    let page = cluster.node(3).agents(Some(id("agent-1")), 1).await.unwrap();
    assert_eq!((page.agents[0].0.clone(), page.more), (id("agent-2"), true));
    until("the count is known", || cluster.running().all(|node| node.registered_agents() == 4))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claims_on_all_nodes_one_wins() {
    let cluster = Cluster::of(3, 1).await;
    let mut claims = JoinSet::new();
    for number in 0..200 {
        let node = cluster.node(number % 4).clone();
        claims.spawn(async move { node.register(Some(id("wanted")), Claim::random()).await });
    }
    assert_eq!(won_and_taken(claims).await, (1, 199));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_known_to_every_node_within_a_second() {
    let cluster = Cluster::of(3, 2).await;
    let mut grants = Vec::new();
    for name in ["one", "two", "three"] {
        let token = cluster.node(4).register(Some(id(name)), Claim::random()).await.unwrap().token;
        grants.push(cluster.node(4).verify(&token, NOW).unwrap());
    }
    let known = async |what: &str, known: &dyn Fn(&SharedRegistry) -> bool| {
        let all_know = until(what, || cluster.running().all(|node| known(node)));
        within(Duration::from_secs(1), all_know).await;
    };
    cluster.node(3).revoke(Revocation::Agent(id("one"))).await.unwrap();
    known("an agent", &|node| node.is_revoked(&grants[0])).await;
    cluster.node(0).revoke(Revocation::Token(grants[1].serial())).await.unwrap();
    known("a token", &|node| node.is_revoked(&grants[1])).await;
    cluster.node(1).ban(&id("three")).await.unwrap();
    known("a ban", &|node| node.is_revoked(&grants[2])).await;
    let refused = cluster.node(3).reissue(&id("three")).await;
    assert!(matches!(refused, Err(AdminError::Banned)));
    cluster.node(4).unban(&id("three")).await.unwrap();
    known("an end of a ban", &|node| !node.is_revoked(&grants[2])).await;
    assert!(cluster.running().all(|node| node.is_revoked(&grants[0])));

    let nobody = cluster.node(4).revoke(Revocation::Agent(id("nobody"))).await;
    assert!(matches!(nobody, Err(AdminError::UnknownAgent)));
    let again = cluster.node(4).reissue(&id("one")).await.unwrap();
    for node in cluster.running() {
        assert!(node.verify(&again.token, NOW).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_repeated_has_its_outcome_again_from_the_next_leader_too() {
    let mut cluster = Cluster::of(3, 1).await;
    let key = "a key that nobody else has";
    let claim = |agent: Option<&str>| Claim::repeatable(key, agent.map(id).as_ref());
    let first = cluster.node(3).register(Some(id("mine")), claim(Some("mine"))).await.unwrap();
    let assigned = cluster.node(3).register(None, claim(None)).await.unwrap();
    let serial =
        |cluster: &Cluster, token: &str| cluster.node(3).verify(token, NOW).unwrap().serial();
    cluster.kill(cluster.leader()).await;
    cluster.agree().await;
    let again = cluster.node(3).register(Some(id("mine")), claim(Some("mine"))).await.unwrap();
    assert_eq!(serial(&cluster, &again.token), serial(&cluster, &first.token));
    let same = cluster.node(3).register(None, claim(None)).await.unwrap();
    assert_eq!(same.agent, assigned.agent);
    assert_eq!(serial(&cluster, &same.token), serial(&cluster, &assigned.token));
    let other = cluster.node(3).register(Some(id("mine")), Claim::random()).await;
    assert!(matches!(other, Err(RegisterError::Taken)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_lost_in_the_midst_of_a_storm_leaves_no_name_without_its_token() {
    let mut cluster = Cluster::of(3, 1).await;
    let mut storm = JoinSet::new();
    for number in 0..300_u64 {
        let node = cluster.node(3).clone();
        storm.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 5)).await;
            let agent = id(&format!("storm-{number}"));
            (agent.clone(), node.register(Some(agent), Claim::random()).await)
        });
    }
    let leader = cluster.node(cluster.leader()).clone();
    until("some have their names", || leader.registered_agents() >= 50).await;
    drop(leader);
    cluster.kill(cluster.leader()).await;
    let outcomes = storm.join_all().await;
    cluster.agree().await;
    let node = cluster.node(3);
    until("names are given back", || node.releases().names().is_empty()).await;
    let (mut won, mut refused) = (0, 0);
    for (agent, outcome) in outcomes {
        let record = node.agent(&agent).await.unwrap();
        match outcome {
            Ok(registration) => {
                won += 1;
                let serial = node.verify(&registration.token, NOW).unwrap().serial();
                assert_eq!(record.unwrap().serial, serial);
            }
            Err(RegisterError::Unavailable(_)) => {
                refused += 1;
                assert_eq!(record, None, "{agent:?} is taken, and nobody has its token");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(won > 0, "{won} won, {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_taken() {
    let cluster = Cluster::of(3, 1).await;
    let before = cluster.node(0).register(Some(id("before")), Claim::random()).await.unwrap();
    let leader = cluster.leader();
    cluster.part(&[leader, 3]);
    let tried = [leader, 3].map(|number| {
        let (node, before) = (cluster.node(number).clone(), before.clone());
        async move {
            let outcome = node.register(Some(id("wanted")), Claim::random());
            let outcome = within(ANSWER_MAX, outcome).await;
            assert!(matches!(outcome, Err(RegisterError::Unavailable(_))));
            assert!(node.verify(&before.token, NOW).is_ok());
        }
    });
    let [one, other] = tried;
    tokio::join!(one, other);
    let alone = [leader, 3].map(|number| cluster.node(number).clone());
    until("both say so", || alone.iter().all(|node| !node.status().available)).await;
    let logged = || alone[0].consensus().unwrap().situation().last;
    let before = logged();
    for node in &alone {
        let outcome = within(ANSWER_MAX, node.register(Some(id("wanted")), Claim::random())).await;
        assert!(matches!(outcome, Err(RegisterError::Unavailable(_))));
    }
    assert_eq!(logged(), before, "a leader that nobody follows fills its log");
    cluster.heal();
    cluster.agree().await;
    until("names are given back", || {
        cluster.running().all(|node| node.releases().names().is_empty())
    })
    .await;
    assert_eq!(cluster.node(1).agent(&id("wanted")).await.unwrap(), None);
    cluster.node(3).register(Some(id("wanted")), Claim::random()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_is_not_said_to_lead() {
    let cluster = Cluster::of(3, 1).await;
    let leader = cluster.leader();
    assert_eq!(cluster.node(leader).status().role, Role::Leader);
    for node in cluster.running() {
        assert_eq!(node.status().leader, Some(cluster.node(leader).identity().node));
    }
    cluster.part(&[leader, 3]);
    until("the leader and the observer with it say so", || {
        let told = [leader, 3].map(|number| cluster.node(number).status());
        told.iter().all(|status| !status.available && status.leader.is_none())
    })
    .await;
    let stale = cluster.node(leader);
    assert!(stale.situation().leads, "it does not know that another may lead");
    assert_eq!(stale.status().role, Role::Follower);
    until("it waits for both others", || {
        stale.status().waiting.is_some_and(|waiting| waiting.seeds.len() == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_does_not_answer_is_not_relied_on_though_it_is_linked() {
    let cluster = Cluster::of(3, 1).await;
    let leader = cluster.leader();
    cluster.silence(&[leader]);
    let status = cluster.node(3).status();
    assert!(!status.available && status.leader.is_none(), "{status:?}");
    assert!(cluster.node(leader).status().available, "it answers itself");
    cluster.heal();
    assert!(cluster.node(3).status().available);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_not_heard_is_replaced() {
    let cluster = Cluster::of(3, 1).await;
    let leader = cluster.leader();
    for other in (0..3).filter(|other| *other != leader) {
        cluster.deafen(leader, other);
    }
    until("another leads", || {
        (0..3).any(|other| other != leader && *cluster.node(other).leads().borrow())
    })
    .await;
    until("the observer knows", || {
        cluster.node(3).leader() != Some(cluster.node(leader).identity().node)
    })
    .await;
    cluster.node(3).register(Some(id("wanted")), Claim::random()).await.unwrap();
    cluster.heal();
    cluster.agree().await;
    let taken = cluster.node(leader).register(Some(id("wanted")), Claim::random()).await;
    assert!(matches!(taken, Err(RegisterError::Taken)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_led_before_it_stopped_leads_only_when_elected_anew() {
    let mut cluster = Cluster::of(3, 0).await;
    let term = cluster.node(cluster.leader()).status().term;
    for number in 0..3 {
        cluster.kill(number).await;
    }
    for number in 0..3 {
        cluster.start(number);
    }
    cluster.agree().await;
    let now = cluster.node(cluster.leader()).status().term;
    assert!(now > term, "term {now} after {term}: its disk may lack what was decided");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_out_of_reach_of_all_voters_restarts_with_what_it_knew() {
    let mut cluster = Cluster::of(1, 1).await;
    let good = cluster.node(1).register(Some(id("good")), Claim::random()).await.unwrap();
    let bad = cluster.node(1).register(Some(id("bad")), Claim::random()).await.unwrap();
    let file = cluster.node(1).data_dir().join("registry.view");
    until("the view is saved", || file.exists()).await;
    let before = std::fs::read(&file).unwrap();
    cluster.node(1).revoke(Revocation::Agent(id("bad"))).await.unwrap();
    until("the revocation is saved", || std::fs::read(&file).unwrap() != before).await;
    let saved = std::fs::read(&file).unwrap();
    assert!(!saved.windows(3).any(|part| part == b"bad"), "it is sealed");
    cluster.kill(0).await;
    cluster.kill(1).await;
    cluster.start(1);
    let node = cluster.node(1);
    node.informed().await;
    assert!(node.verify(&good.token, NOW).is_ok());
    assert_eq!(node.verify(&bad.token, NOW).unwrap_err(), TokenError::Revoked);
    assert!(!node.status().available);
    let refused = within(ANSWER_MAX, node.register(None, Claim::random())).await;
    assert!(matches!(refused, Err(RegisterError::Unavailable(_))));
    cluster.start(0);
    cluster.agree().await;
    cluster.node(1).register(None, Claim::random()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_disk_fails_goes_on_as_an_observer_until_it_works_again() {
    let cluster = Cluster::of(3, 0).await;
    let broken = cluster.leader();
    cluster.disks[broken].disk.full.store(true, Ordering::SeqCst);
    let _ = cluster.node(broken).register(Some(id("wanted")), Claim::random()).await;
    until("it says so", || cluster.node(broken).status().failure.is_some()).await;
    until("another leads", || {
        (0..3).any(|other| other != broken && *cluster.node(other).leads().borrow())
    })
    .await;
    let node = cluster.node(broken);
    until("it knows the other", || node.status().available).await;
    let registration = node.register(Some(id("forwarded")), Claim::random()).await.unwrap();
    let grant = node.verify(&registration.token, NOW).unwrap();
    node.revoke(Revocation::Agent(id("forwarded"))).await.unwrap();
    until("it hears of a revocation", || node.is_revoked(&grant)).await;
    assert_eq!(node.status().role, Role::Candidate);

    cluster.disks[broken].disk.full.store(false, Ordering::SeqCst);
    until("it votes again", || node.status().role == Role::Follower).await;
    assert_eq!(node.status().failure, None);
    cluster.agree().await;
    until("names are given back", || {
        cluster.running().all(|node| node.releases().names().is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_far_behind_is_given_a_snapshot() {
    let mut cluster = Cluster::of(3, 0).await;
    let late = cluster.follower();
    cluster.kill(late).await;
    let leader = cluster.node(cluster.leader()).clone();
    let names: Vec<_> = (0..3_000).map(|number| id(&format!("name-{number}"))).collect();
    assert_eq!(leader.import(names).await.unwrap().added, 3_000);
    let consensus = leader.consensus().unwrap();
    consensus.raft().trigger().snapshot().await.unwrap();
    let applied = consensus.situation().applied;
    let mut metrics = consensus.metrics();
    metrics.wait_for(|it| it.snapshot.is_some_and(|id| id.index >= applied)).await.unwrap();
    consensus.raft().trigger().purge_log(applied).await.unwrap();
    metrics.wait_for(|it| it.purged.is_some_and(|id| id.index >= applied)).await.unwrap();
    drop((consensus, leader));
    cluster.start(late);
    let names = || cluster.node(late).store().agents(None, 4_000).unwrap().agents.len();
    until("its own store has them", || names() == 3_000).await;
    cluster.agree().await;
    assert_eq!(cluster.node(late).registered_agents(), 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_seed_keeps_the_book_if_an_operator_names_it() {
    let cluster = Cluster::of(3, 1).await;
    let ids: Vec<_> = cluster.running().map(|node| node.identity().node.to_string()).collect();
    let votes = |node: &SharedRegistry| {
        let voters = node.status().voters.into_iter().filter(|voter| voter.votes);
        voters.map(|voter| (voter.node.to_string(), voter.seed)).collect::<Vec<_>>()
    };
    let leader = cluster.leader();
    let goes = cluster.follower();
    let asked = (0..3).find(|it| *it != leader && *it != goes).unwrap();
    let change = VoterChange::Replace { old: ids[goes].clone(), new: ids[3].clone() };
    cluster.node(asked).change_voters(change).await.unwrap();
    let observer = (ids[3].clone(), ids[3].clone());
    until("it votes", || {
        let now = votes(cluster.node(asked));
        now.len() == 3 && now.contains(&observer) && now.iter().all(|(node, _)| *node != ids[goes])
    })
    .await;
    assert_eq!(cluster.node(3).status().role, Role::Follower);
    cluster.node(3).register(Some(id("wanted")), Claim::random()).await.unwrap();
    assert_knows_that_it_keeps_no_book(cluster.node(goes), "wanted").await;
    let twice = VoterChange::Set(vec![ids[0].clone(), "node-0:7946".into(), ids[3].clone()]);
    let refused = cluster.node(asked).change_voters(twice).await;
    assert!(
        matches!(&refused, Err(AdminError::Refused(why)) if why.contains("2 of them different")),
        "{refused:?}"
    );
    // Seeds that are named by their ids are seeds.
    cluster.node(asked).change_voters(VoterChange::Set(ids[..3].to_vec())).await.unwrap();
    until("all seeds vote", || {
        let mut seeds: Vec<_> = votes(cluster.node(asked)).into_iter().map(|it| it.1).collect();
        seeds.sort();
        seeds == ["node-0:7946", "node-1:7946", "node-2:7946"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_misses_a_voter_that_is_gone() {
    let mut cluster = Cluster::of(3, 1).await;
    let waiting = |cluster: &Cluster| cluster.node(3).status().waiting;
    until("all are there", || waiting(&cluster).is_none()).await;
    let gone = cluster.follower();
    cluster.kill(gone).await;
    let seed = format!("node-{gone}:7946");
    until("one is missed", || waiting(&cluster).is_some_and(|it| it.seeds == [&*seed])).await;
    assert!(cluster.node(3).status().available);
    cluster.start(gone);
    until("it is back", || waiting(&cluster).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_voted_out_while_it_was_away_learns_it_when_it_is_back() {
    let mut cluster = Cluster::of(3, 1).await;
    let goes = cluster.follower();
    let ids: Vec<_> = cluster.running().map(|node| node.identity().node.to_string()).collect();
    cluster.kill(goes).await;
    let leader = cluster.node(cluster.leader());
    let change = VoterChange::Replace { old: ids[goes].clone(), new: ids[3].clone() };
    leader.change_voters(change).await.unwrap();
    until("another votes", || cluster.node(3).status().role == Role::Follower).await;
    leader.register(Some(id("meanwhile")), Claim::random()).await.unwrap();
    cluster.start(goes);
    assert_knows_that_it_keeps_no_book(cluster.node(goes), "meanwhile").await;
    until("the leader is done with it", || {
        let leader = cluster.node(cluster.leader());
        leader.status().voters.iter().all(|it| it.votes && it.node.to_string() != ids[goes])
    })
    .await;
}

/// That a former voter shows the others' book, with this name in it, and neither its own nor itself.
async fn assert_knows_that_it_keeps_no_book(former: &SharedRegistry, name: &str) {
    let me = former.identity().node;
    until("its log is read", || !former.situation().members.is_empty()).await;
    until("it knows that it was voted out", || !former.keeps_book()).await;
    until("it waits for others", || former.status().role == Role::Candidate).await;
    assert!(former.status().voters.iter().all(|voter| voter.node != me));
    assert!(matches!(former.export().await.map(drop), Err(AdminError::Refused(_))));
    let page = former.agents(None, 10).await.unwrap();
    assert!(page.agents.iter().any(|(agent, _)| *agent == id(name)), "{page:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vaults_value_is_replaced_only_by_who_knows_it() {
    let cluster = Cluster::of(3, 1).await;
    let value = |byte| Some(zeroize::Zeroizing::new(vec![byte; 1_000]));
    let put = async |number: usize, expected, byte| {
        cluster.node(number).put("acme", expected, value(byte), true).await
    };
    let first = put(0, 0, 1).await.unwrap();
    assert_eq!(put(3, 0, 2).await, Err(ShelfError::Conflict));
    let second = put(3, first, 2).await.unwrap();
    assert!(second > first);
    let ours = cluster.node(1).put("ours", 0, value(3), false).await.unwrap();
    let leader = cluster.node(cluster.leader());
    leader.spread(Duration::from_secs(5)).await.unwrap();
    for node in cluster.running() {
        let entry = node.get("acme").unwrap();
        assert_eq!((entry.version, entry.bytes[0]), (second, 2));
    }
    assert_eq!(leader.get("ours").unwrap().version, ours);
    assert!(cluster.node(3).get("ours").is_none(), "observers are given no secrets of voters");
    let too_long = Some(zeroize::Zeroizing::new(vec![0; (64 << 10) + 1]));
    let refused = leader.put("acme", second, too_long, true).await;
    assert!(matches!(refused, Err(ShelfError::Unavailable(why)) if why.contains("65536 bytes")));

    let observer = cluster.node(3).identity().node;
    leader.living(cluster.running().map(|node| node.identity().node));
    cluster.part(&[3]);
    put(1, second, 4).await.unwrap();
    until("it is known", || leader.get("acme").is_some_and(|it| it.bytes[0] == 4)).await;
    let behind = leader.spread(Duration::from_millis(300)).await;
    assert_eq!(behind, Err(format!("{observer} did not follow within 300ms")));
    cluster.heal();
    leader.spread(Duration::from_secs(5)).await.unwrap();
    assert_eq!(cluster.node(3).get("acme").unwrap().bytes[0], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_hears_only_another_follower_keeps_the_voters_secrets() {
    let cluster = Cluster::of(3, 0).await;
    let (leader, late) = (cluster.leader(), cluster.follower());
    let other = (0..3).find(|it| ![leader, late].contains(it)).unwrap();
    let value = Some(zeroize::Zeroizing::new(vec![7; 100]));
    let version = cluster.node(leader).put("account", 0, value, false).await.unwrap();
    let known = || cluster.node(late).get("account").map(|entry| entry.version);
    until("its own book has it", || known() == Some(version)).await;
    let kept = async || cluster.node(late).look_up("account").await.map(|entry| entry.version);
    cluster.part(&[late]);
    cluster.node(leader).register(Some(id("meanwhile")), Claim::random()).await.unwrap();
    let index = cluster.node(leader).standing().index();
    cluster.relink(late, other);
    until("it has the other's view", || cluster.node(late).standing().index() == index).await;
    assert_eq!(kept().await, Some(version));
    cluster.heal();
    cluster.agree().await;
    assert_eq!(kept().await, Some(version));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_out_of_its_leaders_reach_hears_of_revocations_from_another() {
    let cluster = Cluster::of(3, 0).await;
    let (leader, deaf) = (cluster.leader(), cluster.follower());
    let mut grants = Vec::new();
    for name in ["before", "after"] {
        let token = cluster.node(leader).register(Some(id(name)), Claim::random()).await;
        grants.push(cluster.node(leader).verify(&token.unwrap().token, NOW).unwrap());
    }
    cluster.agree().await;
    cluster.cut(leader, deaf);
    cluster.node(leader).revoke(Revocation::Agent(id("before"))).await.unwrap();
    let node = cluster.node(deaf);
    until("it hears of what it missed", || node.is_revoked(&grants[0])).await;
    cluster.node(leader).revoke(Revocation::Agent(id("after"))).await.unwrap();
    until("it hears the news", || node.is_revoked(&grants[1])).await;
    assert!(*cluster.node(leader).leads().borrow(), "it was heard from a follower");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_hears_its_leader_but_not_the_log_hears_of_revocations_all_the_same() {
    let cluster = Cluster::of(3, 0).await;
    let (leader, starved) = (cluster.leader(), cluster.follower());
    let token = cluster.node(leader).register(Some(id("abc")), Claim::random()).await.unwrap();
    let grant = cluster.node(leader).verify(&token.token, NOW).unwrap();
    cluster.agree().await;
    cluster.starve(starved);
    cluster.node(leader).revoke(Revocation::Agent(id("abc"))).await.unwrap();
    let node = cluster.node(starved);
    until("it asks for what the others know", || node.is_revoked(&grant)).await;
    assert!(node.follows_log(), "it hears its leader");
    let applied = node.situation().applied;
    assert!(applied < node.standing().index(), "its log has brought nothing");
    cluster.heal();
    cluster.agree().await;
    until("its log brings the rest", || node.situation().applied == node.standing().index()).await;
    assert!(node.is_revoked(&grant));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_leader_says_that_it_decides_nothing_takes_news() {
    let cluster = Cluster::of(3, 0).await;
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let (leader, follower) = (cluster.node(leader), cluster.node(follower));
    assert!(follower.follows_log());
    let says = |leader_of: Option<NodeId>| {
        let hello = Hello { leader: leader_of, ..leader.hello() };
        follower.told(leader.identity().node, &message::to_bytes(&Telling::Hello(hello)));
    };
    says(None);
    assert!(!follower.follows_log(), "as it tells the others, who tell it news");
    says(Some(leader.identity().node));
    assert!(follower.follows_log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_a_leader_elects_nobody_and_who_hears_none_elects_who_knows_as_much() {
    let cluster = Cluster::of(3, 0).await;
    let voter = cluster.follower();
    let node = cluster.node(voter);
    let last = node.consensus().unwrap().last_log();
    let would_elect = async |last| {
        let answer = node.asked(NodeId(1), message::to_bytes(&Question::WouldElect(last))).await;
        message::from_bytes::<bool>(&answer).unwrap()
    };
    assert!(!would_elect(last).await);
    let leader = cluster.node(cluster.leader());
    let asked = message::to_bytes(&Question::WouldElect(last));
    assert_eq!(leader.asked(NodeId(1), asked).await, message::to_bytes(&false), "it leads");
    cluster.part(&[voter]);
    until("it hears no leader", || node.situation().leader.is_none()).await;
    assert!(would_elect(last).await);
    assert!(!would_elect(None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_a_leader_that_most_do_not_follow_elects_another() {
    let mut cluster = Cluster::of(5, 0).await;
    let former = cluster.leader();
    let mut others: Vec<_> = (0..5).filter(|it| *it != former).collect();
    cluster.kill(others.pop().unwrap()).await;
    let (hears, deaf) = others.split_first().unwrap();
    for voter in deaf {
        cluster.cut(former, *voter);
    }
    let former = cluster.node(former);
    until("it says that it decides nothing", || former.hello().leader.is_none()).await;
    let leads = |voter: &usize| *cluster.node(*voter).leads().borrow();
    until("three of five have elected another", || others.iter().any(leads)).await;
    let asked = cluster.node(*hears);
    asked.register(Some(id("wanted")), Claim::random()).await.unwrap();
    cluster.heal();
    until("the former leader follows", || !former.situation().leads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_can_replace_leads_on_when_it_is_followed_again() {
    let cluster = Cluster::of(3, 0).await;
    let leader = cluster.leader();
    let others: Vec<_> = (0..3).filter(|it| *it != leader).collect();
    cluster.part(&others[..1]);
    cluster.cut(leader, others[1]);
    let former = cluster.node(leader);
    // Nobody else could be elected: it knows more than the one that it is linked with again.
    let consensus = former.consensus().unwrap();
    let decided = consensus.propose(Batch { time: NOW, commands: Vec::new() }).await.unwrap();
    until("it keeps quiet", || consensus.hush.covers(consensus.situation().term)).await;
    cluster.relink(leader, others[1]);
    until("it leads again", || *former.leads().borrow()).await;
    outcomes(decided).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_whose_answer_is_lost_is_not_answered_as_if_it_had_been_made_before() {
    let cluster = Cluster::of(3, 1).await;
    let leader = cluster.leader();
    cluster.deafen(leader, 3);
    let outcome = cluster.node(3).import(vec![id("wanted")]).await;
    let Err(AdminError::Unavailable(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("not known"), "{why}");
    let made = || cluster.node(leader).store().agent(&id("wanted")).unwrap().is_some();
    until("it is made all the same", made).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_works_on_many_requests_turns_others_away_and_leads_on() {
    let cluster = Cluster::of(3, 1).await;
    let leader = cluster.node(cluster.leader());
    let all = u32::try_from(shared::REQUESTS_MAX).unwrap();
    let worked_on = leader.requests.try_acquire_many(all).unwrap();
    let refused = cluster.node(3).register(Some(id("wanted")), Claim::random()).await;
    let Err(RegisterError::Unavailable(why)) = refused else { panic!("registered") };
    assert!(why.contains("too many requests"), "{why}");
    leader.register(Some(id("its-own")), Claim::random()).await.unwrap();
    drop(worked_on);
    cluster.node(3).register(Some(id("wanted")), Claim::random()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_no_book_says_who_does() {
    let cluster = Cluster::of(3, 1).await;
    let seeds = || {
        let voters = cluster.node(3).status().voters.into_iter();
        voters.map(|voter| voter.seed).collect::<std::collections::BTreeSet<_>>()
    };
    until("it knows of all", || seeds().len() == 3).await;
    let Err(AdminError::Refused(why)) = cluster.node(3).export().await else { panic!("exported") };
    assert!(seeds().iter().all(|seed| why.contains(seed)), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_signs_and_the_former_retires() {
    let cluster = Cluster::of(3, 1).await;
    let old = cluster.node(3).register(Some(id("agent")), Claim::random()).await.unwrap();
    let grant = cluster.node(3).verify(&old.token, NOW).unwrap();
    let rotation = cluster.node(3).rotate_key(Duration::from_hours(1)).await.unwrap();
    assert_eq!((rotation.signs.id, rotation.retires.id), (KeyId(1), KeyId(0)));
    assert_eq!(rotation.retires.retires_at, Some(NOW.plus(Duration::from_hours(1))));
    let new = cluster.node(3).reissue(&id("agent")).await.unwrap();
    cluster.agree().await;
    for node in cluster.running() {
        assert_eq!(node.verify(&new.token, NOW).unwrap().key(), KeyId(1));
        assert!(node.verify(&old.token, NOW).is_ok());
    }
    cluster.clock.advance(Duration::from_secs(3_601));
    until("the key retires everywhere", || cluster.running().all(|node| node.is_revoked(&grant)))
        .await;
    let keys = cluster.node(3).keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [KeyId(1)]);
    assert!(cluster.node(3).verify(&new.token, cluster.clock.now()).is_ok());
}
