//! Comparison of the northbound database with what should be in it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fiberlb_lab::run::run;
use fiberlb_lab::workspace_binary;

use crate::site::Site;

/// Longest time of the command.
const LIMIT: Duration = Duration::from_secs(60);

/// Says in words what differs; nothing if nothing does.
///
/// # Errors
/// It cannot be asked.
pub async fn northbound(site: &mut Site) -> Result<Option<String>> {
    let replica = site.replicas.first().context("there is no plugin")?;
    let mut command = site.client_host.command(&workspace_binary("fiberlb")?.to_string_lossy());
    command.args(["--endpoint", &replica.url(), "ovn", "verify"]);
    match run(command, LIMIT).await {
        Ok(_) => restart_writes_nothing(site).await,
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Plugins that start compare all that is stored with all that is there: if they write nothing, it was right.
async fn restart_writes_nothing(site: &mut Site) -> Result<Option<String>> {
    for replica in &mut site.replicas {
        replica.process_mut().kill()?;
    }
    for replica in &mut site.replicas {
        replica.process_mut().start_again().await?;
    }
    site.until_well().await?;
    let mut written = 0.0;
    for replica in &site.replicas {
        written += replica.metric("fiberlb_northbound_transactions_total{outcome=\"committed\"}").await?;
    }
    Ok((written > 0.0).then(|| format!("plugins wrote {written} transactions after a restart")))
}
