//! Checks that settings can be used, and fit together.

use anyhow::{bail, ensure};
use fiberlb_daemon::names::is_name;
use fiberlb_daemon::settings::{at_least, in_range};
use fiberlb_northbound::plan::MAX_ROTATION;
use ovsdb::endpoint::Endpoint;

use super::{ApiSettings, Config, NorthboundSettings, StoreSettings};
use crate::api::Limits;
use crate::auth::Principal;
use crate::{fleet, reconcile};

/// An hour: longer than anybody waits, and far below what a clock can count.
const LONG_S: u64 = 3600;
const LONG_MS: u64 = LONG_S * 1000;
/// Least bound on a message from the northbound database, in bytes: twice what the reconciler changes at once.
const LEAST_MESSAGE: usize = 32 << 20;
/// Longest wait of a change for others, in milliseconds.
const GATHER_MS: u64 = 10_000;

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
            self.api.check(),
            self.store.check(),
            self.endpoints().and_then(|endpoints| self.northbound.check(&endpoints)),
            self.check_messages(),
            self.agents.check().and_then(|()| self.agents.check_heartbeat()).map_err(Into::into),
            self.metrics.connections.check("metrics.connections").map_err(Into::into),
            check_fleet(&self.fleet),
            check_reconcile(&self.reconcile),
            check_limits(&self.limits),
            check_principal(&self.principal),
            self.log.check().map_err(Into::into),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }
}

impl Config {
    /// Checks that what FiberLB itself writes at once fits in a message.
    fn check_messages(&self) -> anyhow::Result<()> {
        let (most, of_one) = (self.northbound.max_message_bytes, self.limits.vips_bytes_per_load_balancer);
        at_least("northbound.max_message_bytes", most, LEAST_MESSAGE)?;
        ensure!(
            of_one.saturating_mul(4) <= most as u64,
            "northbound.max_message_bytes is {most}, and limits.vips_bytes_per_load_balancer {of_one}: give at least four times \
             as much for a message"
        );
        Ok(())
    }
}

/// Most addresses of each family that a node has on one network.
const MOST_SOURCE_ADDRESSES: usize = 16;

fn check_fleet(fleet: &fleet::FleetSettings) -> anyhow::Result<()> {
    ensure!(
        fleet.nodes_per_network > 0,
        "fleet.nodes_per_network is 0: give at least 1, or set agents.listen to off"
    );
    ensure!(
        (1..=MOST_SOURCE_ADDRESSES).contains(&fleet.source_addresses),
        "fleet.source_addresses is {}: give 1 to {MOST_SOURCE_ADDRESSES}",
        fleet.source_addresses
    );
    ensure!(
        (1280..=65_535).contains(&fleet.mtu),
        "fleet.mtu is {}: give 1280 (the least that IPv6 needs) to 65535",
        fleet.mtu
    );
    Ok(())
}

fn check_reconcile(reconcile: &reconcile::ReconcileSettings) -> anyhow::Result<()> {
    in_range("reconcile.gather_ms", reconcile.gather_ms, &(0..=GATHER_MS))?;
    in_range("reconcile.flip_gather_ms", reconcile.flip_gather_ms, &(0..=GATHER_MS))?;
    at_least("reconcile.batch", reconcile.batch, 1)?;
    // Without backoff, a refused change would be retried in a tight loop, and nothing else done.
    in_range("reconcile.backoff_least_ms", reconcile.backoff_least_ms, &(1..=LONG_MS))?;
    Ok(in_range("reconcile.backoff_most_ms", reconcile.backoff_most_ms, &(1..=LONG_MS))?)
}

fn check_limits(limits: &Limits) -> anyhow::Result<()> {
    at_least("limits.message_bytes", limits.message_bytes, 1024)?;
    at_least("limits.list_entries", limits.list_entries, 1)?;
    at_least("limits.large_requests", limits.large_requests, 1)?;
    at_least("limits.default_page", limits.default_page, 1)?;
    // A VIP in OVN can have no more.
    in_range("limits.backends_per_pool", limits.backends_per_pool, &(0..=MAX_ROTATION))?;
    Ok(at_least("limits.max_page", limits.max_page, 1)?)
}

fn check_principal(principal: &Principal) -> anyhow::Result<()> {
    for (key, text) in [("org_id", &principal.org_id), ("project_id", &principal.project_id)] {
        ensure!(is_name(text), "principal.{key} is {text:?}: give 1 to 64 letters, digits, '.', '_' or '-'");
    }
    Ok(())
}

impl ApiSettings {
    fn check(&self) -> anyhow::Result<()> {
        self.connections.check("api.connections")?;
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            bail!("api.tls_certificate and api.tls_key belong together: give both or none");
        }
        let open = !self.listen.ip().is_loopback() && self.tls_certificate.is_none() && !self.insecure;
        ensure!(
            !open,
            "api.listen is {}, which is not a loopback address, and there is no TLS: give api.tls_certificate and api.tls_key, \
             or say api.insecure = true (--insecure) if everybody who reaches it may do everything",
            self.listen
        );
        Ok(())
    }
}

impl NorthboundSettings {
    fn check(&self, endpoints: &[Endpoint]) -> anyhow::Result<()> {
        ensure!(!endpoints.is_empty(), "northbound.endpoints is empty: give at least one");
        // At 0 a server would be dropped before it can answer.
        in_range("northbound.probe_s", self.probe_s, &(1..=LONG_S))?;
        in_range("northbound.timeout_s", self.timeout_s, &(1..=LONG_S))?;
        let files = [&self.tls_ca, &self.tls_certificate, &self.tls_key];
        let given = files.iter().filter(|file| file.is_some()).count();
        ensure!(
            given == 0 || given == files.len(),
            "northbound.tls_ca, northbound.tls_certificate and northbound.tls_key belong together: give all three or none"
        );
        let ssl = endpoints.iter().find(|endpoint| matches!(endpoint, Endpoint::Ssl { .. }));
        match ssl {
            Some(endpoint) if given == 0 => bail!(
                "northbound.endpoints has {endpoint}, and there are no certificates: give northbound.tls_ca, \
                 northbound.tls_certificate and northbound.tls_key"
            ),
            None if given > 0 => bail!(
                "northbound.tls_ca, northbound.tls_certificate and northbound.tls_key are for ssl: endpoints, and \
                 northbound.endpoints has none: leave them out, or give ssl:HOST:PORT"
            ),
            _ => Ok(()),
        }
    }
}

impl StoreSettings {
    /// # Errors
    /// Names the key, its value, and what to do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let text = self.path.to_string_lossy();
        if self.members().is_none() {
            ensure!(
                !text.contains("://"),
                "store.path is {text:?}: give a file, or chainfire://HOST:PORT,HOST:PORT,... for a cluster of ChainFire or \
                 etcd"
            );
            let cluster = [&self.tls_ca, &self.tls_certificate, &self.tls_key, &self.password_file];
            ensure!(
                self.user.is_none() && cluster.iter().all(|file| file.is_none()),
                "store.path is the file {text:?}, and store.tls_*, store.user and store.password_file are for a cluster: \
                 leave them out, or give chainfire://HOST:PORT,..."
            );
        }
        in_range("store.timeout_ms", self.timeout_ms, &(1..=LONG_MS))?;
        ensure!(
            self.tls_certificate.is_some() == self.tls_key.is_some(),
            "store.tls_certificate and store.tls_key belong together: give both or none"
        );
        ensure!(
            self.tls_ca.is_some() || self.tls_certificate.is_none(),
            "store.tls_certificate is given without store.tls_ca: give the CA of the members' certificates"
        );
        ensure!(
            self.user.is_some() == self.password_file.is_some(),
            "store.user and store.password_file belong together: give both or none"
        );
        ensure!(
            self.user.is_none() || self.tls_ca.is_some() || self.insecure,
            "store.user is given without store.tls_ca: its password would go over the network in clear; give the CA of the \
             members' certificates, or say store.insecure = true if nobody listens there"
        );
        Ok(())
    }
}
