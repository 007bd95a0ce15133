//! The health checker: asks backends whether they are well, from inside their networks, and says when that changes.
//!
//! [`HealthChecker::start`] makes the one thread that does it all. [`Targets`] go in whole, [`Verdict`]s come out, each a
//! change. What a probe means is [`observe`], when it is due is [`pace`] and the schedule: both pure. Knows neither
//! namespaces nor gRPC: sockets come from a [`SocketFactory`](crate::sockets::SocketFactory).
//!
//! Sockets are used again rather than made anew, and looked at by the clock rather than by epoll: a TCP check is four system
//! calls, an HTTP check five. A reused socket stays in its network, so that nothing of a tenant reaches another one.

mod attempt;
mod check;
mod checker;
pub mod codes;
mod engine;
mod metrics;
mod observe;
mod outcome;
pub mod pace;
mod pool;
mod prober;
mod report;
mod schedule;
pub mod status_line;
mod table;

pub use check::{Check, CheckError, Http, Kind, MAX_DELAY, MAX_THRESHOLD, MIN_DELAY};
pub use checker::{Config, HealthChecker, Stopped};
pub use codes::{CodesError, ExpectedCodes};
pub use metrics::Metrics;
pub use observe::{Flip, State, Thresholds, observe};
pub use outcome::{Outcome, Reason};
pub use report::{Key, Snapshot, Target, Targets, Verdict};
