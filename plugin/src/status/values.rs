//! Values of statuses, as users see them.

use super::reason::StatusCode;

/// Progress of applying a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provisioning {
    /// Applied.
    Active,
    /// Not applied yet.
    PendingCreate,
    /// Applied with an earlier generation.
    PendingUpdate,
    /// Deleted; OVN still has rows of it.
    PendingDelete,
    /// The last attempt failed; another one follows.
    Error,
}

/// Operating status, as a client of the resource experiences it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operating {
    /// It works.
    Online,
    /// Takes no new connections.
    Draining,
    /// Disabled, or not applied.
    Offline,
    /// Partly works.
    Degraded,
    /// Does not work.
    Error,
    /// In rotation, unchecked.
    NoMonitor,
}

impl Provisioning {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Active, Self::PendingCreate, Self::PendingUpdate, Self::PendingDelete, Self::Error];

    /// Name as in the public API, without the prefix of the type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::PendingCreate => "PENDING_CREATE",
            Self::PendingUpdate => "PENDING_UPDATE",
            Self::PendingDelete => "PENDING_DELETE",
            Self::Error => "ERROR",
        }
    }
}

impl Operating {
    /// Name as in the public API, without the prefix of the type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Draining => "DRAINING",
            Self::Offline => "OFFLINE",
            Self::Degraded => "DEGRADED",
            Self::Error => "ERROR",
            Self::NoMonitor => "NO_MONITOR",
        }
    }
}

/// The status of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Progress of applying it.
    pub provisioning: Provisioning,
    /// Operating status.
    pub operating: Operating,
    /// Reason, for programs.
    pub code: StatusCode,
    /// Reason, for people; empty where there is nothing to explain.
    pub reason: String,
    /// Time of the next attempt, in milliseconds since 1970.
    pub next_attempt_at: Option<u64>,
    /// Applied generation; 0: none.
    pub observed_generation: u64,
}
