//! `fiberlb-plugin`: the control plane of FiberLB.

use anyhow::Context as _;
use clap::Parser as _;
use fiberlb_daemon::signals::StopSignals;
use fiberlb_plugin::app;
use fiberlb_plugin::arguments::{Arguments, Command, StoreCommand};
use fiberlb_plugin::config::Config;
use fiberlb_plugin::leadership::LeaderRecord;
use fiberlb_plugin::resources::{STATUSES, leader_key, page_tokens_key};
use fiberlb_store as store;

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
    config.log.start()?;
    let signals = StopSignals::install().context("cannot handle signals")?;
    app::start(config).await?.run(signals.first()).await
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
