//! Writes the state to disk, on a thread of its own, and not too often.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
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
    states: Option<Sender<Memory>>,
    thread: Option<JoinHandle<()>>,
    written: watch::Receiver<Written>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn start(directory: Directory) -> io::Result<Self> {
        let (states, inbox) = channel();
        let (status, written) = watch::channel(Written::default());
        let work = Work { directory, inbox, status, newest: None, not_before: Instant::now() };
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || work.run())?;
        Ok(Self { states: Some(states), thread: Some(thread), written })
    }

    /// Writes the state soon, unless a newer one comes before.
    pub fn save(&self, memory: Memory) {
        if let Some(states) = &self.states {
            // The thread is there until this is dropped.
            let _ = states.send(memory);
        }
    }

    /// Status of writing.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<Written> {
        self.written.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.states.take());
        // A panic of the thread was logged when it happened.
        self.thread.take().map(JoinHandle::join);
    }
}

struct Work {
    directory: Directory,
    inbox: Receiver<Memory>,
    status: watch::Sender<Written>,
    /// State to be written.
    newest: Option<Memory>,
    not_before: Instant,
}

impl Work {
    fn run(mut self) {
        loop {
            match self.receive() {
                Ok(memory) => self.newest = Some(memory),
                Err(RecvTimeoutError::Timeout) => self.write(),
                Err(RecvTimeoutError::Disconnected) => return self.write(),
            }
        }
    }

    fn receive(&self) -> Result<Memory, RecvTimeoutError> {
        if self.newest.is_none() {
            return self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        self.inbox.recv_timeout(self.not_before.saturating_duration_since(Instant::now()))
    }

    fn write(&mut self) {
        let Some(memory) = self.newest.take() else { return };
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
        self.newest = failed.then_some(memory);
    }
}
