//! A clustered database: which member is used, and what is known when members freeze, die and come back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ovsdb::client::{Client, Config, ConnectionStatus};
use ovsdb::endpoint::Endpoint;
use ovsdb::error::{DatabaseError, TransactError};
use ovsdb::operation::Operation;
use ovsdb::replica::{ColumnError, MonitoredTable, Replica, RowUpdate};
use ovsdb::schema::Schema;
use ovsdb::untyped::{UntypedChange, UntypedReplica};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::rows::{TABLE, owned_by, untyped};
use fiberlb_ovn_testing::{Cluster, connect, owned, reloaded, status};

fn insert(number: u128) -> Vec<Operation> {
    vec![Operation::insert(TABLE, Uuid::from_u128(number), owned(&format!("lb-{number}"), "o"))]
}

fn is_with(status: &ConnectionStatus, wanted: &Endpoint) -> bool {
    matches!(status, ConnectionStatus::Live { endpoint, .. } if endpoint == wanted)
}

async fn live_with(client: &Client<UntypedReplica>, endpoint: &Endpoint) {
    status(client, "a connection with the leader", |status| is_with(status, endpoint)).await;
}

/// Brings a row about as a reconciler does: whatever happens, it looks at the replica, and sends the difference.
async fn ensure(client: &Client<UntypedReplica>, number: u128) {
    loop {
        status(client, "a live connection", ConnectionStatus::is_live).await;
        if client.read().get(TABLE, Uuid::from_u128(number)).is_some() {
            return;
        }
        match client.transact(insert(number)).await {
            Ok(_) => return,
            Err(TransactError::Refused { error: DatabaseError::DuplicateUuid, .. }) => {}
            Err(refused @ TransactError::Refused { .. }) => panic!("{number}: {refused}"),
            Err(TransactError::Unknown { .. } | TransactError::NotConnected { .. }) => {}
        }
    }
}

/// Each of the rows is there once.
async fn assert_rows(cluster: &Cluster, count: u128) {
    let rows = cluster.rows(TABLE).await;
    let names: BTreeSet<String> = rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    let wanted: BTreeSet<String> = (1..=count).map(|number| format!("lb-{number}")).collect();
    assert_eq!((names, rows.len()), (wanted.clone(), wanted.len()));
}

#[tokio::test]
async fn the_leader_is_used_wherever_it_stands_in_the_list() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.endpoint(cluster.leader(None).await);
    let mut endpoints = cluster.config().endpoints;
    for _ in 0..3 {
        endpoints.rotate_left(1);
        let config =
            Config { endpoints: endpoints.clone(), backoff_min: Duration::from_secs(60), ..cluster.config() };
        // All are tried in one round: there is no pause before the leader is found.
        let (client, _events) = connect(config, untyped()).await;
        live_with(&client, &leader).await;
        assert_eq!(
            client.transact(vec![Operation::delete(TABLE, Uuid::nil())]).await.unwrap()[0].count,
            Some(0)
        );
    }
}

#[tokio::test]
async fn a_follower_is_refused_unless_it_is_asked_for() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.endpoint(cluster.followers().await[0]);
    let config = || Config { endpoints: vec![follower.clone()], ..cluster.config() };
    let (client, _events) = Client::start(config(), untyped());
    status(&client, "a refusal", |status| status.to_string().contains("does not lead its cluster")).await;
    assert!(!client.has_been_live());
    let (client, _events) = connect(Config { leader_only: false, ..config() }, untyped()).await;
    client.transact(insert(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_under_load_loses_nothing_and_doubles_nothing() {
    const ROWS: u128 = 600;
    let mut cluster = Cluster::start(3).await;
    let (client, _events) = connect(cluster.config(), untyped()).await;
    let mut running = JoinSet::new();
    for worker in 1..=12 {
        let client = client.clone();
        running.spawn(async move {
            for number in (worker..=ROWS).step_by(12) {
                ensure(&client, number).await;
            }
        });
    }
    for rows in [100, 300] {
        while client.read().rows(TABLE).len() < rows {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let leader = cluster.leader(None).await;
        cluster.kill(leader);
        cluster.leader(None).await;
        cluster.start_again(leader).await;
    }
    running.join_all().await;
    assert_rows(&cluster, ROWS).await;
}

#[tokio::test]
async fn without_a_quorum_outcomes_are_unknown_and_with_it_all_goes_on() {
    let mut cluster = Cluster::start(3).await;
    let config = Config { transact_timeout: Duration::from_secs(1), ..cluster.config() };
    let (client, _events) = connect(config, untyped()).await;
    ensure(&client, 1).await;
    let followers = cluster.followers().await;
    followers.iter().for_each(|number| cluster.kill(*number));
    let outcome = client.transact(insert(2)).await;
    assert!(matches!(outcome, Err(TransactError::Unknown { .. })), "{outcome:?}");
    status(&client, "the loss of the quorum", |status| status.to_string().contains("majority")).await;
    for number in followers {
        cluster.launch(number);
    }
    for number in 2..=5 {
        ensure(&client, number).await;
    }
    assert_rows(&cluster, 5).await;
}

#[tokio::test]
async fn a_frozen_leader_is_left_and_does_not_matter_when_it_wakes() {
    let cluster = Cluster::start(3).await;
    let config = Config { probe_interval: Duration::from_millis(700), ..cluster.config() };
    let (client, _events) = connect(config, untyped()).await;
    ensure(&client, 1).await;
    let old = cluster.leader(None).await;
    cluster.signal(old, "STOP");
    let outcome = client.transact(insert(2)).await;
    assert!(matches!(outcome, Err(TransactError::Unknown { .. })), "{outcome:?}");
    let new = cluster.leader(Some(old)).await;
    live_with(&client, &cluster.endpoint(new)).await;
    ensure(&client, 2).await;
    cluster.signal(old, "CONT");
    cluster.joined(old).await;
    for number in 3..=20 {
        ensure(&client, number).await;
    }
    assert_rows(&cluster, 20).await;
}

#[tokio::test]
async fn a_leader_that_steps_down_is_left_at_once() {
    let cluster = Cluster::start(3).await;
    let (client, _events) = connect(cluster.config(), untyped()).await;
    ensure(&client, 1).await;
    // Fellows that do not answer for longer than the election timer make it step down; nothing of its own fails.
    let followers = cluster.followers().await;
    followers.iter().for_each(|number| cluster.signal(*number, "STOP"));
    status(&client, "that nobody leads", |status| {
        let text = status.to_string();
        text.contains("does not lead") || text.contains("majority")
    })
    .await;
    followers.iter().for_each(|number| cluster.signal(*number, "CONT"));
    let new = cluster.leader(None).await;
    live_with(&client, &cluster.endpoint(new)).await;
    ensure(&client, 2).await;
    assert_rows(&cluster, 2).await;
}

/// A frozen follower that wakes believes for a moment that it is in touch.
#[tokio::test]
async fn a_member_that_missed_what_was_seen_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let (client, _events) = connect(Config { leader_only: false, ..cluster.config() }, untyped()).await;
    let leader = cluster.leader(None).await;
    let (behind, other) = match cluster.followers().await[..] {
        [one, other] if is_with(&client.status().borrow(), &cluster.endpoint(one)) => (other, one),
        [one, other] => (one, other),
        _ => unreachable!(),
    };
    cluster.signal(behind, "STOP");
    for number in 1..=10 {
        ensure(&client, number).await;
    }
    cluster.kill(leader);
    cluster.kill(other);
    status(&client, "the end of the connection", |status| !status.is_live()).await;
    cluster.signal(behind, "CONT");
    status(&client, "a refusal", |status| {
        let text = status.to_string();
        text.contains("stale") || text.contains("majority")
    })
    .await;
    assert_eq!(client.read().rows(TABLE).len(), 10, "the replica went back in time");
    cluster.start_again(leader).await;
    ensure(&client, 11).await;
    assert_rows(&cluster, 11).await;
}

/// The whole cluster may be older than what was seen.
#[tokio::test]
async fn a_database_put_back_to_an_older_state_is_not_taken_for_the_present_one() {
    let mut cluster = Cluster::start(1).await;
    let (client, _events) = connect(cluster.config(), untyped()).await;
    ensure(&client, 1).await;
    cluster.kill(0);
    let backup = std::fs::read(cluster.file(0)).unwrap();
    cluster.start_again(0).await;
    for number in 2..=20 {
        ensure(&client, number).await;
    }
    cluster.kill(0);
    std::fs::write(cluster.file(0), backup).unwrap();
    cluster.start_again(0).await;
    status(&client, "a refusal", |status| status.to_string().contains("stale")).await;
    assert_eq!(client.read().rows(TABLE).len(), 20);
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused() {
    let mut ours = Cluster::start(1).await;
    let theirs = Cluster::start(1).await;
    theirs.foreign(&[json!({"op": "insert", "table": TABLE, "row": {"name": "theirs"}})]).await;
    let endpoints = vec![ours.endpoint(0), theirs.endpoint(0)];
    let (client, _events) = connect(Config { endpoints, ..ours.config() }, untyped()).await;
    ensure(&client, 1).await;
    ours.kill(0);
    status(&client, "a refusal", |status| status.to_string().contains("which was used so far")).await;
    assert_eq!(client.read().rows(TABLE).len(), 1);
    ours.start_again(0).await;
    live_with(&client, &ours.endpoint(0)).await;
}

/// A replica that counts what it is given.
pub(crate) struct Counting {
    pub(crate) rows: UntypedReplica,
    pub(crate) reloads: Arc<AtomicUsize>,
    given: Arc<AtomicUsize>,
}

impl Default for Counting {
    fn default() -> Self {
        Self { rows: untyped(), reloads: Arc::default(), given: Arc::default() }
    }
}

impl Replica for Counting {
    type Change = UntypedChange;

    fn monitored(&self) -> Option<Vec<MonitoredTable>> {
        self.rows.monitored()
    }

    fn set_schema(&mut self, schema: &Arc<Schema>) {
        self.rows.set_schema(schema);
    }

    fn reload(&mut self, content: Vec<RowUpdate>) -> Result<Vec<UntypedChange>, ColumnError> {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        self.given.fetch_add(content.len(), Ordering::Relaxed);
        self.rows.reload(content)
    }

    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<UntypedChange>, ColumnError> {
        self.given.fetch_add(updates.len(), Ordering::Relaxed);
        self.rows.apply(updates)
    }
}

#[tokio::test]
async fn with_a_new_leader_only_what_happened_since_comes() {
    const ROWS: usize = 1000;
    let mut cluster = Cluster::start(3).await;
    let rows: Vec<_> =
        (0..ROWS).map(|n| json!({"op": "insert", "table": TABLE, "row": {"name": n.to_string()}})).collect();
    cluster.foreign(&rows).await;
    let counting = Counting::default();
    let (reloads, counted) = (Arc::clone(&counting.reloads), Arc::clone(&counting.given));
    let (client, mut events) = Client::start(cluster.config(), counting);
    reloaded(&mut events).await;
    assert_eq!((reloads.load(Ordering::Relaxed), counted.swap(0, Ordering::Relaxed)), (1, ROWS));
    client.transact(insert(1)).await.unwrap();

    let leader = cluster.leader(None).await;
    cluster.kill(leader);
    let changes = json!([
        {"op": "insert", "table": TABLE, "row": owned("while away", "away")},
        {"op": "update", "table": TABLE, "where": [["name", "==", "7"]], "row": owned("seven", "away")},
        {"op": "delete", "table": TABLE, "where": [["name", "==", "8"]]},
    ]);
    cluster.foreign(changes.as_array().unwrap()).await;
    reloaded(&mut events).await;
    while owned_by(&client.read().rows, "away").len() < 2 {
        events.recv().await.unwrap();
    }
    assert_eq!(client.read().rows.rows(TABLE).len(), ROWS + 1);
    assert_eq!(reloads.load(Ordering::Relaxed), 1, "all came again");
    let came = counted.load(Ordering::Relaxed);
    assert!(came <= 10, "{came} rows came again");
}

/// Path to a server that can be cut.
pub(crate) struct Link {
    dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Link {
    pub(crate) fn to(endpoint: &Endpoint) -> Self {
        let Endpoint::Unix(socket) = endpoint else { panic!("{endpoint} is not a file") };
        let link = Self { dir: tempfile::tempdir().unwrap(), socket: socket.clone() };
        link.mend();
        link
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path())
    }

    /// Ends it for new connections.
    pub(crate) fn cut(&self) {
        std::fs::remove_file(self.path()).unwrap();
    }

    pub(crate) fn mend(&self) {
        std::os::unix::fs::symlink(&self.socket, self.path()).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("nb")
    }
}

/// While the client was away the cluster has compacted its log: all comes again, and only what differs is told.
#[tokio::test]
async fn what_a_cluster_does_not_remember_is_found_by_comparison() {
    let mut cluster = Cluster::start(1).await;
    let link = Link::to(&cluster.endpoint(0));
    let counting = Counting::default();
    let reloads = Arc::clone(&counting.reloads);
    let config = Config { endpoints: vec![link.endpoint()], ..cluster.config() };
    let (client, mut events) = Client::start(config, counting);
    reloaded(&mut events).await;
    client.transact(insert(1)).await.unwrap();

    cluster.kill(0);
    link.cut();
    cluster.start_again(0).await;
    cluster.foreign(&[json!({"op": "insert", "table": TABLE, "row": owned("while away", "away")})]).await;
    cluster.compact(0).await;
    cluster.kill(0);
    cluster.start_again(0).await;
    link.mend();
    let changes = reloaded(&mut events).await;
    let names: Vec<_> =
        changes.iter().map(|change| change.after.as_ref().unwrap()["name"].as_str()).collect();
    assert_eq!(names, [Some("while away")]);
    assert_eq!(reloads.load(Ordering::Relaxed), 2, "the cluster remembers all");
}
