//! FiberLB's resources as the control plane knows them: checked values, with the JSON form in which they are
//! stored.
//!
//! Knows neither gRPC nor OVN, and does no IO. `api::convert` checks resources of the wire and makes them
//! into these; `reconcile::desired` computes the desired OVN rows of a tree.

mod backend;
#[cfg(test)]
pub(crate) mod examples;
mod health_check;
mod key;
mod kinds;
mod listener;
mod load_balancer;
mod pool;
mod record;
mod tree;

pub use backend::Backend;
pub use health_check::{HealthCheck, HealthCheckType, HttpCheck};
pub use key::{
    Key, PREFIX, STATUSES, guard, head_key, installation_key, leader_key, parse_head, parse_status,
    status_key,
};
pub use kinds::{Kind, Records, Shelved, Tree};
pub(crate) use kinds::{each_kind, of_kind};
pub use listener::{Datapath, Exposure, Listener, ListenerProtocol, ProxyLimits, Transport};
pub use load_balancer::LoadBalancer;
pub use pool::{Algorithm, Persistence, Pool, PoolProtocol};
pub use record::{Common, Identity, Record, RecordError, now_ms};
pub use tree::{Resource, transaction};
