//! Limits on one caller's requests.

use std::collections::HashMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::apply::TreeDraft;
use super::error::ApiError;
use crate::resources::{Common, Form, Pool, Resource, Tree};
use crate::vips::vips_bytes;

/// Limits of the API; an error names the limit that was exceeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// Size of one gRPC message.
    pub message_bytes: usize,
    /// Entries of all lists of one request, at any depth.
    pub list_entries: usize,
    /// Requests of more than 64 KiB that are worked on at the same time; half of them for one project.
    pub large_requests: usize,
    /// Bytes of requests of more than 64 KiB that are held at the same time; half of them for one project. It holds two of
    /// `limits.message_bytes` in any case.
    pub large_request_bytes: usize,
    /// Resources on a page if the request sets no size.
    pub default_page: usize,
    /// Most resources on a page that a request may ask for.
    pub max_page: usize,
    /// Listeners of one load balancer; each port of a range counts.
    pub listeners_per_load_balancer: usize,
    /// Pools of one load balancer.
    pub pools_per_load_balancer: usize,
    /// Backends of one pool.
    pub backends_per_pool: usize,
    /// Bytes of one load balancer with all that is below it, as an answer has them.
    pub tree_bytes: u64,
    /// Bytes that the rows of one load balancer may take in the northbound database, in their column `vips`: VIPs with their
    /// backends, for each listener that OVN balances.
    pub vips_bytes_per_load_balancer: u64,
    /// The same for all load balancers of one project together.
    pub vips_bytes_per_project: u64,
    /// The same for all load balancers together.
    pub vips_bytes: u64,
    /// Tags of one resource.
    pub tags: usize,
    /// Watches at the same time.
    pub watches: usize,
    /// Watches of one project at the same time.
    pub watches_per_project: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            list_entries: 100_000,
            large_requests: 4,
            large_request_bytes: 64 << 20,
            default_page: 100,
            max_page: 1000,
            listeners_per_load_balancer: 100,
            pools_per_load_balancer: 100,
            backends_per_pool: 500,
            // 100 listeners with 500 IPv6 backends each take 2.4 MB.
            tree_bytes: 64 << 20,
            vips_bytes_per_load_balancer: 4 << 20,
            vips_bytes_per_project: 256 << 20,
            // 10,000 load balancers of 500 backends take 100 MB.
            vips_bytes: 512 << 20,
            tags: 50,
            watches: 256,
            watches_per_project: 64,
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

    /// Checks that a tree is within the limits, as far as it has grown: one that is above a limit which was lowered
    /// can still be changed, and shrink.
    ///
    /// # Errors
    /// [`ErrorReason::LimitExceeded`](super::ErrorReason::LimitExceeded), naming the limit.
    pub(crate) fn check(&self, before: Option<&Tree>, after: &Tree) -> Result<(), ApiError> {
        let grown = |name, count: fn(&Tree) -> Counts, most| {
            count(after).check(name, before.map(count).unwrap_or_default(), most)
        };
        grown("listeners_per_load_balancer", listener_ports, self.listeners_per_load_balancer)?;
        grown("pools_per_load_balancer", Counts::of::<Pool>, self.pools_per_load_balancer)?;
        let old = before.map(backends_by_pool).unwrap_or_default();
        for (pool, counts) in backends_by_pool(after) {
            let old = old.get(&pool).copied().unwrap_or_default();
            counts.check("backends_per_pool", old, self.backends_per_pool)?;
        }
        let bytes = after.bytes();
        let checked = within("tree_bytes", bytes, self.tree_bytes);
        checked.or_else(|error| {
            if before.is_some_and(|before| before.bytes() >= bytes) { Ok(()) } else { Err(error) }
        })
    }

    /// Checks that a tree leaves the northbound database within the limits, as far as the tree has grown. `beside`: bytes of all
    /// other load balancers, and of those of its project.
    ///
    /// # Errors
    /// [`ErrorReason::LimitExceeded`](super::ErrorReason::LimitExceeded), naming the limit.
    pub(crate) fn check_vips(
        &self,
        before: Option<&Tree>,
        after: &Tree,
        beside: (u64, u64),
    ) -> Result<(), ApiError> {
        let (bytes, (others, of_project)) = (vips_bytes(after), beside);
        let all = [
            ("vips_bytes_per_load_balancer", bytes, self.vips_bytes_per_load_balancer),
            ("vips_bytes_per_project", of_project.saturating_add(bytes), self.vips_bytes_per_project),
            ("vips_bytes", others.saturating_add(bytes), self.vips_bytes),
        ];
        let checked = all.into_iter().try_for_each(|(name, count, most)| within(name, count, most));
        checked.or_else(|error| match before.is_some_and(|before| vips_bytes(before) >= bytes) {
            true => Ok(()),
            false => Err(error),
        })
    }

    /// Checks that a tree that is given whole is within the limits, before any other work on it.
    ///
    /// # Errors
    /// [`ErrorReason::LimitExceeded`](super::ErrorReason::LimitExceeded), naming the limit.
    pub(crate) fn check_draft(&self, tree: &TreeDraft) -> Result<(), ApiError> {
        within("listeners_per_load_balancer", tree.listeners.len(), self.listeners_per_load_balancer)?;
        within("pools_per_load_balancer", tree.pools.len(), self.pools_per_load_balancer)?;
        let mut pools = tree.pools.iter();
        pools.try_for_each(|pool| within("backends_per_pool", pool.backends.len(), self.backends_per_pool))
    }

    /// Records a violation if a resource has too many tags.
    pub(crate) fn check_tags(&self, common: &Common, form: &mut Form<'_>) {
        let (most, count) = (self.tags, common.tags.len());
        if count > most {
            form.invalid("tags", format!("at most {most} tags (limit \"tags\"), given {count}"));
        }
    }
}

fn within<T: PartialOrd + Display + Copy>(name: &'static str, count: T, most: T) -> Result<(), ApiError> {
    if count <= most {
        return Ok(());
    }
    let text = format!("{name}: at most {most}, this would make {count}");
    Err(ApiError::limit(name, text))
}

/// Number of resources, by whether they are being deleted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    alive: usize,
    deleting: usize,
}

impl Counts {
    fn of<T: Resource>(tree: &Tree) -> Self {
        let mut counts = Self::default();
        T::records(tree).for_each(|record| counts.add(record.deleting));
        counts
    }

    fn add(&mut self, is_deleting: bool) {
        *(if is_deleting { &mut self.deleting } else { &mut self.alive }) += 1;
    }

    /// Checks numbers that have grown since `before`. Resources that are being deleted, until OVN has let go of them, have
    /// as much room beside the others: all may be replaced at once, and no more than once.
    fn check(self, name: &'static str, before: Self, most: usize) -> Result<(), ApiError> {
        if before.alive < self.alive {
            within(name, self.alive, most)?;
        }
        let (stored, room) = (self.alive + self.deleting, most.saturating_mul(2));
        if before.alive < self.alive && stored > room {
            let text = format!(
                "{name}: {} are being deleted, and count until OVN has let go of them: at most {room} with those",
                self.deleting
            );
            return Err(ApiError::limit(name, text));
        }
        Ok(())
    }
}

/// Number of ports of a load balancer.
fn listener_ports(tree: &Tree) -> Counts {
    let mut counts = Counts::default();
    for listener in tree.listeners.values() {
        (0..listener.spec.port_count()).for_each(|_| counts.add(listener.deleting));
    }
    counts
}

/// Number of backends in each pool.
fn backends_by_pool(tree: &Tree) -> HashMap<Uuid, Counts> {
    let mut counts: HashMap<Uuid, Counts> = HashMap::new();
    for backend in tree.backends.values() {
        counts.entry(backend.spec.pool_id).or_default().add(backend.deleting);
    }
    counts
}
