//! Writes the state to disk, on a thread of its own, and not too often.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::file::Directory;
use super::stored::Memory;

/// Least interval of writes: a disk is not worn by a storm of flips.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after a failed write, as on a full disk.
const RETRY: Duration = Duration::from_secs(2);

/// Status of writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Successful writes.
    pub writes: u64,
    /// Failed writes.
    pub failures: u64,
    /// True if the last one failed: the disk is behind.
    pub is_behind: bool,
}

/// Writes to a directory. The last saved state is on disk when this has been dropped, unless the disk refuses
/// it.
#[derive(Debug)]
pub struct Writer {
    slot: Arc<Slot>,
    thread: Option<JoinHandle<()>>,
    written: watch::Receiver<Written>,
}

/// Place for one state: a disk that hangs costs no more memory, however often the state changes.
#[derive(Debug, Default)]
struct Slot {
    content: Mutex<SlotContent>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SlotContent {
    /// Newest state that is not being written yet.
    newest: Option<Memory>,
    /// No other one comes.
    is_closed: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the content, and wakes the thread. What was there is dropped outside of the lock.
    fn change(&self, change: impl FnOnce(&mut SlotContent) -> Option<Memory>) {
        let before = change(&mut self.lock());
        self.changed.notify_one();
        drop(before);
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn start(directory: Directory) -> io::Result<Self> {
        let slot = Arc::new(Slot::default());
        let (status, written) = watch::channel(Written::default());
        let work = Work { directory, slot: Arc::clone(&slot), status, not_before: Instant::now() };
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || work.run())?;
        Ok(Self { slot, thread: Some(thread), written })
    }

    /// Writes the state soon, unless a newer one comes before.
    pub fn save(&self, memory: Memory) {
        self.slot.change(|content| content.newest.replace(memory));
    }

    /// Status of writing.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<Written> {
        self.written.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.slot.change(|content| {
            content.is_closed = true;
            None
        });
        // A panic of the thread was logged when it happened.
        self.thread.take().map(JoinHandle::join);
    }
}

struct Work {
    directory: Directory,
    slot: Arc<Slot>,
    status: watch::Sender<Written>,
    not_before: Instant,
}

impl Work {
    fn run(mut self) {
        while let Some((memory, is_last)) = self.next() {
            self.write(memory);
            if is_last {
                return;
            }
        }
    }

    /// Waits for a state that may be written now; with true if no other one comes. `None`: none comes at all.
    fn next(&self) -> Option<(Memory, bool)> {
        let mut content = self.slot.lock();
        loop {
            let wait = self.not_before.saturating_duration_since(Instant::now());
            content = match (content.newest.is_some(), content.is_closed) {
                (false, true) => return None,
                (false, false) => self.slot.changed.wait(content).unwrap_or_else(PoisonError::into_inner),
                (true, false) if !wait.is_zero() => {
                    let waited = self.slot.changed.wait_timeout(content, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                (true, is_last) => return content.newest.take().map(|memory| (memory, is_last)),
            };
        }
    }

    fn write(&mut self, memory: Memory) {
        let result = self.directory.save(&memory);
        let was_behind = self.status.borrow().is_behind;
        match &result {
            Ok(()) if was_behind => tracing::info!("configuration on disk is current again"),
            Err(error) if !was_behind => {
                tracing::error!(%error, "cannot write the configuration to disk: a restart without the plugin would serve an old one");
            }
            _ => {}
        }
        let failed = result.is_err();
        self.status.send_modify(|written| {
            written.writes += u64::from(!failed);
            written.failures += u64::from(failed);
            written.is_behind = failed;
        });
        self.not_before = Instant::now() + if failed { RETRY } else { PAUSE };
        if failed {
            // Unless a newer one has come meanwhile.
            self.slot.lock().newest.get_or_insert(memory);
        }
    }
}
