//! The one list of kinds of resources. Storage, indexes, comparison, published statuses, watches and metrics
//! go through it: a kind that is listed and not described does not compile, and none can be left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Backend, HealthCheck, Listener, LoadBalancer, Pool, Record, Resource};
use crate::store::Revision;

/// Resources of one kind in a tree, by id.
pub type Records<T> = BTreeMap<Uuid, Arc<Record<T>>>;

/// Field of a kind in a tree.
pub trait Shelved: Sized {
    /// The kind.
    const KIND: Kind;
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
                    $(Self::$kind => Some(<$kind as Resource>::PARENT),)*
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

        $(
            impl Shelved for $kind {
                const KIND: Kind = Kind::$kind;
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

        /// `of_kind!(kind, T => ..., root => ...)`: the first expression with the type `T` of a kind below a
        /// load balancer, else the second one.
        macro_rules! of_kind {
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
