//! What the pages for people have in common: whence they may load what, and text as HTML has it.

use axum::{
    http::{
        HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};

use super::ApiError;

/// From this listener and nowhere else; no script or style within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
pub(super) const SVG: &str = "image/svg+xml";

/// A file of a page: name, media type, text.
pub(super) type File = (&'static str, &'static str, &'static str);

/// The file of this name.
pub(super) fn file(files: &[File], name: &str) -> Result<Response, ApiError> {
    let file = files.iter().find(|(known, ..)| *known == name);
    let (_, media_type, text) = *file.ok_or_else(ApiError::not_found)?;
    Ok(with_policy(text, media_type))
}

/// An answer of this media type that a browser holds to the policy. It asks again each time: a node may
/// have been upgraded meanwhile, and pages speak of now.
pub(super) fn with_policy(text: impl IntoResponse, media_type: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Text as it is written in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
