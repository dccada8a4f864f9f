//! What was seen of a cluster's TLS: what the nodes say, and what their doors show. Only facts, as they
//! are printed for programs.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::tls_report::{CertificateReport, NodeTls};

/// The port of `https://`, and of an authority's tls-alpn-01 challenges (RFC 8737, section 3).
pub(super) const HTTPS_PORT: u16 = 443;

/// The port of `http://`, and of an authority's http-01 challenges (RFC 8555, section 8.3).
pub(super) const HTTP_PORT: u16 = 80;

/// All that was seen.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Observed {
    /// When, by the clock of this machine, in Unix milliseconds.
    pub(super) at: u64,
    /// Id of the node that was asked for the others.
    pub(super) asked: String,
    /// The nodes.
    pub(super) nodes: Vec<NodeSeen>,
    /// The names for which certificates come from an authority.
    pub(super) domains: Vec<DomainSeen>,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeSeen {
    /// What it says, and where it is.
    #[serde(flatten)]
    pub(super) told: NodeTls,
    /// Where it was looked for; none if it has no TLS, or nobody knows where it is.
    pub(super) reached_at: Option<IpAddr>,
    /// What its port for agents shows, name by name.
    pub(super) shown: Vec<Handshake>,
    /// Its port of plain HTTP; none if it has none.
    pub(super) plain: Option<Door>,
}

/// A name, and where the DNS leads those who look for it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DomainSeen {
    pub(super) name: String,
    /// Why the DNS does not say, if it does not.
    pub(super) dns_error: Option<String>,
    /// What is there.
    pub(super) places: Vec<Place>,
}

/// An address that a name leads to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    pub(super) address: IpAddr,
    /// What its port 443 shows.
    pub(super) https: Handshake,
    /// What the port shows that the nodes have for agents, where that is another.
    pub(super) own_port: Option<Handshake>,
    /// Its port 80.
    pub(super) http: Door,
}

/// What a client of TLS sees.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Handshake {
    pub(super) address: SocketAddr,
    /// The host that was asked for.
    pub(super) name: String,
    /// Whether anything accepts connections there.
    pub(super) accepts: bool,
    /// What it shows.
    pub(super) certificate: Option<CertificateReport>,
    /// Why a client refuses that, if it does.
    pub(super) distrust: Option<Mistrust>,
    /// Why nothing was shown.
    pub(super) error: Option<String>,
}

/// Why a client refuses a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mistrust {
    /// No authority that it knows has issued it.
    UnknownIssuer,
    /// It is for other hosts.
    OtherName,
    /// It is out of its time, which the certificate itself says.
    Time,
    /// Something else, in words.
    Other(String),
}

/// A port of plain HTTP.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// Whether it answers as a relay's does, that speaks TLS beside it.
    pub(super) is_relay: bool,
    /// Why there is no answer, or whose it is not.
    pub(super) error: Option<String>,
}
