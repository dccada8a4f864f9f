//! Every error over HTTP: a JSON body `{"error": code, "message": text}` (PROTOCOL section 1).

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use cluster::InvalidAgentId;
use serde_json::json;

/// What an error's answer says, kept beside it for those who log it.
#[derive(Clone, Debug)]
pub(super) struct Explanation {
    /// The code for programs.
    pub(super) code: &'static str,
    /// The text for people.
    pub(super) message: String,
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, HeaderValue)>,
}

impl ApiError {
    /// An error with a stable code for programs and a text for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// The code for programs.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Says when to try again: whole seconds, at least one.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let value = HeaderValue::from_str(&seconds.to_string());
        self.header(RETRY_AFTER.as_str(), value.unwrap_or(HeaderValue::from_static("1")))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Too much from one address, or too many.
    pub fn rate_limit(message: &str, wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", message).retry_after(wait)
    }

    /// The registry cannot decide or write now, and says why.
    pub fn registry_unavailable(why: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable", why)
            .retry_after(Duration::from_secs(2))
    }

    /// What was given is no agent's id, or none that will do.
    pub fn invalid_agent_id(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_agent_id", why)
    }

    /// The node is stopping: it takes nobody in.
    pub fn draining() -> Self {
        Self::not_serving("draining", "this node is stopping: try again")
    }

    /// The node has not found the others yet: it takes nobody in.
    pub fn joining() -> Self {
        Self::not_serving("joining", "this node is starting: try again")
    }

    fn not_serving(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .retry_after(Duration::from_secs(1))
    }

    /// No such path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    /// The path is right, the method is not.
    pub fn method_not_allowed() -> Self {
        let message = "this path does not answer to this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }
}

impl From<InvalidAgentId> for ApiError {
    fn from(error: InvalidAgentId) -> Self {
        Self::invalid_agent_id(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.code, "message": self.message }));
        let mut response = (self.status, body).into_response();
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        let explanation = Explanation { code: self.code, message: self.message };
        response.extensions_mut().insert(explanation);
        response
    }
}
