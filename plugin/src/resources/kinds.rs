//! The one list of kinds of resources. Storage, indexes, comparison, statuses, use cases, watches and metrics
//! go through it: a kind that is listed and not described does not compile, and none can be left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Backend, Child, HealthCheck, Listener, LoadBalancer, Pool, Record, Resource};
use fiberlb_store::Revision;

/// Resources of one kind in a tree, by id.
pub type Records<T> = BTreeMap<Uuid, Arc<Record<T>>>;

/// Place of a kind in a tree.
pub trait InTree: Sized + 'static {
    /// The kind.
    const KIND: Kind;
    /// Record with this id.
    fn find(tree: &Tree, id: Uuid) -> Option<&Arc<Record<Self>>>;
    /// Record with this id, to be changed.
    fn find_mut(tree: &mut Tree, id: Uuid) -> Option<&mut Arc<Record<Self>>>;
    /// All records of this kind, by id.
    fn records(tree: &Tree) -> impl Iterator<Item = &Arc<Record<Self>>>;
    /// Adds or replaces a record.
    fn put(tree: &mut Tree, record: Record<Self>);
    /// Tree with this record as its root; `None` for a kind that is none.
    fn rooted(_record: Record<Self>) -> Option<Tree> {
        None
    }
}

/// Field of a kind below a load balancer in a tree.
pub trait TreeField: Child {
    /// Records of this kind in a tree.
    fn of(tree: &Tree) -> &Records<Self>;
    /// Records of this kind in a tree, to be changed.
    fn of_mut(tree: &mut Tree) -> &mut Records<Self>;
}

/// Declares the kinds below a load balancer: type, field of a tree, name in texts, and folder of the store.
/// `$d` is a dollar, for the macros that it declares.
macro_rules! kinds {
    ($d:tt, $($(#[$doc:meta])* $kind:ident, $shelf:ident, $words:literal, $folder:literal;)*) => {
        /// Kinds of resources.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            /// Root of a tree.
            LoadBalancer,
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds, parents before what stands below them.
            pub const ALL: &'static [Kind] = &[Kind::LoadBalancer, $(Kind::$kind),*];

            /// Name of the kind in sentences, audit lines and metrics.
            pub const fn words(self) -> &'static str {
                match self {
                    Self::LoadBalancer => "load balancer",
                    $(Self::$kind => $words,)*
                }
            }

            /// First part of its keys in the store, below the prefix.
            pub const fn folder(self) -> &'static str {
                match self {
                    Self::LoadBalancer => "loadbalancers",
                    $(Self::$kind => $folder,)*
                }
            }

            /// Kind of its parent; `None` for a root.
            pub const fn parent(self) -> Option<Kind> {
                match self {
                    Self::LoadBalancer => None,
                    $(Self::$kind => <$kind as Resource>::PARENT,)*
                }
            }
        }

        /// A load balancer with all that is below it, at one revision. Copies are cheap: records are shared.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Tree {
            /// Record of the load balancer.
            pub load_balancer: Arc<Record<LoadBalancer>>,
            $(
                /// Records of this kind.
                pub $shelf: Records<$kind>,
            )*
            /// Revision of the tree's head: of the last write to any part of it.
            pub head: Revision,
        }

        impl Tree {
            /// A load balancer with nothing below it, not stored yet.
            pub fn new(load_balancer: Record<LoadBalancer>) -> Self {
                Self { load_balancer: Arc::new(load_balancer), $($shelf: Records::new(),)* head: Revision::ZERO }
            }
        }

        impl InTree for LoadBalancer {
            const KIND: Kind = Kind::LoadBalancer;
            fn find(tree: &Tree, id: Uuid) -> Option<&Arc<Record<Self>>> {
                (tree.load_balancer.id == id).then_some(&tree.load_balancer)
            }
            fn find_mut(tree: &mut Tree, id: Uuid) -> Option<&mut Arc<Record<Self>>> {
                (tree.load_balancer.id == id).then_some(&mut tree.load_balancer)
            }
            fn records(tree: &Tree) -> impl Iterator<Item = &Arc<Record<Self>>> {
                std::iter::once(&tree.load_balancer)
            }
            fn put(tree: &mut Tree, record: Record<Self>) {
                tree.load_balancer = Arc::new(record);
            }
            fn rooted(record: Record<Self>) -> Option<Tree> {
                Some(Tree::new(record))
            }
        }

        $(
            impl InTree for $kind {
                const KIND: Kind = Kind::$kind;
                fn find(tree: &Tree, id: Uuid) -> Option<&Arc<Record<Self>>> {
                    tree.$shelf.get(&id)
                }
                fn find_mut(tree: &mut Tree, id: Uuid) -> Option<&mut Arc<Record<Self>>> {
                    tree.$shelf.get_mut(&id)
                }
                fn records(tree: &Tree) -> impl Iterator<Item = &Arc<Record<Self>>> {
                    tree.$shelf.values()
                }
                fn put(tree: &mut Tree, record: Record<Self>) {
                    tree.$shelf.insert(record.id, Arc::new(record));
                }
            }

            impl TreeField for $kind {
                fn of(tree: &Tree) -> &Records<Self> {
                    &tree.$shelf
                }
                fn of_mut(tree: &mut Tree) -> &mut Records<Self> {
                    &mut tree.$shelf
                }
            }
        )*

        /// `each_kind!(T => ...)`: the expression once for each kind below a load balancer, parents first, as
        /// type `T`.
        macro_rules! each_kind {
            ($d name:ident => $d body:expr) => {{
                $({
                    type $d name = $crate::resources::$kind;
                    $d body;
                })*
            }};
        }
        pub(crate) use each_kind;

        /// `every_kind!(T => ...)`: as [`each_kind`], with the load balancer first.
        macro_rules! every_kind {
            ($d name:ident => $d body:expr) => {{
                {
                    type $d name = $crate::resources::LoadBalancer;
                    $d body;
                }
                $crate::resources::each_kind!($d name => $d body);
            }};
        }
        pub(crate) use every_kind;

        /// `of_kind!(kind, T => ...)`: the expression with the type `T` of a kind.
        /// `of_kind!(kind, T => ..., root => ...)`: the second expression for a load balancer.
        macro_rules! of_kind {
            ($d kind:expr, $d name:ident => $d below:expr) => {
                $crate::resources::of_kind!($d kind, $d name => $d below, root => {
                    type $d name = $crate::resources::LoadBalancer;
                    $d below
                })
            };
            ($d kind:expr, $d name:ident => $d below:expr, root => $d root:expr) => {
                match $d kind {
                    $crate::resources::Kind::LoadBalancer => $d root,
                    $(
                        $crate::resources::Kind::$kind => {
                            type $d name = $crate::resources::$kind;
                            $d below
                        }
                    )*
                }
            };
        }
        pub(crate) use of_kind;

        /// `with_kinds!(name)`: `name!` with the types of all kinds, parents first.
        macro_rules! with_kinds {
            ($d name:ident) => {
                $d name! { LoadBalancer $(, $kind)* }
            };
        }
        pub(crate) use with_kinds;
    };
}

kinds! {
    $,
    /// Set of backends.
    Pool, pools, "pool", "pools";
    /// Port of a load balancer.
    Listener, listeners, "listener", "listeners";
    /// Server of a pool.
    Backend, backends, "backend", "backends";
    /// Health check of a pool's backends.
    HealthCheck, health_checks, "health check", "healthchecks";
}

impl Kind {
    /// Kind with keys in this folder.
    pub fn of_folder(folder: &str) -> Option<Kind> {
        Self::ALL.iter().copied().find(|kind| kind.folder() == folder)
    }

    /// Number of its ancestors: 0 for a root.
    pub fn depth(self) -> usize {
        std::iter::successors(self.parent(), |kind| kind.parent()).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parents_come_before_what_stands_below_them() {
        for (place, kind) in Kind::ALL.iter().enumerate() {
            let before = &Kind::ALL[..place];
            assert!(kind.parent().is_none_or(|parent| before.contains(&parent)), "{kind:?}");
        }
        assert_eq!([Kind::LoadBalancer, Kind::Pool, Kind::Backend].map(Kind::depth), [0, 1, 2]);
    }

    #[test]
    fn no_two_kinds_share_a_folder_or_words() {
        let folders: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.folder()).collect();
        let words: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.words()).collect();
        assert_eq!((folders.len(), words.len()), (Kind::ALL.len(), Kind::ALL.len()));
        assert!(Kind::ALL.iter().all(|kind| Kind::of_folder(kind.folder()) == Some(*kind)));
    }
}
