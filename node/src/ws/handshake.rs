//! Judging an HTTP request for a WebSocket upgrade (RFC 6455 section 4.2.1).
//!
//! Owns what the request line and headers must say, and the key of the answer. Who may connect is
//! not decided here. Subprotocols and extensions that a client offers are ignored: the answer names
//! none, which tells the client that none is in use.

use hyper::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The value of `Sec-WebSocket-Accept` in the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptKey(String);

impl AcceptKey {
    /// The header's text: 28 base64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a request is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// The method is not GET.
    #[error("connect with GET")]
    Method,
    /// A plain GET: no upgrade to WebSocket was asked for.
    #[error("this is a websocket endpoint: connect with a websocket client")]
    NotAsked,
    /// The client speaks another version of WebSocket than 13.
    #[error("use websocket version 13")]
    Version,
    /// The upgrade was asked for in a way that is no WebSocket handshake; the text says how.
    #[error("{0}")]
    Malformed(&'static str),
}

impl UpgradeError {
    /// The status to answer with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAsked | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The `error` code of the JSON body; the message is this error's text.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Method => "method_not_allowed",
            Self::NotAsked | Self::Version => "upgrade_required",
            Self::Malformed(_) => "invalid_upgrade",
        }
    }

    /// The headers that the status asks for: 405 names the method (RFC 9110 section 15.5.6), 426
    /// the protocol (section 15.5.22) and its version (RFC 6455 section 4.4).
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("allow", "GET")],
            Self::NotAsked | Self::Version => {
                &[("upgrade", "websocket"), ("sec-websocket-version", "13")]
            }
            Self::Malformed(_) => &[],
        }
    }
}

/// Judges a request for an upgrade, and gives the key to answer it with.
///
/// # Errors
///
/// A request without `Upgrade: websocket` is [`UpgradeError::NotAsked`], whatever else it lacks;
/// with it, whatever is wrong is named.
pub fn check_upgrade(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<AcceptKey, UpgradeError> {
    if method != Method::GET {
        return Err(UpgradeError::Method);
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(UpgradeError::NotAsked);
    }
    if version != Version::HTTP_11 {
        return Err(UpgradeError::Malformed("a websocket upgrade needs http/1.1"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(UpgradeError::Malformed(
            "the connection header must contain upgrade; a proxy may have removed it",
        ));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(UpgradeError::Version);
    }
    match single(headers, &SEC_WEBSOCKET_KEY) {
        Some(key) if is_nonce(key) => Ok(AcceptKey(derive_accept_key(key))),
        _ => Err(UpgradeError::Malformed(
            "the sec-websocket-key header must be 16 bytes in base64, once",
        )),
    }
}

/// Whether a header that is a list, perhaps over several lines, contains `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The value of a header that must not be repeated.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes().trim_ascii())
}

/// Whether `key` is base64 of 16 bytes: 22 characters of its alphabet and two of padding.
fn is_nonce(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.strip_suffix(b"==").is_some_and(|digits| digits.iter().all(is_base64))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// The request of RFC 6455 section 1.3, with some headers replaced (`Some`) or removed (`None`).
    fn request(changes: &[(&'static str, Option<&str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let sample = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ];
        for (name, value) in sample {
            headers.insert(name, value.parse().unwrap());
        }
        for (name, value) in changes {
            headers.remove(*name);
            if let Some(value) = value {
                headers.insert(*name, value.parse().unwrap());
            }
        }
        headers
    }

    fn check(changes: &[(&'static str, Option<&str>)]) -> Result<AcceptKey, UpgradeError> {
        check_upgrade(&Method::GET, Version::HTTP_11, &request(changes))
    }

    fn is_malformed(result: &Result<AcceptKey, UpgradeError>) -> bool {
        matches!(result, Err(UpgradeError::Malformed(_)))
    }

    #[test]
    fn the_sample_of_the_rfc_gets_the_answer_of_the_rfc() {
        assert_eq!(check(&[]).unwrap().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn upgrade_and_connection_are_lists_in_any_case() {
        assert!(check(&[("upgrade", Some("WebSocket"))]).is_ok());
        assert!(check(&[("upgrade", Some("h2c, websocket"))]).is_ok());
        assert!(check(&[("connection", Some("keep-alive,  UPGRADE"))]).is_ok());
        let mut headers = request(&[("connection", Some("keep-alive"))]);
        headers.append("connection", "upgrade".parse().unwrap());
        assert!(check_upgrade(&Method::GET, Version::HTTP_11, &headers).is_ok());
    }

    #[test]
    fn a_get_without_upgrade_is_plain() {
        for changes in [("upgrade", None), ("upgrade", Some("h2c")), ("upgrade", Some(""))] {
            assert_eq!(check(&[changes]), Err(UpgradeError::NotAsked), "{changes:?}");
        }
        let plain = check_upgrade(&Method::GET, Version::HTTP_10, &HeaderMap::new());
        assert_eq!(plain, Err(UpgradeError::NotAsked));
    }

    #[test]
    fn a_connection_header_without_upgrade_is_malformed() {
        for value in [None, Some("close"), Some("upgraded"), Some("keep-alive upgrade")] {
            assert!(is_malformed(&check(&[("connection", value)])), "{value:?}");
        }
    }

    #[test]
    fn another_version_is_told_the_right_one() {
        for value in [None, Some("8"), Some("013"), Some("13, 8"), Some("")] {
            let error = check(&[("sec-websocket-version", value)]).unwrap_err();
            assert_eq!(error, UpgradeError::Version, "{value:?}");
            assert_eq!(error.status(), 426);
            assert!(error.headers().contains(&("sec-websocket-version", "13")));
        }
    }

    #[test]
    fn a_key_that_is_not_sixteen_bytes_is_malformed() {
        let bad = [
            None,
            Some(""),
            Some("dGhlIHNhbXBsZSBub25jZQ"),
            Some("dGhlIHNhbXBsZSBub25jZQ=A"),
            Some("dGhlIHNhbXBsZSBub25jZQAA"),
            Some("dGhl!HNhbXBsZSBub25jZQ=="),
            Some("dGhlIHNhbXBsZSBub25jZTEyMzQ1Ng=="),
        ];
        for value in bad {
            assert!(is_malformed(&check(&[("sec-websocket-key", value)])), "{value:?}");
        }
    }

    #[test]
    fn a_repeated_key_is_malformed() {
        let mut headers = request(&[]);
        headers.append("sec-websocket-key", KEY.parse().unwrap());
        assert!(is_malformed(&check_upgrade(&Method::GET, Version::HTTP_11, &headers)));
    }

    #[test]
    fn other_methods_and_http_versions_are_refused() {
        let post = check_upgrade(&Method::POST, Version::HTTP_11, &request(&[])).unwrap_err();
        assert_eq!((post, post.status().as_u16()), (UpgradeError::Method, 405));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert!(is_malformed(&check_upgrade(&Method::GET, version, &request(&[]))));
        }
    }

    #[test]
    fn statuses_and_codes_are_those_of_the_protocol_page() {
        assert_eq!(UpgradeError::NotAsked.status(), 426);
        assert_eq!(UpgradeError::NotAsked.code(), "upgrade_required");
        assert_eq!(UpgradeError::Malformed("").status(), 400);
        assert_eq!(UpgradeError::Malformed("").code(), "invalid_upgrade");
    }
}
