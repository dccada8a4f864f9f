//! Who may speak: certificates for agents (ACME, files, self-signed) and the mesh's own authority.
//!
//! [`mesh`] says which nodes belong to one cluster, [`agents`] what agents are shown and by which
//! rules TLS is spoken with them. Reads no clock; only [`acme`] opens sockets and logs; `node` and `cluster`
//! use it, never the other way round.

pub mod acme;
pub mod agents;
pub mod mesh;
