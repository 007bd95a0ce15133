//! Threads of the API. They are not those of the rest: whatever clients ask for, leadership, nodes' heartbeats, verdicts and
//! the reconciler go on beside it.

use std::io;

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

/// Threads that run the API.
pub(crate) struct ApiThreads(Option<Runtime>);

impl ApiThreads {
    /// As many as there are processors.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self(Some(Builder::new_multi_thread().thread_name("api").enable_all().build()?)))
    }

    /// Makes what is opened meanwhile theirs.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }

    /// For tasks on them. `None`: they have ended.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// Runs a server on them to its end.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn run(
        self,
        server: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<()> {
        match &self.0 {
            Some(runtime) => runtime.spawn(server).await?,
            None => Ok(()),
        }
    }
}

impl Drop for ApiThreads {
    fn drop(&mut self) {
        // It may be dropped by a task, which must not wait for threads.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
