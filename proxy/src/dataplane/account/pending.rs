//! Bytes that a thread has counted, until it adds them to counters that all threads share.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Bytes after which counters are updated although the connection goes on, so that those of a long transfer move.
const FLUSH_BYTES: usize = 1024 * 1024;

/// Adds bytes, and those that are pending to the counters if they are many.
pub(super) fn add<const N: usize>(pending: &Cell<usize>, bytes: usize, counters: [Option<&AtomicU64>; N]) {
    let sum = pending.get().saturating_add(bytes);
    pending.set(sum);
    if sum >= FLUSH_BYTES {
        flush(pending, counters);
    }
}

/// Adds what is pending to the counters, such as those of the listener and of the backend.
pub(super) fn flush<const N: usize>(pending: &Cell<usize>, counters: [Option<&AtomicU64>; N]) {
    let sum = pending.take() as u64;
    for counter in counters.into_iter().flatten() {
        counter.fetch_add(sum, Relaxed);
    }
}
