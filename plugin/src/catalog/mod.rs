//! All that is stored: in memory and indexed, for every reader ([`Model`]), and the one way in which specifications are
//! written ([`Writer`]).

mod metrics;
mod model;
mod state;
mod stored;
mod writer;

pub(crate) use metrics::register;
pub use model::{LoadError, Model, Notice};
pub use writer::{WriteError, Writer};
