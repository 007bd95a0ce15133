//! Creation and removal of namespaces and links. Each call is idempotent.

use std::collections::BTreeSet;
use std::path::Path;

use fiberlb_node::netlink::{IfName, Link, Netlink, NetlinkError, VethEnd};
use fiberlb_node::netns::{Netns, NetnsDir, NetnsError};
use uuid::Uuid;

use super::error::NetworkError;
use super::names::Names;
use super::tenant::{Tenant, gone};
use crate::configuration::Network;

/// Namespaces and links of one installation on this machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The agent's own namespace, which is ovs-vswitchd's as well.
    home: Netlink,
    directory: NetnsDir,
    pub(super) names: Names,
}

impl Machine {
    /// Opens the machine without touching it. Call it on a thread that is in the agent's own namespace.
    pub(super) fn open(names: Names, netns_directory: &Path) -> Result<Self, NetworkError> {
        let current = Netns::current().map_err(|source| NetnsError::Refused {
            what: "open the agent's own namespace".to_owned(),
            source,
        })?;
        Ok(Self { home: Netlink::open(&current)?, directory: names.directory(netns_directory)?, names })
    }

    /// A network's namespace, created if it does not exist. One that is the same as before keeps its sockets.
    pub(super) fn namespace(&self, network: Uuid, before: Option<Tenant>) -> Result<Tenant, NetworkError> {
        let name = self.names.namespace(network);
        let netns = match self.directory.open(&name) {
            Ok(netns) => netns,
            Err(NetnsError::Missing { .. } | NetnsError::NotNamespace { .. }) => {
                tracing::info!(%network, namespace = name, "creating namespace of network");
                self.directory.create(&name)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(before.filter(|before| before.netns.key() == netns.key()).unwrap_or_else(|| Tenant::new(netns)))
    }

    /// True if a tenant's namespace still has its name.
    pub(super) fn is_named(&self, network: Uuid, tenant: &Tenant) -> bool {
        let named = self.directory.open(&self.names.namespace(network));
        named.is_ok_and(|named| named.key() == tenant.netns.key())
    }

    /// Creates and configures all of a network's links, addresses and routes.
    pub(super) async fn configure(
        &self,
        tenant: &mut Tenant,
        network: &Network,
        userspace: bool,
    ) -> Result<(), NetworkError> {
        let inside = Netlink::open(&tenant.netns)?;
        tenant.prepare(&inside).await?;
        self.pair(&inside, tenant, network).await?;
        tenant.configure(&inside, network, userspace).await
    }

    /// True if both ends of a network's pair of links exist.
    pub(super) async fn is_paired(&self, tenant: &Tenant, network: Uuid) -> Result<bool, NetworkError> {
        let inside = Netlink::open(&tenant.netns)?;
        let outer = found(&self.home, &self.names.outside(network)?).await?;
        Ok(outer.is_some() && found(&inside, &self.names.inside()?).await?.is_some())
    }

    /// Creates the pair of links. An end without the other is useless: both are created anew.
    async fn pair(&self, inside: &Netlink, tenant: &Tenant, network: &Network) -> Result<(), NetworkError> {
        let (outer_name, inner_name) = (self.names.outside(network.id)?, self.names.inside()?);
        let (outer, inner) = (found(&self.home, &outer_name).await?, found(inside, &inner_name).await?);
        let outer = match (outer, inner) {
            (Some(outer), Some(_)) => outer,
            (outer, inner) => {
                tracing::info!(network = %network.id, link = %outer_name, "creating links of network");
                delete(&self.home, outer).await?;
                delete(inside, inner).await?;
                let mtu = Some(network.mtu);
                let end = VethEnd { name: outer_name.clone(), mac: None, mtu };
                let peer = VethEnd { name: inner_name, mac: Some(network.mac), mtu };
                self.home.add_veth(&end, &peer, &tenant.netns).await?;
                self.home.link(&outer_name).await?
            }
        };
        if outer.mtu != network.mtu {
            self.home.set_mtu(outer.index, network.mtu).await?;
        }
        Ok(self.home.set_up(outer.index).await?)
    }

    /// Networks whose outer link exists and is up.
    pub(super) async fn linked(
        &self,
        networks: impl Iterator<Item = &Uuid>,
    ) -> Result<BTreeSet<Uuid>, NetworkError> {
        let up = self.home.links().await?.into_iter().filter(|link| link.up);
        let names: BTreeSet<String> = up.map(|link| link.name).collect();
        let is_there = |id: &&Uuid| self.names.outside(**id).is_ok_and(|name| names.contains(name.as_str()));
        Ok(networks.filter(is_there).copied().collect())
    }

    /// Networks of the installation that have a namespace, without the `wanted` ones.
    pub(super) fn leftovers(&self, wanted: impl Fn(&Uuid) -> bool) -> Result<Vec<Uuid>, NetworkError> {
        let names = self.directory.list()?;
        let networks = names.iter().filter_map(|name| self.names.network(name));
        Ok(networks.filter(|network| !wanted(network)).collect())
    }

    /// Removes a network's link and namespace. Its port must have been unplugged before.
    pub(super) async fn remove(&self, network: Uuid) -> Result<(), NetworkError> {
        delete(&self.home, found(&self.home, &self.names.outside(network)?).await?).await?;
        match self.directory.delete(&self.names.namespace(network)) {
            Ok(()) => {
                tracing::info!(%network, "removed namespace of network");
                Ok(())
            }
            Err(NetnsError::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

async fn found(netlink: &Netlink, name: &IfName) -> Result<Option<Link>, NetlinkError> {
    match netlink.link(name).await {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn delete(netlink: &Netlink, link: Option<Link>) -> Result<(), NetlinkError> {
    match link {
        Some(link) => gone(netlink.delete_link(link.index).await),
        None => Ok(()),
    }
}
