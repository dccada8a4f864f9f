//! One session per agent in the whole cluster, and what outlives it: PROTOCOL sections 3 and 8.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Client, Cluster, eventually};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_token_is_good_on_every_node_at_once() {
    let cluster = Cluster::start(3).await;
    for (n, node) in cluster.nodes.iter().enumerate() {
        for (m, other) in cluster.nodes.iter().enumerate() {
            let token = node.register(&format!("token-{n}-{m}")).await;
            Client::connect(other, &token).await.leave().await;
        }
    }
}

#[tokio::test]
async fn the_newest_session_wins_on_whichever_node_it_is() {
    let cluster = Cluster::start(3).await;
    let mut sender = cluster.nodes[2].agent("sender").await;
    let token = cluster.nodes[0].register("hopper").await;
    let mut older = Client::connect(&cluster.nodes[0], &token).await;
    for n in 1..10 {
        let mut newer = Client::connect(&cluster.nodes[n % 3], &token).await;
        older.expect_close(4009).await;
        // Whatever is accepted after the welcome reaches the new session.
        sender.send(json!({"to": ["hopper"], "payload": n})).await;
        assert_eq!(newer.next().await["payload"], n);
        older = newer;
    }
    eventually("one session is left of the hopper's", || async {
        cluster.nodes[0].stats().await["active_connections"] == 2
    })
    .await;
}

#[tokio::test]
async fn of_sessions_that_come_at_once_on_all_nodes_one_stays() {
    let cluster = Cluster::start(3).await;
    let mut senders = super::routing::one_each(&cluster, "sender").await;
    let token = cluster.nodes[0].register("hopper").await;
    for round in 0..10 {
        let connect = |n: usize| Client::connect(&cluster.nodes[n % 3], &token);
        let mut sessions = join_all((0..9).map(connect)).await;
        eventually("one session is left of the hopper's", || async {
            let mut open = 0;
            for node in &cluster.nodes {
                let stats = node.stats().await;
                open += stats["node"]["active_connections"].as_u64().unwrap_or_default();
            }
            open == 4
        })
        .await;
        for sender in &mut senders {
            sender.send(json!({"to": ["hopper", "hopper"], "payload": round})).await;
            sender.send(json!({"to": ["*", "hopper"], "payload": round})).await;
        }
        let mut got = 0;
        for session in &mut sessions {
            match session.next_frame().await {
                Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 4009),
                Some(Ok(Message::Text(_))) => {
                    for _ in 1..6 {
                        assert_eq!(session.next().await["payload"], round);
                    }
                    session.fence().await;
                    got += 1;
                }
                frame => panic!("{frame:?}"),
            }
        }
        assert_eq!(got, 1, "one has all, and the others nothing");
        for sender in &mut senders {
            for _ in 0..2 {
                assert_eq!(sender.next().await["payload"], round);
            }
        }
    }
}

#[tokio::test]
async fn an_agent_that_hops_misses_nothing_that_is_sent_while_it_is_connected() {
    let cluster = Cluster::start(3).await;
    let token = cluster.nodes[0].register("hopper").await;
    let mut senders = super::routing::one_each(&cluster, "sender").await;
    let mut hopper = Client::connect(&cluster.nodes[0], &token).await;
    let mut last = [-1_i64; 3];
    let mut sent = 0_i64;
    for hop in 0..50 {
        // Before the hop: what is sent here must arrive here.
        for sender in &mut senders {
            sender.send(json!({"to": ["hopper"], "payload": sent})).await;
            sender.send(json!({"to": ["*"], "payload": sent, "type": "all"})).await;
        }
        let mut got = [0; 3];
        while got != [2; 3] {
            let message = hopper.next().await;
            let Some(n) = message["from"].as_str().and_then(|from| from.strip_prefix("sender-"))
            else {
                continue;
            };
            let n: usize = n.parse().expect("senders are numbered");
            let number = message["payload"].as_i64().expect("a number");
            assert!(number >= last[n], "in order: {message}");
            last[n] = number;
            if number == sent {
                got[n] += 1;
            }
        }
        sent += 1;
        // During the hop: may reach either session or none, never both.
        for sender in &mut senders {
            sender.send(json!({"to": ["hopper"], "payload": sent})).await;
        }
        let newer = Client::connect(&cluster.nodes[(hop + 1) % 3], &token).await;
        let left = hopper.expect_close(4009).await.before;
        for message in left {
            note(&message, &mut last);
        }
        hopper = newer;
        sent += 1;
    }
}

fn note(message: &Value, last: &mut [i64; 3]) {
    let from = message["from"].as_str().and_then(|from| from.strip_prefix("sender-"));
    if let Some(n) = from.and_then(|n| n.parse::<usize>().ok()) {
        let number = message["payload"].as_i64().expect("a number");
        assert!(number > last[n] || message["type"] == "all", "once and in order: {message}");
        last[n] = last[n].max(number);
    }
}

#[tokio::test]
async fn a_rate_limit_is_the_agents_on_whichever_node_it_is() {
    let cluster = Cluster::with(3, &[("RATE_LIMIT_PER_MIN", "30")]).await;
    let token = cluster.nodes[0].register("chatty").await;
    let mut agent = Client::connect(&cluster.nodes[0], &token).await;
    for n in 0..30 {
        agent.send(json!({"to": ["chatty"], "payload": n})).await;
        assert_eq!(agent.next().await["payload"], n);
    }
    agent.leave().await;
    let mut agent = Client::connect(&cluster.nodes[1], &token).await;
    let mut passed = 0;
    loop {
        agent.send(json!({"to": ["chatty"], "payload": passed})).await;
        let answer = agent.next().await;
        if answer["type"] == "error" {
            assert_eq!(answer["payload"]["code"], "rate_limit", "{answer}");
            break;
        }
        passed += 1;
        assert!(passed < 25, "a new node is no new limit");
    }
}

#[tokio::test]
async fn subscriptions_follow_their_agent_and_outlive_the_crash_of_a_node() {
    let mut cluster = Cluster::start(3).await;
    let token = cluster.nodes[0].register("follower").await;
    let mut agent = Client::connect(&cluster.nodes[1], &token).await;
    agent
        .send(json!({"to": ["relay"], "type": "subscribe", "payload": {"agents": ["some-agent"]}}))
        .await;
    assert_eq!(agent.next().await["payload"]["count"], 1);
    let nodes = &cluster.nodes;
    eventually("all nodes keep the subscription", || async {
        let mut kept = 0;
        for node in nodes {
            kept += node.metrics().await.count("arc_subscriptions", &[]);
        }
        kept == 3
    })
    .await;
    cluster.nodes[1].kill9();
    let mut agent = Client::connect(&cluster.nodes[2], &token).await;
    agent.send(json!({"to": ["relay"], "type": "list_subscriptions"})).await;
    assert_eq!(agent.next().await["payload"], json!({"agents": ["some-agent"]}));
}

/// Connects to that node for one command only, and takes its answer's payload.
async fn ask(cluster: &Cluster, node: usize, token: &str, kind: &str, agents: &[&str]) -> Value {
    let mut agent = Client::connect(&cluster.nodes[node], token).await;
    let payload = json!({ "agents": agents });
    agent.send(json!({"to": ["relay"], "type": kind, "payload": payload})).await;
    let answer = agent.next().await;
    agent.leave().await;
    assert_ne!(answer["type"], "error", "{answer}");
    answer["payload"].clone()
}

#[tokio::test]
async fn what_an_agent_follows_is_what_it_asked_for_however_fast_it_hops() {
    let cluster = Cluster::start(3).await;
    let token = cluster.nodes[0].register("follower").await;
    // Each command is on another node than the last, and before the news of that.
    ask(&cluster, 0, &token, "subscribe", &["ann-1", "bob-1"]).await;
    ask(&cluster, 1, &token, "subscribe", &["cid-1"]).await;
    ask(&cluster, 2, &token, "unsubscribe", &["bob-1"]).await;
    ask(&cluster, 0, &token, "subscribe", &["dan-1"]).await;
    for node in 0..3 {
        eventually("the node knows all that was asked for", || async {
            let list = ask(&cluster, node, &token, "list_subscriptions", &[]).await;
            list == json!({"agents": ["ann-1", "cid-1", "dan-1"]})
        })
        .await;
    }
}
