//! Styles of statuses.

use anstyle::{AnsiColor, Effects, Style};
use fiberlb_proto::v1::{OperatingStatus, ProvisioningStatus, ResourceState};

/// Style of good statuses.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Style of transient and degraded statuses.
pub(crate) const FAIR: Style = AnsiColor::Yellow.on_default();
/// Style of failures.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// Style of text of less interest.
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
/// Style of names.
pub(crate) const STRONG: Style = Style::new().effects(Effects::BOLD);

/// Short name of a provisioning status, in its style.
pub(crate) fn provisioning(status: ProvisioningStatus) -> String {
    let style = match status {
        ProvisioningStatus::Active => GOOD,
        ProvisioningStatus::Error => BAD,
        ProvisioningStatus::Unspecified => DIM,
        ProvisioningStatus::PendingCreate
        | ProvisioningStatus::PendingUpdate
        | ProvisioningStatus::PendingDelete => FAIR,
    };
    painted(style, provisioning_name(status))
}

/// Reason code of a checked backend that waits for its first good probe.
const AWAITING_PROBE: &str = "AWAITING_PROBE";

/// Short name of a state's operating status, in its style.
pub(crate) fn operating(state: &ResourceState) -> String {
    let style = match state.operating_status() {
        OperatingStatus::Online => GOOD,
        OperatingStatus::Offline if state.reason_code == AWAITING_PROBE => FAIR,
        OperatingStatus::Offline | OperatingStatus::Error => BAD,
        OperatingStatus::Degraded | OperatingStatus::Draining => FAIR,
        OperatingStatus::NoMonitor | OperatingStatus::Unspecified => DIM,
    };
    painted(style, operating_name(state.operating_status()))
}

/// Short name of a provisioning status; "-" if unspecified.
pub(crate) fn provisioning_name(status: ProvisioningStatus) -> &'static str {
    short(status.as_str_name(), "PROVISIONING_STATUS_")
}

/// Short name of an operating status; "-" if unspecified.
pub(crate) fn operating_name(status: OperatingStatus) -> &'static str {
    short(status.as_str_name(), "OPERATING_STATUS_")
}

/// Name of an enum value without its prefix; "-" if unspecified.
fn short(name: &'static str, prefix: &str) -> &'static str {
    match name.strip_prefix(prefix) {
        Some("UNSPECIFIED") => "-",
        Some(short) => short,
        None => name,
    }
}

/// Text in a style.
pub(crate) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
