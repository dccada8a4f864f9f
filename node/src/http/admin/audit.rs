//! One line in the log for every change that somebody wanted, whether it was made or refused: who from,
//! what, and what came of it. The target of these lines is `audit`.
//!
//! Looking at things is not noted, unless the admin token was wrong. A token is never in a line: what
//! was wanted is noted once it has been read as an id, a serial, or whatever the path takes.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};

use crate::{
    http::{client_address::ClientAddress, error::Explanation},
    logging::AUDIT,
    relay::Relay,
    watch::{self, Kind, Level},
};

/// The outcome of what did not reach its end.
pub(super) const BROKEN_OFF: &str = "broken_off";

/// The outcome of what was given up before its end, which may be reached all the same.
const UNKNOWN: &str = "unknown";

/// The outcome for who does not show the admin token.
pub(super) const UNAUTHORIZED: &str = "unauthorized";

/// What somebody wants, and the line about it. Clones are the same attempt; should the last be gone
/// before anybody said what came of it, the line says so: the client can go away at any time, and with
/// it who serves it, when the change is on its way already.
#[derive(Clone, Debug)]
pub(in crate::http) struct Attempt(Arc<Line>);

#[derive(Debug)]
struct Line {
    /// Whose memory of events it goes to as well.
    relay: Arc<Relay>,
    from: Option<IpAddr>,
    action: &'static str,
    /// Whether a change is wanted; who only looks has no line without an outcome.
    is_change: bool,
    what: OnceLock<String>,
    /// Whether the outcome is not known before the answer's last byte.
    outlives_answer: AtomicBool,
    is_written: AtomicBool,
}

impl Attempt {
    fn of(relay: Arc<Relay>, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        Self(Arc::new(Line {
            relay,
            from: request.extensions().get::<ClientAddress>().map(|client| client.ip),
            action: action(request.method(), route),
            is_change: !matches!(*request.method(), Method::GET | Method::HEAD),
            what: OnceLock::new(),
            outlives_answer: AtomicBool::new(false),
            is_written: AtomicBool::new(false),
        }))
    }

    /// Notes what exactly is wanted, as soon as that is known; what is noted first stays.
    pub(super) fn note(&self, what: &impl ToString) {
        let _ = self.0.what.set(what.to_string());
    }

    /// Leaves it to the caller to [conclude](Self::conclude), although an answer is made: else this will
    /// have been broken off.
    pub(super) fn outlive_answer(&self) {
        self.0.outlives_answer.store(true, Ordering::Relaxed);
    }

    /// Writes the line, once: `outcome` is `done`, or the code of the refusal, whose text is `reason`.
    pub(super) fn conclude(&self, outcome: &str, reason: Option<&str>) {
        self.0.write(outcome, reason);
    }

    fn conclude_as(&self, answer: &Response) {
        let refused = answer.status() == StatusCode::UNAUTHORIZED;
        if !(self.0.is_change || refused) || self.0.outlives_answer.load(Ordering::Relaxed) {
            return;
        }
        match answer.extensions().get::<Explanation>() {
            Some(Explanation { code, message }) => self.conclude(code, Some(message)),
            None if answer.status().is_success() => self.conclude("done", None),
            None => self.conclude(answer.status().as_str(), None),
        }
    }
}

impl Line {
    fn write(&self, outcome: &str, reason: Option<&str>) {
        if self.is_written.swap(true, Ordering::Relaxed) {
            return;
        }
        self.note(outcome);
        let (action, what) = (self.action, self.what.get().map(String::as_str));
        let from = self.from.map(tracing::field::display);
        match outcome {
            "done" => tracing::info!(target: AUDIT, action, what, from, outcome, "changed"),
            UNKNOWN => {
                tracing::warn!(target: AUDIT, action, what, from, outcome, reason, "may be changed");
            }
            _ => tracing::warn!(target: AUDIT, action, what, from, outcome, reason, "not changed"),
        }
    }

    /// The line as an event, for those who follow the node: they need no token, so it names no agent. Anybody can be
    /// refused for want of the admin token, any number of times: that is an event once a minute at the most.
    fn note(&self, outcome: &str) {
        let Self { relay, action, from, .. } = self;
        let from = from.map(|from| format!(", from {from}")).unwrap_or_default();
        let text = format!("{action}{from}: {outcome}");
        if outcome == UNAUTHORIZED {
            return watch::refused(relay, text);
        }
        let level = if outcome == "done" { Level::Info } else { Level::Warn };
        watch::note(relay, level, Kind::Admin, text);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let outcome = if *self.outlives_answer.get_mut() { BROKEN_OFF } else { UNKNOWN };
        if self.is_change {
            self.write(outcome, Some("the connection ended before the outcome was known"));
        }
    }
}

/// Passes the request on and writes the line.
pub(super) async fn audit(
    State(relay): State<Arc<Relay>>,
    mut request: Request,
    next: Next,
) -> Response {
    let attempt = Attempt::of(relay, &request);
    request.extensions_mut().insert(attempt.clone());
    let answer = next.run(request).await;
    attempt.conclude_as(&answer);
    answer
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
        ("POST", "/drain" | "/nodes/{node}/drain") => "drain",
        ("GET" | "HEAD", _) => "look",
        _ => "unknown",
    }
}
