//! Differences between two views of a tree, each computed once however many watches ask for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::api_kind::ApiKind;
use super::view::{Observed, TreeView};
use super::watch::AnyObserved;
use crate::resources::{Tree, every_kind};
use crate::status::Observation;

/// Resources in the differences that are kept for watches that ask later.
const KEPT: usize = 20_000;
/// Most differences that are kept.
const MOST: usize = 64;

/// Way in which a resource differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DifferenceWay {
    /// In the later view alone.
    New,
    /// In both, with another specification or status.
    Changed,
    /// In the earlier view alone.
    Gone,
}

/// A resource that differs, as the later view has it, or the earlier one if it is gone.
#[derive(Clone, Debug)]
pub(super) struct ResourceDifference {
    pub(super) way: DifferenceWay,
    pub(super) resource: AnyObserved,
}

/// New and changed resources, parents before their children, then those that are gone, children first.
pub(super) type TreeDifferences = Arc<[ResourceDifference]>;

/// The latest differences.
#[derive(Default)]
pub(super) struct KnownDifferences(Mutex<VecDeque<KnownDifference>>);

struct KnownDifference {
    of: [Option<ViewKey>; 2],
    differences: Arc<OnceLock<TreeDifferences>>,
}

/// Identity of a view. Weak references keep neither tree nor observation, but their addresses from being used again.
#[derive(Clone)]
struct ViewKey {
    tree: Weak<Tree>,
    observation: Weak<Observation>,
    waiting_for: Option<String>,
}

impl ViewKey {
    fn of(view: &TreeView) -> Self {
        let (tree, observation) = (Arc::downgrade(&view.tree), Arc::downgrade(&view.observation));
        Self { tree, observation, waiting_for: view.waiting_for.clone() }
    }
}

impl PartialEq for ViewKey {
    fn eq(&self, other: &Self) -> bool {
        self.tree.ptr_eq(&other.tree)
            && self.observation.ptr_eq(&other.observation)
            && self.waiting_for == other.waiting_for
    }
}

impl KnownDifferences {
    /// Differences between two views of one tree; `None`: it was not there, or is gone.
    pub(super) fn between(&self, before: Option<&TreeView>, after: Option<&TreeView>) -> TreeDifferences {
        let of = [before, after].map(|view| view.map(ViewKey::of));
        let known = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = all.iter().find(|known| known.of == of).map(|known| Arc::clone(&known.differences));
            found.unwrap_or_else(|| {
                let differences = Arc::default();
                all.push_back(KnownDifference { of, differences: Arc::clone(&differences) });
                shrink(&mut all);
                differences
            })
        };
        // Outside of the lock: whoever asks for the same meanwhile waits for it instead of computing it as well.
        Arc::clone(known.get_or_init(|| differences(before, after).into()))
    }
}

/// Drops the oldest differences, but the latest one.
fn shrink(all: &mut VecDeque<KnownDifference>) {
    let size = |known: &KnownDifference| known.differences.get().map_or(0, |differences| differences.len());
    let mut total: usize = all.iter().map(size).sum();
    while all.len() > MOST || (total > KEPT && all.len() > 1) {
        total -= all.pop_front().as_ref().map_or(0, size);
    }
}

fn differences(before: Option<&TreeView>, after: Option<&TreeView>) -> Vec<ResourceDifference> {
    let (mut all, mut gone) = (Vec::new(), Vec::new());
    every_kind!(T => of_kind::<T>(before, after, &mut all, &mut gone));
    all.extend(gone.into_iter().rev());
    all
}

fn of_kind<T: ApiKind>(
    before: Option<&TreeView>,
    after: Option<&TreeView>,
    all: &mut Vec<ResourceDifference>,
    gone: &mut Vec<ResourceDifference>,
) where
    AnyObserved: From<Observed<T>>,
{
    for record in
        after.into_iter().flat_map(|after| T::records(&after.tree).map(move |it| after.observed(it)))
    {
        let earlier =
            before.and_then(|before| Some(before.observed(T::find(&before.tree, record.record.id)?)));
        let way = match earlier {
            Some(earlier) if earlier == record => continue,
            Some(_) => DifferenceWay::Changed,
            None => DifferenceWay::New,
        };
        all.push(ResourceDifference { way, resource: record.into() });
    }
    let is_gone = |id| after.is_none_or(|after| T::find(&after.tree, id).is_none());
    if let Some(before) = before {
        for record in T::records(&before.tree).filter(|record| is_gone(record.id)) {
            let resource = before.observed(record).into();
            gone.push(ResourceDifference { way: DifferenceWay::Gone, resource });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::examples::{BACKENDS, change, tree};
    use crate::resources::{Backend, Kind};

    fn view(tree: &Arc<Tree>) -> TreeView {
        let (tree, observation) = (Arc::clone(tree), Arc::default());
        TreeView { tree, observation, waiting_for: None, network_name: String::new() }
    }

    #[test]
    fn the_same_difference_is_computed_once_and_another_one_anew() {
        let known = KnownDifferences::default();
        let first = view(&Arc::new(tree()));
        let mut changed = Tree::clone(&first.tree);
        change::<Backend>(&mut changed, BACKENDS[0], |backend| backend.weight = 7);
        let second = TreeView { tree: Arc::new(changed), ..first.clone() };
        let one = known.between(Some(&first), Some(&second));
        assert_eq!(one.len(), 1);
        assert!(Arc::ptr_eq(&one, &known.between(Some(&first), Some(&second))));
        let waiting = TreeView { waiting_for: Some("a leader".to_owned()), ..second.clone() };
        assert!(known.between(Some(&first), Some(&waiting)).len() > 1, "a status of all has changed");
        let equal = TreeView { tree: Arc::new(Tree::clone(&second.tree)), ..second.clone() };
        assert!(!Arc::ptr_eq(&one, &known.between(Some(&first), Some(&equal))));
    }

    #[test]
    fn what_is_gone_comes_last_and_children_before_their_parents() {
        let known = KnownDifferences::default();
        let here = view(&Arc::new(tree()));
        let kinds = |differences: &TreeDifferences| -> Vec<Kind> {
            differences.iter().map(|it| it.resource.kind()).collect()
        };
        let made = known.between(None, Some(&here));
        assert!(made.iter().all(|it| it.way == DifferenceWay::New) && kinds(&made)[0] == Kind::LoadBalancer);
        let gone = known.between(Some(&here), None);
        assert!(gone.iter().all(|it| it.way == DifferenceWay::Gone));
        assert_eq!(kinds(&gone), kinds(&made).into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_kept_is_bounded_and_holds_no_tree() {
        let known = KnownDifferences::default();
        let mut last = Arc::new(tree());
        let first = Arc::downgrade(&last);
        for weight in 1..200 {
            let mut next = Tree::clone(&last);
            change::<Backend>(&mut next, BACKENDS[0], |backend| backend.weight = weight);
            let next = Arc::new(next);
            known.between(Some(&view(&last)), Some(&view(&next)));
            last = next;
        }
        assert_eq!(known.0.lock().unwrap().len(), MOST);
        assert!(first.upgrade().is_none());
    }
}
