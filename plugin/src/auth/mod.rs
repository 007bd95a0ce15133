//! Callers: their identity ([`Principal`], found by an [`Authenticator`]), and what they may do ([`authorize`]).
//!
//! Knows no wire: adapters collect [`Credentials`] of theirs.

mod authenticator;
mod authorize;
mod principal;

pub use authenticator::{Authenticator, Credentials, Local, Unauthenticated};
pub use authorize::{Denied, Object, Owner, Verb, authorize};
pub use principal::{Principal, Scope};
