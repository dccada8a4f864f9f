//! The `OpenAPI` document of both listeners, made from the handlers and types that answer.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{admin, dashboard, landing, ops, public, register, upgrade, watching};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "arc-relay",
        description = "A relay for AI agents. What agents use is on the public listener (PORT); \
                       what operators use, and this document, on the ops listener (STATS_PORT).",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "agents", description = "On the public listener; registration on both"),
        (name = "operators", description = "On the ops listener; /health on both"),
        (name = "administration", description = "On the ops listener, with the admin token"),
    ),
    modifiers(&Tokens),
    paths(
        landing::landing_page,
        landing::landing_counts,
        landing::landing_file,
        landing::protocol,
        upgrade::upgrade,
        register::register,
        public::health,
        ops::ready,
        ops::stats,
        ops::metrics,
        ops::cluster,
        ops::tls,
        watching::events,
        watching::history,
        watching::dashboard_stream,
        dashboard::file,
        openapi,
        admin::agents::list,
        admin::agents::import,
        admin::agents::show,
        admin::agents::revoke,
        admin::agents::ban,
        admin::agents::unban,
        admin::agents::reissue,
        admin::agents::revoke_token,
        admin::registry::status,
        admin::registry::change_voters,
        admin::registry::keys,
        admin::registry::rotate_key,
        admin::backup::backup,
        admin::nodes::drain,
        admin::nodes::drain_another,
    ),
)]
struct Api;

/// What requests show: three kinds of bearer tokens.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut Document) {
        let bearer = |description: &str| {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(description.to_owned());
            SecurityScheme::Http(scheme)
        };
        let components = document.components.get_or_insert_default();
        for (name, description) in [
            ("admin", "The admin token: admin.token in the node's data directory"),
            ("agent", "An agent's token"),
            ("registration", "REGISTRATION_KEY, where registration is closed"),
        ] {
            components.add_security_scheme(name, bearer(description));
        }
    }
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operators",
    responses((status = 200, body = serde_json::Value)),
)]
pub(super) async fn openapi() -> Json<Document> {
    Json(Api::openapi())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use axum::{Router, body::Body, http::Request};
    use serde_json::Value;
    use tower_service::Service as _;

    use super::*;
    use crate::{
        http::{AdminToken, client_address::ClientAddress, ops_router, public_router},
        relay::testing::relay,
    };

    const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

    fn document() -> Value {
        serde_json::to_value(Api::openapi()).unwrap()
    }

    fn documented() -> BTreeSet<(String, String)> {
        let document = document();
        let of_path = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().keys().cloned();
            methods.map(|method| (path.clone(), method)).collect::<Vec<_>>()
        };
        document["paths"].as_object().unwrap().iter().flat_map(of_path).collect()
    }

    /// The paths that a router knows, out of what it shows of itself.
    fn paths(router: &Router) -> Vec<String> {
        let shown = format!("{router:?}");
        let (_, ids) = shown.split_once("paths: {").unwrap();
        let (ids, _) = ids.split_once("},").unwrap();
        let quoted = ids.split('"').skip(1).step_by(2);
        quoted.filter(|path| path.starts_with('/')).map(str::to_owned).collect()
    }

    async fn routed(mut router: Router) -> BTreeSet<(String, String)> {
        let mut all = BTreeSet::new();
        for path in paths(&router) {
            for method in METHODS {
                let address = ClientAddress { ip: [127, 0, 0, 1].into(), forwarded: false };
                let request = Request::builder().method(method.to_uppercase().as_str()).uri(&path);
                let request = request.extension(address).body(Body::empty()).unwrap();
                let status = router.call(request).await.unwrap().status();
                // The way to a session answers to any method, and refuses all but one.
                if status != 405 && (path != "/arc" || method == "get") {
                    all.insert((path.clone(), method.to_owned()));
                }
            }
        }
        all
    }

    #[tokio::test]
    async fn every_route_is_in_the_document_and_every_path_of_it_is_a_route() {
        let (relay, _, names) = relay();
        let mut all = routed(public_router(Arc::clone(&relay))).await;
        all.extend(routed(ops_router(relay, names, AdminToken::new("admin"))).await);
        assert!(all.len() > 15, "they are found: {all:?}");
        assert_eq!(all, documented());
    }

    /// All values that stand at the key anywhere in the document.
    fn at_key<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get(key));
                fields.values().for_each(|value| at_key(value, key, found));
            }
            Value::Array(values) => values.iter().for_each(|value| at_key(value, key, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_holds_together() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        let (mut references, mut ids) = (Vec::new(), Vec::new());
        at_key(&document, "$ref", &mut references);
        at_key(&document["paths"], "operationId", &mut ids);
        assert!(!references.is_empty());
        for reference in references {
            let path = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(path).is_some(), "{reference} leads nowhere");
        }
        let distinct: BTreeSet<_> = ids.iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(distinct.len(), ids.len(), "an operation's id is its own");
    }

    #[test]
    fn what_changes_something_asks_for_the_admin_token() {
        let document = document();
        for (path, method) in documented() {
            let operation = &document["paths"][&path][&method];
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
            let is_open = path == "/register"
                || method == "get" && operation["tags"] != serde_json::json!(["administration"]);
            let wants_admin = operation["security"] == serde_json::json!([{ "admin": [] }]);
            assert_ne!(is_open, wants_admin, "{method} {path}");
        }
    }
}
