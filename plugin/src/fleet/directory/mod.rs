//! Proxy nodes: their stored records, contact and deaths, and the duties that operators set.

mod deaths;
mod duties;
pub(super) mod node;
pub(super) mod records;
pub(super) mod status;
pub(super) mod traffic;

pub use duties::DutyError;
