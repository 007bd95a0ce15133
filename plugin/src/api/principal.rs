//! Principal of a call, and the objects that it may see.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tonic::{Request, Status};

use crate::resources::LoadBalancer;

/// Objects that a principal may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Its own project.
    #[default]
    Project,
    /// Everything: an operator.
    All,
}

/// Identity of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Principal {
    /// Its organisation, default "default". Letters, digits, `.`, `_` and `-`.
    pub org_id: String,
    /// Its project, default "default". Letters, digits, `.`, `_` and `-`.
    pub project_id: String,
    /// Reachable objects, default those of its project.
    pub scope: Scope,
}

impl Default for Principal {
    fn default() -> Self {
        Self { org_id: "default".to_owned(), project_id: "default".to_owned(), scope: Scope::Project }
    }
}

impl Principal {
    /// Returns true if an owner's objects are visible to it. Others are NOT_FOUND to it.
    pub fn sees(&self, owner: &LoadBalancer) -> bool {
        self.may_own(&owner.org_id, &owner.project_id)
    }

    /// Returns true if it may create objects of that owner.
    pub fn may_own(&self, org_id: &str, project_id: &str) -> bool {
        self.scope == Scope::All || (self.org_id == org_id && self.project_id == project_id)
    }
}

/// Returns true if a text can name an organisation or a project.
pub fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= 64 && text.chars().all(legal)
}

/// Authenticates callers. The one place where tokens and certificates will be checked.
pub trait Authenticator: Send + Sync + 'static {
    /// The principal of a call with these metadata and extensions.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, naming what is missing.
    fn authenticate(&self, request: &Request<()>) -> Result<Principal, Status>;
}

/// Makes everybody who reaches the socket this principal.
#[derive(Clone, Debug)]
pub struct Local(pub Principal);

impl Authenticator for Local {
    fn authenticate(&self, _request: &Request<()>) -> Result<Principal, Status> {
        Ok(self.0.clone())
    }
}

/// Interceptor that puts the principal into each request.
#[derive(Clone)]
pub struct Interceptor(pub Arc<dyn Authenticator>);

impl tonic::service::Interceptor for Interceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let principal = self.0.authenticate(&request)?;
        request.extensions_mut().insert(principal);
        Ok(request)
    }
}

/// The principal that the interceptor found.
///
/// # Errors
/// `UNAUTHENTICATED` if the call did not come through it.
pub(crate) fn of<T>(request: &Request<T>) -> Result<Principal, Status> {
    let principal = request.extensions().get::<Principal>().cloned();
    principal.ok_or_else(|| Status::unauthenticated("the call has no principal"))
}
