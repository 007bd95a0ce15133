//! A CA for node agents and the plugins that they connect to, made by `fiberlb-plugin agent-ca`. Its files are in the lab.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::workspace_binary;
use crate::world::World;
use anyhow::{Context as _, Result, ensure};

/// Folder of the CA's files, in the lab.
const FOLDER: &str = "/run/host";

/// A CA with its files, for processes that run in the lab.
#[derive(Debug)]
pub struct Authority {
    /// The same folder as this machine reaches it.
    dir: PathBuf,
}

impl Authority {
    /// Makes a CA, and a certificate for plugins at these addresses.
    ///
    /// # Errors
    /// The plugin's binary is not built, or refuses.
    pub fn new(world: &World, plugins: &[IpAddr]) -> Result<Self> {
        let dir = world.path(FOLDER);
        let mut arguments = vec!["init".to_owned(), "ca".to_owned()];
        for plugin in plugins {
            arguments.extend(["--name".to_owned(), plugin.to_string()]);
        }
        agent_ca(&dir, &arguments)?;
        Ok(Self { dir })
    }

    /// The arguments by which a plugin uses the certificate.
    #[must_use]
    pub fn plugin_arguments(&self) -> Vec<String> {
        let files = [
            ("--agents-tls-certificate", "server.pem"),
            ("--agents-tls-key", "server.key"),
            ("--agents-client-ca", "ca.pem"),
        ];
        arguments("ca", files)
    }

    /// Makes a certificate for a node, and gives the arguments by which its agent uses it.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn node_arguments(&self, id: &str) -> Result<Vec<String>> {
        agent_ca(&self.dir, &["issue", "--ca", "ca", id, id].map(str::to_owned))?;
        let files = [("--tls-ca", "ca.pem"), ("--tls-certificate", "node.pem"), ("--tls-key", "node.key")];
        Ok(arguments(id, files))
    }
}

fn arguments(folder: &str, files: [(&str, &str); 3]) -> Vec<String> {
    let pair = |(option, file): (&str, &str)| [option.to_owned(), format!("{FOLDER}/{folder}/{file}")];
    files.into_iter().flat_map(pair).collect()
}

fn agent_ca(dir: &Path, arguments: &[String]) -> Result<()> {
    let mut command = Command::new(workspace_binary("fiberlb-plugin")?);
    let made = command.arg("agent-ca").args(arguments).current_dir(dir).output();
    let made = made.context("cannot run fiberlb-plugin agent-ca")?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "fiberlb-plugin agent-ca {}: {said}", arguments.join(" "));
    Ok(())
}
