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
    audit::{Attempt, Unfinished},
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
    let line = Line { attempt, outcome: None };
    let body = Body::from_stream(sealed(writer, content, line));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"arc.backup\"")),
    ];
    Ok((headers, Extension(Unfinished), body).into_response())
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
    line: Line,
}

/// The file's bytes.
fn sealed(
    writer: BackupWriter,
    content: BoxStream<'static, Result<Bytes, AdminError>>,
    line: Line,
) -> impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static {
    let header = Bytes::copy_from_slice(writer.header());
    let rest = stream::try_unfold(Some(Sending { writer, content, line }), |sending| async move {
        let Some(mut sending) = sending else { return Ok(None) };
        match sending.next().await {
            Ok(Some(bytes)) => Ok(Some((bytes, Some(sending)))),
            Ok(None) => {
                let Sending { writer, mut line, .. } = sending;
                let last = writer.finish()?;
                line.outcome = Some(Ok(()));
                Ok(Some((last.into(), None)))
            }
            Err(error) => {
                sending.line.outcome = Some(Err(error.to_string()));
                Err(error)
            }
        }
    });
    stream::iter([Ok(header)]).chain(rest)
}

impl Sending {
    async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        match self.content.next().await {
            Some(chunk) => Ok(Some(self.writer.chunk(&chunk?)?.into())),
            None => Ok(None),
        }
    }
}

/// The audit line, which is written when the file has been made or nobody waits for it any longer.
struct Line {
    attempt: Attempt,
    outcome: Option<Result<(), String>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        match self.outcome.take() {
            Some(Ok(())) => self.attempt.conclude("done", None),
            Some(Err(reason)) => self.attempt.conclude("broken_off", Some(&reason)),
            None => self.attempt.conclude("broken_off", Some("the client went away")),
        }
    }
}
