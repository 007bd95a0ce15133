//! The programs of this workspace, beside the running one.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

/// Path of a binary of this workspace, in the folder of the running program or, for tests, in the one above it.
///
/// # Errors
/// It is not built.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.exists());
    found.ok_or_else(|| anyhow!("{name} is not built: run `cargo build --workspace --bins` first"))
}
