//! This node's certificate in the mesh: made at the start, and followed by another long before it ends,
//! or when the operator has replaced its files. No link is touched by that.

use std::{
    convert::Infallible, fs, future::pending, os::unix::fs::MetadataExt, panic::resume_unwind,
    sync::Arc, time::Duration,
};

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
};

/// How often it is looked whether a certificate has to follow.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A node's certificate, and what others are made of.
pub struct Identity {
    node: NodeId,
    credentials: Credentials,
    wall: Wall,
    present: MeshIdentity,
    seen: Option<Seen>,
}

/// What tells a replaced file from the one before: modification (s, ns), length and inode of each.
type Seen = [(i64, i64, u64, u64); 3];

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
        Ok(Self { node, credentials, wall, present, seen })
    }

    /// The present certificate.
    pub fn present(&self) -> &MeshIdentity {
        &self.present
    }

    /// Keeps the certificate for as long as what `join` joins runs.
    pub fn kept_while(self, join: Join, transport: Arc<QuicTransport>) -> Join {
        Box::new(move |relay, deliver, stop| {
            let Joined { mesh, peers, driver, keeper } = join(relay, deliver, stop);
            let driver = Box::pin(async move {
                tokio::select! {
                    () = driver => {}
                    never = self.keep(transport) => match never {},
                }
            });
            Joined { mesh, peers, driver, keeper }
        })
    }

    /// Gives `transport` the next certificate whenever it is time. What cannot be used is told, and the
    /// present one stays.
    async fn keep(mut self, transport: Arc<QuicTransport>) -> Infallible {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let renewed;
            (self, renewed) = self.look(Arc::clone(&transport)).await;
            let Some(renewed) = renewed else { continue };
            match renewed {
                Ok(()) => tracing::info!("this node shows its peers a new certificate"),
                Err(error) => tracing::error!(
                    %error, "cannot use the new certificate for the mesh; the one before stays"
                ),
            }
        }
    }

    /// Lets another certificate follow if one has to, and says how that went. Files are read and a key is
    /// made for it, which is not for the runtime's threads.
    async fn look(
        mut self,
        transport: Arc<QuicTransport>,
    ) -> (Self, Option<Result<(), RenewError>>) {
        let looked = spawn_blocking(move || {
            let renewed = self.is_due().then(|| self.renew(&transport));
            (self, renewed)
        });
        match looked.await.map_err(JoinError::try_into_panic) {
            Ok(looked) => looked,
            Err(Ok(panic)) => resume_unwind(panic),
            Err(Err(_)) => pending().await, // the runtime ends, and this with it
        }
    }

    /// Whether a certificate has to follow; of a change of files this is true once.
    fn is_due(&mut self) -> bool {
        match &self.credentials {
            Credentials::Secret(..) => (self.wall)() >= self.present.renew_at(),
            Credentials::Files(_) => {
                let seen = seen(&self.credentials);
                std::mem::replace(&mut self.seen, seen) != seen
            }
        }
    }

    fn renew(&mut self, transport: &QuicTransport) -> Result<(), RenewError> {
        let next = make(&self.credentials, self.node, &self.wall)?;
        transport.renew(&next)?;
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

/// None while a file is missing, and for a secret.
fn seen(credentials: &Credentials) -> Option<Seen> {
    let Credentials::Files(MeshFiles { ca, cert, key }) = credentials else { return None };
    let look = |path| {
        let file = fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.len(), file.ino()))
    };
    Some([look(ca)?, look(cert)?, look(key)?])
}
