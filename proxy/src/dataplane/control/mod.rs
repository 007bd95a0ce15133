//! Control: applies configurations to the workers, and runs these.

mod binding;
mod cuts;
mod drainer;
mod installed;
mod plane;
mod threads;
mod worker;

pub use self::{
    cuts::{CutReason, Cuts},
    plane::{Dataplane, DataplaneOptions, ListenerOutcome, Pulse},
};
