//! Leader election among the plugins on one store.
//!
//! The leader holds a lease on [`leader_key`](crate::resources::leader_key). It alone runs the reconciler
//! and the fleet's controller, receives the streams of the proxy nodes, and publishes observations; followers
//! serve the API and wait. On a store of its own a plugin always leads.

mod cluster;
mod disconnection;
mod leader;
mod metrics;
mod node_publisher;
mod peers;
mod places;
mod publisher;
mod record;
mod role;
mod run;

pub use cluster::Cluster;
pub(crate) use disconnection::disconnection;
pub(crate) use metrics::register;
pub use peers::Peers;
pub use record::LeaderRecord;
pub use role::{Role, Roles};
pub use run::{Campaign, LeadershipSettings};
