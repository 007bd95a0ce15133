//! Styles of statuses.

use anstyle::{AnsiColor, Effects, Style};
use fiberlb_proto::v1::{OperatingStatus, ProvisioningStatus};

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

/// Short name of an operating status, in its style.
pub(crate) fn operating(status: OperatingStatus) -> String {
    let style = match status {
        OperatingStatus::Online => GOOD,
        OperatingStatus::Offline | OperatingStatus::Error => BAD,
        OperatingStatus::Degraded | OperatingStatus::Draining => FAIR,
        OperatingStatus::NoMonitor | OperatingStatus::Unspecified => DIM,
    };
    painted(style, operating_name(status))
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
