//! An agent that connects by TLS, with rustls and tungstenite.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use tests::{Relay, http, within};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::authority::Authority;

/// Both versions of TLS.
pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Makes connections; what it resumes, it resumes from its own.
#[derive(Clone)]
pub(crate) struct Trusting(Arc<ClientConfig>);

impl Trusting {
    /// Of this authority and no other.
    pub(crate) fn of(authority: &Authority) -> Self {
        Self::with(authority, BOTH, aws_lc_rs::default_provider())
    }

    /// The same, with these versions and algorithms.
    pub(crate) fn with(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        provider: CryptoProvider,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).expect("an authority is one");
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("these versions are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(config))
    }

    /// An encrypted connection, or why there is none.
    pub(crate) async fn dial(&self, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.dial_over(TcpStream::connect(to).await?).await
    }

    /// The same, over a connection on which something may have been said before.
    pub(crate) async fn dial_over(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        tcp.set_nodelay(true)?;
        let name = "localhost".try_into().expect("that is a name");
        let connector = TlsConnector::from(Arc::clone(&self.0));
        within("the TLS handshake", connector.connect(name, tcp)).await
    }

    /// Connects `agent`, which is registered by the way, and takes the welcome.
    pub(crate) async fn agent(&self, relay: &Relay, agent: &str) -> Agent {
        let body = json!({ "agent_id": agent }).to_string();
        let answer = http::post(relay.ops, "/register", body).await.expect_status(200).json();
        let token = answer["token"].as_str().expect("a token is text");
        self.connect(relay, token).await
    }

    /// Connects with `token`, and takes the welcome.
    pub(crate) async fn connect(&self, relay: &Relay, token: &str) -> Agent {
        let stream = self.dial(relay.public).await.expect("the relay speaks TLS");
        let request = http::upgrade(&format!("wss://localhost:{}/arc", relay.public.port()))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .expect("that is a request");
        // It is large, and would make every future that waits for it large.
        let upgrade = Box::pin(client_async(request, stream));
        let (socket, _) = within("the upgrade", upgrade).await.expect("it is granted");
        let mut agent = Agent { socket };
        assert_eq!(agent.next().await["type"], "welcome");
        agent
    }
}

/// A connected agent.
pub(crate) struct Agent {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Agent {
    /// Sends a message.
    pub(crate) async fn send(&mut self, message: Value) {
        let sent = self.socket.send(Message::text(message.to_string()));
        within("room to send", sent).await.expect("the session is open");
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
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
    pub(crate) async fn exchange(&mut self, id: &str, payload: u64) {
        self.send(json!({ "to": [id], "payload": payload })).await;
        assert_eq!(self.next().await["payload"], payload);
    }

    /// The connection below.
    pub(crate) fn tls(&self) -> &rustls::ClientConnection {
        self.socket.get_ref().get_ref().1
    }

    /// The connection below that, for what no client would send.
    pub(crate) fn into_tcp(self) -> TcpStream {
        self.socket.into_inner().into_inner().0
    }

    /// The certificate that the relay showed.
    pub(crate) fn shown(&self) -> Vec<u8> {
        self.tls().peer_certificates().expect("it showed one")[0].to_vec()
    }
}
