//! Colours of statuses.

use anstyle::{AnsiColor, Effects, Style};
use fiberlb_proto::v1::{OperatingStatus, ProvisioningStatus};

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Under way, or not as good as it could be.
pub(crate) const FAIR: Style = AnsiColor::Yellow.on_default();
/// Down or failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// Of less interest.
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
/// Names.
pub(crate) const STRONG: Style = Style::new().effects(Effects::BOLD);

/// A provisioning status in its colour, by the name that the field knows.
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

/// An operating status in its colour, by the name that the field knows.
pub(crate) fn operating(status: OperatingStatus) -> String {
    let style = match status {
        OperatingStatus::Online => GOOD,
        OperatingStatus::Offline | OperatingStatus::Error => BAD,
        OperatingStatus::Degraded | OperatingStatus::Draining => FAIR,
        OperatingStatus::NoMonitor | OperatingStatus::Unspecified => DIM,
    };
    painted(style, operating_name(status))
}

/// The name that the field knows; "-" for what the server does not say.
pub(crate) fn provisioning_name(status: ProvisioningStatus) -> &'static str {
    known(status.as_str_name(), "PROVISIONING_STATUS_")
}

/// The name that the field knows; "-" for what the server does not say.
pub(crate) fn operating_name(status: OperatingStatus) -> &'static str {
    known(status.as_str_name(), "OPERATING_STATUS_")
}

/// A full name of an enum value without its prefix; "-" for the one that says nothing.
fn known(name: &'static str, prefix: &str) -> &'static str {
    match name.strip_prefix(prefix) {
        Some("UNSPECIFIED") => "-",
        Some(short) => short,
        None => name,
    }
}

/// The text between the codes that switch a style on and off.
pub(crate) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
