//! The admin interface of the ops port, as commands reach it: where it is, and with what right.

use std::path::PathBuf;

use hyper::{Method, header::HeaderValue};
use serde::{Serialize, de::DeserializeOwned};

use super::{args::OpsArgs, failure::Failure, http::Call, secret::Secret};

/// Where a relay with its defaults keeps its admin token.
const TOKEN_FILE: &str = "admin.token";

/// How to reach the ops port, and with what right.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub(super) struct AdminArgs {
    #[command(flatten)]
    pub(super) ops: OpsArgs,

    /// File with the relay's admin token; without it, ARC_ADMIN_TOKEN, then admin.token in DATA_DIR
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// Admin token; best given by the variable, because other users may see options
    #[arg(long, value_name = "TOKEN", env = "ARC_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<Secret>,

    /// The relay's data directory
    #[arg(long, value_name = "DIR", env = "DATA_DIR", default_value = "./arc-data")]
    data_dir: PathBuf,
}

impl AdminArgs {
    /// The answer to a request without a body.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, Failure> {
        self.ops.ask(self.call(method, path, None)?).await
    }

    /// The answer to a request that says `body`.
    pub(super) async fn tell<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_string(body).map_err(Failure::Payload)?;
        self.ops.ask(self.call(method, path, Some(body))?).await
    }

    /// Hands a long answer to `take`, piece by piece.
    pub(super) async fn download(
        &self,
        path: &str,
        take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.ops.download(self.call(Method::POST, path, None)?, take).await
    }

    fn call<'a>(
        &self,
        method: Method,
        path: &'a str,
        body: Option<String>,
    ) -> Result<Call<'a>, Failure> {
        let authorization = Some(self.authorization()?);
        Ok(Call { method, path, authorization, body, ..Call::default() })
    }

    fn authorization(&self) -> Result<HeaderValue, Failure> {
        let given = self.admin_token.as_ref().filter(|token| !token.is_empty());
        let token = match (&self.admin_token_file, given) {
            (Some(path), _) => Secret::read(path)?,
            (None, Some(token)) => token.clone(),
            (None, None) => {
                Secret::read(&self.data_dir.join(TOKEN_FILE)).map_err(|error| match error {
                    Failure::Read { path, source } => Failure::AdminToken { path, source },
                    other => other,
                })?
            }
        };
        token.bearer("admin token")
    }
}
