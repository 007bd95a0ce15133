//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::agents::certificates::AgentCaCommand;
use crate::config::Overrides;

/// The control plane of FiberLB: serves the gRPC API, keeps what tenants ask for, and carries it out in OVN.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Settings of the plugin.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Subcommand; without one the plugin serves.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands other than serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the settings, and the certificates, keys and passwords that they name, and print each fault; start nothing.
    Check {
        /// Settings of the plugin.
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Work on the store while no plugin runs on it.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make certificates for the plugin and its node agents.
    #[command(subcommand)]
    AgentCa(AgentCaCommand),
    /// Write manual pages and completions into a directory, for packages.
    #[command(hide = true)]
    Manual {
        /// Directory; it must be there.
        directory: PathBuf,
    },
}

/// Commands on the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Write all that the store holds to a file, at one revision.
    Export {
        /// Settings of the plugin.
        #[command(flatten)]
        overrides: Overrides,
        /// File to write; replaced whole, or left as it was.
        file: PathBuf,
    },
    /// Read an export, wholly or not at all, into an empty store or, with `--replace`, in place of what is there.
    Import {
        /// Settings of the plugin.
        #[command(flatten)]
        overrides: Overrides,
        /// File that an export wrote.
        file: PathBuf,
        /// Replace what the store holds. Without it, a store that holds anything is refused.
        #[arg(long)]
        replace: bool,
    },
}
