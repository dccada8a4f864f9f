//! Who may speak: certificates for agents (ACME, files, self-signed) and the mesh's own authority.
//!
//! Nothing is here yet: a relay that stands alone serves plain `ws://` on loopback, or behind a
//! proxy that ends TLS. The crate exists so that the direction of dependencies (`node → tls`,
//! `cluster → tls`) is fixed from the first day.
