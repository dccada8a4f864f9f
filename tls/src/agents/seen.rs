//! The other side of agents' TLS: what a client is shown, and whether it may trust that. For who looks
//! after relays; agents' own clients verify before they say a word.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::Description;

/// The certificates that a server has shown and whose key it has, its own first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen(Vec<CertificateDer<'static>>);

/// Why a client refuses what it is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// No authority that the client knows has issued it.
    #[error("no authority that is trusted here has issued it")]
    UnknownIssuer,
    /// It is for other hosts.
    #[error("it is not for this name")]
    OtherName,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not good yet")]
    NotYet,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// The authorities that browsers trust.
pub fn web_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() }
}

/// Adds the certificates of a PEM file.
///
/// # Errors
/// Says what is wrong with it.
pub fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "it is no PEM")?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == before { Err("there is no PEM certificate in it".into()) } else { Ok(()) }
}

impl Seen {
    /// Makes a handshake on `stream`, for the host `name` or an IP address, and ends it there. Nothing
    /// is asked or told, so nobody need be trusted.
    ///
    /// # Errors
    /// The server does not speak TLS, refuses, has no certificate, or is gone.
    pub async fn by_handshake<S>(stream: S, name: &str) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let provider = Arc::new(default_provider());
        let any = Arc::new(Anyone(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_no_client_auth();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(Self(shown.iter().map(|one| one.clone().into_owned()).collect()))
    }

    /// What the server's own certificate says of itself; none if it is none.
    pub fn description(&self) -> Option<Description> {
        Description::of(self.0.first()?)
    }

    /// Whether a client that trusts `roots` would trust this as `name`, at `now`, the time since 1970.
    ///
    /// # Errors
    /// [`Distrust`] says why not.
    pub fn verify(&self, roots: &RootCertStore, name: &str, now: Duration) -> Result<(), Distrust> {
        let other = |error: &dyn ToString| Distrust::Other(error.to_string());
        let Some((own, between)) = self.0.split_first() else {
            return Err(Distrust::Other("no certificate was shown".into()));
        };
        let name = ServerName::try_from(name).map_err(|error| other(&error))?;
        let (roots, provider) = (Arc::new(roots.clone()), Arc::new(default_provider()));
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| other(&error))?;
        let now = UnixTime::since_unix_epoch(now);
        match verifier.verify_server_cert(own, between, &name, &[], now) {
            Ok(_) => Ok(()),
            Err(error) => Err(distrust(&error)),
        }
    }
}

fn distrust(error: &Error) -> Distrust {
    let Error::InvalidCertificate(why) = error else { return Distrust::Other(error.to_string()) };
    match why {
        // Of an authority by the same name, the signature tells that it is another.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Distrust::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Distrust::OtherName
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Distrust::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Distrust::NotYet
        }
        other => Distrust::Other(other.to_string()),
    }
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
        KeyUsagePurpose, date_time_ymd,
    };
    use tokio::io::duplex;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::agents::{Chain, Served, server_config};

    /// The time since 1970 in November 2026.
    const NOW: Duration = Duration::from_hours(498_706);

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, format!("{}", rand::random::<u64>()));
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn chain(issuer: &CertifiedIssuer<'static, KeyPair>, until: i32) -> Chain {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["relay.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let made = params.signed_by(&key, issuer).unwrap();
        Chain::from_pem(made.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    async fn seen(chain: Option<Chain>, name: &str) -> io::Result<Seen> {
        let served = Arc::new(Served::default());
        served.set_chains(chain.into_iter().collect());
        let acceptor = TlsAcceptor::from(server_config(served).unwrap());
        let (near, far) = duplex(1 << 16);
        let (_, seen) = tokio::join!(acceptor.accept(far), Seen::by_handshake(near, name));
        seen
    }

    #[tokio::test]
    async fn what_is_shown_is_seen_whoever_issued_it_and_trusted_if_it_may_be() {
        let (ours, strange) = (authority(), authority());
        let mut roots = web_roots();
        add_pem(&mut roots, ours.pem().as_bytes()).unwrap();
        let good = seen(Some(chain(&ours, 2030)), "relay.example").await.unwrap();
        assert_eq!(good.description().unwrap().names, ["relay.example"]);
        assert_eq!(good.verify(&roots, "relay.example", NOW), Ok(()));
        assert_eq!(good.verify(&roots, "other.example", NOW), Err(Distrust::OtherName));
        let far = NOW * 2;
        assert_eq!(good.verify(&roots, "relay.example", far), Err(Distrust::Expired));
        let early = NOW / 3;
        assert_eq!(good.verify(&roots, "relay.example", early), Err(Distrust::NotYet));
        let other = seen(Some(chain(&strange, 2030)), "10.0.0.1").await.unwrap();
        let verdict = other.verify(&roots, "relay.example", NOW);
        assert_eq!(verdict, Err(Distrust::UnknownIssuer));
    }

    #[tokio::test]
    async fn without_a_certificate_nothing_is_seen() {
        let error = seen(None, "relay.example").await.expect_err("there is none");
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn only_certificates_are_added() {
        let mut roots = RootCertStore::empty();
        let error = add_pem(&mut roots, b"none").expect_err("there is none");
        assert!(error.contains("no PEM certificate"), "{error}");
        add_pem(&mut roots, authority().pem().as_bytes()).unwrap();
        assert_eq!(roots.len(), 1);
    }
}
