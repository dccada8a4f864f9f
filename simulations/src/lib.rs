//! Whole clusters in one process under a seeded clock and network, and models of their scale.
//!
//! Nothing is here yet: a relay that stands alone has nothing distributed to simulate.
