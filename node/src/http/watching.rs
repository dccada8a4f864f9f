//! What happened, as pages and as streams of server-sent events (WHATWG HTML section 9.2).
//!
//! A stream ends with the node, with its reader, or when its reader takes nothing for too long; how many
//! there may be is [`Watch`](crate::watch::Watch)'s to say.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Query, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio::time::timeout;

use super::ApiError;
use crate::{
    relay::Relay,
    watch::{EVENTS_MAX, EventPage, Follower, HistoryReport, Viewer},
};

/// Events of a page, unless it is said how many.
const PAGE: usize = 100;

/// Events that are sent at a time.
const BATCH: usize = 64;

/// A stream that has nothing to say says so this often: whoever takes nothing for much longer is cut off.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// When a reader that was cut off is to come back, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";

/// A line that means nothing.
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Those behind this number; without it the latest.
    after: Option<u64>,
    /// Of which start of the node `after` is, as `epoch` said; of another, all are behind it.
    epoch: Option<u64>,
    /// How many at the most, up to 512; 100 if it is not said. Means nothing to a stream.
    limit: Option<usize>,
}

/// What happened lately: a page, or with `Accept: text/event-stream` a stream that goes on. A stream begins
/// with an event `epoch`, tells of events that are forgotten with an event `missed`, and its ids are the
/// events' numbers: `Last-Event-ID` counts as `after`.
#[utoipa::path(
    get, path = "/events", tag = "operators", params(EventQuery),
    responses(
        (status = 200, description = "Events", content(
            (EventPage = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 400, description = "Not such a query"),
        (status = 503, description = "Too many follow already"),
    ),
)]
pub(super) async fn events(
    State(relay): State<Arc<Relay>>,
    headers: HeaderMap,
    query: Result<Query<EventQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|refusal| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", refusal.body_text())
    })?;
    let epoch = relay.watch.epoch().0;
    let is_of_now = query.epoch.is_none_or(|asked| asked == epoch);
    let after = |number: Option<u64>| number.map(|number| if is_of_now { number } else { 0 });
    if !wants(&headers, "text/event-stream") {
        let limit = query.limit.unwrap_or(PAGE).min(EVENTS_MAX);
        return Ok(Json(relay.watch.events(after(query.after), limit)).into_response());
    }
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let place = relay.watch.follow().ok_or_else(too_many)?;
    let begin = relay.watch.begin(after(last.or(query.after)));
    Ok(event_stream(followed(relay, place, begin, epoch)))
}

/// The last hour in numbers.
#[utoipa::path(
    get, path = "/history", tag = "operators", responses((status = 200, body = HistoryReport)),
)]
pub(super) async fn history(State(relay): State<Arc<Relay>>) -> Json<HistoryReport> {
    Json(relay.watch.history(relay.clock.elapsed(), relay.clock.wall()))
}

/// What the dashboard shows, once a second; its form is the page's and the node's own.
#[utoipa::path(
    get, path = "/dashboard/stream", tag = "operators",
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many look already"),
    ),
)]
pub(super) async fn dashboard_stream(
    State(relay): State<Arc<Relay>>,
) -> Result<Response, ApiError> {
    let viewer = relay.watch.view().ok_or_else(too_many)?;
    Ok(event_stream(shown(viewer)))
}

/// Whether the client says that it takes this type of answer, by name.
pub(super) fn wants(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|part| part.split(';').next().unwrap_or_default().trim() == media_type)
}

fn too_many() -> ApiError {
    let message = "too many follow this node already: close a dashboard, or ask another node";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_followers", message)
        .retry_after(Duration::from_secs(10))
}

fn event_stream(parts: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let mut response = Body::from_stream(parts).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The events behind `begin`, and all that come.
fn followed(
    relay: Arc<Relay>,
    place: Follower,
    begin: u64,
    epoch: u64,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let first = format!("{RETRY}event: epoch\ndata: {{\"epoch\":{epoch}}}\n\n");
    let first = stream::iter([Ok(Bytes::from(first))]);
    let rest = stream::unfold((relay, place, begin), |(relay, mut place, after)| async move {
        loop {
            place.latest.mark_unchanged();
            let page = relay.watch.events(Some(after), BATCH);
            if page.next > after {
                return Some((Ok(told(&page)), (relay, place, page.next)));
            }
            tokio::select! {
                biased;
                changed = timeout(KEEP_ALIVE_EVERY, place.latest.changed()) => if changed.is_err() {
                    return Some((Ok(KEEP_ALIVE), (relay, place, after)));
                },
                () = place.over.cancelled() => return None,
            }
        }
    });
    first.chain(rest)
}

fn told(page: &EventPage) -> Bytes {
    let mut text = String::new();
    if page.missed > 0 {
        let _ = write!(text, "event: missed\ndata: {{\"missed\":{}}}\n\n", page.missed);
    }
    for event in &page.events {
        let json = serde_json::to_string(event).unwrap_or_default();
        let _ = write!(text, "id: {}\ndata: {json}\n\n", event.seq);
    }
    text.into()
}

/// What is to be shown, whenever there is something new: a slow viewer gets the latest.
fn shown(viewer: Viewer) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let first = stream::iter([Ok(Bytes::from_static(RETRY.as_bytes()))]);
    let rest = stream::unfold(viewer, |mut viewer| async move {
        let next = tokio::select! {
            () = viewer.over.cancelled() => None,
            changed = timeout(KEEP_ALIVE_EVERY, viewer.frames.changed()) => match changed {
                Ok(Ok(())) => Some(viewer.frames.borrow_and_update().clone()),
                Ok(Err(_)) => None,
                Err(_) => Some(KEEP_ALIVE),
            },
        };
        next.map(|part| (Ok(part), viewer))
    });
    first.chain(rest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use axum::{Router, http::Request};
    use futures_util::FutureExt;
    use http_body_util::{BodyExt as _, BodyStream};
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;
    use tower_service::Service as _;

    use super::*;
    use crate::{
        http::{AdminToken, ops_router},
        relay::testing::relay,
        watch::{Happening, Kind, Level, begin, watch},
    };

    fn node() -> (Arc<Relay>, Router) {
        let (relay, _, names) = relay();
        (Arc::clone(&relay), ops_router(relay, names, AdminToken::new("admin")))
    }

    fn happen(relay: &Relay, text: &str) {
        let (level, kind) = (Level::Warn, Kind::Link);
        let happening = Happening { level, kind, node: "n".into(), text: text.into() };
        relay.watch.note(relay.clock.wall(), happening);
    }

    async fn get(router: &mut Router, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = headers
            .iter()
            .fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        router.call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn json(router: &mut Router, path: &str) -> Value {
        let body = get(router, path, &[]).await.into_body().collect().await.unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }

    const STREAM: (&str, &str) = ("accept", "text/event-stream");

    /// All that the stream says now.
    fn said(stream: &mut BodyStream<Body>) -> String {
        let mut text = String::new();
        while let Some(Some(Ok(part))) = stream.next().now_or_never() {
            text += std::str::from_utf8(part.data_ref().unwrap()).unwrap();
        }
        text
    }

    #[tokio::test]
    async fn events_are_read_page_by_page() {
        let (relay, mut router) = node();
        for text in ["one", "two", "three"] {
            happen(&relay, text);
        }
        let first = json(&mut router, "/events?after=0&limit=2").await;
        assert_eq!((&first["next"], &first["missed"]), (&2.into(), &0.into()));
        assert_eq!(first["events"][0]["text"], "one");
        assert_eq!(first["events"][0]["level"], "warn");
        assert_eq!(first["events"][0]["kind"], "link");
        let rest = json(&mut router, "/events?after=2").await;
        assert_eq!(rest["events"].as_array().unwrap().len(), 1);
        let epoch = first["epoch"].as_u64().unwrap();
        let same = json(&mut router, &format!("/events?after=2&epoch={epoch}")).await;
        let other = json(&mut router, "/events?after=2&epoch=5").await;
        let count = |page: &Value| page["events"].as_array().unwrap().len();
        assert_eq!((count(&same), count(&other)), (1, 3), "numbers of another life mean nothing");
        assert_eq!(get(&mut router, "/events?aftre=2", &[]).await.status(), 400);
    }

    #[tokio::test]
    async fn a_stream_tells_what_is_new_from_where_its_reader_was() {
        let (relay, mut router) = node();
        happen(&relay, "one");
        happen(&relay, "two");
        let answer = get(&mut router, "/events", &[STREAM, ("last-event-id", "1")]).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut stream = BodyStream::new(answer.into_body());
        let begin = said(&mut stream);
        assert!(begin.contains("event: epoch") && begin.contains("id: 2"), "{begin}");
        assert!(!begin.contains("one"), "{begin}");
        assert_eq!(said(&mut stream), "");
        happen(&relay, "three\nlines");
        let more = said(&mut stream);
        assert!(more.starts_with("id: 3\ndata: {") && more.contains(r"three\nlines"), "{more}");
    }

    #[tokio::test]
    async fn who_was_away_for_too_long_hears_what_it_missed() {
        let (relay, mut router) = node();
        for _ in 0..EVENTS_MAX + 10 {
            happen(&relay, "again");
        }
        let mut stream =
            BodyStream::new(get(&mut router, "/events?after=3", &[STREAM]).await.into_body());
        let text = said(&mut stream);
        assert!(text.contains("event: missed\ndata: {\"missed\":7}"), "{text}");
        assert_eq!(text.matches("\nid: ").count(), EVENTS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_say_that_they_are_alive_and_end_with_the_node() {
        let (relay, mut router) = node();
        let stop = CancellationToken::new();
        let watching = async {
            let _over = begin(&relay);
            watch(Arc::clone(&relay), stop.clone()).await;
        };
        let events = get(&mut router, "/events", &[STREAM]).await.into_body();
        let frames = get(&mut router, "/dashboard/stream", &[STREAM]).await.into_body();
        let reader = async {
            let (mut events, mut frames) = (BodyStream::new(events), BodyStream::new(frames));
            let mut seen = String::new();
            while !(seen.contains("started") && seen.contains(":\n\n")) {
                let part = events.next().await.unwrap().unwrap();
                seen += std::str::from_utf8(part.data_ref().unwrap()).unwrap();
            }
            frames.next().await.unwrap().unwrap();
            let frame = frames.next().await.unwrap().unwrap().into_data().unwrap();
            stop.cancel();
            while let Some(part) = events.next().await {
                part.unwrap();
            }
            while let Some(part) = frames.next().await {
                part.unwrap();
            }
            frame
        };
        let ((), frame) = tokio::join!(watching, reader);
        let json = frame.strip_prefix(b"data: ").unwrap();
        let view: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(
            (&view["nodes"][0]["name"], &view["sample"]["nodes"]),
            (&"node".into(), &1.0.into())
        );
        let history = json_of(&mut router).await;
        assert_eq!(history["columns"]["nodes"][0], 1.0);
    }

    async fn json_of(router: &mut Router) -> Value {
        json(router, "/history").await
    }

    #[tokio::test]
    async fn an_attempt_at_a_change_is_an_event_without_the_agents_name() {
        let (_, mut router) = node();
        let request = Request::post("/agents/somebody/ban").body(Body::empty()).unwrap();
        assert_eq!(router.call(request).await.unwrap().status(), 401);
        let page = json(&mut router, "/events").await;
        assert_eq!(page["events"][0]["kind"], "admin");
        assert_eq!(page["events"][0]["text"], "ban an agent: unauthorized");
    }

    #[tokio::test]
    async fn places_are_bounded_and_come_back() {
        let (_, mut router) = node();
        let mut streams = Vec::new();
        let refused = loop {
            let answer = get(&mut router, "/dashboard/stream", &[STREAM]).await;
            if answer.status() != 200 {
                break answer;
            }
            streams.push(answer);
            assert!(streams.len() < 100);
        };
        assert_eq!((refused.status().as_u16(), streams.len()), (503, 32));
        assert_eq!(get(&mut router, "/events", &[STREAM]).await.status(), 503);
        streams.pop();
        assert_eq!(get(&mut router, "/events", &[STREAM]).await.status(), 200);
    }

    #[tokio::test]
    async fn browsers_get_a_page_and_others_the_index() {
        let (_, mut router) = node();
        let page = get(&mut router, "/", &[("accept", "text/html,*/*;q=0.8")]).await;
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let index = get(&mut router, "/", &[("accept", "*/*")]).await;
        assert_eq!(index.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(get(&mut router, "/dashboard/app.js", &[]).await.status(), 200);
        assert_eq!(get(&mut router, "/dashboard/../ops.rs", &[]).await.status(), 404);
    }
}
