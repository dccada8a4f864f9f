//! One node's part in a cluster: its certificate and key, and the authority that it believes.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::{digest, signature::Ed25519KeyPair};
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ED25519,
    SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::{
    ALPN, SERVER_NAME, Secret,
    certificate::{NodeNameError, node_name},
};

/// Bytes of the hash that names a cluster.
const CLUSTER_ID_BYTES: usize = 8;

/// The domain of all names in the mesh; the authority may name nothing else.
const DOMAIN: &str = "arc-relay.internal";

/// A node's identity in its cluster. `Debug` shows no key.
#[derive(Clone)]
pub struct MeshIdentity {
    node: u64,
    cluster_id: String,
    roots: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
}

/// How the two sides of a link agree on its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeyExchange {
    /// X25519 with ML-KEM-768, so that what is recorded today stays secret from tomorrow's quantum
    /// computers; X25519 alone with a peer that cannot.
    #[default]
    Hybrid,
    /// X25519 alone: for simulations, whose handshakes must take the same bytes in each run.
    Classical,
}

/// Why a node has no identity.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or has not in it what it should.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The certificate does not say which node it is for.
    #[error(
        "{}: {why}; request one that does with `openssl req -new -key KEY -subj /CN=node -addext \
         {names}`, and sign it with `openssl x509 -req -CA CA -CAkey CAKEY -copy_extensions copy`",
        path.display()
    )]
    Unnamed {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        why: NodeNameError,
        /// The names that it must have.
        names: String,
    },
    /// The certificate is another node's.
    #[error(
        "{}: the certificate is for node {named:016x}; this one needs {names}", path.display()
    )]
    OtherNode {
        /// The certificate's file.
        path: PathBuf,
        /// Whose it is.
        named: u64,
        /// The names that it must have.
        names: String,
    },
    /// Peers would refuse the certificate.
    #[error(
        "{}: peers that trust {} would refuse this certificate: {why}", path.display(), ca.display()
    )]
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// The authorities' file.
        ca: PathBuf,
        /// What they would say.
        why: rustls::Error,
    },
    /// The certificate and its key are of no use, or not each other's; or the authority's is none.
    #[error("the mesh's certificate or key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// No certificate could be made from the secret.
    #[error("cannot make this node's certificate: {0}")]
    NotMade(#[from] rcgen::Error),
}

impl MeshIdentity {
    /// The identity of `node` in the cluster of `secret`: a new key, and a certificate for it by the
    /// authority that every node of the cluster derives, byte for byte the same.
    ///
    /// # Errors
    /// [`IdentityError::NotMade`] and [`IdentityError::Unusable`], if the machine's cryptography fails.
    pub fn from_secret(secret: &Secret, node: u64) -> Result<Self, IdentityError> {
        let (ca, issuer) = authority(secret)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = node_certificate(node)?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Self::new(&[ca], vec![certificate.der().clone()], key, node)
    }

    /// An identity made of what `authorities` certify; the first names the cluster.
    pub(super) fn new(
        authorities: &[CertificateDer<'static>],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        node: u64,
    ) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone())?;
        }
        let cluster_id =
            roots.roots.first().map(|first| cluster_id(&first.subject_public_key_info));
        let own = CertifiedKey::from_der(chain, key, &crypto(KeyExchange::default()))?;
        Ok(Self {
            node,
            cluster_id: cluster_id.unwrap_or_default(),
            roots: Arc::new(roots),
            own: Arc::new(own),
        })
    }

    /// The node that the certificate names.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Names the cluster: 16 hexadecimal digits, a hash of its authority's public key.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// For dialling peers, by the name [`SERVER_NAME`].
    ///
    /// # Errors
    /// [`IdentityError::Unusable`], if no authority can be believed.
    pub fn client_config(&self, exchange: KeyExchange) -> Result<ClientConfig, IdentityError> {
        let crypto = Arc::new(crypto(exchange));
        let verifier = self.server_verifier(&crypto)?;
        let mut config = ClientConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// For peers that dial.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`], if no authority can be believed.
    pub fn server_config(&self, exchange: KeyExchange) -> Result<ServerConfig, IdentityError> {
        let crypto = Arc::new(crypto(exchange));
        let verifier = self.client_verifier(&crypto)?;
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Judges the own certificate as peers will, those that dial and those that are dialled.
    pub(super) fn check(&self, now: Duration) -> Result<(), rustls::Error> {
        let crypto = Arc::new(crypto(KeyExchange::default()));
        let now = UnixTime::since_unix_epoch(now);
        let name = ServerName::try_from(SERVER_NAME).map_err(general)?;
        let own = self.own.end_entity_cert()?;
        let between = self.own.cert.get(1..).unwrap_or_default();
        self.server_verifier(&crypto)?.verify_server_cert(own, between, &name, &[], now)?;
        self.client_verifier(&crypto)?.verify_client_cert(own, between, now)?;
        Ok(())
    }

    fn server_verifier(
        &self,
        crypto: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        WebPkiServerVerifier::builder_with_provider(self.roots.clone(), crypto.clone())
            .build()
            .map_err(general)
    }

    fn client_verifier(
        &self,
        crypto: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), crypto.clone())
            .build()
            .map_err(general)
    }
}

fn general(error: impl fmt::Display) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshIdentity({:016x} in {})", self.node, self.cluster_id)
    }
}

/// Named where it is used, so that no process-wide default is needed, or can change it.
fn crypto(exchange: KeyExchange) -> CryptoProvider {
    use provider::kx_group::{X25519, X25519MLKEM768};
    let kx_groups = match exchange {
        KeyExchange::Hybrid => vec![X25519MLKEM768, X25519],
        KeyExchange::Classical => vec![X25519],
    };
    CryptoProvider { kx_groups, ..provider::default_provider() }
}

/// Of the key, not of the certificate, so that the authority's certificate can be renewed.
fn cluster_id(public_key: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, public_key);
    HEXLOWER.encode(hash.as_ref().split_at(CLUSTER_ID_BYTES).0)
}

/// The authority of the secret's cluster: its certificate, and what signs for it. Nothing in it is
/// random, and Ed25519 signs the same bytes the same way (RFC 8032, section 5.1.6).
pub(super) fn authority(
    secret: &Secret,
) -> Result<(CertificateDer<'static>, Issuer<'static, KeyPair>), rcgen::Error> {
    let seed = secret.derive("mesh ca");
    let key = Ed25519KeyPair::from_seed_unchecked(&*seed)
        .ok()
        .and_then(|key| key.to_pkcs8v1().ok())
        .ok_or(rcgen::Error::KeyGenerationUnavailable)?;
    let key = KeyPair::try_from(key.as_ref())?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.serial_number = Some(SerialNumber::from(1_u64));
    params.distinguished_name = distinguished_name("arc-relay mesh");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(DOMAIN.into())],
        excluded_subtrees: Vec::new(),
    });
    let certificate = params.self_signed(&key)?.der().clone();
    Ok((certificate, Issuer::new(params, key)))
}

/// What a node's certificate says. It never expires: a node makes another at each start, and clocks
/// may be wrong where no one can mend them.
pub(super) fn node_certificate(node: u64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([SERVER_NAME.into(), node_name(node)])?;
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.distinguished_name = distinguished_name(&format!("{node:016x}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
