//! What was seen of a machine and of the network around it. Only facts: nothing here is good or bad.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use cluster::{NodeId, UnixMillis};

use super::super::tls::Finding as TlsFinding;
use crate::{report::ClusterReport, tls_report::ClusterTls};

/// All that was seen.
#[derive(Debug)]
pub(super) struct Facts {
    /// When, by the clock of this machine.
    pub(super) at: UnixMillis,
    pub(super) ports: Vec<Port>,
    /// `MAX_CONNECTIONS`.
    pub(super) max_connections: usize,
    /// Whether agents connect by TLS.
    pub(super) encrypted: bool,
    /// How many files a process started here may have open.
    pub(super) file_limit: u64,
    /// The largest receive and send buffer that a UDP socket may have, in bytes; none if the system does
    /// not say.
    pub(super) buffers: Option<(u64, u64)>,
    pub(super) memory: Memory,
    pub(super) disk: Disk,
    /// The operator's certificate for agents; none if it comes from elsewhere.
    pub(super) certificate: Option<Certificate>,
    pub(super) mesh: Mesh,
    /// How many characters `REGISTRATION_KEY` has, and how many different ones; none if it is not set.
    pub(super) registration_key: Option<(usize, usize)>,
    /// The secrets that are set.
    pub(super) secrets: Vec<SecretSetting>,
    pub(super) names: Vec<Name>,
    pub(super) seeds: Vec<Seed>,
    /// The authority that gives certificates; none if none does.
    pub(super) authority: Option<Authority>,
    /// `NODE_NAME`.
    pub(super) node_name: String,
    pub(super) node: Node,
}

/// A port that the node wants.
#[derive(Debug)]
pub(super) struct Port {
    /// The variable that sets it.
    pub(super) variable: &'static str,
    /// The variable that sets its address.
    pub(super) host: &'static str,
    pub(super) address: SocketAddr,
    /// UDP, or TCP.
    pub(super) udp: bool,
    /// What became of an attempt to have it.
    pub(super) tried: Result<(), io::ErrorKind>,
}

/// Memory that there is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// The machine's; none if the system does not say.
    pub(super) total: Option<u64>,
    /// What this control group may have; none if it may have all.
    pub(super) limit: Option<u64>,
}

/// The data directory.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    /// Whether it is there.
    pub(super) exists: bool,
    /// Why it, or the folder that it is to be made in, cannot be written; none if it can.
    pub(super) refused: Option<String>,
    /// Bytes that are free for users; none if the system does not say.
    pub(super) free: Option<u64>,
    /// Files that can be made still; none if the file system has no such limit.
    pub(super) free_files: Option<u64>,
    /// Its permission bits.
    pub(super) mode: u32,
    /// Its files that others may read, by name.
    pub(super) open_files: Vec<String>,
    /// Its files that belong to somebody else than it does, by name.
    pub(super) foreign_files: Vec<String>,
    /// Whether it belongs to another user than the one who asks.
    pub(super) is_anothers: bool,
}

/// The operator's certificate for agents.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Whether others may read the key.
    pub(super) key_is_open: bool,
    /// From when until when it is good, and for whom; or what is wrong.
    pub(super) read: Result<Validity, String>,
}

/// From when until when a certificate is good, as time since 1970.
#[derive(Clone, Debug)]
pub(super) struct Validity {
    pub(super) not_before: Duration,
    pub(super) not_after: Duration,
    pub(super) names: Vec<String>,
}

/// What makes this node one of its cluster.
#[derive(Clone, Debug)]
pub(super) enum Mesh {
    /// Nothing: it stands alone.
    None,
    /// `CLUSTER_SECRET`.
    Secret {
        /// Whether there is a former one beside it.
        previous: bool,
    },
    /// Files: until when the certificate is good, as time since 1970; or what is wrong.
    Files(Result<Duration, String>),
}

/// Where a secret is set.
#[derive(Debug)]
pub(super) struct SecretSetting {
    pub(super) variable: &'static str,
    /// `flag --…`, `environment`, `.env:3`, or a file's name.
    pub(super) origin: String,
    /// Whether that is a file which others may read.
    pub(super) is_open: bool,
}

/// A name that must be found.
#[derive(Debug)]
pub(super) struct Name {
    /// The variable that has it.
    pub(super) variable: &'static str,
    /// The name itself.
    pub(super) text: String,
    /// How many addresses it has, or why it has none.
    pub(super) found: Result<usize, String>,
}

/// A node to start from.
#[derive(Debug)]
pub(super) struct Seed {
    /// As it is written.
    pub(super) text: String,
    pub(super) met: Met,
    /// What time it is there; none if it does not say.
    pub(super) clock: Option<Clocks>,
}

/// What time it was at two places at once, in Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) here: u64,
    pub(super) there: u64,
}

/// What became of an attempt to meet a node.
#[derive(Debug)]
pub(super) enum Met {
    /// It is this node's own place.
    Own,
    /// Its name is not found.
    NotFound,
    /// It answered, and each believes the other.
    Answered { node: NodeId, rtt: Duration },
    /// It is of another cluster.
    Distrusted,
    /// A certificate is not good at this time.
    Expired,
    /// Nobody answered, or not as a node does.
    Silent(String),
    /// It could not be tried: this node has no certificate to show.
    Untried,
}

/// The authority that gives certificates.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) directory: String,
    /// What time it is there, in Unix milliseconds; or why it does not say.
    pub(super) clock: Result<Option<u64>, String>,
}

/// The node that runs at the configured ops port.
#[derive(Debug)]
pub(super) enum Node {
    /// The ops port is left to the system: nobody knows where to look.
    Unknown,
    /// Nobody is there.
    Stopped,
    /// Somebody is there who does not answer as a relay does.
    Stranger(String),
    /// It runs.
    Running(Box<Running>),
}

/// A node that runs, as it says.
#[derive(Debug)]
pub(super) struct Running {
    /// What `/health` says of itself.
    pub(super) health: String,
    /// What it waits for.
    pub(super) waiting: Option<String>,
    /// What `/ready` says.
    pub(super) ready: String,
    /// How it sees the cluster.
    pub(super) cluster: ClusterReport,
    /// What all nodes say of TLS, and what time it is there; none if it does not say.
    pub(super) tls: Option<ClusterTls>,
    /// When that was asked, in Unix milliseconds.
    pub(super) asked_at: u64,
    /// What `arc-relay tls check` finds; none if agents connect without TLS, or it could not look.
    pub(super) certificates: Option<Vec<TlsFinding>>,
}
