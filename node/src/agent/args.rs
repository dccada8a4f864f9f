//! Options that several commands share, and what they come to.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    connect::Connector,
    failure::{Failure, NO_OPS},
    http::{self, Call},
    output::Output,
    secret::Secret,
    session::{Dialer, SILENCE_MAX},
    text::on_one_line,
    url::{Endpoint, RelayUrl, UrlText},
};

/// The relay that is meant when none is named.
pub(super) const DEFAULT_RELAY: &str = "ws://localhost:8080/arc";

/// Which relay, and how to reach it.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub(super) struct RelayArgs {
    /// The relay: ws://, wss://, http://, https://, host or host:port (TLS, except on this machine);
    /// without a path, /arc is meant
    #[arg(
        short,
        long,
        value_name = "URL",
        env = "ARC_RELAY",
        hide_env_values = true,
        default_value = DEFAULT_RELAY
    )]
    relay: UrlText,

    /// Trust the authorities in this PEM file too, besides those of the web
    #[arg(long, value_name = "FILE", env = "ARC_CA")]
    ca: Option<PathBuf>,

    /// How long the relay may take to answer: 10s, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, allow_hyphen_values = true)]
    pub(super) timeout: Duration,

    /// Say more
    #[arg(short, long)]
    pub(super) verbose: bool,
}

/// How to reach the ops port.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub(super) struct OpsArgs {
    /// The ops port: http://, https://, host or host:port (TLS, except on this machine)
    #[arg(long, value_name = "URL", env = "ARC_OPS", default_value = "http://127.0.0.1:8081")]
    ops: UrlText,

    /// Trust the authorities in this PEM file too, besides those of the web
    #[arg(long, value_name = "FILE", env = "ARC_CA")]
    pub(super) ca: Option<PathBuf>,

    /// How long the relay may take to answer: 10s, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, allow_hyphen_values = true)]
    pub(super) timeout: Duration,

    /// Print JSON: the relay's answer as it is, if it has one
    #[arg(long)]
    pub(super) json: bool,
}

/// Who speaks.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub(super) struct TokenArgs {
    /// The agent's token; other users of this machine may see options, so prefer the variable or
    /// --token-file
    #[arg(short, long, value_name = "TOKEN", env = "ARC_TOKEN", hide_env_values = true)]
    token: Option<Secret>,

    /// Read the token from this file; wins over --token and ARC_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl RelayArgs {
    /// The relay's address, checked.
    pub(super) fn url(&self) -> Result<RelayUrl, Failure> {
        self.relay.relay().map_err(|source| Failure::Url { option: "--relay", source })
    }

    /// A connector to it.
    pub(super) fn connector(&self) -> Result<Connector, Failure> {
        Connector::new(self.url()?.endpoint(), self.ca.as_deref())
    }

    /// All that opens sessions with it.
    pub(super) fn dialer(&self, token: &TokenArgs) -> Result<Dialer, Failure> {
        Ok(Dialer {
            relay: self.url()?,
            connector: self.connector()?,
            authorization: token.secret()?.bearer("token")?,
            limit: self.timeout,
            silence: SILENCE_MAX,
        })
    }
}

impl OpsArgs {
    /// The ops port at this address, without TLS.
    pub(super) fn at(address: SocketAddr, timeout: Duration) -> Self {
        let ops = format!("http://{address}").as_str().into();
        Self { ops, ca: None, timeout, json: false }
    }

    /// Makes a call to the ops port.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Failure> {
        let answer = http::call(&self.connector()?, self.timeout, call).await;
        answer.map_err(|failure| self.of_ops(failure))
    }

    /// Makes a call to the ops port whose answer may be long.
    pub(super) async fn download(
        &self,
        call: Call<'_>,
        take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let answer = http::download(&self.connector()?, self.timeout, call, take).await;
        answer.map_err(|failure| self.of_ops(failure))
    }

    /// What a failure means at an ops port: there every path that is asked for exists.
    fn of_ops(&self, failure: Failure) -> Failure {
        match (failure, self.endpoint()) {
            (Failure::Refused { code, .. }, Ok(endpoint)) if code == "not_found" => {
                Failure::NotOps(endpoint.to_string())
            }
            (failure, _) => failure.advising(NO_OPS),
        }
    }

    /// Prints an answer: as it is, or what `told` makes of it.
    pub(super) async fn show<T: DeserializeOwned>(
        &self,
        answer: &RawValue,
        told: impl FnOnce(T) -> String,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if self.json {
            return output.result(&on_one_line(answer.get())).await;
        }
        let answer = serde_json::from_str(answer.get());
        output.result(&told(answer.map_err(|error| Failure::NotRelay(error.to_string()))?)).await
    }

    /// Where the ops port is.
    pub(super) fn endpoint(&self) -> Result<Endpoint, Failure> {
        self.ops.ops().map_err(|source| Failure::Url { option: "--ops", source })
    }

    fn connector(&self) -> Result<Connector, Failure> {
        Connector::new(&self.endpoint()?, self.ca.as_deref())
    }
}

impl TokenArgs {
    fn secret(&self) -> Result<Secret, Failure> {
        match (&self.token_file, &self.token) {
            (Some(path), _) => Secret::read(path),
            (None, Some(token)) if !token.is_empty() => Ok(token.clone()),
            (None, _) => Err(Failure::NoToken),
        }
    }
}

/// A time as people write it; a bare number is seconds. Never zero, which would always be too late.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let read = match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => humantime::parse_duration(text).ok(),
    };
    match read {
        Some(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        Some(time) => Ok(time),
        None if text.starts_with('-') => Err("a time cannot be negative".to_owned()),
        None => Err("not a time: write 10s, 500ms, 2m, 30d, or seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in [("10", 10_000), ("0.5", 500), ("500ms", 500), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "soon", "nan", "1e300", "5 parsecs"] {
            let told = duration(bad).expect_err(bad);
            assert!(told.starts_with("not a time: write 10s"), "{bad}: {told}");
        }
        for (bad, told) in [
            ("0", "must be more than nothing"),
            ("0s", "must be more than nothing"),
            ("-1", "a time cannot be negative"),
            ("-5d", "a time cannot be negative"),
        ] {
            assert_eq!(duration(bad), Err(told.to_owned()), "{bad}");
        }
    }
}
