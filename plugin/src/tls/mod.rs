//! TLS for what listens, from PEM files that may be replaced at any time.
//!
//! [`Files::load`] makes a configuration of what the files hold, [`renew`] makes another one when they change, and
//! [`handshakes`] shakes hands with the newest. Connections that are established go on as they are.

mod accept;
mod expiry;
mod files;
mod renew;

pub(crate) use accept::handshakes;
pub(crate) use files::{Files, Loaded};
pub(crate) use renew::renew;

/// An error with what lies behind it: tonic's own says only that it is one, and others repeat their cause.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}
