//! Looks at the network around this machine: the node that runs here, names, seeds, the authority. Judges
//! nothing.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use cluster::{
    NodeId,
    link::{
        NodeKey,
        quic::{QuicSettings, QuicTransport},
        transport::{CloseCode, ConnectError, Transport as _},
    },
    membership::SeedAddress,
};
use futures_util::future::join_all;
use serde::Deserialize;
use tls::mesh::{KeyExchange, MeshIdentity};
use tokio::{net::lookup_host, time::timeout};

use super::{
    facts::{Authority, Clocks, Met, Name, Node, Running, Seed},
    machine::wall,
};
use crate::{
    agent::{
        args::OpsArgs,
        connect::Connector,
        failure::Failure,
        health::reached_at,
        http::{self, Call},
        tls::examine,
        url::UrlText,
    },
    clock::Clock,
    config::{CertificateSource, Config, Credentials},
    tls_report::ClusterTls,
};

/// What `/health` and `/ready` say.
#[derive(Deserialize)]
struct Word {
    status: String,
    #[serde(default)]
    waiting: Option<String>,
}

/// The node that runs at the configured ops port, and what it says.
pub(super) async fn node(config: &Config, patience: Duration, clock: &Clock) -> Node {
    if config.stats_port == 0 {
        return Node::Unknown;
    }
    let ops = OpsArgs::at((reached_at(config.stats_host), config.stats_port).into(), patience);
    match running(&ops, clock).await {
        Ok(running) => Node::Running(Box::new(running)),
        Err(Failure::Dial { .. }) => Node::Stopped,
        Err(failure) => Node::Stranger(failure.to_string()),
    }
}

async fn running(ops: &OpsArgs, clock: &Clock) -> Result<Running, Failure> {
    let health = word(ops, "/health").await?;
    let ready = word(ops, "/ready").await?.status;
    let cluster = ops.ask(Call { path: "/cluster", ..Call::default() }).await?;
    let tls: Option<ClusterTls> = ops.ask(Call { path: "/tls", ..Call::default() }).await.ok();
    let asked_at = clock.wall().0;
    let is_encrypted = |tls: &ClusterTls| {
        tls.nodes.iter().any(|node| node.says.as_ref().is_some_and(|says| says.tls.is_some()))
    };
    let certificates =
        if tls.as_ref().is_some_and(is_encrypted) { examine(ops, clock).await.ok() } else { None };
    let Word { status, waiting } = health;
    Ok(Running { health: status, waiting, ready, cluster, tls, asked_at, certificates })
}

/// What is said whether all is well or not.
async fn word(ops: &OpsArgs, path: &str) -> Result<Word, Failure> {
    let connector = Connector::new(&ops.endpoint()?, None)?;
    let (_, body) = http::answer(&connector, ops.timeout, Call { path, ..Call::default() }).await?;
    serde_json::from_slice(&body).map_err(|error| Failure::NotRelay(error.to_string()))
}

/// The names that the configuration has, each looked up once.
pub(super) async fn names(config: &Config, patience: Duration) -> Vec<Name> {
    let seeds = config.mesh.seeds.iter().map(|seed| ("SEEDS", seed.host.clone()));
    let own = config.mesh.advertise.iter().map(|own| ("ADVERTISE", own.host.clone()));
    let domains = match config.tls.source() {
        Some(CertificateSource::Acme(settings)) => settings.domains,
        _ => Vec::new(),
    };
    let domains = domains.into_iter().map(|name| ("ACME_DOMAINS", name));
    let is_name = |(_, name): &(_, String)| name.parse::<IpAddr>().is_err();
    let wanted: BTreeSet<_> = seeds.chain(own).chain(domains).filter(is_name).collect();
    join_all(wanted.into_iter().map(async |(variable, name)| {
        let found = match found(&name, 0, patience).await {
            Ok(addresses) => Ok(addresses.len()),
            Err(why) => Err(why),
        };
        Name { variable, text: name, found }
    }))
    .await
}

async fn found(host: &str, port: u16, patience: Duration) -> Result<Vec<SocketAddr>, String> {
    let looked_up = timeout(patience, lookup_host((host, port))).await;
    let found = looked_up.map_err(|_| "no name server answers".to_owned())?;
    let found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

/// The seeds, each dialled.
pub(super) async fn seeds(config: &Config, patience: Duration, clock: &Clock) -> Vec<Seed> {
    join_all(config.mesh.seeds.iter().map(async |seed| {
        let (met, address) = meet(seed, config, patience, clock).await;
        let clock = match address {
            Some(address) => clocks(address.ip(), config, patience, clock).await,
            None => None,
        };
        Seed { text: seed.to_string(), met, clock }
    }))
    .await
}

/// What became of the attempt to meet the seed, and where it is if it answered.
async fn meet(
    seed: &SeedAddress,
    config: &Config,
    patience: Duration,
    clock: &Clock,
) -> (Met, Option<SocketAddr>) {
    let Ok(addresses) = found(&seed.host, seed.port, patience).await else {
        return (Met::NotFound, None);
    };
    if is_own(seed, &addresses, config) {
        return (Met::Own, None);
    }
    let Some(identity) = identity(config, clock) else { return (Met::Untried, None) };
    let mut met = Met::Untried;
    for address in addresses {
        met = dial(address, &identity, patience).await;
        if matches!(met, Met::Answered { .. } | Met::Expired) {
            return (met, Some(address));
        }
    }
    (met, None)
}

/// What time it is there, as the port of plain HTTP says that all nodes have: with TLS the one that sends
/// clients to https.
async fn clocks(
    host: IpAddr,
    config: &Config,
    patience: Duration,
    clock: &Clock,
) -> Option<Clocks> {
    let port = if config.tls.source().is_some() { config.tls.http_port? } else { config.port };
    let url = format!("http://{}/health", SocketAddr::from((host, port)));
    let (endpoint, path) = UrlText::from(url.as_str()).page().ok()?;
    let connector = Connector::new(&endpoint, None).ok()?;
    let asked = http::clock(&connector, patience, Call { path: &path, ..Call::default() });
    let there = asked.await.ok()??;
    Some(Clocks { here: clock.wall().0, there })
}

/// Whether the seed stands for the node that is configured here.
fn is_own(seed: &SeedAddress, addresses: &[SocketAddr], config: &Config) -> bool {
    let mesh = &config.mesh;
    let is_advertised = mesh
        .advertise
        .as_ref()
        .is_some_and(|own| own.host == seed.host && own.port.unwrap_or(mesh.port) == seed.port);
    let is_here = |address: &SocketAddr| match mesh.host {
        host if host.is_unspecified() => UdpSocket::bind((address.ip(), 0)).is_ok(),
        host => host == address.ip(),
    };
    is_advertised || seed.port == mesh.port && addresses.iter().any(is_here)
}

/// A certificate of this cluster. One that is made for this names a node that there is not.
fn identity(config: &Config, clock: &Clock) -> Option<MeshIdentity> {
    match config.mesh.credentials()? {
        Credentials::Secret(secret, previous) => {
            let nobody = rand::random();
            MeshIdentity::from_secret(&secret, previous.as_ref(), nobody, wall(clock)).ok()
        }
        Credentials::Files(files) => MeshIdentity::from_files(&files, None, wall(clock)).ok(),
    }
}

/// Shakes hands, and says goodbye before anything else is said.
async fn dial(address: SocketAddr, identity: &MeshIdentity, patience: Duration) -> Met {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let key = NodeKey::generate();
    let key_exchange = KeyExchange::default();
    let settings = QuicSettings { identity, key: &key, key_exchange, rng_seed: None };
    let transport = match QuicTransport::bind((any, 0).into(), &settings) {
        Ok(transport) => transport,
        Err(error) => return Met::Silent(error.to_string()),
    };
    let met = match timeout(patience, transport.dial(address)).await {
        Err(_) => Met::Silent(format!("nobody answers within {patience:?}")),
        Ok(Err(ConnectError::Distrusted)) => Met::Distrusted,
        Ok(Err(ConnectError::Expired)) => Met::Expired,
        Ok(Err(error)) => Met::Silent(error.to_string()),
        Ok(Ok(connection)) => {
            let (node, rtt): (NodeId, Duration) = (connection.peer(), connection.rtt());
            // Whoever loses a connection before a word was said takes it for ordinary.
            connection.close(CloseCode::Closed, "arc-relay doctor has looked");
            Met::Answered { node, rtt }
        }
    };
    transport.close().await;
    met
}

/// The authority that gives certificates, if one does, and what time it is there.
pub(super) async fn authority(config: &Config, patience: Duration) -> Option<Authority> {
    let Some(CertificateSource::Acme(settings)) = config.tls.source() else { return None };
    let told = async {
        let (endpoint, path) = UrlText::from(settings.directory.as_str())
            .page()
            .map_err(|source| Failure::Url { option: "ACME_DIRECTORY", source })?;
        let connector = Connector::new(&endpoint, settings.ca_root.as_deref())?;
        http::clock(&connector, patience, Call { path: &path, ..Call::default() }).await
    };
    let clock = told.await.map_err(|failure| failure.to_string());
    Some(Authority { directory: settings.directory, clock })
}
