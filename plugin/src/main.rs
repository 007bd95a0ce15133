//! `fiberlb-plugin`: the control plane of FiberLB.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::Parser as _;
use fiberlb_plugin::app;
use fiberlb_plugin::arguments::{Arguments, Command, StoreCommand};
use fiberlb_plugin::config::{Config, LogFormat};
use fiberlb_plugin::leadership::LeaderRecord;
use fiberlb_plugin::resources::leader_key;
use fiberlb_store as store;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match arguments.command {
            None => serve(Config::load(arguments.overrides)?).await,
            Some(Command::Store(StoreCommand::Export { overrides, file })) => {
                export(&Config::load(overrides)?, &file).await
            }
            Some(Command::Store(StoreCommand::Import { overrides, file, replace })) => {
                import(&Config::load(overrides)?, &file, replace).await
            }
            Some(Command::AgentCa(command)) => Ok(command.run()?),
        }
    })
}

async fn serve(config: Config) -> anyhow::Result<()> {
    start_logs(&config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = app::start(config).await?;
    app.run(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}

fn start_logs(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter)
        .with_context(|| format!("log.filter is {:?}", config.log.filter))?;
    let colours = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match config.log.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

async fn export(config: &Config, file: &std::path::Path) -> anyhow::Result<()> {
    let source = app::open_store(&config.store).await?;
    // The leader's key belongs to this store alone, and is not permanent even there.
    let summary = store::export(&*source, file, &[leader_key()]).await?;
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
