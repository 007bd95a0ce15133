//! Owners and UUIDs of rows.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Key in `external_ids` whose value is the owner of a row, in the text form of [`Owner`].
pub const OWNER_KEY: &str = "fiberlb:owner";

/// Id of an installation of FiberLB. Two installations on one northbound database do not touch each other's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Installation(pub Uuid);

impl Installation {
    /// UUID of the row of `kind` for `id` (UUIDv5): deterministic, so that ovsdb-server refuses a repeated insert instead of making a
    /// second row.
    #[must_use]
    pub fn row(self, kind: &str, id: &str) -> Uuid {
        Uuid::new_v5(&self.0, format!("{kind}/{id}").as_bytes())
    }

    /// Owner of the rows of a load balancer.
    #[must_use]
    pub fn load_balancer(self, id: Uuid) -> Owner {
        Owner { installation: self, kind: OwnerKind::LoadBalancer, id }
    }

    /// Owner of the rows that all load balancers on one logical switch share.
    #[must_use]
    pub fn network(self, switch: Uuid) -> Owner {
        Owner { installation: self, kind: OwnerKind::Network, id: switch }
    }
}

/// Kind of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnerKind {
    /// Load balancer, by its id.
    LoadBalancer,
    /// Tenant network, by the UUID of its logical switch.
    Network,
}

/// Owner of a set of rows. Its text form, `fiberlb/<installation>/<kind>/<id>`, is the value of [`OWNER_KEY`], or the `name` where a
/// table has no `external_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Installation.
    pub installation: Installation,
    /// Kind.
    pub kind: OwnerKind,
    /// Id of the load balancer, or UUID of the logical switch.
    pub id: Uuid,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            OwnerKind::LoadBalancer => "loadbalancer",
            OwnerKind::Network => "network",
        };
        write!(f, "fiberlb/{}/{kind}/{}", self.installation.0, self.id)
    }
}

/// Text that is not an [`Owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnOwner;

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, NotAnOwner> {
        let mut parts = text.split('/');
        let (Some("fiberlb"), Some(installation), Some(kind), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAnOwner);
        };
        let kind = match kind {
            "loadbalancer" => OwnerKind::LoadBalancer,
            "network" => OwnerKind::Network,
            _ => return Err(NotAnOwner),
        };
        let uuid = |text: &str| text.parse().map_err(|_| NotAnOwner);
        Ok(Self { installation: Installation(uuid(installation)?), kind, id: uuid(id)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_survives_its_text_form() {
        let installation = Installation(Uuid::from_u128(7));
        for owner in
            [installation.load_balancer(Uuid::from_u128(1)), installation.network(Uuid::from_u128(2))]
        {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        assert_eq!("fiberlb/x/network/y".parse::<Owner>(), Err(NotAnOwner));
        assert_eq!("neutron-1234".parse::<Owner>(), Err(NotAnOwner));
    }

    #[test]
    fn a_row_has_one_uuid_per_installation_kind_and_id() {
        let (a, b) = (Installation(Uuid::from_u128(1)), Installation(Uuid::from_u128(2)));
        assert_eq!(a.row("listener", "x"), a.row("listener", "x"));
        assert_ne!(a.row("listener", "x"), b.row("listener", "x"));
        assert_ne!(a.row("listener", "x"), a.row("vip", "x"));
    }
}
