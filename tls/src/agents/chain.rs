//! A certificate, those between it and its authority, and its key, checked to fit each other.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::description::{Description, names, since_1970};

/// What a PEM section of a key under a passphrase contains.
const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

/// What is shown to agents to prove who the relay is. Clones share it; `Debug` shows no key.
#[derive(Clone)]
pub struct Chain(Arc<Parts>);

struct Parts {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: Duration,
    not_after: Duration,
}

/// Why a chain and a key are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is no certificate.
    #[error(
        "no PEM certificate is in it: put the relay's own first, then those up to its authority"
    )]
    NoCertificate,
    /// What is there is no PEM, or no certificate.
    #[error("certificate {0} in it cannot be read: copy it again, as PEM")]
    BadCertificate(usize),
    /// A certificate does not follow from the one before it.
    #[error(
        "certificate {0} in it is not the issuer of the one before: put the relay's own first, then \
         its issuer, and so on"
    )]
    Disorder(usize),
    /// The certificate stands for no host.
    #[error("the certificate names no host: have it issued with subjectAltName, agents need it")]
    NoNames,
    /// There is no private key.
    #[error("no PEM private key is in it (PKCS#8, SEC1 or PKCS#1)")]
    NoKey,
    /// The key cannot be read without a passphrase.
    #[error("the key is under a passphrase: take that off with `openssl pkey -in KEY -out NEWKEY`")]
    EncryptedKey,
    /// The key is of a kind that is not served.
    #[error(
        "the key cannot be used: it must be ECDSA (P-256, P-384), Ed25519, or RSA of 2048 bits or more"
    )]
    UnusableKey,
    /// The key belongs to another certificate.
    #[error("the key is not that of the certificate: one of the two is from another order")]
    OtherKey,
    /// The key belongs to a certificate further down.
    #[error("the key is that of certificate {0} in the chain: put that one first")]
    KeyOfLater(usize),
    /// The certificate's time is over.
    #[error("the certificate expired {}: renew it, or set the machine's clock", ago(*.0))]
    Expired(Duration),
    /// The certificate's time has not come.
    #[error("the certificate is good only {}: set the machine's clock, or wait", ahead(*.0))]
    NotYet(Duration),
}

impl Chain {
    /// Reads and checks a PEM chain, the relay's own certificate first, and the PEM key of that.
    /// Whether it is good at this time, [`check_time`](Self::check_time) says; whether agents trust
    /// its authority, they say.
    ///
    /// # Errors
    /// [`ChainError`] says what is wrong and what to do. It quotes nothing of the key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ChainError> {
        let chain = read_chain(chain)?;
        let signing_key =
            any_supported_type(&*read_key(key)?).map_err(|_| ChainError::UnusableKey)?;
        let certificates = parse_all(&chain)?;
        let own = certificates.first().ok_or(ChainError::NoCertificate)?;
        if let Some(public) = signing_key.public_key() {
            let has_key =
                |certificate: &X509Certificate<'_>| certificate.public_key().raw == public.as_ref();
            match certificates.iter().position(has_key) {
                Some(0) => {}
                Some(later) => return Err(ChainError::KeyOfLater(later + 1)),
                None => return Err(ChainError::OtherKey),
            }
        }
        let follows = |pair: &[X509Certificate<'_>]| matches!(pair, [before, next] if before.issuer().as_raw() == next.subject().as_raw());
        if let Some(at) = certificates.windows(2).position(|pair| !follows(pair)) {
            return Err(ChainError::Disorder(at + 2));
        }
        let names = names(own);
        if names.is_empty() {
            return Err(ChainError::NoNames);
        }
        let not_before = since_1970(own.validity().not_before.timestamp());
        let not_after = since_1970(own.validity().not_after.timestamp());
        drop(certificates);
        let certified = Arc::new(CertifiedKey::new(chain, signing_key));
        Ok(Self(Arc::new(Parts { certified, names, not_before, not_after })))
    }

    /// The host names, in small letters, and IP addresses that the certificate is for; at least one.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// From when on the certificate is good, as time since 1970.
    pub fn not_before(&self) -> Duration {
        self.0.not_before
    }

    /// Until when the certificate is good, as time since 1970.
    pub fn not_after(&self) -> Duration {
        self.0.not_after
    }

    /// The certificates, the relay's own first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.certified.cert
    }

    /// What the certificate says of itself; none only if what was read before cannot be read again.
    pub fn description(&self) -> Option<Description> {
        Description::of(self.certificates().first()?)
    }

    /// Whether the certificate is good at `now`, the time since 1970.
    ///
    /// # Errors
    /// [`ChainError::Expired`] and [`ChainError::NotYet`].
    pub fn check_time(&self, now: Duration) -> Result<(), ChainError> {
        if let Some(over) = now.checked_sub(self.0.not_after).filter(|over| !over.is_zero()) {
            return Err(ChainError::Expired(over));
        }
        match self.0.not_before.checked_sub(now).filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(ChainError::NotYet(wait)),
            None => Ok(()),
        }
    }

    /// What rustls shows, and signs with.
    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.0.certified
    }

    /// Whether the key can sign as a client wants it.
    pub(super) fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.0.certified.key.choose_scheme(schemes).is_some()
    }

    /// Whether the certificate is for the host `name`, in small letters: it names it, or has a
    /// wildcard for its first label (RFC 6125, section 6.4.3).
    pub(super) fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names().iter().any(|known| {
            known == name || known.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent)
        })
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("names", &self.names())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// The same certificates, whatever the keys are: they must be the same then, too.
impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        self.certificates() == other.certificates()
    }
}

impl Eq for Chain {}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        chain.push(certificate.map_err(|_| ChainError::BadCertificate(chain.len() + 1))?);
    }
    if chain.is_empty() { Err(ChainError::NoCertificate) } else { Ok(chain) }
}

fn read_key(pem: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, ChainError> {
    let is_encrypted = |mark: &&[u8]| pem.windows(mark.len()).any(|part| part == *mark);
    if ENCRYPTED.iter().any(is_encrypted) {
        return Err(ChainError::EncryptedKey);
    }
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(pem::Error::NoItemsFound) => Err(ChainError::NoKey),
        Err(_) => Err(ChainError::UnusableKey),
    }
}

fn parse_all<'a>(chain: &'a [CertificateDer<'_>]) -> Result<Vec<X509Certificate<'a>>, ChainError> {
    let parse = |(n, der): (usize, &'a CertificateDer<'_>)| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(ChainError::BadCertificate(n + 1)),
    };
    chain.iter().enumerate().map(parse).collect()
}

fn ago(over: Duration) -> String {
    format!("{} ago", rounded(over))
}

fn ahead(wait: Duration) -> String {
    format!("in {}", rounded(wait))
}

/// A time as people say it.
fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
