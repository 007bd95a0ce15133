//! Commands about OVN's northbound database.

use clap::Command;

use super::fleet::{group, timeout};

/// Command `ovn`.
pub(super) fn command() -> Command {
    let verify = Command::new("verify")
        .about("Compare OVN with the desired state and show the differences, without changing anything")
        .arg(timeout())
        .after_help(VERIFY_HELP);
    group("ovn", [verify]).about("OVN's northbound database, compared with the desired state")
}

const VERIFY_HELP: &str = "\
Exit code 0: no differences. 1: differences. Rows that are not FiberLB's are ignored. With very many load balancers, raise
the timeout: --timeout 60s.

Examples:
  fiberlb ovn verify
  fiberlb ovn verify -o json | jq '.differences[] | select(.kind == \"OVN_DIFFERENCE_KIND_MISSING\")'";
