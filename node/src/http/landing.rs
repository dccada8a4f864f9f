//! The page that a person sees who opens the relay's address in a browser.

use std::sync::Arc;

use axum::{extract::State, response::Html};

use crate::{relay::Relay, report};

/// A page for people.
#[utoipa::path(
    get, path = "/", tag = "agents",
    responses((status = 200, content_type = "text/html", body = String)),
)]
pub(super) async fn landing_page(State(relay): State<Arc<Relay>>) -> Html<String> {
    Html(page(&relay.config.relay_name, report::total(&relay).0.sessions))
}

/// The page of a relay of this name with so many agents connected.
fn page(relay: &str, connected: u64) -> String {
    PAGE.replace("{relay}", &escape(relay)).replace("{connected}", &connected.to_string())
}

/// Text as it is written in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const PAGE: &str = include_str!("landing.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_text_not_markup() {
        let page = page("<b>&\"", 7);
        assert!(page.contains("&lt;b&gt;&amp;&quot;") && !page.contains("<b>&"));
        assert!(page.contains("7 agents") && !page.contains('{'.to_string().repeat(2).as_str()));
    }
}
