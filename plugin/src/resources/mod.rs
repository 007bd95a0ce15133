//! FiberLB's resources as the control plane knows them: checked values, with the JSON form in which they are
//! stored.
//!
//! Knows neither gRPC nor OVN, and does no IO. Each kind's file has its specification, its place in a tree, its
//! guards, references and checks ([`Resource`]); [`kinds`] is the one list of kinds. Adapters parse resources of
//! their wire into these; `reconcile::desired` computes the desired OVN rows of a tree.

mod aggregate;
mod allowed_cidrs;
mod backend;
pub(crate) mod checksum;
mod cidrs;
#[cfg(test)]
pub(crate) mod examples;
mod health_check;
mod key;
mod kinds;
mod listener;
mod load_balancer;
mod pool;
mod record;
mod resource;
mod text;
mod tree;
mod trusted_proxies;
mod users;
mod violation;
mod weighted_pools;

pub use aggregate::{Aggregate, Changes, Part};
pub use allowed_cidrs::AllowedCidrs;
pub use backend::Backend;
pub use health_check::{HealthCheck, HealthCheckType, HttpCheck};
pub use key::{
    Key, PREFIX, STATUSES, guard, head_key, installation_key, is_name_key, leader_key, name_key,
    page_tokens_key, parse_head, parse_status, parse_status_part, status_key, status_part_key, users_key,
};
pub use kinds::{InTree, Kind, Records, Tree, TreeField};
pub(crate) use kinds::{each_kind, every_kind, of_kind, with_kinds};
pub use listener::{
    Datapath, Exposure, Listener, ListenerProtocol, PORTS, ProxyLimit, ProxyLimits, Transport,
};
pub use load_balancer::{
    LoadBalancer, check_host, has_family_of, is_host_of, no_subnet, unknown_subnet, vip_fault,
};
pub use pool::{Algorithm, PassiveHealthCheck, Persistence, Pool, PoolProtocol};
pub use record::{Common, Identity, Record, RecordError, now_ms};
pub use resource::{Child, Reference, Resource};
pub use text::{Quoted, is_hidden, truncated};
pub use tree::{TreeLookup, transaction};
pub use trusted_proxies::TrustedProxies;
pub use users::{Member, UserChange, UserError};
pub use violation::{Form, Violation, ViolationKind, Violations};
pub use weighted_pools::{WeightedPool, WeightedPools};
