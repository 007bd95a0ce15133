//! The model: what one client has made, and what each of its calls must answer. Written by docs/api.md alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use tonic::Code;

use crate::kinds::{ALGORITHMS_OF_PROXIES, Fields, Kind, canonical, faults};
use crate::verdict::{Class, Fault, Verdict};

/// Limits that the plugins are given.
pub(crate) const MOST_LISTENERS: usize = 5;
pub(crate) const MOST_POOLS: usize = 4;
pub(crate) const MOST_BACKENDS: usize = 6;
pub(crate) const MOST_TAGS: usize = 4;
pub(crate) const MOST_PAGE: usize = 7;

/// A resource.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// Its load balancer.
    pub(crate) root: String,
    /// With all defaults, without id and state.
    pub(crate) spec: Fields,
    pub(crate) generation: u64,
    pub(crate) etag: String,
    /// Deleted; it is shown until OVN has let go of it, some time.
    pub(crate) going: bool,
}

impl Resource {
    pub(crate) fn text(&self, field: &str) -> &str {
        self.spec.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn parent(&self) -> Option<&str> {
        self.kind.parent_field().map(|field| self.text(field))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.spec["admin_state_up"] == true
    }
}

/// A tenant network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    pub(crate) id: String,
    /// First two bytes of its IPv4 addresses, with dots.
    pub(crate) prefix: &'static str,
    /// True if it has the subnet fd02::/64, too.
    pub(crate) has_v6: bool,
}

/// All that one client has made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) resources: BTreeMap<String, Resource>,
    /// Uses of request ids: kind, message, and what it made.
    pub(crate) requests: BTreeMap<String, (Kind, Value, String)>,
    /// Ids of others that are never deleted.
    pub(crate) foreign: BTreeSet<String>,
    pub(crate) networks: Vec<Network>,
    /// Owner of everything: organisation and project.
    pub(crate) owner: (String, String),
}

pub(crate) fn transport(listener: &Fields) -> &'static str {
    match listener.get("protocol").and_then(Value::as_str).unwrap_or_default() {
        "LISTENER_PROTOCOL_UDP" => "udp",
        "LISTENER_PROTOCOL_SCTP" => "sctp",
        _ => "tcp",
    }
}

/// Pools of a listener with their weights: its default pool, or those that share its connections.
pub(crate) fn shares(listener: &Fields) -> Vec<(&str, u64)> {
    let default = listener.get("default_pool_id").and_then(Value::as_str).filter(|pool| !pool.is_empty());
    let weighted = listener.get("weighted_pools").and_then(Value::as_array).into_iter().flatten();
    let weighted = weighted
        .map(|pool| (pool["pool_id"].as_str().unwrap_or_default(), pool["weight"].as_u64().unwrap_or(1)));
    default.map(|pool| (pool, 1)).into_iter().chain(weighted).collect()
}

/// True if a pool is one of a listener's.
pub(crate) fn uses(listener: &Fields, pool: &str) -> bool {
    shares(listener).iter().any(|(own, _)| *own == pool)
}

/// Field that names the pools of a listener.
pub(crate) fn pool_field(listener: &Fields) -> &'static str {
    let weighted = listener.get("weighted_pools").and_then(Value::as_array);
    if weighted.is_none_or(Vec::is_empty) { "default_pool_id" } else { "weighted_pools" }
}

/// Field of a pool in which OVN cannot keep it and another one of the same listener apart.
pub(crate) fn ovn_difference(pool: &Fields, other: &Fields) -> Option<&'static str> {
    let cuts = |pool: &Fields| pool.get("drain_timeout").is_some_and(|it| it == "0s");
    let differs = |field: &str| pool.get(field) != other.get(field);
    let fields = [
        (differs("algorithm"), "algorithm"),
        (differs("session_persistence"), "session_persistence"),
        (cuts(pool) != cuts(other), "drain_timeout"),
    ];
    fields.into_iter().find(|(differs, _)| *differs).map(|(_, field)| field)
}

/// Protocols of pools that a listener takes.
fn fitting(listener: &Fields) -> &'static [&'static str] {
    match listener["protocol"].as_str().unwrap_or_default() {
        "LISTENER_PROTOCOL_TCP" => &[
            "POOL_PROTOCOL_TCP",
            "POOL_PROTOCOL_HTTP",
            "POOL_PROTOCOL_HTTPS",
            "POOL_PROTOCOL_PROXY",
            "POOL_PROTOCOL_PROXYV2",
        ],
        "LISTENER_PROTOCOL_HTTPS" => {
            &["POOL_PROTOCOL_HTTPS", "POOL_PROTOCOL_TCP", "POOL_PROTOCOL_PROXY", "POOL_PROTOCOL_PROXYV2"]
        }
        "LISTENER_PROTOCOL_UDP" => &["POOL_PROTOCOL_UDP"],
        "LISTENER_PROTOCOL_SCTP" => &["POOL_PROTOCOL_SCTP"],
        _ => &[],
    }
}

/// True if a listener with these VIPs turns some clients away.
fn restricts(listener: &Fields, vips: &[IpAddr]) -> bool {
    let allowed = listener.get("allowed_cidrs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let all = |vip: &IpAddr| if vip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    !allowed.is_empty() && vips.iter().any(|vip| !allowed.iter().any(|cidr| cidr == all(vip)))
}

/// Fields of a pool that ask for proxies, and can be changed.
pub(crate) fn proxied(pool: &Fields) -> Vec<&'static str> {
    let by_algorithm = ALGORITHMS_OF_PROXIES.iter().any(|algorithm| pool["algorithm"] == *algorithm);
    let drains = pool.get("drain_timeout").is_some_and(|it| it != "0s");
    let begins_slowly = pool.get("slow_start").is_some_and(|it| !it.is_null());
    let is_watched = pool.get("passive_health_check").is_some_and(|it| !it.is_null());
    let queues = pool.get("queue_limit").is_some_and(|it| *it != 0);
    let fields = [
        (by_algorithm, "algorithm"),
        (drains, "drain_timeout"),
        (begins_slowly, "slow_start"),
        (is_watched, "passive_health_check"),
        (queues, "queue_limit"),
    ];
    fields.into_iter().filter(|(asks, _)| *asks).map(|(_, field)| field).collect()
}

fn address_in(backend: &Fields, field: &str) -> Option<IpAddr> {
    backend.get(field)?.as_str()?.parse().ok()
}

fn has_family_of(addresses: &[IpAddr], other: IpAddr) -> bool {
    addresses.iter().any(|address| address.is_ipv4() == other.is_ipv4())
}

/// Addresses of backends.
pub(crate) fn addresses<'a>(backends: impl IntoIterator<Item = &'a Fields>) -> Vec<IpAddr> {
    backends.into_iter().filter_map(|backend| address_in(backend, "address")).collect()
}

/// Fields of a listener that ask for proxies; `pools`: its pools, with backends at these addresses.
pub(crate) fn asking(
    listener: &Fields,
    pools: &[&Fields],
    backends: &[IpAddr],
    vips: &[IpAddr],
) -> Vec<&'static str> {
    let defaults = [
        ("connection_limit", json!(-1)),
        ("client_connection_limit", json!(0)),
        ("connection_rate", json!(0)),
        ("client_connection_rate", json!(0)),
        ("bandwidth_limit", json!("0")),
        ("client_data_timeout", json!("50s")),
        ("backend_connect_timeout", json!("5s")),
        ("backend_data_timeout", json!("50s")),
        ("half_close_timeout", Value::Null),
    ];
    let is_set = |(field, default): &(&str, Value)| listener.get(*field).is_some_and(|it| it != default);
    let own = defaults.iter().filter(|it| is_set(it)).map(|(field, _)| *field);
    let sends_header = |pool: &Fields| {
        let protocol = pool.get("protocol").and_then(Value::as_str).unwrap_or_default();
        ["POOL_PROTOCOL_PROXY", "POOL_PROTOCOL_PROXYV2"].contains(&protocol)
    };
    let differ = |(one, other): (&&Fields, &&Fields)| ovn_difference(one, other).is_some();
    let by_pool = pools.iter().any(|pool| !proxied(pool).is_empty() || sends_header(pool))
        || pools.iter().zip(pools.iter().skip(1)).any(differ)
        || backends.iter().any(|backend| !has_family_of(vips, *backend));
    let trusts = listener.get("trusted_proxies").and_then(Value::as_array).is_some_and(|it| !it.is_empty());
    let by_clients = restricts(listener, vips).then_some("allowed_cidrs");
    own.chain(by_clients)
        .chain(trusts.then_some("trusted_proxies"))
        .chain(by_pool.then_some(pool_field(listener)))
        .collect()
}

/// Conflict of a listener with who is to carry it.
fn carrier_conflict(
    listener: &Fields,
    pools: &[&Fields],
    backends: &[IpAddr],
    vips: &[IpAddr],
    at: &str,
) -> Option<Fault> {
    let fields = asking(listener, pools, backends, vips);
    let is_unproxied = transport(listener) == "sctp";
    if is_unproxied && listener["datapath"] == "DATAPATH_PROXY" {
        let first = Fault::new(Class::Invalid, at, "datapath");
        return Some(fields.iter().fold(first, |fault, field| fault.or(at, field)));
    }
    if !fields.is_empty() && (is_unproxied || listener["datapath"] == "DATAPATH_OVN") {
        // What the listener alone asks for is wrong whatever its pool is.
        let class = if asking(listener, &[], &[], vips).is_empty() { Class::Unmet } else { Class::Invalid };
        let mut fields = fields.into_iter();
        let first = Fault::new(class, at, fields.next()?);
        return Some(fields.fold(first, |fault, field| fault.or(at, field)));
    }
    None
}

pub(crate) fn vips(root: &Fields) -> Vec<IpAddr> {
    let more = root.get("additional_vips").and_then(Value::as_array).into_iter().flatten();
    let all =
        [root.get("vip_address")].into_iter().flatten().chain(more.filter_map(|vip| vip.get("address")));
    all.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

impl Resource {
    pub(crate) fn vips(&self) -> Vec<IpAddr> {
        vips(&self.spec)
    }
}

impl Model {
    /// Resources that stand.
    pub(crate) fn alive(&self, kind: Kind) -> impl Iterator<Item = (&String, &Resource)> {
        self.resources.iter().filter(move |(_, it)| it.kind == kind && !it.going)
    }

    /// All of a kind below a parent, also those that are going.
    pub(crate) fn below(&self, kind: Kind, parent: &str) -> impl Iterator<Item = (&String, &Resource)> {
        self.resources.iter().filter(move |(_, it)| it.kind == kind && it.parent() == Some(parent))
    }

    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<&Resource> {
        self.resources.get(id).filter(|it| it.kind == kind)
    }

    /// Marks a resource and all below it as going.
    pub(crate) fn delete(&mut self, id: &str) {
        let below: Vec<String> = self
            .resources
            .iter()
            .filter(|(_, it)| it.parent() == Some(id))
            .map(|(id, _)| id.clone())
            .collect();
        for child in below {
            self.delete(&child);
        }
        if let Some(resource) = self.resources.get_mut(id) {
            resource.going = true;
        }
    }

    /// Takes note that a resource which was going is gone, and with it all below.
    pub(crate) fn gone(&mut self, id: &str) {
        let below: Vec<String> = self
            .resources
            .iter()
            .filter(|(_, it)| it.parent() == Some(id) || it.root == id)
            .map(|(id, _)| id.clone())
            .collect();
        self.resources.remove(id);
        for child in below {
            self.resources.remove(&child);
        }
        let resources = &self.resources;
        self.requests.retain(|_, (_, _, made)| resources.contains_key(made));
    }

    /// Resource that a call is for; adds to the verdict where there is none.
    pub(crate) fn lookup(&self, kind: Kind, id: &str, verdict: &mut Verdict) -> Option<&Resource> {
        if uuid::Uuid::parse_str(id).is_err() {
            verdict.sure.push(Fault::new(Class::Invalid, "", "id"));
            return None;
        }
        let found = self.get(kind, id);
        match found {
            None => verdict.refuse(Code::NotFound),
            Some(found) if found.going => verdict.may_refuse(Code::NotFound),
            Some(_) => {}
        }
        found
    }

    /// Adds faults of an id that a new resource is to have.
    pub(crate) fn new_id(&self, id: &str, at: &str, verdict: &mut Verdict) {
        let fault = || Fault::new(Class::Taken, at, "id");
        match (self.resources.get(id), uuid::Uuid::parse_str(id)) {
            (_, Err(_)) => verdict.sure.push(Fault::new(Class::Invalid, at, "id")),
            (_, Ok(id)) if id.is_nil() => verdict.sure.push(Fault::new(Class::Invalid, at, "id")),
            (Some(other), _) if other.going => verdict.maybe.push(fault()),
            (Some(_), _) => {
                verdict.sure.push(fault());
                // Of a resource of the same tree, which then is not what another entry means.
                verdict.maybe.push(Fault::new(Class::Taken, "", "tree"));
            }
            (None, _) if self.foreign.contains(id) => verdict.sure.push(fault()),
            (None, _) => {}
        }
    }

    /// Specification that a create asks for: with the parent, network and owner as they are shown.
    pub(crate) fn made_of(&self, kind: Kind, message: &Fields) -> Fields {
        let mut spec = canonical(kind, message);
        if kind == Kind::LoadBalancer {
            spec.insert("org_id".to_owned(), self.owner.0.clone().into());
            spec.insert("project_id".to_owned(), self.owner.1.clone().into());
            let given = spec.get("network").and_then(Value::as_str).unwrap_or_default();
            if let Some(network) = self.networks.iter().find(|network| network.name == given) {
                spec.insert("network".to_owned(), network.id.clone().into());
            }
            if let Some(Value::Array(more)) = spec.get_mut("additional_vips") {
                for vip in more {
                    *vip = json!({"address": vip.get("address").cloned().unwrap_or("".into()), "subnet": ""});
                }
            }
        }
        spec
    }

    /// True for a create with the id of a resource whose specification is the same. Addresses that a load balancer leaves
    /// open match any.
    pub(crate) fn is_repeat(&self, kind: Kind, message: &Fields) -> bool {
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default();
        let Some(stored) = self.get(kind, id) else { return false };
        let asked = self.made_of(kind, message);
        let is_open = |asked: &Value, stored: &Value| asked == "" || asked == stored;
        let is_as_asked = |field: &str, asked: &Value, stored: &Value| match (field, asked, stored) {
            ("vip_address", ..) => is_open(asked, stored),
            ("additional_vips", Value::Array(asked), Value::Array(stored)) => {
                asked.len() == stored.len()
                    && asked
                        .iter()
                        .zip(stored)
                        .all(|(asked, stored)| is_open(&asked["address"], &stored["address"]))
            }
            _ => asked == stored,
        };
        let has = |(field, asked): (&String, &Value)| {
            stored.spec.get(field).is_some_and(|stored| is_as_asked(field, asked, stored))
        };
        asked.iter().all(has) && asked.len() == stored.spec.len()
    }

    /// Verdict on a create, but for its `request_id`.
    pub(crate) fn create(&self, kind: Kind, message: &Fields) -> Verdict {
        let mut verdict = Verdict { sure: faults(kind, message, ""), ..Verdict::default() };
        if let Some(id) = message.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            self.new_id(id, "", &mut verdict);
        }
        let spec = self.made_of(kind, message);
        if kind == Kind::LoadBalancer {
            let relations = self.new_load_balancer(&spec, "", &mut verdict);
            verdict.relations(relations);
            verdict.soften_addresses();
            return verdict;
        }
        let (field, parent) = (kind.parent_field().unwrap(), kind.parent().unwrap());
        let id = message.get(field).and_then(Value::as_str).unwrap_or_default();
        if uuid::Uuid::parse_str(id).is_err() {
            if verdict.sure.iter().all(|fault| !fault.is_at(field)) {
                verdict.sure.push(Fault::new(Class::Invalid, "", field));
            }
            return verdict;
        }
        let Some(above) = self.get(parent, id) else {
            verdict.refuse(Code::NotFound);
            return verdict;
        };
        let root = &self.resources[&above.root];
        if above.going || root.going {
            verdict.refuse(Code::FailedPrecondition);
            verdict.may_refuse(Code::NotFound);
        }
        let mut relations = Vec::new();
        let mut maybe = Vec::new();
        let own = message.get("id").and_then(Value::as_str);
        self.taken_by_siblings(kind, own, &spec, |going, fault| {
            if going { maybe.push(fault) } else { relations.push(fault) }
        });
        relations.extend(self.misfits(kind, &spec, &above.root, ""));
        let missing = self.missing_pools(kind, &spec, &above.root);
        if verdict.codes.is_empty() {
            verdict.sure.extend(missing);
        } else {
            verdict.maybe.extend(missing);
        }
        verdict.relations(relations);
        verdict.maybe.extend(maybe);
        self.limits(kind, id, &mut verdict);
        verdict
    }

    fn limits(&self, kind: Kind, parent: &str, verdict: &mut Verdict) {
        let most = match kind {
            Kind::Listener => MOST_LISTENERS,
            Kind::Pool => MOST_POOLS,
            Kind::Backend => MOST_BACKENDS,
            _ => return,
        };
        let stored = self.below(kind, parent).count();
        let alive = self.below(kind, parent).filter(|(_, it)| !it.going).count();
        if alive >= most {
            verdict.refuse(Code::ResourceExhausted);
        } else if stored >= 2 * most {
            verdict.may_refuse(Code::ResourceExhausted);
        }
    }

    /// Faults of a new load balancer beside others, and on its network.
    pub(crate) fn new_load_balancer(&self, spec: &Fields, at: &str, verdict: &mut Verdict) -> Vec<Fault> {
        let mut found = Vec::new();
        let network = self
            .networks
            .iter()
            .find(|network| Some(network.id.as_str()) == spec.get("network").and_then(Value::as_str));
        for (index, vip) in vips(spec).into_iter().enumerate() {
            let fault = || {
                let fault = Fault::new(Class::Taken, at, "vip_address");
                if index == 0 && spec["vip_address"] != "" {
                    fault
                } else {
                    Fault::new(Class::Taken, at, "additional_vips")
                }
            };
            let others = self.resources.values().filter(|it| it.kind == Kind::LoadBalancer);
            for other in
                others.filter(|it| it.spec.get("network") == spec.get("network") && it.vips().contains(&vip))
            {
                if other.going { verdict.maybe.push(fault()) } else { found.push(fault()) }
            }
        }
        // Where no subnet is known a plugin that is told to believes what it is given, and can choose nothing.
        let mut more = spec.get("additional_vips").and_then(Value::as_array).into_iter().flatten();
        if more.any(|vip| vip["address"] == "") && network.is_some_and(|network| !network.has_v6) {
            found.push(Fault::new(Class::Unmet, at, "additional_vips"));
        }
        found
    }

    /// Faults of a resource among those beside it. `own`: its id.
    fn taken_by_siblings(
        &self,
        kind: Kind,
        own: Option<&str>,
        spec: &Fields,
        mut found: impl FnMut(bool, Fault),
    ) {
        let Some(parent) = kind.parent_field().and_then(|field| spec[field].as_str()) else { return };
        for (_, other) in self.below(kind, parent).filter(|(id, _)| Some(id.as_str()) != own) {
            let field = match kind {
                Kind::Listener
                    if transport(spec) == transport(&other.spec)
                        && spec.get("port") == other.spec.get("port") =>
                {
                    "port"
                }
                Kind::Backend if same_address(spec, &other.spec) => "address",
                Kind::HealthCheck => "pool_id",
                _ => continue,
            };
            found(other.going, Fault::new(Class::Taken, "", field));
        }
    }

    /// The pools of a listener in its tree; `None` where one is not there.
    fn pools_of(&self, listener: &Fields, root: &str) -> Vec<Option<&Resource>> {
        let pool = |id: &str| self.get(Kind::Pool, id).filter(|it| !it.going && it.root == root);
        shares(listener).into_iter().map(|(id, _)| pool(id)).collect()
    }

    /// Addresses of the backends of a listener's pools that stand.
    pub(crate) fn backends_of(&self, listener: &Fields) -> Vec<IpAddr> {
        let below = shares(listener).into_iter().flat_map(|(pool, _)| self.below(Kind::Backend, pool));
        addresses(below.filter(|(_, it)| !it.going).map(|(_, it)| &it.spec))
    }

    /// True if a network, by its id, has IPv6.
    pub(crate) fn has_v6(&self, network: &str) -> bool {
        self.networks.iter().any(|it| it.has_v6 && (it.id == network || it.name == network))
    }

    /// Faults of a listener whose pools are not there, whatever else is wrong with it.
    fn missing_pools(&self, kind: Kind, spec: &Fields, root: &str) -> Vec<Fault> {
        let is_there = |id: &str| self.get(Kind::Pool, id).is_some_and(|it| !it.going && it.root == root);
        let default = spec.get("default_pool_id").and_then(Value::as_str).unwrap_or_default();
        let (mut weighted, is_listener) =
            (shares(spec).into_iter().skip(usize::from(!default.is_empty())), kind == Kind::Listener);
        let fields = [
            (!default.is_empty() && !is_there(default), "default_pool_id"),
            (weighted.any(|(id, _)| !is_there(id)), "weighted_pools"),
        ];
        let missing = fields.into_iter().filter(|(is_missing, _)| *is_missing && is_listener);
        missing.map(|(_, field)| Fault::new(Class::Unmet, "", field)).collect()
    }

    /// Faults of a resource in its tree.
    fn misfits(&self, kind: Kind, spec: &Fields, root: &str, at: &str) -> Vec<Fault> {
        let mut found = Vec::new();
        match kind {
            Kind::Listener => {
                let vips = self.resources[root].vips();
                let pools = self.pools_of(spec, root).into_iter().flatten();
                let pools: Vec<&Fields> = pools.map(|pool| &pool.spec).collect();
                found.extend(listener_misfits(spec, &pools, &self.backends_of(spec), &vips, at));
            }
            Kind::Backend => {
                let pool_id = spec["pool_id"].as_str().unwrap_or_default();
                let users = self.alive(Kind::Listener).map(|(_, it)| &it.spec);
                let users = users.filter(|it| uses(it, pool_id));
                let root = &self.resources[root];
                if let Some(pool) = self.get(Kind::Pool, pool_id) {
                    let has_v6 = self.has_v6(root.text("network"));
                    found.extend(backend_misfits(spec, &pool.spec, users, &root.vips(), has_v6, at));
                }
            }
            _ => {}
        }
        found
    }

    /// Specification that an update asks for. `mask`: `None` for what is set.
    pub(crate) fn merged(kind: Kind, before: &Fields, message: &Fields, mask: Option<&[String]>) -> Fields {
        let mut after = before.clone();
        let is_all = mask.is_some_and(|mask| mask.iter().any(|path| path == "*"));
        for field in kind.fields() {
            let value = message.get(field.name).filter(|value| field.is_set(Some(value)));
            let is_named = mask.is_some_and(|mask| mask.iter().any(|path| path == field.name));
            match value {
                Some(value) if is_all || is_named || mask.is_none() => {
                    after.insert(field.name.to_owned(), value.clone());
                }
                None if is_named || is_all && !kind.immutable().contains(&field.name) => {
                    after.remove(field.name);
                }
                _ => {}
            }
        }
        after
    }

    /// Verdict on an update, and the specification after it.
    pub(crate) fn update(
        &self,
        kind: Kind,
        id: &str,
        message: &Fields,
        mask: Option<&[String]>,
        etag: &str,
    ) -> (Verdict, Option<Fields>) {
        let mut verdict = Verdict::default();
        let Some(before) = self.lookup(kind, id, &mut verdict) else { return (verdict, None) };
        if before.going {
            verdict.refuse(Code::FailedPrecondition);
        }
        if !etag.is_empty() && etag != before.etag {
            verdict.refuse(Code::FailedPrecondition);
        }
        let is_field = |path: &String| path == "*" || kind.fields().iter().any(|field| field.name == path);
        if mask.is_some_and(|mask| !mask.iter().all(is_field)) {
            verdict.sure.push(Fault::new(Class::Invalid, "", "update_mask"));
        }
        let merged = Self::merged(kind, &before.spec, message, mask);
        verdict.sure.extend(faults(kind, &merged, ""));
        let after = self.kept(kind, &merged, &before.spec);
        for field in kind.immutable() {
            if after.get(*field) != before.spec.get(*field)
                && verdict.sure.iter().all(|fault| !fault.is_at(field))
            {
                verdict.sure.push(Fault::new(Class::Invalid, "", field));
            }
        }
        verdict.sure.extend(self.missing_pools(kind, &after, &before.root));
        let relations = self.changed(kind, id, before, &after);
        verdict.relations(relations);
        // Where it must be its own, what it cannot become may be taken, too.
        self.taken_by_siblings(kind, Some(id), &after, |_, fault| verdict.maybe.push(fault));
        (verdict, Some(after))
    }

    /// With what a load balancer keeps where it is left out.
    pub(crate) fn kept(&self, kind: Kind, given: &Fields, before: &Fields) -> Fields {
        let mut after = self.made_of(kind, given);
        if kind == Kind::LoadBalancer {
            for field in ["network", "vip_address", "additional_vips"] {
                let value = given.get(field);
                if value.is_none_or(|value| value == "" || value == &json!([])) {
                    after.insert(field.to_owned(), before[field].clone());
                }
            }
            let kept = before["additional_vips"].as_array().into_iter().flatten();
            let more = after.get_mut("additional_vips").and_then(Value::as_array_mut).into_iter().flatten();
            for (vip, kept) in more.zip(kept).filter(|(vip, _)| vip["address"] == "") {
                vip.clone_from(kept);
            }
        }
        after
    }

    /// Faults of a changed resource in its tree.
    fn changed(&self, kind: Kind, id: &str, before: &Resource, after: &Fields) -> Vec<Fault> {
        if *after == before.spec {
            return Vec::new();
        }
        let mut found = self.misfits(kind, after, &before.root, "");
        if kind == Kind::Pool {
            let users = self.alive(Kind::Listener).filter(|(_, it)| uses(&it.spec, id));
            let stuck = users
                .filter(|(_, it)| it.spec["datapath"] == "DATAPATH_OVN" || transport(&it.spec) == "sctp");
            for (_, stuck) in stuck {
                found.extend(proxied(after).into_iter().map(|it| Fault::new(Class::Unmet, "", it)));
                let others = shares(&stuck.spec).into_iter().filter(|(other, _)| *other != id);
                let mut others = others.filter_map(|(other, _)| self.get(Kind::Pool, other));
                let differing = others.find_map(|other| ovn_difference(after, &other.spec));
                found.extend(differing.map(|field| Fault::new(Class::Unmet, "", field)));
            }
        }
        found
    }

    /// Verdict on a delete.
    pub(crate) fn delete_verdict(&self, kind: Kind, id: &str, etag: &str, cascade: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(resource) = self.lookup(kind, id, &mut verdict) else { return verdict };
        if !etag.is_empty() && etag != resource.etag {
            verdict.refuse(Code::FailedPrecondition);
        }
        if resource.going {
            return verdict;
        }
        let mut listeners = self.alive(Kind::Listener);
        let is_used = kind == Kind::Pool && listeners.any(|(_, it)| uses(&it.spec, id));
        let has_children = self.resources.values().any(|it| it.parent() == Some(id) && !it.going);
        if is_used || has_children && !cascade {
            verdict.refuse(Code::FailedPrecondition);
        }
        verdict
    }
}

pub(crate) fn same_address(one: &Fields, other: &Fields) -> bool {
    let address = |spec: &Fields| spec.get("address").and_then(|it| it.as_str()?.parse::<IpAddr>().ok());
    address(one).is_some() && address(one) == address(other) && one.get("port") == other.get("port")
}

pub(crate) fn listener_misfits(
    listener: &Fields,
    pools: &[&Fields],
    backends: &[IpAddr],
    vips: &[IpAddr],
    at: &str,
) -> Vec<Fault> {
    let mut found: Vec<Fault> = carrier_conflict(listener, pools, backends, vips, at).into_iter().collect();
    let fits = |pool: &&Fields| {
        let protocol = pool.get("protocol").and_then(Value::as_str).unwrap_or_default();
        fitting(listener).contains(&protocol)
    };
    if listener.contains_key("protocol") && !pools.iter().all(fits) {
        // Both fields, where both are given.
        let fault = Fault::new(Class::Unmet, at, pool_field(listener));
        let has_default = listener.get("default_pool_id").is_some_and(|pool| pool != "");
        found.push(if has_default { fault.or(at, "default_pool_id") } else { fault });
    }
    found
}

/// Faults of a backend in its tree. `users`: listeners of its pool; `has_v6`: its network has IPv6.
pub(crate) fn backend_misfits<'a>(
    backend: &Fields,
    pool: &Fields,
    users: impl IntoIterator<Item = &'a Fields>,
    vips: &[IpAddr],
    has_v6: bool,
    at: &str,
) -> Vec<Fault> {
    let mut found = Vec::new();
    let is_foreign = |address: &IpAddr| !has_family_of(vips, *address);
    let is_stuck = pool.get("protocol").is_some_and(|it| it == "POOL_PROTOCOL_SCTP")
        || users.into_iter().any(|listener| listener.get("datapath").is_some_and(|it| it == "DATAPATH_OVN"));
    for field in ["address", "monitor_address"] {
        let address = address_in(backend, field);
        // Every network has IPv4.
        let is_strange = address.is_some_and(|it| is_foreign(&it) && it.is_ipv6() && !has_v6);
        let needs_proxy = field == "address" && address.as_ref().is_some_and(is_foreign);
        if is_strange || needs_proxy && is_stuck || address.is_some_and(|address| vips.contains(&address)) {
            found.push(Fault::new(Class::Unmet, at, field));
        }
    }
    found
}
