//! TLS for listeners, from PEM files that may be replaced at any time (certificate rotation).
//!
//! [`Files::load`] builds a configuration from the files, and [`renew`] builds another one when they change; handshakes use the
//! newest. Established connections go on as they are, but for those of clients whose certificate is revoked
//! ([`Loaded::is_revoked`]).

mod expiry;
mod files;
mod renew;
mod revocation;

pub(crate) use expiry::{Content, expiry};
pub use files::{ClientFiles, FileError, Files, Loaded, Pem, admitted};
pub use renew::renew;
pub(crate) use revocation::until_revoked;
