//! Handshakes in memory between nodes that belong together and nodes that do not.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{fs, path::Path, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, NamedGroup, PeerIncompatible,
    RootCertStore, ServerConnection, SignatureScheme, client::ResolvesClientCert,
    crypto::aws_lc_rs::default_provider, sign::CertifiedKey, version::TLS12,
};

use super::{
    identity::{authority, node_certificate},
    *,
};

/// A secret for ever the same.
const SECRET: &str = "arcs_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcUbF2o";

/// The time since 1970 in November 2026.
const NOW: Duration = Duration::from_hours(498_706);

fn identity(secret: &Secret, node: u64) -> MeshIdentity {
    MeshIdentity::from_secret(secret, None, node, at(NOW)).unwrap()
}

/// A clock that stands still.
fn at(now: Duration) -> Wall {
    Arc::new(move || now)
}

/// A handshake of the two, and what each side saw of the other.
fn talk(
    client: ClientConfig,
    server: &MeshIdentity,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = SERVER_NAME.try_into().unwrap();
    let mut client = ClientConnection::new(client.into(), name)?;
    let config = server.server_config(KeyExchange::Hybrid).unwrap();
    let mut server = ServerConnection::new(config.into())?;
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn client(identity: &MeshIdentity) -> ClientConfig {
    identity.client_config(KeyExchange::Hybrid).unwrap()
}

#[test]
fn nodes_of_one_cluster_talk_and_see_who_the_other_is() {
    let secret = Secret::generate();
    let (client, server) = talk(client(&identity(&secret, 1)), &identity(&secret, 2)).unwrap();
    assert_eq!(node_of(&server.peer_certificates().unwrap()[0]), Ok(1));
    assert_eq!(node_of(&client.peer_certificates().unwrap()[0]), Ok(2));
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    let group = server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn a_simulations_key_exchange_is_classical() {
    let secret = Secret::generate();
    let client = identity(&secret, 1).client_config(KeyExchange::Classical).unwrap();
    let (_, server) = talk(client, &identity(&secret, 2)).unwrap();
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519);
}

#[test]
fn nodes_of_two_clusters_do_not_talk() {
    let (mine, other) = (Secret::generate(), Secret::generate());
    let error = talk(client(&identity(&mine, 1)), &identity(&other, 2)).unwrap_err();
    let unknown = matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer));
    assert!(unknown, "{error}");
}

/// The other side's part of [`nodes_of_two_clusters_do_not_talk`]: a client that believes anybody.
#[test]
fn a_stranger_who_dials_is_refused() {
    let (mine, other) = (Secret::generate(), Secret::generate());
    let mut stranger = client(&identity(&mine, 1));
    stranger.client_auth_cert_resolver = client(&identity(&other, 1)).client_auth_cert_resolver;
    let error = talk(stranger, &identity(&mine, 2)).unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer)), "{error}");
}

#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn nobody_talks_without_a_certificate() {
    let secret = Secret::generate();
    let mut anonymous = client(&identity(&secret, 1));
    anonymous.client_auth_cert_resolver = Arc::new(Nobody);
    let error = talk(anonymous, &identity(&secret, 2)).unwrap_err();
    assert_eq!(error, Error::NoCertificatesPresented);
}

#[test]
fn tls_1_2_and_other_protocols_are_refused() {
    let secret = Secret::generate();
    let server = identity(&secret, 2);
    let old = ClientConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let error = talk(old, &server).unwrap_err();
    let expected = PeerIncompatible::Tls12NotOfferedOrEnabled;
    assert_eq!(error, Error::PeerIncompatible(expected));
    let mut other = client(&identity(&secret, 1));
    other.alpn_protocols = vec![b"arc-mesh/2".to_vec()];
    assert_eq!(talk(other, &server).unwrap_err(), Error::NoApplicationProtocol);
}

#[test]
fn all_nodes_of_a_secret_derive_one_authority() {
    let secret: Secret = SECRET.parse().unwrap();
    let der = || authority(&secret).unwrap().0;
    assert_eq!(der(), der());
    let hash = digest::digest(&digest::SHA256, &der());
    let frozen = "3311cee87670c42ccab2d07e7e99a50090212d467a9f0dae3719fda9341b72fb";
    assert_eq!(HEXLOWER.encode(hash.as_ref()), frozen);
    assert_eq!(format!("{:?}", identity(&secret, 1)), "MeshIdentity(0000000000000001)");
}

#[test]
fn the_authority_vouches_for_nothing_outside_the_mesh() {
    let secret = Secret::generate();
    let (ca, issuer) = authority(&secret).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = node_certificate(1, NOW).unwrap();
    params.subject_alt_names.push(SanType::DnsName("example.com".try_into().unwrap()));
    let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = key.serialize_der().try_into().unwrap();
    let identity = MeshIdentity::new(&[ca], vec![(vec![certificate], key)], 1, at(NOW)).unwrap();
    let error = identity.check().unwrap_err();
    assert!(error.to_string().contains("NameConstraintViolation"), "{error}");
}

#[test]
fn a_certificate_names_exactly_one_node() {
    let named = |names: &[String]| {
        let params = CertificateParams::new(names).unwrap();
        node_of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    };
    let mesh = SERVER_NAME.to_owned();
    assert_eq!(named(&[mesh.clone(), node_name(5)]), Ok(5));
    assert_eq!(named(&[node_name(5)]), Ok(5));
    assert_eq!(named(&[mesh]), Err(NodeNameError::NoNode));
    assert_eq!(named(&[]), Err(NodeNameError::NoNode));
    assert_eq!(named(&[node_name(5), node_name(6)]), Err(NodeNameError::SeveralNodes));
    assert_eq!(named(&[node_name(5), node_name(5)]), Err(NodeNameError::SeveralNodes));
    let bad = "5.node.arc-relay.internal".to_owned();
    assert_eq!(named(std::slice::from_ref(&bad)), Err(NodeNameError::BadName(bad)));
    assert_eq!(node_of(b"no certificate"), Err(NodeNameError::Unreadable));
}

#[test]
fn a_cluster_changes_its_secret_node_by_node() {
    let (old, new) = (Secret::generate(), Secret::generate());
    let changing = |node| MeshIdentity::from_secret(&new, Some(&old), node, at(NOW)).unwrap();
    let nodes = [identity(&old, 1), changing(2), changing(3), identity(&new, 4)];
    for dialler in &nodes {
        for dialled in &nodes {
            let talked = talk(client(dialler), dialled);
            let ends = [dialler.node(), dialled.node()];
            assert_eq!(talked.is_ok(), ends != [1, 4] && ends != [4, 1], "{ends:?}");
        }
    }
    let (_, server) = talk(client(&nodes[1]), &nodes[2]).unwrap();
    let shown = &server.peer_certificates().unwrap()[0];
    identity(&new, 9).judge(shown, NOW).expect("two that change show the new secret's");
}

#[test]
fn a_nodes_certificate_is_good_for_a_week() {
    let secret = Secret::generate();
    let made = identity(&secret, 1);
    assert_eq!(made.not_before(), NOW.saturating_sub(Duration::from_hours(24)));
    assert_eq!(made.not_after(), NOW + Duration::from_hours(7 * 24));
    assert_eq!(made.renew_at(), NOW + Duration::from_hours(24));
    let (_, server) = talk(client(&made), &identity(&secret, 2)).unwrap();
    let shown = &server.peer_certificates().unwrap()[0];
    let judged = |now| identity(&secret, 2).judge(shown, now);
    let hours = Duration::from_hours;
    judged(NOW.saturating_sub(hours(23))).unwrap();
    judged(NOW + hours(7 * 24 - 1)).unwrap();
    let expired = judged(NOW + hours(7 * 24 + 1)).unwrap_err().to_string();
    assert!(expired.contains("expired"), "{expired}");
    let early = judged(NOW.saturating_sub(hours(25))).unwrap_err().to_string();
    assert!(early.contains("not valid yet"), "{early}");
}

/// An operator's authority, and the files that it hands to a node.
struct Operator(CertifiedIssuer<'static, KeyPair>);

impl Operator {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn hand_out(&self, dir: &Path, names: &[&str], end: (i32, u8, u8)) -> MeshFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let write = |name: &str, text: &str| {
            fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        };
        MeshFiles {
            ca: write("ca.pem", &self.0.pem()),
            cert: write("node.pem", &certificate.pem()),
            key: write("node.key", &key.serialize_pem()),
        }
    }
}

const NODE_1: &str = "0000000000000001.node.arc-relay.internal";
const NODE_2: &str = "0000000000000002.node.arc-relay.internal";

#[test]
fn an_operators_files_make_a_cluster() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let operator = Operator::new();
    let one = operator.hand_out(one.path(), &[SERVER_NAME, NODE_1], (2100, 1, 1));
    let two = operator.hand_out(two.path(), &[SERVER_NAME, NODE_2], (2100, 1, 1));
    let one = MeshIdentity::from_files(&one, Some(1), at(NOW)).unwrap();
    let two = MeshIdentity::from_files(&two, None, at(NOW)).unwrap();
    assert_eq!((one.node(), two.node()), (1, 2));
    let (_, server) = talk(client(&one), &two).unwrap();
    assert_eq!(node_of(&server.peer_certificates().unwrap()[0]), Ok(1));
    let of_secret = identity(&Secret::generate(), 1);
    assert!(talk(client(&of_secret), &two).is_err());
}

#[test]
fn one_authority_can_follow_another() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (old, new) = (Operator::new(), Operator::new());
    let of_old = old.hand_out(dirs[0].path(), &[SERVER_NAME, NODE_1], (2100, 1, 1));
    let of_new = new.hand_out(dirs[1].path(), &[SERVER_NAME, NODE_2], (2100, 1, 1));
    for files in [&of_old, &of_new] {
        fs::write(&files.ca, old.0.pem() + &new.0.pem()).unwrap();
    }
    let one = MeshIdentity::from_files(&of_old, Some(1), at(NOW)).unwrap();
    let two = MeshIdentity::from_files(&of_new, Some(2), at(NOW)).unwrap();
    talk(client(&one), &two).unwrap();
    talk(client(&two), &one).unwrap();
}

#[test]
fn files_that_do_not_serve_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::new();
    let good = || operator.hand_out(dir.path(), &[SERVER_NAME, NODE_1], (2100, 1, 1));
    let said = |files: &MeshFiles| {
        let error = MeshIdentity::from_files(files, Some(1), at(NOW)).unwrap_err();
        error.to_string().replace(&dir.path().display().to_string(), "")
    };
    let names = format!("subjectAltName=DNS:{SERVER_NAME},DNS:{NODE_1}");

    let unnamed = said(&operator.hand_out(dir.path(), &[SERVER_NAME], (2100, 1, 1)));
    assert!(unnamed.starts_with("/node.pem: the certificate names no node; request"), "{unnamed}");
    assert!(unnamed.contains(&names), "{unnamed}");

    let other = said(&operator.hand_out(dir.path(), &[SERVER_NAME, NODE_2], (2100, 1, 1)));
    assert!(other.contains("is for node 0000000000000002; this one needs"), "{other}");
    assert!(other.contains(&names), "{other}");

    let nameless = said(&operator.hand_out(dir.path(), &[NODE_1], (2100, 1, 1)));
    assert!(nameless.starts_with("/node.pem: peers that trust /ca.pem would"), "{nameless}");

    let expired = said(&operator.hand_out(dir.path(), &[SERVER_NAME, NODE_1], (2026, 1, 1)));
    assert!(expired.contains("expired"), "{expired}");

    let files = good();
    fs::write(&files.ca, Operator::new().0.pem()).unwrap();
    assert!(said(&files).starts_with("/node.pem: peers that trust /ca.pem would"));

    let files = good();
    fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let mixed = said(&files);
    assert!(mixed.starts_with("the mesh's certificate or key cannot be used"), "{mixed}");

    let files = good();
    fs::copy(&files.key, &files.cert).unwrap();
    assert_eq!(said(&files), "/node.pem: nothing of the kind is in it");

    let files = MeshFiles { key: dir.path().join("nowhere"), ..good() };
    assert!(said(&files).starts_with("/nowhere: No such file"), "{}", said(&files));

    let files = good();
    fs::write(&files.key, "-----BEGIN PRIVATE KEY-----\nswordfish").unwrap();
    assert_eq!(said(&files), "/node.key: it is no PEM");
}
