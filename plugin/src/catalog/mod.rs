//! All that is stored, in memory and indexed, for every reader.

mod model;
mod state;
mod stored;

pub use model::{LoadError, Model, Notice};
