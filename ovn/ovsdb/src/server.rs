//! Database `_Server` (ovsdb-server(5)): the server's own description of itself, by which a client decides whether its content
//! is trustworthy.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::replica::{ColumnError, RowUpdate, Table, TableRow as _};
use crate::row;

/// Name of the database that describes the server. Servers before 2.9 have none.
pub(super) const SERVER_DATABASE: &str = "_Server";

row! {
    /// Row of `_Server`: one database that the server has.
    pub(super) struct ServedDatabase in "Database" {
        /// Name of the database.
        name: String,
        /// `standalone`, `clustered` or `relay`.
        model: String,
        /// True if the server is in contact with a majority of the cluster; always true for a standalone one.
        connected: Option<bool>,
        /// True if the server leads the cluster; always true for a standalone one.
        leader: Option<bool>,
        /// Id of the cluster.
        cid: Option<Uuid>,
        /// Index of the newest entry of the cluster's log that the server's content includes.
        index: Option<i64>,
    }
}

/// Reason why a server's content is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// The server does not have the database.
    #[error("the server has no database {database}; it has {}", .has.join(", "))]
    NoDatabase {
        /// Configured name.
        database: String,
        /// Databases that the server has, sorted.
        has: Vec<String>,
    },
    /// The server has no contact with a majority of its cluster, or has not joined it yet.
    #[error("the server has no contact with the majority of its cluster")]
    Disconnected,
    /// Another member leads the cluster, or none does.
    #[error("the server does not lead its cluster: list all members among the endpoints")]
    NotLeader,
    /// The server's content is older than what the client has seen.
    #[error(
        "the server's view is stale: it is at entry {index} of the cluster's log, and entry {seen} was seen; if the database \
         was restored from a backup, restart this program"
    )]
    Stale {
        /// Newest log entry of the server.
        index: i64,
        /// Newest log entry that the client has seen.
        seen: i64,
    },
    /// The server belongs to another cluster than the client has used so far, or to none.
    #[error(
        "the server is not a member of cluster {seen}, which was used so far, but {}: correct the list of endpoints; if the \
         database was created anew, restart this program",
        .cluster.map_or("of none".to_owned(), |cid| format!("of cluster {cid}"))
    )]
    ForeignCluster {
        /// Cluster of the server.
        cluster: Option<Uuid>,
        /// Cluster that was used so far.
        seen: Uuid,
    },
}

impl ServerError {
    /// True for errors that pass by themselves within moments, when the cluster has elected a leader.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Disconnected | Self::NotLeader | Self::Stale { .. })
    }
}

/// State that a session inherits from the sessions before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResumeState {
    /// Cluster, once one was used.
    cluster: Option<Uuid>,
    /// Newest log entry of the cluster that was seen.
    index: i64,
    /// Monitor request, and the last transaction that the replica includes of it.
    content: Option<(Arc<Value>, Uuid)>,
    /// Number of parts of the content that were too long, less those of contents that were complete.
    caution: u32,
}

impl ResumeState {
    /// Last transaction that the replica includes, if it was monitored by the same request; nil if the whole content is needed.
    pub(super) fn last_transaction(&self, monitored: &Value) -> Uuid {
        let content = self.content.as_ref().filter(|(before, _)| **before == *monitored);
        content.map_or(Uuid::nil(), |(_, transaction)| *transaction)
    }

    /// Records that the replica includes everything up to this transaction; a nil one cannot be resumed from.
    pub(super) fn set_content(&mut self, monitored: &Arc<Value>, transaction: Uuid) {
        self.content = (!transaction.is_nil()).then(|| (Arc::clone(monitored), transaction));
    }

    /// Records that the replica's content is unknown.
    pub(super) fn clear_content(&mut self) {
        self.content = None;
    }

    /// Level of caution about the length of parts of the content: 0, and one more for each that was too long.
    pub(super) fn caution(&self) -> u32 {
        self.caution
    }

    /// Records that a part of the content was too long.
    pub(super) fn part_was_too_long(&mut self) {
        self.caution = self.caution.saturating_add(1);
    }

    /// Records that the content is complete. What made a part too long may have passed.
    pub(super) fn content_is_complete(&mut self) {
        self.caution = self.caution.saturating_sub(1);
    }

    /// Checks a server that does not describe itself, and is thus standalone.
    pub(super) fn check_no_cluster(&self) -> Result<(), ServerError> {
        match self.cluster {
            Some(seen) => Err(ServerError::ForeignCluster { cluster: None, seen }),
            None => Ok(()),
        }
    }
}

/// Databases that a server reports.
#[derive(Debug, Default)]
pub(super) struct Server {
    databases: Table<ServedDatabase>,
}

impl Server {
    /// Monitor request for [`SERVER_DATABASE`].
    pub(super) fn monitored() -> Value {
        json!({ServedDatabase::TABLE: [{"columns": ServedDatabase::COLUMNS}]})
    }

    pub(super) fn apply(&mut self, updates: &[RowUpdate]) -> Result<(), ColumnError> {
        let ours = updates.iter().filter(|update| update.table == ServedDatabase::TABLE);
        ours.into_iter().try_for_each(|update| self.databases.apply(update.uuid, &update.change).map(drop))
    }

    /// Checks that content may be taken from the server, and records its cluster and log index.
    pub(super) fn check(
        &self,
        database: &str,
        leader_only: bool,
        state: &mut ResumeState,
    ) -> Result<(), ServerError> {
        let row = self.database(database)?;
        let cluster = (row.model != "standalone").then_some(row.cid).flatten();
        if let Some(seen) = state.cluster.filter(|seen| cluster != Some(*seen)) {
            // A member that is joining does not know its cluster yet.
            let joining = row.model != "standalone" && cluster.is_none();
            return Err(match joining {
                true => ServerError::Disconnected,
                false => ServerError::ForeignCluster { cluster, seen },
            });
        }
        if row.model == "standalone" {
            return Ok(());
        }
        let index = row.index.unwrap_or_default();
        match () {
            () if row.connected != Some(true) => Err(ServerError::Disconnected),
            () if leader_only && row.leader != Some(true) => Err(ServerError::NotLeader),
            () if index < state.index => Err(ServerError::Stale { index, seen: state.index }),
            () => {
                (state.cluster, state.index) = (cluster, index);
                Ok(())
            }
        }
    }

    /// True if other members of a cluster can take over from the server.
    pub(super) fn is_clustered(&self, database: &str) -> bool {
        self.database(database).is_ok_and(|row| row.model != "standalone")
    }

    fn database(&self, name: &str) -> Result<&ServedDatabase, ServerError> {
        let mut rows = self.databases.iter().map(|(_, row)| row);
        rows.find(|row| row.name == name).ok_or_else(|| {
            let names: BTreeSet<&str> = self.databases.iter().map(|(_, row)| row.name.as_str()).collect();
            let has = names.into_iter().filter(|name| *name != SERVER_DATABASE).map(str::to_owned).collect();
            ServerError::NoDatabase { database: name.to_owned(), has }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::RowChange;

    const CLUSTER: Uuid = Uuid::from_u128(1);

    fn server(row: &Value) -> Server {
        let mut server = Server::default();
        let change = RowChange::Insert(row.as_object().unwrap().clone());
        let update = RowUpdate { table: "Database".to_owned(), uuid: Uuid::nil(), change };
        server.apply(&[update]).unwrap();
        server
    }

    fn member(connected: bool, leader: bool, index: i64, cluster: Uuid) -> Server {
        let row = json!({"name": "DB", "model": "clustered", "connected": connected, "leader": leader, "index": index,
            "cid": ["uuid", cluster]});
        server(&row)
    }

    fn standalone() -> Server {
        server(&json!({"name": "DB", "model": "standalone", "connected": true, "leader": true}))
    }

    #[test]
    fn content_comes_from_a_leader_with_the_cluster_behind_it() {
        let mut state = ResumeState::default();
        let mut check = |server: Server, leader_only| server.check("DB", leader_only, &mut state);
        assert_eq!(check(member(true, false, 9, CLUSTER), true), Err(ServerError::NotLeader));
        assert_eq!(check(member(false, true, 9, CLUSTER), true), Err(ServerError::Disconnected));
        assert_eq!(
            check(member(true, true, 5, CLUSTER), true),
            Ok(()),
            "refused servers leave the state unchanged"
        );
        assert_eq!(check(member(true, false, 9, CLUSTER), false), Ok(()));
    }

    #[test]
    fn a_view_that_is_behind_is_refused_and_so_is_another_cluster() {
        let mut state = ResumeState::default();
        let mut check = |server: Server| server.check("DB", true, &mut state);
        assert_eq!(check(standalone()), Ok(()));
        assert_eq!(check(member(true, true, 7, CLUSTER)), Ok(()), "a database may become a cluster");
        let stale = ServerError::Stale { index: 6, seen: 7 };
        assert_eq!(check(member(true, true, 6, CLUSTER)), Err(stale));
        let foreign = |cluster| Err(ServerError::ForeignCluster { cluster, seen: CLUSTER });
        assert_eq!(check(member(true, true, 99, Uuid::max())), foreign(Some(Uuid::max())));
        assert_eq!(check(standalone()), foreign(None));
        let joining = json!({"name": "DB", "model": "clustered"});
        assert_eq!(check(server(&joining)), Err(ServerError::Disconnected));
        assert_eq!(check(member(true, true, 7, CLUSTER)), Ok(()));
    }

    #[test]
    fn a_server_of_something_else_says_of_what() {
        let error = server(&json!({"name": "OVN_Southbound"})).check("DB", true, &mut ResumeState::default());
        assert_eq!(error.unwrap_err().to_string(), "the server has no database DB; it has OVN_Southbound");
    }

    #[test]
    fn what_was_monitored_otherwise_cannot_be_resumed() {
        let mut state = ResumeState::default();
        state.set_content(&Arc::new(json!({"T": 1})), Uuid::max());
        assert_eq!(state.last_transaction(&json!({"T": 1})), Uuid::max());
        assert_eq!(state.last_transaction(&json!({"T": 2})), Uuid::nil());
        state.set_content(&Arc::new(json!({"T": 1})), Uuid::nil());
        assert_eq!(state, ResumeState::default());
    }
}
