//! The page that a person sees who opens the relay's address in a browser: what this is, how to register
//! and connect, how much goes on, and the protocol.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue,
        header::{CACHE_CONTROL, HOST},
        uri::Authority,
    },
    response::Response,
};
use utoipa::ToSchema;

use super::{
    ApiError,
    page::{self, CSS, HTML, JAVASCRIPT, SVG, escape, with_policy},
};
use crate::{relay::Relay, report};

const PAGE: &str = include_str!("landing/index.html");

/// The protocol as this release speaks it.
const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

/// Shown as it is: browsers would save Markdown, not show it.
const TEXT: &str = "text/plain; charset=utf-8";

const FILES: [page::File; 4] = [
    ("colours.css", CSS, include_str!("page/colours.css")),
    ("style.css", CSS, include_str!("landing/style.css")),
    ("app.js", JAVASCRIPT, include_str!("landing/app.js")),
    ("icon.svg", SVG, include_str!("page/icon.svg")),
];

/// How much goes on in the relay, for everybody to see.
#[derive(Debug, serde::Serialize, ToSchema)]
pub(super) struct Counts {
    /// Agents that are connected.
    agents: u64,
    /// Names that are taken.
    names: u64,
    /// Messages that were accepted in the last minute.
    messages: u64,
    /// Whether names can be registered now.
    open: bool,
}

/// A page for people.
#[utoipa::path(
    get, path = "/", tag = "agents",
    responses((status = 200, content_type = "text/html", body = String)),
)]
pub(super) async fn landing_page(State(relay): State<Arc<Relay>>, headers: HeaderMap) -> Response {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let mut response = with_policy(page(&relay, named), HTML);
    // It names the host that this client asked for.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What the page shows of now.
#[utoipa::path(get, path = "/landing/counts", tag = "agents", responses((status = 200, body = Counts)))]
pub(super) async fn landing_counts(State(relay): State<Arc<Relay>>) -> Json<Counts> {
    Json(counts(&relay))
}

/// A file of the page.
#[utoipa::path(
    get, path = "/landing/{file}", tag = "agents",
    params(("file" = String, Path, description = "Its name, as the page has it")),
    responses((status = 200, description = "It"), (status = 404, description = "There is none")),
)]
pub(super) async fn landing_file(Path(name): Path<String>) -> Result<Response, ApiError> {
    page::file(&FILES, &name)
}

/// The protocol that agents speak, as text for people.
#[utoipa::path(
    get, path = "/protocol", tag = "agents",
    responses((status = 200, content_type = "text/plain", body = String)),
)]
pub(super) async fn protocol() -> Response {
    with_policy(PROTOCOL, TEXT)
}

fn counts(relay: &Relay) -> Counts {
    let load = report::total(relay).0;
    Counts {
        agents: load.sessions,
        names: relay.registry.registered_agents(),
        messages: load.messages_per_minute,
        open: relay.registry.status().available,
    }
}

/// The page, for a client that came to the host `named`. Scripts put the address in that the browser
/// shows, for a proxy may speak TLS or have another port; without them it is what the client asked for.
fn page(relay: &Relay, named: Option<&str>) -> String {
    let counts = counts(relay);
    let is_host = |named: &&str| named.parse::<Authority>().is_ok() && !named.contains('@');
    let host = escape(named.filter(is_host).unwrap_or("this-relay"));
    let (http, ws) = if relay.certificates().is_some() { ("https", "wss") } else { ("http", "ws") };
    let wants_key = relay.config.registration_key.is_some();
    let key = if wants_key { "-H 'authorization: Bearer REGISTRATION_KEY' " } else { "" };
    let hidden = |hidden: bool| if hidden { "hidden" } else { "" };
    [
        ("{http}", format!("{http}://{host}")),
        ("{ws}", format!("{ws}://{host}/arc")),
        ("{agents}", counts.agents.to_string()),
        ("{names}", counts.names.to_string()),
        ("{messages}", counts.messages.to_string()),
        ("{open}", hidden(counts.open).to_owned()),
        ("{wants-key}", hidden(!wants_key).to_owned()),
        ("{key}", key.to_owned()),
        ("{relay}", escape(&relay.config.relay_name)),
    ]
    .iter()
    .fold(PAGE.to_owned(), |page, (mark, text)| page.replace(mark, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::testing::relay;

    #[test]
    fn the_address_is_the_one_that_was_asked_for_if_it_is_one() {
        let (relay, ..) = relay();
        let page = |named| page(&relay, named);
        let named = page(Some("relay.example.org:8080"));
        assert!(named.contains("http://relay.example.org:8080</span>/register"), "{named}");
        assert!(named.contains("ws://relay.example.org:8080/arc"), "{named}");
        for bad in [Some("a\"><script>"), Some("user@host"), Some(""), None] {
            let page = page(bad);
            assert!(page.contains("http://this-relay</span>/register"), "{bad:?}: {page}");
            assert!(!page.contains("<script>"), "{bad:?}");
        }
    }

    #[test]
    fn no_mark_is_left_and_what_is_said_fits_the_relay() {
        let (relay, ..) = relay();
        let page = page(&relay, None);
        for (at, _) in page.match_indices('{') {
            let rest = page.get(at..at + 2).unwrap_or_default();
            assert!(!rest.ends_with(|next: char| next.is_ascii_lowercase()), "a mark is left");
        }
        assert!(page.contains("<p hidden>It asks for a key"), "without REGISTRATION_KEY: {page}");
        assert!(page.contains("/protocol") && PROTOCOL.starts_with("# The protocol"));
    }
}
