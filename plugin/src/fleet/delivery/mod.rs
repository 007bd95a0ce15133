//! What each node is sent: the configuration that follows from the trees and from what was allocated, and its publication.

mod configuration;
mod described;
pub(super) mod publishing;
