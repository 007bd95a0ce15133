//! This plugin among those that share its store: one leads, the others serve what they are asked and wait.
//!
//! The one that leads put its name under [`leader_key`](crate::resources::leader_key), on a lease. It alone runs the
//! reconciler and the fleet's controller, hears the proxy nodes, and publishes what it observed. On a store of its own a
//! plugin always leads.

mod leader;
mod metrics;
mod publisher;
mod record;
mod role;
mod run;

pub(crate) use metrics::register;
pub use record::LeaderRecord;
pub use role::{Role, Roles};
pub use run::{Campaign, Settings};
