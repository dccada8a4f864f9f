//! A backup, sealed as it is sent: nobody but the cluster's operators can read it, and the relay keeps
//! no more of it than one chunk.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use cluster::registry::{AdminError, BackupHeader, BackupWriter, SealError};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, Stream},
};

use super::{
    Desk,
    audit::{Attempt, BROKEN_OFF},
};
use crate::{admin::ErrorBody, http::ApiError, relay::VERSION};

/// Why a backup ended before its end.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error(transparent)]
    Registry(#[from] AdminError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Take a backup: all names, revocations, keys and secrets of one moment, sealed with a key made from
/// `CLUSTER_SECRET`. An answer that ends early is no backup.
#[utoipa::path(
    post, path = "/backup", tag = "administration", security(("admin" = [])),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>, description = "The file; `arc-relay restore` reads it"),
        (status = 401, body = ErrorBody, description = "`unauthorized`"),
        (status = 409, body = ErrorBody, description = "`no_cluster_secret`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`"),
    ),
)]
pub(in crate::http) async fn backup(
    State(desk): State<Desk>,
    Extension(attempt): Extension<Attempt>,
) -> Result<Response, ApiError> {
    let secret = desk.relay.config.mesh.secret.as_ref().ok_or_else(no_secret)?;
    let registry = desk.relay.registry.status().id;
    let registry = registry.ok_or(AdminError::Unavailable("it is not founded yet".into()))?;
    let content = desk.administration.export().await?;
    let header =
        BackupHeader { registry, created: desk.relay.clock.wall(), release: VERSION.into() };
    let writer = BackupWriter::new(secret, &header);
    attempt.outlive_answer();
    let body = Body::from_stream(sealed(writer, content, attempt));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"arc.backup\"")),
    ];
    Ok((headers, body).into_response())
}

fn no_secret() -> ApiError {
    let message = "a backup is encrypted with CLUSTER_SECRET, and this relay has none: make one with \
                   `arc-relay secret`, set it, and start again";
    ApiError::new(StatusCode::CONFLICT, "no_cluster_secret", message)
}

/// What is left to send.
struct Sending {
    writer: BackupWriter,
    content: BoxStream<'static, Result<Bytes, AdminError>>,
    attempt: Attempt,
}

/// The file's bytes.
fn sealed(
    writer: BackupWriter,
    content: BoxStream<'static, Result<Bytes, AdminError>>,
    attempt: Attempt,
) -> impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static {
    let header = Bytes::copy_from_slice(writer.header());
    let rest = stream::try_unfold(Some(Sending { writer, content, attempt }), |sending| async {
        let Some(sending) = sending else { return Ok(None) };
        let attempt = sending.attempt.clone();
        let next = sending.next().await;
        match &next {
            Ok((_, Some(_))) => {}
            Ok((_, None)) => attempt.conclude("done", None),
            Err(error) => attempt.conclude(BROKEN_OFF, Some(&error.to_string())),
        }
        next.map(Some)
    });
    stream::iter([Ok(header)]).chain(rest)
}

impl Sending {
    /// The next bytes, and what is left behind them.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), BrokenOff> {
        match self.content.next().await {
            Some(chunk) => Ok((self.writer.chunk(&chunk?)?.into(), Some(self))),
            None => Ok((self.writer.finish()?.into(), None)),
        }
    }
}
