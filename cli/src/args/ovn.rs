//! The commands about OVN's northbound database.

use clap::Command;

use super::fleet::{group, timeout};

/// `ovn`.
pub(super) fn command() -> Command {
    let verify = Command::new("verify")
        .about("Show what OVN holds and should not, and the other way round; change nothing")
        .arg(timeout())
        .after_help(VERIFY_HELP);
    group("ovn", [verify]).about("OVN's northbound database, beside what it should hold")
}

const VERIFY_HELP: &str = "\
Exit code 0: no difference. 1: there is one. Rows that are not FiberLB's are not looked at. Give very many load balancers
more time: --timeout 60s.

Examples:
  fiberlb ovn verify
  fiberlb ovn verify -o json | jq '.differences[] | select(.kind == \"OVN_DIFFERENCE_KIND_MISSING\")'";
