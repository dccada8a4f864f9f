//! The rules by which agents' TLS is spoken. There is one set of them, and nothing to choose.

use std::sync::Arc;

use rustls::{
    Error, ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            Ticketer,
            cipher_suite::{
                TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256,
                TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
            default_provider,
            kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768},
        },
    },
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use super::{Served, served::ACME_TLS};

/// The protocol that agents speak over TLS (RFC 7301).
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// The rules of a node that shows what `served` has.
///
/// TLS 1.3 and 1.2, forward secrecy and authenticated ciphers alone, in 1.2 with the extended master
/// secret (RFC 7627). Keys are agreed on by X25519 with ML-KEM-768 where the client has sent its part
/// of that, as today's do, so that what is recorded today stays secret from tomorrow's quantum
/// computers. No 0-RTT: what is sent early can be replayed.
///
/// A client may resume what it has spoken before, by a ticket: its state is with the client, under a
/// key that this process alone has and changes every 6 h. So nothing is kept here for clients that
/// are gone, and there is no cache to fill.
///
/// # Errors
/// If the machine has no randomness for the tickets' key.
pub fn server_config(served: Arc<Served>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![HTTP_1_1.to_vec(), ACME_TLS.to_vec()];
    config.require_ems = true;
    config.max_early_data_size = 0;
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // An agent that comes back has one connection to resume.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The algorithms, by name, so that no feature of a dependency adds to them.
fn crypto() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..default_provider()
    }
}
