//! The health checker: probes backends from inside their networks, and reports changes of their health.
//!
//! [`HealthChecker::start`] makes the one thread that does it all. [`Targets`] go in as a whole, [`Report`]s
//! come out, each a change. [`observe`] turns outcomes into verdicts, [`pace`] and the schedule decide on the
//! times of probes: both pure. Knows neither namespaces nor gRPC: sockets come from a
//! [`SocketFactory`](crate::sockets::SocketFactory).
//!
//! Sockets are reused, and polled by the clock rather than by epoll: a TCP check is four system calls, an
//! HTTP check six. A reused socket stays in its network, so that nothing of a tenant reaches another one.

mod answer;
mod attempt;
mod check;
mod checker;
pub mod codes;
mod engine;
mod metrics;
mod observe;
mod outcome;
pub mod pace;
mod prober;
mod report;
mod schedule;
mod socket_pool;
pub mod status_line;
mod table;
mod trace;

pub use check::{Check, CheckError, CheckKind, Http, MAX_DELAY, MAX_THRESHOLD, MIN_DELAY};
pub use checker::{CheckerConfig, HealthChecker, Stopped};
pub use codes::{CodesError, ExpectedCodes};
pub use metrics::HealthMetrics;
pub use observe::{Flip, TargetState, Thresholds, observe};
pub use outcome::{NodeFailure, ProbeOutcome, Reason};
pub use report::{
    BackendCheck, InconclusiveCheck, Report, Target, TargetKey, Targets, Verdict, VerdictSnapshot,
};
