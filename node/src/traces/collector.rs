//! Where traces go, as it is configured.

use std::{fmt, str::FromStr};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use percent_encoding::percent_decode_str;

use crate::{agent::url::Endpoint, config::Secret};

/// Where OTLP over HTTP is, below the collector's address.
const PATH: &str = "/v1/traces";

/// How messages are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Who takes the traces (`OTEL_EXPORTER_OTLP_ENDPOINT`); none: nothing is traced.
    pub collector: Option<Collector>,
    /// Headers that it wants, comma separated `name=value`, values percent-encoded
    /// (`OTEL_EXPORTER_OTLP_HEADERS`).
    pub headers: Option<Secret>,
    /// Of a million messages this many are traced (`OTEL_TRACES_SAMPLER_ARG`).
    pub parts_per_million: u32,
    /// What the relay is called in traces (`OTEL_SERVICE_NAME`).
    pub service: String,
}

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(Uri);

/// What is no address of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be http://host:port or https://host:port")]
pub struct InvalidCollector;

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            collector: None,
            headers: None,
            parts_per_million: 10_000,
            service: "arc-relay".into(),
        }
    }
}

impl FromStr for Collector {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, InvalidCollector> {
        let uri: Uri = text.parse().map_err(|_| InvalidCollector)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_plain =
            uri.query().is_none() && uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        (is_http && is_plain).then_some(Self(uri)).ok_or(InvalidCollector)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Collector {
    /// Where to connect to.
    pub(super) fn endpoint(&self) -> Endpoint {
        let tls = self.0.scheme_str() == Some("https");
        let host = self.0.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = self.0.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Endpoint { tls, host, port }
    }

    /// The path that takes traces.
    pub(super) fn path(&self) -> String {
        let path = self.0.path().trim_end_matches('/');
        if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") }
    }
}

/// Reads headers as `OTEL_EXPORTER_OTLP_HEADERS` has them: names as they are, values percent-encoded (W3C
/// Baggage, section 3.3, without properties). None if they cannot be read, or not be sent.
pub fn headers(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let one = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let mut value = HeaderValue::from_bytes(&decoded(value.trim())?).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    text.split(',').map(one).collect()
}

/// What is percent-encoded (RFC 3986 section 2.1); none if a percent sign has not two digits behind it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let is_escape = |behind: &str| {
        behind.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let is_whole = text.split('%').skip(1).all(is_escape);
    is_whole.then(|| percent_decode_str(text).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_other_programs_take_it() {
        for (text, tls, host, port, path) in [
            ("http://localhost:4318", false, "localhost", 4318, "/v1/traces"),
            ("https://otel.example/", true, "otel.example", 443, "/v1/traces"),
            ("http://[::1]:4318/base", false, "::1", 4318, "/base/v1/traces"),
            ("https://a.example/v1/traces", true, "a.example", 443, "/v1/traces"),
        ] {
            let collector: Collector = text.parse().unwrap();
            assert_eq!(collector.endpoint(), Endpoint { tls, host: host.into(), port });
            assert_eq!(collector.path(), path);
        }
        for text in ["", "localhost:4318", "grpc://a:4317", "http://u:p@a", "http://a/?b=c"] {
            assert_eq!(text.parse::<Collector>(), Err(InvalidCollector), "{text}");
        }
    }

    #[test]
    fn headers_are_names_and_values() {
        let read = headers("api-key=abc=, x-tenant = 7").unwrap();
        let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(read, [("api-key", "abc="), ("x-tenant", "7")]);
        for text in ["", "novalue", "a b=c", "a=b\nc"] {
            assert!(headers(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn values_are_percent_encoded() {
        for (text, value) in [
            ("Authorization=Basic%20YTpi", "Basic YTpi"),
            ("a=x%2cy%2Cz%3D%25", "x,y,z=%"),
            ("a=1%2B1+2%252", "1+1+2%2"),
            ("a=x;y", "x;y"),
        ] {
            assert_eq!(headers(text).unwrap()[0].1, value, "{text}");
        }
        assert_eq!(headers("a=%C3%A9").unwrap()[0].1.as_bytes(), "é".as_bytes());
        for text in
            ["a=%", "a=%2", "a=%zz", "a=50%", "a=%+1", "a=%20%2", "a=%é", "a=%0d%0ab", "a=%00"]
        {
            assert!(headers(text).is_none(), "{text:?}");
        }
    }
}
