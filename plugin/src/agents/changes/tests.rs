use proptest::prelude::*;

use super::*;

/// State of a node after some updates, and whether its snapshot is whole.
#[derive(Default)]
struct Node {
    has: Configuration,
    snapshots: usize,
}

impl Node {
    fn take(&mut self, update: v1::Update) {
        let id = |text: &str| text.parse::<Uuid>().unwrap();
        self.has.networks.extend(update.networks.into_iter().map(|it| (id(&it.id), Arc::new(it))));
        self.has.pools.extend(update.pools.into_iter().map(|it| (id(&it.id), Arc::new(it))));
        self.has.listeners.extend(update.listeners.into_iter().map(|it| (id(&it.id), Arc::new(it))));
        for gone in &update.removed_listener_ids {
            assert!(self.has.listeners.remove(&id(gone)).is_some());
        }
        for gone in &update.removed_pool_ids {
            assert!(self.has.pools.remove(&id(gone)).is_some());
        }
        for gone in &update.removed_network_ids {
            assert!(self.has.networks.remove(&id(gone)).is_some());
        }
        self.snapshots += usize::from(update.snapshot_end);
    }

    /// Takes all updates; returns how many there were.
    fn drain(&mut self, follower: &mut Follower) -> usize {
        let updates: Vec<_> = std::iter::from_fn(|| follower.next_update()).collect();
        let count = updates.len();
        for update in updates {
            assert!(update.encoded_len() <= UPDATE_BYTES || objects(&update) == 1);
            self.take(update);
        }
        count
    }
}

fn objects(update: &v1::Update) -> usize {
    let removed =
        update.removed_listener_ids.len() + update.removed_pool_ids.len() + update.removed_network_ids.len();
    update.networks.len() + update.pools.len() + update.listeners.len() + removed
}

fn network(id: u8, bytes: usize) -> (Uuid, Arc<v1::Network>) {
    let id = Uuid::from_u128(u128::from(id));
    (id, Arc::new(v1::Network { id: id.to_string(), port_name: "x".repeat(bytes), ..v1::Network::default() }))
}

fn pool(id: u8, bytes: usize) -> (Uuid, Arc<v1::Pool>) {
    let id = Uuid::from_u128(u128::from(id));
    (id, Arc::new(v1::Pool { id: id.to_string(), network_id: "x".repeat(bytes), ..v1::Pool::default() }))
}

fn listener(id: u8, bytes: usize) -> (Uuid, Arc<v1::Listener>) {
    let id = Uuid::from_u128(u128::from(id));
    (id, Arc::new(v1::Listener { id: id.to_string(), pool_id: "x".repeat(bytes), ..v1::Listener::default() }))
}

#[test]
fn an_empty_snapshot_has_an_end_too() {
    let mut follower = Follower::default();
    assert!(follower.is_idle() && follower.next_update().is_none());
    follower.follow(Arc::default());
    assert!(!follower.is_idle());
    assert_eq!(follower.next_update(), Some(v1::Update { snapshot_end: true, ..v1::Update::default() }));
    assert!(follower.is_idle() && follower.next_update().is_none());
}

#[test]
fn what_did_not_change_is_not_sent_again() {
    let mut follower = Follower::default();
    let mut now =
        Configuration { pools: (0..9).map(|id| pool(id, 10)).collect(), ..Configuration::default() };
    follower.follow(Arc::new(now.clone()));
    assert_eq!(Node::default().drain(&mut follower), 1);

    // Another Arc of the same content, and one that differs.
    now.pools.extend([pool(3, 10), pool(4, 11)]);
    follower.follow(Arc::new(now.clone()));
    let update = follower.next_update().unwrap();
    assert_eq!((objects(&update), update.pools[0].id.as_str()), (1, pool(4, 0).1.id.as_str()));
    assert!(!update.snapshot_end);
    follower.follow(Arc::new(now));
    assert!(follower.is_idle());
}

#[test]
fn what_others_refer_to_comes_first_and_removals_last() {
    let full = Configuration {
        networks: [network(1, 200_000)].into(),
        pools: [pool(1, 200_000)].into(),
        listeners: [listener(1, 200_000)].into(),
    };
    let other = Configuration {
        networks: [network(2, 200_000)].into(),
        pools: [pool(2, 200_000)].into(),
        listeners: [listener(2, 200_000)].into(),
    };
    let mut follower = Follower::default();
    follower.follow(Arc::new(full));
    follower.follow(Arc::new(other));
    let updates: Vec<_> = std::iter::from_fn(|| follower.next_update()).collect();
    let shapes: Vec<_> = updates
        .iter()
        .map(|it| (it.networks.len(), it.pools.len(), it.listeners.len(), it.removed_network_ids.len()))
        .collect();
    assert_eq!(
        shapes,
        [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1)],
        "one object of 200,000 bytes fits into an update, two do not"
    );
}

#[test]
fn an_object_above_the_limit_goes_alone() {
    let mut follower = Follower::default();
    let pools = [pool(1, 10), pool(2, UPDATE_BYTES), pool(3, 10)].into();
    follower.follow(Arc::new(Configuration { pools, ..Configuration::default() }));
    let counts: Vec<_> = std::iter::from_fn(|| follower.next_update()).map(|it| it.pools.len()).collect();
    assert_eq!(counts, [1, 1, 1]);
}

fn objects_of<T: std::fmt::Debug + 'static>(
    make: fn(u8, usize) -> (Uuid, Arc<T>),
) -> impl Strategy<Value = BTreeMap<Uuid, Arc<T>>> {
    prop::collection::vec(
        (0..12u8, prop_oneof![Just(0usize), Just(70_000), Just(130_000), Just(300_000)]),
        0..8,
    )
    .prop_map(move |all| all.into_iter().map(|(id, bytes)| make(id, bytes)).collect())
}

fn configurations() -> impl Strategy<Value = Vec<Configuration>> {
    let one = (objects_of(network), objects_of(pool), objects_of(listener));
    prop::collection::vec(
        one.prop_map(|(networks, pools, listeners)| Configuration { networks, pools, listeners }),
        1..6,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_node_gets_each_configuration_whole_whatever_came_before(wanted in configurations()) {
        let (mut follower, mut node) = (Follower::default(), Node::default());
        for wanted in wanted {
            follower.follow(Arc::new(wanted.clone()));
            node.drain(&mut follower);
            prop_assert_eq!(&node.has, &wanted);
            prop_assert_eq!(node.snapshots, 1);
        }
    }
}
