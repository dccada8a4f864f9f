//! Certificates from an ACME authority (RFC 8555), for many nodes under one name.
//!
//! Everything that must outlive a node, or be known to all, lies on a [`Shelf`]: the account, the order
//! under way, the answers to its challenges, the certificate. Every node serves what it finds there; one
//! node at a time, the shelf's leader, [orders](Orders). A leader that is lost leaves nothing behind
//! that the next could not carry on. When to order and how long to wait after a failure is decided in
//! `plan`, which is pure.

mod http;
mod keeper;
mod order;
mod plan;
mod record;
mod shelf;

use std::{fmt, path::PathBuf};

use zeroize::Zeroizing;

pub use self::{
    http::ClientError,
    keeper::{Orders, Status},
    shelf::{MemoryShelf, Shelf, ShelfError, Value},
};

/// Let's Encrypt, whose certificates every client trusts.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What an authority is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The host names, in small letters, without wildcards; at least one. One certificate has them all.
    pub domains: Vec<String>,
    /// Whom the authority writes to when something is wrong; none if nobody.
    pub email: Option<String>,
    /// The authority's directory, an https URL.
    pub directory: String,
    /// The file, read at the start, of the only authority that may vouch for the directory's own
    /// certificate, PEM; none: those that browsers trust.
    pub ca_root: Option<PathBuf>,
    /// The account at the authority's operator, where one is asked for (RFC 8555, section 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// The kind of proof that is offered.
    pub challenge: Challenge,
}

/// An account that somebody has at the authority's operator already.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its name.
    pub kid: String,
    /// The key that they gave.
    pub hmac: Zeroizing<Vec<u8>>,
}

/// How a node proves that it is reached under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Challenge {
    /// By a TLS handshake on port 443 (RFC 8737).
    #[default]
    TlsAlpn01,
    /// By a file on port 80 (RFC 8555, section 8.3).
    Http01,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}
