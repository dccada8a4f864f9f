//! The book of names as one node kept it alone; goes away with those who use it.

pub(super) mod book;
pub(super) mod record;
pub(super) mod store;
pub(super) mod writer;
