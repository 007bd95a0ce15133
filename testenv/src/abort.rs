//! The abort of Open vSwitch 3.1 in its userspace conntrack, which Debian bookworm has: about one demo in four meets it, and
//! nothing of FiberLB is in there. On that release alone tests are repeated or excused for it; elsewhere every emergency of
//! a daemon is a failure.

use fiberlb_ovn_release::{Release, Version};

/// The assertion that fails.
const ASSERTION: &str = "assertion conn->conn_type == CT_CONN_TYPE_DEFAULT failed in conn_update_state()";
/// The release that has the fault.
const OPEN_VSWITCH: Version = Version::new(3, 1, 0);

/// Whether this release aborts by itself, so that a test may be repeated when it has.
#[must_use]
pub fn happens_here() -> bool {
    Release::chosen().is_ok_and(|release| release.ovs().is_same_series(OPEN_VSWITCH))
}

/// Whether emergencies, a line each, are nothing but this abort on a release that has it.
#[must_use]
pub fn excuses(emergencies: &str) -> bool {
    happens_here() && is_abort(emergencies)
}

fn is_abort(emergencies: &str) -> bool {
    !emergencies.is_empty() && emergencies.lines().all(|line| line.contains(ASSERTION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_emergency_is_taken_for_the_abort() {
        let abort = format!("ch1.vswitchd.log: x|00002|util|EMER|lib/conntrack.c:1: {ASSERTION}");
        assert!(is_abort(&abort) && !is_abort(""));
        assert!(!is_abort(&format!("{abort}\nnb.log: x|00001|util|EMER|out of memory")));
    }
}
