//! Limits on one caller's requests.

use serde::{Deserialize, Serialize};

use super::error::{ApiError, ErrorReason};
use crate::resources::{Common, Form, Listener, Pool, Resource, Tree};

/// Limits of the API; an error names the limit that was exceeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one gRPC message, default 4 MiB.
    pub message_bytes: usize,
    /// Resources on one page if the request sets no size, default 100.
    pub default_page: usize,
    /// Most resources on one page, default 1000.
    pub max_page: usize,
    /// Listeners of one load balancer, default 100.
    pub listeners_per_load_balancer: usize,
    /// Pools of one load balancer, default 100.
    pub pools_per_load_balancer: usize,
    /// Backends of one pool, default 500.
    pub backends_per_pool: usize,
    /// Tags of one resource, default 50.
    pub tags: usize,
    /// Watches at the same time, default 256.
    pub watches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            default_page: 100,
            max_page: 1000,
            listeners_per_load_balancer: 100,
            pools_per_load_balancer: 100,
            backends_per_pool: 500,
            tags: 50,
            watches: 256,
        }
    }
}

impl Limits {
    /// The page size for a request; 0 requests the default.
    pub(crate) fn page(&self, asked: u32) -> usize {
        match usize::try_from(asked).unwrap_or(usize::MAX) {
            0 => self.default_page,
            asked => asked.min(self.max_page),
        }
    }

    /// Checks that a tree is within the limits.
    ///
    /// # Errors
    /// [`ErrorReason::LimitExceeded`], naming the limit.
    pub(crate) fn check(&self, tree: &Tree) -> Result<(), ApiError> {
        fn alive<T: Resource>(tree: &Tree) -> usize {
            T::records(tree).filter(|record| !record.deleting).count()
        }
        let within = |name: &str, count: usize, most: usize| {
            if count <= most {
                return Ok(());
            }
            let text = format!("{name}: at most {most}, this would make {count}");
            Err(ApiError::new(ErrorReason::LimitExceeded, text))
        };
        within("listeners_per_load_balancer", alive::<Listener>(tree), self.listeners_per_load_balancer)?;
        within("pools_per_load_balancer", alive::<Pool>(tree), self.pools_per_load_balancer)?;
        for pool in tree.pools.keys() {
            let backends = tree.backends_of(*pool).filter(|backend| !backend.deleting).count();
            within("backends_per_pool", backends, self.backends_per_pool)?;
        }
        Ok(())
    }

    /// Records a violation if a resource has too many tags.
    pub(crate) fn check_tags(&self, common: &Common, form: &mut Form<'_>) {
        let (most, count) = (self.tags, common.tags.len());
        if count > most {
            form.invalid("tags", format!("at most {most} tags (limit \"tags\"), given {count}"));
        }
    }
}
