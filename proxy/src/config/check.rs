//! Whether settings can be used, and fit together.

use anyhow::ensure;
use fiberlb_daemon::names::is_name;
use fiberlb_daemon::settings::{at_least, in_range};

use super::Config;
use crate::link::PluginEndpoint;

/// Most worker threads: more than any machine has cores.
const MOST_WORKERS: usize = 1024;

/// Longest drain, in seconds: a day.
const MOST_DRAIN_S: u64 = 86_400;

impl Config {
    /// # Errors
    /// Names the key, its value, and what to do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.node_id()?;
        let zone = &self.node.zone;
        ensure!(
            zone.is_empty() || is_name(zone),
            "node.zone is {zone:?}: give up to 64 letters, digits, '.', '_' or '-'"
        );
        self.metrics.connections.check("metrics.connections")?;
        self.ovs()?;
        ensure!(!self.plugin.endpoints.is_empty(), "plugin.endpoints is empty: give at least one");
        let endpoints = self.plugin_endpoints()?;
        for (at, endpoint) in endpoints.iter().enumerate() {
            let is_twice = endpoints.iter().take(at).any(|earlier| earlier == endpoint);
            ensure!(!is_twice, "plugin.endpoints has {endpoint} twice: give each plugin once");
        }
        let is_https = |endpoint: &PluginEndpoint| matches!(endpoint, PluginEndpoint::Https { .. });
        let tls = self.tls()?;
        ensure!(
            tls.is_some() || !endpoints.iter().any(is_https),
            "an https endpoint needs plugin.tls_ca, plugin.tls_certificate and plugin.tls_key: \
             `fiberlb-plugin agent-ca issue` makes the files"
        );
        ensure!(
            tls.is_none() || endpoints.iter().any(is_https),
            "plugin.tls_* are set, but no endpoint is https: remove them, or connect to https://HOST:PORT"
        );
        let workers = self.dataplane.workers.unwrap_or(1);
        in_range("dataplane.workers", workers, &(1..=MOST_WORKERS))?;
        at_least("dataplane.max_connections", self.dataplane.max_connections.unwrap_or(1), 1)?;
        in_range("dataplane.drain_timeout_s", self.dataplane.drain_timeout_s, &(0..=MOST_DRAIN_S))?;
        ensure!(
            !self.network.bridge.is_empty(),
            "network.bridge is empty: give the integration bridge's name"
        );
        Ok(())
    }
}
