//! A site under traffic, and the claims that are proven on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fiberlb_lab::logs;
use fiberlb_proto::v1;
use serde_json::{Map, Value};

use crate::builds::{Build, Builds};
use crate::report::Report;
use crate::site::{Releases, Site};
use crate::traffic::Traffic;
use crate::trees::{self, is_active, shown};

/// A site with load balancers on it, and traffic through one of them.
#[derive(Debug)]
pub(crate) struct UpgradeTest {
    /// All that runs.
    pub(crate) site: Site,
    /// Clients of the target.
    pub(crate) traffic: Traffic,
    /// Id of the load balancer that clients connect through.
    pub(crate) target: String,
    /// Ids of all load balancers that stay.
    pub(crate) ids: Vec<String>,
}

/// State of an installation, to be compared with a later one.
#[derive(Debug)]
pub(crate) struct Snapshot {
    rows: BTreeSet<String>,
    shown: BTreeSet<String>,
    committed: Vec<f64>,
}

impl UpgradeTest {
    /// Starts a site, its load balancers and traffic.
    ///
    /// # Errors
    /// Something does not work from the beginning.
    pub(crate) async fn open(name: &str, builds: &Builds, releases: Releases) -> Result<Self> {
        let site = Box::pin(Site::start(name, builds, releases)).await?;
        let mut ids = Vec::new();
        let network = site.network;
        for (number, tree) in
            [trees::target(network), trees::direct(network), trees::varied(network)].into_iter().enumerate()
        {
            ids.push(apply(&site, number % site.count(), tree).await?);
        }
        let target = ids.first().context("there is no shop")?.clone();
        for plugin in 0..site.count() {
            for id in &ids {
                serves(&site, plugin, id).await?;
            }
        }
        let committed: f64 = site.committed().await?.iter().sum();
        ensure!(committed > 0.0, "plugins do not count what they write to OVN");
        site.lab.wait_for_sync().await?;
        let traffic = Traffic::start(&site.client)?;
        traffic.reaches(&["b1", "b2"]).await?;
        traffic.check().await?;
        Ok(Self { site, traffic, target, ids })
    }

    /// Proves a claim, during and after which no connection may have failed.
    ///
    /// # Errors
    /// It does not hold, or a connection failed.
    pub(crate) async fn proves(
        &mut self,
        report: &mut Report,
        claim: &str,
        proof: impl AsyncFnOnce(&mut UpgradeTest) -> Result<String>,
    ) -> Result<()> {
        let outcome = async {
            let measured = Box::pin(proof(self)).await?;
            let traffic = self.traffic.check().await?;
            Ok(if measured.is_empty() { traffic } else { format!("{measured}; {traffic}") })
        };
        let outcome = Box::pin(outcome).await;
        report.claim(claim, outcome)
    }

    /// State now: rows, and all that a plugin shows of all load balancers that stay.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) async fn snapshot(&self, plugin: usize) -> Result<Snapshot> {
        let (rows, committed) = (self.site.rows().await?, self.site.committed().await?);
        Ok(Snapshot { rows, committed, shown: self.shown(plugin).await? })
    }

    /// Lines that a plugin shows of all load balancers that stay.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn shown(&self, plugin: usize) -> Result<BTreeSet<String>> {
        let mut lines = BTreeSet::new();
        for id in &self.ids {
            lines.extend(shown(&status_tree(&self.site, plugin, id).await?));
        }
        Ok(lines)
    }

    /// Proves that after a change of releases all plugins show what was shown before, that OVN holds the same rows, and that
    /// nothing was written there. `started` are the plugins that were started since.
    ///
    /// # Errors
    /// Something differs.
    pub(crate) async fn is_unchanged(&self, before: &Snapshot, started: &[usize]) -> Result<String> {
        self.site.settled().await?;
        for plugin in 0..self.site.count() {
            self.site
                .until(&format!("plugin{plugin} to show what was shown before"), async || {
                    trees::same(&before.shown, &self.shown(plugin).await?)
                })
                .await?;
        }
        self.verified().await?;
        // What a plugin writes late, it writes when its nodes and their checks have reported.
        tokio::time::sleep(LATE).await;
        let rows = self.site.rows().await?;
        trees::same(&of_both_releases(&before.rows)?, &of_both_releases(&rows)?)
            .context("rows of the northbound database")?;
        // What the releases write otherwise is written once, and what that replaces is taken away once.
        let allowed = if rows == before.rows { 0.0 } else { 2.0 };
        let committed = self.site.committed().await?;
        for (plugin, committed) in committed.iter().enumerate() {
            let known = if started.contains(&plugin) { None } else { before.committed.get(plugin) };
            let written = committed - known.copied().unwrap_or_default();
            ensure!(
                written <= allowed,
                "plugin{plugin} wrote {written} transactions to OVN, and nothing had changed"
            );
        }
        let resources = before.shown.len();
        Ok(format!(
            "{resources} statuses as before on each plugin, {} rows the same, {}",
            before.rows.len(),
            if allowed > 0.0 { "but for what the releases write otherwise" } else { "nothing written" }
        ))
    }

    /// Compares OVN with what is stored, by the commands of both releases on each plugin.
    ///
    /// # Errors
    /// Something differs.
    pub(crate) async fn verified(&self) -> Result<()> {
        for plugin in 0..self.site.count() {
            for build in Build::BOTH {
                self.site
                    .until("no difference between OVN and the store", async || {
                        self.site.command(build, plugin, "ovn verify").await
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Ends it; the logs stay if it failed.
    ///
    /// # Errors
    /// A daemon of OVN was not well.
    pub(crate) fn close(self, failed: bool) -> Result<()> {
        if failed {
            println!("           logs are in {}", logs::save(self.site.lab.world())?.display());
        }
        Ok(self.site.lab.close()?)
    }
}

/// Time in which a plugin that would write something has written it: a round of health checks, and the pause after which a
/// comparison is made anew.
const LATE: Duration = Duration::from_secs(4);

/// Writes a tree through a plugin; gives its id.
///
/// # Errors
/// It is refused.
pub(crate) async fn apply(site: &Site, plugin: usize, tree: v1::LoadBalancerTree) -> Result<String> {
    let name = tree.load_balancer.as_ref().map(|it| it.name.clone()).unwrap_or_default();
    let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
    let made = site.api(plugin)?.apply_load_balancer(request).await;
    let made = made.with_context(|| format!("{name}, written through plugin{plugin}"))?.into_inner();
    let root = made.tree.and_then(|tree| tree.load_balancer);
    Ok(root.context("the answer has no load balancer")?.id)
}

/// A tree with its statuses, as a plugin shows it.
///
/// # Errors
/// It does not.
pub(crate) async fn status_tree(site: &Site, plugin: usize, id: &str) -> Result<v1::LoadBalancerTree> {
    let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
    Ok(site.api(plugin)?.get_status_tree(request).await?.into_inner())
}

/// Waits until a tree is in force, its healthy backends are found so, and proxies serve what is theirs.
///
/// # Errors
/// It is not so in time.
pub(crate) async fn serves(site: &Site, plugin: usize, id: &str) -> Result<()> {
    site.until(&format!("load balancer {id} to work, as plugin{plugin} says"), async || {
        let tree = status_tree(site, plugin, id).await?;
        let nodes = |listener: &v1::Listener| match (listener.datapath_in_force(), listener.exposure()) {
            (v1::Datapath::Proxy, v1::Exposure::Direct) => 1,
            (v1::Datapath::Proxy, _) => site.agents.len(),
            _ => 0,
        };
        let served = tree.listeners.iter().all(|it| it.proxy_node_ids.len() == nodes(it));
        let is_checked = tree.pools.iter().any(|pool| pool.health_check.is_some());
        let healths: BTreeMap<&str, v1::OperatingStatus> =
            trees::BACKENDS.into_iter().map(|address| (address, trees::fares(&tree, address))).collect();
        let healthy = healths.values().all(|health| *health == v1::OperatingStatus::Online);
        // Before its first probe it is OFFLINE too, and counts for nothing.
        let root = tree.load_balancer.as_ref().and_then(|it| it.state.as_ref());
        let absent = root.is_some_and(|it| it.operating_status() == v1::OperatingStatus::Degraded);
        let well = is_active(&tree) && served && (!is_checked || (healthy && absent));
        ensure!(well, "it is {:?}", shown(&tree));
        Ok(())
    })
    .await
}

/// Rows without what only one of the releases writes, each as docs/ovn.md has it.
fn of_both_releases(rows: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let (mut common, mut others) = (Vec::new(), Vec::new());
    for line in rows {
        let (table, row) = line.split_once(' ').context("a line without a table")?;
        let mut row: Map<String, Value> = serde_json::from_str(row)?;
        if is_of_both_releases(table, &mut row) {
            common.push((table, row));
        } else {
            others.extend(row.remove("_uuid"));
        }
    }
    for (_, row) in common.iter_mut().filter(|(table, _)| *table == "Logical_Switch") {
        remove_elements(row.get_mut("ports"), &others);
    }
    Ok(common.into_iter().map(|(table, row)| format!("{table} {}", Value::Object(row))).collect())
}

/// Removes the columns and keys that only one of the releases writes; false for such a row.
fn is_of_both_releases(table: &str, row: &mut Map<String, Value>) -> bool {
    let name = row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_responder = name.starts_with("fiberlb-responder-");
    match table {
        // Answers by rows, with a group on the responder...
        "Load_Balancer" if row.get("protocol").is_some_and(|protocol| !protocol.is_string()) => return false,
        "Load_Balancer_Group" if name.ends_with("#answers") => return false,
        "Logical_Router" if is_responder => drop(row.remove("load_balancer_group")),
        // ... or by addresses.
        "Logical_Router_Port" if is_responder => drop(row.remove("networks")),
        // `ct_flush` of UDP since a1c546b, `neighbor_responder` with the rows for answers.
        "Load_Balancer" => remove_keys(row.get_mut("options"), &["ct_flush", "neighbor_responder"]),
        // Reservations are silent in another way, and one port has those of several; ports of VIPs on nodes are the same.
        "Logical_Switch_Port" if name.starts_with("fiberlb-vip-") => {
            let options = row.get("options").map(Value::to_string).unwrap_or_default();
            return options.contains("virtual-parents");
        }
        _ => {}
    }
    true
}

/// Removes elements from a set of several in OVSDB's notation (RFC 7047, section 5.1).
fn remove_elements(set: Option<&mut Value>, elements: &[Value]) {
    if let Some(set) = set.and_then(|set| set.get_mut(1)).and_then(Value::as_array_mut) {
        set.retain(|element| !elements.contains(element));
    }
}

/// Removes keys from a map in OVSDB's notation (RFC 7047, section 5.1).
fn remove_keys(map: Option<&mut Value>, keys: &[&str]) {
    if let Some(pairs) = map.and_then(|map| map.get_mut(1)).and_then(Value::as_array_mut) {
        pairs.retain(|pair| !pair.get(0).and_then(Value::as_str).is_some_and(|key| keys.contains(&key)));
    }
}
