//! A wire to a unix socket that a test can cut.

use std::path::Path;

use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// Accepts connections at one path and forwards them to another, until it is dropped: then they break, as
/// when a machine dies.
pub(crate) struct Wire(JoinHandle<()>);

impl Wire {
    pub(crate) fn new(from: &Path, to: &Path) -> Self {
        let (listener, to) = (UnixListener::bind(from).unwrap(), to.to_owned());
        Self(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = UnixStream::connect(&to).await.unwrap();
                connections.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
            }
        }))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.abort();
    }
}
