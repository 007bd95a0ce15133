//! One server of a pool.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::load_balancer::{check_host, has_family_of};
use super::resource::{differences, leaving};
use super::tree::TreeLookup;
use super::violation::Form;
use super::{Child, Common, Datapath, Kind, Listener, PoolProtocol, Resource, Tree, guard};

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Name and tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its pool.
    pub pool_id: Uuid,
    /// Address and port that it listens on; unique in the pool.
    pub address: SocketAddr,
    /// 0 to 256; 0 drains.
    pub weight: u16,
    /// Serves only while no regular backend of the pool does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// Address of its health check, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_address: Option<IpAddr>,
    /// Port of its health check, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_port: Option<u16>,
    /// Most concurrent connections, over all nodes; 0: no limit.
    #[serde(default, skip_serializing_if = "super::pool::is_zero")]
    pub connection_limit: u32,
    /// False: takes no connections.
    pub admin_state_up: bool,
}

impl Backend {
    /// Legal weights.
    pub const WEIGHTS: RangeInclusive<u16> = 0..=256;

    /// Addresses that connections and probes are made to, by their fields.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, IpAddr)> {
        let monitor = self.monitor_address.map(|address| ("monitor_address", address));
        [("address", self.address.ip())].into_iter().chain(monitor)
    }
}

impl Resource for Backend {
    const PARENT: Option<Kind> = Some(Kind::Pool);
    const PARENT_FIELD: &'static str = "pool_id";
    const IMMUTABLE: &'static [&'static str] = &["pool_id", "address", "port"];

    fn parent(&self) -> Option<Uuid> {
        Some(self.pool_id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn place(&self) -> Option<String> {
        Some(self.address.to_string())
    }

    fn former_guards(&self) -> Vec<String> {
        vec![guard::backend(self.pool_id, self.address)]
    }

    fn check(&self, form: &mut Form<'_>) {
        self.common.check(form);
        check_host(self.address.ip(), "address", form);
        form.check_range("weight", self.weight, &Self::WEIGHTS);
        form.check_range("port", self.address.port(), &super::PORTS);
        if let Some(address) = self.monitor_address {
            check_host(address, "monitor_address", form);
        }
        if let Some(port) = self.monitor_port {
            form.check_range("monitor_port", port, &super::PORTS);
        }
    }

    fn check_in(&self, id: Uuid, lookup: &TreeLookup<'_>, form: &mut Form<'_>) {
        let mut others = lookup.backends_at(self.pool_id, self.address).into_iter();
        if let Some(other) = others.find(|other| other.id != id) {
            let (leaving, other) = (leaving(other.deleting), lookup.tree().called(Kind::Backend, other.id));
            form.taken("address", format!("{} is in the pool already, as {other}{leaving}", self.address));
        }
        let vips = &lookup.tree().load_balancer.spec.vips;
        if self.connection_limit > 0 {
            self.check_proxied("connection_limit", "needs the proxy", lookup.tree(), form);
        }
        if !has_family_of(vips, self.address.ip()) {
            let (own, other) = if self.address.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let why = format!("an {own} backend behind an {other} VIP needs the proxy");
            self.check_proxied("address", &why, lookup.tree(), form);
        }
        self.check_ranges(lookup.tree(), form);
        for (field, address) in self.addresses() {
            if vips.contains(&address) {
                form.unmet(
                    field,
                    format!("{address} is a VIP of the load balancer: connections would come back to it"),
                );
            }
        }
    }
}

impl Backend {
    /// Checks that it has a port for each one of the listeners that use it.
    fn check_ranges(&self, tree: &Tree, form: &mut Form<'_>) {
        let listeners = tree.listeners.values().filter(|listener| !listener.deleting);
        let mut users = listeners.filter(|listener| listener.spec.uses(self.pool_id));
        if let Some(user) = users.find(|user| !user.spec.fits_above(self.address.port())) {
            let (count, user) = (user.spec.port_count(), tree.called(Kind::Listener, user.id));
            form.unmet("port", format!("{user} has {count} ports: there are not so many from this one on"));
        }
    }

    /// Checks that proxies can carry the listeners that use it, for the sake of a field; `why`: "… needs the proxy".
    fn check_proxied(&self, field: &'static str, why: &str, tree: &Tree, form: &mut Form<'_>) {
        let pool = tree.pools.get(&self.pool_id);
        if pool.is_some_and(|pool| pool.spec.protocol == PoolProtocol::Sctp) {
            return form.unmet(field, format!("{why}, which does not carry SCTP"));
        }
        let mut listeners = tree.listeners.values().filter(|listener| !listener.deleting);
        let is_stuck =
            |listener: &Listener| listener.uses(self.pool_id) && listener.datapath == Datapath::Ovn;
        if let Some(stuck) = listeners.find(|listener| is_stuck(&listener.spec)) {
            form.unmet(field, format!("{why}, and the datapath of listener {} is OVN", stuck.id));
        }
    }
}

impl Child for Backend {
    const KEY_FIELDS: &'static [&'static str] = &["address", "port"];

    fn set_parent(&mut self, parent: Uuid) {
        self.pool_id = parent;
    }

    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        let mut fields: Vec<&'static str> = differences!(self, other, [pool_id => "pool_id"]);
        fields.extend((self.address.ip() != other.address.ip()).then_some("address"));
        fields.extend((self.address.port() != other.address.port()).then_some("port"));
        fields
    }

    fn natural_key(&self) -> Option<String> {
        Some(format!("{}/{}", self.pool_id, self.address))
    }
}
