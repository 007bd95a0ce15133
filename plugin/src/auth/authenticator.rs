//! The one place where tokens and certificates will be checked.

use futures_util::future::{BoxFuture, FutureExt as _};
use thiserror::Error;

use super::Principal;

/// Credentials of one call, as an adapter found them on its wire.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Value of the `authorization` header or metadata, as sent.
    pub authorization: Option<String>,
}

/// Credentials that name nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unauthenticated(
    /// Sentence for the caller: what is missing or wrong.
    pub String,
);

/// Authenticates callers.
pub trait Authenticator: Send + Sync + 'static {
    /// Principal with these credentials. May ask others, such as an issuer of tokens.
    ///
    /// # Errors
    /// [`Unauthenticated`].
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, Unauthenticated>>;
}

/// Makes everybody who reaches the socket this principal.
#[derive(Clone, Debug)]
pub struct Local(
    /// The principal.
    pub Principal,
);

impl Authenticator for Local {
    fn authenticate<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Principal, Unauthenticated>> {
        async { Ok(self.0.clone()) }.boxed()
    }
}
