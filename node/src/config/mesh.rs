//! How this node takes part in a cluster: as configured, checked but not yet looked up.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use cluster::membership::SeedAddress;
use tls::mesh::{MeshFiles, Secret};

/// The mesh's port, if none is named.
pub const MESH_PORT: u16 = 7946;

/// Characters of the longest host name (RFC 1035, section 2.3.4).
const HOST_CHARS_MAX: usize = 253;

/// How this node takes part in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Nodes to start from, this one among them or not (`SEEDS`).
    pub seeds: Vec<SeedAddress>,
    /// The secret that all nodes of the cluster share (`CLUSTER_SECRET`).
    pub secret: Option<Secret>,
    /// What it was before, while the cluster changes it: nodes and data on the disk may go by it still
    /// (`CLUSTER_SECRET_PREVIOUS`).
    pub previous_secret: Option<Secret>,
    /// Certificate of the cluster's authority (`MESH_CA`).
    pub ca: Option<PathBuf>,
    /// This node's certificate (`MESH_CERT`).
    pub cert: Option<PathBuf>,
    /// The key of this node's certificate (`MESH_KEY`).
    pub key: Option<PathBuf>,
    /// Address of the mesh's port (`MESH_HOST`).
    pub host: IpAddr,
    /// The mesh's port, UDP (`MESH_PORT`); 0 lets the system choose.
    pub port: u16,
    /// Where other nodes reach this one; none if it is to be found out (`ADVERTISE`).
    pub advertise: Option<Advertise>,
}

/// What makes this node one of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The secret that all nodes share, and the one that some still have.
    Secret(Secret, Option<Secret>),
    /// Files that the operator gave to this one.
    Files(MeshFiles),
}

/// Where other nodes reach this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Advertise {
    /// A name in small letters, or an IP address, without brackets.
    pub host: String,
    /// The port; none if it is the one that the mesh is bound to.
    pub port: Option<u16>,
}

/// The text is no place that could be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is a host or host:port, and 0.0.0.0 or :: is none")]
pub struct InvalidAddress;

impl MeshConfig {
    /// What makes this node one of a cluster; none if it stands alone.
    pub fn credentials(&self) -> Option<Credentials> {
        if let Some(secret) = &self.secret {
            return Some(Credentials::Secret(secret.clone(), self.previous_secret.clone()));
        }
        let files =
            MeshFiles { ca: self.ca.clone()?, cert: self.cert.clone()?, key: self.key.clone()? };
        Some(Credentials::Files(files))
    }

    /// Whether any of the files is named.
    pub(super) fn names_files(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            secret: None,
            previous_secret: None,
            ca: None,
            cert: None,
            key: None,
            host: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port: MESH_PORT,
            advertise: None,
        }
    }
}

/// Reads where a node can be asked for the others.
pub(super) fn seed(text: &str) -> Result<SeedAddress, InvalidAddress> {
    let (host, port) = place(text).ok_or(InvalidAddress)?;
    Ok(SeedAddress { host, port: port.unwrap_or(MESH_PORT) })
}

impl FromStr for Advertise {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = place(text).ok_or(InvalidAddress)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.host, self.port)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, host: &str, port: Option<u16>) -> fmt::Result {
    match port {
        Some(port) if host.contains(':') => write!(f, "[{host}]:{port}"),
        Some(port) => write!(f, "{host}:{port}"),
        None => f.write_str(host),
    }
}

/// The host and the port in `host`, `host:port`, an IPv6 address, or `[IPv6 address]:port`.
fn place(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((dialable(address.into())?, None));
    }
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let address = address.parse::<Ipv6Addr>().ok()?;
        let port = match port {
            "" => None,
            port => Some(read_port(port.strip_prefix(':')?)?),
        };
        return Some((dialable(address.into())?, port));
    }
    match text.split_once(':') {
        Some((name, port)) => Some((host(name)?, Some(read_port(port)?))),
        None => Some((host(text)?, None)),
    }
}

/// An IPv4 address or a name; of which the dot behind the last label, the root's, is left off.
pub(super) fn host(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next()?;
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        // No name ends so, and an address with a slip in it is not to be looked up as one.
        return dialable(text.parse::<Ipv4Addr>().ok()?.into());
    }
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let good = text.len() <= HOST_CHARS_MAX
        && text.bytes().all(in_name)
        && text.split('.').all(|label| !label.is_empty() && !label.starts_with('-'));
    good.then(|| text.to_ascii_lowercase())
}

/// An address as there is one way to write it.
fn dialable(address: IpAddr) -> Option<String> {
    let address = address.to_canonical();
    (!address.is_unspecified()).then(|| address.to_string())
}

fn read_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_have_the_meshs_port_if_they_name_none() {
        for (text, shown) in [
            ("node-1", "node-1:7946"),
            ("Node-1.Example.COM", "node-1.example.com:7946"),
            ("node_1:1", "node_1:1"),
            ("10.0.0.1", "10.0.0.1:7946"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("fd00::1", "[fd00::1]:7946"),
            ("[FD00::1]", "[fd00::1]:7946"),
            ("[fd00::1]:9", "[fd00::1]:9"),
            ("node-1.example.com.:1", "node-1.example.com:1"),
            ("[fd00:0::0001]", "[fd00::1]:7946"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
        ] {
            let read = seed(text).expect(text);
            assert_eq!(read.to_string(), shown);
            assert_eq!(seed(shown), Ok(read));
        }
    }

    #[test]
    fn what_is_advertised_may_leave_the_port_open() {
        for (text, host, port) in [
            ("relay.example.com", "relay.example.com", None),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:80", "fd00::1", Some(80)),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
        ] {
            let advertise = Advertise { host: host.into(), port };
            assert_eq!(text.parse(), Ok(advertise.clone()), "{text}");
            assert_eq!(advertise.to_string().parse(), Ok(advertise));
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for text in [
            "",
            ":7946",
            "a b",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:b",
            "a:1:2",
            "10.0.0",
            "10.0.0.300",
            "0.0.0.0",
            "0.0.0.0:1",
            "::",
            "[::]:1",
            "::ffff:0.0.0.0",
            "[::1",
            "[::1]7946",
            "[::1]:",
            "[a]:1",
            "https://a",
            "a/b",
            "nöde",
            "a..b",
            ".a",
            "a..",
            ".",
            "-a",
            "1",
            &"a".repeat(254),
        ] {
            assert_eq!(seed(text), Err(InvalidAddress), "{text}");
            assert_eq!(text.parse::<Advertise>(), Err(InvalidAddress), "{text}");
        }
    }

    #[test]
    fn credentials_are_the_secret_or_all_files() {
        let mut config = MeshConfig::default();
        assert_eq!(config.credentials(), None);
        (config.ca, config.cert) = (Some("ca".into()), Some("cert".into()));
        assert_eq!(config.credentials(), None);
        config.key = Some("key".into());
        let files = MeshFiles { ca: "ca".into(), cert: "cert".into(), key: "key".into() };
        assert_eq!(config.credentials(), Some(Credentials::Files(files)));
        config.secret = Some(Secret::generate());
        assert!(matches!(config.credentials(), Some(Credentials::Secret(..))));
    }
}
