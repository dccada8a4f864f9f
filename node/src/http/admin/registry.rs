//! The registry itself: how it is, who keeps it, and which keys sign.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Request, State},
};

use cluster::registry::AdminError;

use super::{Answer, BODY_BYTES_MAX, Desk, audit::Attempt, naming};
use crate::{
    admin::{ErrorBody, Keys, RegistryReport, Rotated, Rotation, VoterChange},
    report,
};

/// Show how the registry is, as this node sees it.
#[utoipa::path(
    get, path = "/registry", tag = "administration", security(("admin" = [])),
    responses(
        (status = 200, body = RegistryReport),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
    ),
)]
pub(in crate::http) async fn status(State(desk): State<Desk>) -> Json<RegistryReport> {
    Json(desk.relay.registry.status().into())
}

/// Change who keeps the registry, step by step; its status shows the progress.
#[utoipa::path(
    put, path = "/registry/voters", tag = "administration", security(("admin" = [])),
    request_body = VoterChange,
    responses(
        (status = 200, body = RegistryReport),
        (status = 400, body = ErrorBody, description = "`invalid_json`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 409, body = ErrorBody, description = "`refused`: it would do harm, or cannot be"),
        (status = 413, body = ErrorBody, description = "`body_too_large`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn change_voters(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    request: Request,
) -> Answer<RegistryReport> {
    let change: VoterChange = desk.told(request, BODY_BYTES_MAX).await?;
    attempt.note(&match &change {
        VoterChange::Set { seeds } => format!("set {}", seeds.join(",")),
        VoterChange::Follow {} => "follow SEEDS".to_owned(),
        VoterChange::Replace { old, new } => format!("replace {old} by {new}"),
    });
    let nodes = report::cluster(&desk.relay).nodes;
    let known: RegistryReport = desk.relay.registry.status().into();
    let change = naming::by_ids(change, &nodes, &known.voters);
    let change = change.map_err(|error| AdminError::Refused(error.to_string()))?;
    desk.administration.change_voters(change.into()).await?;
    Ok(Json(desk.relay.registry.status().into()))
}

/// List the keys that sign tokens, or did.
#[utoipa::path(
    get, path = "/registry/keys", tag = "administration", security(("admin" = [])),
    responses(
        (status = 200, body = Keys),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn keys(State(desk): State<Desk>) -> Answer<Keys> {
    let keys = desk.administration.keys().await?;
    Ok(Json(Keys { keys: keys.into_iter().map(Into::into).collect() }))
}

/// Let a new key sign; what the present one signed is good for a while more.
#[utoipa::path(
    post, path = "/registry/keys", tag = "administration", security(("admin" = [])),
    request_body = Rotation,
    responses(
        (status = 200, body = Rotated),
        (status = 400, body = ErrorBody, description = "`invalid_json`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 413, body = ErrorBody, description = "`body_too_large`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn rotate_key(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    request: Request,
) -> Answer<Rotated> {
    let Rotation { retire_after_seconds } = desk.told(request, BODY_BYTES_MAX).await?;
    attempt.note(&format!("the present key retires after {retire_after_seconds} s"));
    let retire_after = Duration::from_secs(retire_after_seconds);
    Ok(Json(desk.administration.rotate_key(retire_after).await?.into()))
}
