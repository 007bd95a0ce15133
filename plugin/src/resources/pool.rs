//! A set of backends with an algorithm.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::resource::differences;
use super::tree::TreeLookup;
use super::violation::Form;
use super::{Child, Common, Datapath, Kind, Resource};

/// Protocol of a pool's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PoolProtocol {
    /// Any byte stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// RFC 9260.
    Sctp,
    /// HTTP behind a listener that passes it through.
    Http,
    /// TLS behind a listener that passes it through.
    Https,
    /// Any byte stream behind a header of PROXY protocol, version 1.
    Proxy,
    /// The same of version 2.
    #[serde(rename = "PROXYV2")]
    ProxyV2,
}

/// Algorithm by which a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Algorithm {
    /// In proportion to the weights.
    RoundRobin,
    /// One client address, one backend.
    SourceIp,
    /// By client address and port.
    SourceIpPort,
    /// The backend with the fewest connections in proportion to its weight. Proxies only.
    LeastConnections,
    /// Drawn by weight. Proxies only.
    Random,
    /// The one with fewer connections in proportion to its weight, of two that are drawn. Proxies only.
    PowerOfTwoChoices,
}

/// Session persistence of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// By client address, until the client was idle for the timeout.
    SourceIp {
        /// 1 to 65535.
        timeout_s: u16,
    },
}

/// Passive health check of a pool. Proxies only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveHealthCheck {
    /// Connections in a row that fail, and eject a backend.
    pub consecutive_failures: u8,
    /// Time of a first ejection, in milliseconds; the n-th in a row takes n times as long.
    pub ejection_ms: u32,
    /// Longest time of an ejection, in milliseconds.
    pub max_ejection_ms: u32,
    /// Most of the pool's backends that are ejected at a time, in percent.
    pub max_ejected_percent: u8,
}

/// A set of backends with an algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Name, description, tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its load balancer.
    pub load_balancer_id: Uuid,
    /// Protocol of its backends.
    pub protocol: PoolProtocol,
    /// Algorithm by which a backend is chosen.
    pub algorithm: Algorithm,
    /// Session persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Time that established connections may go on once their backend is gone, in milliseconds; 0: none. `None`: as long
    /// as they last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout_ms: Option<u32>,
    /// Time in which the share of a backend that begins to take connections grows to all of it, in milliseconds. Proxies
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u32>,
    /// Passive health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_health_check: Option<PassiveHealthCheck>,
    /// Connections that wait on each node while all backends are at their limits; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queue_limit: u32,
    /// Time that a connection waits, in milliseconds. `None`: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u32>,
    /// False: its listeners refuse.
    pub admin_state_up: bool,
}

impl Pool {
    /// Timeout of a persistence that names none, in seconds. Same as in OVN's provider for Octavia.
    pub const PERSISTENCE_S: u16 = 360;

    /// The longest drain timeout, in milliseconds: one day.
    const MAX_DRAIN_MS: u32 = 86_400_000;

    /// Legal slow starts, in milliseconds.
    const SLOW_STARTS_MS: RangeInclusive<u32> = 1_000..=3_600_000;

    /// Default time that a connection waits for a place, in milliseconds.
    pub const QUEUE_TIMEOUT_MS: u32 = 5_000;

    /// Legal lengths of queues.
    const QUEUE_LIMITS: RangeInclusive<u32> = 0..=10_000;

    /// Legal times in queues, in milliseconds: up to an hour.
    const QUEUE_TIMEOUTS_MS: RangeInclusive<u32> = 1..=3_600_000;

    /// Setting in which it is unlike another pool, and in which OVN cannot keep two pools of one listener apart, with its field.
    pub fn ovn_difference(&self, other: &Self) -> Option<(&'static str, &'static str)> {
        let cuts = |pool: &Self| pool.drain_timeout_ms == Some(0);
        let differences = [
            (self.algorithm != other.algorithm, "algorithm", "algorithm"),
            (self.persistence != other.persistence, "session_persistence", "session persistence"),
            (cuts(self) != cuts(other), "drain_timeout", "drain timeout"),
        ];
        differences.into_iter().find(|(differs, ..)| *differs).map(|(_, field, words)| (field, words))
    }
}

/// True for a number that need not be stored.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Pool {
    fn check_slow_start(&self, form: &mut Form<'_>) {
        let Some(slow_start_ms) = self.slow_start_ms else { return };
        if !form.check_millis("slow_start", slow_start_ms, &Self::SLOW_STARTS_MS) {
            return;
        }
        if self.algorithm.is_hash() {
            let algorithm = self.algorithm.as_str();
            form.invalid("slow_start", format!("is for algorithms that keep no client, not for {algorithm}"));
        } else if self.protocol == PoolProtocol::Sctp {
            form.invalid("slow_start", "needs the proxy, which does not carry SCTP");
        }
    }

    fn check_drain_timeout(&self, form: &mut Form<'_>) {
        let Some(drain_timeout_ms) = self.drain_timeout_ms else { return };
        if drain_timeout_ms > Self::MAX_DRAIN_MS {
            form.invalid("drain_timeout", "must be 0 s to 86400 s");
        } else if !self.protocol.has_connections() {
            let protocol = self.protocol.as_str();
            form.invalid(
                "drain_timeout",
                format!("is for connections that can be reset, not for {protocol}"),
            );
        }
    }

    /// True if connections of a backend that is gone may go on for some time, and are then reset.
    pub fn waits_for_connections(&self) -> bool {
        self.drain_timeout_ms.is_some_and(|timeout| timeout > 0)
    }

    fn check_queue(&self, form: &mut Form<'_>) {
        form.check_range("queue_limit", self.queue_limit, &Self::QUEUE_LIMITS);
        if self.queue_limit > 0 && !self.protocol.has_connections() {
            let protocol = self.protocol.as_str();
            form.invalid("queue_limit", format!("is for connections that can wait, not for {protocol}"));
        }
        let Some(timeout) = self.queue_timeout_ms else { return };
        if form.check_millis("queue_timeout", timeout, &Self::QUEUE_TIMEOUTS_MS) && self.queue_limit == 0 {
            form.invalid("queue_timeout", "belongs to a queue_limit of more than 0");
        }
    }
}

impl PassiveHealthCheck {
    /// Legal numbers of failures.
    pub const FAILURES: RangeInclusive<u8> = 1..=100;
    /// Legal percentages of a pool's backends.
    pub const PERCENTAGES: RangeInclusive<u8> = 1..=100;
    /// Legal times of a first ejection, in milliseconds.
    const EJECTIONS_MS: RangeInclusive<u32> = 1_000..=3_600_000;
    /// Longest time of any ejection, in milliseconds: one day.
    const LONGEST_EJECTION_MS: u32 = 86_400_000;

    fn check(&self, form: &mut Form<'_>) {
        form.check_range(
            "passive_health_check.consecutive_failures",
            self.consecutive_failures,
            &Self::FAILURES,
        );
        let is_legal =
            form.check_millis("passive_health_check.ejection_time", self.ejection_ms, &Self::EJECTIONS_MS);
        let least = if is_legal { self.ejection_ms } else { *Self::EJECTIONS_MS.start() };
        let longest = least..=Self::LONGEST_EJECTION_MS;
        form.check_millis("passive_health_check.max_ejection_time", self.max_ejection_ms, &longest);
        form.check_range(
            "passive_health_check.max_ejected_percent",
            self.max_ejected_percent,
            &Self::PERCENTAGES,
        );
    }
}

impl Algorithm {
    /// Name of the algorithm in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "ROUND_ROBIN",
            Self::SourceIp => "SOURCE_IP",
            Self::SourceIpPort => "SOURCE_IP_PORT",
            Self::LeastConnections => "LEAST_CONNECTIONS",
            Self::Random => "RANDOM",
            Self::PowerOfTwoChoices => "POWER_OF_TWO_CHOICES",
        }
    }

    /// True if OVN does not know it, and proxies do.
    pub const fn needs_proxy(self) -> bool {
        match self {
            Self::RoundRobin | Self::SourceIp | Self::SourceIpPort => false,
            Self::LeastConnections | Self::Random | Self::PowerOfTwoChoices => true,
        }
    }

    /// True if it chooses by a hash of the client.
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::SourceIp | Self::SourceIpPort)
    }

    /// True if it draws backends at random.
    pub const fn draws(self) -> bool {
        matches!(self, Self::Random | Self::PowerOfTwoChoices)
    }
}

impl PoolProtocol {
    /// True if what it carries are connections that either side can reset.
    pub const fn has_connections(self) -> bool {
        !matches!(self, Self::Udp | Self::Sctp)
    }

    /// Name of the protocol in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Proxy => "PROXY",
            Self::ProxyV2 => "PROXYV2",
        }
    }

    /// True if connections to the backends begin with a header of PROXY protocol.
    pub const fn has_header(self) -> bool {
        matches!(self, Self::Proxy | Self::ProxyV2)
    }
}

impl Resource for Pool {
    const PARENT: Option<Kind> = Some(Kind::LoadBalancer);
    const PARENT_FIELD: &'static str = "load_balancer_id";
    const IMMUTABLE: &'static [&'static str] = &["load_balancer_id", "protocol"];

    fn parent(&self) -> Option<Uuid> {
        Some(self.load_balancer_id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, form: &mut Form<'_>) {
        self.common.check(form);
        if self.algorithm.needs_proxy() && self.protocol == PoolProtocol::Sctp {
            let algorithm = self.algorithm.as_str();
            form.invalid("algorithm", format!("{algorithm} needs the proxy, which does not carry SCTP"));
        }
        if self.persistence == Some(Persistence::SourceIp { timeout_s: 0 }) {
            form.invalid("session_persistence.timeout", "must be 1 s to 65535 s, in whole seconds");
        }
        self.check_drain_timeout(form);
        self.check_queue(form);
        self.check_slow_start(form);
        if let Some(check) = &self.passive_health_check {
            check.check(form);
            if self.protocol == PoolProtocol::Sctp {
                form.invalid("passive_health_check", "needs the proxy, which does not carry SCTP");
            }
        }
    }

    fn check_in(&self, id: Uuid, lookup: &TreeLookup<'_>, form: &mut Form<'_>) {
        let asking = [
            (self.algorithm.needs_proxy(), "algorithm", self.algorithm.as_str()),
            (self.waits_for_connections(), "drain_timeout", "more than 0 s"),
            (self.slow_start_ms.is_some(), "slow_start", "a slow start"),
            (self.passive_health_check.is_some(), "passive_health_check", "a passive health check"),
            (self.queue_limit > 0, "queue_limit", "a queue"),
        ];
        let is_used = |listener: &super::Listener| listener.uses(id);
        let is_stuck = |listener: &super::Listener| {
            listener.datapath == Datapath::Ovn || !listener.protocol.is_proxied()
        };
        let tree = lookup.tree();
        let listeners = tree.listeners.values().filter(|listener| !listener.deleting);
        let stuck: Vec<_> = listeners.filter(|it| is_used(&it.spec) && is_stuck(&it.spec)).collect();
        let why = "needs the proxy, which cannot carry listener";
        for (_, field, what) in asking.into_iter().filter(|(asks, ..)| *asks) {
            if let Some(stuck) = stuck.first() {
                form.unmet(field, format!("{what} {why} {}: its datapath is OVN, or it is SCTP", stuck.id));
            }
        }
        for stuck in stuck {
            let differing =
                tree.pools_of(&stuck.spec).find_map(|(other, _)| self.ovn_difference(&other.spec));
            if let Some((field, what)) = differing.filter(|(field, _)| !form.has_wrong(field)) {
                let what = format!("a difference in {what} between the pools of one listener");
                form.unmet(field, format!("{what} {why} {}: its datapath is OVN, or it is SCTP", stuck.id));
            }
        }
    }
}

impl Child for Pool {
    const KEY_FIELDS: &'static [&'static str] = &["name"];

    fn set_parent(&mut self, parent: Uuid) {
        self.load_balancer_id = parent;
    }

    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        differences!(self, other, [load_balancer_id => "load_balancer_id", protocol => "protocol"])
    }

    fn natural_key(&self) -> Option<String> {
        (!self.common.name.is_empty()).then(|| self.common.name.clone())
    }

    fn how_to_replace() -> &'static str {
        "cannot be changed: another pool, with another name and without this id, can take its place"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::super::examples::{PASSIVE, POOL, tree};
    use super::*;

    #[test]
    fn a_drain_timeout_is_for_a_day_at_most_and_for_what_can_be_reset() {
        use PoolProtocol as P;
        for (protocol, timeout, is_fine) in [
            (P::Tcp, Some(0), true),
            (P::ProxyV2, Some(86_400_000), true),
            (P::Https, Some(86_400_001), false),
            (P::Udp, Some(0), false),
            (P::Sctp, Some(1), false),
            (P::Udp, None, true),
        ] {
            let pool = tree().pools[&POOL].spec.clone();
            let pool = Pool { protocol, drain_timeout_ms: timeout, ..pool };
            let mut violations = Violations::default();
            pool.check(&mut Form::new("", &mut violations));
            assert_eq!(
                (violations.is_empty(), violations.has_below("drain_timeout")),
                (is_fine, !is_fine),
                "{protocol:?} {timeout:?}"
            );
        }
    }

    #[test]
    fn a_queue_is_bounded_and_for_what_can_wait() {
        use PoolProtocol as P;
        for (protocol, limit, timeout, wrong) in [
            (P::Tcp, 10_000, None, None),
            (P::Proxy, 1, Some(3_600_000), None),
            (P::Udp, 0, None, None),
            (P::Tcp, 10_001, None, Some("queue_limit")),
            (P::Udp, 1, None, Some("queue_limit")),
            (P::Sctp, 1, None, Some("queue_limit")),
            (P::Tcp, 1, Some(0), Some("queue_timeout")),
            (P::Tcp, 1, Some(3_600_001), Some("queue_timeout")),
            (P::Tcp, 0, Some(1), Some("queue_timeout")),
        ] {
            let pool = tree().pools[&POOL].spec.clone();
            let pool = Pool { protocol, queue_limit: limit, queue_timeout_ms: timeout, ..pool };
            let mut violations = Violations::default();
            pool.check(&mut Form::new("", &mut violations));
            let paths: Vec<&str> = violations.paths().collect();
            assert_eq!(paths, Vec::from_iter(wrong), "{protocol:?} {limit} {timeout:?}");
        }
    }

    #[test]
    fn a_slow_start_is_for_an_hour_at_most_and_for_shares_that_proxies_can_change() {
        use {Algorithm as A, PoolProtocol as P};
        for (protocol, algorithm, slow_start, is_fine) in [
            (P::Tcp, A::RoundRobin, None, true),
            (P::Tcp, A::RoundRobin, Some(1_000), true),
            (P::Udp, A::Random, Some(3_600_000), true),
            (P::ProxyV2, A::LeastConnections, Some(1_500), true),
            (P::Tcp, A::RoundRobin, Some(999), false),
            (P::Sctp, A::SourceIp, Some(3_600_001), false),
            (P::Sctp, A::RoundRobin, Some(1_000), false),
            (P::Tcp, A::SourceIp, Some(1_000), false),
            (P::Sctp, A::SourceIpPort, Some(1_000), false),
        ] {
            let pool = tree().pools[&POOL].spec.clone();
            let pool = Pool { protocol, algorithm, slow_start_ms: slow_start, ..pool };
            let mut violations = Violations::default();
            pool.check(&mut Form::new("", &mut violations));
            let fields: Vec<String> = violations.into_vec().into_iter().map(|it| it.field).collect();
            let wanted: &[&str] = if is_fine { &[] } else { &["slow_start"] };
            assert_eq!(fields, wanted, "{protocol:?} {algorithm:?} {slow_start:?}");
        }
    }

    #[test]
    fn a_passive_health_check_is_held_to_its_ranges() {
        type Edit = fn(&mut Pool, &mut PassiveHealthCheck);
        let cases: [(Edit, &[&str]); 9] = [
            (|_, _| {}, &[]),
            (|_, it| (it.ejection_ms, it.max_ejection_ms) = (1_000, 1_000), &[]),
            (|_, it| (it.ejection_ms, it.max_ejection_ms) = (3_600_000, 86_400_000), &[]),
            (|_, it| it.consecutive_failures = 0, &["passive_health_check.consecutive_failures"]),
            (|_, it| it.ejection_ms = 999, &["passive_health_check.ejection_time"]),
            (|_, it| it.max_ejection_ms = 29_999, &["passive_health_check.max_ejection_time"]),
            (|_, it| it.max_ejection_ms = 86_400_001, &["passive_health_check.max_ejection_time"]),
            (|_, it| it.max_ejected_percent = 101, &["passive_health_check.max_ejected_percent"]),
            (|pool, _| pool.protocol = PoolProtocol::Sctp, &["passive_health_check"]),
        ];
        for (edit, wanted) in cases {
            let (mut pool, mut check) = (tree().pools[&POOL].spec.clone(), PASSIVE);
            edit(&mut pool, &mut check);
            pool.passive_health_check = Some(check);
            let mut violations = Violations::default();
            pool.check(&mut Form::new("", &mut violations));
            let fields: Vec<String> = violations.into_vec().into_iter().map(|it| it.field).collect();
            assert_eq!(fields, wanted, "{pool:?}");
        }
    }

    #[test]
    fn what_no_proxy_carries_cannot_have_an_algorithm_of_proxies() {
        use PoolProtocol as P;
        let of_proxies = [Algorithm::LeastConnections, Algorithm::Random, Algorithm::PowerOfTwoChoices];
        for (protocol, is_proxied) in
            [(P::Tcp, true), (P::Https, true), (P::ProxyV2, true), (P::Udp, true), (P::Sctp, false)]
        {
            for algorithm in of_proxies.into_iter().chain([Algorithm::RoundRobin, Algorithm::SourceIp]) {
                let pool = tree().pools[&POOL].spec.clone();
                let pool = Pool { protocol, algorithm, ..pool };
                let mut violations = Violations::default();
                pool.check(&mut Form::new("", &mut violations));
                let is_fine = is_proxied || !of_proxies.contains(&algorithm);
                assert_eq!(
                    (violations.is_empty(), violations.has_below("algorithm")),
                    (is_fine, !is_fine),
                    "{protocol:?} {algorithm:?}"
                );
            }
        }
    }
}
