//! Delete: the same for each kind.

use uuid::Uuid;

use super::api_kind::ApiKind;
use super::edit::{etag_mismatch, precondition};
use super::error::{ApiError, ErrorReason};
use super::use_cases::{UseCases, WriteCondition};
use super::view::Observed;
use crate::auth::{Object, Principal, Verb};
use crate::resources::{Kind, Tree};

impl UseCases {
    /// Marks a resource as deleted, with everything below it if `cascade`. It goes when OVN has let go of it. `condition`: an
    /// etag, empty for any version, or more.
    ///
    /// # Errors
    /// It does not exist or has another etag; others use it; others stand below it, without `cascade`.
    pub async fn delete<T: ApiKind>(
        &self,
        principal: &Principal,
        id: Uuid,
        condition: impl Into<WriteCondition<'_>>,
        cascade: bool,
    ) -> Result<Observed<T>, ApiError> {
        let condition = condition.into();
        let etag = condition.etag;
        let write = async {
            let root = self.find::<T>(principal, Verb::Delete, id)?.0.id();
            let edit = |tree: Option<&Tree>| {
                let found = tree.and_then(|tree| T::find(tree, id).map(|record| (tree, record)));
                let (tree, record) = found.ok_or_else(|| ApiError::not_found(T::KIND, id))?;
                if record.deleting {
                    // Deleted with the etag that it had before, or by whoever has seen that it is being deleted.
                    let is_seen = [etag, &format!("{etag}-d")].contains(&record.etag().as_str());
                    return if etag.is_empty() || is_seen {
                        Ok((Some(tree.clone()), ()))
                    } else {
                        Err(etag_mismatch(tree, record, etag))
                    };
                }
                precondition(tree, record, etag)?;
                deleted(tree, T::KIND, id, cascade).map(|tree| (Some(tree), ()))
            };
            let (after, ()) = self.carry_out(root, condition.validate_only, edit).await?;
            self.written(after, id)
        };
        let deleted = |deleted: &Observed<T>| deleted.record.id.to_string();
        let operation = condition.operation("delete");
        self.audited(principal, operation, Object::Resource(T::KIND), &id.to_string(), write, deleted).await
    }
}

/// The tree with a resource and all below it marked as deleted.
fn deleted(tree: &Tree, kind: Kind, id: Uuid, cascade: bool) -> Result<Tree, ApiError> {
    if let Some((user, by, used)) = tree.uses_of(kind, id).first() {
        let (what, user) = (tree.called(kind, id), tree.called(*user, *by));
        let role = used.role;
        let why = format!(
            "{what} cannot be deleted: it is {role} of {user}: give that another one, or none, first"
        );
        return Err(ApiError::about(ErrorReason::InUse, kind, id, why));
    }
    let mut after = tree.clone();
    after.delete(kind, id);
    let below = tree.alive() - after.alive() - 1;
    if below > 0 && !cascade {
        let why = not_alone(&tree.called(kind, id), below);
        return Err(ApiError::about(ErrorReason::HasChildren, kind, id, why));
    }
    Ok(after)
}

/// Error text for deleting a resource, but not those below it.
fn not_alone(resource: &str, below: usize) -> String {
    let (what, them) = if below == 1 { ("resource", "it") } else { ("resources", "them") };
    format!("{resource} has {below} {what} below it: delete {them} first, or ask for cascade")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::examples::{BACKENDS, CHECK, LISTENER, LOAD_BALANCER, POOL, change, tree};
    use crate::resources::{Listener, Pool, Resource as _};

    #[test]
    fn a_refused_delete_says_how_many_are_left() {
        let of = |below| not_alone("pool", below);
        assert!(of(1).ends_with("has 1 resource below it: delete it first, or ask for cascade"), "{}", of(1));
        assert!(
            of(2).ends_with("has 2 resources below it: delete them first, or ask for cascade"),
            "{}",
            of(2)
        );
    }

    #[test]
    fn what_another_resource_uses_stays_whether_or_not_cascade_is_asked_for() {
        for cascade in [true, false] {
            let error = deleted(&tree(), Kind::Pool, POOL, cascade).unwrap_err();
            assert_eq!(error.reason, ErrorReason::InUse);
            assert!(error.message.contains("the default pool of listener tcp:80"), "{error}");
        }
    }

    #[test]
    fn a_cascade_takes_all_below_and_nothing_beside() {
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.default_pool_id = None);
        let refused = deleted(&tree, Kind::Pool, POOL, false).unwrap_err();
        assert_eq!(refused.reason, ErrorReason::HasChildren);
        assert!(refused.message.contains("has 4 resources below it"), "{refused}");
        let after = deleted(&tree, Kind::Pool, POOL, true).unwrap();
        let gone = [(Kind::Pool, POOL), (Kind::HealthCheck, CHECK)];
        let gone = gone.into_iter().chain(BACKENDS.map(|id| (Kind::Backend, id)));
        assert!(gone.into_iter().all(|(kind, id)| !after.stands(kind, id)));
        assert!(after.stands(Kind::Listener, LISTENER) && after.stands(Kind::LoadBalancer, LOAD_BALANCER));
        assert_eq!(deleted(&tree, Kind::LoadBalancer, LOAD_BALANCER, true).unwrap().alive(), 0);
        assert_eq!(Pool::PARENT, Some(Kind::LoadBalancer));
    }
}
