//! `fiberlb-plugin`: the control plane of FiberLB.

use std::ffi::{c_int, c_long};
use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use fiberlb_daemon::logs::print_faults;
use fiberlb_daemon::manual;
use fiberlb_daemon::program::{self, Failure, Variables};
use fiberlb_plugin::app;
use fiberlb_plugin::arguments::{Arguments, Command, StoreCommand};
use fiberlb_plugin::config::{Config, Overrides};
use fiberlb_plugin::leadership::LeaderRecord;
use fiberlb_plugin::resources::{STATUSES, leader_key, page_tokens_key};
use fiberlb_store as store;
use nix::sys::prctl;

/// A write allocates some thousand small objects on several threads, which this does in two thirds of the C library's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    unsafe_code,
    reason = "the allocator's own function, which its crate does not have without another dependency"
)]
unsafe extern "C" {
    /// Sets an option (mimalloc.h). It has no pointers, and may be called at any time.
    safe fn mi_option_set(option: c_int, value: c_long);
}

/// Option for the time in milliseconds after which freed memory goes back to the kernel (`mi_option_purge_delay`).
const PURGE_DELAY: c_int = 15;
/// By default it is a second, in which all stays that was needed to read the store and the northbound database, a third of what the
/// process has; none would cost a tenth of the time of a write.
const PURGE_DELAY_MS: c_long = 100;

/// Beginnings of variables of the node agent and of the command `fiberlb`, which may be set for all programs of a machine.
const OTHERS: [&str; 5] =
    ["FIBERLB_PROXY_", "FIBERLB_ENDPOINT", "FIBERLB_CA_CERT", "FIBERLB_CLIENT_", "FIBERLB_TIMEOUT"];

fn main() -> ExitCode {
    mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
    // A huge page that was released is zeroed as a whole when it is used again, and is held for whatever little is in it. A
    // kernel that refuses costs no more than that.
    let _ = prctl::set_thp_disable(true);
    program::end(carry_out(Arguments::parse()))
}

fn carry_out(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        None => {
            let config = Config::load(arguments.overrides.clone()).map_err(Failure::Unusable)?;
            run(serve(config, arguments.overrides))?;
        }
        Some(Command::Store(StoreCommand::Export { overrides, file })) => {
            run(async { export(&Config::load(overrides)?, &file).await })?;
        }
        Some(Command::Store(StoreCommand::Import { overrides, file, replace })) => {
            run(async { import(&Config::load(overrides)?, &file, replace).await })?;
        }
        Some(Command::AgentCa(command)) => command.run().map_err(anyhow::Error::from)?,
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}

async fn serve(config: Config, overrides: Overrides) -> anyhow::Result<()> {
    let variables = Variables { command: Arguments::command(), prefix: "FIBERLB_", others: &OTHERS };
    let file = overrides.file();
    let load = move || Config::load(overrides.clone()).map(|config| config.log);
    let signals = program::start(&config.log, file.as_deref(), &variables, load)?;
    let mut stop = pin!(signals.first());
    // Where the store is not reached, the start waits for it.
    let app = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        app = app::start(config) => app?,
    };
    app.run(stop).await
}

async fn export(config: &Config, file: &std::path::Path) -> anyhow::Result<()> {
    let source = app::open_store(&config.store).await?;
    // The leader's key is not permanent, statuses belong to revisions of this store, and backups must hold no secret:
    // another one is made.
    let without = [leader_key(), page_tokens_key(), STATUSES.to_owned()];
    let summary = store::export(&*source, file, &without).await?;
    source.close().await;
    println!(
        "exported {} keys at revision {} from {} to {}",
        summary.keys,
        summary.revision,
        config.store.path.display(),
        file.display()
    );
    Ok(())
}

async fn import(config: &Config, file: &std::path::Path, replace: bool) -> anyhow::Result<()> {
    let target = app::open_store(&config.store).await?;
    if let Some(leader) = target.get(&leader_key()).await? {
        let host = LeaderRecord::decode(&leader.value)
            .map_or_else(|| "another machine".to_owned(), |record| record.host);
        anyhow::bail!(
            "a plugin on {host} works on the store {}: stop all plugins on it, wait some seconds, and import then",
            config.store.path.display()
        );
    }
    let mode = if replace { store::ImportMode::Replace } else { store::ImportMode::IntoEmpty };
    let summary = store::import(&*target, file, mode, &leader_key()).await?;
    target.close().await;
    println!("imported {} keys from {} into {}", summary.keys, file.display(), config.store.path.display());
    Ok(())
}
