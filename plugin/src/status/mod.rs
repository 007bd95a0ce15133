//! What is observed of a load balancer, and what a user sees of it: observations, the health of backends, and statuses with
//! their roll-up. Pure.

mod health;
mod liveness;
mod observation;
mod record;
mod statuses;
mod view;

pub(crate) use health::merge;
pub use health::{Health, Verdict};
#[cfg(test)]
pub(crate) use liveness::DEAD_AFTER;
pub(crate) use liveness::WELCOME;
pub use liveness::{Heard, Liveness};
pub use observation::{Carried, Failure, Observation};
pub use record::StatusRecord;
pub use statuses::{Operating, Provisioning, Status, Statuses};
pub use view::{PlacedNode, Proxied, View};
