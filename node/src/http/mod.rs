//! The relay over HTTP: who may register, who becomes a session, what operators read.

mod access_log;
mod admin;
mod body;
pub mod client_address;
mod cors;
mod dashboard;
mod document;
mod error;
mod landing;
mod ops;
mod other_sites;
mod page;
mod public;
mod redirect;
mod register;
mod upgrade;
mod watching;

pub use admin::AdminToken;
pub use error::ApiError;
pub use ops::ops_router;
pub use public::public_router;
pub use redirect::redirect_router;
