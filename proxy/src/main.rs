//! `fiberlb-proxy`: the node agent of FiberLB.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use fiberlb_daemon::logs::{print_failure, print_faults};
use fiberlb_daemon::signals::{ReloadSignal, StopSignals};
use fiberlb_daemon::{manual, settings};
use fiberlb_northbound::plan::Installation;
use fiberlb_proxy::arguments::{Arguments, Command};
use fiberlb_proxy::config::{Config, Overrides};
use fiberlb_proxy::disk::{Directory, Loaded};
use fiberlb_proxy::{app, network};
use uuid::Uuid;

/// Exit status for settings that cannot be right, as clap has it for the command line: systemd does not start it again.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None => match Config::load(arguments.overrides.clone()) {
            Ok(config) => run(serve(&config, arguments.overrides)),
            Err(error) => {
                print_failure(&format!("{error:#}"));
                return ExitCode::from(UNUSABLE);
            }
        },
        Some(Command::Check { overrides }) => {
            let overrides = overrides.with_file_of_service();
            return print_faults(overrides.config.clone().as_deref(), &app::faults(overrides));
        }
        Some(Command::Cleanup { overrides, installation }) => {
            run(async { cleanup(&Config::load(overrides)?, installation).await })
        }
        Some(Command::Manual { directory }) => {
            manual::write(Arguments::command(), &directory).map_err(anyhow::Error::from)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
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
    let logs = config.log.start()?;
    settings::log_source(overrides.file().as_deref());
    settings::log_unknown_variables(&Arguments::command(), "FIBERLB_PROXY_", &[]);
    let reload = ReloadSignal::install().context("cannot handle signals")?;
    let load = move || match Config::load(overrides.clone()) {
        Ok(config) => Ok(config.log),
        Err(error) => Err(format!("{error:#}")),
    };
    tokio::spawn(logs.reload_on(reload, load));
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
