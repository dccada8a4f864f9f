//! An agent that connects by TLS and trusts the authority under test alone.

use std::{net::SocketAddr, path::Path, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tests::{Relay, http, within};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Makes connections to who has a name.
#[derive(Clone)]
pub(crate) struct Trusting {
    config: Arc<ClientConfig>,
    name: &'static str,
}

/// A connected agent.
pub(crate) struct Agent {
    id: String,
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Trusting {
    /// Of those for whom the certificates in `root` vouch.
    pub(crate) fn of(root: &Path, name: &'static str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(root).expect("the file is there") {
            roots.add(certificate.expect("it is PEM")).expect("an authority is one");
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { config: Arc::new(config), name }
    }

    /// An encrypted connection, or why there is none.
    pub(crate) async fn dial(&self, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(to).await?;
        let name = self.name.try_into().expect("that is a name");
        let connector = TlsConnector::from(Arc::clone(&self.config));
        within("the TLS handshake", connector.connect(name, tcp)).await
    }

    /// The certificate that is shown at `to`, which must be good; none if there is none.
    pub(crate) async fn shown(&self, to: SocketAddr) -> Option<Vec<u8>> {
        let stream = self.dial(to).await.ok()?;
        stream.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    /// Connects `id`, which is registered by the way, and takes the welcome.
    pub(crate) async fn agent(&self, relay: &Relay, id: &str) -> Agent {
        let body = json!({ "agent_id": id }).to_string();
        let answer = http::post(relay.ops, "/register", body).await.expect_status(200).json();
        let token = answer["token"].as_str().expect("a token is text");
        let stream = self.dial(relay.public).await.expect("the relay speaks TLS");
        let request = http::upgrade(&format!("wss://{}:{}/arc", self.name, relay.public.port()))
            .header("host", self.name)
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .expect("that is a request");
        // It is large, and would make every future that waits for it large.
        let upgrade = Box::pin(client_async(request, stream));
        let (socket, _) = within("the upgrade", upgrade).await.expect("it is granted");
        let mut agent = Agent { id: id.into(), socket };
        assert_eq!(agent.next().await["type"], "welcome");
        agent
    }
}

impl Agent {
    async fn next(&mut self) -> Value {
        loop {
            match within("a message", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).expect("messages are JSON");
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("waiting for a message: {other:?}"),
            }
        }
    }

    /// Sends a message to itself and takes it.
    pub(crate) async fn exchange(&mut self, payload: u64) {
        let message = json!({ "to": [self.id], "payload": payload }).to_string();
        let sent = self.socket.send(Message::text(message));
        within("room to send", sent).await.expect("the session is open");
        assert_eq!(self.next().await["payload"], payload);
    }
}
