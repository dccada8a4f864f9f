//! What each node does about its certificate: it serves what lies on the shelf, and the leader sees to it
//! that there is something.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use super::{
    Settings, Shelf, ShelfError,
    http::{Client, ClientError},
    order,
    plan::{self, Step, due_ms},
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
    ordering: AtomicBool,
    /// Why what lies on the shelf is not served.
    unserved: Mutex<Option<String>>,
}

/// Says that this node orders, for as long as it does, however that ends.
struct Busy<'a>(&'a AtomicBool);

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
        let (ordering, unserved) = (AtomicBool::new(false), Mutex::default());
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
        let Settings { directory, domains, .. } = &self.settings;
        let state = record::find::<State>(&*self.shelf).record;
        let state = state.filter(|state| plan::is_about(state, directory, domains));
        let state = state.unwrap_or_default();
        let next_at = due_ms(certificate.as_ref(), directory, domains, &state);
        Status {
            domains: domains.clone(),
            not_after: certificate.map(|it| Duration::from_millis(it.not_after_ms)),
            next_at: Duration::from_millis(next_at),
            failures: state.failures,
            last_error: state.last_error.or_else(|| self.unserved.lock().clone()),
            ordering: self.ordering.load(Ordering::Relaxed),
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
                () = deposed => {}
                never = self.order_when_due() => match never {},
            }
        }
    }

    async fn order_when_due(&self) -> Infallible {
        let mut changes = self.shelf.changes();
        let Settings { directory, domains, .. } = &self.settings;
        let mut told = 0;
        loop {
            changes.borrow_and_update();
            let certificate = record::find::<Certificate>(&*self.shelf).record;
            let state = record::find::<State>(&*self.shelf).record.unwrap_or_default();
            let now = self.now_ms();
            match plan::next(certificate.as_ref(), directory, domains, &state, now) {
                Step::Order => told = self.order_once().await,
                Step::Forget => {
                    self.remember(|_| State::default()).await;
                }
                Step::Wait { until_ms, is_due } => {
                    let wait = Duration::from_millis(until_ms.saturating_sub(now));
                    if is_due && told != until_ms {
                        told = until_ms;
                        tracing::warn!(
                            wait_s = wait.as_secs(),
                            last_error = state.last_error,
                            "a certificate is to be ordered, but not yet: SIGHUP does not wait"
                        );
                    }
                    tokio::select! {
                        () = sleep(wait.min(LOOK_EVERY)) => {}
                        () = ended_never(&mut changes) => {}
                    }
                }
            }
        }
    }

    /// Orders, and writes down how it went, so that no other leader and no later life asks too early.
    /// When the next order may be tried, ms since 1970.
    async fn order_once(&self) -> u64 {
        let obtained = {
            let _busy = Busy::new(&self.ordering);
            order::obtain(&self.settings, &self.client, &*self.shelf, &self.wall).await
        };
        let state = match &obtained {
            Ok(()) => self.remember(|_| self.after_success()).await,
            Err(failure) => self.remember(|before| self.after_failure(before, failure)).await,
        };
        self.tell(obtained.err().as_ref(), &state);
        state.next_at_ms
    }

    fn after_success(&self) -> State {
        let certificate = record::find::<Certificate>(&*self.shelf).record;
        let left = certificate.map_or(0, |it| it.not_after_ms.saturating_sub(self.now_ms()));
        self.state_in(plan::pause_after_success(Duration::from_millis(left)))
    }

    fn after_failure(&self, before: &State, failure: &order::Failure) -> State {
        let Settings { directory, domains, .. } = &self.settings;
        let is_first = !plan::is_about(before, directory, domains);
        let failures = if is_first { 1 } else { before.failures.saturating_add(1) };
        let order::Failure { trouble, text, retry_after } = failure;
        let state = self.state_in(plan::pause_after_failure(*trouble, failures, *retry_after));
        State { failures, last_error: Some(text.clone()), ..state }
    }

    /// Nothing is tried again before `pause` is over.
    fn state_in(&self, pause: Duration) -> State {
        let Settings { directory, domains, .. } = &self.settings;
        State {
            next_at_ms: self.now_ms().saturating_add(ms(pause)),
            directory: directory.clone(),
            domains: domains.clone(),
            ..State::default()
        }
    }

    /// Writes down what follows from what was remembered before.
    async fn remember(&self, next: impl Fn(&State) -> State) -> State {
        loop {
            let found = record::find::<State>(&*self.shelf);
            let state = next(&found.record.unwrap_or_default());
            match record::put(&*self.shelf, found.version, &state).await {
                Ok(_) => return state,
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

impl<'a> Busy<'a> {
    fn new(ordering: &'a AtomicBool) -> Self {
        ordering.store(true, Ordering::Relaxed);
        Self(ordering)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
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
