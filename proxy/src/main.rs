//! `fiberlb-proxy`: the node agent of FiberLB.

use anyhow::Context as _;
use clap::Parser as _;
use fiberlb_daemon::signals::StopSignals;
use fiberlb_northbound::plan::Installation;
use fiberlb_proxy::arguments::{Arguments, Command};
use fiberlb_proxy::config::Config;
use fiberlb_proxy::disk::{Directory, Loaded};
use fiberlb_proxy::{app, network};
use uuid::Uuid;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // For control alone: what tenants' traffic needs has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match arguments.command {
            None => serve(&Config::load(arguments.overrides)?).await,
            Some(Command::Cleanup { overrides, installation }) => {
                cleanup(&Config::load(overrides)?, installation).await
            }
        }
    })
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    config.log.start()?;
    let signals = StopSignals::install().context("cannot handle signals")?;
    app::start(config).await?.run(signals.first()).await
}

async fn cleanup(config: &Config, installation: Option<Uuid>) -> anyhow::Result<()> {
    // Held to the end: no agent may start meanwhile.
    let directory = Directory::open(&config.state.dir)?;
    let installation = match installation {
        Some(installation) => installation,
        None => remembered(&directory)?,
    };
    let (netns, ovs, bridge) = (&config.network.netns_dir, config.ovs()?, &config.network.bridge);
    let removed = network::cleanup(Installation(installation), netns, ovs, bridge).await?;
    directory.forget()?;
    println!("removed {} namespaces of installation {installation}", removed.namespaces);
    anyhow::ensure!(
        removed.ports,
        "Open vSwitch's database {} does not answer: ports of the installation stay there; start it and clean up again \
         with --installation {installation}",
        config.network.ovs_db
    );
    Ok(())
}

fn remembered(directory: &Directory) -> anyhow::Result<Uuid> {
    match directory.load()? {
        Loaded::Memory(memory) => Ok(memory.installation),
        Loaded::Nothing | Loaded::Damaged { .. } => {
            anyhow::bail!(
                "the state directory does not tell whose things are to be removed: give --installation"
            )
        }
    }
}
