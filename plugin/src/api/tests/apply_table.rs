//! Applying a whole tree with one change does what the single call for that change does, or finds the same wrong.

use super::*;
use crate::resources::examples::PASSIVE;
use crate::resources::{
    AllowedCidrs, HttpCheck, InTree as _, Kind, PassiveHealthCheck, Persistence, Record, Resource as _, Tree,
    TrustedProxies, every_kind,
};

/// The tree as a caller would give it again, with all ids.
fn draft_of(tree: &Tree) -> TreeDraft {
    fn given<T: ApiKind<Draft = T>>(at: String, record: &Record<T>) -> ResourceDraft<T> {
        ResourceDraft { id: Some(record.id), draft: record.spec.clone(), at, named: Vec::new() }
    }
    let root = &tree.load_balancer.spec;
    let vip = |address: &IpAddr| VipDraft { address: Some(*address), subnet: None };
    let load_balancer = LoadBalancerDraft {
        common: root.common.clone(),
        org_id: root.org_id.clone(),
        project_id: root.project_id.clone(),
        network: root.network.to_string(),
        vips: root.vips.iter().map(vip).collect(),
        admin_state_up: root.admin_state_up,
    };
    let at = |what: &str, index: usize| format!("tree.{what}[{index}]");
    let pools = tree.pools.values().enumerate().map(|(index, pool)| PoolDraft {
        pool: given(format!("{}.pool", at("pools", index)), pool),
        backends: (0..)
            .zip(tree.backends_of(pool.id))
            .map(|(number, backend): (usize, _)| {
                given(format!("{}.backends[{number}]", at("pools", index)), backend)
            })
            .collect(),
        health_check: tree
            .health_check_of(pool.id)
            .map(|check| given(format!("{}.health_check", at("pools", index)), check)),
    });
    TreeDraft {
        load_balancer: ResourceDraft {
            at: "tree.load_balancer".to_owned(),
            ..ResourceDraft::alone(Some(tree.id()), load_balancer)
        },
        listeners: (0..)
            .zip(tree.listeners.values())
            .map(|(index, listener): (usize, _)| given(at("listeners", index), listener))
            .collect(),
        pools: pools.collect(),
    }
}

/// Everything in a tree that a caller has specified, without what differs from one store to another.
fn content(tree: &Tree) -> BTreeSet<String> {
    let mut content = BTreeSet::new();
    every_kind!(T => content.extend(T::records(tree).map(|record| {
        format!("{:?} {:?} gen {} deleting {} {}", T::KIND, record.spec.common().name, record.generation,
            record.deleting, serde_json::to_string(&record.spec).unwrap())
    })));
    content
}

/// Violations of an error: the reason, with each field and, unless it cannot be changed, the sentence.
fn found(error: &ApiError) -> (ErrorReason, BTreeSet<(String, String)>) {
    let field = |path: &str| {
        let last = path.rsplit_once("].").map_or(path, |(_, last)| last);
        ["pool.", "health_check.", "tree.load_balancer."]
            .iter()
            .fold(last, |field, prefix| field.strip_prefix(prefix).unwrap_or(field))
            .to_owned()
    };
    let what = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
    let found = error.violations.iter().map(|violation| {
        let text = &violation.description;
        (
            field(&violation.field),
            if text.starts_with("cannot be changed") { what(text) } else { text.clone() },
        )
    });
    (error.reason, found.collect())
}

type Outcome = Result<BTreeSet<String>, (ErrorReason, BTreeSet<(String, String)>)>;

/// Fields that were found wrong.
fn wrong(outcome: &Outcome) -> BTreeSet<&str> {
    outcome.as_ref().err().into_iter().flat_map(|(_, found)| found).map(|(field, _)| field.as_str()).collect()
}

/// A world with fixed ids, so that two of them can be compared.
async fn fixed() -> (World, Site) {
    let world = World::new().await;
    let [root, listener_id, pool_id, backend_id, check_id] = [1, 2, 3, 4, 5].map(Uuid::from_u128);
    async fn make<T: ApiKind>(world: &World, id: Uuid, draft: T::Draft) {
        world.create_as::<T>(&tenant(), ResourceDraft::alone(Some(id), draft), None).await.unwrap();
    }
    let vips = vec![VipDraft { address: Some("10.0.0.9".parse().unwrap()), subnet: None }];
    make::<LoadBalancer>(&world, root, LoadBalancerDraft { vips, ..load_balancer() }).await;
    make::<Pool>(&world, pool_id, pool(root)).await;
    make::<Listener>(&world, listener_id, Listener { default_pool_id: Some(pool_id), ..listener(root) })
        .await;
    make::<Backend>(&world, backend_id, backend(pool_id, 11)).await;
    make::<HealthCheck>(&world, check_id, check(pool_id)).await;
    let other =
        Listener { port: 53, protocol: ListenerProtocol::Sctp, common: named("dns"), ..listener(root) };
    make::<Listener>(&world, Uuid::from_u128(6), other).await;
    make::<Pool>(&world, Uuid::from_u128(7), Pool { common: named("spare"), ..pool(root) }).await;
    make::<Backend>(&world, Uuid::from_u128(8), backend(pool_id, 12)).await;
    let site = Site { root, listener: listener_id, pool: pool_id, backend: backend_id, check: check_id };
    (world, site)
}

fn outcome(world: &World, site: Site, result: Result<(), ApiError>) -> Outcome {
    let tree = world.model.tree(site.root).unwrap();
    result.map(|()| content(&tree)).map_err(|error| found(&error))
}

/// Outcome of applying the tree with a change.
async fn applied(change: impl FnOnce(&mut TreeDraft)) -> Outcome {
    let (world, site) = fixed().await;
    let mut tree = draft_of(&world.model.tree(site.root).unwrap());
    change(&mut tree);
    let request =
        ApplyRequest { tree, etag: String::new(), validate_only: false, violations: Violations::default() };
    let result = world.cases.apply(&tenant(), request).await;
    outcome(&world, site, result.map(drop))
}

/// Kind of resource that the table changes.
trait Tabled: ApiKind<Draft = Self> {
    /// Its place in a draft.
    fn in_draft(tree: &mut TreeDraft, id: Uuid) -> &mut ResourceDraft<Self>;
    /// Adds a new one.
    fn push(tree: &mut TreeDraft, given: ResourceDraft<Self>);
    /// Leaves one out.
    fn drop_from(tree: &mut TreeDraft, id: Uuid);
}

impl Tabled for Listener {
    fn in_draft(tree: &mut TreeDraft, id: Uuid) -> &mut ResourceDraft<Self> {
        tree.listeners.iter_mut().find(|given| given.id == Some(id)).unwrap()
    }
    fn push(tree: &mut TreeDraft, given: ResourceDraft<Self>) {
        let at = format!("tree.listeners[{}]", tree.listeners.len());
        tree.listeners.push(ResourceDraft { at, ..given });
    }
    fn drop_from(tree: &mut TreeDraft, id: Uuid) {
        tree.listeners.retain(|given| given.id != Some(id));
    }
}

impl Tabled for Pool {
    fn in_draft(tree: &mut TreeDraft, id: Uuid) -> &mut ResourceDraft<Self> {
        &mut tree.pools.iter_mut().find(|given| given.pool.id == Some(id)).unwrap().pool
    }
    fn push(tree: &mut TreeDraft, given: ResourceDraft<Self>) {
        let at = format!("tree.pools[{}].pool", tree.pools.len());
        tree.pools.push(PoolDraft {
            pool: ResourceDraft { at, ..given },
            backends: Vec::new(),
            health_check: None,
        });
    }
    fn drop_from(tree: &mut TreeDraft, id: Uuid) {
        tree.pools.retain(|given| given.pool.id != Some(id));
    }
}

fn pool_of(tree: &mut TreeDraft, id: Uuid) -> (usize, &mut PoolDraft) {
    tree.pools.iter_mut().enumerate().find(|(_, given)| given.pool.id == Some(id)).unwrap()
}

impl Tabled for Backend {
    fn in_draft(tree: &mut TreeDraft, id: Uuid) -> &mut ResourceDraft<Self> {
        tree.pools.iter_mut().flat_map(|pool| &mut pool.backends).find(|given| given.id == Some(id)).unwrap()
    }
    fn push(tree: &mut TreeDraft, given: ResourceDraft<Self>) {
        let (index, pool) = pool_of(tree, given.draft.pool_id);
        let at = format!("tree.pools[{index}].backends[{}]", pool.backends.len());
        pool.backends.push(ResourceDraft { at, ..given });
    }
    fn drop_from(tree: &mut TreeDraft, id: Uuid) {
        tree.pools.iter_mut().for_each(|pool| pool.backends.retain(|given| given.id != Some(id)));
    }
}

impl Tabled for HealthCheck {
    fn in_draft(tree: &mut TreeDraft, id: Uuid) -> &mut ResourceDraft<Self> {
        let checks = tree.pools.iter_mut().filter_map(|pool| pool.health_check.as_mut());
        checks.into_iter().find(|given| given.id == Some(id)).unwrap()
    }
    fn push(tree: &mut TreeDraft, given: ResourceDraft<Self>) {
        let (index, pool) = pool_of(tree, given.draft.pool_id);
        pool.health_check = Some(ResourceDraft { at: format!("tree.pools[{index}].health_check"), ..given });
    }
    fn drop_from(tree: &mut TreeDraft, id: Uuid) {
        for pool in &mut tree.pools {
            pool.health_check.take_if(|given| given.id == Some(id));
        }
    }
}

/// Compares both ways to change one resource.
async fn update_is_the_same<T: Tabled>(id: Uuid, name: &str, expected: &[&str], change: fn(&mut T)) {
    let (world, site) = fixed().await;
    let result = world.update::<T>(id, change).await;
    let single = outcome(&world, site, result.map(drop));
    let whole = applied(|tree| change(&mut T::in_draft(tree, id).draft)).await;
    assert_eq!(wrong(&single), expected.iter().copied().collect(), "{:?}: {name}", T::KIND);
    assert_eq!(single, whole, "{:?}: {name}", T::KIND);
}

/// Compares both ways to create a resource.
async fn create_is_the_same<T: Tabled>(name: &str, expected: &[&str], draft: T) {
    let id = Some(Uuid::from_u128(99));
    let (world, site) = fixed().await;
    let result = world.create_as::<T>(&tenant(), ResourceDraft::alone(id, draft.clone()), None).await;
    let single = outcome(&world, site, result.map(drop));
    let whole = applied(|tree| T::push(tree, ResourceDraft::alone(id, draft))).await;
    assert_eq!(wrong(&single), expected.iter().copied().collect(), "{:?}: {name}", T::KIND);
    assert_eq!(single, whole, "{:?}: {name}", T::KIND);
}

/// Compares both ways to delete a resource.
async fn delete_is_the_same<T: Tabled>(id: Uuid) {
    let (world, site) = fixed().await;
    let result = world.cases.delete::<T>(&tenant(), id, "", true).await;
    let single = outcome(&world, site, result.map(drop));
    assert!(single.is_ok(), "{single:?}");
    assert_eq!(single, applied(|tree| T::drop_from(tree, id)).await, "{:?}", T::KIND);
}

/// One line per change: a name, and the change.
macro_rules! updates {
    ($kind:ty, $id:expr, { $($name:literal finds [$($field:literal),*] => $change:expr),* $(,)? }) => {
        $(update_is_the_same::<$kind>($id, $name, &[$($field),*], $change).await;)*
    };
}

fn allowed(cidrs: &[&str]) -> AllowedCidrs {
    cidrs.iter().map(|cidr| cidr.parse::<IpNetwork>().unwrap()).collect()
}

fn trusted(cidrs: &[&str]) -> TrustedProxies {
    cidrs.iter().map(|cidr| cidr.parse::<IpNetwork>().unwrap()).collect()
}

/// Divides a listener's connections among pools.
fn divide(listener: &mut Listener, pools: &[(u128, u16)]) {
    let pool = |(id, weight): &(u128, u16)| WeightedPool { pool_id: Uuid::from_u128(*id), weight: *weight };
    (listener.default_pool_id, listener.weighted_pools) = (None, pools.iter().map(pool).collect());
}

#[tokio::test]
async fn one_changed_listener_is_the_same_alone_and_in_its_tree() {
    updates!(Listener, Uuid::from_u128(2), {
        "nothing" finds [] => |_| {},
        "name" finds [] => |listener| listener.common.name = "other".to_owned(),
        "a name that is too long" finds ["name"] => |listener| listener.common.name = "x".repeat(300),
        "off" finds [] => |listener| listener.admin_state_up = false,
        "no pool" finds [] => |listener| listener.default_pool_id = None,
        "another pool" finds [] => |listener| listener.default_pool_id = Some(Uuid::from_u128(7)),
        "a pool that is not there" finds ["default_pool_id"] => |listener| listener.default_pool_id = Some(Uuid::from_u128(70)),
        "two pools" finds [] => |listener| divide(listener, &[(3, 90), (7, 10)]),
        "a default pool beside weighted ones" finds ["weighted_pools"] => |listener| {
            let default = listener.default_pool_id;
            divide(listener, &[(7, 10)]);
            listener.default_pool_id = default;
        },
        "a weighted pool that is not there" finds ["pool_id"] => |listener| {
            divide(listener, &[(3, 1), (70, 1)]);
        },
        "a weighted pool twice" finds ["pool_id"] => |listener| divide(listener, &[(3, 1), (3, 2)]),
        "no weight at all" finds ["weighted_pools"] => |listener| divide(listener, &[(3, 0), (7, 0)]),
        "too many weighted pools" finds ["weighted_pools"] => |listener| divide(listener, &[(3, 1); 17]),
        "proxy" finds [] => |listener| listener.datapath = Datapath::Proxy,
        "a limit" finds [] => |listener| listener.limits.connections = Some(10),
        "a limit of none" finds ["connection_limit"] => |listener| listener.limits.connections = Some(0),
        "a timeout out of range" finds ["client_data_timeout"] => |listener| listener.limits.client_data_ms = Some(u32::MAX),
        "a half-close timeout" finds [] => |listener| listener.limits.half_close_ms = Some(1),
        "a half-close timeout of nought" finds ["half_close_timeout"] => |listener| listener.limits.half_close_ms = Some(0),
        "a half-close timeout that OVN lacks" finds ["half_close_timeout"] => |listener| {
            (listener.datapath, listener.limits.half_close_ms) = (Datapath::Ovn, Some(1_000));
        },
        "a limit that OVN lacks" finds ["connection_limit"] => |listener| {
            (listener.datapath, listener.limits.connections) = (Datapath::Ovn, Some(10));
        },
        "limits of clients" finds [] => |listener| {
            (listener.limits.client_connections, listener.limits.client_connection_rate) = (Some(1), Some(u32::MAX));
        },
        "a rate that OVN lacks" finds ["connection_rate"] => |listener| {
            (listener.datapath, listener.limits.connection_rate) = (Datapath::Ovn, Some(10));
        },
        "a limit of clients that OVN lacks" finds ["client_connection_limit"] => |listener| {
            (listener.datapath, listener.limits.client_connections) = (Datapath::Ovn, Some(10));
        },
        "a bandwidth" finds [] => |listener| listener.limits.bandwidth = Some(1_024),
        "a bandwidth that is too small" finds ["bandwidth_limit"] => |listener| listener.limits.bandwidth = Some(1_023),
        "a bandwidth that OVN lacks" finds ["bandwidth_limit"] => |listener| {
            (listener.datapath, listener.limits.bandwidth) = (Datapath::Ovn, Some(u64::MAX));
        },
        "allowed clients" finds [] => |listener| listener.allowed_cidrs = allowed(&["10.0.0.0/8", "fd00::/8"]),
        "all clients allowed" finds [] => |listener| {
            (listener.datapath, listener.allowed_cidrs) = (Datapath::Ovn, allowed(&["0.0.0.0/0", "::/0"]));
        },
        "allowed clients that OVN lacks" finds ["allowed_cidrs"] => |listener| {
            (listener.datapath, listener.allowed_cidrs) = (Datapath::Ovn, allowed(&["10.0.0.0/8"]));
        },
        "an address in the place of a subnet" finds ["allowed_cidrs[1]"] => |listener| {
            listener.allowed_cidrs = allowed(&["10.0.0.0/8", "10.0.0.1/24"]);
        },
        "trusted proxies" finds [] => |listener| listener.trusted_proxies = trusted(&["10.0.0.9/32", "fd00::/8"]),
        "trusted proxies that OVN lacks" finds ["trusted_proxies"] => |listener| {
            (listener.datapath, listener.trusted_proxies) = (Datapath::Ovn, trusted(&["10.0.0.9/32"]));
        },
        "a trusted proxy twice" finds ["trusted_proxies[1]"] => |listener| {
            listener.trusted_proxies = trusted(&["10.0.0.9/32", "10.0.0.9/32"]);
        },
        "DIRECT beside an SCTP listener" finds ["exposure"] => |listener| listener.exposure = Exposure::Direct,
        "port" finds ["port"] => |listener| listener.port = 81,
        "a port that is none" finds ["port"] => |listener| listener.port = 0,
        "protocol" finds ["protocol"] => |listener| listener.protocol = ListenerProtocol::Https,
    });
}

#[tokio::test]
async fn one_changed_pool_is_the_same_alone_and_in_its_tree() {
    updates!(Pool, Uuid::from_u128(3), {
        "nothing" finds [] => |_| {},
        "name" finds [] => |pool| pool.common.name = "other".to_owned(),
        "algorithm" finds [] => |pool| pool.algorithm = Algorithm::SourceIp,
        "persistence" finds [] => |pool| pool.persistence = Some(Persistence::SourceIp { timeout_s: 5 }),
        "a persistence of no time" finds ["session_persistence.timeout"] => |pool| pool.persistence = Some(Persistence::SourceIp { timeout_s: 0 }),
        "least connections" finds [] => |pool| pool.algorithm = Algorithm::LeastConnections,
        "random" finds [] => |pool| pool.algorithm = Algorithm::Random,
        "power of two choices" finds [] => |pool| pool.algorithm = Algorithm::PowerOfTwoChoices,
        "a queue" finds [] => |pool| (pool.queue_limit, pool.queue_timeout_ms) = (10, Some(1)),
        "a queue that is too long" finds ["queue_limit"] => |pool| pool.queue_limit = 10_001,
        "a time in no queue" finds ["queue_timeout"] => |pool| pool.queue_timeout_ms = Some(1),
        "a drain timeout" finds [] => |pool| pool.drain_timeout_ms = Some(0),
        "a drain timeout of proxies" finds [] => |pool| pool.drain_timeout_ms = Some(5_000),
        "a drain timeout out of range" finds ["drain_timeout"] => |pool| pool.drain_timeout_ms = Some(86_400_001),
        "a slow start" finds [] => |pool| pool.slow_start_ms = Some(30_000),
        "a slow start out of range" finds ["slow_start"] => |pool| pool.slow_start_ms = Some(999),
        "a slow start of an algorithm that hashes" finds ["slow_start"] => |pool| (pool.slow_start_ms, pool.algorithm) = (Some(1_000), Algorithm::SourceIp),
        "a passive health check" finds [] => |pool| pool.passive_health_check = Some(PASSIVE),
        "a passive health check of no failure" finds ["passive_health_check.consecutive_failures"] => |pool| pool.passive_health_check = Some(PassiveHealthCheck { consecutive_failures: 0, ..PASSIVE }),
        "off" finds [] => |pool| pool.admin_state_up = false,
        "protocol" finds ["protocol"] => |pool| pool.protocol = PoolProtocol::Http,
    });
}

#[tokio::test]
async fn one_changed_backend_is_the_same_alone_and_in_its_tree() {
    updates!(Backend, Uuid::from_u128(4), {
        "nothing" finds [] => |_| {},
        "weight" finds [] => |backend| backend.weight = 7,
        "a weight out of range" finds ["weight"] => |backend| backend.weight = 257,
        "a limit" finds [] => |backend| backend.connection_limit = 1,
        "backup" finds [] => |backend| backend.backup = true,
        "monitor" finds [] => |backend| backend.monitor_port = Some(9000),
        "a monitor of no port" finds ["monitor_port"] => |backend| backend.monitor_port = Some(0),
        "a monitor at a strange address" finds ["monitor_address"] => |backend| backend.monitor_address = Some([224, 0, 0, 1].into()),
        "a monitor of another family than every VIP" finds [] => |backend| backend.monitor_address = Some("fd00::9".parse().unwrap()),
        "off" finds [] => |backend| backend.admin_state_up = false,
        "address" finds ["address"] => |backend| backend.address.set_ip([10, 0, 0, 13].into()),
        "port" finds ["port"] => |backend| backend.address.set_port(8081),
    });
}

#[tokio::test]
async fn one_changed_health_check_is_the_same_alone_and_in_its_tree() {
    fn http(path: &str) -> Option<HttpCheck> {
        let (method, expected_codes) = ("GET".to_owned(), "200".to_owned());
        Some(HttpCheck { method, path: path.to_owned(), expected_codes, host: String::new() })
    }
    updates!(HealthCheck, Uuid::from_u128(5), {
        "nothing" finds [] => |_| {},
        "delay" finds [] => |check| check.delay_ms = 10_000,
        "a delay out of range" finds ["delay"] => |check| check.delay_ms = 1,
        "a timeout above the delay" finds ["timeout"] => |check| check.timeout_ms = 6000,
        "rise" finds [] => |check| check.rise = 3,
        "a fall out of range" finds ["fall"] => |check| check.fall = 11,
        "type" finds ["type"] => |check| (check.check_type, check.http) = (HealthCheckType::Http, http("/")),
        "a request without HTTP" finds ["http_path"] => |check| check.http = http("/"),
        "off" finds [] => |check| check.admin_state_up = false,
    });
}

#[tokio::test]
async fn one_new_resource_is_the_same_alone_and_in_its_tree() {
    let [root, pool_id, spare] = [1, 3, 7].map(Uuid::from_u128);
    let plain = || Listener { common: named("new"), port: 443, ..listener(root) };
    create_is_the_same("plain", &[], plain()).await;
    create_is_the_same(
        "a taken port",
        &["port"],
        Listener { port: 80, protocol: ListenerProtocol::Https, ..plain() },
    )
    .await;
    create_is_the_same(
        "the same port of UDP",
        &[],
        Listener { port: 80, protocol: ListenerProtocol::Udp, ..plain() },
    )
    .await;
    let unfit = Listener { protocol: ListenerProtocol::Sctp, default_pool_id: Some(pool_id), ..plain() };
    create_is_the_same("an unfit pool", &["default_pool_id"], unfit).await;
    create_is_the_same(
        "proxied UDP",
        &[],
        Listener { protocol: ListenerProtocol::Udp, datapath: Datapath::Proxy, ..plain() },
    )
    .await;
    create_is_the_same(
        "proxied SCTP",
        &["datapath"],
        Listener { protocol: ListenerProtocol::Sctp, datapath: Datapath::Proxy, ..plain() },
    )
    .await;
    create_is_the_same("plain", &[], Pool { common: named("new"), ..pool(root) }).await;
    create_is_the_same("plain", &[], backend(spare, 20)).await;
    create_is_the_same("an address of the pool", &["address"], backend(pool_id, 11)).await;
    create_is_the_same(
        "loopback",
        &["address"],
        Backend { address: ([127, 0, 0, 1], 80).into(), ..backend(spare, 1) },
    )
    .await;
    let v6 = Backend { address: "[fd00::1]:80".parse().unwrap(), ..backend(spare, 1) };
    create_is_the_same("another family than the VIP", &[], v6).await;
    create_is_the_same("plain", &[], check(spare)).await;
}

#[tokio::test]
async fn one_deleted_resource_is_the_same_alone_and_in_its_tree() {
    delete_is_the_same::<Listener>(Uuid::from_u128(2)).await;
    delete_is_the_same::<Pool>(Uuid::from_u128(7)).await;
    delete_is_the_same::<Backend>(Uuid::from_u128(4)).await;
    delete_is_the_same::<HealthCheck>(Uuid::from_u128(5)).await;
}

#[tokio::test]
async fn a_tree_that_is_given_again_changes_nothing() {
    let (world, site) = fixed().await;
    let before = world.model.tree(site.root).unwrap();
    let request = |validate_only| {
        let tree = draft_of(&before);
        ApplyRequest {
            tree,
            etag: before.load_balancer.etag(),
            validate_only,
            violations: Violations::default(),
        }
    };
    for validate_only in [true, false] {
        let applied = world.cases.apply(&tenant(), request(validate_only)).await.unwrap();
        assert_eq!((applied.unchanged, applied.created + applied.updated + applied.deleted), (8, 0));
    }
    assert!(Arc::ptr_eq(&before, &world.model.tree(site.root).unwrap()), "nothing was written");
    assert_eq!(before.children_of(site.root).into_iter().filter(|(kind, _)| *kind == Kind::Pool).count(), 2);
}

#[tokio::test]
async fn everything_that_is_wrong_in_a_tree_comes_back_with_its_path() {
    let (world, site) = fixed().await;
    let mut tree = draft_of(&world.model.tree(site.root).unwrap());
    tree.load_balancer.draft.common.name = "x".repeat(300);
    tree.pools[0].backends[1].draft.weight = 300;
    tree.pools[0].health_check.as_mut().unwrap().draft.fall = 0;
    tree.listeners[0].named = vec![("default_pool_id".into(), "nowhere".to_owned())];
    let request =
        ApplyRequest { tree, etag: String::new(), validate_only: false, violations: Violations::default() };
    let error = world.cases.apply(&tenant(), request).await.err().unwrap();
    let paths: BTreeSet<&str> = fields(&error).into_iter().collect();
    let expected = [
        "tree.load_balancer.name",
        "tree.pools[0].backends[1].weight",
        "tree.pools[0].health_check.fall",
        "tree.listeners[0].default_pool_id",
    ];
    assert_eq!(paths, expected.into());
}
