//! Size of everything that is stored, in northbound rows. Pure.

use std::collections::HashMap;

use uuid::Uuid;

use crate::resources::Tree;
use crate::vips::vips_bytes;

/// Organisation and project of a load balancer.
type ProjectKey = (String, String);

/// Most bytes of `vips` that trees take in the northbound database: of each, and their sums.
#[derive(Debug, Default)]
pub(super) struct VipsUsage {
    trees: HashMap<Uuid, (ProjectKey, u64)>,
    projects: HashMap<ProjectKey, u64>,
    total: u64,
}

impl VipsUsage {
    /// Replaces the size of a tree, or drops that of a removed one.
    pub(super) fn set(&mut self, id: Uuid, tree: Option<&Tree>) {
        if let Some((owner, bytes)) = self.trees.remove(&id) {
            self.total -= bytes;
            if let Some(project) = self.projects.get_mut(&owner) {
                *project -= bytes;
                if *project == 0 {
                    self.projects.remove(&owner);
                }
            }
        }
        let Some((owner, bytes)) = tree.map(|tree| (owner_of(tree), vips_bytes(tree))) else { return };
        self.total += bytes;
        *self.projects.entry(owner.clone()).or_default() += bytes;
        self.trees.insert(id, (owner, bytes));
    }

    /// Size of a tree; 0 for an unknown one.
    pub(super) fn of(&self, id: Uuid) -> u64 {
        self.trees.get(&id).map_or(0, |(_, bytes)| *bytes)
    }

    /// Size of all trees.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Size of all trees of the project that has the most.
    pub(super) fn largest_project(&self) -> u64 {
        self.projects.values().copied().max().unwrap_or_default()
    }

    /// Size of all trees but this one, and of those of its project.
    pub(super) fn beside(&self, tree: &Tree) -> (u64, u64) {
        let own = self.of(tree.id());
        let project = self.projects.get(&owner_of(tree)).copied().unwrap_or_default();
        (self.total - own, project.saturating_sub(own))
    }
}

fn owner_of(tree: &Tree) -> ProjectKey {
    let spec = &tree.load_balancer.spec;
    (spec.org_id.clone(), spec.project_id.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resources::examples::{BACKENDS, LOAD_BALANCER, change, tree};
    use crate::resources::{Backend, LoadBalancer};

    proptest! {
        /// Sums follow their parts, whatever comes and goes.
        #[test]
        fn sums_are_those_of_the_trees(writes in prop::collection::vec((0..5u8, 0..3u8, prop::option::of(1..200u16)), 0..60)) {
            let (mut usage, mut trees) = (VipsUsage::default(), HashMap::new());
            for (number, project, weight) in writes {
                let id = Uuid::from_u128(number.into());
                let written = weight.map(|weight| {
                    let mut tree = tree();
                    change::<LoadBalancer>(&mut tree, LOAD_BALANCER, |root| root.project_id = project.to_string());
                    change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.weight = weight);
                    tree
                });
                usage.set(id, written.as_ref());
                match written {
                    Some(tree) => drop(trees.insert(id, tree)),
                    None => drop(trees.remove(&id)),
                }
            }
            prop_assert_eq!(usage.total(), trees.values().map(vips_bytes).sum::<u64>());
            let mut largest = 0;
            for project in 0..3u8 {
                let of = |tree: &&Tree| tree.load_balancer.spec.project_id == project.to_string();
                let sum: u64 = trees.values().filter(of).map(vips_bytes).sum();
                let held = usage.projects.get(&("o".to_owned(), project.to_string())).copied();
                prop_assert_eq!(held.unwrap_or_default(), sum);
                largest = sum.max(largest);
            }
            prop_assert_eq!(usage.largest_project(), largest);
        }
    }
}
