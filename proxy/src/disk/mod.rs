//! The last good configuration on disk, which the node serves when it starts while the plugin is away.
//!
//! One file, replaced as a whole: a header (magic, version, length and CRC-32 of the rest) and an encoded
//! [`Stored`]. A directory belongs to one agent at a time.

mod file;
pub mod fuzzing;
mod stored;
mod writer;

pub use file::{Directory, DiskError, Loaded};
pub use stored::{Memory, Stored};
pub use writer::{Writer, Written};

#[cfg(test)]
mod tests;
