//! Limits on the connections of one listener.

use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::settings::{RangeError, at_least, in_range};

/// Longest deadline of a connection's beginning, in milliseconds: 10 minutes.
const LONGEST_START_MS: u64 = 600_000;
/// Longest idle time and age, in seconds: 30 days.
const LONGEST_S: u64 = 30 * 24 * 3600;
/// Least size of a request's header section: what HTTP/1.1's parser needs.
const LEAST_HEADER_BYTES: u32 = 8192;
/// Largest size of a request's header section.
const MOST_HEADER_BYTES: u32 = 1 << 20;

/// Connections of a listener that have to give way, and whose descriptors are not closed yet.
pub(super) const CLOSING: usize = 8;

/// Limits on the connections of one listener, the same for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "test-support", derive(schemars::JsonSchema))]
pub struct ConnectionSettings {
    /// Connections at the same time; lowered at start where the process may not open as many files.
    pub total: usize,
    /// Connections from one source: an IPv4 address, or a /64 of IPv6; socket files have no such limit.
    pub per_source: usize,
    /// List of addresses and networks: sources that stand for many clients, such as `["127.0.0.1", "10.0.0.0/28"]`: proxies, load
    /// balancers, NAT gateways. `connections.per_source` is not for them.
    #[cfg_attr(feature = "test-support", schemars(with = "Vec<String>"))]
    pub shared_sources: Vec<IpNetwork>,
    /// Connections that have not sent a complete request yet, TLS handshakes included.
    pub pending: usize,
    /// Deadline of the first byte, from a connection's start.
    pub first_byte_ms: u64,
    /// Deadline of the TLS handshake, from a connection's start.
    pub handshake_ms: u64,
    /// Deadline of the head of the first request, from a connection's start.
    pub request_ms: u64,
    /// Time without a request in progress after which a connection is closed.
    pub idle_s: u64,
    /// Age, give or take a tenth, from which on a connection takes no new requests; those in progress go on for as long as they
    /// like, streams of nodes and watches too.
    pub age_s: u64,
    /// Header section of one request.
    pub header_bytes: u32,
    /// Requests in progress on one connection (HTTP/2).
    pub streams: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            total: 4096,
            per_source: 1024,
            shared_sources: Vec::new(),
            pending: 1024,
            first_byte_ms: 3000,
            handshake_ms: 5000,
            request_ms: 10_000,
            idle_s: 600,
            age_s: 3600,
            header_bytes: 16_384,
            streams: 100,
        }
    }
}

impl ConnectionSettings {
    /// Checks the ranges. `section` is the configuration's, such as `api.connections`.
    ///
    /// # Errors
    /// [`RangeError`] names the first key that is out of range.
    pub fn check(&self, section: &str) -> Result<(), RangeError> {
        let key = |name| format!("{section}.{name}");
        at_least(&key("total"), self.total, 1)?;
        at_least(&key("per_source"), self.per_source, 1)?;
        at_least(&key("pending"), self.pending, 1)?;
        let starts = [
            ("first_byte_ms", self.first_byte_ms),
            ("handshake_ms", self.handshake_ms),
            ("request_ms", self.request_ms),
        ];
        for (name, value) in starts {
            in_range(&key(name), value, &(1..=LONGEST_START_MS))?;
        }
        in_range(&key("idle_s"), self.idle_s, &(1..=LONGEST_S))?;
        in_range(&key("age_s"), self.age_s, &(1..=LONGEST_S))?;
        in_range(&key("header_bytes"), self.header_bytes, &(LEAST_HEADER_BYTES..=MOST_HEADER_BYTES))?;
        at_least(&key("streams"), self.streams, 1)
    }

    /// Lowers the totals, in proportion, so that all listeners together leave `reserve` descriptors of the `limit` of the
    /// process, or half of it where that is less. One source then gets at most a quarter of a listener. Returns true if
    /// something was lowered.
    pub fn fit(limit: u64, reserve: u64, listeners: &mut [&mut Self]) -> bool {
        let available = usize::try_from(limit - reserve.min(limit / 2)).unwrap_or(usize::MAX);
        let available = available.saturating_sub(CLOSING * listeners.len());
        let wanted = listeners.iter().fold(0, |sum: usize, settings| sum.saturating_add(settings.total));
        if wanted <= available {
            return false;
        }
        for settings in listeners {
            // The product of two counts of connections fits.
            let share = settings.total as u128 * available as u128 / wanted as u128;
            settings.total = usize::try_from(share).unwrap_or(usize::MAX).max(1);
            settings.per_source = settings.per_source.min((settings.total / 4).max(1));
        }
        true
    }

    pub(super) fn first_byte(&self) -> Duration {
        Duration::from_millis(self.first_byte_ms)
    }

    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms)
    }

    pub(super) fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }

    /// Age of one connection: nine to eleven tenths of the setting, by a random number from 0 to 1. Connections that came
    /// together do not all leave together.
    pub(super) fn age(&self, random: f64) -> Duration {
        Duration::from_secs(self.age_s).mul_f64(0.9 + random.clamp(0.0, 1.0) / 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_defaults_are_legal_and_what_is_not_is_named() {
        let settings = ConnectionSettings::default();
        assert_eq!(settings.check("api.connections"), Ok(()));
        let wrong = [
            (ConnectionSettings { total: 0, ..settings.clone() }, "api.connections.total is 0"),
            (ConnectionSettings { request_ms: 0, ..settings.clone() }, "api.connections.request_ms is 0"),
            (ConnectionSettings { header_bytes: 1, ..settings.clone() }, "header_bytes is 1: give 8192"),
            (ConnectionSettings { streams: 0, ..settings }, "streams is 0: give at least 1"),
        ];
        for (settings, words) in wrong {
            let error = settings.check("api.connections").unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn sources_are_addresses_and_networks() {
        let read = toml::from_str::<ConnectionSettings>;
        let settings = read("shared_sources = [\"10.0.0.1\", \"fd00::/64\"]").unwrap();
        assert_eq!(settings.shared_sources.len(), 2);
        assert!(read("shared_sources = [\"proxy.example\"]").is_err());
        assert!(read("totel = 1").unwrap_err().to_string().contains("totel"));
    }

    #[test]
    fn a_small_limit_is_shared_out_in_proportion() {
        let (mut api, mut metrics) = (ConnectionSettings::default(), ConnectionSettings::default());
        api.total = 3000;
        metrics.total = 1000;
        assert!(!ConnectionSettings::fit(65_536, 256, &mut [&mut api, &mut metrics]));
        assert_eq!((api.total, api.per_source), (3000, 1024));
        assert!(ConnectionSettings::fit(200, 256, &mut [&mut api, &mut metrics]));
        assert_eq!((api.total, api.per_source, metrics.total), (63, 15, 21));
    }

    proptest! {
        #[test]
        fn listeners_leave_the_reserve(
            limit in 8..100_000_u64,
            reserve in 0..1000_u64,
            totals in prop::collection::vec(1..10_000_usize, 1..5),
        ) {
            let mut all: Vec<_> =
                totals.iter().map(|total| ConnectionSettings { total: *total, ..Default::default() }).collect();
            ConnectionSettings::fit(limit, reserve, &mut all.iter_mut().collect::<Vec<_>>());
            let sum: usize = all.iter().map(|settings| settings.total).sum();
            let available = limit - reserve.min(limit / 2);
            // At least one each.
            prop_assert!((sum + CLOSING * all.len()) as u64 <= available.max(((CLOSING + 1) * all.len()) as u64));
            prop_assert!(all.iter().zip(&totals).all(|(settings, total)| (1..=*total).contains(&settings.total)));
        }

        #[test]
        fn ages_differ_by_a_tenth(random in 0.0..=1.0_f64) {
            let age = ConnectionSettings { age_s: 1000, ..Default::default() }.age(random).as_secs_f64();
            prop_assert!((899.9..=1100.1).contains(&age));
        }
    }
}
