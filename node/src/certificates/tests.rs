//! Where a node has its certificate from, in folders of the tests' own.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use tls::acme::MemoryShelf;

use super::*;
use crate::{config::TlsConfig, relay::testing::relay};

/// In January 2027, as the tests' relays have it.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Writes the certificate and the key of a name, good from 2020 to the beginning of a year.
fn write_files(folder: &Path, name: &str, until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    fs::write(folder.join("cert"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("key"), key.serialize_pem()).unwrap();
}

fn config(folder: &Path, self_signed: bool) -> Config {
    let file = |name| (!self_signed).then(|| folder.join(name));
    let tls =
        TlsConfig { cert: file("cert"), key: file("key"), self_signed, ..TlsConfig::default() };
    Config { tls, data_dir: folder.to_owned(), ..Config::default() }
}

fn open(folder: &Path, self_signed: bool) -> Result<Arc<Certificates>, CertificateError> {
    opened(&config(folder, self_signed)).map(Option::unwrap)
}

fn opened(config: &Config) -> Result<Option<Arc<Certificates>>, CertificateError> {
    Certificates::open(config, &Clock::manual(NOW), Arc::new(MemoryShelf::new()))
}

#[test]
fn without_tls_there_is_nothing() {
    assert!(opened(&Config::default()).unwrap().is_none());
}

#[test]
fn files_are_served_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), "a.example", 2028);
    let certificates = open(folder.path(), false).unwrap();
    let report = certificates.report(NOW);
    assert_eq!((report.source.as_str(), report.problem), ("files", None));
    assert_eq!(report.names, ["a.example"]);
    assert_eq!(report.expires_at, Some(UnixMillis(1_830_297_600_000)));
    assert_eq!(report.expires_in, Some(30_297_600));
    let later = UnixMillis(1_830_297_601_000);
    assert_eq!(certificates.report(later).expires_in, Some(-1));
    assert!(!certificates.is_self_signed());
}

#[test]
fn an_authoritys_certificate_is_to_come() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), true);
    config.tls.self_signed = false;
    config.tls.acme.domains = vec!["a.example".into()];
    let certificates = opened(&config).unwrap().unwrap();
    let report = certificates.report(NOW);
    assert_eq!((report.source.as_str(), report.names), ("acme", vec!["a.example".into()]));
    assert_eq!((report.expires_in, report.problem), (None, None));
    let due = AcmeReport { failures: 0, next_in: -1_800_000_000, ordering: false };
    assert_eq!(report.acme, Some(due));
    assert!(certificates.orders().is_some() && !certificates.is_self_signed());
}

#[test]
fn files_that_are_no_good_are_told_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let said = || open(folder.path(), false).unwrap_err().to_string();
    assert!(said().starts_with("cannot read TLS_CERT, "), "{}", said());
    write_files(folder.path(), "a.example", 2025);
    assert!(said().contains("the certificate expired 744 days ago"), "{}", said());
    fs::remove_file(folder.path().join("key")).unwrap();
    assert!(said().starts_with("cannot read TLS_KEY, "), "{}", said());
}

#[test]
fn new_files_are_served_and_bad_ones_are_a_problem_until_they_are_mended() {
    let (relay, _clock, _names) = relay();
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), "a.example", 2028);
    let certificates = open(folder.path(), false).unwrap();
    write_files(folder.path(), "b.example", 2029);
    certificates.look(&relay, false, 1);
    assert_eq!(certificates.report(NOW).names, ["b.example"]);

    let good = fs::read(folder.path().join("key")).unwrap();
    fs::write(folder.path().join("key"), "spoilt").unwrap();
    certificates.look(&relay, true, 2);
    let report = certificates.report(NOW);
    assert_eq!(report.names, ["b.example"]);
    assert!(report.problem.unwrap().starts_with("no PEM private key"));
    fs::write(folder.path().join("key"), good).unwrap();
    certificates.look(&relay, false, 3);
    assert_eq!(certificates.report(NOW).problem, None);
    let metrics = relay.metrics.render();
    for line in ["arc_tls_reloads_total 1", "arc_tls_reload_failures_total 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn an_own_certificate_is_for_the_names_of_this_node_and_renewed_when_it_must_be() {
    let (relay, clock, _names) = relay();
    let folder = tempfile::tempdir().unwrap();
    let certificates = open(folder.path(), true).unwrap();
    assert!(certificates.is_self_signed());
    let names = certificates.report(NOW).names;
    assert!(names.iter().any(|name| name == "localhost"), "{names:?}");
    let served = certificates.served().chains();
    certificates.look(&relay, true, 1);
    assert_eq!(certificates.served().chains(), served, "it is good");
    clock.advance(Duration::from_hours(24 * 800));
    certificates.look(&relay, false, 1);
    assert_eq!(certificates.served().chains(), served, "it is looked at every hour");
    certificates.look(&relay, false, ROUNDS_TO_RENEW);
    assert_ne!(certificates.served().chains(), served);
}

#[test]
fn an_end_is_near_in_the_last_sixth_of_a_life_and_never_two_weeks_before() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), "a.example", 2028);
    let certificates = open(folder.path(), false).unwrap();
    let end = Duration::from_hours(508_416);
    let before = |days: u32| end.saturating_sub(Duration::from_hours(24) * days);
    assert!(!certificates.is_near_its_end(before(15)));
    assert!(certificates.is_near_its_end(before(13)));
    assert!(certificates.is_near_its_end(end + Duration::from_hours(1)));
}
