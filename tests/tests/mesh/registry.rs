//! One book of names for all nodes: PROTOCOL section 2.

use serde_json::json;
use tests::{Client, Cluster, eventually, http};

#[tokio::test]
async fn a_name_is_given_once_in_the_whole_cluster() {
    let cluster = Cluster::start(3).await;
    for (n, node) in cluster.nodes.iter().enumerate() {
        let body = || json!({"agent_id": format!("name-{n}")}).to_string();
        http::post(node.public, "/register", body()).await.expect_status(200);
        for other in &cluster.nodes {
            http::post(other.public, "/register", body()).await.expect_error(409, "agent_id_taken");
        }
    }
}

#[tokio::test]
async fn of_many_claims_at_once_on_all_nodes_one_wins() {
    let cluster = Cluster::start(3).await;
    let claims = (0..60).map(|n| {
        let public = cluster.nodes[n % 3].public;
        let body = json!({"agent_id": "wanted"}).to_string();
        tokio::spawn(async move { http::post(public, "/register", body).await.status })
    });
    let mut won = 0;
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.expect("no test task panics") {
            200 => won += 1,
            status => assert_eq!(status, 409),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_revocation_ends_the_session_on_every_node() {
    let cluster = Cluster::start(3).await;
    for (n, node) in cluster.nodes.iter().enumerate() {
        let agent = format!("revoked-{n}");
        let token = node.register(&agent).await;
        let mut client = Client::connect(&cluster.nodes[(n + 1) % 3], &token).await;
        let admin = &cluster.nodes[(n + 2) % 3];
        admin.admin("POST", &format!("/agents/{agent}/revoke")).await.expect_status(200);
        client.expect_close(4001).await;
        for other in &cluster.nodes {
            let request = http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
            eventually("the token is revoked everywhere", || async {
                let request =
                    http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
                http::send(other.public, request, "").await.status == 401
            })
            .await;
            http::send(other.public, request, "").await.expect_error(401, "token_revoked");
        }
    }
}

#[tokio::test]
async fn who_is_banned_on_one_node_is_nobody_on_all() {
    let cluster = Cluster::start(3).await;
    let mut agents = super::routing::one_each(&cluster, "agent").await;
    let mut banned = cluster.nodes[1].agent("banned").await;
    cluster.nodes[0].admin("POST", "/agents/banned/ban").await.expect_status(200);
    banned.expect_close(4001).await;
    for node in &cluster.nodes {
        let request =
            || http::upgrade("/arc").header("authorization", format!("Bearer {}", banned.token));
        eventually("the ban is known everywhere", || async {
            http::send(node.public, request(), "").await.status == 401
        })
        .await;
        http::send(node.public, request(), "").await.expect_error(401, "token_revoked");
    }
    let others = agents[2].id.clone();
    agents[0].send(json!({"to": ["banned", others, "banned"], "payload": 1})).await;
    assert_eq!(agents[2].next().await["payload"], 1);
    agents[0].fence().await;
    cluster.nodes[2].admin("DELETE", "/agents/banned/ban").await.expect_status(200);
    eventually("the ban is lifted everywhere", || async {
        let request =
            http::upgrade("/arc").header("authorization", format!("Bearer {}", banned.token));
        http::send(cluster.nodes[1].public, request, "").await.status == 101
    })
    .await;
}

#[tokio::test]
async fn without_most_of_the_seeds_all_goes_on_but_new_names() {
    let mut cluster = Cluster::start(3).await;
    let token = cluster.nodes[0].register("known").await;
    let before = cluster.nodes[2].register("before").await;
    for lost in [0, 1] {
        cluster.nodes[lost].kill9();
    }
    let refused = http::post(cluster.nodes[2].public, "/register", r#"{"agent_id":"new"}"#).await;
    refused.expect_error(503, "registry_unavailable").expect_retry_after();
    // A node that starts meanwhile knows the tokens from its last run.
    cluster.nodes[2].kill9();
    cluster.nodes[2].start_again();
    cluster.nodes[2].is_ready().await;
    let mut known = Client::connect(&cluster.nodes[2], &token).await;
    let mut other = Client::connect(&cluster.nodes[2], &before).await;
    other.send(json!({"to": ["known"], "payload": 1})).await;
    assert_eq!(known.next().await["payload"], 1);
    for lost in [0, 1] {
        cluster.nodes[lost].start_again();
    }
    cluster.is_whole().await;
    cluster.is_kept_by(3).await;
    cluster.nodes[1].register("new").await;
    let again = http::post(cluster.nodes[2].public, "/register", r#"{"agent_id":"known"}"#).await;
    again.expect_error(409, "agent_id_taken");
}
