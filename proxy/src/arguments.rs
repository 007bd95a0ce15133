//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use uuid::Uuid;

use crate::config::Overrides;

/// The node agent of FiberLB: plugs this node into tenants' networks, proxies what OVN cannot balance, and checks backends.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Settings of the agent.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Command in place of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands beside serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the settings, and the certificates, keys and passwords that they name, and print each fault; start nothing.
    Check {
        /// Settings of the agent.
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Remove the ports, links and namespaces that the agent has made on this node, while none runs; of the installation
    /// in `state.dir` unless one is given.
    Cleanup {
        /// Settings of the agent.
        #[command(flatten)]
        overrides: Overrides,
        /// Id of the installation; without it, the one in the state directory.
        #[arg(long, value_name = "UUID")]
        installation: Option<Uuid>,
    },
    /// Write manual pages and completions into a directory, for packages.
    #[command(hide = true)]
    Manual {
        /// Directory; it must be there.
        directory: PathBuf,
    },
}
