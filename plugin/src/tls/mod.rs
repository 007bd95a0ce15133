//! TLS for listeners, from PEM files that may be replaced at any time (certificate rotation).
//!
//! [`Files::load`] builds a configuration from the files, [`renew`] builds another one when they change, and
//! [`handshakes`] uses the newest. Established connections go on as they are.

mod accept;
mod expiry;
mod files;
mod renew;

pub(crate) use accept::handshakes;
pub(crate) use files::{Files, Loaded, Pem};
pub(crate) use renew::renew;
