//! Registering the agents that are missing, at the pace that the relay allows (PROTOCOL section 2).

use std::time::Duration;

use futures_util::future::join_all;
use hyper::{Method, StatusCode, header::HeaderValue};

use super::names::Names;
use crate::{
    admin::Credentials,
    agent::{
        bench::args::Place,
        failure::Failure,
        http::{self, Call},
        output::Output,
        register,
    },
};

/// Registrations under way at a time.
const AT_A_TIME: usize = 8;
/// Names registered between two writes of the file, at the least.
const BATCH_MIN: usize = 64;
/// How long to wait for a relay that does not say how long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a relay is asked in a row that decides nothing.
const PAUSES_MAX: u32 = 60;

/// Where and how names are registered.
pub(super) struct Registrar<'a> {
    /// The relay.
    pub(super) place: &'a Place,
    /// What it asks for, if registration is closed.
    pub(super) key: Option<HeaderValue>,
    /// How long it may take to answer.
    pub(super) limit: Duration,
}

impl Registrar<'_> {
    /// Registers until `count` names are known at this relay, and keeps each batch.
    pub(super) async fn fill(
        &self,
        names: &mut Names,
        count: usize,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let relay = self.place.relay.to_string();
        let series = format!("bench-{:08x}", rand::random::<u32>());
        let (mut asked, mut pauses) = (0, 0);
        while names.count(&relay) < count {
            let known = names.count(&relay);
            // Ever larger batches, so that the file is not written for each few names.
            let batch = BATCH_MIN.max(known / 4).min(count - known);
            // Numbers are not asked for again: which of a batch were refused says nothing of the others.
            let wanted = (asked..asked + batch).map(|number| format!("{series}-{number:06}"));
            asked += batch;
            let outcome = self.register(wanted, names, &relay).await;
            names.save()?;
            let done = names.count(&relay);
            pauses = if done > known { 0 } else { pauses + 1 };
            match outcome? {
                None => output.progress(&format!("registered {done} of {count} agents")).await,
                Some((_, failure)) if pauses > PAUSES_MAX => return Err(failure),
                Some((wait, failure)) => {
                    let held = held_back(&failure);
                    let told = format!("{held}: {done} of {count} done, going on in {wait:?}");
                    output.note(&told).await;
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Ok(())
    }

    /// Registers these, and keeps those that succeed; how long to wait before going on, and why.
    async fn register(
        &self,
        wanted: impl Iterator<Item = String>,
        names: &mut Names,
        relay: &str,
    ) -> Result<Option<(Duration, Failure)>, Failure> {
        let (mut pause, mut failed) = (None, None);
        let mut wanted = wanted.peekable();
        // In groups that are waited for as a whole: of a name that is asked for, the token is kept.
        while wanted.peek().is_some() && pause.is_none() && failed.is_none() {
            let group = wanted.by_ref().take(AT_A_TIME).map(|name| self.one(name));
            for answer in join_all(group).await {
                match answer {
                    Ok(credentials) => names.add(relay, credentials.agent_id, credentials.token),
                    Err(failure) => match wait_of(&failure) {
                        Some(wait) => pause = Some((wait, failure)),
                        None => failed = Some(failure),
                    },
                }
            }
        }
        failed.map_or(Ok(pause), Err)
    }

    async fn one(&self, name: String) -> Result<Credentials, Failure> {
        let path = self.place.relay.register_path();
        let call = Call {
            method: Method::POST,
            path: &path,
            authorization: self.key.clone(),
            idempotency_key: Some(register::attempt()?),
            body: Some(serde_json::json!({ "agent_id": name }).to_string()),
        };
        http::call(&self.place.connector, self.limit, call).await
    }
}

/// How long to wait before asking again, if that is of use.
fn wait_of(failure: &Failure) -> Option<Duration> {
    match failure {
        Failure::Refused {
            status: StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE,
            retry_after,
            ..
        } => Some(retry_after.unwrap_or(PAUSE)),
        _ => None,
    }
}

/// What holds registration back, and how to change it.
fn held_back(failure: &Failure) -> String {
    match failure {
        Failure::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. } => {
            "registering is held back by the relay's REGISTRATION_LIMIT_PER_MIN (0 switches it off)"
                .to_owned()
        }
        failure => failure.to_string(),
    }
}
