//! Everything that is stored, in memory and indexed, for every reader ([`Model`]), and the only writer of
//! specifications ([`Writer`]).

mod event_log;
mod metrics;
mod model;
mod shared_ids;
mod state;
mod status_counts;
mod stored;
mod usage;
mod writer;

pub use event_log::StatusEvent;
pub(crate) use metrics::register;
pub use model::{LoadError, Model, ModelNotice};
pub(crate) use shared_ids::shared_id_text;
pub use writer::{AggregateSource, KeyClaim, WriteError, Writer};
