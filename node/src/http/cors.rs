//! Which origins browsers may come from (PROTOCOL sections 2 and 3).

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ORIGIN, VARY,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::ApiError;
use crate::relay::Relay;

/// Whether a request's origin may use the relay; clients without one are not browsers, and may.
fn allows(allowed: Option<&[String]>, headers: &HeaderMap) -> bool {
    let (Some(allowed), Some(origin)) = (allowed, headers.get(ORIGIN)) else { return true };
    let same = |allowed: &String| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    allowed.iter().any(same)
}

/// Refuses an origin, and counts what came of it.
fn refuse(relay: &Relay, route: Option<&str>) -> ApiError {
    match route {
        Some("/arc") => relay.metrics.handshakes.origin.increment(1),
        // Also the question before it: a browser that is refused then asks no more.
        Some("/register") => relay.metrics.registrations.refused.increment(1),
        _ => {}
    }
    let message = "this relay does not allow requests from this origin";
    ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
}

/// Refuses origins that are not allowed, answers preflights, and tells browsers who may read the answers.
pub(super) async fn cors(
    State(relay): State<Arc<Relay>>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = relay.config.allowed_origins.as_deref();
    let origin = request.headers().get(ORIGIN).cloned();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let preflight = request.method() == Method::OPTIONS && route.is_some();
    let mut response = if !allows(allowed, request.headers()) {
        refuse(&relay, route).into_response()
    } else if preflight {
        let headers = [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, idempotency-key"),
            (ACCESS_CONTROL_MAX_AGE, "86400"),
        ];
        let mut response = (StatusCode::NO_CONTENT, headers).into_response();
        allow(&mut response, allowed, origin);
        return response;
    } else {
        let mut response = next.run(request).await;
        allow(&mut response, allowed, origin);
        response
    };
    if allowed.is_some() {
        response.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

fn allow(response: &mut Response, allowed: Option<&[String]>, origin: Option<HeaderValue>) {
    let value = match (allowed, origin) {
        (None, _) => Some(HeaderValue::from_static("*")),
        (Some(_), origin) => origin,
    };
    if let Some(value) = value {
        let exposed = HeaderValue::from_static("retry-after");
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    if allowed.is_some() {
        response.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
}
