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
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    time_provider::TimeProvider,
    version::TLS13,
};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::{
    ALPN, SERVER_NAME, Secret,
    certificate::{NodeNameError, node_name},
    choice::{Certified, Choice, Hinting},
};

/// Bytes of the hash that names a secret's authority.
const NAME_BYTES: usize = 8;

/// How long a node's certificate is good. Whoever gets hold of one, or of its key, has no use of it later.
const LIFETIME: Duration = Duration::from_hours(7 * 24);

/// How long a certificate is good before it was made, for clocks that are behind: nodes whose clocks
/// differ by less than this can tell each other so.
const LEEWAY: Duration = Duration::from_hours(24);

/// So long before its end a certificate is to be followed by another: when it is a day old.
const RENEWED_BEFORE_END: Duration = Duration::from_hours(6 * 24);

/// The domain of all names in the mesh; the authority may name nothing else.
const DOMAIN: &str = "arc-relay.internal";

/// A node's identity in its cluster. `Debug` shows no key.
#[derive(Clone)]
pub struct MeshIdentity {
    node: u64,
    roots: Arc<RootCertStore>,
    own: Choice,
    not_before: Duration,
    not_after: Duration,
    wall: Wall,
}

/// The wall clock: the time since 1970.
pub type Wall = Arc<dyn Fn() -> Duration + Send + Sync>;

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
    /// authority that every node of the cluster derives, byte for byte the same. It is good for a
    /// [week](Self::renew_at).
    ///
    /// While a cluster changes its secret, nodes that have the new one already and nodes that have only
    /// the `previous` are one cluster: this node believes both authorities, and shows each peer a
    /// certificate that the peer can believe.
    ///
    /// # Errors
    /// [`IdentityError::NotMade`] and [`IdentityError::Unusable`], if the machine's cryptography fails.
    pub fn from_secret(
        secret: &Secret,
        previous: Option<&Secret>,
        node: u64,
        wall: Wall,
    ) -> Result<Self, IdentityError> {
        let now = wall();
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let (mut authorities, mut own) = (Vec::new(), Vec::new());
        for secret in [Some(secret), previous].into_iter().flatten() {
            let (ca, issuer) = authority(secret)?;
            let certificate = node_certificate(node, now)?.signed_by(&key, &issuer)?;
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            own.push((vec![certificate.der().clone()], key));
            authorities.push(ca);
        }
        Self::new(&authorities, own, node, wall)
    }

    /// An identity made of what `authorities` certify: chains, the node's own certificate first, each
    /// with its key.
    pub(super) fn new(
        authorities: &[CertificateDer<'static>],
        own: Vec<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        node: u64,
        wall: Wall,
    ) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone())?;
        }
        let (mut not_before, mut not_after) = (Duration::ZERO, Duration::MAX);
        let mut certified = Vec::new();
        for (chain, key) in own {
            let last = chain.last().map(|last| read(last)).transpose()?;
            let issuer = last.as_ref().map(|last| last.issuer().as_raw().to_vec());
            for certificate in &chain {
                let certificate = read(certificate)?;
                let validity = certificate.validity();
                not_before = not_before.max(since_1970(validity.not_before));
                not_after = not_after.min(since_1970(validity.not_after));
            }
            let key = CertifiedKey::from_der(chain, key, &crypto(KeyExchange::default()))?;
            certified.push(Certified { issuer: issuer.unwrap_or_default(), key: Arc::new(key) });
        }
        let (roots, own) = (Arc::new(roots), Choice::new(certified));
        Ok(Self { node, roots, own, not_before, not_after, wall })
    }

    /// The node that the certificate names.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// From when on all of its certificates are good, since 1970.
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// When the first of its certificates ends, since 1970.
    pub fn not_after(&self) -> Duration {
        self.not_after
    }

    /// When another identity should be made of the same secret, since 1970: long before this one ends.
    /// One made of files is good until the operator replaces them.
    pub fn renew_at(&self) -> Duration {
        self.not_after.saturating_sub(RENEWED_BEFORE_END)
    }

    /// For dialling peers, by the name [`SERVER_NAME`].
    ///
    /// # Errors
    /// [`IdentityError::Unusable`], if no authority can be believed.
    pub fn client_config(&self, exchange: KeyExchange) -> Result<ClientConfig, IdentityError> {
        let crypto = Arc::new(crypto(exchange));
        let verifier = Hinting::new(self.server_verifier(&crypto)?, self.roots.subjects());
        let mut config = ClientConfig::builder_with_details(crypto, self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // wraps rustls' own verifier, which it lets say whom it believes
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(self.own.clone()));
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
        let mut config = ServerConfig::builder_with_details(crypto, self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(self.own.clone()));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Judges the own certificates as peers will, those that dial and those that are dialled.
    pub(super) fn check(&self) -> Result<(), rustls::Error> {
        use rustls::client::danger::ServerCertVerifier as _;
        let crypto = Arc::new(crypto(KeyExchange::default()));
        let now = UnixTime::since_unix_epoch((self.wall)());
        let name = ServerName::try_from(SERVER_NAME).map_err(general)?;
        for key in self.own.keys() {
            let own = key.end_entity_cert()?;
            let between = key.cert.get(1..).unwrap_or_default();
            self.server_verifier(&crypto)?.verify_server_cert(own, between, &name, &[], now)?;
            self.client_verifier(&crypto)?.verify_client_cert(own, between, now)?;
        }
        Ok(())
    }

    /// Judges the certificate of a peer that dials at `now`.
    #[cfg(test)]
    pub(super) fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        now: Duration,
    ) -> Result<(), rustls::Error> {
        let verifier = self.client_verifier(&Arc::new(crypto(KeyExchange::default())))?;
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_client_cert(certificate, &[], now).map(|_| ())
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(Time(Arc::clone(&self.wall)))
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

/// Certificates are judged by the node's own clock, which may be a simulated one.
struct Time(Wall);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch((self.0)()))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

fn read<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, rustls::Error> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(general)?;
    Ok(certificate)
}

fn since_1970(time: ASN1Time) -> Duration {
    Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn general(error: impl fmt::Display) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshIdentity({:016x})", self.node)
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

/// Tells the authorities of two secrets apart, so that peers can say whom they believe: a hash of the
/// public key.
fn authority_name(key: &KeyPair) -> String {
    let hash = digest::digest(&digest::SHA256, key.public_key_raw());
    format!("arc-relay mesh {}", HEXLOWER.encode(hash.as_ref().split_at(NAME_BYTES).0))
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
    params.distinguished_name = distinguished_name(&authority_name(&key));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(DOMAIN.into())],
        excluded_subtrees: Vec::new(),
    });
    let certificate = params.self_signed(&key)?.der().clone();
    Ok((certificate, Issuer::new(params, key)))
}

/// What a node's certificate says that is made at `now`.
pub(super) fn node_certificate(
    node: u64,
    now: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([SERVER_NAME.into(), node_name(node)])?;
    params.not_before = date(now.saturating_sub(LEEWAY));
    params.not_after = date(now + LIFETIME);
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

/// In whole seconds, as certificates have it.
fn date(since_1970: Duration) -> time::OffsetDateTime {
    time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs())
}
