//! Readiness: the parts of a process that are not of use yet, or not at the moment.

use std::pin::Pin;

/// Boxed future that may be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Part of a process that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// Name of the part, such as `store`.
    pub part: String,
    /// Reason, for people.
    pub reason: String,
}

impl Unready {
    /// Part with the reason why it is not ready.
    pub fn new(part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { part: part.into(), reason: reason.into() }
    }
}

/// Readiness of a process.
pub trait Readiness: Send + Sync + 'static {
    /// Parts that are not ready; none: the process is. Answers soon: whoever may have to wait for a part bounds that.
    fn unready(&self) -> BoxFuture<'_, Vec<Unready>>;
}
