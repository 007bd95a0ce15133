//! Requests by chance, good ones and bad ones.

use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::kinds::{Fields, Kind};
use crate::model::Model;

/// Draws requests of one client.
pub(crate) struct Draw<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) model: &'a Model,
    pub(crate) client: usize,
}

impl Draw<'_> {
    fn one_in(&mut self, number: usize) -> bool {
        self.rng.usize(..number) == 0
    }

    fn choice<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.rng.usize(..of.len())].clone())
    }

    /// A message of a kind without parent and id. One in eight has a value that is bad.
    pub(crate) fn message(&mut self, kind: Kind) -> Fields {
        let mut message = Fields::new();
        for field in kind.fields() {
            let is_required = field.is_required();
            if let Some(value) = self.good(kind, field.name)
                && (is_required && !self.one_in(60) || self.one_in(3))
            {
                message.insert(field.name.to_owned(), value);
            }
        }
        if kind == Kind::HealthCheck {
            self.fit_check(&mut message);
        }
        if kind == Kind::Listener && !self.one_in(3) {
            // Most are carried by OVN.
            message.retain(|name, _| {
                let ends = ["_timeout", "_limit", "_rate"];
                !["datapath", "allowed_cidrs", "trusted_proxies"].contains(&name.as_str())
                    && !ends.iter().any(|end| name.ends_with(end))
            });
        }
        if self.one_in(8) {
            self.spoil(kind, &mut message);
        }
        message
    }

    /// Makes most checks valid: without fields of other types, and with a short timeout.
    fn fit_check(&mut self, message: &mut Fields) {
        if self.one_in(8) {
            return;
        }
        if message.get("type") != Some(&json!("HEALTH_CHECK_TYPE_HTTP")) {
            message.retain(|name, _| !name.starts_with("http_") && name != "expected_codes");
        }
        message.insert("delay".to_owned(), json!(if self.one_in(2) { "1s" } else { "2s" }));
        if message.contains_key("timeout") {
            message.insert("timeout".to_owned(), json!("0.250s"));
        }
    }

    /// Puts a bad value somewhere.
    fn spoil(&mut self, kind: Kind, message: &mut Fields) {
        let fields: Vec<(&str, Vec<Value>)> = kind
            .fields()
            .iter()
            .map(|field| (field.name, [&field.invalid[..], &field.unsupported].concat()))
            .filter(|(_, bad)| !bad.is_empty())
            .collect();
        let (name, bad) = self.choice(&fields).unwrap();
        message.insert(name.to_owned(), self.choice(&bad).unwrap());
    }

    /// A good value of a field.
    fn good(&mut self, kind: Kind, field: &str) -> Option<Value> {
        let known = kind.fields().iter().find(|it| it.name == field)?;
        match (kind, field) {
            (Kind::LoadBalancer, "name") => Some(json!(format!("c{}-{}", self.client, self.rng.u8(0..12)))),
            (Kind::Pool, "name") => {
                Some(json!(if self.one_in(4) { String::new() } else { format!("p{}", self.rng.u32(..)) }))
            }
            _ => self.choice(&known.good),
        }
    }

    /// Gives a message its parent or network, its pool, and sometimes an id.
    pub(crate) fn place(&mut self, kind: Kind, message: &mut Fields) {
        match kind.parent_field() {
            None => self.network(message),
            Some(field) if !message.contains_key(field) => {
                if let Some(parent) = self.parent(kind) {
                    message.insert(field.to_owned(), parent.into());
                }
            }
            Some(_) => {}
        }
        if kind == Kind::Listener && !message.contains_key("default_pool_id") && !self.one_in(5) {
            let root = message.get("load_balancer_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let is_divided = self.one_in(3) && !message.contains_key("weighted_pools");
            if is_divided {
                let pools = self.weighted_pools(&root, message);
                message.insert("weighted_pools".to_owned(), pools);
            }
            if (!is_divided || self.one_in(20))
                && let Some(pool) = self.pool(&root, message)
            {
                message.insert("default_pool_id".to_owned(), pool.into());
            }
        }
        if let Some(id) = self.new_id() {
            message.insert("id".to_owned(), id.into());
        }
    }

    fn network(&mut self, message: &mut Fields) {
        let network = self.choice(&self.model.networks).unwrap();
        if !message.contains_key("network") && !self.one_in(40) {
            let by_name = self.one_in(2);
            message.insert(
                "network".to_owned(),
                if by_name { network.name.into() } else { network.id.clone().into() },
            );
        }
        let host = self.rng.u8(1..7);
        let v4 = format!("{}{}.{host}", network.prefix, self.client);
        let v6 = format!("fd02::{}:{host}", self.client + 1);
        let takes_v6 = network.has_v6;
        if !message.contains_key("vip_address") && !self.one_in(4) {
            let is_v6 = takes_v6 && self.one_in(3);
            message
                .insert("vip_address".to_owned(), if is_v6 { v6.clone().into() } else { v4.clone().into() });
        }
        let main = message.get("vip_address").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !message.contains_key("additional_vips") && (takes_v6 && self.one_in(3) || self.one_in(30)) {
            let other = if main.contains(':') { v4 } else { v6 };
            let given = if self.one_in(2) { json!([{"address": other}]) } else { json!([{}]) };
            message.insert("additional_vips".to_owned(), given);
        }
    }

    /// Id of a parent: mostly one that stands.
    fn parent(&mut self, kind: Kind) -> Option<String> {
        let of = |kind: Kind, going: bool| {
            let all = self.model.resources.iter().filter(|(_, it)| it.kind == kind && it.going == going);
            all.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        let parent = kind.parent()?;
        let other = if parent == Kind::Pool { Kind::LoadBalancer } else { Kind::Pool };
        let (alive, going, others) = (of(parent, false), of(parent, true), of(other, false));
        match self.rng.u8(0..40) {
            0 => None,
            1 => Some(self.unknown()),
            2 => self.choice(&others),
            3 => self.choice(&going).or_else(|| self.choice(&alive)),
            _ => self.choice(&alive),
        }
    }

    fn unknown(&mut self) -> String {
        Uuid::from_u128(self.rng.u128(..)).to_string()
    }

    /// Pool for a listener: mostly one that fits, sometimes another one, of another tree, or none.
    fn pool(&mut self, root: &str, listener: &Fields) -> Option<String> {
        let fits = |protocol: &str| match listener.get("protocol").and_then(Value::as_str).unwrap_or_default()
        {
            "LISTENER_PROTOCOL_UDP" => protocol == "POOL_PROTOCOL_UDP",
            "LISTENER_PROTOCOL_SCTP" => protocol == "POOL_PROTOCOL_SCTP",
            _ => protocol == "POOL_PROTOCOL_TCP",
        };
        let own = self.model.alive(Kind::Pool).filter(|(_, it)| it.root == root);
        let own: Vec<(String, bool)> = own.map(|(id, it)| (id.clone(), fits(it.text("protocol")))).collect();
        let fitting: Vec<String> = own.iter().filter(|(_, fits)| *fits).map(|(id, _)| id.clone()).collect();
        let all: Vec<String> = self
            .model
            .resources
            .iter()
            .filter(|(_, it)| it.kind == Kind::Pool)
            .map(|(id, _)| id.clone())
            .collect();
        match self.rng.u8(0..30) {
            0 => Some(self.unknown()),
            1 | 2 => self.choice(&all),
            _ => self.choice(&fitting),
        }
    }

    /// Pools for a listener with weights, each drawn as [`Self::pool`] does.
    fn weighted_pools(&mut self, root: &str, listener: &Fields) -> Value {
        let pools: Vec<String> =
            (0..self.rng.usize(1..4)).filter_map(|_| self.pool(root, listener)).collect();
        self.weighted(pools)
    }

    /// These pools with weights; few of them twice.
    fn weighted(&mut self, mut pools: Vec<String>) -> Value {
        if !self.one_in(20) {
            pools.sort();
            pools.dedup();
            self.rng.shuffle(&mut pools);
        }
        let weights = [None, Some(0), Some(1), Some(2), Some(90)];
        let weighted = pools.into_iter().map(|pool| match self.choice(&weights).flatten() {
            None => json!({"pool_id": pool}),
            Some(weight) => json!({"pool_id": pool, "weight": weight}),
        });
        weighted.collect()
    }

    fn new_id(&mut self) -> Option<String> {
        let own: Vec<String> = self.model.resources.keys().cloned().collect();
        let foreign: Vec<String> = self.model.foreign.iter().cloned().collect();
        match self.rng.u8(0..60) {
            0..8 => Some(self.unknown()),
            8..10 => self.choice(&own),
            10 => self.choice(&foreign),
            11 => Some("no-id".to_owned()),
            12 => Some(Uuid::nil().to_string()),
            _ => None,
        }
    }

    /// Id for a get, an update or a delete, with the kind that is requested: mostly the right one.
    pub(crate) fn target(&mut self) -> (Kind, String) {
        let kind = self.choice(&Kind::ALL).unwrap();
        let of = |kind: Option<Kind>, going: bool| {
            let all = self.model.resources.iter();
            let all = all.filter(|(_, it)| kind.is_none_or(|kind| it.kind == kind) && it.going == going);
            all.map(|(id, it)| (it.kind, id.clone())).collect::<Vec<_>>()
        };
        let (alive, going, all) = (of(Some(kind), false), of(None, true), of(None, false));
        match self.rng.u8(0..40) {
            0 => (kind, self.unknown()),
            1 => (kind, "no-id".to_owned()),
            2 => (kind, String::new()),
            3 => (kind, self.choice(&all).map_or_else(|| self.unknown(), |(_, id)| id)),
            4..8 => {
                self.choice(&going).or_else(|| self.choice(&alive)).unwrap_or((kind, Uuid::nil().to_string()))
            }
            _ => self.choice(&alive).unwrap_or_else(|| (kind, self.unknown())),
        }
    }

    /// Content and mask of an update.
    pub(crate) fn change(&mut self, kind: Kind, id: &str) -> (Fields, Option<Vec<String>>) {
        let before = self.model.get(kind, id);
        let mut message = self.message(kind);
        let mut keep = self.rng.usize(1..4);
        let names: Vec<String> = message.keys().cloned().collect();
        for name in names {
            let is_immutable = kind.immutable().contains(&name.as_str());
            // What cannot be changed is left out, or as it is, or another one.
            if is_immutable && !self.one_in(30) || name == "vip_subnet" || keep == 0 {
                message.remove(&name);
            } else {
                keep -= 1;
            }
        }
        if let (Some(before), true) = (before, self.one_in(6)) {
            let same = self.choice(kind.immutable()).unwrap();
            message.insert(same.to_owned(), before.spec[same].clone());
        }
        if let (Kind::Listener, Some(before), true) = (kind, before, self.one_in(3)) {
            let root = before.root.clone();
            if self.one_in(2) {
                let pools = self.weighted_pools(&root, &before.spec);
                message.insert("weighted_pools".to_owned(), pools);
                message.insert("default_pool_id".to_owned(), "".into());
            } else {
                let pool = self.pool(&root, &before.spec).unwrap_or_default();
                message.insert("default_pool_id".to_owned(), pool.into());
                message.insert("weighted_pools".to_owned(), json!([]));
            }
        }
        let named: Vec<String> = message.keys().cloned().collect();
        let mask = match self.rng.u8(0..20) {
            0..7 => None,
            7..10 => {
                if kind == Kind::HealthCheck {
                    message.insert("delay".to_owned(), json!("1s"));
                }
                Some(vec!["*".to_owned()])
            }
            10 => Some(
                [named, vec![self.choice(&["bogus", "id", "state", "*.x"]).unwrap().to_owned()]].concat(),
            ),
            11..13 => {
                let fields = kind.fields().iter().map(|field| field.name);
                let open = |name: &&str| !kind.immutable().contains(name) && *name != "vip_subnet";
                let cleared = self.choice(&fields.filter(open).collect::<Vec<_>>()).unwrap().to_owned();
                Some([named, vec![cleared]].concat())
            }
            _ => Some(named),
        };
        // A mask without paths is none.
        let mask = mask.filter(|mask| !mask.is_empty());
        (message, mask)
    }

    /// A list request; `wrong` names a field that is.
    pub(crate) fn query(&mut self, kind: Kind) -> Value {
        let mut query = json!({"page_size": self.choice(&[0, 1, 2, 3, 7, 100]).unwrap()});
        match self.rng.u8(0..20) {
            0 => {
                query["page_token"] = "garbage!".into();
                query["wrong"] = "page_token".into();
            }
            1 => {
                query["operating_status"] = 99.into();
                query["wrong"] = "operating_status".into();
            }
            2 => query["provisioning_status"] = "PROVISIONING_STATUS_ACTIVE".into(),
            3..6 => {
                let names: Vec<Value> =
                    self.model.alive(kind).map(|(_, it)| it.spec["name"].clone()).collect();
                query["name"] = self.choice(&names).unwrap_or_else(|| "nobody".into());
            }
            6..8 => query["tags"] = json!(["blue"]),
            8 => query["tags"] = json!(["blue", "green"]),
            9..15 => {
                if let (Some(field), Some(parent)) = (kind.parent_field(), self.parent(kind)) {
                    query[field] = parent.into();
                }
            }
            _ => {}
        }
        query
    }

    /// A tree to apply: a new one, or that of a load balancer with changes.
    pub(crate) fn tree(&mut self, root: Option<&str>) -> Value {
        let mut load_balancer = self.message(Kind::LoadBalancer);
        match root {
            None => {
                self.network(&mut load_balancer);
                if self.one_in(6) {
                    load_balancer.insert("id".to_owned(), self.unknown().into());
                }
            }
            Some(root) => {
                load_balancer.remove("vip_subnet");
                load_balancer.retain(|name, _| !Kind::LoadBalancer.immutable().contains(&name.as_str()));
                let before = &self.model.resources[root];
                for field in ["network", "vip_address", "additional_vips"] {
                    if self.one_in(3) {
                        load_balancer.insert(field.to_owned(), before.spec[field].clone());
                    }
                }
                if self.one_in(3) && !before.text("name").is_empty() {
                    load_balancer.insert("name".to_owned(), before.text("name").into());
                } else {
                    load_balancer.insert("id".to_owned(), root.into());
                }
            }
        }
        let mut pools = Vec::new();
        for (id, spec) in self.stored(Kind::Pool, root) {
            if !self.one_in(6) {
                pools.push(self.pool_tree(Some((id, spec))));
            }
        }
        for _ in 0..self.rng.usize(0..3) {
            pools.push(self.pool_tree(None));
        }
        let names: Vec<(String, String)> = pools
            .iter()
            .filter_map(|pool| {
                let pool = &pool["pool"];
                let named = pool["id"].as_str().or_else(|| pool["name"].as_str())?;
                Some((named.to_owned(), pool["protocol"].as_str()?.to_owned()))
            })
            .filter(|(name, _)| !name.is_empty())
            .collect();
        let mut listeners = Vec::new();
        for (id, spec) in self.stored(Kind::Listener, root) {
            if !self.one_in(6) {
                let mut listener = self.again(Kind::Listener, id, spec);
                self.give_pool(&mut listener, &names);
                listeners.push(Value::Object(listener));
            }
        }
        for _ in 0..self.rng.usize(0..3) {
            let mut listener = self.message(Kind::Listener);
            self.odd_id(&mut listener);
            self.give_pool(&mut listener, &names);
            listeners.push(Value::Object(listener));
        }
        json!({"load_balancer": load_balancer, "listeners": listeners, "pools": pools})
    }

    fn stored(&self, kind: Kind, parent: Option<&str>) -> Vec<(String, Fields)> {
        let stored = self.model.alive(kind).filter(|(_, it)| parent.is_some() && it.parent() == parent);
        stored.map(|(id, it)| (id.clone(), it.spec.clone())).collect()
    }

    fn pool_tree(&mut self, stored: Option<(String, Fields)>) -> Value {
        let id = stored.as_ref().map(|(id, _)| id.clone());
        let mut pool = match stored {
            Some((id, spec)) => self.again(Kind::Pool, id, spec),
            None => {
                let mut pool = self.message(Kind::Pool);
                if pool.get("name").is_none_or(|name| name == "") {
                    // It is found by its name in the answer.
                    pool.insert("name".to_owned(), format!("p{}", self.rng.u32(..)).into());
                }
                self.odd_id(&mut pool);
                pool
            }
        };
        if pool.get("id").is_none() && pool.get("name").is_none_or(|name| name == "") {
            pool.insert("name".to_owned(), format!("p{}", self.rng.u32(..)).into());
        }
        let mut backends = Vec::new();
        for (id, spec) in self.stored(Kind::Backend, id.as_deref()) {
            if !self.one_in(6) {
                backends.push(self.again(Kind::Backend, id, spec));
            }
        }
        for _ in 0..self.rng.usize(0..3) {
            let mut backend = self.message(Kind::Backend);
            self.odd_id(&mut backend);
            backends.push(backend);
        }
        let mut check: Option<Fields> = None;
        for (id, spec) in self.stored(Kind::HealthCheck, id.as_deref()) {
            if !self.one_in(4) {
                check = Some(self.again(Kind::HealthCheck, id, spec));
            }
        }
        if check.is_none() && self.one_in(5) {
            check = Some(self.message(Kind::HealthCheck));
        }
        let mut tree = json!({"pool": pool, "backends": backends});
        if let Some(check) = check {
            tree["health_check"] = check.into();
        }
        tree
    }

    /// A stored resource as it may stand in a tree again: as it is, or changed, by its id or by what it is known by.
    fn again(&mut self, kind: Kind, id: String, spec: Fields) -> Fields {
        let keys: &[&str] = match kind {
            Kind::Listener => &["protocol", "port", "default_pool_id", "weighted_pools"],
            Kind::Pool => &["protocol", "name"],
            Kind::Backend => &["address", "port"],
            _ => &["type"],
        };
        let mut again = if self.one_in(3) {
            let mut new = self.message(kind);
            for key in keys {
                if !self.one_in(40) {
                    new.insert((*key).to_owned(), spec[*key].clone());
                }
            }
            if kind == Kind::HealthCheck && spec["type"] != "HEALTH_CHECK_TYPE_HTTP" {
                new.retain(|name, _| !name.starts_with("http_") && name != "expected_codes");
            }
            new
        } else {
            spec
        };
        if !self.one_in(20) {
            again.retain(|name, _| name != "load_balancer_id" && name != "pool_id");
        }
        if self.one_in(2) || kind == Kind::Pool && again.get("name").is_none_or(|name| name == "") {
            again.insert("id".to_owned(), id.into());
        }
        again
    }

    /// Now and then an id of another tree, of another kind, of another client, or one that is free.
    fn odd_id(&mut self, message: &mut Fields) {
        let alive: Vec<String> =
            self.model.resources.iter().filter(|(_, it)| !it.going).map(|(id, _)| id.clone()).collect();
        let foreign: Vec<String> = self.model.foreign.iter().cloned().collect();
        let id = match self.rng.u8(0..60) {
            0..4 => Some(self.unknown()),
            4 => self.choice(&alive),
            5 => self.choice(&foreign),
            _ => None,
        };
        if let Some(id) = id {
            message.insert("id".to_owned(), id.into());
        }
    }

    /// Pools of a listener in a tree, by what the tree's pools are named by.
    fn give_pool(&mut self, listener: &mut Fields, names: &[(String, String)]) {
        let datagram = |text: &str| text.ends_with("_UDP") as u8 + 2 * u8::from(text.ends_with("_SCTP"));
        let own = listener.get("protocol").and_then(Value::as_str).map_or(0, datagram);
        let fitting: Vec<&(String, String)> =
            names.iter().filter(|(_, protocol)| datagram(protocol) == own).collect();
        let is_named = |pool: &Value| names.iter().any(|(name, _)| pool["pool_id"] == name.as_str());
        let divided = listener.get_mut("weighted_pools").and_then(Value::as_array_mut);
        let divided = divided.filter(|pools| !pools.is_empty());
        let was_divided = divided.is_some();
        divided.into_iter().for_each(|pools| pools.retain(|pool| is_named(pool) || self.rng.u8(0..20) == 0));
        if !was_divided && self.one_in(4) {
            let pools = (0..self.rng.usize(1..4)).filter_map(|_| self.choice(&fitting)).collect::<Vec<_>>();
            let pools = self.weighted(pools.into_iter().map(|(name, _)| name.clone()).collect());
            listener.insert("weighted_pools".to_owned(), pools);
            listener.remove("default_pool_id");
            return;
        }
        if was_divided && !self.one_in(20) {
            listener.remove("default_pool_id");
            return;
        }
        let stored = listener.get("default_pool_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let pool = match self.rng.u8(0..30) {
            0 => Some("nobody".to_owned()),
            1 => self.choice(names).map(|(name, _)| name),
            _ if !stored.is_empty() && names.iter().any(|(name, _)| *name == stored) => Some(stored),
            2..20 => self.choice(&fitting).map(|(name, _)| name.clone()),
            _ => None,
        };
        match pool {
            Some(pool) => listener.insert("default_pool_id".to_owned(), pool.into()),
            None => listener.remove("default_pool_id"),
        };
    }
}
