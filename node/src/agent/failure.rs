//! What can go wrong for a client, told so that the user knows who must act, and the exit code and the
//! object that say it to a script.
//!
//! No text here ever holds a token; text that came from the network is made safe for a terminal.

use std::{io, path::PathBuf, time::Duration};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite;

use super::{bench::Flaw, text::escaped, url::InvalidUrl};

/// The table of exit codes, as `--help` shows it.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the relay was not reached, did not answer in time, or the connection was lost
  2  wrong usage: options, files, a payload that is not JSON, or what needs --yes
  3  refused by the relay: error message, rate limit, name taken, registration closed
  4  token refused: unknown, revoked or expired
  5  replaced by a newer session of the same agent";

/// What to do if nobody is where the relay should be.
pub(super) const NO_RELAY: &str = "does it run? --relay or ARC_RELAY says where";

/// What to do if nobody is where the ops port should be.
pub(super) const NO_OPS: &str = "does it run? --ops or ARC_OPS says where its ops port is";

/// What to do if nobody is where the configuration has the ops port.
pub(super) const NO_CONFIGURED_OPS: &str =
    "does it run? STATS_HOST and STATS_PORT, as it has them, say where its ops port is";

/// Why a client's command did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An address on the command line cannot be used.
    #[error("{option}: {source}")]
    Url { option: &'static str, source: InvalidUrl },
    /// Nothing says who the agent is.
    #[error(
        "no token: set ARC_TOKEN or give --token-file; `arc-relay agent register` makes a token"
    )]
    NoToken,
    /// The text cannot be a token.
    #[error("the {0} is empty or has characters that cannot stand in a header: copy it again")]
    UnusableSecret(&'static str),
    /// A file named by the user cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file with the relay's admin token cannot be read.
    #[error("cannot read the admin token in {}: {source}; {}", path.display(), token_advice(source))]
    AdminToken { path: PathBuf, source: io::Error },
    /// Standard input cannot be read.
    #[error("cannot read standard input: {0}")]
    Stdin(io::Error),
    /// The file for a token cannot be written.
    #[error("cannot create {}: {source}; choose a file that does not exist yet", path.display())]
    Save { path: PathBuf, source: io::Error },
    /// A file that is there already would be replaced.
    #[error("{} exists already: choose another file, or give --force", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file is no list of names.
    #[error("{} is no JSON list of agent ids: {reason}", path.display())]
    Names { path: PathBuf, reason: String },
    /// A CA file holds no usable certificate.
    #[error("no usable certificate in {}: {reason}", path.display())]
    Authority { path: PathBuf, reason: String },
    /// The payload was said to be JSON.
    #[error("the payload is not JSON: {0}")]
    Payload(serde_json::Error),
    /// The message would be refused for its size.
    #[error("the message has {size} bytes, and this relay takes {limit}")]
    TooLarge { size: usize, limit: usize },
    /// What cannot be undone was not said to be meant, and nobody is there to be asked.
    #[error("{0}; nothing was done: there is no terminal to ask at, give --yes if it is meant")]
    Unconfirmed(String),
    /// Whoever was asked did not mean it.
    #[error("nothing was done")]
    NotMeant,
    /// A node that was on its way ended without a word.
    #[error(
        "{0} was lost before it had left: its agents come back by themselves, look into its log"
    )]
    Died(String),
    /// The command's output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),

    /// No TCP connection.
    #[error("cannot reach {address}: {source}; {advice}")]
    Dial { address: String, source: io::Error, advice: &'static str },
    /// Somebody is there, but not the ops port.
    #[error(
        "{0} is not the ops port of a relay: there is nothing at this path; --ops or ARC_OPS says where it \
         is (STATS_HOST and STATS_PORT of the relay, 127.0.0.1:8081 by default)"
    )]
    NotOps(String),
    /// No TLS session.
    #[error(
        "no TLS session with {address}: {source}; for a private authority give --ca, for a relay \
         without TLS write ws:// or http://"
    )]
    Tls { address: String, source: io::Error },
    /// The answer took too long.
    #[error("no {what} within {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
    /// HTTP went wrong before there was an answer.
    #[error("the HTTP exchange failed: {0}")]
    Http(#[from] hyper::Error),
    /// The other end talks, but not as a relay does.
    #[error("the other end does not answer as a relay does ({0}): check the address")]
    NotRelay(String),
    /// A relay that is asked how it is says that it is not up.
    #[error("the relay is not up: {0}")]
    Unwell(String),
    /// A cluster that is asked about lacks something.
    #[error("the cluster is not whole: {0}")]
    NotWhole(String),
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(#[from] Box<tungstenite::Error>),
    /// Nothing came, not even a ping.
    #[error("the relay has been silent for {0:?}")]
    Silent(Duration),

    /// A measurement has no result, or a bad one.
    #[error(transparent)]
    Bench(#[from] Flaw),
    /// HTTP status other than success (PROTOCOL sections 2 and 3).
    #[error("refused: {message} ({code}, HTTP {status})")]
    Refused { status: StatusCode, code: String, message: String, retry_after: Option<Duration> },
    /// An error message on an open connection (PROTOCOL section 7).
    #[error("refused by the relay: {message} ({code})")]
    Declined { code: String, message: String },
    /// The relay closed the connection (PROTOCOL section 7).
    #[error("{}", closing_text(*code, reason))]
    Closed { code: u16, reason: String },
}

/// The body of every HTTP error (PROTOCOL section 1).
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    #[serde(default)]
    message: String,
}

impl Failure {
    /// An HTTP answer that is no success; the body may be anything.
    pub(super) fn refused(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let told = serde_json::from_slice::<ErrorBody>(body).ok();
        let reason = || status.canonical_reason().unwrap_or("no reason given").to_lowercase();
        let (code, message) = match told {
            Some(told) if told.message.is_empty() => (told.error, reason()),
            Some(told) => (told.error, told.message),
            None => ("not_a_relay_answer".to_owned(), reason()),
        };
        Self::Refused { status, code: escaped(&code), message: escaped(&message), retry_after }
    }

    /// The same failure with something else to do about it, if nobody was there.
    pub(super) fn advising(self, advice: &'static str) -> Self {
        match self {
            Self::Dial { address, source, .. } => Self::Dial { address, source, advice },
            other => other,
        }
    }

    /// All of it, for programs and for people.
    pub(super) fn report(&self) -> FailureReport {
        let mut report = FailureReport::new(self.code(), self.to_string(), self.exit_code());
        match self {
            Self::Refused { status, message, retry_after, .. } => {
                report.message.clone_from(message);
                report.status = Some(status.as_u16());
                report.retry_after = retry_after.map(|wait| wait.as_secs());
            }
            Self::Declined { message, .. } => report.message.clone_from(message),
            Self::Closed { code, .. } => report.close_code = Some(*code),
            _ => {}
        }
        report
    }

    /// The code for programs: the relay's own, where it gave one.
    fn code(&self) -> &str {
        match self {
            Self::Url { .. } => "invalid_address",
            Self::NoToken => "no_token",
            Self::UnusableSecret(_) => "unusable_secret",
            Self::Read { .. } | Self::Stdin(_) => "unreadable",
            Self::AdminToken { .. } => "no_admin_token",
            Self::Save { .. } | Self::Write { .. } | Self::Output(_) => "unwritable",
            Self::Exists(_) => "file_exists",
            Self::Names { .. } => "invalid_names",
            Self::Authority { .. } => "invalid_authority",
            Self::Payload(_) => "invalid_payload",
            Self::TooLarge { .. } => "message_too_large",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::NotMeant => "not_meant",
            Self::Died(_) => "node_lost",
            Self::Dial { .. } => "unreachable",
            Self::NotOps(_) => "not_the_ops_port",
            Self::Tls { .. } => "no_tls_session",
            Self::Timeout { .. } | Self::Silent(_) => "timeout",
            Self::Http(_) | Self::Lost(_) => "connection_lost",
            Self::NotRelay(_) => "not_a_relay",
            Self::Unwell(_) => "not_up",
            Self::NotWhole(_) => "not_whole",
            Self::Bench(_) => "bench",
            Self::Refused { code, .. } | Self::Declined { code, .. } => code,
            Self::Closed { .. } => "closed",
        }
    }

    /// The exit code of [`EXIT_CODES`].
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Url { .. }
            | Self::NoToken
            | Self::UnusableSecret(_)
            | Self::Read { .. }
            | Self::AdminToken { .. }
            | Self::Stdin(_)
            | Self::Save { .. }
            | Self::Exists(_)
            | Self::Write { .. }
            | Self::Names { .. }
            | Self::Authority { .. }
            | Self::Unconfirmed(_)
            | Self::NotMeant
            | Self::Payload(_) => 2,
            Self::Bench(flaw) => flaw.exit_code(),
            Self::Closed { code: 4001, .. } => 4,
            Self::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED => 4,
            Self::Closed { code: 4009, .. } => 5,
            Self::Refused { .. }
            | Self::Declined { .. }
            | Self::TooLarge { .. }
            | Self::Closed { code: 1007..=1009 | 4029, .. } => 3,
            Self::Dial { .. }
            | Self::NotOps(_)
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Http(_)
            | Self::NotRelay(_)
            | Self::Unwell(_)
            | Self::NotWhole(_)
            | Self::Died(_)
            | Self::Lost(_)
            | Self::Silent(_)
            | Self::Output(_)
            | Self::Closed { .. } => 1,
        }
    }
}

/// How a command failed: what `--json` tells on standard error, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// What went wrong, for programs; the relay's code, if it refused something.
    error: String,
    /// What went wrong, for people; the relay's text, if it refused something.
    message: String,
    /// The process's exit code.
    pub(super) exit_code: u8,
    /// The HTTP status of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The close code of a connection that the relay closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    /// In how many seconds to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// All of it, for people.
    #[serde(skip)]
    pub(super) text: String,
}

impl FailureReport {
    /// What went wrong, in a word for programs and in words for people, and the exit code.
    pub fn new(error: &str, message: String, exit_code: u8) -> Self {
        let (status, close_code, retry_after) = (None, None, None);
        let (error, text) = (error.to_owned(), message.clone());
        Self { error, message, exit_code, status, close_code, retry_after, text }
    }

    /// The same with another exit code.
    #[must_use]
    pub(super) fn exiting(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }

    /// As one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How to come by the admin token.
fn token_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "only the user that runs the relay may read it: run this as that user, or with sudo"
        }
        _ => {
            "name the relay's data directory by --data-dir or DATA_DIR (/var/lib/arc-relay if it was \
             installed as a service), or the file by --admin-token-file"
        }
    }
}

/// What a close code means to a user (PROTOCOL section 7).
fn closing_text(code: u16, reason: &str) -> String {
    let meaning = match code {
        1001 => "the node is stopping or draining",
        1009 => "the message was too large for this relay",
        4001 => "the token has expired or was revoked: get a new one",
        4008 => "the relay gave up on this reader as too slow",
        4009 => {
            "another session of this agent took over: one agent has one live session, so \
                 register a second id for a second program"
        }
        4029 => "too far over the rate limit: wait a minute",
        _ => "the relay closed the connection",
    };
    match reason {
        "" => format!("{meaning} (close code {code})"),
        reason => format!("{meaning} (close code {code}: {})", escaped(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_the_exit_code_that_the_help_promises() {
        let refused = |status| Failure::refused(status, None, b"").exit_code();
        assert_eq!(refused(StatusCode::UNAUTHORIZED), 4);
        assert_eq!(refused(StatusCode::FORBIDDEN), 3);
        assert_eq!(refused(StatusCode::CONFLICT), 3);
        let closed = |code| Failure::Closed { code, reason: String::new() }.exit_code();
        assert_eq!([closed(1001), closed(1009), closed(1011)], [1, 3, 1]);
        assert_eq!([closed(4001), closed(4008), closed(4009), closed(4029)], [4, 1, 5, 3]);
        assert_eq!(Failure::NoToken.exit_code(), 2);
        assert_eq!(Failure::Silent(Duration::ZERO).exit_code(), 1);
    }

    #[test]
    fn an_error_body_is_quoted_and_made_safe_for_a_terminal() {
        let body = br#"{"error":"agent_id_taken","message":"taken\u001b[2J"}"#;
        let text = Failure::refused(StatusCode::CONFLICT, None, body).to_string();
        assert_eq!(text, "refused: taken\\u{1b}[2J (agent_id_taken, HTTP 409 Conflict)");
    }

    #[test]
    fn an_answer_of_a_stranger_is_told_by_its_status() {
        let text = Failure::refused(StatusCode::NOT_FOUND, None, b"<html>").to_string();
        assert_eq!(text, "refused: not found (not_a_relay_answer, HTTP 404 Not Found)");
    }

    #[test]
    fn a_program_is_told_what_the_relay_said() {
        let body = br#"{"error":"rate_limit","message":"too many"}"#;
        let wait = Some(Duration::from_secs(7));
        let refused = Failure::refused(StatusCode::TOO_MANY_REQUESTS, wait, body).report();
        let expected = r#"{"error":"rate_limit","message":"too many","exit_code":3,"status":429,"retry_after":7}"#;
        assert_eq!(refused.json(), expected);
        let closed = Failure::Closed { code: 4009, reason: String::new() }.report().json();
        assert!(closed.contains(r#""error":"closed""#) && closed.contains(r#""close_code":4009"#));
    }

    #[test]
    fn whoever_may_not_read_the_admin_token_is_told_who_may() {
        let told = |kind: io::ErrorKind| {
            let path = "/var/lib/arc-relay/admin.token".into();
            Failure::AdminToken { path, source: kind.into() }.to_string()
        };
        let missing = told(io::ErrorKind::NotFound);
        for way in ["--data-dir", "DATA_DIR", "--admin-token-file"] {
            assert!(missing.contains(way), "{missing}");
        }
        assert!(told(io::ErrorKind::PermissionDenied).contains("sudo"));
    }
}
