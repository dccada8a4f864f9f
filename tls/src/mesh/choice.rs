//! Which of a node's certificates a peer gets to see, while the cluster changes its secret.
//!
//! Each side of a handshake says which authorities it believes (RFC 8446, section 4.2.4); the other
//! shows the certificate that one of these has signed.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// A certificate, and who vouches for it.
#[derive(Clone, Debug)]
pub(super) struct Certified {
    /// The distinguished name of the authority, DER.
    pub(super) issuer: Vec<u8>,
    pub(super) key: Arc<CertifiedKey>,
}

/// A node's certificates, the one that it prefers first.
#[derive(Clone, Debug)]
pub(super) struct Choice(Arc<[Certified]>);

impl Choice {
    pub(super) fn new(all: Vec<Certified>) -> Self {
        Self(all.into())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &CertifiedKey> {
        self.0.iter().map(|certified| &*certified.key)
    }

    /// The first that `believes`; whoever believes none is to see for itself, and say so.
    fn for_whom(&self, believes: impl Fn(&[u8]) -> bool) -> Option<Arc<CertifiedKey>> {
        let fits = self.0.iter().find(|certified| believes(&certified.issuer));
        fits.or_else(|| self.0.first()).map(|certified| Arc::clone(&certified.key))
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let believed = hello.certificate_authorities().unwrap_or_default();
        self.for_whom(|issuer| believed.iter().any(|name| name.as_ref() == issuer))
    }
}

impl ResolvesClientCert for Choice {
    fn resolve(&self, believed: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.for_whom(|issuer| believed.contains(&issuer))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// A verifier that says whom it believes; rustls' own keeps that to itself.
#[derive(Debug)]
pub(super) struct Hinting {
    verifier: Arc<WebPkiServerVerifier>,
    believed: Vec<DistinguishedName>,
}

impl Hinting {
    pub(super) fn new(
        verifier: Arc<WebPkiServerVerifier>,
        believed: Vec<DistinguishedName>,
    ) -> Self {
        Self { verifier, believed }
    }
}

impl ServerCertVerifier for Hinting {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(own, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.believed)
    }
}
