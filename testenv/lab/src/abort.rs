//! The abort of Open vSwitch 3.1.0 in its userspace conntrack, which Debian bookworm has: about one demo in four meets it, and
//! nothing of FiberLB is in there. On that release alone tests are repeated, skipped or excused for it; elsewhere every emergency of
//! a daemon is a failure.

use std::env;
use std::process::{Command, Output};
use std::thread;

use fiberlb_ovn_release::{Release, Version};

/// The assertion that fails.
const ASSERTION: &str = "assertion conn->conn_type == CT_CONN_TYPE_DEFAULT failed in conn_update_state()";
/// The release that has the fault.
const OPEN_VSWITCH: Version = Version::new(3, 1, 0);

/// Times that a test is tried while that happens.
const ATTEMPTS: usize = 3;
/// Set for a test that is watched by the process that started it.
const WATCHED: &str = "FIBERLB_WATCHED_FOR_ABORTS";

/// True on the release that aborts by itself, where a test may be retried after an abort.
#[must_use]
pub fn happens_here() -> bool {
    Release::chosen().is_ok_and(|release| release.ovs() == OPEN_VSWITCH)
}

/// True if all emergencies, a line each, are this abort, on the release that has it.
#[must_use]
pub fn excuses(emergencies: &str) -> bool {
    happens_here() && is_abort(emergencies)
}

fn is_abort(emergencies: &str) -> bool {
    !emergencies.is_empty() && emergencies.lines().all(|line| line.contains(ASSERTION))
}

/// On a release that aborts by itself, runs a test of the running test binary in a process of its own, and again, which it
/// says, when it failed after an abort. One that meets the abort each time, as those with much traffic may, is skipped: it says nothing
/// of FiberLB, and is run on releases without the fault. Gives whether it has been run so; else it is to be run as usual.
///
/// # Panics
/// If the test failed otherwise.
pub(crate) fn ran_apart(test: &str) -> bool {
    if !happens_here() || env::var_os(WATCHED).is_some() {
        return false;
    }
    // The harness names the thread by the whole path of the test, where it gives it one.
    let thread = thread::current();
    let name = thread.name().filter(|name| name.ends_with(test)).unwrap_or(test);
    for attempt in 1.. {
        let Some(output) = run_test(name) else { return false };
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        eprint!("{said}");
        if output.status.success() {
            return said.contains("running 1 test");
        }
        assert!(is_abort(&emergencies(&said)), "{name} failed, see above (attempt {attempt})");
        if attempt == ATTEMPTS {
            eprintln!("SKIPPED {name}: ovs-vswitchd aborted in its conntrack in each of {ATTEMPTS} attempts");
            return true;
        }
        eprintln!("AGAIN {name}: ovs-vswitchd aborted in its conntrack (attempt {attempt})");
    }
    unreachable!("one of the attempts is the last")
}

/// The test in a process of its own, which ends with this thread.
fn run_test(name: &str) -> Option<Output> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(env::current_exe().ok()?);
    command.args([name, "--exact", "--nocapture"]).env(WATCHED, "1").output().ok()
}

/// The lines in which a lab says what emergencies its daemons logged.
fn emergencies(said: &str) -> String {
    said.lines().filter(|line| line.contains("|EMER|")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emergencies_are_found_in_what_a_test_says() {
        let said = format!(
            "lab x: a daemon of the lab logged an emergency:\nch1.vswitchd.log: |EMER|{ASSERTION}\nlogs"
        );
        assert_eq!(emergencies(&said), format!("ch1.vswitchd.log: |EMER|{ASSERTION}"));
        assert!(is_abort(&emergencies(&said)) && !is_abort(&emergencies("lab x: logs are in /y")));
    }

    #[test]
    fn no_other_emergency_is_taken_for_the_abort() {
        let abort = format!("ch1.vswitchd.log: x|00002|util|EMER|lib/conntrack.c:1: {ASSERTION}");
        assert!(is_abort(&abort) && !is_abort(""));
        assert!(!is_abort(&format!("{abort}\nnb.log: x|00001|util|EMER|out of memory")));
    }
}
