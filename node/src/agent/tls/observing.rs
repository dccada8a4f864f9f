//! Looks at a cluster's TLS: asks one node what all say, resolves the names, and knocks at the doors. Judges
//! nothing.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use rustls::RootCertStore;
use serde::de::IgnoredAny;
use tls::agents::{Distrust, Seen, add_pem, web_roots};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::observed::{
    DomainSeen, Door, HTTP_PORT, HTTPS_PORT, Handshake, Mistrust, NodeSeen, Observed, Place,
};
use crate::{
    agent::{
        args::OpsArgs,
        connect::Connector,
        failure::Failure,
        http::{Call, call},
        url::Endpoint,
    },
    clock::Clock,
    tls_report::{ClusterTls, NodeTls, TlsState},
};

/// What the DNS is taken to say of a name.
pub(super) type Given = (String, IpAddr);

/// Doors that are knocked at at a time.
const KNOCKS: usize = 32;

/// How long a door may take to open: many are closed by dropping what comes.
const DOOR_PATIENCE: Duration = Duration::from_secs(5);

/// What answers on the port of plain HTTP of a relay that speaks TLS.
const RELAY_ANSWERS: [&str; 2] = ["tls_required", "no_certificate"];

/// Looks at everything.
///
/// # Errors
/// The node does not answer, or does not know the question.
pub(super) async fn observe(
    ops: &OpsArgs,
    given: &[Given],
    clock: &Clock,
) -> Result<Observed, Failure> {
    let cluster: ClusterTls = ops.ask(Call { path: "/tls", ..Call::default() }).await?;
    let at = clock.wall().0;
    let endpoint = ops.endpoint()?;
    let eye = Eye {
        roots: roots(&cluster, ops.ca.as_deref()).await?,
        patience: ops.timeout.min(DOOR_PATIENCE),
        now: Duration::from_millis(at),
    };
    let (here, domains) = (&eye, wanted(&cluster));
    let port = cluster.nodes.iter().filter_map(tls).map(|tls| tls.port).next();
    let asked = cluster.node.clone();
    let nodes = stream::iter(cluster.nodes).map(|node| {
        let fallback = (node.id == asked).then_some(&endpoint);
        here.node(node, fallback)
    });
    let nodes = nodes.buffered(KNOCKS).collect().await;
    let domains = stream::iter(domains).map(|name| here.domain(name, given, port));
    let domains = domains.buffered(KNOCKS).collect().await;
    Ok(Observed { at, asked: cluster.node, nodes, domains })
}

fn tls(node: &NodeTls) -> Option<&TlsState> {
    node.says.as_ref()?.tls.as_ref()
}

/// The names that are to be proven to an authority.
fn wanted(cluster: &ClusterTls) -> BTreeSet<String> {
    let acme = cluster.nodes.iter().filter_map(|node| tls(node)?.acme.as_ref());
    acme.flat_map(|acme| acme.domains.iter().cloned()).collect()
}

/// Whom a client trusts here: the web's authorities, that of the nodes' ACME directory, and the user's.
async fn roots(cluster: &ClusterTls, ca: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = web_roots();
    let acme = cluster.nodes.iter().filter_map(|node| tls(node)?.acme.as_ref());
    let given: BTreeSet<_> = acme.filter_map(|acme| acme.ca_root.as_deref()).collect();
    for pem in given {
        add_pem(&mut roots, pem.as_bytes()).map_err(Failure::NotRelay)?;
    }
    if let Some(path) = ca {
        let pem = tokio::fs::read(path).await;
        let pem = pem.map_err(|source| Failure::Read { path: path.to_owned(), source })?;
        add_pem(&mut roots, &pem)
            .map_err(|reason| Failure::Authority { path: path.to_owned(), reason })?;
    }
    Ok(roots)
}

/// Sees what a client sees.
struct Eye {
    roots: RootCertStore,
    patience: Duration,
    /// Since 1970.
    now: Duration,
}

impl Eye {
    /// A node that says neither where it listens nor where the mesh reaches it is where its ops port is.
    async fn node(&self, told: NodeTls, fallback: Option<&Endpoint>) -> NodeSeen {
        let Some(tls) = tls(&told) else {
            return NodeSeen { told, reached_at: None, shown: Vec::new(), plain: None };
        };
        let reached_at = match (tls.host.or(told.address), fallback) {
            (Some(address), _) => Some(address),
            (None, Some(endpoint)) => self.first_address(endpoint).await,
            (None, None) => None,
        };
        let (mut shown, mut plain) = (Vec::new(), None);
        if let Some(address) = reached_at {
            let door = SocketAddr::new(address, tls.port);
            for name in asked_for(tls, address) {
                shown.push(self.shake_hands(door, name).await);
            }
            if let Some(port) = tls.http_port {
                plain = Some(self.knock(SocketAddr::new(address, port)).await);
            }
        }
        NodeSeen { told, reached_at, shown, plain }
    }

    async fn first_address(&self, endpoint: &Endpoint) -> Option<IpAddr> {
        let found = timeout(self.patience, lookup_host((endpoint.host.as_str(), endpoint.port)));
        let mut found = found.await.ok()?.ok()?;
        found.next().map(|address| address.ip().to_canonical())
    }

    async fn domain(&self, name: String, given: &[Given], port: Option<u16>) -> DomainSeen {
        let (addresses, dns_error) = match self.resolve(&name, given).await {
            Ok(addresses) => (addresses, None),
            Err(error) => (BTreeSet::new(), Some(error)),
        };
        let mut places = Vec::new();
        for address in addresses {
            let at = |port| SocketAddr::new(address, port);
            let other_port = port.filter(|port| *port != HTTPS_PORT);
            let own_port = async { Some(self.shake_hands(at(other_port?), name.clone()).await) };
            let https = self.shake_hands(at(HTTPS_PORT), name.clone());
            let (https, own_port, http) = tokio::join!(https, own_port, self.knock(at(HTTP_PORT)));
            places.push(Place { address, https, own_port, http });
        }
        DomainSeen { name, dns_error, places }
    }

    async fn resolve(&self, name: &str, given: &[Given]) -> Result<BTreeSet<IpAddr>, String> {
        let given: BTreeSet<_> =
            given.iter().filter(|(known, _)| known == name).map(|(_, address)| *address).collect();
        if !given.is_empty() {
            return Ok(given);
        }
        let found = timeout(self.patience, lookup_host((name, 0))).await;
        let found = found.map_err(|_| format!("no answer within {:?}", self.patience))?;
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.map(|address| address.ip()).collect())
    }

    async fn shake_hands(&self, address: SocketAddr, name: String) -> Handshake {
        let (accepts, certificate, distrust, error) = (false, None, None, None);
        let nothing = Handshake { address, name, accepts, certificate, distrust, error };
        let stream = match self.connect(address).await {
            Ok(stream) => stream,
            Err(error) => return Handshake { error: Some(error), ..nothing },
        };
        let nothing = Handshake { accepts: true, ..nothing };
        let seen = timeout(self.patience, Seen::by_handshake(stream, &nothing.name)).await;
        let seen = match seen {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => return Handshake { error: Some(error.to_string()), ..nothing },
            Err(_) => {
                let error = format!("no handshake within {:?}", self.patience);
                return Handshake { error: Some(error), ..nothing };
            }
        };
        let certificate = seen.description().map(Into::into);
        let verdict = seen.verify(&self.roots, &nothing.name, self.now);
        Handshake { certificate, distrust: verdict.err().map(Into::into), ..nothing }
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, String> {
        match timeout(self.patience, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no connection within {:?}", self.patience)),
        }
    }

    /// Asks what a relay refuses in its own words.
    async fn knock(&self, address: SocketAddr) -> Door {
        let (host, port) = (address.ip().to_string(), address.port());
        let answered = async {
            let connector = Connector::new(&Endpoint { tls: false, host, port }, None)?;
            let health = Call { path: "/health", ..Call::default() };
            call::<IgnoredAny>(&connector, self.patience, health).await
        };
        let (is_relay, error) = match answered.await {
            Err(Failure::Refused { code, .. }) if RELAY_ANSWERS.contains(&code.as_str()) => {
                (true, None)
            }
            Err(Failure::Dial { source, .. }) => (false, Some(source.to_string())),
            Err(Failure::Timeout { limit, .. }) => (false, Some(format!("silent for {limit:?}"))),
            Ok(_) | Err(_) => (false, Some("it answers, but not as a relay's does".into())),
        };
        Door { address, is_relay, error }
    }
}

/// The names by which a node's port is asked: those that are to be served, or else its address.
fn asked_for(tls: &TlsState, address: IpAddr) -> Vec<String> {
    let served = tls.certificates.iter().flat_map(|certificate| &certificate.names);
    let wanted = tls.acme.iter().flat_map(|acme| &acme.domains);
    // A wildcard is no name that anybody asks for.
    let is_whole = |name: &&String| !name.starts_with("*.");
    let mut names: BTreeSet<String> = match &tls.acme {
        Some(_) => wanted.cloned().collect(),
        None => served.filter(is_whole).cloned().collect(),
    };
    if names.is_empty() {
        names.insert(address.to_string());
    }
    names.into_iter().collect()
}

impl From<Distrust> for Mistrust {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::UnknownIssuer => Self::UnknownIssuer,
            Distrust::OtherName => Self::OtherName,
            Distrust::Expired | Distrust::NotYet => Self::Time,
            Distrust::Other(why) => Self::Other(why),
        }
    }
}
