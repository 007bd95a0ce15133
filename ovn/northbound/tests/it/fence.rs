//! The fence on a real ovsdb-server: what a deposed writer sends is refused, and nothing but the fence's key is touched.

use std::time::Duration;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::Installation;
use fiberlb_northbound::plan::fence::{self, FenceError};
use ovsdb::client::{Client, ConnectionStatus};
use ovsdb::error::TransactError;
use ovsdb::operation::{Operation, OperationResult};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::client::connect;
use fiberlb_ovn_testing::{Cluster, LONG, Server, config, owned, replica, status};

const OURS: Installation = Installation(Uuid::from_u128(1));
const THEIRS: Installation = Installation(Uuid::from_u128(2));

/// A server with the row that `ovn-nbctl init` makes, and somebody's keys on it.
async fn server() -> Server {
    let server = Server::start().await;
    let row =
        json!({"external_ids": ["map", [["theirs", "x"], ["more", "y"]]], "options": ["map", [["o", "1"]]]});
    server.foreign(&[json!({"op": "insert", "table": "NB_Global", "row": row})]);
    server
}

fn external_ids(server: &Server) -> Value {
    server.rows("NB_Global", &json!([]))[0]["external_ids"].clone()
}

async fn raise(
    client: &Client<Northbound>,
    installation: Installation,
    term: u64,
) -> Result<(), TransactError> {
    let operations = fence::raise(installation, term, &client.read()).unwrap().unwrap();
    client.transact(operations).await.map(drop)
}

async fn insert(
    client: &Client<Northbound>,
    installation: Installation,
    term: u64,
    number: u128,
) -> Result<Vec<OperationResult>, TransactError> {
    let guard = fence::guard(installation, term, &client.read());
    let insert = Operation::insert("Load_Balancer", Uuid::from_u128(number), owned("a", "o"));
    client.transact(vec![guard, insert]).await
}

#[tokio::test]
async fn a_guard_has_no_count_that_could_be_taken_for_a_missed_row() {
    let server = server().await;
    let (client, _events) = connect(config(server.unix())).await;
    raise(&client, OURS, 5).await.unwrap();
    let results = insert(&client, OURS, 5, 1).await.unwrap();
    assert!(results.iter().all(|result| result.count.is_none()), "{results:?}");
    assert_eq!(fence::raise(OURS, 5, &client.read()), Ok(None));
    assert_eq!(fence::raise(OURS, 4, &client.read()), Err(FenceError::Superseded { found: 5 }));
}

/// Waits until the replica shows something of the fence, a change of which is no event.
async fn shown(client: &Client<Northbound>, what: &str, holds: impl Fn(&Northbound) -> bool) {
    let polled = async {
        while !holds(&client.read()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, polled).await.unwrap_or_else(|_| panic!("not seen: {what}"));
}

/// The old writer goes on sending from its own connection while the new one raises the fence from another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_the_fence_is_raised_everything_of_the_old_term_is_refused() {
    let server = server().await;
    let (old, _old_events) = connect(config(server.unix())).await;
    let (new, mut events) = connect(config(server.unix())).await;
    raise(&old, OURS, 7).await.unwrap();
    shown(&new, "the fence", |nb| fence::raise(OURS, 7, nb) == Ok(None)).await;
    let mut load = JoinSet::new();
    for worker in 1..=8_u128 {
        let old = old.clone();
        load.spawn(async move {
            for number in 0.. {
                let number = worker << 32 | number;
                if let Err(error) = insert(&old, OURS, 7, number).await {
                    return (number, error);
                }
            }
            unreachable!()
        });
    }
    replica(&new, &mut events, "the load", |nb| nb.load_balancer.len() > 200).await;
    raise(&new, OURS, 8).await.unwrap();
    let held = server.rows("Load_Balancer", &json!([])).len();
    for (number, error) in load.join_all().await {
        assert!(error.is_fenced(), "{number}: {error}");
    }
    for number in 1..=50 {
        assert!(insert(&old, OURS, 7, number).await.unwrap_err().is_fenced());
    }
    assert_eq!(server.rows("Load_Balancer", &json!([])).len(), held, "the old writer wrote after the fence");
    insert(&new, OURS, 8, 1).await.unwrap();
    let expected = json!(["map", [[fence::key(OURS), "8"], ["more", "y"], ["theirs", "x"]]]);
    assert_eq!(external_ids(&server), expected);
    assert_eq!(server.rows("NB_Global", &json!([]))[0]["options"], json!(["map", [["o", "1"]]]));
}

#[tokio::test]
async fn of_two_who_raise_at_once_one_is_told_to_look_again() {
    let server = server().await;
    let (one, _one_events) = connect(config(server.unix())).await;
    let (two, _two_events) = connect(config(server.unix())).await;
    let late = fence::raise(OURS, 3, &two.read()).unwrap().unwrap();
    raise(&one, OURS, 4).await.unwrap();
    assert!(two.transact(late).await.unwrap_err().is_fenced());
    let superseded = Err(FenceError::Superseded { found: 4 });
    shown(&two, "the other's fence", |nb| fence::raise(OURS, 3, nb) == superseded).await;
}

#[tokio::test]
async fn two_installations_do_not_fence_each_other() {
    let server = server().await;
    let (client, _events) = connect(config(server.unix())).await;
    raise(&client, OURS, 9).await.unwrap();
    raise(&client, THEIRS, 2).await.unwrap();
    insert(&client, OURS, 9, 1).await.unwrap();
    insert(&client, THEIRS, 2, 2).await.unwrap();
    raise(&client, THEIRS, 3).await.unwrap();
    insert(&client, OURS, 9, 3).await.unwrap();
    assert!(insert(&client, THEIRS, 2, 4).await.unwrap_err().is_fenced());
}

#[tokio::test]
async fn a_fence_broken_by_hand_refuses_all_until_it_is_raised_anew() {
    let server = server().await;
    let (client, _events) = connect(config(server.unix())).await;
    raise(&client, OURS, 5).await.unwrap();
    let key = fence::key(OURS);
    let broken = json!([
        ["external_ids", "delete", ["set", [key]]],
        ["external_ids", "insert", ["map", [[key, "x"]]]]
    ]);
    server.foreign(&[json!({"op": "mutate", "table": "NB_Global", "where": [], "mutations": broken})]);
    assert!(insert(&client, OURS, 5, 1).await.unwrap_err().is_fenced());
    shown(&client, "the broken fence", |nb| fence::raise(OURS, 5, nb) != Ok(None)).await;
    raise(&client, OURS, 5).await.unwrap();
    insert(&client, OURS, 5, 1).await.unwrap();
}

/// The fence stands in what the cluster has agreed on: whoever leads enforces it.
#[tokio::test]
async fn a_fence_holds_on_the_next_leader_too() {
    let mut cluster = Cluster::start(3).await;
    cluster.foreign(&[json!({"op": "insert", "table": "NB_Global", "row": {}})]).await;
    let ((old, _old_events), (new, _new_events)) =
        tokio::join!(connect(cluster.config()), connect(cluster.config()));
    raise(&old, OURS, 3).await.unwrap();
    insert(&old, OURS, 3, 1).await.unwrap();
    while fence::raise(OURS, 3, &new.read()).unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    raise(&new, OURS, 4).await.unwrap();
    let leader = cluster.leader(None).await;
    cluster.kill(leader);
    let next = cluster.endpoint(cluster.leader(None).await);
    for client in [&old, &new] {
        let is_with_next = |status: &ConnectionStatus| matches!(status, ConnectionStatus::Live { endpoint, .. } if *endpoint == next);
        status(client, "a connection with the next leader", is_with_next).await;
    }
    assert!(insert(&old, OURS, 3, 2).await.unwrap_err().is_fenced());
    insert(&new, OURS, 4, 2).await.unwrap();
    assert_eq!(cluster.rows("Load_Balancer").await.len(), 2);
}
