//! Control: applies configurations to the workers, and runs these.

mod binding;
mod drainer;
mod installed;
mod plane;
mod threads;
mod worker;

pub use self::plane::{Dataplane, DataplaneOptions, ListenerOutcome, Pulse};
