//! Agents' TLS: which certificates a node serves, and by which rules it speaks.
//!
//! [`Served`] is what is shown to whom: [`Chain`]s by name, and the answers to an ACME authority's
//! challenges. It is shared, and changed while connections go on. Where a chain comes from is
//! somebody else's business: the operator's files, an authority, or [`self_signed`]. [`server_config`]
//! is the one set of rules, and there is nothing in it to weaken. [`Seen`] is what a client gets of all
//! that.

mod chain;
mod config;
mod description;
mod seen;
mod self_signed;
mod served;

pub use self::{
    chain::{Chain, ChainError},
    config::{HTTP_1_1, server_config},
    description::Description,
    seen::{Distrust, Seen, add_pem, web_roots},
    self_signed::{SelfSigned, SelfSignedError, self_signed},
    served::{ACME_TLS, CannotAnswer, Served},
};

#[cfg(test)]
mod tests;
