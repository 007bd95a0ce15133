//! Keys of the store.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use uuid::Uuid;

use super::{Kind, Transport};

/// Prefix of all keys.
pub const PREFIX: &str = "/fiberlb/";

/// Key of a record: `/fiberlb/<folder>/<parent>/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `/fiberlb/loadbalancers/{org}/{project}/{id}`
    LoadBalancer {
        /// Owner: organization.
        org_id: String,
        /// Owner: project.
        project_id: String,
        /// Id of the load balancer.
        id: Uuid,
    },
    /// Key of any other kind, below a parent.
    Child {
        /// Kind, never [`Kind::LoadBalancer`].
        kind: Kind,
        /// Id of the parent, whose kind [`Kind::parent`] names.
        parent: Uuid,
        /// Id of the resource.
        id: Uuid,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadBalancer { org_id, project_id, id } => {
                write!(f, "{PREFIX}loadbalancers/{org_id}/{project_id}/{id}")
            }
            Self::Child { kind, parent, id } => write!(f, "{PREFIX}{}/{parent}/{id}", kind.folder()),
        }
    }
}

impl Key {
    /// The kind of the resource.
    pub fn kind(&self) -> Kind {
        match self {
            Self::LoadBalancer { .. } => Kind::LoadBalancer,
            Self::Child { kind, .. } => *kind,
        }
    }

    /// The id of the resource.
    pub fn id(&self) -> Uuid {
        match self {
            Self::LoadBalancer { id, .. } | Self::Child { id, .. } => *id,
        }
    }

    /// Reads a key; `None` for keys of other things (heads, guards, the installation).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split('/');
        let kind = Kind::of_folder(parts.next()?)?;
        if kind == Kind::LoadBalancer {
            let (org_id, project_id) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            let id = parts.next()?.parse().ok()?;
            return parts.next().is_none().then_some(Self::LoadBalancer { org_id, project_id, id });
        }
        let (parent, id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self::Child { kind, parent, id })
    }
}

/// Key that every write to a tree compares and puts. It serializes the writes to one tree across all plugins.
pub fn head_key(load_balancer: Uuid) -> String {
    format!("{PREFIX}heads/{load_balancer}")
}

/// Reads a [`head_key`].
pub fn parse_head(text: &str) -> Option<Uuid> {
    text.strip_prefix(PREFIX)?.strip_prefix("heads/")?.parse().ok()
}

/// Key of a resource's set of users from other aggregates.
pub fn users_key(folder: &str, id: Uuid) -> String {
    format!("{PREFIX}refs/{folder}/{id}")
}

/// Prefix of all keys of published statuses.
pub const STATUSES: &str = "/fiberlb/status/";

/// Key of a load balancer's published status.
pub fn status_key(load_balancer: Uuid) -> String {
    format!("{STATUSES}{load_balancer}")
}

/// Reads a [`status_key`].
pub fn parse_status(text: &str) -> Option<Uuid> {
    text.strip_prefix(STATUSES)?.parse().ok()
}

/// Key of a part of a published status that is too large for one value.
pub fn status_part_key(load_balancer: Uuid, part: u16) -> String {
    format!("{STATUSES}{load_balancer}/{part:05}")
}

/// Reads a [`status_part_key`].
pub fn parse_status_part(text: &str) -> Option<(Uuid, u16)> {
    let (id, part) = text.strip_prefix(STATUSES)?.split_once('/')?;
    Some((id.parse().ok()?, part.parse().ok()?))
}

/// Prefix of all [`name_key`]s.
const NAMES: &str = "/fiberlb/names/";
/// Number of keys that serialize creations by name.
const NAME_LOCKS: u16 = 4096;

/// Key that a load balancer is created with by its name: a writer compares it with what it was when no load balancer
/// had the name. Names share keys, so that their number is bounded; a writer that collides retries.
pub fn name_key(org_id: &str, project_id: &str, name: &str) -> String {
    let hash = Uuid::new_v5(&Uuid::nil(), format!("{org_id}/{project_id}/{name}").as_bytes());
    let [high, low, ..] = *hash.as_bytes();
    format!("{NAMES}{:03x}", u16::from_be_bytes([high, low]) % NAME_LOCKS)
}

/// Returns true for a [`name_key`].
pub fn is_name_key(text: &str) -> bool {
    text.starts_with(NAMES)
}

/// Key of the leader's record, on a store that several plugins share.
pub fn leader_key() -> String {
    format!("{PREFIX}leader")
}

/// The key of this installation's id.
pub fn installation_key() -> String {
    format!("{PREFIX}installation")
}

/// The key of the secret that seals page tokens.
pub fn page_tokens_key() -> String {
    format!("{PREFIX}page-tokens")
}

/// Guard keys, which make something unique: they are put only where absent.
pub mod guard {
    use super::{IpAddr, PREFIX, SocketAddr, Transport, Uuid};

    /// One VIP on a network.
    pub fn vip(network: Uuid, address: IpAddr) -> String {
        format!("{PREFIX}guards/vips/{network}/{address}")
    }

    /// One port on a load balancer.
    pub fn port(load_balancer: Uuid, transport: Transport, port: u16) -> String {
        format!("{PREFIX}guards/ports/{load_balancer}/{}/{port}", transport.as_str())
    }

    /// One address in a pool.
    pub fn backend(pool: Uuid, address: SocketAddr) -> String {
        format!("{PREFIX}guards/backends/{pool}/{address}")
    }

    /// One health check of a pool.
    pub fn health_check(pool: Uuid) -> String {
        format!("{PREFIX}guards/healthchecks/{pool}")
    }

    /// One create call of a project.
    pub fn request(org_id: &str, project_id: &str, request_id: &str) -> String {
        format!("{PREFIX}guards/requests/{org_id}/{project_id}/{request_id}")
    }

    /// One use of an id that a client chose.
    pub fn id(id: Uuid) -> String {
        format!("{PREFIX}guards/ids/{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text_form() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let keys = [
            Key::LoadBalancer { org_id: "o".into(), project_id: "p".into(), id: a },
            Key::Child { kind: Kind::Backend, parent: a, id: b },
            Key::Child { kind: Kind::HealthCheck, parent: a, id: b },
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        assert_eq!(Key::parse("/fiberlb/guards/ids/x"), None);
        assert_eq!(Key::parse(&head_key(a)), None);
        assert_eq!(Key::parse(&users_key("pools", a)), None);
        assert_eq!(parse_head(&head_key(a)), Some(a));
        assert_eq!(parse_status(&status_key(a)), Some(a));
        assert_eq!(parse_status(&head_key(a)), None);
        assert_eq!(parse_status_part(&status_part_key(a, 7)), Some((a, 7)));
        assert_eq!((parse_status(&status_part_key(a, 7)), parse_status_part(&status_key(a))), (None, None));
    }
}
