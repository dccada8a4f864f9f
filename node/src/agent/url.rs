//! Where a relay is: addresses as users write them, and what they mean.
//!
//! Pure text; resolves and connects to nothing.

use std::{convert::Infallible, fmt, str::FromStr};

use hyper::Uri;

/// Port of a relay that runs with its defaults (PROTOCOL section 1).
const RELAY_PORT: u16 = 8080;
/// The same for its ops listener.
const OPS_PORT: u16 = 8081;

/// An address as it was written: not checked yet, so that a complaint about it need not quote the
/// token that somebody put into it.
#[derive(Clone)]
pub(super) struct UrlText(String);

impl FromStr for UrlText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl From<&str> for UrlText {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split(['?', '#', '@']).next().unwrap_or_default())
    }
}

/// Why an address cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUrl {
    #[error("not an address; write ws://host:port/arc, wss://host/arc or host[:port]")]
    Malformed,
    #[error(
        "not the address of an ops port; write http://host:port, https://host or host[:port], no path"
    )]
    MalformedOps,
    #[error("unknown scheme; write ws://, wss://, http:// or https://")]
    Scheme,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error("a token has no place in an address: use ARC_TOKEN or --token-file")]
    Credentials,
    #[error("query and fragment have no meaning here: leave out what follows ? or #")]
    Query,
}

/// A host, a port, and whether the connection to it is TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Whether to speak TLS.
    pub(crate) tls: bool,
    /// Name or address, an IPv6 address without its brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

/// A relay's WebSocket address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelayUrl {
    endpoint: Endpoint,
    path: String,
}

impl UrlText {
    /// The address of a relay. A missing path means `/arc`; a bare `host[:port]` means TLS, except
    /// on this machine: a token goes over a network in the clear only if `ws://` was written.
    pub(super) fn relay(&self) -> Result<RelayUrl, InvalidUrl> {
        let (endpoint, path) = parse(&self.0, RELAY_PORT)?;
        let path = if path == "/" { "/arc".to_owned() } else { path };
        Ok(RelayUrl { endpoint, path })
    }

    /// Where a page is: the endpoint, and its path there.
    pub(super) fn page(&self) -> Result<(Endpoint, String), InvalidUrl> {
        parse(&self.0, OPS_PORT)
    }

    /// The address of an ops listener; a path has no meaning there.
    pub(super) fn ops(&self) -> Result<Endpoint, InvalidUrl> {
        match parse(&self.0, OPS_PORT) {
            Ok((endpoint, path)) if path == "/" => Ok(endpoint),
            Ok(_) | Err(InvalidUrl::Malformed) => Err(InvalidUrl::MalformedOps),
            Err(other) => Err(other),
        }
    }
}

impl RelayUrl {
    /// Where to connect to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Path of the WebSocket.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Path of `POST /register`: beside the WebSocket's, so that a relay under a prefix works.
    pub(super) fn register_path(&self) -> String {
        let parent = self.path.trim_end_matches('/').rsplit_once('/').map_or("", |(p, _)| p);
        format!("{parent}/register")
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.endpoint.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.endpoint, self.path)
    }
}

impl fmt::Display for Endpoint {
    /// As in a `Host` header: the port only if it is not the scheme's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port == default_port(self.tls) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Splits an address into endpoint and path; `local_port` is meant by a bare local host.
fn parse(text: &str, local_port: u16) -> Result<(Endpoint, String), InvalidUrl> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme_is_tls(scheme)?), rest),
        None => (None, text),
    };
    match rest.find(['?', '#']) {
        Some(at) if rest.get(at..).is_some_and(|tail| tail.contains("token=")) => {
            return Err(InvalidUrl::Credentials);
        }
        Some(_) => return Err(InvalidUrl::Query),
        None => {}
    }
    let uri: Uri = format!("http://{rest}").parse().map_err(|_| InvalidUrl::Malformed)?;
    let authority = uri.authority().ok_or(InvalidUrl::Malformed)?;
    if authority.as_str().contains('@') {
        return Err(InvalidUrl::Credentials);
    }
    let written = authority.as_str().strip_prefix(authority.host());
    let port = match written.ok_or(InvalidUrl::Malformed)?.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok().filter(|p| *p > 0).ok_or(InvalidUrl::Port)?),
        None => None,
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(InvalidUrl::Malformed);
    }
    let tls = scheme.unwrap_or_else(|| !is_local(&host));
    let unwritten = if scheme.is_none() && !tls { local_port } else { default_port(tls) };
    Ok((Endpoint { tls, host, port: port.unwrap_or(unwritten) }, uri.path().to_owned()))
}

fn scheme_is_tls(scheme: &str) -> Result<bool, InvalidUrl> {
    match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => Ok(false),
        "wss" | "https" => Ok(true),
        _ => Err(InvalidUrl::Scheme),
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A text as one segment of a path (RFC 3986, section 3.3).
pub(super) fn path_segment(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let written = |byte| {
        if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(written).collect()
}

/// Whether traffic to the host stays on this machine.
fn is_local(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relay(text: &str) -> Result<RelayUrl, InvalidUrl> {
        text.parse::<UrlText>().unwrap().relay()
    }

    #[test]
    fn addresses_mean_what_their_writer_expects() {
        for (written, meant) in [
            ("ws://localhost:8080/arc", "ws://localhost:8080/arc"),
            ("ws://localhost:8080", "ws://localhost:8080/arc"),
            ("ws://localhost:8080/", "ws://localhost:8080/arc"),
            ("http://10.0.0.1:8080", "ws://10.0.0.1:8080/arc"),
            ("https://relay.example", "wss://relay.example/arc"),
            ("WSS://relay.example:443/relays/arc", "wss://relay.example/relays/arc"),
            ("localhost", "ws://localhost:8080/arc"),
            ("localhost:9000", "ws://localhost:9000/arc"),
            ("127.0.0.1:9000/arc", "ws://127.0.0.1:9000/arc"),
            ("[::1]:9000", "ws://[::1]:9000/arc"),
            ("relay.example", "wss://relay.example/arc"),
            ("relay.example:8443", "wss://relay.example:8443/arc"),
            ("ws://relay.example", "ws://relay.example/arc"),
        ] {
            assert_eq!(relay(written).unwrap().to_string(), meant, "{written}");
        }
    }

    #[test]
    fn nonsense_is_told_apart() {
        for (written, expected) in [
            ("", InvalidUrl::Malformed),
            ("ws://", InvalidUrl::Malformed),
            ("ws://:8080", InvalidUrl::Malformed),
            ("a b", InvalidUrl::Malformed),
            ("ftp://host", InvalidUrl::Scheme),
            ("ws://host:0", InvalidUrl::Port),
            ("ws://host:99999", InvalidUrl::Port),
            ("ws://host:", InvalidUrl::Port),
            ("ws://host/arc?token=tok_abc", InvalidUrl::Credentials),
            ("ws://tok_abc@host/arc", InvalidUrl::Credentials),
            ("ws://host/arc?x=1", InvalidUrl::Query),
            ("ws://host/arc#x", InvalidUrl::Query),
        ] {
            assert_eq!(relay(written), Err(expected), "{written}");
        }
    }

    #[test]
    fn a_token_in_an_address_is_not_shown() {
        let text: UrlText = "ws://host/arc?token=tok_abc".parse().unwrap();
        assert_eq!(format!("{text:?}"), "ws://host/arc");
    }

    #[test]
    fn registration_is_beside_the_socket() {
        for (url, path) in [
            ("ws://host", "/register"),
            ("ws://host/arc/", "/register"),
            ("ws://host/relays/arc", "/relays/register"),
        ] {
            assert_eq!(relay(url).unwrap().register_path(), path, "{url}");
        }
    }

    #[test]
    fn any_text_can_stand_in_a_path() {
        assert_eq!(path_segment("node-1.eu_2"), "node-1.eu_2");
        assert_eq!(path_segment("[::1]:7946/a?b ä"), "%5B%3A%3A1%5D%3A7946%2Fa%3Fb%20%C3%A4");
    }

    #[test]
    fn the_ops_listener_has_its_own_default() {
        let ops = |text: &str| text.parse::<UrlText>().unwrap().ops();
        assert_eq!(ops("localhost").unwrap().to_string(), "localhost:8081");
        assert_eq!(ops("http://127.0.0.1:8081/").unwrap().to_string(), "127.0.0.1:8081");
        assert_eq!(ops("http://127.0.0.1:8081/stats"), Err(InvalidUrl::MalformedOps));
        assert_eq!(ops("http://"), Err(InvalidUrl::MalformedOps));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = relay(&text);
        }

        #[test]
        fn what_is_shown_means_the_same(tls: bool, host in "[a-z][a-z0-9.-]{0,20}", port in 1..=u16::MAX) {
            let url = RelayUrl { endpoint: Endpoint { tls, host, port }, path: "/arc".to_owned() };
            prop_assert_eq!(relay(&url.to_string()), Ok(url));
        }
    }
}
