//! The checkout whose pages are run, and its binaries.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fiberlb_lab::workspace_binary;

/// This checkout.
pub(crate) fn repository() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no repository")
}

/// The folder of this workspace's binaries.
pub(crate) fn binaries() -> Result<PathBuf> {
    let folder = workspace_binary("fiberlb")?.parent().map(PathBuf::from);
    workspace_binary("fiberlb-plugin")?;
    workspace_binary("fiberlb-proxy")?;
    folder.context("the binaries have no folder")
}
