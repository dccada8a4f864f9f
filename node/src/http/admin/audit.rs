//! One line in the log for every change that somebody wanted, whether it was made or refused: who from,
//! what, and what came of it. The target of these lines is `audit`.
//!
//! Looking at things is not noted, unless the admin token was wrong. A token is never in a line: what
//! was wanted is noted once it has been read as an id, a serial, or whatever the path takes.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};

use crate::{
    http::{client_address::ClientAddress, error::Explanation},
    logging::AUDIT,
};

/// Where a handler writes what exactly is wanted, as soon as it knows.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Wanted(Arc<OnceLock<String>>);

/// Marks an answer whose outcome is not known before its last byte; who made it finishes the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished;

/// Who wants what, for the line.
#[derive(Clone, Debug)]
pub(in crate::http) struct Attempt {
    from: Option<IpAddr>,
    action: &'static str,
    wanted: Wanted,
}

impl Wanted {
    /// Notes it; what is noted first stays.
    pub(super) fn note(&self, what: &impl ToString) {
        let _ = self.0.set(what.to_string());
    }
}

impl Attempt {
    /// Writes the line: `outcome` is `done`, or the code of the refusal, whose text is `reason`.
    pub(super) fn conclude(&self, outcome: &str, reason: Option<&str>) {
        let what = self.wanted.0.get().map(String::as_str);
        let from = self.from.map(tracing::field::display);
        if outcome == "done" {
            tracing::info!(target: AUDIT, action = self.action, what, from, outcome, "changed");
        } else {
            tracing::warn!(target: AUDIT, action = self.action, what, from, outcome, reason, "not changed");
        }
    }
}

/// Passes the request on and writes the line.
pub(super) async fn audit(mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let attempt = Attempt {
        from: request.extensions().get::<ClientAddress>().map(|client| client.ip),
        action: action(request.method(), route),
        wanted: Wanted::default(),
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    request.extensions_mut().insert(attempt.wanted.clone());
    request.extensions_mut().insert(attempt.clone());
    let response = next.run(request).await;
    let refused = response.status() == StatusCode::UNAUTHORIZED;
    if (changes || refused) && response.extensions().get::<Unfinished>().is_none() {
        match response.extensions().get::<Explanation>() {
            Some(Explanation { code, message }) => attempt.conclude(code, Some(message)),
            None => attempt.conclude("done", None),
        }
    }
    response
}

/// What a request of this kind wants, in a word or three.
fn action(method: &Method, route: &str) -> &'static str {
    match (method.as_str(), route) {
        ("POST", "/agents/import") => "import names",
        ("POST", "/agents/{id}/revoke") => "revoke an agent's tokens",
        ("POST", "/agents/{id}/ban") => "ban an agent",
        ("DELETE", "/agents/{id}/ban") => "lift a ban",
        ("POST", "/agents/{id}/reissue") => "reissue a token",
        ("POST", "/tokens/{serial}/revoke") => "revoke a token",
        ("PUT", "/registry/voters") => "change the voters",
        ("POST", "/registry/keys") => "rotate the signing key",
        ("POST", "/backup") => "back up",
        ("GET" | "HEAD", _) => "look",
        _ => "unknown",
    }
}
