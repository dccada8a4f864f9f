//! This node's certificate in the mesh: made at the start, and followed by another long before it ends,
//! or when the operator has replaced its files. No link is touched by that.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use cluster::{
    NodeId,
    link::quic::{QuicError, QuicTransport},
};
use tls::mesh::{IdentityError, MeshFiles, MeshIdentity, Wall};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::Clock,
    config::Credentials,
    peers::{Join, Joined},
    relay::Relay,
};

/// How often it is looked whether a certificate has to follow.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A node's certificate, and what others are made of.
pub struct Identity {
    node: NodeId,
    credentials: Credentials,
    wall: Wall,
    present: MeshIdentity,
    /// The files that the present certificate was made of.
    seen: Seen,
    /// The files that could not be used, as was told.
    refused: Option<Seen>,
}

/// What tells replaced files from those before: modification (s, ns), length and inode of each. None
/// while one is missing, and for a secret.
type Seen = Option<[(i64, i64, u64, u64); 3]>;

/// Why there is no other certificate.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Quic(#[from] QuicError),
}

impl Identity {
    /// The certificate of this node.
    pub fn new(
        credentials: Credentials,
        node: NodeId,
        clock: &Clock,
    ) -> Result<Self, IdentityError> {
        let clock = clock.clone();
        let wall: Wall = Arc::new(move || Duration::from_millis(clock.wall().0));
        let seen = seen(&credentials);
        let present = make(&credentials, node, &wall)?;
        Ok(Self { node, credentials, wall, present, seen, refused: None })
    }

    /// The present certificate.
    pub fn present(&self) -> &MeshIdentity {
        &self.present
    }

    /// Keeps the certificate for as long as what `join` joins runs.
    pub fn kept_while(self, join: Join, transport: Arc<QuicTransport>) -> Join {
        Box::new(move |relay, deliver, stop| {
            let counted = Arc::clone(relay);
            let Joined { mesh, peers, driver, keeper } = join(relay, deliver, stop);
            let driver = Box::pin(async move {
                tokio::select! {
                    () = driver => {}
                    died = self.keep(transport, counted) => {
                        tracing::error!(error = %died, "nobody looks after this node's certificate");
                    }
                }
            });
            Joined { mesh, peers, driver, keeper }
        })
    }

    /// Gives `transport` the next certificate whenever it is time; returns only if that has panicked.
    /// Files are read and keys are made beside the runtime's threads, which carry the mesh.
    async fn keep(mut self, transport: Arc<QuicTransport>, relay: Arc<Relay>) -> JoinError {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            relay.metrics.mesh.set_certificate(&self.present);
            let transport = Arc::clone(&transport);
            let looked = spawn_blocking(move || {
                self.look(|next| transport.renew(next));
                self
            });
            match looked.await {
                Ok(identity) => self = identity,
                Err(died) => return died,
            }
        }
    }

    /// Has `show` show the next certificate if one has to follow. What cannot be used is told once, and
    /// the present one stays; it is judged again each time, for its hour may come.
    fn look(&mut self, show: impl FnOnce(&MeshIdentity) -> Result<(), QuicError>) {
        let seen = seen(&self.credentials);
        if !self.is_due(seen) {
            self.refused = None;
            return;
        }
        match self.renew(show) {
            Ok(()) => {
                (self.seen, self.refused) = (seen, None);
                tracing::info!("this node shows its peers a new certificate");
            }
            Err(error) => {
                if self.refused.replace(seen) != Some(seen) {
                    tracing::error!(
                        %error, "cannot use the new certificate for the mesh; the one before stays"
                    );
                }
            }
        }
    }

    /// Whether a certificate has to follow, if `seen` is what the files are now.
    fn is_due(&self, seen: Seen) -> bool {
        match &self.credentials {
            Credentials::Secret(..) => (self.wall)() >= self.present.renew_at(),
            Credentials::Files(_) => self.seen != seen,
        }
    }

    fn renew(
        &mut self,
        show: impl FnOnce(&MeshIdentity) -> Result<(), QuicError>,
    ) -> Result<(), RenewError> {
        let next = make(&self.credentials, self.node, &self.wall)?;
        show(&next)?;
        self.present = next;
        Ok(())
    }
}

fn make(
    credentials: &Credentials,
    node: NodeId,
    wall: &Wall,
) -> Result<MeshIdentity, IdentityError> {
    match credentials {
        Credentials::Secret(secret, previous) => {
            MeshIdentity::from_secret(secret, previous.as_ref(), node.0, Arc::clone(wall))
        }
        Credentials::Files(files) => MeshIdentity::from_files(files, Some(node.0), wall.clone()),
    }
}

fn seen(credentials: &Credentials) -> Seen {
    let Credentials::Files(MeshFiles { ca, cert, key }) = credentials else { return None };
    let look = |path| {
        let file = fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.len(), file.ino()))
    };
    Some([look(ca)?, look(cert)?, look(key)?])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::path::Path;

    use cluster::UnixMillis;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };
    use tls::mesh::{SERVER_NAME, node_name};

    use super::*;

    /// The time in November 2026.
    const NOW: UnixMillis = UnixMillis(1_795_341_600_000);

    const YEAR: Duration = Duration::from_hours(8_760);

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Puts the files of node 1 into `dir`, whose certificate is good from the year `from`.
    fn hand_out(authority: &Authority, dir: &Path, from: i32) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([SERVER_NAME.to_owned(), node_name(1)]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        let certificate = params.signed_by(&key, authority).unwrap();
        let write = |name: &str, text: &str| {
            // Another file under the same name: as operators do, and never the same inode.
            fs::write(dir.join("new"), text).unwrap();
            fs::rename(dir.join("new"), dir.join(name)).unwrap();
            dir.join(name)
        };
        Credentials::Files(MeshFiles {
            ca: write("ca.pem", &authority.pem()),
            cert: write("node.pem", &certificate.pem()),
            key: write("node.key", &key.serialize_pem()),
        })
    }

    /// How many certificates are shown by a look.
    fn shown(identity: &mut Identity) -> usize {
        let mut shown = 0;
        identity.look(|_| {
            shown += 1;
            Ok(())
        });
        shown
    }

    #[test]
    fn a_certificate_whose_time_has_not_come_is_shown_when_it_has() {
        let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
        let clock = Clock::manual(NOW);
        let credentials = hand_out(&authority, dir.path(), 2020);
        let mut identity = Identity::new(credentials, NodeId(1), &clock).unwrap();
        assert_eq!(shown(&mut identity), 0, "nothing has changed");
        hand_out(&authority, dir.path(), 2027);
        assert_eq!(shown(&mut identity), 0, "it is for next year");
        assert_eq!(identity.refused, Some(seen(&identity.credentials)), "and was told");
        clock.advance(YEAR);
        assert_eq!((shown(&mut identity), shown(&mut identity)), (1, 0), "once");
        assert_eq!(identity.refused, None);
    }
}
