//! Who may speak: certificates for agents (ACME, files, self-signed) and the mesh's own authority.
//!
//! [`mesh`] says which nodes belong to one cluster. Agents' certificates are not here yet: a relay
//! serves plain `ws://` on loopback, or behind a proxy that ends TLS. Opens no socket and keeps no
//! file; `node` and `cluster` use it, never the other way round.

pub mod mesh;
