//! Trees as people keep them in version control: what `apply` reads, without what the server adds and without defaults. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fiberlb_proto::v1::{LoadBalancerTree, ProvisioningStatus, ResourceState};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, Value};
use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::kinds::OUTPUT_ONLY;
use crate::schema::{Schema, comment, is_duration};
use crate::value::{parse_duration, show_duration, show_enum};

/// Fields that follow from the place in a tree, or from who applies it.
const IMPLIED: [&str; 5] = ["load_balancer_id", "pool_id", "org_id", "project_id", "etag"];

/// Tree that is serialised with short enum values and durations, in the order of the API.
pub(crate) struct Bare(DynamicMessage);

impl Bare {
    /// Tree that is as `tree` when it is applied again. `named`: names that tell load balancers apart, which therefore need no ids.
    ///
    /// # Errors
    /// Internal error.
    pub(crate) fn of(
        schema: &Schema,
        named: &BTreeSet<String>,
        tree: LoadBalancerTree,
    ) -> Result<Self, Failure> {
        let mut message = schema.dynamic("LoadBalancerTree", &without_ids(named, tree))?;
        Defaults::default().strip(&mut message);
        Ok(Self(message))
    }
}

/// The tree with names, ports or addresses in place of ids, and without what is being deleted.
fn without_ids(named: &BTreeSet<String>, mut tree: LoadBalancerTree) -> LoadBalancerTree {
    tree.listeners.retain(|it| stands(it.state.as_ref()));
    tree.pools.retain(|it| it.pool.as_ref().is_some_and(|pool| stands(pool.state.as_ref())));
    if let Some(root) = tree.load_balancer.as_mut().filter(|root| named.contains(&root.name)) {
        root.id.clear();
    }
    if let Some(root) = tree.load_balancer.as_mut().filter(|root| !root.network_name.is_empty()) {
        root.network = std::mem::take(&mut root.network_name);
    }
    let pools = tree.pools.iter().filter_map(|it| it.pool.as_ref());
    let named = unique(pools.map(|pool| pool.name.clone()));
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for tree in &mut tree.pools {
        if let Some(pool) = tree.pool.as_mut().filter(|pool| named.contains(&pool.name)) {
            names.insert(std::mem::take(&mut pool.id), pool.name.clone());
        }
        tree.backends.retain(|it| stands(it.state.as_ref()));
        tree.backends.iter_mut().for_each(|it| it.id.clear());
        tree.health_check = tree.health_check.take().filter(|it| stands(it.state.as_ref()));
        tree.health_check.iter_mut().for_each(|it| it.id.clear());
    }
    for listener in &mut tree.listeners {
        listener.id.clear();
        let weighted = listener.weighted_pools.iter_mut().map(|pool| &mut pool.pool_id);
        for id in weighted.chain([&mut listener.default_pool_id]) {
            if let Some(name) = names.get(id) {
                id.clone_from(name);
            }
        }
    }
    tree
}

/// Names that occur once.
pub(crate) fn unique(names: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        *uses.entry(name).or_default() += 1;
    }
    let is_unique = |(name, uses): (String, usize)| (uses == 1 && !name.is_empty()).then_some(name);
    uses.into_iter().filter_map(is_unique).collect()
}

fn stands(state: Option<&ResourceState>) -> bool {
    state.is_none_or(|state| state.provisioning_status() != ProvisioningStatus::PendingDelete)
}

/// Defaults of fields by their full names, as the comments of the `.proto` files give them.
#[derive(Default)]
struct Defaults(HashMap<String, String>);

impl Defaults {
    /// Clears the fields of a message, and of those in it, that need not be written.
    fn strip(&mut self, message: &mut DynamicMessage) {
        let fields: Vec<(FieldDescriptor, bool)> = message
            .fields()
            .map(|(field, value)| {
                let is_implied = OUTPUT_ONLY.contains(&field.name())
                    || IMPLIED.contains(&field.name()) && field.parent_message().name() != "WeightedPool";
                let is_needless = is_implied || self.has(message, &field, value);
                (field, is_needless)
            })
            .collect();
        for (field, is_needless) in fields {
            if is_needless {
                message.clear_field(&field);
            } else if matches!(field.kind(), FieldKind::Message(_)) && !is_duration(&field.kind()) {
                match message.get_field_mut(&field) {
                    Value::Message(inner) => self.strip(inner),
                    Value::List(values) => {
                        values.iter_mut().filter_map(Value::as_message_mut).for_each(|it| self.strip(it));
                    }
                    _ => {}
                }
            }
        }
    }

    /// True if a value is the default of its field.
    fn has(&mut self, message: &DynamicMessage, field: &FieldDescriptor, value: &Value) -> bool {
        let default = self.0.entry(field.full_name().to_owned()).or_insert_with(|| {
            let (first, _) = comment(field);
            first.strip_prefix("Default: ").unwrap_or_default().to_owned()
        });
        match value {
            Value::Message(_) if is_duration(&field.kind()) => {
                let default =
                    relative(message, field).or_else(|| parse_duration(&default.replace(' ', "")).ok());
                default.is_some() && default == duration(value)
            }
            Value::Bool(value) => *default == value.to_string(),
            Value::I32(value) => *default == value.to_string(),
            Value::U32(value) => *default == value.to_string(),
            Value::U64(value) => *default == value.to_string(),
            Value::EnumNumber(number) => {
                field.kind().as_enum().is_some_and(|it| *default == show_enum(it, *number))
            }
            Value::String(text) => {
                !matches!(default.as_str(), "none" | "empty") && default.trim_matches('`') == text
            }
            _ => false,
        }
    }
}

/// Default that depends on another field of the same message.
fn relative(message: &DynamicMessage, field: &FieldDescriptor) -> Option<Duration> {
    let other = |name: &str| duration(&*message.get_field_by_name(name)?);
    match field.full_name() {
        "fiberlb.v1.HealthCheck.timeout" => Some(other("delay")?.min(Duration::from_secs(5))),
        "fiberlb.v1.PassiveHealthCheck.max_ejection_time" => {
            Some(other("ejection_time")?.max(Duration::from_secs(300)))
        }
        _ => None,
    }
}

fn duration(value: &Value) -> Option<Duration> {
    value.as_message()?.transcode_to::<prost_types::Duration>().ok()?.try_into().ok()
}

impl Serialize for Bare {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Mapping(&self.0).serialize(serializer)
    }
}

/// Message as a mapping of the fields that are set.
struct Mapping<'a>(&'a DynamicMessage);

impl Serialize for Mapping<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0.fields().map(|(field, value)| (field.name().to_owned(), Content(field.kind(), value))),
        )
    }
}

/// Value of a field of this kind.
struct Content<'a>(FieldKind, &'a Value);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Content(kind, value) = self;
        match value {
            Value::List(values) => {
                serializer.collect_seq(values.iter().map(|value| Content(kind.clone(), value)))
            }
            Value::Message(_) if is_duration(kind) => {
                serializer.serialize_str(&duration(value).map(show_duration).unwrap_or_default())
            }
            Value::Message(inner) => Mapping(inner).serialize(serializer),
            Value::EnumNumber(number) => {
                let name = kind.as_enum().map(|enumeration| show_enum(enumeration, *number));
                serializer.serialize_str(&name.unwrap_or_default())
            }
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::I32(value) => serializer.serialize_i32(*value),
            Value::U32(value) => serializer.serialize_u32(*value),
            Value::U64(value) => serializer.serialize_u64(*value),
            value => serializer.serialize_str(value.as_str().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{
        Backend, HealthCheck, Listener, LoadBalancer, PassiveHealthCheck, Pool, PoolTree, SessionPersistence,
        WeightedPool,
    };

    use super::*;
    use crate::args::Format;
    use crate::render::canonical;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn state(status: ProvisioningStatus) -> Option<ResourceState> {
        Some(ResourceState {
            provisioning_status: status.into(),
            generation: 3,
            etag: "e".to_owned(),
            ..Default::default()
        })
    }

    /// A tree as a server renders it, with all its defaults.
    fn tree() -> LoadBalancerTree {
        let backend = |address: &str, weight, status| Backend {
            id: address.to_owned(),
            pool_id: "p1".to_owned(),
            address: address.to_owned(),
            port: 8080,
            weight: Some(weight),
            admin_state_up: Some(true),
            state: state(status),
            ..Default::default()
        };
        let listener = Listener {
            id: "l1".to_owned(),
            load_balancer_id: "lb1".to_owned(),
            protocol: 1,
            port: 80,
            default_pool_id: "p1".to_owned(),
            admin_state_up: Some(true),
            connection_limit: Some(-1),
            client_data_timeout: seconds(90),
            backend_connect_timeout: seconds(5),
            backend_data_timeout: seconds(50),
            inspect_timeout: seconds(0),
            datapath: 2,
            datapath_in_force: 2,
            datapath_reason: "asked for".to_owned(),
            proxy_node_ids: vec!["n1".to_owned()],
            bandwidth_limit: 2048,
            half_close_timeout: seconds(10),
            state: state(ProvisioningStatus::Active),
            ..Default::default()
        };
        let pool = |id: &str, name: &str| Pool {
            id: id.to_owned(),
            name: name.to_owned(),
            protocol: 1,
            algorithm: 1,
            admin_state_up: Some(true),
            state: state(ProvisioningStatus::Active),
            ..Default::default()
        };
        let check = HealthCheck {
            id: "h1".to_owned(),
            r#type: 2,
            delay: seconds(2),
            timeout: seconds(2),
            rise: 2,
            fall: 4,
            http_method: "GET".to_owned(),
            http_path: "/".to_owned(),
            expected_codes: "200".to_owned(),
            admin_state_up: Some(true),
            ..Default::default()
        };
        let weighted = |id: &str, weight| WeightedPool { pool_id: id.to_owned(), weight: Some(weight) };
        LoadBalancerTree {
            load_balancer: Some(LoadBalancer {
                id: "lb1".to_owned(),
                org_id: "o".to_owned(),
                project_id: "p".to_owned(),
                name: "web".to_owned(),
                // The word of the comment for no description.
                description: "empty".to_owned(),
                network: "e3c1".to_owned(),
                network_name: "tenant-net".to_owned(),
                vip_address: "10.0.0.100".to_owned(),
                admin_state_up: Some(false),
                state: state(ProvisioningStatus::Active),
                ..Default::default()
            }),
            listeners: vec![
                Listener { port: 81, default_pool_id: "p2".to_owned(), ..listener.clone() },
                Listener { port: 82, state: state(ProvisioningStatus::PendingDelete), ..listener.clone() },
                Listener {
                    port: 83,
                    default_pool_id: String::new(),
                    weighted_pools: vec![weighted("p1", 90), weighted("p2", 1)],
                    ..listener.clone()
                },
                listener,
            ],
            pools: vec![
                PoolTree {
                    pool: Some(Pool {
                        session_persistence: Some(SessionPersistence {
                            r#type: 1,
                            timeout: seconds(360),
                            ..Default::default()
                        }),
                        passive_health_check: Some(PassiveHealthCheck {
                            consecutive_failures: 5,
                            ejection_time: seconds(400),
                            max_ejection_time: seconds(400),
                            max_ejected_percent: 50,
                        }),
                        drain_timeout: seconds(0),
                        ..pool("p1", "app")
                    }),
                    backends: vec![
                        backend("10.0.0.1", 1, ProvisioningStatus::Active),
                        backend("10.0.0.2", 0, ProvisioningStatus::PendingUpdate),
                        backend("10.0.0.3", 1, ProvisioningStatus::PendingDelete),
                    ],
                    health_check: Some(check),
                },
                PoolTree { pool: Some(pool("p2", "")), ..Default::default() },
            ],
            etag: "tree-1".to_owned(),
        }
    }

    fn shown(named: &[&str]) -> String {
        let named = named.iter().map(|name| (*name).to_owned()).collect();
        let bare = Bare::of(&Schema::load().unwrap(), &named, tree()).unwrap();
        canonical::write(&bare, &Format::Yaml).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_is_left() {
        let wanted = "\
load_balancer:
  name: web
  description: empty
  network: tenant-net
  vip_address: \"10.0.0.100\"
  admin_state_up: false
listeners:
- protocol: TCP
  port: 81
  default_pool_id: p2
  datapath: PROXY
  client_data_timeout: 90s
  bandwidth_limit: 2048
  half_close_timeout: 10s
- protocol: TCP
  port: 83
  datapath: PROXY
  client_data_timeout: 90s
  bandwidth_limit: 2048
  half_close_timeout: 10s
  weighted_pools:
  - pool_id: app
    weight: 90
  - pool_id: p2
- protocol: TCP
  port: 80
  default_pool_id: app
  datapath: PROXY
  client_data_timeout: 90s
  bandwidth_limit: 2048
  half_close_timeout: 10s
pools:
- pool:
    name: app
    protocol: TCP
    session_persistence:
      type: SOURCE_IP
    drain_timeout: 0s
    passive_health_check:
      ejection_time: 400s
  backends:
  - address: \"10.0.0.1\"
    port: 8080
  - address: \"10.0.0.2\"
    port: 8080
    weight: 0
  health_check:
    type: HTTP
    delay: 2s
    fall: 4
- pool:
    id: p2
    protocol: TCP
";
        assert_eq!(shown(&["web"]), wanted);
    }

    #[test]
    fn a_load_balancer_without_a_name_of_its_own_keeps_its_id() {
        assert!(shown(&[]).starts_with("load_balancer:\n  id: lb1\n  name: web\n"));
        let names = ["a", "b", "a", ""].map(str::to_owned);
        assert_eq!(unique(names.into_iter()), BTreeSet::from(["b".to_owned()]));
    }
}
