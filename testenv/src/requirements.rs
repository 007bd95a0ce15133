//! What a machine must have to run a lab.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io};

const PROGRAMS: [&str; 14] = [
    "ovs-vswitchd",
    "ovsdb-server",
    "ovsdb-tool",
    "ovs-vsctl",
    "ovs-appctl",
    "ovn-northd",
    "ovn-controller",
    "ovn-nbctl",
    "ovn-sbctl",
    "ethtool",
    "ip",
    "unshare",
    "nsenter",
    "setpriv",
];

const FILES: [&str; 4] = [
    "/dev/net/tun",
    "/usr/share/ovn/ovn-nb.ovsschema",
    "/usr/share/ovn/ovn-sb.ovsschema",
    "/usr/share/openvswitch/vswitch.ovsschema",
];

/// Bits of `CapEff` in `/proc/self/status` (capability.h).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Checks all that a lab needs.
///
/// # Errors
/// All that is missing, in one sentence.
pub fn requirements() -> Result<(), String> {
    let mut missing = missing_capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    missing.extend(PROGRAMS.into_iter().filter(|program| !is_in_path(program)).map(str::to_owned));
    missing.extend(FILES.into_iter().filter(|file| !Path::new(file).exists()).map(str::to_owned));
    if missing.is_empty() && !may_unshare() {
        missing.push("permission to make mount, pid and network namespaces".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("missing: {}", missing.join(", "))) }
}

/// For the first line of a test: whether this machine can run a lab. If not, says `SKIPPED <test>: <reason>` on
/// standard error, past the capture of the test harness.
#[must_use]
pub fn can_run(test: &str) -> bool {
    match requirements() {
        Ok(()) => true,
        Err(reason) => {
            // Nothing useful can be done if standard error is closed.
            let _ = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
            false
        }
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
