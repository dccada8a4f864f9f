//! From written to checked: every setting by its own rule, then the rules between settings.
//!
//! Pure. Nothing stops at the first problem: the operator is told all of them at once.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use tls::acme::Challenge;

use super::{
    Config, MeshConfig, TlsConfig,
    problem::{Notice, Problem, Problems},
    settings::{setting_of, settings},
    written::{Sources, Written, written},
};

/// Room that the relay's own fields need beside an agent's message in its recipient's outbox, in
/// bytes: `id`, `from`, `ts` and the frame's header.
const ENVELOPE_BYTES: usize = 4_096;

/// What says more of ACME, but does not switch it on.
const ACME_DETAILS: [&str; 6] = [
    "ACME_EMAIL",
    "ACME_DIRECTORY",
    "ACME_CA_ROOT",
    "ACME_EAB_KID",
    "ACME_EAB_HMAC",
    "ACME_CHALLENGE",
];

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// What the operator should know.
    pub notices: Vec<Notice>,
    /// The settings that differ from their defaults.
    pub chosen: Vec<Chosen>,
}

/// A setting that differs from its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The variable.
    pub variable: &'static str,
    /// Its value; hidden for a secret.
    pub value: String,
    /// Where it was set.
    pub origin: String,
}

/// Checks what `sources` say and completes it with the defaults; all problems, if there are any.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let (loaded, problems) = read(sources);
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

/// As [`load`], but names that mean nothing are problems too: this is for `--check-config`.
pub fn check(sources: &Sources) -> Result<Loaded, Problems> {
    let (loaded, mut problems) = read(sources);
    let refused = loaded.notices.iter().filter(|notice| notice.is_refused_by_check());
    problems.extend(refused.filter_map(Notice::as_problem));
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration ok")?;
        for Chosen { variable, value, origin } in &self.chosen {
            write!(f, "\n  {variable} = {value} ({origin})")?;
        }
        self.notices.iter().try_for_each(|notice| {
            let kind = if notice.is_warning() { "warning" } else { "notice" };
            write!(f, "\n{kind}: {notice}")
        })
    }
}

fn read(sources: &Sources) -> (Loaded, Vec<Problem>) {
    let mut written = written(sources);
    let mut problems = std::mem::take(&mut written.problems);
    let mut notices = std::mem::take(&mut written.notices);
    let mut check = Check { config: starting_point(sources), written, wrong: BTreeSet::new() };
    problems.extend(check.each_alone());
    problems.extend(check.ports_differ());
    problems.extend(check.outbox_holds_a_message());
    problems.extend(check.idle_outlasts_ping());
    problems.extend(check.tls_ports_differ());
    problems.extend(check.public_means_encrypted());
    problems.extend(check.tls_files_come_together());
    problems.extend(check.one_source_of_certificates());
    problems.extend(check.acme_names_domains());
    problems.extend(check.acme_accounts_have_keys());
    problems.extend(check.http_challenges_need_their_port());
    problems.extend(check.proxy_protocol_names_proxies());
    problems.extend(check.a_secret_follows_another());
    problems.extend(check.seeds_know_their_own());
    problems.extend(check.files_come_together());
    problems.extend(check.one_kind_of_credentials());
    notices.extend(check.remarks());
    let chosen = check.chosen(&starting_point(sources));
    (Loaded { config: check.config, notices, chosen }, problems)
}

/// The defaults on this machine.
fn starting_point(sources: &Sources) -> Config {
    let mut config = Config { host_name: sources.host_name.clone(), ..Config::default() };
    // A host name may be anything; one that is no node name leaves the built-in default.
    if let Some(setting) = setting_of("NODE_NAME") {
        setting.read(&sources.host_name, &mut config);
    }
    config
}

struct Check {
    config: Config,
    written: Written,
    /// Variables that broke their own rule: no other rule judges them as well.
    wrong: BTreeSet<&'static str>,
}

impl Check {
    fn each_alone(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for setting in settings() {
            let Some(given) = self.written.given.get(&setting.key()) else { continue };
            if setting.read(&given.text, &mut self.config) {
                continue;
            }
            self.wrong.insert(setting.variable);
            let remedy = format!("must be {}", setting.allowed);
            let problem = Problem::new(setting.variable, remedy).set_in(&given.origin);
            problems.push(if setting.is_secret {
                problem
            } else {
                problem.with_value(&given.text)
            });
        }
        problems
    }

    fn ports_differ(&self) -> Option<Problem> {
        let Config { host, port, stats_host, stats_port, .. } = self.config;
        let meet = host == stats_host || host.is_unspecified() || stats_host.is_unspecified();
        let clash = port != 0 && port == stats_port && meet && !self.is_encrypted();
        self.blame("STATS_PORT", &["PORT", "HOST", "STATS_HOST"], clash, || {
            "must differ from PORT, or HOST and STATS_HOST be two distinct addresses".into()
        })
    }

    fn tls_ports_differ(&self) -> Vec<Problem> {
        let Config { host, stats_host, stats_port, .. } = self.config;
        let TlsConfig { port, http_port, .. } = self.config.tls;
        let meet = host == stats_host || host.is_unspecified() || stats_host.is_unspecified();
        let is_same = |one: u16, other: u16| one != 0 && one == other && self.is_encrypted();
        let http_port = http_port.unwrap_or(0);
        let clash = meet && (is_same(port, stats_port) || is_same(http_port, stats_port));
        let with_stats = self.blame(
            "STATS_PORT",
            &["TLS_PORT", "HTTP_PORT", "HOST", "STATS_HOST"],
            clash,
            || {
                "must differ from TLS_PORT and HTTP_PORT, or HOST and STATS_HOST be two distinct \
                 addresses"
                    .into()
            },
        );
        let clash = is_same(port, http_port);
        let with_each_other = self.blame("HTTP_PORT", &["TLS_PORT"], clash, || {
            "must differ from TLS_PORT: one is for https, the other for http".into()
        });
        with_stats.into_iter().chain(with_each_other).collect()
    }

    fn outbox_holds_a_message(&self) -> Option<Problem> {
        let message = self.config.limits.max_message_size;
        let least = message.saturating_add(ENVELOPE_BYTES);
        let clash = self.config.limits.outbox_bytes_max < least;
        self.blame("OUTBOX_BYTES_MAX", &["MAX_MESSAGE_SIZE"], clash, || {
            format!(
                "must be at least {least}: MAX_MESSAGE_SIZE ({message}) and {ENVELOPE_BYTES} bytes \
                 for what the relay adds"
            )
        })
    }

    fn idle_outlasts_ping(&self) -> Option<Problem> {
        let clash = self.config.timing.idle_deadline <= self.config.timing.ping_interval;
        self.blame("IDLE_DEADLINE", &["PING_INTERVAL"], clash, || {
            format!(
                "must be longer than PING_INTERVAL ({}), or agents are dropped before they can \
                 answer a ping",
                self.shown("PING_INTERVAL")
            )
        })
    }

    fn public_means_encrypted(&self) -> Option<Problem> {
        let Config { production, behind_proxy, host, .. } = self.config;
        let clash = production && !behind_proxy && is_public(host) && !self.is_encrypted();
        self.blame("HOST", &["NODE_ENV", "BEHIND_PROXY"], clash, || {
            "NODE_ENV=production refuses unencrypted ws:// on a public address; either set \
             ACME_DOMAINS, or TLS_CERT and TLS_KEY, or put a TLS proxy in front and set BEHIND_PROXY=true, or set HOST to a \
             private or loopback address such as 127.0.0.1"
                .into()
        })
    }

    fn tls_files_come_together(&self) -> Vec<Problem> {
        let TlsConfig { cert, key, .. } = &self.config.tls;
        let any = self.config.tls.names_files();
        let problem = |(variable, file): (&'static str, &Option<PathBuf>)| {
            self.blame(variable, &["TLS_CERT", "TLS_KEY"], any && file.is_none(), || {
                "must be set too: TLS_CERT and TLS_KEY go together".into()
            })
        };
        [("TLS_CERT", cert), ("TLS_KEY", key)].into_iter().filter_map(problem).collect()
    }

    fn one_source_of_certificates(&self) -> Vec<Problem> {
        let tls = &self.config.tls;
        let clash = tls.self_signed && tls.names_files();
        let own = self.blame("TLS_SELF_SIGNED", &["TLS_CERT", "TLS_KEY"], clash, || {
            "must not be set together with TLS_CERT and TLS_KEY: agents are shown the certificate in \
             the files, or one of the node's own"
                .into()
        });
        let clash = !tls.acme.domains.is_empty() && (tls.self_signed || tls.names_files());
        let others = ["TLS_CERT", "TLS_KEY", "TLS_SELF_SIGNED"];
        let authority = self.blame("ACME_DOMAINS", &others, clash, || {
            "must not be set together with TLS_CERT, TLS_KEY or TLS_SELF_SIGNED: the certificate comes \
             from an authority, or from the files, or from the node"
                .into()
        });
        own.into_iter().chain(authority).collect()
    }

    /// Who sets any of it wants certificates, and would run without.
    fn acme_names_domains(&self) -> Vec<Problem> {
        let lacks = self.config.tls.acme.domains.is_empty();
        let problem = |variable| {
            self.blame(variable, &["ACME_DOMAINS"], lacks && self.is_given(variable), || {
                "is of no use without ACME_DOMAINS: set it to the names that agents connect to"
                    .into()
            })
        };
        ACME_DETAILS.into_iter().filter_map(problem).collect()
    }

    fn acme_accounts_have_keys(&self) -> Option<Problem> {
        let acme = &self.config.tls.acme;
        let (variable, clash) = match (&acme.eab_kid, &acme.eab_hmac) {
            (Some(_), None) => ("ACME_EAB_HMAC", true),
            (None, Some(_)) => ("ACME_EAB_KID", true),
            _ => ("ACME_EAB_KID", false),
        };
        self.blame(variable, &["ACME_EAB_KID", "ACME_EAB_HMAC"], clash, || {
            "must be set too: ACME_EAB_KID and ACME_EAB_HMAC go together".into()
        })
    }

    fn http_challenges_need_their_port(&self) -> Option<Problem> {
        let TlsConfig { acme, http_port, .. } = &self.config.tls;
        let asks = !acme.domains.is_empty() && acme.challenge == Challenge::Http01;
        self.blame("HTTP_PORT", &["ACME_CHALLENGE"], asks && http_port.is_none(), || {
            "must not be none: the authority asks there when ACME_CHALLENGE is http-01".into()
        })
    }

    fn proxy_protocol_names_proxies(&self) -> Option<Problem> {
        let clash = self.config.proxy_protocol && self.config.trusted_proxies.is_empty();
        self.blame("PROXY_PROTOCOL", &["TRUSTED_PROXIES"], clash, || {
            "whoever connects could claim any address: set TRUSTED_PROXIES to the addresses of the \
             proxies that send the header"
                .into()
        })
    }

    /// Whether agents connect by TLS.
    fn is_encrypted(&self) -> bool {
        self.config.tls.source().is_some()
    }

    /// Whether the operator has set it, be it to its default.
    fn is_given(&self, variable: &str) -> bool {
        self.written.given.contains_key(&variable.to_ascii_lowercase())
    }

    fn a_secret_follows_another(&self) -> Option<Problem> {
        let mesh = &self.config.mesh;
        let follows = mesh.secret.is_some() && mesh.secret != mesh.previous_secret;
        let clash = mesh.previous_secret.is_some() && !follows;
        self.blame("CLUSTER_SECRET_PREVIOUS", &["CLUSTER_SECRET"], clash, || {
            "is for a cluster that changes its secret: set CLUSTER_SECRET to the new one, or remove \
             this"
                .into()
        })
    }

    fn seeds_know_their_own(&self) -> Option<Problem> {
        let mesh = &self.config.mesh;
        let clash = !mesh.seeds.is_empty() && mesh.secret.is_none() && !mesh.names_files();
        let others = ["CLUSTER_SECRET", "MESH_CA", "MESH_CERT", "MESH_KEY"];
        self.blame("SEEDS", &others, clash, || {
            "nodes must know their own from strangers: run \"arc-relay secret\" once and give all \
             nodes the same CLUSTER_SECRET, or give each its MESH_CA, MESH_CERT and MESH_KEY"
                .into()
        })
    }

    fn files_come_together(&self) -> Vec<Problem> {
        let MeshConfig { ca, cert, key, .. } = &self.config.mesh;
        let files = [("MESH_CA", ca), ("MESH_CERT", cert), ("MESH_KEY", key)];
        let all = files.map(|(variable, _)| variable);
        let any = self.config.mesh.names_files();
        let problem = |(variable, file): (&'static str, &Option<PathBuf>)| {
            self.blame(variable, &all, any && file.is_none(), || {
                "must be set too: MESH_CA, MESH_CERT and MESH_KEY go together".into()
            })
        };
        files.into_iter().filter_map(problem).collect()
    }

    fn one_kind_of_credentials(&self) -> Option<Problem> {
        let clash = self.config.mesh.secret.is_some() && self.config.mesh.names_files();
        self.blame("CLUSTER_SECRET", &["MESH_CA", "MESH_CERT", "MESH_KEY"], clash, || {
            "must not be set together with MESH_CA, MESH_CERT or MESH_KEY: a node has its \
             certificate from the one or from the others"
                .into()
        })
    }

    /// A problem with `variable` if it clashes with `others`, unless one of them is wrong anyway.
    fn blame(
        &self,
        variable: &'static str,
        others: &[&str],
        clash: bool,
        remedy: impl FnOnce() -> String,
    ) -> Option<Problem> {
        let sound = others.iter().chain([&variable]).all(|name| !self.wrong.contains(name));
        (clash && sound).then(|| {
            Problem::new(variable, remedy())
                .set_in(self.origin(variable))
                .with_value(&self.shown(variable))
        })
    }

    fn remarks(&self) -> Vec<Notice> {
        let Config { behind_proxy, stats_host, .. } = self.config;
        let mut notices = Vec::new();
        if behind_proxy && self.config.trusted_proxies.is_empty() {
            notices.push(Notice::NoTrustedProxy);
        }
        if is_public(stats_host) {
            notices.push(Notice::OpsListenerPublic);
        }
        notices.extend(self.remarks_on_tls());
        let mesh = &self.config.mesh;
        if mesh.credentials().is_some() && mesh.seeds.is_empty() {
            notices.push(Notice::NoSeeds);
        }
        notices
    }

    fn remarks_on_tls(&self) -> Vec<Notice> {
        if !self.is_encrypted() {
            let unused = ["TLS_PORT", "HTTP_PORT"].into_iter().filter(|name| self.is_given(name));
            return unused.map(|variable| Notice::TlsPortUnused { variable }).collect();
        }
        let mut notices = Vec::new();
        if self.is_given("PORT") {
            notices.push(Notice::PortUnused);
        }
        if self.config.production && self.config.tls.self_signed {
            notices.push(Notice::SelfSignedInProduction);
        }
        notices
    }

    fn chosen(&self, default: &Config) -> Vec<Chosen> {
        let given = settings().iter().filter_map(|setting| {
            let origin = self.written.given.get(&setting.key())?.origin.clone();
            let value = setting.show(&self.config);
            (value != setting.show(default)).then_some(Chosen {
                variable: setting.variable,
                value,
                origin,
            })
        });
        given.collect()
    }

    fn shown(&self, variable: &str) -> String {
        setting_of(variable).map(|setting| setting.show(&self.config)).unwrap_or_default()
    }

    fn origin(&self, variable: &str) -> String {
        let given = self.written.given.get(&variable.to_ascii_lowercase());
        given.map_or_else(|| "default".into(), |given| given.origin.clone())
    }
}

/// Whether a listener on `address` can be reached from outside a private network: anything but the
/// ranges set aside for loopback, private and link-local use (RFC 6890), `0.0.0.0` and `::` included.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !is_private_v4(v4),
        IpAddr::V6(v6) => !is_private_v6(v6),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_carrier_nat = first == 100 && (second & 0xc0) == 64; // RFC 6598
    address.is_loopback() || address.is_private() || address.is_link_local() || is_carrier_nat
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
