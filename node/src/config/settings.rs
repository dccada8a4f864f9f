//! The one table of what can be set.
//!
//! From it come the flags, `--help`, the keys of the settings file, the search for misspelt names and
//! the README's table. A new setting is a line here and a field in [`Config`].

use std::{
    fmt::Write,
    ops::RangeInclusive,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::{
    Config, acme,
    rule::{
        Rule, address, advertise, bytes, cluster_secret, collector, collector_headers, duration,
        environment, file, folder, label, log_filter, log_format, names, networks, number, origins,
        port, secret, seeds, share, subscribe_scope, switch, title,
    },
};

/// Something that can be set.
pub struct Setting {
    /// Name of the environment variable, and of the setting everywhere else but in files and flags.
    pub variable: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// What it does, for `--help`: no full stop at the end.
    pub help: &'static str,
    /// What is allowed, to follow "must be".
    pub allowed: String,
    /// The default as it would be written, or said in words.
    pub default: String,
    /// The value's name in `--help`.
    pub value_name: &'static str,
    /// What the flag means when no value follows it; none if one must.
    pub bare: Option<&'static str>,
    /// Whether its value must never be shown.
    pub is_secret: bool,
    read: Read,
    show: Show,
}

type Read = Box<dyn Fn(&str, &mut Config) -> bool + Send + Sync>;
type Show = Box<dyn Fn(&Config) -> String + Send + Sync>;

impl Setting {
    /// Key in the settings file: `rate_limit_per_min`.
    pub fn key(&self) -> String {
        self.variable.to_ascii_lowercase()
    }

    /// Flag without its dashes: `rate-limit-per-min`.
    pub fn flag(&self) -> String {
        self.key().replace('_', "-")
    }

    /// Reads `text` into `config`; false, and `config` as it was, if it is not allowed.
    pub(super) fn read(&self, text: &str, config: &mut Config) -> bool {
        (self.read)(text, config)
    }

    /// The value in `config` as it would be written; a secret's is hidden.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    fn default_in_words(self, words: &str) -> Self {
        Self { default: words.into(), ..self }
    }

    fn hidden(self) -> Self {
        Self { is_secret: true, ..self }
    }
}

/// What a setting belongs to: the headings of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where agents and operators reach the relay.
    Listening,
    /// How agents' connections are encrypted.
    Tls,
    /// What the relay and the node are called, and where they keep things.
    Identity,
    /// Who may come in.
    Security,
    /// Which other nodes make one relay with this one, and how they reach it.
    Mesh,
    /// How much of anything.
    Limits,
    /// How long anything.
    Timing,
    /// What the relay says of itself.
    Logging,
    /// The way of single messages.
    Traces,
}

impl Group {
    /// The heading in `--help`.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Listening => "Listening",
            Self::Tls => "TLS (on with a certificate)",
            Self::Identity => "Identity and storage",
            Self::Security => "Security",
            Self::Mesh => "Cluster",
            Self::Limits => "Limits (0 switches a rate or per-address limit off)",
            Self::Timing => "Timing",
            Self::Logging => "Logging",
            Self::Traces => "Traces (OpenTelemetry)",
        }
    }
}

/// Variables of the reference relay that mean nothing here, and why.
pub(super) const RETIRED: [(&str, &str); 3] = [
    ("REDIS_URL", "names are kept under DATA_DIR, and SEEDS makes several nodes one relay"),
    (
        "UV_THREADPOOL_SIZE",
        "there is a thread for each processor (TOKIO_WORKER_THREADS, if you must)",
    ),
    (
        "NODE_OPTIONS",
        "there is no Node.js, and no heap to be sized: MAX_CONNECTIONS bounds the memory",
    ),
];

/// Everything that can be set, in the order of `--help`.
pub fn settings() -> &'static [Setting] {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        [
            listening(),
            tls(),
            identity(),
            security(),
            mesh(),
            limits(),
            timing(),
            logging(),
            traces(),
        ]
        .into_iter()
        .flatten()
        .collect()
    });
    &SETTINGS
}

/// The setting of this name.
pub(super) fn setting_of(variable: &str) -> Option<&'static Setting> {
    settings().iter().find(|setting| setting.variable == variable)
}

/// The settings as a Markdown table, for the README.
pub fn markdown_table() -> String {
    let mut table = String::from("| variable | default | meaning |\n| --- | --- | --- |\n");
    for Setting { variable, default, help, .. } in settings() {
        let help = help.replace('|', r"\|");
        let _ = writeln!(table, "| `{variable}` | {default} | {help} |"); // a String takes it all
    }
    table
}

fn setting<T: 'static>(
    group: Group,
    variable: &'static str,
    rule: Rule<T>,
    field: fn(&mut Config) -> &mut T,
    help: &'static str,
) -> Setting {
    let Rule { value_name, bare, .. } = rule;
    let allowed = rule.allowed.clone();
    let default = rule.show(field(&mut Config::default()));
    let rule = Arc::new(rule);
    let shown = rule.clone();
    let read = move |text: &str, config: &mut Config| match rule.read(text) {
        Some(value) => {
            *field(config) = value;
            true
        }
        None => false,
    };
    let show = move |config: &Config| shown.show(field(&mut config.clone()));
    let (read, show): (Read, Show) = (Box::new(read), Box::new(show));
    Setting {
        variable,
        group,
        help,
        allowed,
        default,
        value_name,
        bare,
        is_secret: false,
        read,
        show,
    }
}

const COUNT: RangeInclusive<u64> = 0..=1_000_000_000;
const PORT: RangeInclusive<u64> = 0..=65_535;
const SHORT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(365 * 24);

#[rustfmt::skip] // a table, one setting a row
fn listening() -> Vec<Setting> {
    let row = Group::Listening;
    vec![
        setting(row, "HOST", address(), |c| &mut c.host,
            "Address that agents connect to; :: is every one, of IPv4 too"),
        setting(row, "PORT", number(PORT), |c| &mut c.port,
            "Port that agents connect to without TLS; 0 lets the system choose"),
        setting(row, "STATS_HOST", address(), |c| &mut c.stats_host,
            "Address of the ops listener: statistics, metrics, administration"),
        setting(row, "STATS_PORT", number(PORT), |c| &mut c.stats_port,
            "Port of the ops listener; 0 lets the system choose"),
        setting(row, "STATS_NAMES", names(), |c| &mut c.stats_names,
            "More names that the ops listener is asked by, comma separated, also *.example.com; * means any"),
        setting(row, "BEHIND_PROXY", switch(), |c| &mut c.behind_proxy,
            "TLS ends at a proxy in front of this relay"),
        setting(row, "TRUSTED_PROXIES", networks(), |c| &mut c.trusted_proxies,
            "Proxies whose X-Forwarded-For is believed"),
        setting(row, "PROXY_PROTOCOL", switch(), |c| &mut c.proxy_protocol,
            "Trusted proxies open each connection with a PROXY protocol header, version 1 or 2"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn tls() -> Vec<Setting> {
    let row = Group::Tls;
    vec![
        setting(row, "TLS_CERT", file(), |c| &mut c.tls.cert,
            "Certificate for agents and those up to its authority, PEM; reloaded when it changes"),
        setting(row, "TLS_KEY", file(), |c| &mut c.tls.key,
            "With TLS_CERT: the key of the certificate, PEM"),
        setting(row, "TLS_SELF_SIGNED", switch(), |c| &mut c.tls.self_signed,
            "Instead of TLS_CERT, for development: a certificate of the node's own, that agents must be \
             told to trust"),
        setting(row, "ACME_DOMAINS", acme::domains(), |c| &mut c.tls.acme.domains,
            "Instead of TLS_CERT: names for which an authority gives the certificate by ACME, comma \
             separated; the same on every node"),
        setting(row, "ACME_EMAIL", acme::email(), |c| &mut c.tls.acme.email,
            "Whom the authority writes to when something is wrong"),
        setting(row, "ACME_DIRECTORY", acme::directory(), |c| &mut c.tls.acme.directory,
            "The authority's ACME directory; Let's Encrypt unless set"),
        setting(row, "ACME_CA_ROOT", file(), |c| &mut c.tls.acme.ca_root,
            "For a private authority: what vouches for its directory, PEM; none: what browsers trust"),
        setting(row, "ACME_EAB_KID", acme::eab_kid(), |c| &mut c.tls.acme.eab_kid,
            "Key id of an account at the authority, where it asks for one"),
        setting(row, "ACME_EAB_HMAC", acme::eab_hmac(), |c| &mut c.tls.acme.eab_hmac,
            "With ACME_EAB_KID: the account's HMAC key, base64url").hidden(),
        setting(row, "ACME_CHALLENGE", acme::challenge(), |c| &mut c.tls.acme.challenge,
            "How the names are proven: tls-alpn-01 on port 443, or http-01 on port 80"),
        setting(row, "TLS_PORT", number(PORT), |c| &mut c.tls.port,
            "With TLS: port that agents connect to, instead of PORT; 0 lets the system choose"),
        setting(row, "HTTP_PORT", port(), |c| &mut c.tls.http_port,
            "With TLS: port that sends clients to https; none leaves it closed"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn identity() -> Vec<Setting> {
    let row = Group::Identity;
    vec![
        setting(row, "DATA_DIR", folder(), |c| &mut c.data_dir,
            "Folder for what survives a restart: names, the token key, subscriptions"),
        setting(row, "RELAY_NAME", title(), |c| &mut c.relay_name,
            "Public name of the relay, shown to every agent that connects"),
        setting(row, "NODE_NAME", label(), |c| &mut c.node_name,
            "Name of this node").default_in_words("the host name"),
        setting(row, "REGION", label(), |c| &mut c.region,
            "Region of this node"),
        setting(row, "NODE_ENV", environment(), |c| &mut c.production,
            "development, production or test; production refuses unencrypted public listeners"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn security() -> Vec<Setting> {
    let row = Group::Security;
    vec![
        setting(row, "ALLOWED_ORIGINS", origins(), |c| &mut c.allowed_origins,
            "Web origins that browsers may connect from, comma separated; * means any"),
        setting(row, "REGISTRATION_KEY", secret(), |c| &mut c.registration_key,
            "Secret without which nobody may register; better set as a variable, a flag shows in the \
             list of processes").hidden(),
        setting(row, "TOKEN_TTL", duration(Duration::from_secs(1)..=10 * YEAR).or("never"),
            |c| &mut c.token_ttl,
            "How long a new token is good, such as 30d; never, or 0, means it does not expire"),
        setting(row, "SUBSCRIBE_SCOPE", subscribe_scope(), |c| &mut c.subscribe_scope,
            "What followers of an agent receive: its broadcasts, or all it sends"),
        setting(row, "SUBSCRIPTION_TTL", duration(Duration::ZERO..=YEAR), |c| &mut c.subscription_ttl,
            "How long subscriptions outlive their agent's connection"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn mesh() -> Vec<Setting> {
    let row = Group::Mesh;
    vec![
        setting(row, "SEEDS", seeds(), |c| &mut c.mesh.seeds,
            "Nodes to start from, comma separated, such as node-1:7946,node-2:7946; the same list on \
             every node"),
        setting(row, "CLUSTER_SECRET", cluster_secret(), |c| &mut c.mesh.secret,
            "Secret that all nodes of the cluster share; `arc-relay secret` makes one; better set as a \
             variable, a flag shows in the list of processes").hidden(),
        setting(row, "CLUSTER_SECRET_PREVIOUS", cluster_secret(), |c| &mut c.mesh.previous_secret,
            "While nodes are given another CLUSTER_SECRET, one after the other: the one before").hidden(),
        setting(row, "MESH_CA", file(), |c| &mut c.mesh.ca,
            "Instead of CLUSTER_SECRET: certificate of the cluster's authority, PEM"),
        setting(row, "MESH_CERT", file(), |c| &mut c.mesh.cert,
            "With MESH_CA: this node's certificate, PEM"),
        setting(row, "MESH_KEY", file(), |c| &mut c.mesh.key,
            "With MESH_CA: the key of this node's certificate, PEM"),
        setting(row, "MESH_HOST", address(), |c| &mut c.mesh.host,
            "Address that other nodes connect to; :: is every one, of IPv4 too"),
        setting(row, "MESH_PORT", number(PORT), |c| &mut c.mesh.port,
            "UDP port that other nodes connect to; 0 lets the system choose"),
        setting(row, "ADVERTISE", advertise(), |c| &mut c.mesh.advertise,
            "Where other nodes reach this one, host or host:port; auto is found out at the start"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn limits() -> Vec<Setting> {
    let row = Group::Limits;
    vec![
        setting(row, "MAX_CONNECTIONS", number(1..=10_000_000), |c| &mut c.limits.max_connections,
            "Agents connected to this node at once"),
        setting(row, "RATE_LIMIT_PER_MIN", number(COUNT), |c| &mut c.limits.rate_per_min,
            "Messages per agent and minute"),
        setting(row, "RATE_LIMIT_PER_HOUR", number(COUNT), |c| &mut c.limits.rate_per_hour,
            "Messages per agent and hour"),
        setting(row, "REGISTRATION_LIMIT_PER_MIN", number(COUNT),
            |c| &mut c.limits.registrations_per_min,
            "Registrations per address and minute"),
        setting(row, "CONNECTIONS_PER_ADDRESS", number(COUNT),
            |c| &mut c.limits.connections_per_address,
            "Connections per address"),
        setting(row, "HANDSHAKES_PER_ADDRESS", number(COUNT),
            |c| &mut c.limits.handshakes_per_address,
            "Unfinished handshakes per address"),
        setting(row, "MAX_MESSAGE_SIZE", bytes(256..=16 << 20), |c| &mut c.limits.max_message_size,
            "Size of one message from an agent"),
        setting(row, "OUTBOX_BYTES_MAX", bytes(128 << 10..=1 << 30),
            |c| &mut c.limits.outbox_bytes_max,
            "Bytes that may wait for one slow agent before it is cut off"),
        setting(row, "OUTBOX_MESSAGES_MAX", number(1..=1_000_000),
            |c| &mut c.limits.outbox_messages_max,
            "Messages that may wait for one slow agent before it is cut off"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn timing() -> Vec<Setting> {
    let row = Group::Timing;
    vec![
        setting(row, "HANDSHAKE_DEADLINE", duration(SHORT), |c| &mut c.timing.handshake_deadline,
            "From a connection's first byte to its first answered request"),
        setting(row, "PING_INTERVAL", duration(SHORT), |c| &mut c.timing.ping_interval,
            "Time between two pings of a connected agent"),
        setting(row, "IDLE_DEADLINE", duration(SHORT), |c| &mut c.timing.idle_deadline,
            "Silence after which an agent is dropped; longer than PING_INTERVAL"),
        setting(row, "WRITE_DEADLINE", duration(SHORT), |c| &mut c.timing.write_deadline,
            "How long one write may wait for a slow agent"),
        setting(row, "DRAIN_DEADLINE", duration(Duration::ZERO..=*SHORT.end()),
            |c| &mut c.timing.drain_deadline,
            "Time from SIGTERM to the end of the process, for agents to move elsewhere"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn logging() -> Vec<Setting> {
    let row = Group::Logging;
    vec![
        setting(row, "LOG_LEVEL", log_filter(), |c| &mut c.log.level,
            "error, warn, info, debug, trace or silent; or directives such as info,node=debug"),
        setting(row, "LOG_FORMAT", log_format(), |c| &mut c.log.format,
            "text for people or json for machines, one event a line"),
        setting(row, "LOG_FILE", file(), |c| &mut c.log.file.path,
            "File that the log is written to instead of stdout; rotated to LOG_FILE.1 and so on"),
        setting(row, "LOG_FILE_SIZE", bytes(64 << 10..=1 << 40), |c| &mut c.log.file.bytes_max,
            "With LOG_FILE: how large it gets before it is rotated"),
        setting(row, "LOG_FILE_DAILY", switch(), |c| &mut c.log.file.daily,
            "With LOG_FILE: rotate it at midnight, UTC, too"),
        setting(row, "LOG_FILES_MAX", number(0..=10_000), |c| &mut c.log.file.kept,
            "With LOG_FILE: how many rotated files are kept beside it"),
    ]
}

#[rustfmt::skip] // a table, one setting a row
fn traces() -> Vec<Setting> {
    let row = Group::Traces;
    vec![
        setting(row, "OTEL_EXPORTER_OTLP_ENDPOINT", collector(), |c| &mut c.traces.collector,
            "Collector that traces of messages are handed to, by OTLP over HTTP; none: nothing is traced"),
        setting(row, "OTEL_EXPORTER_OTLP_HEADERS", collector_headers(), |c| &mut c.traces.headers,
            "Headers that the collector wants, name=value, comma separated").hidden(),
        setting(row, "OTEL_TRACES_SAMPLER_ARG", share(), |c| &mut c.traces.parts_per_million,
            "Share of the messages that are traced; the same on every node"),
        setting(row, "OTEL_SERVICE_NAME", title(), |c| &mut c.traces.service,
            "What the relay is called in traces"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_setting_reads_its_own_default() {
        for setting in settings() {
            let shown = setting.show(&Config::default());
            let mut config = Config::default();
            let is_unset_secret = setting.is_secret && shown == "none";
            assert!(is_unset_secret || setting.read(&shown, &mut config), "{}", setting.variable);
            assert_eq!(config, Config::default(), "{}", setting.variable);
        }
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for Setting { variable, help, allowed, .. } in settings() {
            assert!(seen.insert(variable), "{variable} twice");
            assert!(variable.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{variable}");
            assert!(!help.ends_with('.') && !allowed.ends_with('.'), "{variable}");
            assert!(RETIRED.iter().all(|(retired, _)| retired != variable), "{variable}");
        }
    }

    #[test]
    fn variables_flags_and_keys_spell_one_name() {
        let named = setting_of("RATE_LIMIT_PER_MIN");
        assert_eq!(named.map(Setting::key).as_deref(), Some("rate_limit_per_min"));
        assert_eq!(named.map(Setting::flag).as_deref(), Some("rate-limit-per-min"));
    }

    #[test]
    fn the_table_has_a_row_for_each_setting() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), 2 + settings().len());
        assert!(table.lines().all(|line| line.starts_with("| ") && line.ends_with(" |")));
        assert!(table.contains("| `MAX_MESSAGE_SIZE` | 64KiB | Size of one message"));
        assert!(table.contains("| `NODE_NAME` | the host name |"));
    }
}
