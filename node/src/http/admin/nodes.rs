//! Sending nodes away: the asked one, or another over the mesh.

use axum::{
    Extension, Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};

use super::{Answer, Desk, agents::InPath, audit::Attempt, naming};
use crate::{
    admin::{DrainQuery, Draining, ErrorBody},
    http::ApiError,
    leaving::{self, Verdict, Wish},
    report::{self, NodeReport},
    standing::{self, Needed, Standing},
};

type AskedQuery = Result<Query<DrainQuery>, QueryRejection>;

/// Let this node send its agents elsewhere, and stop; who started it may start it again.
#[utoipa::path(
    post, path = "/drain", tag = "administration", params(DrainQuery), security(("admin" = [])),
    responses(
        (status = 200, body = Draining, description = "It drains: `GET /cluster` shows how far it is"),
        (status = 400, body = ErrorBody, description = "`invalid_query`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 409, body = ErrorBody, description = "`last_ready_node`, `majority_lost`: `anyway=true` if it is meant"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn drain(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    query: AskedQuery,
) -> Answer<Draining> {
    let nodes = report::nodes(&desk.relay);
    let me = desk.relay.node.to_string();
    attempt.note(&desk.relay.config.node_name);
    let own = nodes.iter().find(|node| node.id == me).ok_or_else(|| unknown(&me))?;
    send_away(&desk, own, query).await
}

/// Let a node of the cluster send its agents elsewhere, and stop; who started it may start it again.
#[utoipa::path(
    post, path = "/nodes/{node}/drain", tag = "administration", security(("admin" = [])),
    params(("node" = String, Path, description = "Its id, its name, or where its mesh port is reached"), DrainQuery),
    responses(
        (status = 200, body = Draining, description = "It drains: `GET /cluster` shows how far it is"),
        (status = 400, body = ErrorBody, description = "`invalid_query`"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 404, body = ErrorBody, description = "`unknown_node`"),
        (status = 409, body = ErrorBody, description = "`not_there`, `ambiguous_node`; `last_ready_node`, `majority_lost`: `anyway=true` if it is meant"),
        (status = 503, body = ErrorBody, description = "`node_unreachable`, `registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn drain_another(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
    node: InPath,
    query: AskedQuery,
) -> Answer<Draining> {
    let Path(called) = node.map_err(|error| unknown(&error.body_text()))?;
    let nodes = report::nodes(&desk.relay);
    let node = naming::meant(&called, &nodes).map_err(|error| {
        ApiError::new(StatusCode::CONFLICT, "ambiguous_node", error.to_string())
    })?;
    let node = node.ok_or_else(|| unknown(&called))?;
    attempt.note(&node.name);
    send_away(&desk, node, query).await
}

async fn send_away(desk: &Desk, node: &NodeReport, query: AskedQuery) -> Answer<Draining> {
    let refused = |rejected: QueryRejection| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", rejected.body_text())
    };
    let Query(DrainQuery { anyway }) = query.map_err(refused)?;
    if !report::is_there(&node.state) {
        let message = format!("{} is {} already", node.name, node.state);
        return Err(ApiError::new(StatusCode::CONFLICT, "not_there", message));
    }
    // Who leaves already is not kept from it.
    if node.state != "leaving" {
        may_leave(desk, node, anyway).await?;
    }
    let Standing { agents, .. } = ask(desk, node).await?;
    Ok(Json(Draining { node: node.id.clone(), name: node.name.clone(), agents }))
}

/// Has it decided whether the node may leave, which all who are asked next will know.
async fn may_leave(desk: &Desk, node: &NodeReport, anyway: bool) -> Result<(), ApiError> {
    let id = standing::id(node).ok_or_else(|| unknown(&node.id))?;
    match leaving::decided(&desk.relay, Wish { node: id.0, anyway }).await {
        Ok(Verdict::MayLeave) => Ok(()),
        Ok(Verdict::Stays(why)) => Err(why.into()),
        Err(undecided) => {
            let (status, text) = (StatusCode::SERVICE_UNAVAILABLE, undecided.to_string());
            Err(ApiError::new(status, "registry_unavailable", text))
        }
    }
}

/// Tells the node to leave; how it stands at that moment.
async fn ask(desk: &Desk, node: &NodeReport) -> Result<Standing, ApiError> {
    let relay = &desk.relay;
    if node.id == relay.node.to_string() {
        let standing = standing::own(relay);
        relay.ask_to_leave();
        return Ok(standing);
    }
    let (peers, id) = (relay.peers(), standing::id(node));
    let asked = match (peers, id) {
        (Some(peers), Some(id)) => peers.ask_to_leave(id).await,
        _ => None,
    };
    // One that has no agents may be gone before its answer is on its way.
    let does_so = || {
        let now = report::nodes(relay).into_iter().find(|now| now.id == node.id)?;
        let leaves = node.state == "alive" && ["leaving", "left"].contains(&now.state.as_str());
        leaves.then_some(Standing { takes_agents: false, agents: node.agents })
    };
    asked.or_else(does_so).ok_or_else(|| {
        let message = format!(
            "{} does not answer this node: see `arc-relay status` for the link between them, or ask it at its \
             own ops port",
            node.name
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "node_unreachable", message)
    })
}

fn unknown(called: &str) -> ApiError {
    let message = format!("no node is called {called:?}: `arc-relay nodes` lists them");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_node", message)
}

impl From<Needed> for ApiError {
    fn from(why: Needed) -> Self {
        let code = match why {
            Needed::LastReady => "last_ready_node",
            Needed::Majority { .. } => "majority_lost",
        };
        Self::new(StatusCode::CONFLICT, code, why.to_string())
    }
}
