//! A certificate that a node gives itself, for development: agents must be told to trust it.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use zeroize::Zeroizing;

use super::{Chain, ChainError};

/// The files' names.
const CERTIFICATE: &str = "self-signed.crt";
const KEY: &str = "self-signed.key";

/// How long one is good: the longest that all systems accept of a certificate which is trusted by
/// hand.
const LIFETIME: Duration = Duration::from_hours(24 * 825);

/// A new one is made when less of its life is left: who trusts it by hand must do so again.
const RENEW_BEFORE: Duration = Duration::from_hours(24 * 30);

/// So far may clients' clocks be behind.
const BACKDATED: Duration = Duration::from_hours(24);

/// A certificate of the node's own making.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// What to serve.
    pub chain: Chain,
    /// The PEM file that agents must trust.
    pub certificate: PathBuf,
    /// Whether it was made just now: whoever trusted the one before must trust this one.
    pub is_new: bool,
}

/// Why there is no such certificate.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// It could not be made.
    #[error("cannot make a certificate: {0}")]
    NotMade(rcgen::Error),
    /// What was made is of no use.
    #[error("a certificate was made that cannot be used: {0}")]
    Unusable(ChainError),
    /// It could not be kept.
    #[error("cannot keep {}: {why}", path.display())]
    NotKept {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

/// The certificate that is kept in `folder`, if it is for `names` (host names and IP addresses) and
/// good for a while after `now`, the time since 1970; else a new one, which is kept. The key's file is
/// for its owner alone. Ask again from time to time, so that it is renewed.
///
/// # Errors
/// [`SelfSignedError`].
pub fn self_signed(
    folder: &Path,
    names: &[String],
    now: Duration,
) -> Result<SelfSigned, SelfSignedError> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    if let Some(chain) = kept(&certificate, &key).filter(|chain| is_good(chain, names, now)) {
        return Ok(SelfSigned { chain, certificate, is_new: false });
    }
    let (chain_pem, key_pem) = make(names, now).map_err(SelfSignedError::NotMade)?;
    let chain = Chain::from_pem(chain_pem.as_bytes(), key_pem.as_bytes())
        .map_err(SelfSignedError::Unusable)?;
    // If this ends between the two, they do not fit each other, and are made again.
    keep(&key, key_pem.as_bytes(), 0o600)?;
    keep(&certificate, chain_pem.as_bytes(), 0o644)?;
    Ok(SelfSigned { chain, certificate, is_new: true })
}

/// The certificate of an earlier start; none if there is none, or it is of no use.
fn kept(certificate: &Path, key: &Path) -> Option<Chain> {
    let key = Zeroizing::new(fs::read(key).ok()?);
    Chain::from_pem(&fs::read(certificate).ok()?, &key).ok()
}

fn is_good(chain: &Chain, names: &[String], now: Duration) -> bool {
    let wanted: BTreeSet<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let given: BTreeSet<_> = chain.names().iter().cloned().collect();
    given == wanted && chain.not_before() <= now && now + RENEW_BEFORE < chain.not_after()
}

/// A certificate and its key, as PEM.
fn make(names: &[String], now: Duration) -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    let start = now.saturating_sub(BACKDATED);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + start;
    params.not_after = params.not_before + LIFETIME;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "arc-relay, self-signed");
    subject.push(DnType::CommonName, names.first().map_or("arc-relay", String::as_str));
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

/// Writes a file that appears with all its bytes or not at all.
fn keep(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SelfSignedError> {
    let written = || -> io::Result<()> {
        let unfinished = path.with_added_extension("new");
        // One that a crash left behind may have another mode.
        let _ = fs::remove_file(&unfinished);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    written().map_err(|why| SelfSignedError::NotKept { path: path.to_owned(), why })
}
