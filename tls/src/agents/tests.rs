//! Chains good and bad, and handshakes in memory with what a node serves.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, NamedGroup,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{
            self,
            kx_group::{SECP256R1, X25519, X25519MLKEM768},
        },
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

/// The time since 1970 in November 2026.
const NOW: Duration = Duration::from_hours(498_706);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// PEM of a certificate for these names, good in all of 2026, and of its key.
fn issue(authority: &Authority, names: &[&str], key: &KeyPair) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    (params.signed_by(key, authority).unwrap().pem(), key.serialize_pem())
}

fn chain(authority: &Authority, names: &[&str]) -> Chain {
    let (own, key) = issue(authority, names, &KeyPair::generate().unwrap());
    Chain::from_pem(own.as_bytes(), key.as_bytes()).unwrap()
}

/// A client that trusts this authority and knows these protocols and versions.
fn client(
    trusted: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A handshake of the two, and one answer of the server; or why there is none.
fn talk(
    config: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<ClientConnection, Error> {
    let mut client = ClientConnection::new(config.clone(), name.to_owned().try_into().unwrap())?;
    let mut server = ServerConnection::new(server.clone())?;
    for _ in 0..4 {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        let judged = server.process_new_packets();
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
        judged?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(client)
}

/// The certificate that a client saw.
fn shown(connection: &ClientConnection) -> &[u8] {
    &connection.peer_certificates().unwrap()[0]
}

/// Believes every certificate, as an authority that validates does: it looks at what is in it.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn refused(chain: &str, key: &str) -> ChainError {
    Chain::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err()
}

#[test]
fn a_chain_says_whom_it_is_for_and_how_long() {
    let names = ["Relay.Example.com", "*.example.com", "127.0.0.1", "::1"];
    let chain = chain(&authority(), &names);
    assert_eq!(chain.names(), ["relay.example.com", "*.example.com", "127.0.0.1", "::1"]);
    assert_eq!(chain.check_time(NOW), Ok(()));
    let second = Duration::from_secs(1);
    assert_eq!(chain.check_time(chain.not_before()), Ok(()));
    assert_eq!(
        chain.check_time(chain.not_before().saturating_sub(second)),
        Err(ChainError::NotYet(second))
    );
    assert_eq!(chain.check_time(chain.not_after()), Ok(()));
    assert_eq!(chain.check_time(chain.not_after() + second), Err(ChainError::Expired(second)));
    assert!(!format!("{chain:?}").to_lowercase().contains("key"), "{chain:?}");
}

#[test]
fn keys_of_all_usual_kinds_fit() {
    let authority = authority();
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let (own, key) = issue(&authority, &["a.example"], &key);
        Chain::from_pem(own.as_bytes(), key.as_bytes()).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_told_apart() {
    let authority = authority();
    let (own, key) = issue(&authority, &["a.example"], &KeyPair::generate().unwrap());
    let (other, other_key) = issue(&authority, &["b.example"], &KeyPair::generate().unwrap());
    let (nameless, nameless_key) = issue(&authority, &[], &KeyPair::generate().unwrap());
    let issuer = authority.pem();
    assert!(Chain::from_pem(format!("{own}{issuer}").as_bytes(), key.as_bytes()).is_ok());
    assert_eq!(refused("", &key), ChainError::NoCertificate);
    assert_eq!(refused(&key, &key), ChainError::NoCertificate);
    assert_eq!(refused(&own, ""), ChainError::NoKey);
    assert_eq!(refused(&own, &own), ChainError::NoKey);
    assert_eq!(refused(&own, &other_key), ChainError::OtherKey);
    assert_eq!(refused(&format!("{issuer}{own}"), &key), ChainError::KeyOfLater(2));
    assert_eq!(refused(&format!("{own}{other}"), &key), ChainError::Disorder(2));
    assert_eq!(refused(&format!("{own}{issuer}{other}"), &key), ChainError::Disorder(3));
    assert_eq!(refused(&nameless, &nameless_key), ChainError::NoNames);
    let cut = own.replace("-----END CERTIFICATE-----", "");
    assert_eq!(refused(&cut, &key), ChainError::BadCertificate(1));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(refused(&format!("{own}{garbage}"), &key), ChainError::BadCertificate(2));
    let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert_eq!(refused(&own, &locked), ChainError::EncryptedKey);
    let spoilt = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(refused(&own, spoilt), ChainError::UnusableKey);
}

#[test]
fn a_client_gets_the_chain_of_the_name_it_asks_for() {
    let authority = authority();
    let served = Arc::new(Served::default());
    let node = server_config(served.clone()).unwrap();
    let config = Arc::new(client(&authority, &[&TLS13, &TLS12], &[HTTP_1_1]));
    assert!(talk(&config, &node, "a.example").is_err(), "there is no certificate yet");

    let (first, second) =
        (chain(&authority, &["a.example", "127.0.0.1"]), ["b.example", "*.b.example"]);
    let second = chain(&authority, &second);
    served.set_chains(vec![first.clone(), second.clone()]);
    for (name, expected) in [
        ("a.example", &first),
        ("b.example", &second),
        ("x.b.example", &second),
        ("127.0.0.1", &first),
    ] {
        let connection = talk(&config, &node, name).unwrap();
        assert_eq!(shown(&connection), &expected.certificates()[0][..], "{name}");
        assert_eq!(connection.alpn_protocol(), Some(HTTP_1_1));
    }
    for name in ["c.example", "y.x.b.example", "example"] {
        let error = talk(&config, &node, name).unwrap_err().to_string();
        assert!(error.contains("a.example"), "it says what the relay is called: {error}");
    }
}

#[test]
fn chains_are_swapped_and_the_one_that_a_client_can_verify_is_taken() {
    let authority = authority();
    let served = Arc::new(Served::default());
    let node = server_config(served.clone()).unwrap();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let (own, key) = issue(&authority, &["a.example"], &key);
    let ed25519 = Chain::from_pem(own.as_bytes(), key.as_bytes()).unwrap();
    let ecdsa = chain(&authority, &["a.example"]);
    served.set_chains(vec![ed25519.clone(), ecdsa.clone()]);
    let config = Arc::new(client(&authority, &[&TLS13], &[]));
    let seen = talk(&config, &node, "a.example").unwrap();
    assert_eq!(shown(&seen), &ed25519.certificates()[0][..]);
    assert_eq!(*served.chains(), [ed25519.clone(), ecdsa.clone()]);
    served.set_chains(vec![ecdsa.clone()]);
    let fresh = Arc::new(client(&authority, &[&TLS13], &[]));
    let seen = talk(&fresh, &node, "a.example").unwrap();
    assert_eq!(shown(&seen), &ecdsa.certificates()[0][..]);
}

#[test]
fn challenges_are_answered_to_who_speaks_of_nothing_else() {
    let (authority, name) = (authority(), "a.example");
    let served = Arc::new(Served::default());
    let node = server_config(served.clone()).unwrap();
    let own = chain(&authority, &[name]);
    served.set_chains(vec![own.clone()]);
    let stranger = Arc::new(client(&authority, &[&TLS13], &[ACME_TLS]));
    assert!(talk(&stranger, &node, name).is_err(), "there is no challenge");

    served.set_tls_alpn(BTreeMap::from([("A.Example".to_owned(), [7; 32])])).unwrap();
    let mut validator = client(&authority, &[&TLS13], &[ACME_TLS]);
    validator.dangerous().set_certificate_verifier(Arc::new(Anything));
    let validator = Arc::new(validator);
    let seen = talk(&validator, &node, name).unwrap();
    assert_eq!(seen.alpn_protocol(), Some(ACME_TLS));
    let answer = shown(&seen);
    let (_, parsed) = X509Certificate::from_der(answer).unwrap();
    let identifier =
        parsed.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let identifier = identifier.unwrap();
    assert!(identifier.critical);
    assert_eq!(identifier.value, [&[4, 32][..], &[7; 32]].concat(), "an OCTET STRING");
    assert!(talk(&validator, &node, "b.example").is_err(), "of this name nothing is known");

    for alpn in [&[HTTP_1_1, ACME_TLS][..], &[ACME_TLS, HTTP_1_1], &[HTTP_1_1], &[]] {
        let agent = Arc::new(client(&authority, &[&TLS13], alpn));
        let seen = talk(&agent, &node, name).unwrap();
        assert_eq!(shown(&seen), &own.certificates()[0][..]);
        assert_ne!(seen.alpn_protocol(), Some(ACME_TLS));
    }
    served.set_tls_alpn(BTreeMap::new()).unwrap();
    assert!(matches!(talk(&stranger, &node, name), Err(Error::AlertReceived(_))));
}

#[test]
fn tokens_of_challenges_are_known_until_they_are_replaced() {
    let served = Served::default();
    served.set_http_01(BTreeMap::from([("token".to_owned(), "token.print".to_owned())]));
    assert_eq!(served.http_01("token").as_deref(), Some("token.print"));
    assert_eq!(served.http_01("other"), None);
    served.set_http_01(BTreeMap::new());
    assert_eq!(served.http_01("token"), None);
}

#[test]
fn both_versions_are_spoken_and_resumed_without_a_cache() {
    let authority = authority();
    let served = Arc::new(Served::default());
    served.set_chains(vec![chain(&authority, &["a.example"])]);
    let node = server_config(served).unwrap();
    for (version, name) in [(&TLS13, ProtocolVersion::TLSv1_3), (&TLS12, ProtocolVersion::TLSv1_2)]
    {
        let config = Arc::new(client(&authority, &[version], &[HTTP_1_1]));
        let first = talk(&config, &node, "a.example").unwrap();
        assert_eq!(first.protocol_version(), Some(name));
        assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
        let again = talk(&config, &node, "a.example").unwrap();
        assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed), "{name:?}");
    }
    assert!(!node.session_storage.can_cache());
    assert!(node.ticketer.enabled());
    assert_eq!(node.max_early_data_size, 0);
}

#[test]
fn keys_are_agreed_on_by_the_hybrid_where_the_client_can() {
    let authority = authority();
    let served = Arc::new(Served::default());
    served.set_chains(vec![chain(&authority, &["a.example"])]);
    let node = server_config(served).unwrap();
    let group = |groups: Vec<&'static dyn SupportedKxGroup>| {
        let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = talk(&Arc::new(config), &node, "a.example").unwrap();
        connection.negotiated_key_exchange_group().unwrap().name()
    };
    assert_eq!(group(vec![X25519MLKEM768, X25519]), NamedGroup::X25519MLKEM768);
    assert_eq!(group(vec![X25519MLKEM768]), NamedGroup::X25519MLKEM768);
    assert_eq!(group(vec![X25519]), NamedGroup::X25519);
    assert_eq!(group(vec![SECP256R1]), NamedGroup::secp256r1);
}

#[test]
fn an_own_certificate_is_kept_until_its_names_or_its_time_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned(), "Relay-1".to_owned(), "127.0.0.1".to_owned()];
    let first = self_signed(folder.path(), &names, NOW).unwrap();
    assert!(first.is_new);
    assert_eq!(first.chain.check_time(NOW), Ok(()));
    let key = fs::metadata(folder.path().join("self-signed.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    let again = self_signed(folder.path(), &names, NOW).unwrap();
    assert!(!again.is_new && again.chain == first.chain);
    let later = first.chain.not_after().saturating_sub(Duration::from_hours(24 * 29));
    let renewed = self_signed(folder.path(), &names, later).unwrap();
    assert!(renewed.is_new && renewed.chain != first.chain);
    let other = self_signed(folder.path(), &names[..1], later).unwrap();
    assert!(other.is_new, "it is for other names");
    fs::write(folder.path().join("self-signed.key"), "spoilt").unwrap();
    assert!(self_signed(folder.path(), &names[..1], later).unwrap().is_new);
}

#[test]
fn an_own_certificate_is_good_for_who_trusts_it() {
    let folder = tempfile::tempdir().unwrap();
    #[allow(clippy::disallowed_methods)] // the client goes by the machine's clock
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let own = self_signed(folder.path(), &["localhost".to_owned()], now).unwrap();
    let served = Arc::new(Served::default());
    served.set_chains(vec![own.chain.clone()]);
    let mut roots = RootCertStore::empty();
    roots.add(own.chain.certificates()[0].clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    talk(&Arc::new(config), &server_config(served).unwrap(), "localhost").unwrap();
}
