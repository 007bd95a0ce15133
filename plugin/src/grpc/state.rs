//! Parts that the messages of all resources share.

use fiberlb_proto::v1;
use prost_types::{Duration, Timestamp};

use crate::api::Observed;
use crate::status::{HasStatus, Operating, Provisioning};

/// End of the year 9999, the last moment that a `Timestamp` can express, in milliseconds since 1970.
const LATEST_MS: u64 = 253_402_300_799_999;

/// State of a resource.
pub(super) fn state<T: HasStatus>(observed: &Observed<T>) -> v1::ResourceState {
    let (record, status) = (&observed.record, &observed.status);
    v1::ResourceState {
        provisioning_status: provisioning(status.provisioning).into(),
        operating_status: operating(status.operating).into(),
        reason: status.reason.clone(),
        reason_code: status.code.as_str().to_owned(),
        next_attempt_at: status.next_attempt_at.map(timestamp),
        generation: record.generation,
        observed_generation: status.observed_generation,
        etag: record.etag(),
        created_at: Some(timestamp(record.created_at)),
        updated_at: Some(timestamp(record.updated_at)),
    }
}

/// Declares the rendering of a domain enumeration whose values have the same names on the wire.
macro_rules! rendering {
    ($to:ident, $domain:ident => $wire:ident { $($value:ident),* }) => {
        pub(in crate::grpc) fn $to(value: $domain) -> v1::$wire {
            match value {
                $($domain::$value => v1::$wire::$value,)*
            }
        }
    };
}
pub(super) use rendering;

/// Declares the names of a domain enumeration on the wire, in both directions.
macro_rules! names {
    ($to:ident, $from:ident, $domain:ident => $wire:ident { $($value:ident),* $(,)? }) => {
        rendering!($to, $domain => $wire { $($value),* });

        /// `None`: unspecified.
        pub(super) fn $from(value: v1::$wire) -> Option<$domain> {
            match value {
                v1::$wire::Unspecified => None,
                $(v1::$wire::$value => Some($domain::$value),)*
            }
        }
    };
}

names!(provisioning, provisioning_of, Provisioning => ProvisioningStatus {
    Active, PendingCreate, PendingUpdate, PendingDelete, Error,
});
names!(operating, operating_of, Operating => OperatingStatus {
    Online, Draining, Offline, Degraded, Error, NoMonitor,
});

/// A whole number of seconds.
pub(super) fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// A number of milliseconds.
pub(super) fn millis(millis: u32) -> Duration {
    let below = i32::try_from(millis % 1000).unwrap_or(0);
    Duration { seconds: i64::from(millis / 1000), nanos: below * 1_000_000 }
}

/// A time in milliseconds since 1970.
pub(super) fn timestamp(ms: u64) -> Timestamp {
    // What an older release has stored of a node may be later than a Timestamp can express.
    let ms = ms.min(LATEST_MS);
    let below = i32::try_from(ms % 1000).unwrap_or(0);
    Timestamp { seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), nanos: below * 1_000_000 }
}
