//! One live session: opened, greeted, read with an eye on silence, closed in good order.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::{header::HeaderValue, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Bytes, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    connect::{Connector, within},
    failure::Failure,
    http,
    message::{Outgoing, RELAY, Received},
    url::RelayUrl,
};

/// The relay pings every 30 s (PROTOCOL section 7), if it is not told otherwise; after half of this time
/// without a word it is asked, and after all of it the line is dead.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(75);
/// How long a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// More than a relay is likely to allow; bounds what a hostile one can make us hold.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Enough for most messages in one read, and far below tungstenite's 128 KiB.
const BUFFER_BYTES: usize = 16 << 10;

/// All that it takes to open a session, again and again.
pub(super) struct Dialer {
    /// Whom to call.
    pub(super) relay: RelayUrl,
    /// How.
    pub(super) connector: Connector,
    /// Who is calling.
    pub(super) authorization: HeaderValue,
    /// How long the relay may take, from the first packet to its welcome.
    pub(super) limit: Duration,
    /// How long the relay may be silent after that; [`SILENCE_MAX`].
    pub(super) silence: Duration,
}

/// What the relay says of itself when it welcomes an agent (PROTOCOL section 3).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Welcome {
    /// Public name of the relay.
    pub(super) relay: String,
    /// Its version.
    pub(super) version: String,
    /// The node that was reached.
    pub(super) node: String,
    /// What it can do.
    pub(super) capabilities: Vec<String>,
    /// What it takes.
    pub(super) limits: Limits,
}

/// Limits that concern a client.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    /// Bytes of one message.
    pub(super) max_message_size: Option<usize>,
    /// Messages of one agent, such as `100/min` or `unlimited`.
    pub(super) rate_limit: Option<String>,
}

/// A connection after the handshake.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An open connection whose agent is known to the relay.
pub(super) struct Session {
    socket: Socket,
    silence: Duration,
    /// Who we are, in the relay's eyes.
    pub(super) agent: String,
    /// What the relay said of itself.
    pub(super) welcome: Welcome,
}

impl Dialer {
    /// Connects and waits for the welcome.
    pub(super) async fn open(&self) -> Result<Session, Failure> {
        self.open_buffered(BUFFER_BYTES, 0).await
    }

    /// The same with a read buffer of so many bytes, and up to so many that are kept from being
    /// written one by one until they are flushed.
    pub(super) async fn open_buffered(
        &self,
        read: usize,
        write: usize,
    ) -> Result<Session, Failure> {
        within(self.limit, "welcome from the relay", async {
            let path = self.relay.path();
            let upgraded = http::upgrade(&self.connector, path, self.authorization.clone()).await?;
            let config = WebSocketConfig::default()
                .read_buffer_size(read)
                .write_buffer_size(write)
                .max_message_size(Some(MESSAGE_BYTES_MAX))
                .max_frame_size(Some(MESSAGE_BYTES_MAX));
            let io = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
            greeted(socket, self.silence).await
        })
        .await
    }
}

/// Takes the welcome, which is the first message on every connection.
async fn greeted(socket: Socket, silence: Duration) -> Result<Session, Failure> {
    let mut session =
        Session { socket, silence, agent: String::new(), welcome: Welcome::default() };
    let first = session.next().await?;
    if !first.is_relays("welcome") {
        return Err(Failure::NotRelay("it does not begin with a welcome".into()));
    }
    session.agent = first.addressee().map(str::to_owned).unwrap_or_default();
    session.welcome = first.payload().unwrap_or_default();
    Ok(session)
}

impl Session {
    /// Sends a message; that it was written says nothing of whether the relay took it.
    pub(super) async fn send(&mut self, message: &Outgoing<'_>) -> Result<(), Failure> {
        let text = message.to_text();
        match self.welcome.limits.max_message_size {
            Some(limit) if text.len() > limit => Err(Failure::TooLarge { size: text.len(), limit }),
            _ => self.write(Message::text(text)).await,
        }
    }

    /// Waits until the relay has dealt with everything sent before; an error message that it sends
    /// meanwhile is ours.
    ///
    /// Asks with a WebSocket ping: it comes after the messages on the same wire, its pong after
    /// their errors, and unlike a message it is not counted against the agent's rate limit.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        let mark = Bytes::from_static(b"settled");
        self.write(Message::Ping(mark.clone())).await?;
        loop {
            match self.frame().await? {
                Message::Pong(answer) if answer == mark => return Ok(()),
                Message::Text(text) => refuse_error(&Received::from(text))?,
                _ => {}
            }
        }
    }

    /// Sends the relay a command and waits for its answer of the type `answer`.
    pub(super) async fn command(
        &mut self,
        command: &Outgoing<'_>,
        answer: &str,
    ) -> Result<Received, Failure> {
        self.send(command).await?;
        loop {
            let message = self.next().await?;
            refuse_error(&message)?;
            if message.is_relays(answer) {
                return Ok(message);
            }
        }
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<Received, Failure> {
        loop {
            match self.frame().await? {
                Message::Text(text) => return Ok(text.into()),
                Message::Binary(bytes) => {
                    if let Ok(text) = bytes.try_into() {
                        let text: tungstenite::Utf8Bytes = text;
                        return Ok(text.into());
                    }
                }
                _ => {}
            }
        }
    }

    /// The socket, for those who read and write many messages at a time.
    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Says goodbye and waits for the answer, but not long.
    pub(super) async fn close(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = tokio::time::timeout(GOODBYE_MAX, async {
            let _ = self.socket.close(Some(goodbye)).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await;
    }

    /// The next frame of any kind; pings are answered when the socket is read again.
    async fn frame(&mut self) -> Result<Message, Failure> {
        match self.read().await? {
            Some(Ok(Message::Close(frame))) => {
                // Reading on sends the answer to the close.
                let _ = tokio::time::timeout(GOODBYE_MAX, self.socket.next()).await;
                Err(closed(frame))
            }
            Some(Ok(message)) => Ok(message),
            Some(Err(e)) => Err(Box::new(e).into()),
            // RFC 6455 section 7.1.5: an end without a close frame is 1006.
            None => Err(Failure::Closed { code: 1006, reason: String::new() }),
        }
    }

    /// What comes next; the relay is asked halfway whether it is there.
    async fn read(&mut self) -> Result<Option<tungstenite::Result<Message>>, Failure> {
        let (silence, patience) = (self.silence, self.silence / 2);
        if let Ok(read) = tokio::time::timeout(patience, self.socket.next()).await {
            return Ok(read);
        }
        let asked = async {
            self.write(Message::Ping(Bytes::new())).await?;
            Ok(self.socket.next().await)
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(Err(Failure::Silent(silence)))
    }

    async fn write(&mut self, message: Message) -> Result<(), Failure> {
        self.socket.send(message).await.map_err(|e| Box::new(e).into())
    }
}

/// The end of a session with this close frame, or without one.
pub(super) fn closed(frame: Option<CloseFrame>) -> Failure {
    // RFC 6455 section 7.1.5: no code means 1005.
    let (code, reason) =
        frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
    Failure::Closed { code, reason }
}

/// Turns the relay's error message into the failure it stands for (PROTOCOL section 7).
pub(super) fn refuse_error(message: &Received) -> Result<(), Failure> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Told {
        code: String,
        message: String,
    }
    if message.sender() != RELAY || message.kind() != Some("error") {
        return Ok(());
    }
    let told: Told = message.payload().unwrap_or_default();
    let safe = super::text::escaped;
    Err(Failure::Declined { code: safe(&told.code), message: safe(&told.message) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
mod tests {
    use super::*;
    use crate::agent::{
        test_relay::{Act, TestRelay, Turn},
        url::UrlText,
    };

    async fn open(relay: &TestRelay, silence: Duration) -> Result<Session, Failure> {
        let relay = relay.address().parse::<UrlText>().unwrap().relay().unwrap();
        let connector = Connector::new(relay.endpoint(), None).unwrap();
        let authorization = HeaderValue::from_static("Bearer tok_abc");
        let limit = Duration::from_secs(10);
        Dialer { relay, connector, authorization, limit, silence }.open().await
    }

    #[tokio::test]
    async fn a_silent_relay_is_given_up() {
        let relay = TestRelay::start(vec![Turn::Session(vec![Act::Hang])]).await;
        let mut session = open(&relay, Duration::from_millis(20)).await.unwrap();
        assert!(matches!(session.next().await, Err(Failure::Silent(_))));
    }

    #[tokio::test]
    async fn a_ping_is_answered_while_waiting_for_messages() {
        let acts = vec![Act::Ping, Act::Say(r#"{"from":"rawk-042"}"#)];
        let relay = TestRelay::start(vec![Turn::Session(acts)]).await;
        let mut session = open(&relay, SILENCE_MAX).await.unwrap();
        assert_eq!(session.next().await.unwrap().sender(), "rawk-042");
    }

    #[tokio::test]
    async fn a_relay_that_pings_seldom_is_asked_whether_it_is_there() {
        let acts = vec![Act::Pinged, Act::Pinged, Act::Say(r#"{"from":"rawk-042"}"#)];
        let relay = TestRelay::start(vec![Turn::Session(acts)]).await;
        let mut session = open(&relay, Duration::from_millis(400)).await.unwrap();
        assert_eq!(session.next().await.unwrap().sender(), "rawk-042");
    }

    #[tokio::test]
    async fn the_end_of_a_session_has_a_code() {
        let close = Turn::Session(vec![Act::Close(4008, "too slow")]);
        let relay = TestRelay::start(vec![close]).await;
        let mut session = open(&relay, SILENCE_MAX).await.unwrap();
        let ended = session.next().await.err().unwrap();
        assert!(matches!(ended, Failure::Closed { code: 4008, .. }), "{ended}");
    }

    #[tokio::test]
    async fn strangers_are_recognized() {
        let upgrade = "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: bm90IHRoZSBhbnN3ZXI=";
        for (head, body) in [(upgrade, ""), ("200 OK", "<html>")] {
            let relay = TestRelay::start(vec![Turn::Http(head, body)]).await;
            let failure = open(&relay, SILENCE_MAX).await.err().unwrap();
            assert!(matches!(failure, Failure::NotRelay(_)), "{failure}");
        }
    }
}
