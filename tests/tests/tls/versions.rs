//! Which versions and algorithms are spoken: openssl's client is the judge, and hellos by hand where
//! openssl does not know any more what must be refused.

use std::{fs::File, process::Command};

use rustls::{
    HandshakeKind, NamedGroup, ProtocolVersion, SupportedProtocolVersion,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, kx_group},
    },
    version::{TLS12, TLS13},
};
use tests::{Relay, process, skip, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    agent::{BOTH, Trusting},
    authority::Authority,
};

/// How openssl's client fares with these options; none, and said so, where there is no openssl.
async fn openssl(
    authority: &Authority,
    relay: &Relay,
    options: &[&str],
) -> Option<process::Finished> {
    if Command::new("openssl").arg("version").output().is_err() {
        skip("there is no openssl");
        return None;
    }
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &relay.public.to_string(), "-servername", "localhost"]);
    command.arg("-CAfile").arg(authority.ca()).args(["-verify_return_error", "-brief"]);
    command.args(options).stdin(File::open("/dev/null").expect("it can be read"));
    Some(process::run(command).await)
}

#[tokio::test]
async fn what_is_sound_is_spoken() {
    let authority = Authority::new();
    let relay = authority.relay();
    for (version, option, suites) in [
        (
            "TLSv1.3",
            "-ciphersuites",
            ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
        ),
        (
            "TLSv1.2",
            "-cipher",
            [
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
            ],
        ),
    ] {
        for suite in suites {
            let flag = if version == "TLSv1.3" { "-tls1_3" } else { "-tls1_2" };
            let options = [flag, option, suite, "-alpn", "http/1.1"];
            let Some(seen) = openssl(&authority, &relay, &options).await else { return };
            let said = seen.expect_code(0).stderr;
            assert!(said.contains(&format!("Protocol version: {version}")), "{said}");
            assert!(said.contains(&format!("Ciphersuite: {suite}")), "{said}");
            assert!(said.contains("Verification: OK"), "{said}");
        }
    }
}

#[tokio::test]
async fn what_is_weak_is_refused() {
    let authority = Authority::new();
    let relay = authority.relay();
    for suites in [
        "ECDHE-ECDSA-AES128-SHA",    // CBC
        "ECDHE-ECDSA-AES256-SHA384", // CBC
        "ECDHE-RSA-AES128-SHA256",   // CBC
        "AES128-SHA",                // CBC, no forward secrecy
        "AES256-GCM-SHA384",         // no forward secrecy
        "DHE-RSA-AES128-GCM-SHA256", // finite-field Diffie-Hellman
        "ADH-AES128-SHA256",         // no certificate
        "ECDHE-ECDSA-NULL-SHA",      // no encryption
    ] {
        let suites = format!("{suites}:@SECLEVEL=0");
        let options = ["-tls1_2", "-cipher", &suites];
        let Some(seen) = openssl(&authority, &relay, &options).await else { return };
        let said = seen.expect_code(1).stderr;
        assert!(said.contains("alert handshake failure"), "{suites}: {said}");
    }
    for version in ["-tls1_1", "-tls1"] {
        let options = [version, "-cipher", "ALL:@SECLEVEL=0"];
        let Some(seen) = openssl(&authority, &relay, &options).await else { return };
        let said = seen.expect_code(1).stderr;
        let refusals = ["alert protocol version", "alert handshake failure"];
        assert!(refusals.iter().any(|refusal| said.contains(refusal)), "{version}: {said}");
    }
}

/// A hello of that version with these suites, and of extensions the groups, points and signatures.
fn hello(version: [u8; 2], suites: &[[u8; 2]]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| {
        let len = u16::try_from(bytes.len()).expect("that is short").to_be_bytes();
        [&len[..], bytes].concat()
    };
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],             // ec_point_formats: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4], // signature_algorithms
        &[0, 23, 0, 0],                   // extended_master_secret
    ]
    .concat();
    let body = [
        &version[..],
        &[7; 32],
        &[0],
        &with_length(&suites.concat()),
        &[1, 0],
        &with_length(&extensions),
    ]
    .concat();
    let len = u16::try_from(body.len()).expect("that is short").to_be_bytes();
    let message = [&[1, 0], &len[..], &body].concat();
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

/// The record that answers `bytes`: its type, and for an alert its description.
async fn answered(relay: &Relay, bytes: &[u8]) -> (u8, u8) {
    let mut stream = TcpStream::connect(relay.public).await.expect("it listens");
    stream.write_all(bytes).await.expect("it is open");
    let mut record = [0; 7];
    within("an answer", stream.read_exact(&mut record)).await.expect("a whole alert at the least");
    (record[0], record[6])
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

#[tokio::test]
async fn hellos_from_the_past_are_told_so() {
    let relay = Authority::new().relay();
    let sound = [0xc0, 0x2b];
    assert_eq!(answered(&relay, &hello([3, 3], &[sound])).await.0, HANDSHAKE, "the hello is good");
    for weak in [
        [0x00, 0x05], // RSA, RC4, SHA
        [0xc0, 0x07], // ECDHE, ECDSA, RC4, SHA
        [0x00, 0x0a], // RSA, 3DES, SHA
        [0xc0, 0x08], // ECDHE, ECDSA, 3DES, SHA
        [0x00, 0x03], // export
        [0xc0, 0x09], // ECDHE, ECDSA, AES-128-CBC, SHA
    ] {
        let answer = answered(&relay, &hello([3, 3], &[weak])).await;
        assert_eq!(answer, (ALERT, HANDSHAKE_FAILURE), "{weak:x?}");
    }
    for version in [[3, 2], [3, 1], [3, 0]] {
        let answer = answered(&relay, &hello(version, &[sound])).await;
        assert_eq!(answer, (ALERT, PROTOCOL_VERSION), "{version:?}");
    }
    let metrics = relay.metrics().await;
    let reason = [("reason", "incompatible")];
    assert_eq!(metrics.count("arc_tls_handshake_failures_total", &reason), 9);
}

#[tokio::test]
async fn keys_are_agreed_on_by_the_hybrid() {
    let authority = Authority::new();
    let relay = authority.relay();
    let group = async |groups: &[&'static dyn SupportedKxGroup]| {
        let provider =
            CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
        let stream = Trusting::with(&authority, BOTH, provider).dial(relay.public).await;
        let stream = stream.expect("a group in common");
        let group = stream.get_ref().1.negotiated_key_exchange_group();
        group.expect("keys were agreed on").name()
    };
    let hybrid = group(&[kx_group::X25519MLKEM768, kx_group::X25519]).await;
    assert_eq!(hybrid, NamedGroup::X25519MLKEM768);
    assert_eq!(group(&[kx_group::X25519]).await, NamedGroup::X25519);
    let options = ["-tls1_3", "-groups", "X25519MLKEM768"];
    let Some(seen) = openssl(&authority, &relay, &options).await else { return };
    // Older ones do not know the group, and do not begin.
    if seen.code == Some(0) {
        assert!(seen.stderr.contains("X25519MLKEM768"), "{}", seen.stderr);
    }
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let relay = authority.relay();
    for version in [&TLS13, &TLS12] as [&SupportedProtocolVersion; 2] {
        let trusting = Trusting::with(&authority, &[version], aws_lc_rs::default_provider());
        let id = if version.version == ProtocolVersion::TLSv1_3 { "new-1" } else { "old-1" };
        let mut first = trusting.agent(&relay, id).await;
        assert_eq!(first.tls().handshake_kind(), Some(HandshakeKind::Full));
        first.exchange(id, 1).await;
        drop(first);
        let mut again = trusting.agent(&relay, &format!("{id}-again")).await;
        assert_eq!(again.tls().handshake_kind(), Some(HandshakeKind::Resumed));
        again.exchange(&format!("{id}-again"), 2).await;
    }
    let metrics = relay.metrics().await;
    for kind in ["1.3", "1.3 resumed", "1.2", "1.2 resumed"] {
        assert_eq!(metrics.count("arc_tls_handshakes_total", &[("kind", kind)]), 1, "{kind}");
    }
}
