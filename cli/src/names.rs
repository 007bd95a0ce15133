//! Names of the resources that others refer to, for people.

use std::collections::{BTreeMap, BTreeSet};

use fiberlb_proto::v1::{Backend, Listener};

use crate::client::Client;
use crate::kinds::{HEALTH_CHECK, Kind, LOAD_BALANCER, POOL};
use crate::resource::Resource;

/// Most resources that are fetched one by one; of more, all are listed.
const MOST_ALONE: usize = 8;

/// References by names, by id. Without an entry, the id itself is the reference.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Names of the resources that these ones refer to, and of the parents of those. What cannot be had is left out.
    pub(crate) async fn of(client: &Client, resources: &[Resource]) -> Self {
        let mut names = Self::default();
        let fields =
            [&*LOAD_BALANCER.id_field(), &POOL.id_field(), "default_pool_id", "weighted_pools.pool_id"];
        let [balancers, pools, defaults, weighted] = fields.map(|field| ids(resources, field));
        let pools = pools.into_iter().chain(defaults).chain(weighted).collect();
        let pools = fetch(client, &POOL, pools).await;
        let balancers = balancers.into_iter().chain(ids(&pools, &LOAD_BALANCER.id_field())).collect();
        for resource in fetch(client, &LOAD_BALANCER, balancers).await.iter().chain(&pools) {
            names.learn(resource);
        }
        names
    }

    /// Adds the reference to a resource whose parent is known.
    pub(crate) fn learn(&mut self, resource: &Resource) {
        let reference = self.reference(resource);
        self.0.insert(resource.id(), reference);
    }

    /// Removes the reference to a resource.
    pub(crate) fn forget(&mut self, resource: &Resource) {
        self.0.remove(&resource.id());
    }

    /// Reference to a resource, which other commands accept: names from the root on, the id where there is no name.
    pub(crate) fn reference(&self, resource: &Resource) -> String {
        let parent = resource.parent_id().map(|id| self.by_id(&id).to_owned());
        let is_named_by_parent = resource.kind.field == HEALTH_CHECK.field && resource.name().is_empty();
        match (resource.own(), parent) {
            (_, Some(pool)) if is_named_by_parent => pool,
            (Some(own), Some(parent)) => format!("{parent}/{own}"),
            (Some(own), None) => own,
            (None, _) => resource.id(),
        }
    }

    /// Kind of a resource and reference to it, for people, and its id where it is wanted.
    pub(crate) fn labelled(&self, resource: &Resource, with_id: bool) -> String {
        let label = format!("{} {}", resource.kind.label, self.reference(resource));
        if with_id { format!("{label} ({})", resource.id()) } else { label }
    }

    /// Fields at `path` as [`Resource::show`] shows them; references by their names, below the resource's own parent.
    pub(crate) fn shown(&self, resource: &Resource, path: &str) -> String {
        let shown = resource.show(path);
        if !path.split(',').any(is_reference) {
            return shown;
        }
        let own = |id: &str| {
            let name = self.by_id(id);
            let parent = resource.parent_id().filter(|parent| parent != id);
            let below = parent.and_then(|id| name.strip_prefix(self.by_id(&id))?.strip_prefix('/'));
            Some(below.unwrap_or(name).to_owned())
        };
        with_names(&shown, own)
    }

    /// Name of whatever the field holds the id of, if it is known.
    pub(crate) fn beside(&self, resource: &Resource, field: &str) -> Option<String> {
        let id = resource.show(field);
        let name = match field {
            "network" => resource.show("network_name"),
            field if field.ends_with("_id") => self.by_id(&id).to_owned(),
            _ => return None,
        };
        (!name.is_empty() && name != id).then_some(name)
    }

    /// Names of the load balancers with these ids.
    pub(crate) async fn of_load_balancers(client: &Client, ids: BTreeSet<String>) -> Self {
        let found = fetch(client, &LOAD_BALANCER, ids).await;
        Self(found.iter().filter_map(|it| Some((it.id(), it.own()?))).collect())
    }

    /// Reference to the resource with this id.
    pub(crate) fn by_id<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, String::as_str)
    }
}

/// True if a field refers to other resources.
pub(crate) fn is_reference(field: &str) -> bool {
    field.ends_with("_id") || field == "weighted_pools"
}

/// Shown references with names for the ids that have some: one, or several with weights, as in `blue=90, green=10`.
pub(crate) fn with_names(shown: &str, name: impl Fn(&str) -> Option<String>) -> String {
    let named = |part: &str| {
        let (id, weight) = part.split_once('=').map_or((part, ""), |(id, _)| (id, &part[id.len()..]));
        name(id).map_or_else(|| part.to_owned(), |name| format!("{name}{weight}"))
    };
    shown.split(", ").map(named).collect::<Vec<_>>().join(", ")
}

/// Name of a listener, or its protocol and port as in `tcp:80` or `tcp:80-89`.
pub(crate) fn of_listener(it: &Listener) -> String {
    if !it.name.is_empty() {
        return it.name.clone();
    }
    let protocol = it.protocol().as_str_name().trim_start_matches("LISTENER_PROTOCOL_");
    format!("{}:{}", protocol.to_ascii_lowercase(), ports(it))
}

/// Port of a listener, or the first and the last one as in `80-89`.
pub(crate) fn ports(it: &Listener) -> String {
    if it.port_end > it.port { format!("{}-{}", it.port, it.port_end) } else { it.port.to_string() }
}

/// Address and port of a backend.
pub(crate) fn socket(it: &Backend) -> String {
    let (address, port) = (&it.address, it.port);
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Distinct ids in a field of resources.
fn ids(resources: &[Resource], field: &str) -> BTreeSet<String> {
    let shown = resources.iter().map(|resource| resource.show(field));
    shown
        .flat_map(|ids| ids.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .filter(|id| !id.is_empty())
        .collect()
}

async fn fetch(client: &Client, kind: &'static Kind, ids: BTreeSet<String>) -> Vec<Resource> {
    if ids.len() > MOST_ALONE {
        return client.list(kind, usize::MAX, |_| Ok(())).await.unwrap_or_default();
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(client.get(kind, &id).await.ok());
    }
    found
}
