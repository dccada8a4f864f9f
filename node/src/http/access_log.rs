//! One line in the log for each request, at level `debug`.
//!
//! Of the request's target only the matched route is shown, so that no token is ever logged,
//! wherever a client puts it.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};

use super::client_address::ClientAddress;

/// Passes the request on and logs how it was answered.
pub(super) async fn log(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let from = request.extensions().get::<ClientAddress>().map(|client| client.ip);
    let method = request.method().clone();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("(unknown)", MatchedPath::as_str);
    tracing::debug!(%method, route, ?from, status = response.status().as_u16(), "answered");
    response
}
