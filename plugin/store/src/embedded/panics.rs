//! Panics of redb on pages that something else has damaged, turned into errors. Their own text must not stand before the
//! error's on standard error: an operator reads that first.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// True while a panic of this thread becomes an error.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// A panic; its text is in the log at debug level.
#[derive(Debug)]
pub(super) struct Panicked;

/// Runs `work`; a panic in it becomes an error.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if IS_CAUGHT.get() {
                tracing::debug!(%panic, "store file makes no sense");
            } else {
                before(panic);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(false);
    result.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_step_runs() {
        assert!(caught(|| panic!("damaged page")).is_err());
        assert_eq!(caught(|| 7).unwrap(), 7);
    }
}
