//! Where this node has agents' certificate from, and how it stays fresh.
//!
//! Owns what is served: whoever has a new certificate puts it into what is [served](Served), and no
//! connection notices. Of an authority's certificates [`Orders`] takes care. The operator's files are looked at every few seconds, and at SIGHUP; a pair
//! that is no good is refused, and the one before it goes on being served. Speaks to no socket.

mod watched;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cluster::UnixMillis;
use parking_lot::Mutex;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tls::{
    acme::{ClientError, Orders, Shelf, ShelfError},
    agents::{Chain, ChainError, SelfSigned, SelfSignedError, Served, self_signed, server_config},
};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use self::watched::{Action, Pair, Watched};
use crate::{
    clock::Clock,
    config::{CertificateSource, Config},
    relay::Relay,
};

/// How often files are looked at.
const ROUND: Duration = Duration::from_secs(5);

/// Every so many rounds it is looked whether the node's own certificate must be renewed.
const ROUNDS_TO_RENEW: u64 = 720;

/// A certificate's end is spoken of when less than this share of its life is left, and less than
/// [`WARN_BEFORE`].
const WARN_SHARE: u32 = 6;

/// See [`WARN_SHARE`].
const WARN_BEFORE: Duration = Duration::from_hours(24 * 14);

/// How often a certificate's end is spoken of.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// What agents are shown, where it comes from, and what is wrong with it.
#[derive(Debug)]
pub struct Certificates {
    served: Arc<Served>,
    config: Arc<ServerConfig>,
    origin: Origin,
    /// What is wrong, if anything is.
    problem: Mutex<Option<String>>,
}

#[derive(Debug)]
enum Origin {
    Files { cert: PathBuf, key: PathBuf, watched: Mutex<Watched> },
    SelfSigned { folder: PathBuf, names: Vec<String> },
    Authority(Orders),
}

/// Agents' TLS, as operators read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TlsReport {
    /// Where the certificate comes from: `files`, `self-signed` or `acme`.
    pub source: String,
    /// The hosts that it is for, or is to be for.
    pub names: Vec<String>,
    /// When the first of the certificates expires, in Unix milliseconds.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub expires_at: Option<UnixMillis>,
    /// Seconds until then, less than 0 if that was.
    #[serde(default)]
    pub expires_in: Option<i64>,
    /// What is wrong, if anything is.
    #[serde(default)]
    pub problem: Option<String>,
    /// How it is with the orders, if the certificate comes from an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeReport>,
}

/// How it is with an authority's certificates, as operators read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcmeReport {
    /// Orders that have failed since the last that succeeded, in the whole cluster.
    pub failures: u32,
    /// Seconds until the next order is due, to renew or to try again; 0 or less if it is due.
    pub next_in: i64,
    /// Whether this node orders now: of a cluster one node does.
    pub ordering: bool,
}

/// Why a node has no certificate to start with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {variable}, {}: {why}", path.display())]
    Unreadable {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The files are of no use.
    #[error("TLS_CERT, {} and TLS_KEY, {}: {why}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong, and what to do.
        why: ChainError,
    },
    /// The node could not make its own.
    #[error("TLS_SELF_SIGNED: {0}")]
    SelfSigned(SelfSignedError),
    /// An authority could never be asked.
    #[error(transparent)]
    Authority(#[from] ClientError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
}

impl Certificates {
    /// What the node shows to agents, as it is configured and as it is now; none without TLS. What an
    /// authority has given lies on `shelf`.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong and what to do: without a good certificate a node does
    /// not start. From an authority it gets one later.
    pub fn open(
        config: &Config,
        clock: &Clock,
        shelf: Arc<dyn Shelf>,
    ) -> Result<Option<Arc<Self>>, CertificateError> {
        let Some(source) = config.tls.source() else { return Ok(None) };
        let now = Duration::from_millis(clock.wall().0);
        let served = Arc::new(Served::default());
        let (chain, origin) = match source {
            CertificateSource::Files { cert, key } => {
                let pair = read(&cert, &key)?;
                let unusable =
                    |why| CertificateError::Unusable { cert: cert.clone(), key: key.clone(), why };
                let chain = pair.chain(now).map_err(unusable)?;
                let watched = Mutex::new(Watched::new(&pair));
                (Some(chain), Origin::Files { cert, key, watched })
            }
            CertificateSource::SelfSigned => {
                let (folder, names) = (config.data_dir.clone(), own_names(config));
                let own =
                    self_signed(&folder, &names, now).map_err(CertificateError::SelfSigned)?;
                say_how_to_trust(&own);
                (Some(own.chain), Origin::SelfSigned { folder, names })
            }
            CertificateSource::Acme(settings) => {
                let clock = clock.clone();
                let wall = Arc::new(move || Duration::from_millis(clock.wall().0));
                let orders = Orders::new(settings, shelf, Arc::clone(&served), wall)?;
                (None, Origin::Authority(orders))
            }
        };
        served.set_chains(chain.into_iter().collect());
        let config = server_config(Arc::clone(&served)).map_err(CertificateError::Tls)?;
        Ok(Some(Arc::new(Self { served, config, origin, problem: Mutex::default() })))
    }

    /// What is shown to whom; may be changed at any time.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// The rules by which TLS is spoken.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether agents must be told to trust the certificate.
    pub fn is_self_signed(&self) -> bool {
        matches!(self.origin, Origin::SelfSigned { .. })
    }

    /// What gets certificates from an authority, if they come from one.
    pub fn orders(&self) -> Option<&Orders> {
        match &self.origin {
            Origin::Authority(orders) => Some(orders),
            Origin::Files { .. } | Origin::SelfSigned { .. } => None,
        }
    }

    /// Says what is wrong, or that nothing is any more.
    pub fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    /// Seconds until the first of the certificates expires, less than 0 if it has; none without any.
    pub fn expires_in(&self, now: UnixMillis) -> Option<i64> {
        self.first_end().map(|end| seconds_until(end, now))
    }

    /// Agents' TLS, as operators read it.
    pub fn report(&self, now: UnixMillis) -> TlsReport {
        let chains = self.served.chains();
        let names = chains.iter().flat_map(|chain| chain.names().iter().cloned()).collect();
        let report = TlsReport {
            source: self.source().into(),
            names,
            expires_at: self.first_end().map(|end| UnixMillis::default().plus(end)),
            expires_in: self.expires_in(now),
            problem: self.problem.lock().clone(),
            acme: None,
        };
        let Some(status) = self.orders().map(Orders::status) else { return report };
        let acme = AcmeReport {
            failures: status.failures,
            next_in: seconds_until(status.next_at, now),
            ordering: status.ordering,
        };
        let names = if report.names.is_empty() { status.domains } else { report.names };
        let problem = report.problem.or(status.last_error);
        TlsReport { names, problem, acme: Some(acme), ..report }
    }

    /// What is wrong with the certificate or with getting it, if anything is.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Where the certificate comes from: `files`, `self-signed` or `acme`.
    pub fn source(&self) -> &'static str {
        match self.origin {
            Origin::Files { .. } => "files",
            Origin::SelfSigned { .. } => "self-signed",
            Origin::Authority(_) => "acme",
        }
    }

    /// Looks for a new certificate where this node's comes from; `at_once` if the operator asks for it.
    /// Reads files: not for the runtime's threads.
    fn look(&self, relay: &Relay, at_once: bool, round: u64) {
        match &self.origin {
            Origin::Files { cert, key, watched } => {
                let now = Duration::from_millis(relay.clock.wall().0);
                let found = read(cert, key).map_err(|error| error.to_string());
                let action = watched.lock().look(found, now, at_once);
                self.act(relay, action);
            }
            Origin::SelfSigned { folder, names } => {
                if at_once || round.is_multiple_of(ROUNDS_TO_RENEW) {
                    self.renew(relay, folder, names);
                }
            }
            Origin::Authority(_) => {} // its orders look after themselves
        }
    }

    fn act(&self, relay: &Relay, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Serve(chain) => {
                relay.metrics.tls.reloads.increment(1);
                tracing::info!(names = ?chain.names(), "serving the new certificate");
                self.served.set_chains(vec![chain]);
                self.set_problem(None);
            }
            Action::Back => self.set_problem(None),
            Action::Refuse(why) => {
                relay.metrics.tls.reload_failures.increment(1);
                tracing::error!(%why, "refused the new certificate: the old one is served still");
                self.set_problem(Some(why));
            }
        }
    }

    fn renew(&self, relay: &Relay, folder: &Path, names: &[String]) {
        match self_signed(folder, names, Duration::from_millis(relay.clock.wall().0)) {
            Ok(own) if own.is_new => {
                say_how_to_trust(&own);
                self.served.set_chains(vec![own.chain]);
                self.set_problem(None);
            }
            Ok(_) => self.set_problem(None),
            Err(error) => {
                tracing::error!(%error, "cannot renew the node's own certificate");
                self.set_problem(Some(error.to_string()));
            }
        }
    }

    fn first_end(&self) -> Option<Duration> {
        self.served.chains().iter().map(Chain::not_after).min()
    }

    /// What to say of the end of a certificate, if it is near.
    fn is_near_its_end(&self, now: Duration) -> bool {
        self.served.chains().iter().any(|chain| {
            let life = chain.not_after().saturating_sub(chain.not_before());
            chain.not_after().saturating_sub(now) < WARN_BEFORE.min(life / WARN_SHARE)
        })
    }
}

/// Looks for new certificates until it is stopped, every few seconds and whenever `reload` says so.
pub(crate) async fn keep_fresh(
    relay: Arc<Relay>,
    certificates: Arc<Certificates>,
    reload: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut tick = interval(ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut round, mut warned) = (0_u64, None);
    loop {
        let at_once = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => false,
            () = reload.notified() => true,
        };
        round += 1;
        if at_once && let Some(Err(error)) = try_now(&certificates).await {
            tracing::warn!(%error, "cannot order a certificate before its time");
        }
        let (looking, shared) = (Arc::clone(&certificates), Arc::clone(&relay));
        let looked = tokio::task::spawn_blocking(move || looking.look(&shared, at_once, round));
        if let Err(error) = looked.await {
            relay.metrics.panics.increment(1);
            tracing::error!(%error, "looking for a new certificate panicked: this is a bug");
        }
        warn_of_the_end(&relay, &certificates, &mut warned);
    }
}

/// Lets what an authority did not give be asked for again, if certificates come from one.
async fn try_now(certificates: &Certificates) -> Option<Result<(), ShelfError>> {
    Some(certificates.orders()?.try_now().await)
}

/// Says once a day that a certificate ends soon, or has.
fn warn_of_the_end(relay: &Relay, certificates: &Certificates, warned: &mut Option<Duration>) {
    let now = relay.clock.elapsed();
    if !certificates.is_near_its_end(Duration::from_millis(relay.clock.wall().0)) {
        *warned = None;
    } else if warned.is_none_or(|at| now.saturating_sub(at) >= WARN_EVERY) {
        *warned = Some(now);
        let hours = certificates.expires_in(relay.clock.wall()).unwrap_or_default() / 3_600;
        if hours > 0 {
            tracing::warn!(hours, "the certificate for agents expires soon: renew it");
        } else {
            tracing::error!("the certificate for agents expires now, or has: agents refuse it");
        }
    }
}

fn seconds_until(time: Duration, now: UnixMillis) -> i64 {
    let seconds = |millis: u64| i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
    seconds(UnixMillis::default().plus(time).0) - seconds(now.0)
}

fn read(cert: &Path, key: &Path) -> Result<Pair, CertificateError> {
    let failed = |variable, path: &Path, error: &io::Error| CertificateError::Unreadable {
        variable,
        path: path.to_owned(),
        why: error.to_string(),
    };
    let chain = fs::read(cert).map_err(|error| failed("TLS_CERT", cert, &error))?;
    let key = fs::read(key).map_err(|error| failed("TLS_KEY", key, &error))?;
    Ok(Pair { chain, key: Zeroizing::new(key) })
}

/// The names by which this node is likely to be reached: the certificate of its own making is for them.
fn own_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> =
        ["localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).collect();
    let bound = (!config.host.is_unspecified()).then(|| config.host.to_canonical().to_string());
    let host = gethostname::gethostname().to_string_lossy().to_ascii_lowercase();
    let is_name = |name: &String| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
    };
    let advertised = config.mesh.advertise.as_ref().map(|advertise| advertise.host.clone());
    for name in bound.into_iter().chain(Some(host).filter(is_name)).chain(advertised) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn say_how_to_trust(own: &SelfSigned) {
    let (file, names) = (own.certificate.display(), own.chain.names());
    if own.is_new {
        tracing::warn!(%file, "made a certificate of this node's own: agents must trust it anew");
    }
    tracing::info!(
        %file, ?names,
        "agents must trust the self-signed certificate: copy the file to them; arc-relay agent takes it \
         as --ca FILE or ARC_CA, curl as --cacert FILE, Node.js as NODE_EXTRA_CA_CERTS, Python as \
         ssl.create_default_context(cafile=FILE)"
    );
}

#[cfg(test)]
mod tests;
