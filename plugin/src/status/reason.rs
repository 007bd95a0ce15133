//! Reasons of statuses: a stable code for programs, beside a sentence for people.

/// Declares the codes, with their names.
macro_rules! codes {
    ($($(#[doc = $doc:literal])* $code:ident => $name:literal,)*) => {
        /// Stable code of a reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum StatusCode {
            $($(#[doc = $doc])* $code,)*
        }

        impl StatusCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// Their meanings, for `docs/`.
            #[cfg(test)]
            pub(crate) const DOCS: &'static [&'static str] = &[$(concat!($($doc),*)),*];

            /// Name of the code in the API; empty where there is nothing to explain.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }
        }
    };
}

codes! {
    /// Nothing to explain.
    None => "",
    /// Stored, and waits for a dependency: the northbound database, or a leader.
    Waiting => "WAITING",
    /// The last attempt to apply it failed; another one follows.
    ApplyFailed => "APPLY_FAILED",
    /// The network does not exist any more: nothing is served.
    NetworkGone => "NETWORK_GONE",
    /// Not applied yet.
    NotInForce => "NOT_IN_FORCE",
    /// `admin_state_up` is false, its own or that of a resource above it or that it uses.
    SwitchedOff => "SWITCHED_OFF",
    /// A load balancer without listeners.
    NoListener => "NO_LISTENER",
    /// No listener serves.
    AllListenersFailed => "ALL_LISTENERS_FAILED",
    /// Some listeners have trouble.
    SomeListenersFailed => "SOME_LISTENERS_FAILED",
    /// All listeners are offline.
    AllListenersOffline => "ALL_LISTENERS_OFFLINE",
    /// A listener that cannot be carried as it is specified.
    Refused => "REFUSED",
    /// A listener without a pool.
    NoDefaultPool => "NO_DEFAULT_POOL",
    /// The listener's pool is not applied yet: it serves as before.
    PoolNotInForce => "POOL_NOT_IN_FORCE",
    /// Some of the listener's pools do not serve: the others have their shares.
    SomePoolsFailed => "SOME_POOLS_FAILED",
    /// The listener's next carrier does not serve yet: the one before goes on.
    CarrierAwaited => "CARRIER_AWAITED",
    /// Backends to which sessions stay are also those of another such listener: they cannot reach the VIP themselves.
    SharedSessions => "SHARED_SESSIONS",
    /// No proxy serves the listener.
    NoProxy => "NO_PROXY",
    /// Some proxies of the listener have trouble.
    SomeProxiesFailed => "SOME_PROXIES_FAILED",
    /// The network leads to a physical one, where chance decides whether OVN serves a client: DIRECT exposure is the way there.
    PhysicalNetwork => "PHYSICAL_NETWORK",
    /// A VIP for whose family the pool has no backend, where OVN carries the listener: `datapath` PROXY serves it.
    UnservedFamily => "UNSERVED_FAMILY",
    /// Backends are VIPs of other load balancers, and OVN, which carries the listener, balances a packet once: `datapath` PROXY reaches
    /// them.
    BackendIsVip => "BACKEND_IS_VIP",
    /// Stateless ACLs on the network keep the packets that they match from being balanced.
    StatelessAcls => "STATELESS_ACLS",
    /// A pool without backends.
    NoBackend => "NO_BACKEND",
    /// No backend is applied yet.
    NoBackendInForce => "NO_BACKEND_IN_FORCE",
    /// Every backend is switched off or has weight 0.
    NoBackendEnabled => "NO_BACKEND_ENABLED",
    /// Every backend is down.
    AllBackendsDown => "ALL_BACKENDS_DOWN",
    /// Some backends are down.
    SomeBackendsDown => "SOME_BACKENDS_DOWN",
    /// The proxy nodes disagree on backends.
    NodesDisagree => "NODES_DISAGREE",
    /// Waits for the first good probe, and takes no connections until then.
    AwaitingProbe => "AWAITING_PROBE",
    /// In rotation, and nobody has checked it yet.
    NotCheckedYet => "NOT_CHECKED_YET",
    /// In rotation, and no proxy node can check it.
    NotChecked => "NOT_CHECKED",
    /// Probes of a backend say nothing, for a reason of the nodes': its last verdict stands.
    ProbesInconclusive => "PROBES_INCONCLUSIVE",
    /// Probes fail.
    Down => "DOWN",
    /// Weight 0: no new connections.
    WeightZero => "WEIGHT_ZERO",
    /// No proxy node can run the check.
    NoChecker => "NO_CHECKER",
    /// Proxy nodes run the check.
    Checked => "CHECKED",
}

/// Code and sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) code: StatusCode,
    pub(super) text: String,
}

impl Why {
    /// Nothing to explain.
    pub(super) const NONE: Self = Self { code: StatusCode::None, text: String::new() };

    pub(super) fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_codes_share_a_name() {
        let names: BTreeSet<&str> = StatusCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), StatusCode::ALL.len());
    }
}
