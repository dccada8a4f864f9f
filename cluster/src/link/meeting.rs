//! How two nodes meet: the handshake's steps at either end, from a connection to a link.
//!
//! Whatever fails leaves nothing behind: the offer or the claim and the connection go with the
//! future that holds them.

use std::{net::SocketAddr, sync::Arc};

use futures_util::FutureExt;

use super::{
    Introduction, LinkError, Links,
    handshake::{self, Fault, Hello},
    link::Link,
    pairing::{Claim, Wish},
    refusal::{Reason, Refusal},
    transport::{CloseCode, ConnectError, Connection, Ended, Incoming, Outgoing},
};
use crate::NodeId;

/// What is logged of a dialler whose certificate is another cluster's.
const DISTRUSTED: &str = "a node that dials from there does not share our CLUSTER_SECRET: start both \
                          with the same, or remove our address from its seeds";

/// What a dial has led to.
pub(super) enum Met {
    /// A new link, to be run.
    Linked(Arc<Link>, Claim),
    /// The node was linked already.
    Known(Introduction),
}

impl Links {
    /// Dials, and offers a link to whoever answers.
    pub(super) async fn meet(&self, address: SocketAddr) -> Result<Met, LinkError> {
        let connection = self.transport.dial(address).await.map_err(|error| match error {
            ConnectError::Distrusted => LinkError::Distrusted(address),
            ConnectError::Expired => {
                let refusal = Refusal::new(Reason::Certificate, ConnectError::Expired.to_string());
                LinkError::Unfit { address, refusal }
            }
            other => LinkError::Unreachable { address, reason: other.to_string() },
        })?;
        let peer = connection.peer();
        let offer = match self.pairing.wish(peer) {
            Wish::Offer(offer) => offer,
            Wish::Linked(introduction) => {
                connection.close(CloseCode::Duplicate, Reason::Duplicate.label());
                return Ok(Met::Known(introduction));
            }
            Wish::Open => {
                connection.close(CloseCode::Duplicate, Reason::Duplicate.label());
                return Err(LinkError::Underway(address));
            }
        };
        let offered = async {
            let (mut to, mut from) = connection.open_bi().await.map_err(std::io::Error::from)?;
            let ours = self.hello();
            handshake::open(&mut *to, &ours).await?;
            Ok::<_, Fault>((ours, handshake::answer(&mut from).await?, to))
        };
        let (ours, theirs, mut to) =
            offered.await.map_err(|fault| failed(address, &*connection, fault))?;
        let claim = self
            .judge(&ours, &theirs, peer)
            .and_then(|()| self.pairing.accepted(offer, &theirs.introduction));
        let claim = claim.map_err(|refusal| {
            connection.close(CloseCode::Refused, &refusal.text);
            LinkError::Unfit { address, refusal }
        })?;
        claim.former_ended().await;
        let confirmed = handshake::confirm(&mut *to).await;
        confirmed.map_err(|error| failed(address, &*connection, error.into()))?;
        Ok(self.linked_by(connection, theirs, claim))
    }

    /// Answers somebody who has dialled.
    pub(super) async fn answer(&self, incoming: Incoming) -> Result<Met, Refusal> {
        let connection = incoming.connect.await.map_err(|error| match error {
            ConnectError::Distrusted => Refusal::new(Reason::Secret, DISTRUSTED),
            ConnectError::Nameless | ConnectError::Expired => {
                Refusal::new(Reason::Certificate, error.to_string())
            }
            ConnectError::Noise(_) => Refusal::new(Reason::Malformed, error.to_string()),
            ConnectError::Unreachable(_) => Refusal::new(Reason::Broken, error.to_string()),
        })?;
        let answered = async {
            let (mut to, mut from) = connection.accept_bi().await.map_err(std::io::Error::from)?;
            let opening = handshake::opening(&mut from).await?;
            let ours = self.hello();
            let claimed = self.consider(&ours, opening, &*connection);
            let (version, theirs, claim) = match claimed {
                Ok(claimed) => claimed,
                Err(Fault::Refused(refusal)) => {
                    turn_away(&*connection, &mut *to, &refusal).await;
                    return Err(Fault::Refused(refusal));
                }
                Err(other) => return Err(other),
            };
            claim.former_ended().await;
            handshake::accept(&mut *to, version, &ours).await?;
            let replaced = claim.replaced().clone();
            let confirmed = replaced.run_until_cancelled(handshake::confirmed(&mut from)).await;
            confirmed.unwrap_or(Err(Fault::Malformed))?;
            Ok((theirs, claim))
        };
        let (theirs, claim) = answered.await.map_err(|fault| refusal(&*connection, fault))?;
        Ok(self.linked_by(connection, theirs, claim))
    }

    fn consider(
        &self,
        ours: &Hello,
        opening: handshake::Opening,
        connection: &dyn Connection,
    ) -> Result<(u16, Hello, Claim), Fault> {
        let (version, theirs) = opening.understand(&ours.introduction.version)?;
        self.judge(ours, &theirs, connection.peer())?;
        let claim = self.pairing.accept(&theirs.introduction)?;
        Ok((version, theirs, claim))
    }

    /// Whether the peer may be linked, for all reasons but another connection.
    fn judge(&self, ours: &Hello, theirs: &Hello, certified: NodeId) -> Result<(), Refusal> {
        if certified == self.node() && handshake::life(theirs) > handshake::life(ours) {
            self.events.outlived(theirs.introduction.incarnation.generation);
        }
        handshake::judge(ours, theirs, certified)?;
        let peer = &theirs.introduction;
        if self.leaving.is_cancelled() {
            return Err(Refusal::new(Reason::Leaving, "the node stops: dial another one"));
        }
        self.events.admit(peer)
    }

    fn linked_by(&self, connection: Arc<dyn Connection>, theirs: Hello, claim: Claim) -> Met {
        self.events.learn_time(theirs.time);
        Met::Linked(Link::new(theirs.introduction, connection, self.now()), claim)
    }
}

/// What failed, as the dialler tells it.
fn failed(address: SocketAddr, connection: &dyn Connection, fault: Fault) -> LinkError {
    match in_words(connection, fault) {
        Fault::Refused(refusal) if refusal.reason == Reason::Secret => {
            LinkError::Distrusted(address)
        }
        Fault::Refused(refusal) if refusal.reason == Reason::Duplicate => {
            LinkError::Underway(address)
        }
        Fault::Refused(refusal) if refusal.reason == Reason::Myself => LinkError::Myself(address),
        Fault::Refused(refusal) => LinkError::Refused { address, refusal },
        Fault::Malformed => LinkError::Malformed(address),
        Fault::Io(error) => LinkError::Unreachable { address, reason: error.to_string() },
    }
}

/// What failed, as the other end tells it.
fn refusal(connection: &dyn Connection, fault: Fault) -> Refusal {
    match in_words(connection, fault) {
        Fault::Refused(refusal) => refusal,
        Fault::Malformed => Refusal::new(Reason::Malformed, Fault::Malformed.to_string()),
        Fault::Io(error) => Refusal::new(Reason::Broken, error.to_string()),
    }
}

/// What failed, in the peer's words if it said some when it closed the connection.
fn in_words(connection: &dyn Connection, fault: Fault) -> Fault {
    if !matches!(fault, Fault::Io(_)) {
        return fault;
    }
    match connection.closed().now_or_never() {
        Some(Ended::There { code: CloseCode::Refused, reason }) => {
            Refusal::new(Reason::Unwanted, format!("the peer refuses: {reason}")).into()
        }
        Some(Ended::There { code: CloseCode::Duplicate, reason }) => {
            Refusal::new(Reason::Duplicate, reason).into()
        }
        Some(Ended::Distrusted) => {
            Refusal::new(Reason::Secret, Ended::Distrusted.to_string()).into()
        }
        Some(Ended::Expired) => {
            Refusal::new(Reason::Certificate, Ended::Expired.to_string()).into()
        }
        _ => fault,
    }
}

/// Tells the dialler why, and closes.
async fn turn_away(connection: &dyn Connection, to: &mut dyn Outgoing, refusal: &Refusal) {
    if handshake::refuse(to, refusal).await.is_ok() {
        let _ = to.deliver().await;
    }
    let code = match refusal.reason {
        Reason::Duplicate => CloseCode::Duplicate,
        _ => CloseCode::Refused,
    };
    connection.close(code, &refusal.text);
}
