//! What each node does about its certificate: it serves what lies on the shelf, and the leader sees to it
//! that there is something.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use super::{
    Settings, Shelf, ShelfError,
    http::{Client, ClientError},
    order,
    plan::{self, due_ms},
    record::{self, Answers, Certificate, State, ms},
};
use crate::{
    agents::{Chain, Served},
    mesh::Wall,
};

/// The longest sleep before the clock is looked at anew: it may have been set.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// How long to wait before the shelf is tried again for what only a log would miss.
const SHELF_PATIENCE: Duration = Duration::from_secs(1);

/// A node's part in getting certificates.
pub struct Orders {
    settings: Settings,
    client: Client,
    shelf: Arc<dyn Shelf>,
    served: Arc<Served>,
    wall: Wall,
    ordering: Mutex<bool>,
    /// Why what lies on the shelf is not served.
    unserved: Mutex<Option<String>>,
}

/// How it is with the certificate, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The names that are wanted.
    pub domains: Vec<String>,
    /// When the certificate ends, since 1970; none if there is none.
    pub not_after: Option<Duration>,
    /// When the next order is due, since 1970: to renew, or to try again.
    pub next_at: Duration,
    /// Orders that have failed since the last that succeeded.
    pub failures: u32,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// Whether this node orders now.
    pub ordering: bool,
}

impl Orders {
    /// A node's part; nothing happens before it [runs](Self::run). Reads what vouches for the authority,
    /// for once and all.
    ///
    /// # Errors
    /// [`ClientError`], if the authority could never be asked.
    pub fn new(
        settings: Settings,
        shelf: Arc<dyn Shelf>,
        served: Arc<Served>,
        wall: Wall,
    ) -> Result<Self, ClientError> {
        let client = Client::new(&settings, wall.clone())?;
        let (ordering, unserved) = (Mutex::default(), Mutex::default());
        Ok(Self { settings, client, shelf, served, wall, ordering, unserved })
    }

    /// What an authority is asked for.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What `ACME_CA_ROOT` held at the start, PEM; none if it is not set.
    pub fn ca_root_pem(&self) -> Option<&str> {
        self.client.root_pem()
    }

    /// Serves what there is, and orders when it is this node's turn. Whoever drops this gives an order
    /// up in the middle; it is carried on later, here or elsewhere.
    pub async fn run(&self) -> Infallible {
        tokio::select! {
            never = self.serve() => never,
            never = self.order() => never,
        }
    }

    /// Lets the next order be tried at once, however long it was to wait: the operator has mended
    /// something.
    ///
    /// # Errors
    /// The shelf cannot be written now.
    pub async fn try_now(&self) -> Result<(), ShelfError> {
        let found = record::find::<State>(&*self.shelf);
        let state = State { next_at_ms: 0, ..found.record.unwrap_or_default() };
        record::put(&*self.shelf, found.version, &state).await.map(|_| ())
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let certificate = record::find::<Certificate>(&*self.shelf).record;
        let state = record::find::<State>(&*self.shelf).record.unwrap_or_default();
        let Settings { directory, domains, .. } = &self.settings;
        let next_at = due_ms(certificate.as_ref(), directory, domains, &state);
        Status {
            domains: domains.clone(),
            not_after: certificate.map(|it| Duration::from_millis(it.not_after_ms)),
            next_at: Duration::from_millis(next_at),
            failures: state.failures,
            last_error: state.last_error.or_else(|| self.unserved.lock().clone()),
            ordering: *self.ordering.lock(),
        }
    }

    async fn serve(&self) -> Infallible {
        let mut changes = self.shelf.changes();
        let (mut chain, mut answers) = (None, None);
        loop {
            changes.borrow_and_update();
            let found = self.shelf.get(<Certificate as record::Record>::KEY).map(|it| it.version);
            if found != chain {
                chain = found;
                self.serve_certificate();
            }
            let found = self.shelf.get(<Answers as record::Record>::KEY).map(|it| it.version);
            if found != answers {
                answers = found;
                self.serve_answers();
            }
            ended_never(&mut changes).await;
        }
    }

    /// A certificate that cannot be served is told, and the one before stays.
    fn serve_certificate(&self) {
        let Some(record) = record::find::<Certificate>(&*self.shelf).record else { return };
        let chain = Chain::from_pem(record.chain.as_bytes(), record.key.as_bytes());
        let unserved = match chain {
            Ok(chain) => {
                tracing::info!(names = ?chain.names(), "serving a certificate of the authority");
                self.served.set_chains(vec![chain]);
                None
            }
            Err(error) => {
                tracing::error!(%error, "cannot serve the authority's certificate");
                Some(error.to_string())
            }
        };
        *self.unserved.lock() = unserved;
    }

    fn serve_answers(&self) {
        let answers = record::find::<Answers>(&*self.shelf).record.unwrap_or_default();
        if let Err(error) = self.served.set_tls_alpn(answers.digests()) {
            tracing::error!(%error, "cannot answer the authority's challenges");
        }
        self.served.set_http_01(answers.http_01);
    }

    async fn order(&self) -> Infallible {
        let mut leads = self.shelf.leads();
        loop {
            let _ = leads.wait_for(|leads| *leads).await;
            let deposed = async {
                let _ = leads.wait_for(|leads| !*leads).await;
            };
            tokio::select! {
                () = deposed => *self.ordering.lock() = false,
                never = self.order_when_due() => match never {},
            }
        }
    }

    async fn order_when_due(&self) -> Infallible {
        let mut changes = self.shelf.changes();
        let Settings { directory, domains, .. } = &self.settings;
        loop {
            changes.borrow_and_update();
            let certificate = record::find::<Certificate>(&*self.shelf).record;
            let state = record::find::<State>(&*self.shelf).record.unwrap_or_default();
            let (due, now) =
                (due_ms(certificate.as_ref(), directory, domains, &state), self.now_ms());
            if let Some(wait) = due.checked_sub(now).filter(|wait| *wait > 0) {
                tokio::select! {
                    () = sleep(Duration::from_millis(wait).min(LOOK_EVERY)) => {}
                    () = ended_never(&mut changes) => {}
                }
                continue;
            }
            *self.ordering.lock() = true;
            let obtained = order::obtain(&self.settings, &self.client, &*self.shelf, &self.wall);
            let obtained = obtained.await;
            *self.ordering.lock() = false;
            self.remember(obtained.err()).await;
        }
    }

    /// Writes down how it went, so that no other leader and no later life asks too early.
    async fn remember(&self, failure: Option<order::Failure>) {
        loop {
            let found = record::find::<State>(&*self.shelf);
            let before = found.record.unwrap_or_default();
            let state = match &failure {
                None => State::default(),
                Some(order::Failure { trouble, text, retry_after }) => {
                    let (text, wait) = (text.clone(), *retry_after);
                    plan::after_failure(&before, *trouble, text, wait, self.now_ms())
                }
            };
            let put = record::put(&*self.shelf, found.version, &state).await;
            match put {
                Ok(_) => break self.tell(failure.as_ref(), &state),
                Err(ShelfError::Conflict) => {}
                Err(ShelfError::Unavailable(_)) => sleep(SHELF_PATIENCE).await,
            }
        }
    }

    fn tell(&self, failure: Option<&order::Failure>, state: &State) {
        match failure {
            None => tracing::info!(domains = ?self.settings.domains, "got a certificate"),
            Some(failure) => tracing::error!(
                error = failure.text,
                failures = state.failures,
                next_try_s = state.next_at_ms.saturating_sub(self.now_ms()) / 1000,
                "cannot get a certificate"
            ),
        }
    }

    fn now_ms(&self) -> u64 {
        ms((self.wall)())
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The next change; of a shelf that is gone there is none.
async fn ended_never(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
