//! From an address to a byte stream: TCP, and TLS where the address asks for it.
//!
//! The crypto provider is named here and never taken from the process, whose default may be unset.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    failure::{Failure, NO_RELAY},
    url::Endpoint,
};

/// A connection to a relay, whatever it runs over.
pub(crate) type Stream = Box<dyn ReadWrite>;

/// What a connection can do.
pub(crate) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// Opens connections to one endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// A connector that trusts the web's authorities, and those in the PEM file `authority`.
    pub(crate) fn new(endpoint: &Endpoint, authority: Option<&Path>) -> Result<Self, Failure> {
        Self::with(endpoint, authority, Resumption::default())
    }

    /// The same, but no TLS session is resumed: each connection costs what an agent's first one does.
    pub(super) fn to_stranger(
        endpoint: &Endpoint,
        authority: Option<&Path>,
    ) -> Result<Self, Failure> {
        Self::with(endpoint, authority, Resumption::disabled())
    }

    fn with(
        endpoint: &Endpoint,
        authority: Option<&Path>,
        resumption: Resumption,
    ) -> Result<Self, Failure> {
        let tls = if endpoint.tls {
            Some((tls_connector(authority, resumption)?, server_name(endpoint)?))
        } else {
            None
        };
        Ok(Self { endpoint: endpoint.clone(), tls })
    }

    /// Where this connector connects to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects; the caller sets the time limit.
    pub(crate) async fn dial(&self) -> Result<Stream, Failure> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let dialled = async {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            // Messages are small and somebody waits for each.
            tcp.set_nodelay(true)?;
            Ok(tcp)
        };
        let address = || self.endpoint.to_string();
        let tcp = dialled.await.map_err(|source| {
            let (address, advice) = (address(), NO_RELAY);
            Failure::Dial { address, source, advice }
        })?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        match connector.connect(name.clone(), tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(Failure::Tls { address: address(), source }),
        }
    }
}

/// Waits for `outcome` no longer than `limit`; `what` names what did not come.
pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    outcome: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, outcome).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Timeout { what, limit }),
    }
}

fn tls_connector(
    authority: Option<&Path>,
    resumption: Resumption,
) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = authority {
        add_authority(&mut roots, path)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::NotRelay(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = resumption;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn add_authority(roots: &mut RootCertStore, path: &Path) -> Result<(), Failure> {
    let unusable = |reason: String| Failure::Authority { path: path.to_owned(), reason };
    let text =
        std::fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.len() == before { Err(unusable("it has no PEM certificate".into())) } else { Ok(()) }
}

fn server_name(endpoint: &Endpoint) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(endpoint.host.clone()).map_err(|e| Failure::Dial {
        address: endpoint.to_string(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, e),
        advice: NO_RELAY,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
mod tests {
    use super::*;

    fn endpoint(tls: bool) -> Endpoint {
        Endpoint { tls, host: "relay.example".to_owned(), port: 443 }
    }

    #[test]
    fn tls_needs_no_process_wide_provider() {
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        Connector::new(&endpoint(true), None).unwrap();
    }

    #[test]
    fn a_file_without_certificates_is_refused_before_anything_is_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Connector::new(&endpoint(true), Some(file.path())).err().unwrap();
        assert!(matches!(refused, Failure::Authority { .. }), "{refused}");
        let missing = Connector::new(&endpoint(true), Some(Path::new("/no/such/file")));
        assert!(matches!(missing.err().unwrap(), Failure::Read { .. }));
    }
}
