//! The page for operators: what `GET /` answers browsers, and the files that it is made of.
//!
//! All of it is in the binary. The page fetches from nowhere but this node, runs no script but these
//! files, and is told so by its policy.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, header::VARY},
    response::{IntoResponse, Response},
};
use cluster::UnixMillis;

use super::{
    ApiError,
    page::{self, CSS, HTML, JAVASCRIPT, SVG, escape, with_policy},
    watching::wants,
};
use crate::{
    agent,
    relay::Relay,
    report,
    watch::{Event, Level},
};

const PAGE: &str = include_str!("dashboard/index.html");

/// Events that are told where no scripts run.
const EVENTS_AS_TEXT: usize = 50;

/// The files beside the page.
const FILES: [page::File; 9] = [
    ("colours.css", CSS, include_str!("page/colours.css")),
    ("style.css", CSS, include_str!("dashboard/style.css")),
    ("icon.svg", SVG, include_str!("page/icon.svg")),
    ("alarms.js", JAVASCRIPT, include_str!("dashboard/alarms.js")),
    ("app.js", JAVASCRIPT, include_str!("dashboard/app.js")),
    ("elements.js", JAVASCRIPT, include_str!("dashboard/elements.js")),
    ("map.js", JAVASCRIPT, include_str!("dashboard/map.js")),
    ("charts.js", JAVASCRIPT, include_str!("dashboard/charts.js")),
    ("tables.js", JAVASCRIPT, include_str!("dashboard/tables.js")),
];

/// The dashboard for browsers, and `index` for everybody else.
pub(super) fn front(relay: &Relay, headers: &HeaderMap, index: &'static str) -> Response {
    let mut response = if wants(headers, "text/html") {
        with_policy(text(relay), HTML)
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
    page::file(&FILES, &name)
}

/// The page, with what is seen where no scripts run, or not yet: the cluster as `arc-relay status` tells
/// it, and the latest events.
fn text(relay: &Relay) -> String {
    let status = agent::status::told(&report::cluster(relay), agent::Paint::Plain);
    let events = relay.watch.events(None, EVENTS_AS_TEXT).events;
    let events: String = events.iter().rev().map(line).collect();
    PAGE.replace("{relay}", &escape(&relay.config.relay_name))
        .replace("{node}", &escape(&relay.config.node_name))
        .replace("{time}", &time(relay.clock.wall()))
        .replace("{status}", &escape(&status))
        .replace("{events}", &escape(if events.is_empty() { "none yet" } else { &events }))
}

fn line(event: &Event) -> String {
    let Event { ts, level, node, text, .. } = event;
    let level = match level {
        Level::Info => "info ",
        Level::Warn => "WARN ",
        Level::Error => "ERROR",
    };
    format!("{}  {level}  {node}: {text}\n", time(*ts))
}

/// A moment as RFC 3339 has it.
fn time(at: UnixMillis) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at.0);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        relay::testing::relay,
        watch::{Happening, Kind},
    };

    #[test]
    fn all_of_it_is_small() {
        // Gzip makes a third of it; whoever comes over a slow line is not to wait even without.
        let files: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(files + PAGE.len() < 100_000, "{} bytes", files + PAGE.len());
    }

    #[test]
    fn the_page_loads_its_files_and_nothing_else() {
        let (relay, ..) = relay();
        let page = text(&relay);
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains('{'));
        for (_, rest) in
            page.match_indices("/dashboard/").map(|(at, path)| page.split_at(at + path.len()))
        {
            let file = rest.split('"').next().unwrap_or_default();
            assert!(FILES.iter().any(|(name, ..)| *name == file), "{file}");
        }
    }

    #[test]
    fn scripts_load_what_is_there_and_nothing_else() {
        for (name, _, text) in FILES.iter().filter(|(_, kind, _)| *kind == JAVASCRIPT) {
            for (_, rest) in
                text.match_indices(" from \"./").map(|(at, it)| text.split_at(at + it.len()))
            {
                let file = rest.split('"').next().unwrap_or_default();
                assert!(FILES.iter().any(|(known, ..)| *known == file), "{name} loads {file}");
            }
            for never in ["innerHTML", "eval(", "http:", "https:", "document.write"] {
                let shown = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!shown.contains(never), "{name} has {never}");
            }
        }
    }

    #[test]
    fn who_runs_no_scripts_sees_the_cluster_and_what_happened() {
        let (relay, ..) = relay();
        let node = "<node>".to_owned();
        let happening =
            Happening { level: Level::Warn, kind: Kind::Node, node, text: "is late".into() };
        relay.watch.note(UnixMillis(1_700_000_000_000), happening);
        let page = text(&relay);
        assert!(page.contains("1 node"), "{page}");
        let line = "2023-11-14T22:13:20Z  WARN   &lt;node&gt;: is late";
        assert!(page.contains(line), "{page}");
    }
}
