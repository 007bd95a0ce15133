//! The double of a server beside a real one: what clients of both send, get and see is the same.

use std::collections::BTreeSet;

use fiberlb_northbound::plan::{Installation, fence};
use fiberlb_northbound::{Change, Northbound, double};
use ovsdb::client::{Client, Event};
use ovsdb::error::{DatabaseError, TransactError};
use ovsdb::operation::{Columns, Condition, Mutation, Operation, OperationResult};
use ovsdb::value;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Events, connect};
use fiberlb_ovn_testing::{OWNER_KEY, Server, config};

const GLOBAL: Uuid = Uuid::from_u128(0x78);
const OURS: Installation = Installation(Uuid::from_u128(9));
/// Tables of the rows that are made, changed and removed.
const TABLES: [&str; 4] = ["Load_Balancer", "Load_Balancer_Group", "Logical_Switch", "Logical_Switch_Port"];

/// A client of each.
struct Both {
    _server: Server,
    real: (Client<Northbound>, Events),
    double: (Client<Northbound>, Events),
}

type Outcome = Result<Vec<OperationResult>, (Option<usize>, DatabaseError)>;

fn outcome(result: Result<Vec<OperationResult>, TransactError>) -> Outcome {
    result.map_err(|error| match error {
        TransactError::Refused { operation, error, .. } => (operation, error),
        other => panic!("{other}"),
    })
}

/// Changes that have been told, in an order of their own.
fn told(events: &mut Events) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Reloaded(all) | Event::Changed(all) => changes.extend(all),
            Event::Disconnected => panic!("disconnected"),
        }
    }
    changes.sort();
    changes
}

impl Both {
    async fn start() -> Self {
        let server = Server::start().await;
        let real = connect(config(server.unix())).await;
        let double = double::database().unwrap().client(Northbound::new(OWNER_KEY));
        let mut both = Self { _server: server, real, double };
        assert_eq!(told(&mut both.double.1), []);
        both.transact(vec![Operation::insert("NB_Global", GLOBAL, Columns::new())]).await.unwrap();
        both
    }

    /// Sends a transaction to both; all that can be seen of it is the same.
    async fn transact(&mut self, operations: Vec<Operation>) -> Outcome {
        let real = outcome(self.real.0.transact(operations.clone()).await);
        let double = outcome(self.double.0.transact(operations.clone()).await);
        assert_eq!(double, real, "{operations:#?}");
        assert!(*self.double.0.read() == *self.real.0.read(), "other rows after {operations:#?}");
        assert_eq!(told(&mut self.double.1), told(&mut self.real.1), "{operations:#?}");
        real
    }
}

/// Numbers that look random and are the same in each run (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// A row of a table, of which there are six.
    fn row(&mut self, table: &str) -> Uuid {
        let table = TABLES.iter().position(|it| *it == table).unwrap() as u128;
        Uuid::from_u128(0x1000 * (table + 1) + u128::from(self.below(6)))
    }

    fn set(&mut self, table: &str) -> Value {
        let count = self.below(3);
        let rows: BTreeSet<Uuid> = (0..count).map(|_| self.row(table)).collect();
        value::set(rows.into_iter().map(value::uuid))
    }

    fn map(&mut self) -> Value {
        let owner = (self.below(2) > 0).then(|| (json!(OWNER_KEY), json!(self.one(&["x", "y"]))));
        let other = (self.below(2) > 0).then(|| (json!(self.one(&["a", "b"])), json!(self.one(&["1", "2"]))));
        value::map(owner.into_iter().chain(other))
    }

    /// Columns of a row. Names are unique where OVN's schema demands it.
    fn columns(&mut self, table: &str, uuid: Uuid) -> Columns {
        let mut columns = Columns::from_iter([("name".to_owned(), json!(uuid.to_string()))]);
        let ids = self.map();
        let more = match table {
            "Load_Balancer_Group" => ("load_balancer", self.set("Load_Balancer")),
            "Logical_Switch" if self.below(2) > 0 => ("ports", self.set("Logical_Switch_Port")),
            "Logical_Switch" => ("load_balancer_group", self.set("Load_Balancer_Group")),
            _ => ("external_ids", ids),
        };
        columns.insert(more.0.to_owned(), more.1);
        columns
    }

    fn mutation(&mut self, table: &str) -> Mutation {
        let way = self.one(&[Mutation::insert as fn(_, _) -> _, Mutation::delete]);
        match table {
            "Load_Balancer_Group" => way("load_balancer", self.set("Load_Balancer")),
            "Logical_Switch" if self.below(2) > 0 => way("ports", self.set("Logical_Switch_Port")),
            "Logical_Switch" => way("load_balancer_group", self.set("Load_Balancer_Group")),
            _ if self.below(2) > 0 => Mutation::delete("external_ids", json!(["set", ["a", OWNER_KEY]])),
            _ => Mutation::insert("external_ids", self.map()),
        }
    }

    fn operation(&mut self) -> Operation {
        let table = self.one(&TABLES);
        let uuid = self.row(table);
        match self.below(12) {
            0..4 => Operation::insert(table, uuid, self.columns(table, uuid)),
            4..6 => Operation::update(table, uuid, self.columns(table, uuid)),
            6..9 => Operation::mutate(table, uuid, vec![self.mutation(table)]),
            9..11 => Operation::delete(table, uuid),
            _ => {
                let there = Columns::from_iter([("_uuid".to_owned(), value::uuid(uuid))]);
                Operation::wait(table, vec![Condition::row(uuid)], vec!["_uuid"], vec![there])
            }
        }
    }
}

#[tokio::test]
async fn transactions_at_random_have_the_same_outcome_rows_and_changes() {
    let mut both = Both::start().await;
    let (mut numbers, mut carried, mut refused) = (Numbers(1), 0, BTreeSet::new());
    for _ in 0..1500 {
        let count = 1 + numbers.below(3);
        let mut operations: Vec<_> = (0..count).map(|_| numbers.operation()).collect();
        // As the planner orders them: a server (3.5) keeps a weak reference to a row that is deleted after another one
        // was put into the same set.
        operations.sort_by_key(|it| !matches!(it, Operation::Delete { .. }));
        match both.transact(operations).await {
            Ok(_) => carried += 1,
            Err((_, error)) => drop(refused.insert(error.to_string())),
        }
    }
    assert!(carried > 100, "{carried}");
    assert_eq!(refused.len(), 3, "duplicates, references and waits: {refused:?}");
}

#[tokio::test]
async fn a_fence_is_the_same() {
    let mut both = Both::start().await;
    let raise = |both: &Both, term| fence::raise(OURS, term, &both.double.0.read()).unwrap().unwrap();
    let guard = |both: &Both, term| vec![fence::guard(OURS, term, &both.double.0.read())];
    let late = raise(&both, 3);
    both.transact(raise(&both, 5)).await.unwrap();
    let unmet = Err((Some(0), DatabaseError::TimedOut));
    assert_eq!(both.transact(late).await, unmet);
    both.transact(guard(&both, 5)).await.unwrap();
    both.transact(raise(&both, 6)).await.unwrap();
    assert_eq!(both.transact(guard(&both, 5)).await, unmet);
}
