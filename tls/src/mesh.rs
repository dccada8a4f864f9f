//! The mesh's identity: who is a node of this cluster, and which one.
//!
//! A cluster has one authority, whose key is derived from the cluster's [`Secret`], or kept by the
//! operator who hands out [files](MeshFiles). Every node has a certificate of it that names the node.
//! [`MeshIdentity`] makes the two sides' TLS configurations: TLS 1.3 alone, both sides show a
//! certificate, and no other authority is believed. What a peer says of itself must match what
//! [`node_of`] reads in its certificate; this module does not see what peers say.

mod certificate;
mod choice;
mod files;
mod identity;
mod secret;

pub use self::{
    certificate::{NodeNameError, node_name, node_of},
    files::MeshFiles,
    identity::{IdentityError, KeyExchange, MeshIdentity, Wall},
    secret::{Secret, SecretError, derive},
};

/// The protocol that both sides name in the handshake (RFC 7301). Another number is another mesh.
pub const ALPN: &[u8] = b"arc-mesh/1";

/// The name that every node's certificate carries, and that dialers ask for.
pub const SERVER_NAME: &str = "mesh.arc-relay.internal";

#[cfg(test)]
mod tests;
