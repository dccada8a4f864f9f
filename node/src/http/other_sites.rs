//! What pages of other sites may do at the ops listener through an operator's browser: nothing.
//!
//! What is read here needs no token: the browser's own rule, that a page reads its own site alone, is all
//! that keeps others' pages out. A site gets round it by having its name lead to this node for a moment
//! (DNS rebinding): to the browser the node is that site, and only `Host` tells. Nothing else could:
//! browsers send `Sec-Fetch-…` to addresses that they trust alone, as those of https and of this machine
//! (Fetch Metadata, section 3), so what such a page asks looks like what Prometheus asks. Hence names
//! count only if no stranger can own them, or if the operator gave them to this node.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header::HOST},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{ApiError, client_address::ClientAddress};
use crate::{config::Config, relay::Relay, watch};

/// What names end with that nobody can register: set aside (RFC 6761, 6762 and 8375, ICANN for
/// `internal`), or not in the public DNS.
const PRIVATE: [&str; 6] = ["home.arpa", "internal", "lan", "local", "localhost", "svc"];

/// Characters of the longest name (RFC 1035, section 2.3.4).
const NAME_CHARS_MAX: usize = 253;

/// Passes on what does not come from another site's page, and says of the rest what to do.
pub(super) async fn keep_out(
    State(relay): State<Arc<Relay>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(refusal) = refusal(&relay.config, request.method(), request.headers()) else {
        return next.run(request).await;
    };
    let from = request.extensions().get::<ClientAddress>().map(|client| client.ip);
    let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
    watch::refused(&relay, format!("a request{from} was refused: {}", refusal.message()));
    refusal.into_response()
}

/// Why the request is not answered; none if it is.
pub(super) fn refusal(config: &Config, method: &Method, headers: &HeaderMap) -> Option<ApiError> {
    let host = headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let name = host.as_deref().map(without_port);
    if let Some(name) = name.filter(|name| !is_own(name, own_names(config))) {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        let message = format!(
            "this node does not know itself as {name:?}: ask for its address, or add the name to \
             STATS_NAMES on the node (* for any)"
        );
        return Some(ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message));
    }
    is_of_another_site(method, headers).then(|| {
        let message = "a page of another site may not ask this: open the address itself";
        ApiError::new(StatusCode::FORBIDDEN, "cross_site", message)
    })
}

/// Whether a browser says that another site's page asks. A link from there may lead here: the browser
/// then shows the answer to its user alone.
fn is_of_another_site(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    let is_link = *method == Method::GET
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document");
    says("sec-fetch-site", "cross-site") && !is_link
}

/// What this node is called in its configuration, in the order in which it is likely to be asked for.
fn own_names(config: &Config) -> impl Iterator<Item = &str> {
    let mesh = &config.mesh;
    let lists = config.stats_names.iter().chain(&config.tls.acme.domains);
    let places = mesh.advertise.iter().map(|own| own.host.as_str());
    [config.host_name.as_str(), config.node_name.as_str()]
        .into_iter()
        .chain(lists.map(String::as_str))
        .chain(places)
        .chain(mesh.seeds.iter().map(|seed| seed.host.as_str()))
}

/// Whether `name` leads to this node because of those who look after it: it is an address, a name that no
/// stranger can own, or one of `own`, of which `*` is any and `*.example.com` any below `example.com`.
fn is_own<'a>(name: &str, own: impl IntoIterator<Item = &'a str>) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    let ends_with = |end: &str| name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
    // Names of one label are looked up in the operator's own domains, if anywhere.
    address.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || PRIVATE.into_iter().any(ends_with)
        || own.into_iter().any(|own| match own.strip_prefix('*') {
            Some("") => true,
            Some(domain) => domain.strip_prefix('.').is_some_and(ends_with),
            None => name.eq_ignore_ascii_case(own),
        })
}

/// The host of a `Host` header (RFC 9110, section 7.2).
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use axum::{Router, body::Body, http::HeaderValue};
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;
    use serde_json::Value;
    use tower_service::Service as _;

    use super::*;
    use crate::{
        http::{AdminToken, ops_router},
        relay::testing::configured,
    };

    const OWN: [&str; 3] = ["relay.example.com", "Node-1.example.com", "*.ops.example.net"];

    #[test]
    fn addresses_private_names_and_own_ones_are_this_node() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[fd00::1]",
            "203.0.113.7:80",
            "localhost:8081",
            "LOCALHOST.",
            "relay-1",
            "arc-relay:8081",
            "arc-relay.prod.svc",
            "relay-0.arc-relay.prod.svc.cluster.local:8081",
            "nas.lan",
            "printer.local.",
            "ip-10-0-0-1.eu-west-1.compute.internal",
            "a.home.arpa",
            "x.localhost",
            "relay.example.com:8081",
            "Relay.Example.COM.",
            "node-1.example.com",
            "a.ops.example.net",
            "a.b.ops.example.net:1",
        ] {
            assert!(is_own(without_port(host), OWN), "{host}");
        }
    }

    #[test]
    fn names_that_a_stranger_may_own_are_not() {
        for host in [
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "relay.example.com.evil.example",
            "example.com",
            "evil-relay.example.com",
            "ops.example.net",
            "evilops.example.net",
            "evillocal.com",
            "home.arpa.evil",
            "other.arpa",
            "[::1].evil.example",
            "127.0.0.1.nip.io:8081",
        ] {
            assert!(!is_own(without_port(host), OWN), "{host}");
            assert!(is_own(without_port(host), ["*"]), "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_address_with_any_port_is_this_node(address: IpAddr, port: u16) {
            let host = match address {
                IpAddr::V4(v4) => format!("{v4}:{port}"),
                IpAddr::V6(v6) => format!("[{v6}]:{port}"),
            };
            prop_assert!(is_own(without_port(&host), []));
        }

        #[test]
        fn below_a_strangers_name_nothing_is_this_node(
            labels in "([a-zA-Z0-9_-]{1,9}\\.|127\\.0\\.0\\.1\\.|localhost\\.){0,4}", port: u16, dot in "\\.?",
        ) {
            let host = format!("{labels}evil.example{dot}:{port}");
            prop_assert!(!is_own(without_port(&host), OWN));
        }

        #[test]
        fn any_text_is_judged_and_the_answer_is_short(host in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(host) = HeaderValue::from_bytes(&host) {
                let headers = HeaderMap::from_iter([(HOST, host)]);
                let refusal = refusal(&Config::default(), &Method::GET, &headers);
                prop_assert!(refusal.is_none_or(|it| it.message().chars().count() < 3_000));
            }
        }
    }

    #[test]
    fn what_the_node_is_called_in_its_configuration_is_its_own() {
        let mut config = Config {
            host_name: "vm.example.com".into(),
            node_name: "n.example.com".into(),
            stats_names: vec!["ops.example.com".into()],
            ..Config::default()
        };
        config.tls.acme.domains = vec!["relay.example.com".into()];
        config.mesh.advertise = "mesh.example.com".parse().ok();
        config.mesh.seeds =
            vec![cluster::membership::SeedAddress { host: "seed.example.com".into(), port: 7946 }];
        for name in ["vm", "n", "ops", "relay", "mesh", "seed"] {
            let name = format!("{name}.example.com");
            assert!(is_own(&name, own_names(&config)), "{name}");
        }
        assert!(!is_own("other.example.com", own_names(&config)));
    }

    #[test]
    fn links_from_other_sites_lead_here_and_nothing_else_of_theirs() {
        let given = |method: Method, [site, mode, dest]: [&'static str; 3]| {
            let names = ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"];
            let values = [site, mode, dest].map(HeaderValue::from_static);
            let headers =
                names.map(axum::http::HeaderName::from_static).into_iter().zip(values).collect();
            is_of_another_site(&method, &headers)
        };
        assert!(!given(Method::GET, ["cross-site", "navigate", "document"]), "a link");
        assert!(!given(Method::GET, ["none", "navigate", "document"]), "typed in");
        assert!(!given(Method::GET, ["same-origin", "cors", "empty"]), "the dashboard");
        for (method, foreign) in [
            (Method::GET, ["cross-site", "no-cors", "image"]),
            (Method::GET, ["cross-site", "cors", "empty"]),
            (Method::GET, ["cross-site", "navigate", "iframe"]),
            (Method::POST, ["cross-site", "navigate", "document"]),
        ] {
            assert!(given(method.clone(), foreign), "{method} {foreign:?}");
        }
        assert!(!is_of_another_site(&Method::POST, &HeaderMap::new()), "no browser");
    }

    async fn ask(router: &mut Router, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let request = headers
            .iter()
            .fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let answer = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body();
        if status == 200 && path.starts_with("/dashboard/stream") {
            return (status, Value::Null); // it has no end
        }
        let body = body.collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn all_that_is_for_operators_is_kept_from_other_sites() {
        let (relay, _, names) = configured(Config::default());
        relay.watch.open(64);
        let mut router = ops_router(Arc::clone(&relay), names, AdminToken::new("admin"));
        let open = ["/health", "/ready"];
        let kept = [
            "/",
            "/stats",
            "/metrics",
            "/cluster",
            "/tls",
            "/events",
            "/history",
            "/dashboard/stream",
            "/dashboard/app.js",
            "/openapi.json",
            "/nothing",
        ];
        for path in kept {
            let (status, body) = ask(&mut router, path, &[("host", "evil.example:8081")]).await;
            assert_eq!((status, &body["error"]), (403, &"host_not_allowed".into()), "{path}");
            assert!(body["message"].as_str().unwrap().contains("STATS_NAMES"), "{body}");
            let (status, body) = ask(&mut router, path, &[("sec-fetch-site", "cross-site")]).await;
            assert_eq!((status, &body["error"]), (403, &"cross_site".into()), "{path}");
            let (status, _) = ask(&mut router, path, &[("host", "localhost:8081")]).await;
            assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{path}");
        }
        let admin = [("host", "evil.example"), ("authorization", "Bearer admin")];
        assert_eq!(ask(&mut router, "/agents", &admin).await.0, 403);
        for path in open {
            let (_, body) = ask(&mut router, path, &[("host", "evil.example")]).await;
            assert_eq!(body["status"], "joining", "{path}");
        }
        let events = relay.watch.events(None, 9).events;
        let text = &events.last().unwrap().text;
        assert!(text.contains("evil.example") && text.contains("STATS_NAMES"), "{text}");
    }
}
