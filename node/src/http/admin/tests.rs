//! The admin API over a book in memory.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use axum::body::{Body, to_bytes};
use cluster::registry::{BackupReader, Claim, MemoryRegistry, Registry as _};
use serde_json::{Value, json};
use tls::mesh::Secret;
use tower_service::Service as _;

use super::*;
use crate::{
    clock::Clock,
    config::Config,
    http::{client_address::ClientAddress, ops_router},
    metrics::Metrics,
};

struct Office {
    router: Router,
    names: Arc<MemoryRegistry>,
}

impl Office {
    fn with(secret: Option<Secret>) -> Self {
        let clock = Clock::manual(cluster::UnixMillis(1_800_000_000_000));
        let now = clock.clone();
        let names = Arc::new(MemoryRegistry::new(None, move || now.wall()));
        let mut config = Config::default();
        config.mesh.secret = secret;
        let metrics = Metrics::new().unwrap();
        let registry = Arc::clone(&names) as _;
        let relay = Relay::new(cluster::NodeId(1), config, clock, registry, metrics);
        let administration = Arc::clone(&names) as _;
        let router = ops_router(Arc::new(relay), administration, AdminToken::new("admin"));
        Self { router, names }
    }

    fn new() -> Self {
        Self::with(None)
    }

    async fn answer(&mut self, method: &str, path: &str, body: impl Into<Body>) -> Response {
        let address = ClientAddress { ip: [127, 0, 0, 1].into(), forwarded: false };
        let request = Request::builder().method(method).uri(path).extension(address);
        let request = request.header("authorization", "Bearer admin").body(body.into()).unwrap();
        self.router.call(request).await.unwrap()
    }

    /// The answer's status and JSON.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.answer(method, path, body.to_owned()).await;
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn refused(&mut self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let (status, told) = self.ask(method, path, body).await;
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        (status, text("error"), text("message"))
    }

    async fn register(&self, name: &str) -> String {
        let name = Some(name.parse().unwrap());
        self.names.register(name, Claim::random()).await.unwrap().token
    }
}

#[tokio::test]
async fn who_has_no_token_does_not_fill_the_memory_of_events() {
    let mut office = Office::new();
    for (method, path) in [("GET", "/agents"), ("POST", "/agents/ann-1/ban")].repeat(400) {
        let request = Request::builder().method(method).uri(path).body(Body::empty());
        assert_eq!(office.router.call(request.unwrap()).await.unwrap().status(), 401);
    }
    office.register("ann-1").await;
    office.ask("POST", "/agents/ann-1/ban", "").await;
    let (_, told) = office.ask("GET", "/events?after=0", "").await;
    let texts: Vec<_> = told["events"].as_array().unwrap().iter().map(|it| &it["text"]).collect();
    assert_eq!(texts, ["look: unauthorized", "ban an agent, from 127.0.0.1: done"]);
}

#[tokio::test]
async fn agents_are_listed_page_by_page() {
    let mut office = Office::new();
    for name in ["cid-1", "ann-1", "bob-1"] {
        office.register(name).await;
    }
    let (status, page) = office.ask("GET", "/agents?limit=2", "").await;
    assert_eq!((status, &page["next"]), (200, &json!("bob-1")));
    let expected = json!({
        "agent_id": "ann-1", "registered_at": 1_800_000_000_000_u64, "serial": 2,
        "revoked": false, "banned": false, "connected": false, "node": null,
    });
    assert_eq!(page["agents"][0], expected);
    let (_, page) = office.ask("GET", "/agents?after=bob-1&limit=2", "").await;
    assert_eq!((&page["agents"][0]["agent_id"], &page["next"]), (&json!("cid-1"), &Value::Null));
    for bad in ["limit=0", "limit=1001", "limit=many", "from=x"] {
        let (status, code, message) = office.refused("GET", &format!("/agents?{bad}"), "").await;
        assert_eq!((status, code.as_str()), (400, "invalid_query"), "{bad}: {message}");
    }
    let (_, _, message) = office.refused("GET", "/agents?from=x", "").await;
    assert!(message.contains("`from`"), "{message}");
    let (status, code, _) = office.refused("GET", "/agents?after=%21", "").await;
    assert_eq!((status, code.as_str()), (400, "invalid_agent_id"));
}

#[tokio::test]
async fn a_banned_agent_gets_no_token_until_the_ban_is_lifted() {
    let mut office = Office::new();
    let token = office.register("ann-1").await;
    let good = |office: &Office| office.names.verify(&token, cluster::UnixMillis(1)).is_ok();
    let (_, told) = office.ask("POST", "/agents/ann-1/ban", "").await;
    assert_eq!(told, json!({ "agent_id": "ann-1", "banned": true }));
    assert!(!good(&office));
    let (status, code, _) = office.refused("POST", "/agents/ann-1/reissue", "").await;
    assert_eq!((status, code.as_str()), (409, "agent_banned"));
    let (_, told) = office.ask("DELETE", "/agents/ann-1/ban", "").await;
    assert_eq!(told, json!({ "agent_id": "ann-1", "banned": false }));
    assert!(good(&office));
    let (_, told) = office.ask("POST", "/tokens/1/revoke", "").await;
    assert_eq!(told, json!({ "serial": 1, "revoked": true }));
    assert!(!good(&office));
    for (path, code) in
        [("/agents/nobody-1/ban", "unknown_agent"), ("/tokens/9/revoke", "unknown_token")]
    {
        let (status, told, _) = office.refused("POST", path, "").await;
        assert_eq!((status, told.as_str()), (404, code));
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_as_json_too() {
    let mut office = Office::new();
    for (method, path, expected) in [
        ("GET", "/agents/%FF", "invalid_agent_id"),
        ("POST", "/agents/%FF/revoke", "invalid_agent_id"),
        ("POST", "/agents/%FF/ban", "invalid_agent_id"),
        ("DELETE", "/agents/%FF/ban", "invalid_agent_id"),
        ("POST", "/agents/%FF/reissue", "invalid_agent_id"),
        ("POST", "/tokens/%FF/revoke", "invalid_serial"),
    ] {
        let (status, code, message) = office.refused(method, path, "").await;
        assert_eq!((status, code.as_str()), (400, expected), "{method} {path}: {message}");
    }
}

#[tokio::test]
async fn names_are_imported_whole_or_not_at_all() {
    let mut office = Office::new();
    let names = r#"["ann-1", {"agent_id": "bob-1"}]"#;
    let (_, told) = office.ask("POST", "/agents/import", names).await;
    assert_eq!(told, json!({ "added": 2, "existing": [] }));
    let (_, told) = office.ask("POST", "/agents/import", r#"["bob-1", "cid-1"]"#).await;
    assert_eq!(told, json!({ "added": 1, "existing": ["bob-1"] }));
    let (_, told) = office.ask("GET", "/agents/ann-1", "").await;
    assert_eq!(told["serial"], Value::Null, "it has no token yet");
    for (bad, code, says) in [
        (r#"["dan-1", "NO"]"#, "invalid_agent_id", "name 2"),
        (r#"["dan-1", "relay"]"#, "invalid_agent_id", "name 2"),
        (r#"["dan-1", {"agent_id": "e-1", "nick": 1}]"#, "invalid_json", "`nick`"),
        (r#"{"names": ["dan-1"]}"#, "invalid_json", "expected a sequence"),
        ("[", "invalid_json", "EOF"),
    ] {
        let (status, told, message) = office.refused("POST", "/agents/import", bad).await;
        assert_eq!((status, told.as_str()), (400, code), "{bad}");
        assert!(message.contains(says), "{bad}: {message}");
    }
    assert_eq!(office.names.registered_agents(), 3, "nothing of a bad list was imported");
    let long = format!("[{}]", " ".repeat(1 << 20));
    let (status, told, _) = office.refused("POST", "/agents/import", &long).await;
    assert_eq!((status, told.as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn voters_are_changed_and_refusals_say_why() {
    let mut office = Office::new();
    let set = r#"{"change": "set", "seeds": ["a:1", "b:1", "c:1"]}"#;
    let (status, told) = office.ask("PUT", "/registry/voters", set).await;
    assert_eq!((status, &told["voters"][2]["seed"]), (200, &json!("c:1")));
    let replace = r#"{"change": "replace", "old": "c:1", "new": "d:1"}"#;
    office.ask("PUT", "/registry/voters", replace).await;
    let (_, told) = office.ask("GET", "/registry", "").await;
    assert_eq!((&told["voters"][2]["seed"], &told["role"]), (&json!("d:1"), &json!("leader")));
    assert_eq!(told["id"].as_str().unwrap().len(), 32);
    let even = r#"{"change": "set", "seeds": ["a:1", "b:1"]}"#;
    let (status, code, _) = office.refused("PUT", "/registry/voters", even).await;
    assert_eq!((status, code.as_str()), (409, "refused"));
    for (bad, says) in [
        (r#"{"change": "follow", "seeds": []}"#, "`seeds`"),
        (r#"{"change": "grow"}"#, "`grow`"),
        (r#"{"change": "replace", "old": "a:1"}"#, "`new`"),
    ] {
        let (status, code, message) = office.refused("PUT", "/registry/voters", bad).await;
        assert_eq!((status, code.as_str()), (400, "invalid_json"), "{bad}");
        assert!(message.contains(says), "{bad}: {message}");
    }
}

#[tokio::test]
async fn keys_rotate() {
    let mut office = Office::new();
    let rotation = r#"{"retire_after_seconds": 60}"#;
    let (_, told) = office.ask("POST", "/registry/keys", rotation).await;
    assert_eq!((&told["signs"]["id"], &told["retires"]["id"]), (&json!(1), &json!(0)));
    assert_eq!(told["retires"]["retires_at"], json!(1_800_000_060_000_u64));
    let (_, told) = office.ask("GET", "/registry/keys", "").await;
    assert_eq!(told["keys"].as_array().unwrap().len(), 2);
    assert_eq!(told["keys"][0]["public"].as_str().unwrap().len(), 64);
    for bad in ["", "{}", r#"{"retire_after": "30d"}"#] {
        let (status, code, _) = office.refused("POST", "/registry/keys", bad).await;
        assert_eq!((status, code.as_str()), (400, "invalid_json"), "{bad}");
    }
}

#[tokio::test]
async fn without_a_quorum_the_registry_is_unavailable() {
    let mut office = Office::new();
    office.register("ann-1").await;
    office.names.set_unavailable(Some("two of three voters are not there"));
    for (method, path, body) in [
        ("GET", "/agents", ""),
        ("GET", "/agents/ann-1", ""),
        ("POST", "/agents/ann-1/revoke", ""),
        ("POST", "/agents/ann-1/ban", ""),
        ("DELETE", "/agents/ann-1/ban", ""),
        ("POST", "/agents/ann-1/reissue", ""),
        ("POST", "/agents/import", r#"["bob-1"]"#),
        ("POST", "/tokens/1/revoke", ""),
        ("PUT", "/registry/voters", r#"{"change":"follow"}"#),
        ("GET", "/registry/keys", ""),
        ("POST", "/registry/keys", r#"{"retire_after_seconds": 60}"#),
    ] {
        let answer = office.answer(method, path, body).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{method} {path}");
        assert!(answer.headers().contains_key("retry-after"), "{method} {path}");
    }
    let (status, told) = office.ask("GET", "/registry", "").await;
    assert_eq!((status, &told["available"]), (200, &json!(false)));
}

#[tokio::test]
async fn a_backup_is_sealed_with_the_clusters_secret() {
    let mut office = Office::new();
    let (status, code, message) = office.refused("POST", "/backup", "").await;
    assert_eq!((status, code.as_str()), (409, "no_cluster_secret"));
    assert!(message.contains("arc-relay secret"), "{message}");

    let secret = Secret::generate();
    let mut office = Office::with(Some(secret.clone()));
    office.register("ann-1").await;
    office.register("bob-1").await;
    let answer = office.answer("POST", "/backup", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let file = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let mut reader = BackupReader::open(&file[..], &[secret]).unwrap();
    assert_eq!(reader.header().created, cluster::UnixMillis(1_800_000_000_000));
    assert_eq!(Some(reader.header().registry), office.names.status().id);
    let mut content = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        content.extend_from_slice(&chunk);
    }
    assert_eq!(content, b"ann-1\nbob-1\n");
}

#[tokio::test]
async fn the_only_node_is_not_sent_away_by_mistake() {
    let mut office = Office::new();
    let (status, code, message) = office.refused("POST", "/drain", "").await;
    assert_eq!((status, code.as_str()), (409, "last_ready_node"), "{message}");
    let (status, code, _) = office.refused("POST", "/nodes/node/drain", "").await;
    assert_eq!((status, code.as_str()), (409, "last_ready_node"), "by its name, too");
    let (status, code, _) = office.refused("POST", "/nodes/nobody/drain", "").await;
    assert_eq!((status, code.as_str()), (404, "unknown_node"));
    let (status, code, _) = office.refused("POST", "/drain?anyways=true", "").await;
    assert_eq!((status, code.as_str()), (400, "invalid_query"));
    let (status, told) = office.ask("POST", "/drain?anyway=true", "").await;
    assert_eq!((status, &told["name"], &told["agents"]), (200, &json!("node"), &json!(0)));
}
