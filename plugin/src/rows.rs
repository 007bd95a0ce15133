//! UUIDs of the northbound rows that belong to one resource. They are derived, so that inserts are
//! idempotent, and so that a row is found without a search.

use fiberlb_northbound::plan::Installation;
use uuid::Uuid;

/// UUID of the logical switch port that keeps a load balancer's addresses, if it alone does.
pub(crate) fn reservation_row(installation: Installation, load_balancer: Uuid) -> Uuid {
    installation.row("vip", &load_balancer.to_string())
}

/// UUID of the `Load_Balancer` row by which a network's responder answers for a load balancer's VIPs.
pub(crate) fn answer_row(installation: Installation, load_balancer: Uuid) -> Uuid {
    installation.row("answer", &load_balancer.to_string())
}

/// UUID of the `Load_Balancer` row of a listener.
pub(crate) fn listener_row(installation: Installation, listener: Uuid) -> Uuid {
    installation.row("listener", &listener.to_string())
}
