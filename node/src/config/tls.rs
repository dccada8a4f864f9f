//! How agents' TLS is configured: where the certificate comes from, and the ports.

use std::path::PathBuf;

use tls::acme::Settings;

use super::AcmeConfig;

/// How agents' TLS is configured. Without a certificate there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate's file, and those up to its authority (`TLS_CERT`).
    pub cert: Option<PathBuf>,
    /// The file of its key (`TLS_KEY`).
    pub key: Option<PathBuf>,
    /// Whether the node makes itself a certificate (`TLS_SELF_SIGNED`).
    pub self_signed: bool,
    /// What an authority is asked for (`ACME_…`).
    pub acme: AcmeConfig,
    /// Port for agents (`TLS_PORT`), in place of the unencrypted one; 0 lets the system choose.
    pub port: u16,
    /// Port that sends clients to the encrypted one (`HTTP_PORT`); 0 lets the system choose, none
    /// leaves it closed.
    pub http_port: Option<u16>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// From the operator's files.
    Files {
        /// The certificate, and those up to its authority, PEM.
        cert: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
    /// From the node itself.
    SelfSigned,
    /// From an authority, by ACME.
    Acme(Settings),
}

impl TlsConfig {
    /// Where the certificate comes from; none if TLS is off.
    pub fn source(&self) -> Option<CertificateSource> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                Some(CertificateSource::Files { cert: cert.clone(), key: key.clone() })
            }
            _ if self.self_signed => Some(CertificateSource::SelfSigned),
            _ => self.acme.settings().map(CertificateSource::Acme),
        }
    }

    /// Whether any of the files is named.
    pub(super) fn names_files(&self) -> bool {
        self.cert.is_some() || self.key.is_some()
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        let acme = AcmeConfig::default();
        Self { cert: None, key: None, self_signed: false, acme, port: 443, http_port: Some(80) }
    }
}
