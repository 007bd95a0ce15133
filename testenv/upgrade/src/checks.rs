//! Claims that hold of any mixture of releases.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fiberlb_proto::v1;
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use futures_util::future::try_join_all;
use tonic::Code;

use crate::builds::Build;
use crate::claims::{UpgradeTest, apply, serves, status_tree};
use crate::report::Report;
use crate::site::{PATIENCE, Site};
use crate::trees::{BACKENDS, fares, is_active, small};

/// Everything that tenants and operators do, in one mixture of releases.
///
/// # Errors
/// Something does not work.
pub(crate) async fn all(test: &mut UpgradeTest, report: &mut Report, mixture: &str) -> Result<()> {
    let claim = format!("{mixture}: writes, reads and watches through each plugin");
    test.proves(report, &claim, async |test| writes_and_watches(test).await).await?;
    let claim = format!("{mixture}: a cordon through each plugin is seen through all that know nodes");
    test.proves(report, &claim, async |test| duties(test).await).await?;
    let claim = format!("{mixture}: a backend that dies leaves both paths, and returns");
    test.proves(report, &claim, async |test| backend_dies_and_returns(test).await).await
}

/// Each plugin writes, the next one changes and the one after deletes; each shows all of it, in reads and in a watch.
async fn writes_and_watches(test: &mut UpgradeTest) -> Result<String> {
    let (site, count) = (&test.site, test.site.count());
    let run = uuid::Uuid::now_v7();
    // Three also where there is one plugin.
    let names: BTreeSet<String> = (0..3).map(|plugin| format!("written-{run}-{plugin}")).collect();
    let watches = try_join_all((0..count).map(|plugin| watch(site, plugin, &names)));
    let writes = async {
        for (plugin, name) in names.iter().enumerate() {
            let id = apply(site, plugin % count, small(name, site.network)).await?;
            for reader in 0..count {
                until_shown(site, reader, &id, "in force", is_active).await?;
            }
            change(site, (plugin + 1) % count, &id).await?;
            for reader in 0..count {
                let changed = |tree: &v1::LoadBalancerTree| {
                    tree.load_balancer.as_ref().is_some_and(|it| it.description == "changed")
                        && is_active(tree)
                };
                until_shown(site, reader, &id, "changed", changed).await?;
            }
            delete(site, (plugin + 2) % count, &id).await?;
        }
        Ok(())
    };
    let limited = tokio::time::timeout(PATIENCE * 2, async { tokio::try_join!(watches, writes) });
    limited.await.context("a watch does not show all of it")??;
    Ok(format!("{} load balancers made, changed and deleted", names.len()))
}

/// Waits until a watch has shown load balancers of these names in force, and their ends.
async fn watch(site: &Site, plugin: usize, names: &BTreeSet<String>) -> Result<()> {
    let mut client = WatchServiceClient::new(site.stream(plugin)?);
    let mut events = client.watch(v1::WatchRequest::default()).await?.into_inner();
    let (mut active, mut gone) = (BTreeSet::new(), BTreeSet::new());
    while active.len() < names.len() || gone.len() < names.len() {
        let Some(event) = events.message().await? else { bail!("the watch on plugin{plugin} ended") };
        let kind = event.r#type();
        let Some(v1::watch_event::Resource::LoadBalancer(it)) = event.resource else { continue };
        let state = it.state.unwrap_or_default();
        match kind {
            _ if !names.contains(&it.name) => {}
            v1::watch_event::Type::Deleted => {
                gone.insert(it.name);
            }
            _ if state.provisioning_status() == v1::ProvisioningStatus::Active => {
                active.insert(it.name);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Changes a load balancer by its etag, as the plugin that is asked shows it.
async fn change(site: &Site, plugin: usize, id: &str) -> Result<()> {
    let tree = status_tree(site, plugin, id).await?;
    let root = tree.load_balancer.unwrap_or_default();
    let etag = root.state.unwrap_or_default().etag;
    let load_balancer =
        v1::LoadBalancer { id: id.to_owned(), description: "changed".to_owned(), ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["description".to_owned()] });
    let request = v1::UpdateLoadBalancerRequest {
        load_balancer: Some(load_balancer),
        update_mask,
        etag,
        ..Default::default()
    };
    let changed = site.api(plugin)?.update_load_balancer(request).await;
    changed.map(drop).with_context(|| format!("a change through plugin{plugin}"))
}

/// Deletes a load balancer, and waits until no plugin shows it.
async fn delete(site: &Site, plugin: usize, id: &str) -> Result<()> {
    let request = v1::DeleteLoadBalancerRequest { id: id.to_owned(), cascade: true, ..Default::default() };
    let deleted = site.api(plugin)?.delete_load_balancer(request).await;
    deleted.with_context(|| format!("a deletion through plugin{plugin}"))?;
    for reader in 0..site.count() {
        site.until("the end of a load balancer", async || {
            let request = v1::GetLoadBalancerRequest { id: id.to_owned() };
            let gone = site.api(reader)?.get_load_balancer(request).await;
            ensure!(gone.is_err_and(|why| why.code() == Code::NotFound), "plugin{reader} shows it");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn until_shown(
    site: &Site,
    plugin: usize,
    id: &str,
    what: &str,
    wanted: impl Fn(&v1::LoadBalancerTree) -> bool,
) -> Result<()> {
    site.until(&format!("plugin{plugin} to show load balancer {id} {what}"), async || {
        let tree = status_tree(site, plugin, id).await?;
        ensure!(wanted(&tree), "it shows {tree:?}");
        Ok(())
    })
    .await
}

/// Cordons a node through each plugin, by either release's command.
async fn duties(test: &mut UpgradeTest) -> Result<String> {
    let site = &test.site;
    for (plugin, build) in
        (0..site.count().max(2)).map(|turn| turn % site.count()).zip(Build::BOTH.into_iter().cycle())
    {
        for (words, cordoned) in [("node cordon node0", true), ("node uncordon node0", false)] {
            site.command(build, plugin, words).await?;
            for reader in 0..site.count() {
                if !site.knows_nodes(reader).await? {
                    continue;
                }
                site.until(&format!("{words:?} of plugin{plugin} on plugin{reader}"), async || {
                    let nodes = site.nodes(reader).await?;
                    let node = nodes.iter().find(|node| node.id == "node0").context("it has no node0")?;
                    ensure!(node.cordoned == cordoned, "it shows {node:?}");
                    Ok(())
                })
                .await?;
            }
        }
    }
    Ok(String::new())
}

/// Kills a backend's server; each plugin must show that, and new connections go elsewhere. Then it returns.
async fn backend_dies_and_returns(test: &mut UpgradeTest) -> Result<String> {
    let from = Instant::now().checked_sub(Duration::from_secs(1)).context("the clock")?;
    let died = Instant::now();
    test.site.serve(1, false)?;
    let offline = v1::OperatingStatus::Offline;
    for plugin in 0..test.site.count() {
        let is_down = |tree: &v1::LoadBalancerTree| fares(tree, BACKENDS[1]) == offline;
        until_shown(&test.site, plugin, &test.target, "with a backend OFFLINE", is_down).await?;
    }
    test.site.lab.wait_for_sync().await?;
    let noticed = died.elapsed();
    test.traffic.excuse(from, Instant::now());
    ensure!(noticed < Duration::from_secs(20), "new connections may have gone to it for {noticed:.1?}");
    test.traffic.reaches(&["b1"]).await?;
    test.site.serve(1, true)?;
    for plugin in 0..test.site.count() {
        serves(&test.site, plugin, &test.target).await?;
    }
    test.site.lab.wait_for_sync().await?;
    test.traffic.reaches(&["b1", "b2"]).await?;
    Ok(format!("out of rotation after {noticed:.1?}"))
}
