//! Use cases: what callers can ask of FiberLB, without a wire.
//!
//! Each takes a [`Principal`](crate::auth::Principal) and typed values, and answers typed values or one
//! [`ApiError`] with everything that is wrong. Adapters (gRPC) parse and render. A write takes one path: the caller's
//! permission ([`authorize`](crate::auth::authorize)), the edited tree ([`Edit`](edit::Edit), which checks and places
//! every resource, whether it comes alone or in a whole tree), one atomic write
//! ([`Writer`](crate::catalog::Writer)), and the resource with its status ([`Observed`]). Reads are served from the
//! model. What only upper modules know is asked through traits that stand here ([`NetworkCatalog`],
//! [`NodeDirectory`], [`Reconciliation`], [`TrafficCounters`], [`AccessLogs`]).

mod access_log;
mod api_kind;
mod apply;
mod create;
mod delete;
mod differences;
mod edit;
mod error;
mod events;
mod history;
mod limits;
mod list;
mod load_balancer;
mod networks;
mod nodes;
mod page_token;
mod reconciliation;
mod statistics;
mod update;
mod use_cases;
mod view;
mod watch;

pub(crate) use access_log::LogQueue;
pub use access_log::{AccessLogs, LogBatch, LogEvents, LogStream, LoggedBackend, LoggedConnection};
pub use api_kind::{ApiKind, ResourceDraft};
pub use apply::{Applied, ApplyRequest, PoolDraft, TreeDraft};
pub use create::{CreateRequest, RequestId};
pub use error::{ApiError, ErrorKind, ErrorObject, ErrorReason};
pub use events::Events;
pub use history::StatusHistory;
pub use limits::Limits;
pub use list::{ListRequest, Page};
pub use load_balancer::{LoadBalancerDraft, VipDraft};
pub use networks::{NetworkCatalog, NetworkSettings};
pub use nodes::{BackendHealth, DutyChange, NodeDirectory, NodeState};
pub use page_token::PageTokens;
pub use reconciliation::{Difference, DifferenceKind, Reconciliation, Subject, Verification};
pub use statistics::{
    BackendStatistics, DURATION_BOUNDS_MS, DURATION_BUCKETS, Draining, Durations, ListenerStatistics,
    LoadBalancerStatistics, PoolStatistics, Traffic, TrafficCounters,
};
pub use update::Patch;
pub use use_cases::{Dependencies, UseCases, WriteCondition};
pub use view::{Observed, TreeView};
pub use watch::{AnyObserved, WatchChange, WatchEvent, WatchEvents};

#[cfg(test)]
mod tests;
