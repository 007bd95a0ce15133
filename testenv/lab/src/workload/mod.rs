//! Small workloads: servers that say who they are, and clients that count who answered.
//!
//! Each has a thread and a runtime of its own, so a test may block or be busy without disturbing what is measured.

mod answer;
mod echo_sessions;
mod exchange;
mod report;
mod requests;
mod server;
mod trace;

pub use answer::Answer;
pub use echo_sessions::{EchoSession, EchoSessions};
pub use report::{Failure, Report, SLOW};
pub use requests::{LEAST_TIMEOUT, Requests, Running};
pub use server::Server;
pub use trace::{Sample, Trace};
