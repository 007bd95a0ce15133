//! Configuration of each node, computed from the trees and the allocations, and its publication.

mod configuration;
mod node_configuration;
pub(super) mod publishing;
pub(super) mod share_book;
mod shares;
