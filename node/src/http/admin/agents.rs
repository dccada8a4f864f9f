//! Agents and their tokens.

use axum::{
    Extension, Json,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use cluster::{AgentId, registry::Revocation, token::Serial};

use super::{Answer, Desk, audit::Attempt};
use crate::{
    admin::{
        Agent, AgentBanned, AgentPage, AgentQuery, AgentRevoked, Credentials, ErrorBody, Imported,
        ImportedName, TokenRevoked,
    },
    http::ApiError,
    report,
};

/// Agents on a page, if nobody says how many.
const PAGE_AGENTS: usize = 100;

/// Agents on a page at most.
const PAGE_AGENTS_MAX: usize = 1_000;

/// Bytes of a list of names: ten thousand of the longest fit.
const IMPORT_BYTES_MAX: usize = 1 << 20;

/// Names that are handed to the registry together: one entry of its log.
const IMPORT_STEP: usize = 1_000;

/// What stands in the path, if it is text.
pub(super) type InPath = Result<Path<String>, PathRejection>;

/// List the agents, in the order of their ids.
#[utoipa::path(
    get, path = "/agents", tag = "administration", params(AgentQuery), security(("admin" = [])),
    responses(
        (status = 200, body = AgentPage),
        (status = 400, body = ErrorBody, description = "`invalid_query`, `invalid_agent_id`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn list(
    State(desk): State<Desk>,
    query: Result<Query<AgentQuery>, QueryRejection>,
) -> Answer<AgentPage> {
    let Query(AgentQuery { after, limit }) = query.map_err(|e| invalid_query(&e.body_text()))?;
    let after = after.map(|id| id.parse()).transpose()?;
    let limit = limit.unwrap_or(PAGE_AGENTS);
    if !(1..=PAGE_AGENTS_MAX).contains(&limit) {
        return Err(invalid_query(&format!("limit is a number from 1 to {PAGE_AGENTS_MAX}")));
    }
    let page = desk.administration.agents(after, limit).await?;
    let last = page.agents.last().filter(|_| page.more);
    let next = last.map(|(agent, _)| agent.to_string());
    let agents = page.agents.iter().map(|(agent, record)| desk.agent(agent, record)).collect();
    Ok(Json(AgentPage { agents, next }))
}

/// Show what is known of an agent.
#[utoipa::path(
    get, path = "/agents/{id}", tag = "administration", security(("admin" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = Agent),
        (status = 400, body = ErrorBody, description = "`invalid_agent_id`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_agent`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn show(State(desk): State<Desk>, id: InPath) -> Answer<Agent> {
    let agent = id_in(id)?;
    let record = desk.administration.agent(&agent).await?;
    let record = record.ok_or(cluster::registry::AdminError::UnknownAgent)?;
    let node = report::home_of(&desk.relay, &agent).await;
    Ok(Json(Agent::new(&agent, &record, node)))
}

/// Revoke all tokens that an agent has; its id stays taken. Its session ends at once.
#[utoipa::path(
    post, path = "/agents/{id}/revoke", tag = "administration", security(("admin" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = AgentRevoked),
        (status = 400, body = ErrorBody, description = "`invalid_agent_id`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_agent`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn revoke(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    id: InPath,
) -> Answer<AgentRevoked> {
    let agent = noted_id(id, &attempt)?;
    desk.administration.revoke(Revocation::Agent(agent.clone())).await?;
    Ok(Json(AgentRevoked { agent_id: agent.to_string(), revoked: true }))
}

/// Refuse all tokens of an agent, later ones too, until the ban is lifted.
#[utoipa::path(
    post, path = "/agents/{id}/ban", tag = "administration", security(("admin" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = AgentBanned),
        (status = 400, body = ErrorBody, description = "`invalid_agent_id`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_agent`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn ban(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    id: InPath,
) -> Answer<AgentBanned> {
    desk.set_ban(id, &attempt, true).await
}

/// Lift a ban: what was not revoked is good again.
#[utoipa::path(
    delete, path = "/agents/{id}/ban", tag = "administration", security(("admin" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = AgentBanned),
        (status = 400, body = ErrorBody, description = "`invalid_agent_id`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_agent`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn unban(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    id: InPath,
) -> Answer<AgentBanned> {
    desk.set_ban(id, &attempt, false).await
}

/// Issue one more token for a registered agent. The others stay as good as they are.
#[utoipa::path(
    post, path = "/agents/{id}/reissue", tag = "administration", security(("admin" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = Credentials),
        (status = 400, body = ErrorBody, description = "`invalid_agent_id`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_agent`"),
        (status = 409, body = ErrorBody, description = "`agent_banned`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn reissue(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    id: InPath,
) -> Answer<Credentials> {
    let agent = noted_id(id, &attempt)?;
    let registration = desk.administration.reissue(&agent).await?;
    Ok(Json(Credentials { agent_id: agent.to_string(), token: registration.token }))
}

/// Take names for ids that have no token yet; reissuing gives them one.
#[utoipa::path(
    post, path = "/agents/import", tag = "administration", security(("admin" = [])),
    request_body = Vec<ImportedName>,
    responses(
        (status = 200, body = Imported),
        (status = 400, body = ErrorBody, description = "`invalid_json`, `invalid_agent_id`: nothing is imported"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 413, body = ErrorBody, description = "`body_too_large`: over 1 MiB"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`: some may be imported, and importing again goes on"),
    ),
)]
pub(in crate::http) async fn import(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    request: Request,
) -> Answer<Imported> {
    let names: Vec<ImportedName> = desk.told(request, IMPORT_BYTES_MAX).await?;
    let agents = names.into_iter().enumerate().map(|(n, name)| importable(n, &name.into_id()));
    let agents = agents.collect::<Result<Vec<_>, _>>()?;
    attempt.note(&format!("{} names", agents.len()));
    let mut imported = Imported::default();
    for some in agents.chunks(IMPORT_STEP) {
        let step = Imported::from(desk.administration.import(some.to_vec()).await?);
        imported.added += step.added;
        imported.existing.extend(step.existing);
    }
    Ok(Json(imported))
}

/// Revoke one token, and all that were narrowed from it.
#[utoipa::path(
    post, path = "/tokens/{serial}/revoke", tag = "administration", security(("admin" = [])),
    params(("serial" = u64, Path, description = "The token's serial")),
    responses(
        (status = 200, body = TokenRevoked),
        (status = 400, body = ErrorBody, description = "`invalid_serial`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_token`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn revoke_token(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    serial: InPath,
) -> Answer<TokenRevoked> {
    let serial = serial.ok().and_then(|Path(serial)| serial.parse::<u64>().ok());
    let serial = serial.ok_or_else(|| {
        let message = "this is no serial of a token: agents show ID prints them";
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_serial", message)
    })?;
    attempt.note(&serial);
    desk.administration.revoke(Revocation::Token(Serial(serial))).await?;
    Ok(Json(TokenRevoked { serial, revoked: true }))
}

impl Desk {
    async fn set_ban(&self, id: InPath, attempt: &Attempt, banned: bool) -> Answer<AgentBanned> {
        let agent = noted_id(id, attempt)?;
        if banned {
            self.administration.ban(&agent).await?;
        } else {
            self.administration.unban(&agent).await?;
        }
        Ok(Json(AgentBanned { agent_id: agent.to_string(), banned }))
    }

    /// An agent of a list: for each to be looked for on all nodes would take too long.
    fn agent(&self, agent: &AgentId, record: &cluster::registry::AgentRecord) -> Agent {
        let is_here = self.relay.sessions.get(agent.as_str()).is_some();
        Agent::new(agent, record, is_here.then(|| self.relay.config.node_name.clone()))
    }
}

fn noted_id(id: InPath, attempt: &Attempt) -> Result<AgentId, ApiError> {
    let agent = id_in(id)?;
    attempt.note(&agent);
    Ok(agent)
}

fn id_in(path: InPath) -> Result<AgentId, ApiError> {
    let Path(id) = path.map_err(|rejection| ApiError::invalid_agent_id(rejection.body_text()))?;
    Ok(id.parse()?)
}

/// An id that may be imported; `place` is its place in the list, from 0.
fn importable(place: usize, id: &str) -> Result<AgentId, ApiError> {
    let number = place + 1;
    let why = match id.parse::<AgentId>() {
        Ok(agent) if agent.is_reserved() => format!("name {number} of the list is the relay's own"),
        Ok(agent) => return Ok(agent),
        Err(error) => format!("name {number} of the list: {error}"),
    };
    Err(ApiError::invalid_agent_id(format!("{why}; nothing is imported")))
}

fn invalid_query(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", message)
}
