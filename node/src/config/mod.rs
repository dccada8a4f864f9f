//! Configuration as the rest of the relay sees it: checked, typed, complete.
//!
//! This file owns the checked shape and its defaults. Beside it: `settings`, the one table of what
//! can be set; `rule`, what a value may look like; `mesh`, the part in a cluster; `tls`, agents' TLS; `acme`, an
//! authority's part in it; `written`, the five places settings come from; `load`, from written to checked; `problem`, what is said when something is wrong. Nothing here
//! reads the machine but [`Sources::gather`], and no secret's value is ever shown.

mod acme;
mod load;
mod mesh;
mod problem;
mod rule;
mod secret;
mod settings;
mod tls;
mod written;

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use crate::{logging::FileConfig, traces::TraceConfig};

pub use self::{
    acme::{AcmeConfig, MacKey},
    load::{Chosen, Loaded, check, load},
    mesh::{Advertise, Credentials, InvalidAddress, MESH_PORT, MeshConfig},
    problem::{Notice, Problem, Problems},
    secret::Secret,
    settings::{Group, Setting, markdown_table, settings},
    tls::{CertificateSource, TlsConfig},
    written::{FILE_NAME, SettingsFile, Sources},
};

/// A checked configuration: whatever could be wrong with it has been said.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the public listener (`HOST`).
    pub host: IpAddr,
    /// Port of the public listener (`PORT`) without TLS; 0 lets the system choose.
    pub port: u16,
    /// Address of the ops listener (`STATS_HOST`).
    pub stats_host: IpAddr,
    /// Port of the ops listener (`STATS_PORT`); 0 lets the system choose.
    pub stats_port: u16,
    /// Names that operators reach the ops listener by, beside those that it has anyway: `*` is any,
    /// `*.example.com` any below `example.com` (`STATS_NAMES`).
    pub stats_names: Vec<String>,
    /// Where the relay keeps what must survive a restart (`DATA_DIR`).
    pub data_dir: PathBuf,
    /// Public name of the relay, as in `welcome` (`RELAY_NAME`).
    pub relay_name: String,
    /// Name of this machine; not a setting.
    pub host_name: String,
    /// Name of this node (`NODE_NAME`).
    pub node_name: String,
    /// Region of this node (`REGION`).
    pub region: String,
    /// Whether this is production: plain `ws://` on a public address is refused (`NODE_ENV`).
    pub production: bool,
    /// TLS ends at a proxy in front of this relay (`BEHIND_PROXY`).
    pub behind_proxy: bool,
    /// Proxies whose `X-Forwarded-For` is believed (`TRUSTED_PROXIES`).
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted proxies open each connection with a PROXY protocol header (`PROXY_PROTOCOL`).
    pub proxy_protocol: bool,
    /// Origins that browsers may come from; none means any (`ALLOWED_ORIGINS`).
    pub allowed_origins: Option<Vec<String>>,
    /// Secret without which nobody may register (`REGISTRATION_KEY`).
    pub registration_key: Option<Secret>,
    /// How long a new token is good; none means for ever (`TOKEN_TTL`).
    pub token_ttl: Option<Duration>,
    /// What followers receive (`SUBSCRIBE_SCOPE`).
    pub subscribe_scope: SubscribeScope,
    /// How long subscriptions outlive their agent's last session (`SUBSCRIPTION_TTL`).
    pub subscription_ttl: Duration,
    /// How agents' TLS is configured.
    pub tls: TlsConfig,
    /// How this node takes part in a cluster.
    pub mesh: MeshConfig,
    /// How the relay logs, and where to (`LOG_LEVEL`, `LOG_FORMAT`, `LOG_FILE` and what belongs to it).
    pub log: LogConfig,
    /// Which messages are traced, and who takes the traces.
    pub traces: TraceConfig,
    /// Every bound that an agent or an address can run into.
    pub limits: Limits,
    /// Every deadline and interval.
    pub timing: Timing,
}

/// What a subscriber gets of the agents it follows (PROTOCOL section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeScope {
    /// Broadcasts only; a direct message stays private to those it names.
    Broadcasts,
    /// Direct messages as well.
    All,
}

/// How the relay logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Level or filter directives, as `tracing-subscriber`'s `EnvFilter` reads them.
    pub level: String,
    /// Shape of a line.
    pub format: LogFormat,
    /// The file that lines go to, if any.
    pub file: FileConfig,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Every bound that an agent or an address can run into; 0 switches a rate or address limit off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live sessions on this node (`MAX_CONNECTIONS`).
    pub max_connections: usize,
    /// Messages per agent and minute (`RATE_LIMIT_PER_MIN`).
    pub rate_per_min: u32,
    /// Messages per agent and hour (`RATE_LIMIT_PER_HOUR`).
    pub rate_per_hour: u32,
    /// Registrations per address and minute (`REGISTRATION_LIMIT_PER_MIN`).
    pub registrations_per_min: u32,
    /// Live connections per address (`CONNECTIONS_PER_ADDRESS`).
    pub connections_per_address: u32,
    /// Unfinished handshakes per address (`HANDSHAKES_PER_ADDRESS`).
    pub handshakes_per_address: u32,
    /// Bytes of one message (`MAX_MESSAGE_SIZE`).
    pub max_message_size: usize,
    /// Bytes that may wait for one session (`OUTBOX_BYTES_MAX`).
    pub outbox_bytes_max: usize,
    /// Messages that may wait for one session (`OUTBOX_MESSAGES_MAX`).
    pub outbox_messages_max: usize,
}

/// Every deadline and interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From accepting a connection to its first answered request (`HANDSHAKE_DEADLINE`).
    pub handshake_deadline: Duration,
    /// Between two pings of a session (`PING_INTERVAL`).
    pub ping_interval: Duration,
    /// Silence after which a session is dropped (`IDLE_DEADLINE`).
    pub idle_deadline: Duration,
    /// How long one write may wait for its reader (`WRITE_DEADLINE`).
    pub write_deadline: Duration,
    /// From SIGTERM to the end of the process (`DRAIN_DEADLINE`).
    pub drain_deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port: 8080,
            stats_host: IpAddr::from([127, 0, 0, 1]),
            stats_port: 8081,
            stats_names: Vec::new(),
            data_dir: "./arc-data".into(),
            relay_name: "arc-relay".into(),
            host_name: String::new(),
            node_name: "node".into(),
            region: "default".into(),
            production: false,
            behind_proxy: false,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            allowed_origins: None,
            registration_key: None,
            token_ttl: None,
            subscribe_scope: SubscribeScope::Broadcasts,
            subscription_ttl: Duration::from_hours(1),
            tls: TlsConfig::default(),
            mesh: MeshConfig::default(),
            log: LogConfig {
                level: "info".into(),
                format: LogFormat::Text,
                file: FileConfig::default(),
            },
            traces: TraceConfig::default(),
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            rate_per_min: 100,
            rate_per_hour: 1_000,
            registrations_per_min: 30,
            connections_per_address: 1_000,
            handshakes_per_address: 64,
            max_message_size: 65_536,
            outbox_bytes_max: 1 << 20,
            outbox_messages_max: 1_024,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            idle_deadline: Duration::from_mins(1),
            write_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(30),
        }
    }
}
