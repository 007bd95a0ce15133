//! TLS for listeners, from PEM files that may be replaced at any time (certificate rotation).
//!
//! [`Files::load`] builds a configuration from the files, and [`renew`] builds another one when they change; handshakes use the
//! newest. Established connections go on as they are.

mod expiry;
mod files;
mod renew;

pub use files::{FileError, Files, Loaded, Pem, admitted};
pub use renew::renew;
