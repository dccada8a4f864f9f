//! What the nodes of a cluster say of agents' TLS: `GET /tls` on the ops listener, which
//! `arc-relay tls check` goes by.
//!
//! Each node speaks for itself; the one that is asked asks the others. Whether it is true what they say,
//! handshakes show, and they are not made here.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use cluster::UnixMillis;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tls::{
    acme::Challenge,
    agents::{self, Chain},
};
use utoipa::ToSchema;

use crate::{
    certificates::Certificates,
    relay::{Relay, TlsDoors},
    report::{self, NodeReport},
};

/// Agents' TLS in a cluster: the body of `GET /tls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterTls {
    /// Id of the node that was asked.
    pub node: String,
    /// All nodes, by region and name.
    pub nodes: Vec<NodeTls>,
}

/// Agents' TLS on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeTls {
    /// Its id: sixteen hexadecimal digits.
    pub id: String,
    /// What its operator calls it.
    pub name: String,
    /// `joining`, `alive`, `suspect`, `leaving`, `left` or `dead`.
    pub state: String,
    /// Where its mesh port is reached; none if it has none.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What it says; none if it was not reached, or is of a release that does not say.
    pub says: Option<NodeSays>,
}

/// What a node says of agents' TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeSays {
    /// What time it is there, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub clock: UnixMillis,
    /// Whether agents are to come through a proxy, which may encrypt for it.
    pub behind_proxy: bool,
    /// How it speaks TLS; none if agents connect without.
    pub tls: Option<TlsState>,
}

/// How a node speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TlsState {
    /// Where the certificate comes from: `files`, `self-signed` or `acme`.
    pub source: String,
    /// The one address at which agents reach it; none if it listens on all that it has.
    #[schema(value_type = Option<String>)]
    pub host: Option<IpAddr>,
    /// The port for agents.
    pub port: u16,
    /// The port that sends clients of plain HTTP to the encrypted one; none if it is closed.
    pub http_port: Option<u16>,
    /// The certificates that are served; none before the first has come.
    pub certificates: Vec<CertificateReport>,
    /// What is wrong with a newer one, if anything is.
    pub problem: Option<String>,
    /// How it is with the orders, if certificates come from an authority.
    pub acme: Option<AcmeState>,
}

/// A certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateReport {
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// Who has issued it.
    pub issuer: String,
    /// From when on it is good, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub not_before: UnixMillis,
    /// Until when it is good, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub not_after: UnixMillis,
    /// SHA-256 of it, in hexadecimal digits.
    pub fingerprint: String,
}

/// How it is with an authority's certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcmeState {
    /// The names that the certificate is to be for.
    pub domains: Vec<String>,
    /// The authority's directory.
    pub directory: String,
    /// How a name is proven: `tls-alpn-01` or `http-01`.
    pub challenge: String,
    /// What vouches for the authority, PEM, if it is none that browsers trust.
    pub ca_root: Option<String>,
    /// Orders that have failed since the last that succeeded, in the whole cluster.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// When the next order is due, to renew or to try again, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub next_at: UnixMillis,
    /// Whether this node orders now: of a cluster one node does.
    pub ordering: bool,
}

/// What all nodes say; those that do not within the time that a question has say nothing.
pub async fn cluster(relay: &Relay) -> ClusterTls {
    let report = report::cluster(relay);
    let nodes = join_all(report.nodes.into_iter().map(|node| one(relay, node))).await;
    ClusterTls { node: relay.node.to_string(), nodes }
}

async fn one(relay: &Relay, node: NodeReport) -> NodeTls {
    let says = if node.id == relay.node.to_string() {
        Some(own(relay))
    } else {
        asked(relay, &node).await
    };
    let address = node.address.map(|address| address.ip().to_canonical());
    NodeTls { id: node.id, name: node.name, state: node.state, address, says }
}

async fn asked(relay: &Relay, node: &NodeReport) -> Option<NodeSays> {
    if !report::is_there(&node.state) {
        return None;
    }
    relay.peers()?.tls_of(node.id.parse().ok()?).await
}

/// What this node says.
pub fn own(relay: &Relay) -> NodeSays {
    let clock = relay.clock.wall();
    let tls = relay.certificates().zip(relay.tls_doors());
    NodeSays {
        clock,
        behind_proxy: relay.config.behind_proxy,
        tls: tls.map(|(certificates, doors)| state(certificates, doors)),
    }
}

fn state(certificates: &Certificates, doors: TlsDoors) -> TlsState {
    let TlsDoors { address, http_port } = doors;
    let chains = certificates.served().chains();
    TlsState {
        source: certificates.source().into(),
        host: host(address),
        port: address.port(),
        http_port,
        certificates: chains.iter().filter_map(Chain::description).map(Into::into).collect(),
        problem: certificates.problem(),
        acme: acme(certificates),
    }
}

fn host(address: SocketAddr) -> Option<IpAddr> {
    let ip = address.ip().to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}

fn acme(certificates: &Certificates) -> Option<AcmeState> {
    let orders = certificates.orders()?;
    let (settings, status) = (orders.settings(), orders.status());
    let challenge = match settings.challenge {
        Challenge::TlsAlpn01 => TLS_ALPN_01,
        Challenge::Http01 => HTTP_01,
    };
    Some(AcmeState {
        domains: status.domains,
        directory: settings.directory.clone(),
        challenge: challenge.into(),
        ca_root: orders.ca_root_pem().map(str::to_owned),
        failures: status.failures,
        last_error: status.last_error,
        next_at: unix(status.next_at),
        ordering: status.ordering,
    })
}

/// See [`AcmeState::challenge`].
pub const TLS_ALPN_01: &str = "tls-alpn-01";

/// See [`AcmeState::challenge`].
pub const HTTP_01: &str = "http-01";

impl From<agents::Description> for CertificateReport {
    fn from(told: agents::Description) -> Self {
        Self {
            names: told.names,
            issuer: told.issuer,
            not_before: unix(told.not_before),
            not_after: unix(told.not_after),
            fingerprint: told.fingerprint,
        }
    }
}

fn unix(since_1970: Duration) -> UnixMillis {
    UnixMillis::default().plus(since_1970)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::relay::testing::relay;

    #[tokio::test]
    async fn a_node_without_tls_says_so() {
        let (relay, _, _) = relay();
        let told = cluster(&relay).await;
        let [node] = told.nodes.as_slice() else { panic!("it is alone: {told:?}") };
        let says = node.says.as_ref().unwrap();
        assert_eq!((&node.id, says.tls.is_none()), (&told.node, true));
        assert_eq!(says.clock, relay.clock.wall());
    }

    /// Nodes of two releases ask each other: what is said may grow, and must not change.
    #[test]
    fn what_nodes_say_to_each_other_is_frozen() {
        let says = json!({
            "clock": 5, "behind_proxy": false,
            "tls": {
                "source": "acme", "host": "192.0.2.1", "port": 443, "http_port": 80,
                "certificates": [{
                    "names": ["a.example"], "issuer": "CN=x", "not_before": 1, "not_after": 2,
                    "fingerprint": "ab",
                }],
                "problem": null,
                "acme": {
                    "domains": ["a.example"], "directory": "https://ca.example/dir",
                    "challenge": "tls-alpn-01", "ca_root": null, "failures": 1,
                    "last_error": "no", "next_at": 9, "ordering": true,
                },
            },
        });
        let read: NodeSays = serde_json::from_value(says.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), says);
        let mut newer = says;
        newer["news"] = Value::Null;
        assert_eq!(serde_json::from_value::<NodeSays>(newer).unwrap(), read);
    }
}
