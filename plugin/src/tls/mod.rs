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

/// An error with its causes: tonic's own text says only that it is one, and others repeat their cause.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}
