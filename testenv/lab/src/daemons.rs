//! The daemons of OVN's central part, by name.

/// A daemon of the central part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Central {
    /// The northbound database's `ovsdb-server`, where it is not clustered.
    Northbound,
    /// A member of the clustered northbound database.
    Member(Member),
    /// The southbound database's `ovsdb-server`.
    Southbound,
    /// `ovn-northd`.
    Northd,
}

/// Way to stop a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Ask it to exit.
    Graceful,
    /// `kill -9`.
    Kill,
}

impl Central {
    /// Its name in the lab's scripts and file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Central::Northbound => "nb",
            Central::Member(member) => member.name(),
            Central::Southbound => "sb",
            Central::Northd => "northd",
        }
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// The one that made the cluster.
    One,
    /// One that joined.
    Two,
    /// One that joined.
    Three,
}

impl Member {
    /// All of them.
    pub const ALL: [Member; 3] = [Member::One, Member::Two, Member::Three];

    /// Its name in the lab: of its files, its network namespace and its link to the underlay.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Member::One => "nb1",
            Member::Two => "nb2",
            Member::Three => "nb3",
        }
    }
}
