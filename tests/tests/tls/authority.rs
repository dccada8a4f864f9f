//! An authority of the tests' own, what it issues, and relays that are started with that.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;
use tests::Relay;

/// An authority, and a folder with what it issued.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Two authorities of one name would be taken for each other.
        let name = format!("authority {}", rand::random::<u64>());
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate can be made");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let authority = Self { issuer, folder };
        std::fs::write(authority.ca(), authority.issuer.pem()).expect("the folder can be written");
        authority.issue("localhost", 2100);
        authority
    }

    /// The file of the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The certificate itself.
    pub(crate) fn certificate(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The file of the relay's certificate.
    pub(crate) fn cert(&self) -> PathBuf {
        self.path("cert.pem")
    }

    /// The file of its key.
    pub(crate) fn key(&self) -> PathBuf {
        self.path("key.pem")
    }

    /// Writes a certificate for `localhost`, 127.0.0.1 and `name`, good until the end of the year
    /// before `until`, in place of the one before, as `mv` does: first the key, then the certificate.
    pub(crate) fn issue(&self, name: &str, until: i32) {
        let (cert, key) = self.make(name, until);
        self.replace(&self.key(), &key);
        self.replace(&self.cert(), &cert);
    }

    /// A certificate and its key, as PEM.
    pub(crate) fn make(&self, name: &str, until: i32) -> (String, String) {
        let names = ["localhost", "127.0.0.1", name].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("these are names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key can be made");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate can be issued");
        (cert.pem(), key.serialize_pem())
    }

    /// Puts a file in the place of another.
    pub(crate) fn replace(&self, path: &Path, text: &str) {
        let unfinished = self.path("unfinished");
        std::fs::write(&unfinished, text).expect("the folder can be written");
        std::fs::rename(&unfinished, path).expect("a file can be renamed");
    }

    /// A relay with the present certificate.
    pub(crate) fn relay(&self) -> Relay {
        self.relay_with(&[])
    }

    /// The same, with these settings besides.
    pub(crate) fn relay_with(&self, settings: &[(&str, &str)]) -> Relay {
        let (cert, key) = (self.cert().display().to_string(), self.key().display().to_string());
        let own = [
            ("TLS_CERT", cert.as_str()),
            ("TLS_KEY", key.as_str()),
            ("TLS_PORT", "0"),
            ("HTTP_PORT", "0"),
        ];
        Relay::with(&[&own, settings].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
