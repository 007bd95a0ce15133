//! The fence between plugins on one store and one northbound database, both in memory.

use std::sync::Mutex;

use fiberlb_northbound::plan::OWNER_KEY;
use ovsdb::client::double::{Double, Fate};
use ovsdb::operation::Mutation;
use serde_json::json;

use super::*;
use crate::reconcile::examples::{GLOBAL, INSTALLATION, database, elect, term};
use fiberlb_store::{SharedStore, StoreFault, Transaction, Write};

/// A store, a northbound database, and a client of each.
struct World {
    store: SharedStore,
    database: Double<Northbound>,
    northbound: Client<Northbound>,
}

impl World {
    fn new() -> Self {
        let (store, database) = (SharedStore::default(), database());
        let (northbound, _) = database.client(Northbound::new(OWNER_KEY));
        Self { store, database, northbound }
    }

    /// Makes a plugin leader in the place of any other.
    async fn elect(&self) -> Fence {
        elect(&self.store).await
    }

    /// Makes a plugin leader that has raised the fence.
    async fn lead(&self) -> Fence {
        let mut fence = self.elect().await;
        self.raise(&mut fence).await.unwrap();
        fence
    }

    async fn raise(&self, fence: &mut Fence) -> Result<(), FencedOff> {
        fence.raise(&self.northbound).await
    }

    /// Sends nothing but the guard of a leader.
    async fn guarded(&self, fence: &Fence) -> Result<(), TransactError> {
        let guard = fence.guard(&self.northbound.read());
        self.northbound.transact(vec![guard]).await.map(drop)
    }

    fn term(&self) -> Option<u64> {
        term(&self.northbound.read())
    }

    fn sent(&self) -> usize {
        self.database.transactions().borrow().len()
    }
}

/// Sets the fence as another client would.
fn set(database: &Double<Northbound>, key: &str, value: &str) {
    let key_alone = json!(["set", [key]]);
    let mutations = vec![
        Mutation::delete("external_ids", key_alone),
        Mutation::insert("external_ids", json!(["map", [[key, value]]])),
    ];
    database.write(&[Operation::mutate("NB_Global", GLOBAL, mutations)]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_raised_once_and_then_every_transaction_of_this_leader_passes() {
    let world = World::new();
    let mut fence = world.lead().await;
    assert_eq!(world.term(), Some(fence.elected.0));
    world.guarded(&fence).await.unwrap();
    world.raise(&mut fence).await.unwrap();
    assert_eq!(world.sent(), 2, "it stands where it should");
}

#[tokio::test(start_paused = true)]
async fn a_former_leader_is_refused_from_the_moment_on_at_which_its_successor_has_raised_it() {
    let world = World::new();
    let mut former = world.lead().await;
    let mut successor = world.elect().await;
    world.guarded(&former).await.unwrap();
    world.raise(&mut successor).await.unwrap();
    assert!(world.guarded(&former).await.unwrap_err().is_fenced());
    world.guarded(&successor).await.unwrap();
    assert!(matches!(world.raise(&mut former).await, Err(FencedOff::Deposed)));
    assert_eq!(world.term(), successor.term);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_by_the_store_raises_nothing() {
    let world = World::new();
    let mut former = world.elect().await;
    let _successor = world.elect().await;
    assert!(matches!(world.raise(&mut former).await, Err(FencedOff::Deposed)));
    let mut leader = world.elect().await;
    world.store.fail(StoreFault::Unreachable);
    let error = world.raise(&mut leader).await.unwrap_err();
    assert!(error.to_string().contains("not known whether this plugin still leads"), "{error}");
    assert_eq!((world.sent(), world.term()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_former_leader_that_was_confirmed_just_before_finds_the_fence_changed() {
    let world = World::new();
    let mut former = world.elect().await;
    // Between the store's answer and this transaction another plugin is elected and raises the fence.
    let successor = Arc::new(Mutex::new(None));
    let (elected, database) = (Arc::clone(&successor), world.database.clone());
    let store = world.store.clone();
    world.database.judge(move |_| {
        if elected.lock().unwrap().is_none() {
            let key = fence::key(INSTALLATION);
            set(&database, &key, "1000");
            let writes = vec![Write::Put { key: leader_key(), value: b"{}".to_vec() }];
            let elect = store.commit(Transaction { compares: Vec::new(), writes });
            *elected.lock().unwrap() = futures_util::FutureExt::now_or_never(elect);
        }
        Fate::Answered
    });
    assert!(matches!(world.raise(&mut former).await, Err(FencedOff::Deposed)));
    assert!(matches!(*successor.lock().unwrap(), Some(Ok(_))));
    assert_eq!(world.term(), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn a_fence_whose_answer_was_lost_is_raised_to_a_higher_term() {
    for applied in [false, true] {
        let world = World::new();
        let mut fence = world.elect().await;
        let mut fate = Some(Fate::Unanswered { applied });
        world.database.judge(move |_| fate.take().unwrap_or(Fate::Answered));
        let error = world.raise(&mut fence).await.unwrap_err();
        assert!(matches!(error, FencedOff::Northbound(TransactError::Unknown { .. })), "{error}");
        let before = world.term();
        world.raise(&mut fence).await.unwrap();
        assert_eq!(world.term(), fence.term);
        assert!(before.is_none_or(|before| world.term() > Some(before)), "{before:?}");
        world.guarded(&fence).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_what_may_still_come_is_refused() {
    let world = World::new();
    let mut fence = world.lead().await;
    let late = fence.guard(&world.northbound.read());
    fence.abandon();
    world.raise(&mut fence).await.unwrap();
    world.guarded(&fence).await.unwrap();
    assert!(world.database.write(&[late]).unwrap_err().is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_term_of_a_store_that_was_lost_is_passed_over() {
    let world = World::new();
    set(&world.database, &fence::key(INSTALLATION), "1000");
    let fence = world.lead().await;
    assert_eq!(world.term(), Some(1001));
    world.guarded(&fence).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_somebody_removed_by_hand_is_put_back() {
    let world = World::new();
    let mut fence = world.lead().await;
    let gone = Mutation::delete("external_ids", json!(["set", [fence::key(INSTALLATION)]]));
    world.database.write(&[Operation::mutate("NB_Global", GLOBAL, vec![gone])]).unwrap();
    assert!(world.guarded(&fence).await.unwrap_err().is_fenced());
    world.raise(&mut fence).await.unwrap();
    world.guarded(&fence).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_changes_the_same_column_at_the_same_time_delays_it_and_no_more() {
    let world = World::new();
    let mut fence = world.elect().await;
    let (database, mut changes) = (world.database.clone(), 0);
    world.database.judge(move |_| {
        changes += 1;
        if changes <= 3 {
            set(&database, "theirs", &changes.to_string());
        }
        Fate::Answered
    });
    world.raise(&mut fence).await.unwrap();
    let theirs = world.northbound.read().nb_global.get(&GLOBAL).unwrap().external_ids.get("theirs").cloned();
    assert_eq!((world.sent(), theirs.as_deref()), (4, Some("3")));
}

#[tokio::test(start_paused = true)]
async fn who_changes_the_column_each_time_is_reported() {
    let world = World::new();
    let mut fence = world.elect().await;
    let (database, mut changes) = (world.database.clone(), 0);
    world.database.judge(move |_| {
        changes += 1;
        set(&database, "theirs", &changes.to_string());
        Fate::Answered
    });
    assert!(matches!(world.raise(&mut fence).await, Err(FencedOff::Busy)));
    assert_eq!(world.sent(), ATTEMPTS);
}

#[tokio::test(start_paused = true)]
async fn without_the_row_of_nb_global_nothing_may_be_written() {
    let world = World::new();
    world.database.write(&[Operation::delete("NB_Global", GLOBAL)]).unwrap();
    let mut fence = world.elect().await;
    assert!(matches!(world.raise(&mut fence).await, Err(FencedOff::Fence(FenceError::NoGlobal))));
    assert!(world.guarded(&fence).await.unwrap_err().is_fenced());
}
