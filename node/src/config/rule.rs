//! What a setting's value may look like: reading it, showing it, and saying what is allowed.
//!
//! A rule is pure and total: any text is either read or refused. The strings behind `allowed` follow
//! the words "must be".

use std::{
    fmt::Display,
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use cluster::membership::SeedAddress;

use super::{
    Advertise, LogFormat, Secret, SubscribeScope,
    mesh::{host, seed},
};
use crate::{
    logging,
    traces::{self, Collector},
};

/// How values of type `T` are written.
pub(super) struct Rule<T> {
    /// What is allowed, to follow "must be".
    pub(super) allowed: String,
    /// The value's name in `--help`.
    pub(super) value_name: &'static str,
    /// What the flag means when no value follows it; none if one must.
    pub(super) bare: Option<&'static str>,
    read: Read<T>,
    show: Show<T>,
}

type Read<T> = Box<dyn Fn(&str) -> Option<T> + Send + Sync>;
type Show<T> = Box<dyn Fn(&T) -> String + Send + Sync>;

impl<T: 'static> Rule<T> {
    pub(super) fn new(
        value_name: &'static str,
        allowed: impl Into<String>,
        read: impl Fn(&str) -> Option<T> + Send + Sync + 'static,
        show: impl Fn(&T) -> String + Send + Sync + 'static,
    ) -> Self {
        let (read, show) = (Box::new(read), Box::new(show));
        Self { allowed: allowed.into(), value_name, bare: None, read, show }
    }

    /// Reads `text`, spaces around it aside; none if it is not allowed.
    pub(super) fn read(&self, text: &str) -> Option<T> {
        (self.read)(text.trim())
    }

    /// `value` as it would be written.
    pub(super) fn show(&self, value: &T) -> String {
        (self.show)(value)
    }

    /// The same, or `word` (or 0) for none.
    pub(super) fn or(self, word: &'static str) -> Rule<Option<T>> {
        let Self { allowed, value_name, read, show, .. } = self;
        Rule::new(
            value_name,
            format!("{allowed}, or {word}"),
            move |text| match text {
                "0" => Some(None),
                _ if text.eq_ignore_ascii_case(word) => Some(None),
                _ => read(text).map(Some),
            },
            move |value| value.as_ref().map_or_else(|| word.into(), &show),
        )
    }
}

/// A whole number within `range`.
pub(super) fn number<T>(range: RangeInclusive<u64>) -> Rule<T>
where
    T: TryFrom<u64> + Display + 'static,
{
    Rule::new(
        "N",
        format!("a whole number from {} to {}", range.start(), range.end()),
        move |text| within(&range, plain_number(text)?).and_then(|n| T::try_from(n).ok()),
        T::to_string,
    )
}

/// A port, or none; 0 lets the system choose.
pub(super) fn port() -> Rule<Option<u16>> {
    Rule::new(
        "N",
        "a whole number from 0 to 65535, or none",
        |text| match text {
            _ if text.eq_ignore_ascii_case("none") => Some(None),
            _ => plain_number(text)?.try_into().ok().map(Some),
        },
        |port: &Option<u16>| port.map_or_else(|| "none".into(), |port| port.to_string()),
    )
}

/// A number of bytes within `range`.
pub(super) fn bytes(range: RangeInclusive<u64>) -> Rule<usize> {
    let bounds = (show_bytes(*range.start()), show_bytes(*range.end()));
    Rule::new(
        "BYTES",
        format!("a size from {} to {}, such as 65536, 64KiB or 1MiB", bounds.0, bounds.1),
        move |text| within(&range, read_bytes(text)?).and_then(|n| usize::try_from(n).ok()),
        |size| u64::try_from(*size).map_or_else(|_| size.to_string(), show_bytes),
    )
}

/// A span of time within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Rule<Duration> {
    let bounds = (show_duration(range.start()), show_duration(range.end()));
    Rule::new(
        "DURATION",
        format!(
            "a duration from {} to {}, such as 500ms, 30s, 12h or 30d (a bare number is seconds)",
            bounds.0, bounds.1
        ),
        move |text| within(&range, read_duration(text)?),
        show_duration,
    )
}

/// `true` or `false`; the flag alone means `true`.
pub(super) fn switch() -> Rule<bool> {
    let words = [("true", true), ("false", false), ("1", true), ("0", false)];
    let more = [("yes", true), ("no", false), ("on", true), ("off", false)];
    let read = move |text: &str| find_word(words.iter().chain(&more), text);
    let rule = Rule::new("BOOL", "true or false", read, bool::to_string);
    Rule { bare: Some("true"), ..rule }
}

/// One of `words`.
pub(super) fn choice<T>(words: &'static [(&'static str, T)]) -> Rule<T>
where
    T: Copy + PartialEq + Sync + 'static,
{
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    Rule::new(
        "WORD",
        format!("one of {}", names.join(", ")),
        move |text| find_word(words.iter(), text),
        move |value| {
            let name = words.iter().find(|(_, meaning)| meaning == value).map(|(name, _)| *name);
            name.unwrap_or_default().into()
        },
    )
}

/// What `NODE_ENV` may be; true means production.
pub(super) fn environment() -> Rule<bool> {
    choice(&[("development", false), ("production", true), ("test", false)])
}

/// What `SUBSCRIBE_SCOPE` may be.
pub(super) fn subscribe_scope() -> Rule<SubscribeScope> {
    choice(&[("broadcasts", SubscribeScope::Broadcasts), ("all", SubscribeScope::All)])
}

/// What `LOG_FORMAT` may be.
pub(super) fn log_format() -> Rule<LogFormat> {
    choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

/// What `LOG_LEVEL` may be.
pub(super) fn log_filter() -> Rule<String> {
    Rule::new(
        "LEVEL",
        "one of error, warn, info, debug, trace, silent, or comma-separated directives such as \
         info,node=debug",
        |text| logging::filter(text).map(|_| text.into()),
        String::clone,
    )
}

/// An address to listen on.
pub(super) fn address() -> Rule<IpAddr> {
    Rule::new(
        "ADDRESS",
        "an IP address, such as 127.0.0.1 (this machine only), 0.0.0.0 or :: (all interfaces)",
        |text| match text {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            _ => match in_brackets(text) {
                Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                None => text.parse().ok(),
            },
        },
        IpAddr::to_string,
    )
}

/// Addresses and networks, comma separated.
pub(super) fn networks() -> Rule<Vec<IpNet>> {
    let read_one =
        |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    Rule::new(
        "NETWORKS",
        "IP addresses or networks, comma separated, such as 127.0.0.1,10.0.0.0/8, or none",
        move |text| match text {
            "" | "none" => Some(Vec::new()),
            _ => text.split(',').map(|part| read_one(part.trim())).collect(),
        },
        |networks| match networks.as_slice() {
            [] => "none".into(),
            all => join(all.iter().map(|network| match network.prefix_len() {
                length if length == network.max_prefix_len() => network.addr().to_string(),
                _ => network.to_string(),
            })),
        },
    )
}

/// Names of hosts in small letters, comma separated; `*` for any, `*.` before a name for any below it.
pub(super) fn names() -> Rule<Vec<String>> {
    let read_one = |text: &str| {
        let (below, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
        if text == "*" { Some(text.into()) } else { Some(format!("{below}{}", host(name)?)) }
    };
    Rule::new(
        "NAMES",
        "host names, comma separated, such as relay-1.example.com,*.ops.example.com, or * for any, or none",
        move |text| match text {
            "none" => Some(Vec::new()),
            _ => text.split(',').map(|part| read_one(part.trim())).collect(),
        },
        |names| match names.as_slice() {
            [] => "none".into(),
            all => join(all.iter().cloned()),
        },
    )
}

/// Web origins, comma separated, as browsers send them; `*` is any, and so is none.
pub(super) fn origins() -> Rule<Option<Vec<String>>> {
    Rule::new(
        "ORIGINS",
        "origins without a path, comma separated, such as https://example.com,http://localhost:3000, \
         or * for any",
        |text| {
            let parts = || text.split(',').map(str::trim);
            let read: Option<Vec<_>> = parts().filter(|part| *part != "*").map(origin).collect();
            let read = read?;
            Some((!parts().any(|part| part == "*")).then_some(read))
        },
        |origins| origins.as_ref().map_or_else(|| "*".into(), |all| join(all.iter().cloned())),
    )
}

/// A name that people read.
pub(super) fn title() -> Rule<String> {
    Rule::new(
        "NAME",
        "1 to 64 characters without control characters",
        |text| {
            let good = (1..=64).contains(&text.chars().count());
            (good && !text.contains(char::is_control)).then(|| text.into())
        },
        String::clone,
    )
}

/// A name that machines compare.
pub(super) fn label() -> Rule<String> {
    Rule::new(
        "NAME",
        "1 to 63 letters, digits, dots, hyphens or underscores, the first a letter or digit",
        |text| {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
            (starts && text.len() <= 63 && text.chars().all(good)).then(|| text.into())
        },
        String::clone,
    )
}

/// A folder.
pub(super) fn folder() -> Rule<PathBuf> {
    Rule::new(
        "PATH",
        "the path of a folder",
        |text| (!text.is_empty() && !text.contains('\0')).then(|| text.into()),
        |path: &PathBuf| path.display().to_string(),
    )
}

/// A file that may be given.
pub(super) fn file() -> Rule<Option<PathBuf>> {
    Rule::new(
        "PATH",
        "the path of a file, or none",
        |text| match text {
            "none" => Some(None),
            _ => (!text.is_empty() && !text.contains('\0')).then(|| Some(text.into())),
        },
        |path: &Option<PathBuf>| match path {
            Some(path) => path.display().to_string(),
            None => "none".into(),
        },
    )
}

/// Nodes to start from, comma separated.
pub(super) fn seeds() -> Rule<Vec<SeedAddress>> {
    let read_all = |text: &str| {
        let mut seeds: Vec<SeedAddress> = Vec::new();
        for part in text.split(',') {
            let seed = seed(part.trim()).ok()?;
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
        Some(seeds)
    };
    Rule::new(
        "SEEDS",
        "hosts or host:port, comma separated, such as node-1:7946,10.0.0.2, or none",
        move |text| match text {
            "none" => Some(Vec::new()),
            _ => read_all(text),
        },
        |seeds| match seeds.as_slice() {
            [] => "none".into(),
            all => join(all.iter().map(ToString::to_string)),
        },
    )
}

/// Where other nodes reach this one.
pub(super) fn advertise() -> Rule<Option<Advertise>> {
    Rule::new(
        "ADDRESS",
        "a host or host:port that other nodes can reach, such as 10.0.0.1 or node-1:7946, not 0.0.0.0 \
         or ::; or auto",
        |text| match text {
            "auto" => Some(None),
            _ => text.parse().ok().map(Some),
        },
        |advertise| advertise.as_ref().map_or_else(|| "auto".into(), ToString::to_string),
    )
}

/// What all nodes of a cluster share; never shown.
pub(super) fn cluster_secret() -> Rule<Option<tls::mesh::Secret>> {
    Rule::new(
        "SECRET",
        "arcs_ and 48 characters, just as `arc-relay secret` printed them: one is missing or wrong",
        |text| text.parse().ok().map(Some),
        |secret| if secret.is_some() { "(hidden)".into() } else { "none".into() },
    )
}

/// A secret that travels in an `Authorization` header; never shown.
pub(super) fn secret() -> Rule<Option<Secret>> {
    Rule::new(
        "SECRET",
        "8 to 256 visible ASCII characters without spaces, commas or quotes",
        |text| {
            let good = |b: &u8| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\'');
            ((8..=256).contains(&text.len()) && text.as_bytes().iter().all(good))
                .then(|| Some(text.into()))
        },
        |secret| if secret.is_some() { "(hidden)".into() } else { "none".into() },
    )
}

/// Who takes traces.
pub(super) fn collector() -> Rule<Option<Collector>> {
    Rule::new(
        "URL",
        "http://host:port or https://host:port of a collector that speaks OTLP over HTTP, or none",
        |text| match text {
            "none" => Some(None),
            _ => text.parse().ok().map(Some),
        },
        |collector| collector.as_ref().map_or_else(|| "none".into(), ToString::to_string),
    )
}

/// Headers that a collector wants; they may hold a key, and are never shown.
pub(super) fn collector_headers() -> Rule<Option<Secret>> {
    Rule::new(
        "HEADERS",
        "name=value, comma separated, values percent-encoded (%20 is a space, %25 a percent sign)",
        |text| traces::headers(text).map(|_| Some(text.into())),
        |headers| if headers.is_some() { "(hidden)".into() } else { "none".into() },
    )
}

/// A share from 0 to 1, in millionths.
pub(super) fn share() -> Rule<u32> {
    Rule::new(
        "SHARE",
        "a number from 0 to 1 with at most six decimal places, such as 0.01",
        |text| {
            let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
            let is_plain = (1..=6).contains(&decimals.len());
            let millionths = plain_number(&format!("{decimals:0<6}")).filter(|_| is_plain)?;
            let share = plain_number(whole)?.checked_mul(1_000_000)?.checked_add(millionths)?;
            within(&(0..=1_000_000), share)?.try_into().ok()
        },
        |share| {
            let text = format!("{}.{:06}", share / 1_000_000, share % 1_000_000);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        },
    )
}

fn within<T: PartialOrd>(range: &RangeInclusive<T>, value: T) -> Option<T> {
    range.contains(&value).then_some(value)
}

fn find_word<'a, T: Copy + 'a>(
    mut words: impl Iterator<Item = &'a (&'static str, T)>,
    text: &str,
) -> Option<T> {
    words.find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, meaning)| *meaning)
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// Digits only: `u64::from_str` would also take a plus sign.
fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

const BYTE_UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

fn read_bytes(text: &str) -> Option<u64> {
    let unit = |(unit, shift): &(&str, u32)| {
        let digits = text.strip_suffix(unit)?.trim_end();
        plain_number(digits)?.checked_mul(1 << shift)
    };
    plain_number(text).or_else(|| BYTE_UNITS.iter().find_map(unit))
}

fn show_bytes(bytes: u64) -> String {
    let whole = |(_, shift): &&(&str, u32)| bytes > 0 && bytes.is_multiple_of(1 << shift);
    match BYTE_UNITS.iter().find(whole) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

fn read_duration(text: &str) -> Option<Duration> {
    plain_number(text).map(Duration::from_secs).or_else(|| humantime::parse_duration(text).ok())
}

/// In the one largest unit that fits evenly; `humantime` would say "11months 29days".
fn show_duration(duration: &Duration) -> String {
    const UNITS: [(&str, u128); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let nanos = duration.as_nanos();
    let unit =
        UNITS.iter().find(|(_, millis)| nanos > 0 && nanos.is_multiple_of(millis * 1_000_000));
    match unit {
        Some((unit, millis)) => format!("{}{unit}", nanos / (millis * 1_000_000)),
        None => humantime::format_duration(*duration).to_string(),
    }
}

/// `scheme://host[:port]` in the spelling that browsers use: lower case, no default port (RFC 6454,
/// section 6.2).
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let in_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme) {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        Some(port) => Some(within(&(1..=65_535), plain_number(port)?)?),
        None => None,
    };
    let default_port = match scheme {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    };
    is_host(host).then(|| match port {
        Some(port) if Some(port) != default_port => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match in_brackets(host) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(good),
    }
}

/// What stands between square brackets, as IPv6 addresses do in URLs (RFC 3986, section 3.2.2).
fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
