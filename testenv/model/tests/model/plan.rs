//! Applies of whole trees: their verdicts, and their effects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;
use tonic::Code;

use crate::kinds::{Fields, Kind, canonical, faults};
use crate::model::{
    MOST_BACKENDS, MOST_LISTENERS, MOST_POOLS, Model, Resource, addresses, backend_misfits, listener_misfits,
    ovn_difference, pool_field, proxied, same_address, shares, transport, uses, vips,
};
use crate::verdict::{Class, Fault, Verdict};

/// Effect of an apply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The load balancer; `None`: a new one.
    pub(crate) root: Option<String>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) dropped: Vec<String>,
}

/// A resource of an applied tree.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Path in the request.
    pub(crate) at: String,
    /// `None`: the server makes one.
    pub(crate) id: Option<String>,
    pub(crate) is_new: bool,
    /// Key of the pool or load balancer in this plan.
    parent: String,
    /// Its own key for those below it: the id, or the path.
    key: String,
    /// Names of pools as they are given.
    pub(crate) spec: Fields,
}

impl Entry {
    /// Name of it within the plan.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Its specification with ids in place of keys.
    pub(crate) fn resolved(&self, ids: &BTreeMap<String, String>) -> Fields {
        let mut spec = self.spec.clone();
        let by_id = |key: &mut Value| {
            if let Some(id) = key.as_str().and_then(|key| ids.get(key)) {
                *key = id.clone().into();
            }
        };
        let own = (self.kind == Kind::Listener).then_some("default_pool_id");
        self.kind.parent_field().into_iter().chain(own).for_each(|field| by_id(&mut spec[field]));
        pool_ids(&mut spec).for_each(by_id);
        spec
    }
}

/// Ids of the weighted pools of a listener.
fn pool_ids(listener: &mut Fields) -> impl Iterator<Item = &mut Value> {
    let pools = listener.get_mut("weighted_pools").and_then(Value::as_array_mut).into_iter().flatten();
    pools.filter_map(|pool| pool.get_mut("pool_id"))
}

impl Model {
    /// Verdict on an apply, and its effect.
    pub(crate) fn apply(&self, tree: &Value, etag: &str) -> (Verdict, Plan) {
        let mut verdict = Verdict::default();
        let lists = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let (listeners, pools) = (lists(tree, "listeners"), lists(tree, "pools"));
        if listeners.len() > MOST_LISTENERS
            || pools.len() > MOST_POOLS
            || pools.iter().any(|pool| lists(pool, "backends").len() > MOST_BACKENDS)
        {
            verdict.refuse(Code::ResourceExhausted);
        }
        let mut plan = Plan::default();
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let given = fields(&tree["load_balancer"]);
        let Some((root, before)) = self.target(&given, &mut verdict) else { return (verdict, plan) };
        plan.root = before.is_some().then(|| root.clone());
        if !etag.is_empty() && before.is_none_or(|before| before.etag != etag) {
            // Of the tree it may be, whose etag is not known here.
            verdict.refuse(Code::FailedPrecondition);
        }
        let at = "tree.load_balancer";
        verdict.sure.extend(faults(Kind::LoadBalancer, &given, at));
        let (spec, relations) = match before {
            Some(before) => {
                let spec = self.kept(Kind::LoadBalancer, &given, &before.spec);
                verdict.sure.retain(|fault| !fault.is_at("network") || given.contains_key("network"));
                let moved = Kind::LoadBalancer
                    .immutable()
                    .iter()
                    .filter(|field| spec.get(**field) != before.spec.get(**field));
                let moved = moved.map(|field| Fault::new(Class::Invalid, at, field)).collect::<Vec<_>>();
                verdict.sure.extend(moved);
                (spec, Vec::new())
            }
            None => {
                let spec = self.made_of(Kind::LoadBalancer, &given);
                if let Some(id) = given.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
                    self.new_id(id, at, &mut verdict);
                }
                let relations = self.new_load_balancer(&spec, at, &mut verdict);
                (spec, relations)
            }
        };
        let id = before.map(|_| root.clone()).or_else(|| given_id(&given));
        let is_new = before.is_none();
        plan.entries.push(Entry {
            kind: Kind::LoadBalancer,
            at: at.to_owned(),
            id,
            is_new,
            parent: String::new(),
            key: root.clone(),
            spec,
        });
        let mut places = Places {
            model: self,
            root: root.clone(),
            plan: &mut plan,
            verdict: &mut verdict,
            kept: BTreeSet::new(),
            keys: BTreeMap::new(),
            relations,
        };
        places.recognise(&listeners, &pools);
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (index, pool) in pools.iter().enumerate() {
            let at = format!("tree.pools[{index}]");
            let given = fields(&pool["pool"]);
            let name = given.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = places.put(Kind::Pool, &format!("{at}.pool"), &given, &root);
            if !name.is_empty() && names.insert(name, key.clone()).is_some() {
                places.verdict.sure.push(Fault::new(Class::Invalid, &format!("{at}.pool"), "name"));
            }
            names.insert(key.clone(), key.clone());
            for (index, backend) in lists(pool, "backends").iter().enumerate() {
                places.put(Kind::Backend, &format!("{at}.backends[{index}]"), &fields(backend), &key);
            }
            if pool.get("health_check").is_some_and(|check| !check.is_null()) {
                places.put(
                    Kind::HealthCheck,
                    &format!("{at}.health_check"),
                    &fields(&pool["health_check"]),
                    &key,
                );
            }
        }
        for (index, listener) in listeners.iter().enumerate() {
            let at = format!("tree.listeners[{index}]");
            let mut given = fields(listener);
            if let Some(pool) =
                given.get("default_pool_id").and_then(Value::as_str).filter(|pool| !pool.is_empty())
            {
                match names.get(pool) {
                    Some(key) => {
                        given.insert("default_pool_id".to_owned(), key.clone().into());
                    }
                    None => {
                        places.verdict.sure.push(Fault::new(Class::Invalid, &at, "default_pool_id"));
                        given.remove("default_pool_id");
                    }
                }
            }
            for pool in pool_ids(&mut given) {
                // Without one it is wrong by itself.
                let key = pool.as_str().and_then(|pool| names.get(pool)).map_or("", String::as_str);
                *pool = key.into();
            }
            places.put(Kind::Listener, &at, &given, &root);
        }
        places.relate();
        let relations = std::mem::take(&mut places.relations);
        verdict.relations(relations);
        verdict.soften_addresses();
        (verdict, plan)
    }

    /// The load balancer that a tree is for; `None`: there are several.
    fn target(&self, given: &Fields, verdict: &mut Verdict) -> Option<(String, Option<&Resource>)> {
        if let Some(id) = given_id(given) {
            if uuid::Uuid::parse_str(&id).is_err() {
                verdict.sure.push(Fault::new(Class::Invalid, "tree.load_balancer", "id"));
            }
            let before = self.get(Kind::LoadBalancer, &id).filter(|it| !it.going);
            return Some((id, before));
        }
        let name = given.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_own =
            ["org_id", "project_id"].iter().all(|field| given.get(*field).is_none_or(|owner| owner == ""));
        let name = if is_own { name } else { "" };
        let named: Vec<_> = self
            .alive(Kind::LoadBalancer)
            .filter(|(_, it)| !name.is_empty() && it.text("name") == name)
            .collect();
        match named.as_slice() {
            [] => Some(("new".to_owned(), None)),
            [(id, one)] => Some(((*id).clone(), Some(*one))),
            _ => {
                verdict.sure.push(Fault::new(Class::Invalid, "tree.load_balancer", "name"));
                // What else is wrong with it is not known, since it is not known what it is for.
                verdict.maybe.push(Fault::new(Class::Taken, "", "tree"));
                None
            }
        }
    }
}

fn given_id(given: &Fields) -> Option<String> {
    given.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned)
}

fn kind_and_key(kind: Kind, parent: &str, spec: &Fields) -> Option<String> {
    let text = |field: &str| spec.get(field).cloned().unwrap_or_default();
    let key = match kind {
        Kind::LoadBalancer => return None,
        Kind::Listener => format!("{} {}", text("protocol"), text("port")),
        Kind::Pool if text("name") == "" || text("name").is_null() => return None,
        Kind::Pool => text("name").to_string(),
        Kind::Backend => format!("{} {}", text("address"), text("port")),
        Kind::HealthCheck => String::new(),
    };
    Some(format!("{kind:?} {parent} {key}"))
}

/// VIPs of a load balancer; addresses that no backend has stand for those that will be chosen.
fn with_chosen(root: &Fields) -> Vec<IpAddr> {
    let mut vips = vips(root);
    let more = root["additional_vips"].as_array().map_or(0, Vec::len);
    for placeholder in ["10.1.0.99", "fd02::99"] {
        let placeholder: IpAddr = placeholder.parse().unwrap();
        if vips.len() <= more && !vips.iter().any(|vip| vip.is_ipv4() == placeholder.is_ipv4()) {
            vips.push(placeholder);
        }
    }
    vips
}

/// Fields by which a resource without an id is recognised, and which may be such that nobody can read them. A name can always
/// be read.
fn key_fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Listener => &["protocol", "port"],
        Kind::Backend => &["address", "port"],
        Kind::LoadBalancer | Kind::Pool | Kind::HealthCheck => &[],
    }
}

/// Places of the resources of an applied tree.
struct Places<'a> {
    model: &'a Model,
    root: String,
    plan: &'a mut Plan,
    verdict: &'a mut Verdict,
    /// Ids that were placed.
    kept: BTreeSet<String>,
    /// Resources by what they are recognised by.
    keys: BTreeMap<String, String>,
    relations: Vec<Fault>,
}

impl Places<'_> {
    /// Learns what is stored, but for what the tree names by its id.
    fn recognise(&mut self, listeners: &[Value], pools: &[Value]) {
        let below = |pool: &Value| {
            [
                pool["backends"].as_array().cloned().unwrap_or_default(),
                vec![pool["pool"].clone(), pool["health_check"].clone()],
            ]
            .concat()
        };
        let all = listeners.iter().cloned().chain(pools.iter().flat_map(below));
        let named: BTreeSet<String> = all.filter_map(|it| given_id(it.as_object()?)).collect();
        for (id, it) in &self.model.resources {
            if it.root == self.root && !it.going && !named.contains(id) {
                let key = kind_and_key(it.kind, it.parent().unwrap_or_default(), &it.spec);
                self.keys.extend(key.map(|key| (key, id.clone())));
            }
        }
    }

    /// Places one; answers with its key.
    fn put(&mut self, kind: Kind, at: &str, given: &Fields, parent: &str) -> String {
        let (field, id) = (kind.parent_field().unwrap(), given_id(given));
        let mut faults = faults(kind, given, at);
        faults.retain(|fault| !fault.is_at(field));
        let named_parent = given.get(field).and_then(Value::as_str).unwrap_or_default();
        if !named_parent.is_empty() && named_parent != parent {
            self.verdict.sure.push(Fault::new(Class::Invalid, at, field));
        }
        let mut spec = canonical(kind, given);
        spec.insert(field.to_owned(), parent.into());
        // What cannot be read is nobody's.
        let is_readable = !key_fields(kind).iter().any(|field| faults.iter().any(|fault| fault.is_at(field)));
        let key = kind_and_key(kind, parent, &spec).filter(|_| is_readable);
        let meant = id.clone().or_else(|| self.keys.get(key.as_ref()?).cloned());
        let stands =
            |id: &String| self.model.get(kind, id).is_some_and(|it| it.root == self.root && !it.going);
        let stored = meant.clone().filter(stands);
        let is_again = meant.as_ref().is_some_and(|id| !self.kept.insert(id.clone()));
        if is_again {
            let by_key = match kind {
                Kind::Listener | Kind::Backend => "port",
                Kind::Pool => "name",
                Kind::LoadBalancer | Kind::HealthCheck => field,
            };
            let blamed = if id.is_some() { "id" } else { by_key };
            self.verdict.sure.push(Fault::new(Class::Invalid, at, blamed));
            // It may change what that entry made, and so what fits with the rest of the tree.
            self.verdict.maybe.push(Fault::new(Class::Invalid, "", "tree"));
            self.verdict.maybe.append(&mut faults);
        }
        self.verdict.sure.extend(faults);
        if let Some(id) = stored {
            let before = &self.model.resources[&id].spec;
            for field in kind.immutable().iter().filter(|field| spec.get(**field) != before.get(**field)) {
                self.relations.push(Fault::new(Class::Invalid, at, field));
            }
            self.add(kind, at, Some(id), false, parent, spec)
        } else {
            if let Some(id) = id.as_ref().filter(|_| !is_again) {
                self.model.new_id(id, at, self.verdict);
            }
            if !is_again {
                let own = id.clone().unwrap_or_else(|| at.to_owned());
                self.kept.insert(own.clone());
                self.keys.extend(key.map(|key| (key, own)));
            }
            self.add(kind, at, id, true, parent, spec)
        }
    }

    fn add(
        &mut self,
        kind: Kind,
        at: &str,
        id: Option<String>,
        is_new: bool,
        parent: &str,
        spec: Fields,
    ) -> String {
        let key = id.clone().unwrap_or_else(|| at.to_owned());
        let (at, parent) = (at.to_owned(), parent.to_owned());
        self.plan.entries.push(Entry { kind, at, id, is_new, parent, key: key.clone(), spec });
        key
    }

    /// Finds what is dropped, and what does not fit among all that is to be.
    fn relate(&mut self) {
        let kept: BTreeSet<&String> = self.plan.entries.iter().filter_map(|it| it.id.as_ref()).collect();
        let stored = self.model.resources.iter().filter(|(_, it)| it.root == self.root);
        let dropped = stored.clone().filter(|(id, it)| !it.going && !kept.contains(id));
        self.plan.dropped = dropped.map(|(id, _)| id.clone()).collect();
        let entries = self.plan.entries.clone();
        let vips = entries.first().map_or_else(Vec::new, |root| {
            let stored = self.model.resources.get(&root.key);
            stored.map_or_else(|| with_chosen(&root.spec), Resource::vips)
        });
        let network = entries.first().and_then(|root| root.spec.get("network")?.as_str()).unwrap_or_default();
        let has_v6 = self.model.has_v6(network);
        for (index, entry) in entries.iter().enumerate() {
            let is_changed = entry.is_new
                || entry.id.as_ref().is_some_and(|id| self.model.resources[id].spec != entry.spec);
            if !is_changed {
                continue;
            }
            match entry.kind {
                Kind::Listener => {
                    let pools: Vec<&Entry> = pools_in(&entries, &entry.spec).collect();
                    let backends = entries.iter().filter(|it| {
                        it.kind == Kind::Backend && pools.iter().any(|pool| pool.key == it.parent)
                    });
                    let backends = addresses(backends.map(|it| &it.spec));
                    let pools: Vec<&Fields> = pools.iter().map(|it| &it.spec).collect();
                    self.relations.extend(listener_misfits(&entry.spec, &pools, &backends, &vips, &entry.at));
                }
                Kind::Pool => {
                    let users =
                        entries.iter().filter(|it| it.kind == Kind::Listener && uses(&it.spec, &entry.key));
                    let stuck = users
                        .filter(|it| it.spec["datapath"] == "DATAPATH_OVN" || transport(&it.spec) == "sctp");
                    let found = stuck.flat_map(|user| {
                        let mut others = pools_in(&entries, &user.spec);
                        let differing = others.find_map(|other| ovn_difference(&entry.spec, &other.spec));
                        let fields = proxied(&entry.spec).into_iter().chain(differing);
                        fields.map(|field| {
                            Fault::new(Class::Unmet, &entry.at, field).or(&user.at, pool_field(&user.spec))
                        })
                    });
                    self.relations.extend(found);
                }
                Kind::Backend => {
                    let users = entries
                        .iter()
                        .filter(|it| it.kind == Kind::Listener && uses(&it.spec, &entry.parent));
                    let users = users.map(|it| &it.spec);
                    let pool = entries.iter().find(|it| it.kind == Kind::Pool && it.key == entry.parent);
                    if let Some(pool) = pool {
                        let found = backend_misfits(&entry.spec, &pool.spec, users, &vips, has_v6, &entry.at);
                        self.relations.extend(found);
                    }
                }
                _ => {}
            }
            for other in entries[..index].iter().chain(&entries[index + 1..]) {
                let is_taken = match entry.kind {
                    Kind::Listener => other.kind == Kind::Listener && same_port(&entry.spec, &other.spec),
                    Kind::Backend => {
                        other.kind == Kind::Backend
                            && other.parent == entry.parent
                            && same_address(&entry.spec, &other.spec)
                    }
                    _ => false,
                };
                if is_taken {
                    self.relations.push(Fault::new(Class::Taken, "", &entry.at).or("", &other.at));
                }
            }
            for (id, other) in
                self.model.resources.iter().filter(|(_, it)| it.root == self.root && it.kind == entry.kind)
            {
                let is_taken = match entry.kind {
                    Kind::Listener => same_port(&entry.spec, &other.spec),
                    Kind::Backend => {
                        other.text("pool_id") == entry.parent && same_address(&entry.spec, &other.spec)
                    }
                    Kind::HealthCheck => other.text("pool_id") == entry.parent,
                    _ => false,
                };
                if !is_taken || entry.id.as_ref() == Some(id) {
                    continue;
                }
                let fault = Fault::new(Class::Taken, "", &entry.at);
                if self.plan.dropped.contains(id) {
                    self.relations.push(fault);
                } else if other.going {
                    self.verdict.maybe.push(fault);
                }
            }
        }
        for (kind, most) in
            [(Kind::Listener, MOST_LISTENERS), (Kind::Pool, MOST_POOLS), (Kind::Backend, MOST_BACKENDS)]
        {
            let going =
                self.model.resources.values().filter(|it| it.root == self.root && it.kind == kind).count();
            if entries.iter().filter(|it| it.kind == kind).count() + going > 2 * most {
                self.verdict.may_refuse(Code::ResourceExhausted);
            }
        }
    }
}

/// Pools of a listener among the entries of a tree.
fn pools_in<'a>(entries: &'a [Entry], listener: &'a Fields) -> impl Iterator<Item = &'a Entry> {
    let pool = |key: &str| entries.iter().find(|it| it.kind == Kind::Pool && it.key == key);
    shares(listener).into_iter().filter_map(move |(key, _)| pool(key))
}

fn same_port(one: &Fields, other: &Fields) -> bool {
    transport(one) == transport(other) && one.get("port") == other.get("port")
}
