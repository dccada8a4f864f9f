//! Reading a request's body: bounded in bytes and in time, before anything is made of it.

use std::{error::Error, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::ApiError;

/// Characters of what a parser says that are repeated to the client: it may quote the body.
const REASON_CHARS_MAX: usize = 200;

/// Reads at most `bytes_max` bytes within `deadline`. What is announced as longer is not read at all.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    deadline: Duration,
) -> Result<Bytes, ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(deadline, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
            Err(too_large(bytes_max))
        }
        Ok(Err(_)) => Err(invalid_json("the body did not arrive whole")),
        Err(_) => {
            let message = "the body did not arrive in time";
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
        }
    }
}

/// What the JSON says; any content type will do.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
        invalid_json(&format!("the body is not what this path takes: {reason}"))
    })
}

/// The refusal of a body.
pub(super) fn invalid_json(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body may have {bytes_max} bytes at most");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
