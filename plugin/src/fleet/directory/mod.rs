//! Who the proxy nodes are: what is stored and heard of them, when they count as dead, and what operators want of them.

mod deaths;
mod duties;
pub(super) mod node;
pub(super) mod records;

pub use duties::DutyError;
