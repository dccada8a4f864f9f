//! The page for operators: what `GET /` answers browsers, and the files that it is made of.
//!
//! All of it is in the binary. The page fetches from nowhere but this node, runs no script but these
//! files, and is told so by its policy.

use axum::{
    extract::Path,
    http::{
        HeaderMap, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};

use super::{ApiError, landing::escape, watching::wants};
use crate::{agent, relay::Relay, report};

/// Whence the page may load what.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("dashboard/index.html");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The files beside the page: name, media type, text.
const FILES: [(&str, &str, &str); 7] = [
    ("style.css", "text/css; charset=utf-8", include_str!("dashboard/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("dashboard/icon.svg")),
    ("app.js", JAVASCRIPT, include_str!("dashboard/app.js")),
    ("elements.js", JAVASCRIPT, include_str!("dashboard/elements.js")),
    ("map.js", JAVASCRIPT, include_str!("dashboard/map.js")),
    ("charts.js", JAVASCRIPT, include_str!("dashboard/charts.js")),
    ("tables.js", JAVASCRIPT, include_str!("dashboard/tables.js")),
];

/// The dashboard for browsers, and `index` for everybody else.
pub(super) fn front(relay: &Relay, headers: &HeaderMap, index: &'static str) -> Response {
    let mut response = if wants(headers, "text/html") {
        with_policy(page(relay), "text/html; charset=utf-8")
    } else {
        index.into_response()
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// A file of the dashboard.
#[utoipa::path(
    get, path = "/dashboard/{file}", tag = "operators",
    params(("file" = String, Path, description = "Its name, as the page has it")),
    responses((status = 200, description = "It"), (status = 404, description = "There is none")),
)]
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let file = FILES.into_iter().find(|(known, ..)| *known == name);
    let (_, media_type, text) = file.ok_or_else(ApiError::not_found)?;
    Ok(with_policy(text, media_type))
}

/// The page, with what a browser shows that runs no scripts: the cluster as `arc-relay status` tells it.
fn page(relay: &Relay) -> String {
    let status = agent::status::told(&report::cluster(relay), agent::Paint::Plain);
    PAGE.replace("{relay}", &escape(&relay.config.relay_name))
        .replace("{node}", &escape(&relay.config.node_name))
        .replace("{status}", &escape(&status))
}

fn with_policy(text: impl IntoResponse, media_type: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::testing::relay;

    #[test]
    fn all_of_it_is_small() {
        let files: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(files + PAGE.len() < 100_000, "{} bytes before gzip", files + PAGE.len());
    }

    #[test]
    fn the_page_loads_its_files_and_nothing_else() {
        let page = page(&relay().0);
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains('{'));
        let named = |text: &str| {
            FILES.iter().any(|(name, ..)| text.starts_with(&format!("/dashboard/{name}")))
        };
        for attribute in ["href=\"/dashboard", "src=\"/dashboard"] {
            for (at, _) in page.match_indices(attribute) {
                let path = page.get(at..).and_then(|rest| rest.split('"').nth(1));
                assert!(path.is_some_and(named), "{path:?}");
            }
        }
        assert!(page.contains("1 node"), "who runs no scripts sees the cluster too");
    }
}
