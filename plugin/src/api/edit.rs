//! Applies a request to a tree. Pure: a tree and a request in, a tree or violations out.

use std::sync::Arc;

use fiberlb_ovn::plan::Capabilities;
use fiberlb_proto::v1;
use fiberlb_proto::v1::watch_event::Resource as WatchResource;
use tonic::Status;
use uuid::Uuid;

use super::convert::{self, Form};
use super::mask::{Mask, overlay};
use super::render::View;
use super::violations::Violations;
use crate::datapath::{Conflict, decide};
use crate::resources::{
    Algorithm, Backend, Datapath, Exposure, HealthCheck, Kind, Listener, ListenerProtocol, Pool,
    PoolProtocol, Record, Resource, Tree,
};

/// A kind of resource below a load balancer, as the API shows it.
pub(super) trait Exposed: Resource {
    /// Its message.
    type Wire: prost::Message + Default + Clone + PartialEq + Send + 'static;
    /// The message's field that names the parent.
    const PARENT_FIELD: &'static str;

    /// The id in a message.
    fn wire_id(wire: &Self::Wire) -> &str;
    /// The parent's id in a message.
    fn wire_parent(wire: &Self::Wire) -> &str;
    /// Parses a message; violations go to the form.
    fn parse(wire: &Self::Wire, parent: Uuid, form: &mut Form<'_>) -> Self;
    /// Checks it against the tree that holds, or will hold, it under `id`.
    fn check(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>);
    /// The immutable fields whose values are not the same in `other`.
    fn immutable_differences(&self, other: &Self) -> Vec<&'static str>;
    /// The fields that `mask` takes from `new`, over `current`.
    fn overlay(current: Self::Wire, new: Self::Wire, mask: &Mask, violations: &mut Violations) -> Self::Wire;
    /// Its message, status included.
    fn render(view: &View, record: &Record<Self>) -> Self::Wire;
    /// Its message in an event of a watch.
    fn event(wire: Self::Wire) -> WatchResource;
    /// The reason why it cannot be deleted, for its owner.
    fn obstacle_to_delete(_id: Uuid, _tree: &Tree, _cascade: bool) -> Option<String> {
        None
    }
    /// Marks the resources that are deleted with it.
    fn delete_below(_id: Uuid, _tree: &mut Tree) {}
}

/// Names the fields in which two specifications differ.
macro_rules! differences {
    ($one:ident, $other:ident, [$($field:ident => $name:literal),* $(,)?]) => {
        [$(($one.$field != $other.$field, $name)),*].into_iter().filter(|(differ, _)| *differ).map(|(_, name)| name).collect()
    };
}

impl Exposed for Listener {
    type Wire = v1::Listener;
    const PARENT_FIELD: &'static str = "load_balancer_id";

    fn wire_id(wire: &v1::Listener) -> &str {
        &wire.id
    }
    fn wire_parent(wire: &v1::Listener) -> &str {
        &wire.load_balancer_id
    }
    fn parse(wire: &v1::Listener, parent: Uuid, form: &mut Form<'_>) -> Self {
        let pool =
            (!wire.default_pool_id.is_empty()).then(|| form.uuid("default_pool_id", &wire.default_pool_id));
        convert::listener(wire, parent, pool, form)
    }
    fn check(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        let transport = self.protocol.transport();
        let same = |other: &Record<Self>| {
            (other.spec.protocol.transport(), other.spec.port) == (transport, self.port)
        };
        if let Some(other) = tree.listeners.values().find(|other| other.id != id && same(other)) {
            let path = form.path("port");
            let why = format!(
                "{} port {} is taken by listener {}{}",
                transport.as_str(),
                self.port,
                other.id,
                leaving(other.deleting)
            );
            form.violations.taken(path, why);
        }
        if let Err(Conflict { field, reason }) = decide(tree, self, &Capabilities::ALL) {
            form.invalid(field, reason);
        }
        if self.exposure == Exposure::Direct {
            self.check_direct(id, tree, form);
        }
        let Some(pool_id) = self.default_pool_id else { return };
        match tree.pools.get(&pool_id).filter(|pool| !pool.deleting) {
            None => form.invalid("default_pool_id", format!("the load balancer has no pool {pool_id}")),
            Some(pool) if !self.protocol.fits(pool.spec.protocol) => {
                form.invalid("default_pool_id", unfit(self.protocol, pool.spec.protocol));
            }
            Some(_) => {}
        }
    }
    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        differences!(self, other, [load_balancer_id => "load_balancer_id", protocol => "protocol", port => "port"])
    }
    fn overlay(
        mut current: v1::Listener,
        new: v1::Listener,
        mask: &Mask,
        violations: &mut Violations,
    ) -> v1::Listener {
        overlay!(
            current,
            new,
            mask,
            violations,
            [
                load_balancer_id,
                name,
                description,
                tags,
                protocol,
                port,
                default_pool_id,
                admin_state_up,
                datapath,
                exposure,
                connection_limit,
                client_data_timeout,
                backend_connect_timeout,
                backend_data_timeout,
                inspect_timeout,
                allowed_cidrs,
                insert_headers,
                tls,
            ]
        )
    }
    fn render(view: &View, record: &Record<Self>) -> v1::Listener {
        view.listener(record)
    }
    fn event(wire: v1::Listener) -> WatchResource {
        WatchResource::Listener(wire)
    }
}

impl Listener {
    /// With DIRECT exposure the VIP is on a node: all other listeners follow, so all of them must support it.
    fn check_direct(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        let others = tree.listeners.values().filter(|other| other.id != id && !other.deleting);
        let mut stuck =
            others.filter(|other| other.spec.datapath == Datapath::Ovn || !other.spec.protocol.is_proxied());
        if let Some(other) = stuck.next() {
            let why = "DIRECT puts the VIP on a proxy node, and OVN is to carry listener";
            form.invalid("exposure", format!("{why} {} of the same VIP", other.id));
        }
    }
}

impl Exposed for Pool {
    type Wire = v1::Pool;
    const PARENT_FIELD: &'static str = "load_balancer_id";

    fn wire_id(wire: &v1::Pool) -> &str {
        &wire.id
    }
    fn wire_parent(wire: &v1::Pool) -> &str {
        &wire.load_balancer_id
    }
    fn parse(wire: &v1::Pool, parent: Uuid, form: &mut Form<'_>) -> Self {
        convert::pool(wire, parent, form)
    }
    fn check(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        if self.algorithm != Algorithm::LeastConnections {
            return;
        }
        let uses = |listener: &&Arc<Record<Listener>>| {
            listener.spec.default_pool_id == Some(id) && !listener.deleting
        };
        let stuck = |listener: &&Arc<Record<Listener>>| {
            listener.spec.datapath == Datapath::Ovn || !listener.spec.protocol.is_proxied()
        };
        if let Some(listener) = tree.listeners.values().filter(uses).find(stuck) {
            let why = "LEAST_CONNECTIONS needs the proxy, which cannot carry listener";
            form.invalid(
                "algorithm",
                format!("{why} {}: its datapath is OVN, or it is not TCP", listener.id),
            );
        }
    }
    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        differences!(self, other, [load_balancer_id => "load_balancer_id", protocol => "protocol"])
    }
    fn overlay(mut current: v1::Pool, new: v1::Pool, mask: &Mask, violations: &mut Violations) -> v1::Pool {
        overlay!(
            current,
            new,
            mask,
            violations,
            [
                load_balancer_id,
                name,
                description,
                tags,
                protocol,
                algorithm,
                session_persistence,
                tls,
                admin_state_up,
            ]
        )
    }
    fn render(view: &View, record: &Record<Self>) -> v1::Pool {
        view.pool(record)
    }
    fn event(wire: v1::Pool) -> WatchResource {
        WatchResource::Pool(wire)
    }
    fn obstacle_to_delete(id: Uuid, tree: &Tree, cascade: bool) -> Option<String> {
        let uses = |listener: &&Arc<Record<Listener>>| {
            listener.spec.default_pool_id == Some(id) && !listener.deleting
        };
        if let Some(listener) = tree.listeners.values().find(uses) {
            return Some(format!(
                "it is the default pool of listener {}: give that another one, or none, first",
                listener.id
            ));
        }
        let backends = tree.backends_of(id).filter(|backend| !backend.deleting).count();
        let checks = tree.health_check_of(id).filter(|check| !check.deleting).into_iter().count();
        (!cascade && backends + checks > 0).then(|| {
            format!(
                "it has {backends} backends and {checks} health checks: delete them first, or ask for cascade"
            )
        })
    }
    fn delete_below(id: Uuid, tree: &mut Tree) {
        for backend in tree.backends.values_mut().filter(|backend| backend.spec.pool_id == id) {
            *backend = Arc::new(backend.deleted());
        }
        for check in tree.health_checks.values_mut().filter(|check| check.spec.pool_id == id) {
            *check = Arc::new(check.deleted());
        }
    }
}

impl Exposed for Backend {
    type Wire = v1::Backend;
    const PARENT_FIELD: &'static str = "pool_id";

    fn wire_id(wire: &v1::Backend) -> &str {
        &wire.id
    }
    fn wire_parent(wire: &v1::Backend) -> &str {
        &wire.pool_id
    }
    fn parse(wire: &v1::Backend, parent: Uuid, form: &mut Form<'_>) -> Self {
        convert::backend(wire, parent, form)
    }
    fn check(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        let same = |other: &&Arc<Record<Self>>| other.id != id && other.spec.address == self.address;
        if let Some(other) = tree.backends_of(self.pool_id).find(same) {
            let path = form.path("address");
            let why =
                format!("{} is in the pool as backend {}{}", self.address, other.id, leaving(other.deleting));
            form.violations.taken(path, why);
        }
        let vips = &tree.load_balancer.spec.vips;
        if !vips.iter().any(|vip| vip.is_ipv4() == self.address.is_ipv4()) {
            form.invalid(
                "address",
                format!("{} is of another address family than every VIP", self.address.ip()),
            );
        }
    }
    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        let mut fields: Vec<&'static str> = differences!(self, other, [pool_id => "pool_id"]);
        fields.extend((self.address.ip() != other.address.ip()).then_some("address"));
        fields.extend((self.address.port() != other.address.port()).then_some("port"));
        fields
    }
    fn overlay(
        mut current: v1::Backend,
        new: v1::Backend,
        mask: &Mask,
        violations: &mut Violations,
    ) -> v1::Backend {
        overlay!(
            current,
            new,
            mask,
            violations,
            [
                pool_id,
                name,
                tags,
                address,
                port,
                weight,
                backup,
                monitor_address,
                monitor_port,
                admin_state_up,
            ]
        )
    }
    fn render(view: &View, record: &Record<Self>) -> v1::Backend {
        view.backend(record)
    }
    fn event(wire: v1::Backend) -> WatchResource {
        WatchResource::Backend(wire)
    }
}

impl Exposed for HealthCheck {
    type Wire = v1::HealthCheck;
    const PARENT_FIELD: &'static str = "pool_id";

    fn wire_id(wire: &v1::HealthCheck) -> &str {
        &wire.id
    }
    fn wire_parent(wire: &v1::HealthCheck) -> &str {
        &wire.pool_id
    }
    fn parse(wire: &v1::HealthCheck, parent: Uuid, form: &mut Form<'_>) -> Self {
        convert::health_check(wire, parent, form)
    }
    fn check(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        if let Some(other) = tree.health_check_of(self.pool_id).filter(|other| other.id != id) {
            let path = form.path("pool_id");
            form.violations.taken(
                path,
                format!("the pool has health check {} already{}", other.id, leaving(other.deleting)),
            );
        }
    }
    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        differences!(self, other, [pool_id => "pool_id", check_type => "type"])
    }
    fn overlay(
        mut current: v1::HealthCheck,
        new: v1::HealthCheck,
        mask: &Mask,
        violations: &mut Violations,
    ) -> v1::HealthCheck {
        overlay!(
            current,
            new,
            mask,
            violations,
            [
                pool_id,
                name,
                tags,
                r#type,
                delay,
                timeout,
                rise,
                fall,
                http_method,
                http_path,
                expected_codes,
                http_host,
                admin_state_up,
            ]
        )
    }
    fn render(view: &View, record: &Record<Self>) -> v1::HealthCheck {
        view.health_check(record)
    }
    fn event(wire: v1::HealthCheck) -> WatchResource {
        WatchResource::HealthCheck(wire)
    }
}

fn unfit(listener: ListenerProtocol, pool: PoolProtocol) -> String {
    format!("a {listener:?} listener cannot use a {pool:?} pool")
        .to_uppercase()
        .replace("LISTENER", "listener")
        .replace("POOL", "pool")
}

/// Suffix for conflicts with a resource that is being deleted.
fn leaving(deleting: bool) -> &'static str {
    if deleting { ", which is being deleted: free again when OVN has let go of it" } else { "" }
}

/// The tree with a new resource added.
pub(super) fn add<T: Exposed>(tree: &Tree, record: Record<T>) -> Tree {
    let mut tree = tree.clone();
    T::of_mut(&mut tree).insert(record.id, Arc::new(record));
    tree
}

/// The tree with a resource's specification replaced; unchanged if nothing differs.
pub(super) fn change<T: Exposed>(tree: &Tree, before: &Record<T>, spec: T) -> Tree {
    let mut tree = tree.clone();
    if before.spec != spec {
        T::of_mut(&mut tree).insert(before.id, Arc::new(before.changed(spec)));
    }
    tree
}

/// The tree with a resource and its descendants marked as deleted.
///
/// # Errors
/// `FAILED_PRECONDITION` naming the obstacle.
pub(super) fn delete<T: Exposed>(tree: &Tree, id: Uuid, cascade: bool) -> Result<Tree, Status> {
    if let Some(obstacle) = T::obstacle_to_delete(id, tree, cascade) {
        let what = T::KIND.words();
        return Err(Status::failed_precondition(format!("{what} {id} cannot be deleted: {obstacle}")));
    }
    let mut tree = tree.clone();
    if let Some(record) = T::of_mut(&mut tree).get_mut(&id) {
        *record = Arc::new(record.deleted());
    }
    T::delete_below(id, &mut tree);
    Ok(tree)
}

/// Rejects writes to a resource that is being deleted, and writes whose etag is not the stored one.
///
/// # Errors
/// `FAILED_PRECONDITION`.
pub(super) fn precondition<R>(kind: Kind, record: &Record<R>, etag: &str) -> Result<(), Status> {
    let what = kind.words();
    if record.deleting {
        return Err(Status::failed_precondition(format!("{what} {} is being deleted", record.id)));
    }
    if !etag.is_empty() && etag != record.etag() {
        let stored = record.etag();
        let why = format!("{what} {} was changed meanwhile: its etag is {stored:?}, not {etag:?}", record.id);
        return Err(Status::failed_precondition(why));
    }
    Ok(())
}
