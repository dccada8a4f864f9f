//! The rules between settings, the report, and that secrets stay secret.
#![allow(clippy::unwrap_used)] // a test's panic is its verdict

use std::time::Duration;

use super::*;
use crate::config::{CertificateSource, SettingsFile, mesh::seed};

/// A cluster's secret, for ever the same.
const SECRET: &str = "arcs_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcUbF2o";

/// Another one.
const PREVIOUS: &str = "arcs_1-auW9DwJAc-twzSDsHSGOskD34g3uO0sk5unKNl5FT03jCT";

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    Sources { environment, host_name: "vm-7".into(), ..Sources::default() }
}

fn loaded(pairs: &[(&str, &str)]) -> Loaded {
    load(&environment(pairs)).unwrap_or_else(|problems| panic!("{pairs:?}: {problems}"))
}

fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = load(&environment(pairs)).err().map(|problems| problems.0).unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

/// That `pairs` make one problem, with these parts.
fn one_problem(pairs: &[(&str, &str)], parts: &[&str]) {
    let problems = problems(pairs);
    assert_eq!(problems.len(), 1, "{problems:?}");
    for part in parts {
        assert!(problems[0].contains(part), "{part:?} is missing in: {}", problems[0]);
    }
}

#[test]
fn nothing_set_is_the_default_with_the_host_name() {
    let loaded = loaded(&[]);
    let (host_name, node_name) = ("vm-7".into(), "vm-7".into());
    assert_eq!(loaded.config, Config { host_name, node_name, ..Config::default() });
    assert!(loaded.notices.is_empty() && loaded.chosen.is_empty());
    assert_eq!(loaded.to_string(), "configuration ok");
}

#[test]
fn a_host_name_that_is_no_node_name_is_not_used() {
    for host_name in ["", "vm 7", "ünder"] {
        let sources = Sources { host_name: host_name.into(), ..Sources::default() };
        assert_eq!(load(&sources).unwrap().config.node_name, "node");
    }
}

#[test]
#[allow(clippy::too_many_lines)] // one line a setting
fn every_setting_reaches_its_field() {
    let config = loaded(&[
        ("HOST", "::1"),
        ("PORT", "1"),
        ("STATS_HOST", "10.0.0.1"),
        ("STATS_PORT", "2"),
        ("STATS_NAMES", "Ops.example.com,*.a.example"),
        ("BEHIND_PROXY", "true"),
        ("PROXY_PROTOCOL", "true"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("TLS_SELF_SIGNED", "true"),
        ("TLS_PORT", "17"),
        ("HTTP_PORT", "none"),
        ("DATA_DIR", "/data"),
        ("RELAY_NAME", "Our relay"),
        ("NODE_NAME", "n1"),
        ("REGION", "eu"),
        ("NODE_ENV", "production"),
        ("ALLOWED_ORIGINS", "https://a.b"),
        ("REGISTRATION_KEY", "open-sesame"),
        ("TOKEN_TTL", "30d"),
        ("SUBSCRIBE_SCOPE", "all"),
        ("SUBSCRIPTION_TTL", "3"),
        ("SEEDS", "node-1,10.0.0.2:1"),
        ("CLUSTER_SECRET", SECRET),
        ("CLUSTER_SECRET_PREVIOUS", PREVIOUS),
        ("MESH_HOST", "10.0.0.3"),
        ("MESH_PORT", "15"),
        ("ADVERTISE", "node-3:16"),
        ("MAX_CONNECTIONS", "4"),
        ("RATE_LIMIT_PER_MIN", "5"),
        ("RATE_LIMIT_PER_HOUR", "6"),
        ("REGISTRATION_LIMIT_PER_MIN", "7"),
        ("CONNECTIONS_PER_ADDRESS", "8"),
        ("HANDSHAKES_PER_ADDRESS", "9"),
        ("MAX_MESSAGE_SIZE", "1KiB"),
        ("OUTBOX_BYTES_MAX", "1GiB"),
        ("OUTBOX_MESSAGES_MAX", "10"),
        ("HANDSHAKE_DEADLINE", "11"),
        ("PING_INTERVAL", "12"),
        ("IDLE_DEADLINE", "13"),
        ("WRITE_DEADLINE", "14"),
        ("DRAIN_DEADLINE", "0"),
        ("LOG_LEVEL", "silent"),
        ("LOG_FORMAT", "json"),
        ("LOG_FILE", "/var/log/relay.log"),
        ("LOG_FILE_SIZE", "1MiB"),
        ("LOG_FILE_DAILY", "true"),
        ("LOG_FILES_MAX", "3"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "key=value"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_SERVICE_NAME", "ours"),
    ])
    .config;
    assert_eq!(config, with_every_setting_changed());
    let tls = loaded(&[("TLS_CERT", "d"), ("TLS_KEY", "e"), ("HTTP_PORT", "0")]).config.tls;
    assert_eq!(tls.http_port, Some(0));
    let files = CertificateSource::Files { cert: "d".into(), key: "e".into() };
    assert_eq!(tls.source(), Some(files));
    let files = [("MESH_CA", "a"), ("MESH_CERT", "b"), ("MESH_KEY", "c")];
    let mesh = loaded(&files).config.mesh;
    let named = [mesh.ca, mesh.cert, mesh.key].map(|path| path.unwrap().display().to_string());
    assert_eq!(named, ["a", "b", "c"]);
}

/// No field as it is by default, but those that exclude each other.
fn with_every_setting_changed() -> Config {
    Config {
        host: "::1".parse().unwrap(),
        port: 1,
        stats_host: "10.0.0.1".parse().unwrap(),
        stats_port: 2,
        stats_names: vec!["ops.example.com".into(), "*.a.example".into()],
        host_name: "vm-7".into(),
        data_dir: "/data".into(),
        relay_name: "Our relay".into(),
        node_name: "n1".into(),
        region: "eu".into(),
        production: true,
        behind_proxy: true,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        proxy_protocol: true,
        allowed_origins: Some(vec!["https://a.b".into()]),
        registration_key: Some("open-sesame".into()),
        token_ttl: Some(Duration::from_hours(30 * 24)),
        subscribe_scope: crate::config::SubscribeScope::All,
        subscription_ttl: Duration::from_secs(3),
        tls: TlsConfig { self_signed: true, port: 17, http_port: None, ..TlsConfig::default() },
        mesh: crate::config::MeshConfig {
            seeds: ["node-1:7946", "10.0.0.2:1"].map(|text| seed(text).unwrap()).into(),
            secret: Some(SECRET.parse().unwrap()),
            previous_secret: Some(PREVIOUS.parse().unwrap()),
            host: "10.0.0.3".parse().unwrap(),
            port: 15,
            advertise: Some("node-3:16".parse().unwrap()),
            ..crate::config::MeshConfig::default()
        },
        log: crate::config::LogConfig {
            level: "silent".into(),
            format: crate::config::LogFormat::Json,
            file: crate::logging::FileConfig {
                path: Some("/var/log/relay.log".into()),
                bytes_max: 1 << 20,
                kept: 3,
                daily: true,
            },
        },
        traces: crate::traces::TraceConfig {
            collector: Some("http://otel:4318".parse().unwrap()),
            headers: Some("key=value".into()),
            parts_per_million: 250_000,
            service: "ours".into(),
        },
        limits: crate::config::Limits {
            max_connections: 4,
            rate_per_min: 5,
            rate_per_hour: 6,
            registrations_per_min: 7,
            connections_per_address: 8,
            handshakes_per_address: 9,
            max_message_size: 1_024,
            outbox_bytes_max: 1 << 30,
            outbox_messages_max: 10,
        },
        timing: crate::config::Timing {
            handshake_deadline: Duration::from_secs(11),
            ping_interval: Duration::from_secs(12),
            idle_deadline: Duration::from_secs(13),
            write_deadline: Duration::from_secs(14),
            drain_deadline: Duration::ZERO,
        },
    }
}

#[test]
fn all_problems_are_told_at_once_from_all_layers() {
    let sources = Sources {
        flags: vec![("PORT".into(), "http".into())],
        dotenv: Some("TOKEN_TTL=soon\nbroken line\n".into()),
        file: Some(SettingsFile { name: "a.toml".into(), text: "log_level = 'loud'".into() }),
        ..environment(&[("MAX_CONNECTIONS", "0"), ("PING_INTERVAL", "60")])
    };
    let said = load(&sources).unwrap_err().to_string();
    for part in [
        "the configuration has 6 problems:",
        "\n  .env:2: must be NAME=value",
        "\n  PORT = \"http\" (flag --port): must be a whole number from 0 to 65535",
        "\n  TOKEN_TTL = \"soon\" (.env:1): must be a duration from 1s to 3650d",
        "\n  MAX_CONNECTIONS = \"0\" (environment): must be a whole number from 1 to",
        "\n  LOG_LEVEL = \"loud\" (a.toml): must be one of error, warn",
        "\n  IDLE_DEADLINE = \"1m\" (default): must be longer than PING_INTERVAL (1m)",
    ] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

#[test]
fn a_secret_is_in_no_message() {
    let good = [("REGISTRATION_KEY", "swordfish-7")];
    let report = loaded(&good).to_string();
    assert!(report.contains("REGISTRATION_KEY = (hidden) (environment)"), "{report}");
    let bad = [("REGISTRATION_KEY", "sword fish-7"), ("PORT", "x")];
    for said in [report, format!("{:?}", loaded(&good)), format!("{:?}", load(&environment(&bad)))]
    {
        assert!(said.contains("REGISTRATION_KEY") && !said.contains("fish"), "{said}");
    }
    one_problem(&bad[..1], &["REGISTRATION_KEY (environment): must be 8 to 256"]);
}

#[test]
fn the_outbox_holds_at_least_one_message() {
    loaded(&[("MAX_MESSAGE_SIZE", "1MiB"), ("OUTBOX_BYTES_MAX", "1052672")]);
    one_problem(
        &[("MAX_MESSAGE_SIZE", "1MiB"), ("OUTBOX_BYTES_MAX", "1052671")],
        &["OUTBOX_BYTES_MAX = \"1052671\" (environment): must be at least 1052672"],
    );
    one_problem(&[("MAX_MESSAGE_SIZE", "1MiB")], &["OUTBOX_BYTES_MAX = \"1MiB\" (default)"]);
}

#[test]
fn silence_is_longer_than_the_ping_interval() {
    loaded(&[("PING_INTERVAL", "59s")]);
    one_problem(&[("PING_INTERVAL", "1m")], &["IDLE_DEADLINE", "PING_INTERVAL (1m)"]);
    one_problem(&[("IDLE_DEADLINE", "30s")], &["IDLE_DEADLINE = \"30s\" (environment)"]);
}

#[test]
fn listeners_that_share_an_address_need_two_ports() {
    one_problem(&[("PORT", "9"), ("STATS_PORT", "9")], &["STATS_PORT", "must differ from PORT"]);
    loaded(&[("PORT", "0"), ("STATS_PORT", "0")]);
    loaded(&[("PORT", "9"), ("STATS_PORT", "9"), ("HOST", "10.0.0.1")]);
}

#[test]
fn a_wrong_value_is_not_judged_twice() {
    one_problem(&[("PING_INTERVAL", "x"), ("IDLE_DEADLINE", "20s")], &["PING_INTERVAL = \"x\""]);
    one_problem(&[("NODE_ENV", "production"), ("BEHIND_PROXY", "x")], &["BEHIND_PROXY"]);
}

#[test]
fn production_refuses_plain_text_on_public_addresses() {
    let production = ("NODE_ENV", "production");
    for host in ["0.0.0.0", "::", "203.0.113.7", "2001:db8::1", "::ffff:8.8.8.8", "::ffff:0.0.0.0"]
    {
        one_problem(
            &[production, ("HOST", host)],
            &["HOST", "(environment)", "BEHIND_PROXY=true", "private or loopback"],
        );
        loaded(&[production, ("HOST", host), ("BEHIND_PROXY", "true")]);
        loaded(&[("HOST", host)]);
    }
    one_problem(&[production], &["HOST = \"::\" (default)"]);
    for host in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "::1",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        loaded(&[production, ("HOST", host)]);
    }
}

#[test]
fn a_proxy_that_is_not_trusted_is_remarked() {
    assert_eq!(loaded(&[("BEHIND_PROXY", "1")]).notices, [Notice::NoTrustedProxy]);
    assert!(loaded(&[("BEHIND_PROXY", "1"), ("TRUSTED_PROXIES", "::1")]).notices.is_empty());
}

#[test]
fn the_proxy_protocol_needs_proxies_to_believe() {
    one_problem(&[("PROXY_PROTOCOL", "1")], &["PROXY_PROTOCOL", "set TRUSTED_PROXIES"]);
    loaded(&[("PROXY_PROTOCOL", "1"), ("TRUSTED_PROXIES", "::1")]);
}

#[test]
fn a_public_ops_listener_is_remarked() {
    let host = ("HOST", "127.0.0.1");
    for open in ["0.0.0.0", "::", "203.0.113.7"] {
        let notices = loaded(&[host, ("STATS_HOST", open)]).notices;
        assert_eq!(notices, [Notice::OpsListenerPublic], "{open}");
        assert!(notices[0].is_warning());
    }
    for private in ["127.0.0.1", "10.0.0.2", "::1", "fd00::1"] {
        assert_eq!(loaded(&[host, ("STATS_HOST", private)]).notices, [], "{private}");
    }
}

#[test]
fn unknown_names_are_warned_of_at_start_and_refused_by_the_check() {
    let sources = Sources {
        dotenv: Some("PROT=1".into()),
        file: Some(SettingsFile { name: "a.toml".into(), text: "max_conections = 1".into() }),
        ..environment(&[("PROT", "foreign"), ("REDIS_URL", "redis://h")])
    };
    let said: Vec<_> = load(&sources).unwrap().notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        said[..2],
        [
            "max_conections (a.toml): is not a setting; did you mean max_connections?; ignored",
            "PROT (.env:1): is not a setting; did you mean PORT?; ignored",
        ]
    );
    assert_eq!(check(&sources).unwrap_err().0.len(), 2);
}

#[test]
fn the_check_shows_what_differs_from_the_defaults() {
    let sources = Sources {
        flags: vec![("RATE_LIMIT_PER_MIN".into(), "0".into())],
        ..environment(&[("PORT", "8080"), ("IDLE_DEADLINE", "120"), ("REDIS_URL", "redis://h")])
    };
    assert_eq!(
        check(&sources).unwrap().to_string(),
        "configuration ok\n  RATE_LIMIT_PER_MIN = 0 (flag --rate-limit-per-min)\n  \
         IDLE_DEADLINE = 2m (environment)\n\
         notice: REDIS_URL is no longer needed: names are kept under DATA_DIR, and SEEDS makes several nodes one relay"
    );
}

#[test]
fn seeds_need_a_secret_or_files() {
    let seeds = ("SEEDS", "node-1,node-2");
    one_problem(
        &[seeds],
        &[
            "SEEDS = \"node-1:7946,node-2:7946\" (environment)",
            "run \"arc-relay secret\" once and give all nodes the same CLUSTER_SECRET",
        ],
    );
    assert!(loaded(&[seeds, ("CLUSTER_SECRET", SECRET)]).notices.is_empty());
    loaded(&[seeds, ("MESH_CA", "a"), ("MESH_CERT", "b"), ("MESH_KEY", "c")]);
    // A mistyped one is told once, and is in no message.
    let typo = SECRET.replace("BwcH", "BwcJ");
    one_problem(
        &[seeds, ("CLUSTER_SECRET", &typo)],
        &["CLUSTER_SECRET (environment): must be arcs_"],
    );
    assert!(!problems(&[("CLUSTER_SECRET", &typo)])[0].contains("BwcJ"));
    let previous = |secret| ("CLUSTER_SECRET_PREVIOUS", secret);
    loaded(&[("CLUSTER_SECRET", SECRET), previous(PREVIOUS)]);
    one_problem(&[("CLUSTER_SECRET", SECRET), previous(SECRET)], &["CLUSTER_SECRET_PREVIOUS"]);
    one_problem(
        &[previous(PREVIOUS)],
        &["CLUSTER_SECRET_PREVIOUS", "set CLUSTER_SECRET to the new"],
    );
}

#[test]
fn a_node_that_waits_for_others_is_remarked() {
    for credentials in [
        &[("CLUSTER_SECRET", SECRET)][..],
        &[("MESH_CA", "a"), ("MESH_CERT", "b"), ("MESH_KEY", "c")],
    ] {
        let notices = loaded(credentials).notices;
        assert_eq!(notices, [Notice::NoSeeds]);
        assert!(!notices[0].is_warning() && notices[0].to_string().contains("this relay is alone"));
    }
    let said = loaded(&[("CLUSTER_SECRET", SECRET)]).to_string();
    assert!(said.contains("CLUSTER_SECRET = (hidden)") && !said.contains("arcs_"), "{said}");
}

#[test]
fn the_meshs_files_come_together_and_without_a_secret() {
    let two = problems(&[("MESH_CERT", "b")]);
    assert_eq!(two.len(), 2, "{two:?}");
    assert!(two[0].starts_with("MESH_CA") && two[1].starts_with("MESH_KEY"), "{two:?}");
    assert!(two[0].contains("must be set too: MESH_CA, MESH_CERT and MESH_KEY"), "{two:?}");
    let all = [("MESH_CA", "a"), ("MESH_CERT", "b"), ("MESH_KEY", "c")];
    let both = [&all[..], &[("CLUSTER_SECRET", SECRET)]].concat();
    one_problem(&both, &["CLUSTER_SECRET = \"(hidden)\"", "must not be set together with MESH_CA"]);
}

#[test]
fn the_meshs_addresses_can_be_dialled() {
    for nowhere in ["0.0.0.0", "[::]:7946", "::", "node-1:0", "10.0.0"] {
        one_problem(&[("ADVERTISE", nowhere)], &["ADVERTISE", "that other nodes can reach"]);
    }
    for seeds in ["a,,b", "0.0.0.0", "a;b", ","] {
        let secret = ("CLUSTER_SECRET", SECRET);
        one_problem(&[("SEEDS", seeds), secret], &["SEEDS", "comma separated"]);
    }
}

/// A node that stands in the list twice would be two that keep the names.
#[test]
fn a_seed_that_is_named_again_counts_once() {
    for (seeds, kept) in [
        ("a,a,b", "a:7946,b:7946"),
        ("a,A:7946,b,a.", "a:7946,b:7946"),
        ("a.example.,b,A.Example:7946", "a.example:7946,b:7946"),
        ("10.0.0.1,[::ffff:10.0.0.1]", "10.0.0.1:7946"),
        ("fd00::1,[fd00:0:0::1]:7946,[fd00::1]:1", "[fd00::1]:7946,[fd00::1]:1"),
    ] {
        let loaded = loaded(&[("SEEDS", seeds), ("CLUSTER_SECRET", SECRET)]);
        let seeds: Vec<_> = loaded.config.mesh.seeds.iter().map(ToString::to_string).collect();
        assert_eq!(seeds.join(","), kept);
    }
}

/// TLS by files.
const FILES: [(&str, &str); 2] = [("TLS_CERT", "a"), ("TLS_KEY", "b")];

#[test]
fn contradictions_about_certificates_are_refused() {
    one_problem(&FILES[..1], &["TLS_KEY = \"none\" (default): must be set too"]);
    one_problem(&FILES[1..], &["TLS_CERT = \"none\" (default): must be set too"]);
    let both = [FILES[0], FILES[1], ("TLS_SELF_SIGNED", "true")];
    one_problem(&both, &["TLS_SELF_SIGNED", "must not be set together with TLS_CERT and TLS_KEY"]);
    assert_eq!(loaded(&FILES).notices, []);
}

/// TLS by an authority.
const ACME: (&str, &str) = ("ACME_DOMAINS", "relay.example");

#[test]
fn an_authority_is_asked_for_names_and_is_the_only_source() {
    let settings = loaded(&[ACME, ("ACME_CHALLENGE", "http-01"), ("ACME_EMAIL", "a@b.c")]);
    let source = settings.config.tls.source().unwrap();
    let crate::config::CertificateSource::Acme(settings) = source else { panic!("{source:?}") };
    assert_eq!(settings.domains, ["relay.example"]);
    assert_eq!(settings.directory, tls::acme::LETS_ENCRYPT);
    assert_eq!(settings.challenge, Challenge::Http01);
    one_problem(&[("ACME_DOMAINS", "*.a.example")], &["ACME_DOMAINS", "no wildcards"]);
    one_problem(&[("ACME_EMAIL", "a@b.c")], &["ACME_EMAIL", "of no use without ACME_DOMAINS"]);
    for other in [&FILES[..], &[("TLS_SELF_SIGNED", "true")]] {
        let both = [&[ACME], other].concat();
        one_problem(&both, &["ACME_DOMAINS", "must not be set together with TLS_CERT"]);
    }
    let key = ("ACME_EAB_HMAC", "c2VjcmV0");
    one_problem(&[ACME, key], &["ACME_EAB_KID", "must be set too"]);
    one_problem(&[ACME, ("ACME_EAB_KID", "kid")], &["ACME_EAB_HMAC", "must be set too"]);
    let said = loaded(&[ACME, ("ACME_EAB_KID", "kid"), key]).to_string();
    assert!(said.contains("ACME_EAB_HMAC = (hidden)") && !said.contains("c2VjcmV0"), "{said}");
    let closed = [ACME, ("ACME_CHALLENGE", "http-01"), ("HTTP_PORT", "none")];
    one_problem(&closed, &["HTTP_PORT", "must not be none"]);
    loaded(&[ACME, ("HTTP_PORT", "none")]);
    assert_eq!(loaded(&[ACME, ("NODE_ENV", "production")]).notices, []);
}

#[test]
fn ports_of_tls_differ() {
    let with = |more: &[(&'static str, &'static str)]| [&FILES, more].concat();
    one_problem(&with(&[("TLS_PORT", "8081")]), &["STATS_PORT", "must differ from TLS_PORT"]);
    one_problem(&with(&[("STATS_PORT", "80")]), &["STATS_PORT", "HTTP_PORT"]);
    one_problem(&with(&[("TLS_PORT", "80")]), &["HTTP_PORT", "must differ from TLS_PORT"]);
    loaded(&with(&[("TLS_PORT", "80"), ("HTTP_PORT", "none")]));
    loaded(&with(&[("TLS_PORT", "0"), ("HTTP_PORT", "0"), ("STATS_PORT", "0")]));
    loaded(&with(&[("STATS_PORT", "8080")]));
    let apart = [("TLS_PORT", "8081"), ("HOST", "10.0.0.1"), ("STATS_HOST", "10.0.0.2")];
    loaded(&with(&apart));
}

#[test]
fn production_is_content_with_a_certificate() {
    let production = ("NODE_ENV", "production");
    assert_eq!(loaded(&[production, FILES[0], FILES[1]]).notices, []);
    let notices = loaded(&[production, ("TLS_SELF_SIGNED", "true")]).notices;
    assert_eq!(notices, [Notice::SelfSignedInProduction]);
}

#[test]
fn ports_that_are_not_used_are_remarked() {
    let with_tls = [FILES[0], FILES[1], ("PORT", "8080")];
    assert_eq!(loaded(&with_tls).notices, [Notice::PortUnused]);
    let without = loaded(&[("TLS_PORT", "443")]).notices;
    assert_eq!(without, [Notice::TlsPortUnused { variable: "TLS_PORT" }]);
    assert!(without[0].is_warning() && without[0].to_string().starts_with("TLS_PORT is set"));
}
