//! Runs a test where a lab can be had.

use fiberlb_lab::can_run;

/// Runs a test, unless [`can_run`] says otherwise.
pub(crate) async fn scenario<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if can_run(test) {
        body().await;
    }
}
