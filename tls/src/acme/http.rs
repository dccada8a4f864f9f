//! How the authority is asked: one request, one connection, TLS by this project's own rules.

use std::{error::Error as StdError, fs, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri,
    header::{HOST, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::Settings;
use crate::{
    agents::{add_pem, web_roots},
    mesh::Wall,
};

/// How long one request may take, from the look-up of the name to the last byte.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// The longest answer: chains of certificates are a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const HTTPS_PORT: u16 = 443;

/// A client of one authority, which remembers how long it was asked to wait.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    root_pem: Option<Arc<str>>,
    asked_to_wait: Arc<Mutex<Option<Duration>>>,
    wall: Wall,
}

/// Why an authority cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What vouches for it cannot be read, or is of no use.
    #[error("ACME_CA_ROOT cannot be used ({}): {why}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machine's cryptography fails.
    #[error("cannot set up TLS for the authority: {0}")]
    Tls(#[from] rustls::Error),
}

impl Client {
    /// Reads what vouches for the authority, once: not for the runtime's threads while others wait.
    pub(super) fn new(settings: &Settings, wall: Wall) -> Result<Self, ClientError> {
        let (mut roots, mut root_pem) = (web_roots(), None);
        if let Some(path) = &settings.ca_root {
            let why = |why: String| ClientError::Root { path: path.clone(), why };
            let pem = fs::read_to_string(path).map_err(|error| why(error.to_string()))?;
            roots = RootCertStore::empty();
            add_pem(&mut roots, pem.as_bytes()).map_err(why)?;
            root_pem = Some(pem.into());
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), root_pem, asked_to_wait: Arc::default(), wall })
    }

    /// What `ACME_CA_ROOT` held when it was read, PEM.
    pub(super) fn root_pem(&self) -> Option<&str> {
        self.root_pem.as_deref()
    }

    /// How long the authority has asked to wait since this was asked last.
    pub(super) fn take_wait(&self) -> Option<Duration> {
        self.asked_to_wait.lock().take()
    }

    async fn ask(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, Error> {
        let (mut parts, body) = request.into_parts();
        let (host, port) = authority(&parts.uri)?;
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| other(format!("cannot connect to {host}:{port}: {error}")))?;
        let name = ServerName::try_from(host.clone()).map_err(other)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let stream = stream.map_err(|error| other(format!("TLS with {host} failed: {error}")))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        let shown = if port == HTTPS_PORT { host } else { format!("{host}:{port}") };
        parts.headers.insert(HOST, HeaderValue::try_from(shown).map_err(other)?);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = path.parse()?;
        let exchange = async {
            let request = Request::from_parts(parts, body);
            let (parts, body) = sender.send_request(request).await.map_err(other)?.into_parts();
            let body =
                Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Error::Other)?;
            Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
        };
        let (mut exchange, mut connection) = (Box::pin(exchange), Box::pin(connection));
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The connection may end when the answer is there and not read yet.
            _ = &mut connection => exchange.await,
        }
    }

    fn note_wait(&self, answer: &Response<Full<Bytes>>) {
        if answer.status().is_success() {
            return;
        }
        let asked = answer.headers().get(RETRY_AFTER).and_then(|asked| asked.to_str().ok());
        if let Some(wait) = asked.and_then(|asked| read_wait(asked, (self.wall)())) {
            *self.asked_to_wait.lock() = Some(wait);
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = timeout(REQUEST_DEADLINE, client.ask(request)).await;
            let answer = answer.map_err(|_| {
                other(format!("the authority did not answer within {REQUEST_DEADLINE:?}"))
            })??;
            client.note_wait(&answer);
            Ok(answer.into())
        })
    }
}

/// The host and port of an https URL; the authority is believed by its certificate alone.
fn authority(uri: &Uri) -> Result<(String, u16), Error> {
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(|| other(format!("{uri} is no https URL")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, uri.port_u16().unwrap_or(HTTPS_PORT)))
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn read_wait(text: &str, now: Duration) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(std::time::UNIX_EPOCH).ok()?.saturating_sub(now))
}

fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        let now = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        assert_eq!(read_wait(" 120 ", now), Some(Duration::from_mins(2)));
        let date = "Sun, 06 Nov 1994 09:49:37 GMT";
        assert_eq!(read_wait(date, now), Some(Duration::from_hours(1)));
        assert_eq!(read_wait(date, now * 2), Some(Duration::ZERO));
        assert_eq!(read_wait("soon", now), None);
    }

    #[test]
    fn what_vouches_for_the_authority_is_read_at_the_start_and_must_be_of_use() {
        let with = |ca_root: Option<PathBuf>| {
            let (domains, directory) = (vec!["a.example".into()], "https://ca.example".into());
            let challenge = super::super::Challenge::TlsAlpn01;
            let (email, external_account) = (None, None);
            let settings =
                Settings { domains, email, directory, ca_root, external_account, challenge };
            Client::new(&settings, Arc::new(|| Duration::ZERO))
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let refused = |path: &PathBuf| with(Some(path.clone())).err().unwrap().to_string();
        assert!(refused(&path).contains("ca.pem): No such file"), "{}", refused(&path));
        fs::write(&path, "no certificate").unwrap();
        assert!(refused(&path).ends_with("there is no PEM certificate in it"));
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        fs::write(&path, &root).unwrap();
        let client = with(Some(path.clone())).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(client.root_pem(), Some(root.as_str()), "the file is not needed any more");
        assert_eq!(with(None).unwrap().root_pem(), None);
    }

    #[test]
    fn only_https_is_spoken() {
        let read = |uri: &str| authority(&uri.parse().unwrap());
        assert_eq!(read("https://ca.example/dir").unwrap(), ("ca.example".into(), 443));
        assert_eq!(read("https://[::1]:14000/dir").unwrap(), ("::1".into(), 14_000));
        assert!(read("http://ca.example/dir").unwrap_err().to_string().contains("no https URL"));
    }
}
