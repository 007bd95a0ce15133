//! Requirements of a lab on its machine.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use fiberlb_ovn_release::{Release, Version};

use crate::abort;

const PROGRAMS: [&str; 5] = ["ethtool", "ip", "unshare", "nsenter", "setpriv"];
/// Without it there is no userspace datapath.
const TUN: &str = "/dev/net/tun";

/// Bits of `CapEff` in `/proc/self/status` (capability.h).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Checks all that a lab needs.
///
/// # Errors
/// All that is missing, in one sentence, or why the OVN release that was chosen cannot be used.
pub fn requirements() -> Result<(), String> {
    let mut missing = missing_capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    missing.extend(PROGRAMS.into_iter().filter(|program| !is_in_path(program)).map(str::to_owned));
    missing.extend(Some(TUN).filter(|file| !Path::new(file).exists()).map(str::to_owned));
    if missing.is_empty() && !may_unshare() {
        missing.push("permission to make mount, pid and network namespaces".to_owned());
    }
    if !missing.is_empty() {
        let hint = if nix::unistd::geteuid().is_root() { "" } else { "; be root" };
        return Err(format!("missing: {}{hint}", missing.join(", ")));
    }
    Release::chosen().map(drop).map_err(|why| why.to_string())
}

/// For the first line of a test: whether this machine can run a lab. If not, says `SKIPPED <test>: <reason>` on
/// standard error, past the capture of the test harness. `test` is the name of its function.
///
/// Also no where the test has just been run by this: on a release that aborts by itself ([`abort`]) in a process of its own,
/// and again when it failed after an abort.
///
/// # Panics
/// If the test has failed there.
#[must_use]
pub fn can_run(test: &str) -> bool {
    match requirements() {
        Ok(()) => !abort::ran_apart(test),
        Err(reason) => {
            // Nothing useful can be done if standard error is closed.
            let _ = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
            false
        }
    }
}

/// The same for a test of what OVN has since a release.
#[must_use]
pub fn can_run_on(test: &str, least: Version) -> bool {
    match Release::chosen() {
        Ok(release) if release.ovn() < least => {
            // As above.
            let _ = writeln!(io::stderr(), "SKIPPED {test}: needs OVN {least}, and this is {release}");
            false
        }
        _ => can_run(test),
    }
}

/// The same for a test that needs more programs, such as `etcd`.
#[must_use]
pub fn can_run_with(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_in_path(program)).collect();
    if !missing.is_empty() {
        // As above.
        let _ = writeln!(io::stderr(), "SKIPPED {test}: missing: {}", missing.join(", "));
    }
    missing.is_empty() && can_run(test)
}

fn missing_capabilities(status: &str) -> Vec<String> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    let lacks = |(bit, _): &(u32, &str)| effective >> bit & 1 == 0;
    CAPABILITIES.into_iter().filter(lacks).map(|(_, name)| name.to_owned()).collect()
}

fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn may_unshare() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--pid", "--net", "--fork", "true"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t0000000000001000\n"), ["CAP_SYS_ADMIN"]);
        assert_eq!(missing_capabilities("nonsense"), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    }
}
