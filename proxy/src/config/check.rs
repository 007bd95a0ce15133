//! Validation of settings, each by itself and together.

use anyhow::ensure;
use fiberlb_daemon::names::is_name;
use fiberlb_daemon::settings::{at_least, in_range};

use super::Config;
use crate::link::PluginEndpoint;

/// Most worker threads: more than any machine has cores.
const MOST_WORKERS: usize = 1024;

/// Largest file of the access log, in MiB: a TiB.
const MOST_FILE_MIB: u64 = 1 << 20;

/// Most backends with series: two for each, so that a scrape stays within some MiB.
const MOST_BACKENDS: usize = 10_000;

/// Longest drain, in seconds: a day.
const MOST_DRAIN_S: u64 = 86_400;

impl Config {
    /// # Errors
    /// Names the key, its value, and what to do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// The first fault of each section, each with its key, its value, and what to do.
    #[must_use]
    pub fn faults(&self) -> Vec<anyhow::Error> {
        let checks = [
            self.check_node(),
            self.check_plugin(),
            self.check_network(),
            self.check_dataplane(),
            self.check_metrics(),
            self.log.check().map_err(Into::into),
            self.check_access_log(),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }

    fn check_node(&self) -> anyhow::Result<()> {
        self.node_id()?;
        let zone = &self.node.zone;
        ensure!(
            zone.is_empty() || is_name(zone),
            "node.zone is {zone:?}: give up to 64 letters, digits, '.', '_' or '-'"
        );
        Ok(())
    }

    fn check_plugin(&self) -> anyhow::Result<()> {
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
        Ok(())
    }

    fn check_access_log(&self) -> anyhow::Result<()> {
        let sample = self.access_log.sample;
        ensure!((0.0..=1.0).contains(&sample), "access_log.sample is {sample}: give a part, from 0 to 1");
        at_least("access_log.lines_per_second", self.access_log.lines_per_second, 1)?;
        self.otlp()?;
        Ok(in_range("access_log.max_file_mib", self.access_log.max_file_mib, &(1..=MOST_FILE_MIB))?)
    }

    fn check_dataplane(&self) -> anyhow::Result<()> {
        let workers = self.dataplane.workers.unwrap_or(1);
        in_range("dataplane.workers", workers, &(1..=MOST_WORKERS))?;
        at_least("dataplane.max_connections", self.dataplane.max_connections.unwrap_or(1), 1)?;
        Ok(in_range("dataplane.drain_timeout_s", self.dataplane.drain_timeout_s, &(0..=MOST_DRAIN_S))?)
    }

    fn check_metrics(&self) -> anyhow::Result<()> {
        in_range("metrics.backends", self.metrics.backends, &(0..=MOST_BACKENDS))?;
        Ok(self.metrics.connections.check("metrics.connections")?)
    }

    fn check_network(&self) -> anyhow::Result<()> {
        self.ovs()?;
        ensure!(
            !self.network.bridge.is_empty(),
            "network.bridge is empty: give the integration bridge's name"
        );
        Ok(())
    }
}
