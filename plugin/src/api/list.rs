//! Pages of resources.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;
use uuid::Uuid;

use super::violations::Violations;

/// Fields of a list request that all resources have in common.
pub(super) struct Query {
    pub(super) page_size: u32,
    pub(super) page_token: String,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) provisioning: i32,
    pub(super) operating: i32,
    pub(super) parent: String,
}

/// Properties of a resource that filters compare.
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    pub(super) tags: &'a [String],
    pub(super) provisioning: i32,
    pub(super) operating: i32,
}

impl Query {
    /// Returns true if a resource matches.
    pub(super) fn wants(&self, facts: &Facts<'_>) -> bool {
        (self.name.is_empty() || self.name == facts.name)
            && self.tags.iter().all(|tag| facts.tags.contains(tag))
            && (self.provisioning == 0 || self.provisioning == facts.provisioning)
            && (self.operating == 0 || self.operating == facts.operating)
    }

    /// The resource after which the page starts.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that no answer contained.
    pub(super) fn after(&self) -> Result<Option<Uuid>, Status> {
        if self.page_token.is_empty() {
            return Ok(None);
        }
        let bytes = URL_SAFE_NO_PAD.decode(&self.page_token).ok();
        let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok());
        id.map(Some).ok_or_else(|| invalid("page_token", "is not one that an answer contained"))
    }

    /// The requested parent.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a text that is not a UUID.
    pub(super) fn parent(&self, field: &str) -> Result<Option<Uuid>, Status> {
        if self.parent.is_empty() {
            return Ok(None);
        }
        self.parent.parse().map(Some).map_err(|_| invalid(field, "is not a UUID"))
    }
}

/// The token that requests the page after `last`.
pub(super) fn token(last: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(last.as_bytes())
}

fn invalid(field: &str, why: &str) -> Status {
    let mut violations = Violations::default();
    violations.invalid(field, why);
    violations.check().err().unwrap_or_else(|| Status::internal(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(page_token: String) -> Query {
        Query {
            page_size: 0,
            page_token,
            name: String::new(),
            tags: vec![],
            provisioning: 0,
            operating: 0,
            parent: String::new(),
        }
    }

    #[test]
    fn a_token_leads_to_the_next_page_and_garbage_nowhere() {
        let id = Uuid::from_u128(42);
        assert_eq!(query(token(id)).after().unwrap(), Some(id));
        assert_eq!(query(String::new()).after().unwrap(), None);
        assert!(query("garbage!".into()).after().is_err());
    }
}
