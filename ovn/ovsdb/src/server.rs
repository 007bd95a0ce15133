//! What a server says of itself in its `_Server` database (ovsdb-server(5)), and whether it is one to take content from.

use std::sync::Arc;

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::replica::{ColumnError, RowUpdate, Table, TableRow as _};
use crate::row;

/// Name of the database in which a server tells of itself. Servers before 2.9 have none.
pub const SERVER: &str = "_Server";

row! {
    /// One database of a server.
    Database in "Database" {
        /// Its name.
        name "name": String,
        /// `standalone`, `clustered` or `relay`.
        model "model": String,
        /// Whether the server is in touch with the cluster. A standalone one always is.
        connected "connected": Option<bool>,
        /// Whether the server leads the cluster. A standalone one always does.
        leader "leader": Option<bool>,
        /// The cluster's id.
        cid "cid": Option<Uuid>,
        /// The server's id in the cluster.
        sid "sid": Option<Uuid>,
        /// The last entry of the cluster's log that the server's content holds.
        index "index": Option<i64>,
    }
}

/// Why a server is not one to take content from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// It serves something else.
    #[error("the server has no database {database}; it has {}", .has.join(", "))]
    NoDatabase {
        /// What was asked for.
        database: String,
        /// What it has.
        has: Vec<String>,
    },
    /// A majority of the cluster is out of its reach, or it has not joined yet.
    #[error("the server has no contact with the majority of its cluster")]
    Disconnected,
    /// Another one leads, or nobody.
    #[error("the server does not lead its cluster: all members must be among the endpoints")]
    NotLeader,
    /// What it holds is older than what was seen already.
    #[error(
        "the server's view is stale: it is at entry {index} of the cluster's log, and {seen} was seen; if the database was \
         restored from a backup, start this program again"
    )]
    Stale {
        /// Where it is.
        index: i64,
        /// What was seen.
        seen: i64,
    },
    /// It is no member of the cluster that was used so far.
    #[error(
        "the server is not of cluster {seen}, which was used so far, but {}: correct the list of endpoints; if the database \
         was made anew, start this program again", .cluster.map_or("of none".to_owned(), |cid| format!("of cluster {cid}"))
    )]
    ForeignCluster {
        /// Whose member it is.
        cluster: Option<Uuid>,
        /// The cluster that was used so far.
        seen: Uuid,
    },
}

impl ServerError {
    /// Whether it may pass within moments, when the cluster has agreed on a leader.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Disconnected | Self::NotLeader | Self::Stale { .. })
    }
}

/// What is known of a database from the servers that were used so far. A new session begins with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The cluster, once one was seen.
    cluster: Option<Uuid>,
    /// The latest entry of its log.
    index: i64,
    /// What was monitored, and the last transaction that the replica holds.
    content: Option<(Arc<Value>, Uuid)>,
}

impl Seen {
    /// The last transaction that the replica holds, if it was monitored as now; nil where the whole content must come.
    #[must_use]
    pub fn last_transaction(&self, monitored: &Value) -> Uuid {
        let content = self.content.as_ref().filter(|(then, _)| **then == *monitored);
        content.map_or(Uuid::nil(), |(_, transaction)| *transaction)
    }

    /// The replica holds all up to this transaction; a nil one cannot be asked for.
    pub(super) fn holds(&mut self, monitored: &Arc<Value>, transaction: Uuid) {
        self.content = (!transaction.is_nil()).then(|| (Arc::clone(monitored), transaction));
    }

    /// A server that tells nothing of itself is of no cluster.
    pub(super) fn check_no_cluster(&self) -> Result<(), ServerError> {
        match self.cluster {
            Some(seen) => Err(ServerError::ForeignCluster { cluster: None, seen }),
            None => Ok(()),
        }
    }

    /// Nobody knows what the replica holds.
    pub(super) fn forget_content(&mut self) {
        self.content = None;
    }
}

/// A server's databases.
#[derive(Debug, Default)]
pub(super) struct Server {
    databases: Table<Database>,
}

impl Server {
    /// What to monitor in [`SERVER`].
    pub(super) fn monitored() -> Value {
        json!({Database::TABLE: [{"columns": Database::COLUMNS}]})
    }

    pub(super) fn apply(&mut self, updates: &[RowUpdate]) -> Result<(), ColumnError> {
        let ours = updates.iter().filter(|update| update.table == Database::TABLE);
        ours.into_iter().try_for_each(|update| self.databases.apply(update.uuid, &update.change).map(drop))
    }

    /// Whether this is a server to take content from, after what was seen; notes what it says.
    pub(super) fn check(
        &self,
        database: &str,
        leader_only: bool,
        seen: &mut Seen,
    ) -> Result<(), ServerError> {
        let row = self.database(database)?;
        let cluster = (row.model != "standalone").then_some(row.cid).flatten();
        if let Some(before) = seen.cluster.filter(|before| cluster != Some(*before)) {
            // One that is joining does not know its cluster yet.
            let joining = row.model != "standalone" && cluster.is_none();
            return Err(match joining {
                true => ServerError::Disconnected,
                false => ServerError::ForeignCluster { cluster, seen: before },
            });
        }
        if row.model == "standalone" {
            return Ok(());
        }
        let index = row.index.unwrap_or_default();
        match () {
            () if row.connected != Some(true) => Err(ServerError::Disconnected),
            () if leader_only && row.leader != Some(true) => Err(ServerError::NotLeader),
            () if index < seen.index => Err(ServerError::Stale { index, seen: seen.index }),
            () => {
                (seen.cluster, seen.index) = (cluster, index);
                Ok(())
            }
        }
    }

    /// Whether others could stand in for it.
    pub(super) fn is_clustered(&self, database: &str) -> bool {
        self.database(database).is_ok_and(|row| row.model != "standalone")
    }

    fn database(&self, name: &str) -> Result<&Database, ServerError> {
        let mut rows = self.databases.iter().map(|(_, row)| row);
        rows.find(|row| row.name == name).ok_or_else(|| {
            let mut has: Vec<String> = self.databases.iter().map(|(_, row)| row.name.clone()).collect();
            has.retain(|name| name != SERVER);
            has.sort();
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
        let mut seen = Seen::default();
        let mut check = |server: Server, leader_only| server.check("DB", leader_only, &mut seen);
        assert_eq!(check(member(true, false, 9, CLUSTER), true), Err(ServerError::NotLeader));
        assert_eq!(check(member(false, true, 9, CLUSTER), true), Err(ServerError::Disconnected));
        assert_eq!(
            check(member(true, true, 5, CLUSTER), true),
            Ok(()),
            "the refused ones left nothing behind"
        );
        assert_eq!(check(member(true, false, 9, CLUSTER), false), Ok(()));
    }

    #[test]
    fn a_view_that_is_behind_is_refused_and_so_is_another_cluster() {
        let mut seen = Seen::default();
        let mut check = |server: Server| server.check("DB", true, &mut seen);
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
        let error = server(&json!({"name": "OVN_Southbound"})).check("DB", true, &mut Seen::default());
        assert_eq!(error.unwrap_err().to_string(), "the server has no database DB; it has OVN_Southbound");
    }

    #[test]
    fn what_was_monitored_otherwise_cannot_be_resumed() {
        let mut seen = Seen::default();
        seen.holds(&Arc::new(json!({"T": 1})), Uuid::max());
        assert_eq!(seen.last_transaction(&json!({"T": 1})), Uuid::max());
        assert_eq!(seen.last_transaction(&json!({"T": 2})), Uuid::nil());
        seen.holds(&Arc::new(json!({"T": 1})), Uuid::nil());
        assert_eq!(seen, Seen::default());
    }
}
