//! Observations of load balancers, the health of backends, and the statuses that users see, with their
//! roll-up. Pure.

mod changes;
mod health;
mod liveness;
mod observation;
mod reached;
mod reason;
mod record;
mod statuses;
mod values;
mod view;

pub use changes::{StatusChange, status_changes};
pub use health::{BackendVerdict, EjectedBackend, Health, InconclusiveCheck};
pub(crate) use health::{Opinion, merge};
#[cfg(test)]
pub(crate) use liveness::{DEAD_AFTER, RECONNECT_GRACE};
pub use liveness::{Liveness, NodeContact};
pub use observation::{ApplyFailure, Carried, FailureScope, NetworkCaveats, Observation};
pub use reason::StatusCode;
pub use record::{StatusPart, StatusRecord};
pub use statuses::{HasStatus, ListenerDetail, Statuses};
pub use values::{Operating, Provisioning, Status};
pub use view::{FleetView, PlacedNode, Proxied, Reserve};
