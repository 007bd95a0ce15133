//! `fiberlb-proxy`: the node agent of FiberLB.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use fiberlb_daemon::logs::print_faults;
use fiberlb_daemon::manual;
use fiberlb_daemon::program::{self, Failure, Variables};
use fiberlb_northbound::plan::Installation;
use fiberlb_proxy::arguments::{Arguments, Command};
use fiberlb_proxy::config::{Config, Overrides};
use fiberlb_proxy::disk::{Directory, Loaded};
use fiberlb_proxy::{app, network};
use uuid::Uuid;

fn main() -> ExitCode {
    program::end(carry_out(Arguments::parse()))
}

fn carry_out(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        None => {
            let config = Config::load(arguments.overrides.clone()).map_err(Failure::Unusable)?;
            run(serve(&config, arguments.overrides))?;
        }
        Some(Command::Cleanup { overrides, installation }) => {
            run(async { cleanup(&Config::load(overrides)?, installation).await })?;
        }
        Some(Command::Manual { directory }) => {
            manual::write(Arguments::command(), &directory).map_err(anyhow::Error::from)?;
        }
        Some(Command::Check { overrides }) => {
            let overrides = overrides.with_file_of_service();
            return Ok(print_faults(overrides.config.clone().as_deref(), &app::faults(overrides)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // For control alone: what tenants' traffic needs has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}

async fn serve(config: &Config, overrides: Overrides) -> anyhow::Result<()> {
    let variables = Variables { command: Arguments::command(), prefix: "FIBERLB_PROXY_", others: &[] };
    let file = overrides.file();
    let load = move || Config::load(overrides.clone()).map(|config| config.log);
    let signals = program::start(&config.log, file.as_deref(), &variables, load)?;
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
