//! What a node shows to whom: certificates by name, and the answers to an authority's challenges.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::Chain;

/// The protocol in which an authority asks whether a name is ours (RFC 8737, section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// Everything that a node serves beside the agents' own traffic. Each part is replaced as a whole;
/// handshakes under way go on with what they have seen, connections are not touched.
#[derive(Default)]
pub struct Served {
    chains: ArcSwap<Vec<Chain>>,
    tls_alpn: ArcSwap<BTreeMap<String, Arc<CertifiedKey>>>,
    http_01: ArcSwap<BTreeMap<String, String>>,
}

/// No certificate for a challenge could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the certificate that answers a challenge: {0}")]
pub struct CannotAnswer(String);

impl Served {
    /// Serves these chains from now on. A client that names a host gets the first chain that is for
    /// it and that it can verify; who names none, or an unknown one, gets the first of all, so that
    /// its error says what the relay is called. Without any chain handshakes are refused.
    pub fn set_chains(&self, chains: Vec<Chain>) {
        self.chains.store(Arc::new(chains));
    }

    /// The chains that are served.
    pub fn chains(&self) -> Arc<Vec<Chain>> {
        self.chains.load_full()
    }

    /// Answers these challenges from now on, and no others: of each name (in small letters, as the
    /// authority asks for it) the SHA-256 of its key authorization (RFC 8737, section 3).
    ///
    /// # Errors
    /// [`CannotAnswer`], if the machine's cryptography fails; nothing is changed then.
    pub fn set_tls_alpn(&self, digests: BTreeMap<String, [u8; 32]>) -> Result<(), CannotAnswer> {
        let answer = |(name, digest): (String, [u8; 32])| {
            let answer = challenge_certificate(&name, &digest)?;
            Ok((name.to_ascii_lowercase(), Arc::new(answer)))
        };
        let answers: Result<_, CannotAnswer> = digests.into_iter().map(answer).collect();
        self.tls_alpn.store(Arc::new(answers?));
        Ok(())
    }

    /// Answers these challenges from now on, and no others: of each token its key authorization
    /// (RFC 8555, section 8.3).
    pub fn set_http_01(&self, answers: BTreeMap<String, String>) {
        self.http_01.store(Arc::new(answers));
    }

    /// The key authorization of the challenge `token`, if there is such a challenge.
    pub fn http_01(&self, token: &str) -> Option<String> {
        self.http_01.load().get(token).cloned()
    }

    fn chain_for(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chains = self.chains.load();
        let suits = |chain: &&Chain| chain.suits(hello.signature_schemes());
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.and_then(|name| chains.iter().filter(suits).find(|c| c.is_for(&name)));
        let any = || chains.iter().find(suits);
        // With none that suits the handshake fails in any case; rustls says why.
        named.or_else(any).or_else(|| chains.first()).map(|chain| Arc::clone(chain.certified()))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_challenge(&hello) {
            let name = hello.server_name()?.to_ascii_lowercase();
            return self.tls_alpn.load().get(&name).cloned();
        }
        self.chain_for(&hello)
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("chains", &self.chains.load()).finish_non_exhaustive()
    }
}

/// Whether the client speaks of nothing but challenges.
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| {
        protocols.next() == Some(ACME_TLS) && protocols.next().is_none()
    })
}

/// The certificate by which whoever serves `name` shows that it knows `digest` (RFC 8737, section 3).
fn challenge_certificate(name: &str, digest: &[u8; 32]) -> Result<CertifiedKey, CannotAnswer> {
    let failed = |error: rcgen::Error| CannotAnswer(error.to_string());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(failed)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(failed)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing_key = any_supported_type(&Zeroizing::new(der));
    let signing_key = signing_key.map_err(|error| CannotAnswer(error.to_string()))?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing_key))
}
