//! Plugins on one store and one northbound database, all in memory, under tokio's paused clock.

use fiberlb_northbound::plan::OWNER_KEY;
use ovsdb::client::double::{Double, Fate};
use ovsdb::operation::Operation;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::agents::{PeerAddress, SessionRoute};
use crate::leadership::Role;
use crate::reconcile::examples::{INSTALLATION, balancer, database, id, inserted, model, row, term, write};
use crate::resources::{STATUSES, Tree};
use crate::status::Observation;
use fiberlb_store::{LEASE_TTL, SharedStore, StoreFault, Transaction, Write};

mod statuses;
mod terms;

/// Longer than any wait of a plugin.
const LONG: Duration = Duration::from_secs(120);
/// More than a plugin needs for what it does at once.
const SOON: Duration = Duration::from_millis(100);

/// A store and a northbound database.
struct Site {
    store: SharedStore,
    database: Double<Northbound>,
}

/// A plugin.
struct Plugin {
    /// Its connection to the store.
    store: SharedStore,
    model: Arc<Model>,
    northbound: Client<Northbound>,
    roles: Arc<Roles>,
    metrics: Arc<Metrics>,
    address: PeerAddress,
    stop: watch::Sender<bool>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Site {
    fn new() -> Self {
        Self { store: SharedStore::default(), database: database() }
    }

    /// A site whose leader is the plugin `a`.
    async fn with_leader() -> (Self, Plugin) {
        let site = Self::new();
        let a = site.plugin("a").await;
        a.leads().await;
        (site, a)
    }

    /// The same, with a plugin `b` that follows.
    async fn with_follower() -> (Self, Plugin, Plugin) {
        let (site, a) = Self::with_leader().await;
        let b = site.plugin("b").await;
        b.follows(&a.address).await;
        (site, a, b)
    }

    /// Starts a plugin.
    async fn plugin(&self, name: &str) -> Plugin {
        self.plugin_at(name, &self.database).await
    }

    /// Starts a plugin that writes to this northbound database.
    async fn plugin_at(&self, name: &str, database: &Double<Northbound>) -> Plugin {
        let store = self.store.connection();
        let model = model(Arc::new(store.clone())).await;
        Plugin::start(name, store, model, database).await
    }

    /// Starts a plugin whose model does not follow the store.
    async fn stuck_plugin(&self, name: &str) -> Plugin {
        let store = self.store.connection();
        let model = Arc::new(Model::load(&store).await.unwrap());
        Plugin::start(name, store, model, &self.database).await
    }

    /// Writes a tree as the API does.
    async fn write(&self, plugin: &Plugin, tree: &Tree) {
        let revision = write(&self.store, &plugin.model, tree).await;
        plugin.model.reached(revision).await;
    }

    /// Puts or removes the leader's key, whoever leads.
    async fn set_leader(&self, record: Option<&LeaderRecord>) -> Revision {
        let key = leader_key();
        let write = match record {
            Some(record) => Write::Put { key, value: record.encode() },
            None => Write::Delete { key },
        };
        self.store.commit(Transaction { compares: Vec::new(), writes: vec![write] }).await.unwrap()
    }

    async fn leader(&self) -> Option<Revision> {
        self.store.get(&leader_key()).await.unwrap().map(|entry| entry.revision)
    }
}

fn address(name: &str) -> PeerAddress {
    PeerAddress::Unix(format!("/run/{name}").into())
}

fn record(name: &str) -> LeaderRecord {
    LeaderRecord::new(Uuid::new_v4(), name.to_owned(), Some(address(name)))
}

impl Plugin {
    async fn start(name: &str, store: SharedStore, model: Arc<Model>, database: &Double<Northbound>) -> Self {
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let (northbound, events) = database.client(Northbound::new(OWNER_KEY));
        let metrics = Arc::new(Metrics::new());
        let settings =
            LeadershipSettings { reconcile: ReconcileSettings::default(), fleet: FleetSettings::default() };
        let client = northbound.clone();
        let fleet = Fleet::load(
            INSTALLATION,
            Arc::clone(&model),
            client,
            Arc::clone(&shared),
            settings.fleet.clone(),
            None,
        );
        let roles = Arc::new(Roles::new(Arc::new(fleet.await.unwrap())));
        let campaign = Campaign {
            installation: INSTALLATION,
            model: Arc::clone(&model),
            store: Arc::clone(&shared),
            northbound: northbound.clone(),
            events,
            writer: Arc::new(Writer::new(Arc::clone(&model), shared, Arc::clone(&metrics))),
            metrics: Arc::clone(&metrics),
            roles: Arc::clone(&roles),
            settings,
            record: record(name),
            has_led: false,
        };
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(campaign.run(stopped));
        Self { store, model, northbound, roles, metrics, address: address(name), stop, running }
    }

    /// Waits until it leads.
    async fn leads(&self) {
        let mut route = self.roles.route();
        timeout(LONG, route.wait_for(|route| matches!(route, SessionRoute::Local(_))))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((self.roles.role(), self.metrics.leads.get()), (Role::Leads, 1));
    }

    /// Waits until it follows the plugin with this address.
    async fn follows(&self, leader: &PeerAddress) {
        let mut route = self.roles.route();
        let follows =
            route.wait_for(|route| matches!(route, SessionRoute::Leader(address) if address == leader));
        timeout(LONG, follows).await.unwrap().unwrap();
        assert_eq!((self.roles.leads(), self.metrics.leads.get()), (false, 0));
    }

    /// Waits until it shows that a load balancer's tree is applied, whoever has applied it.
    async fn applied(&self, number: u8) {
        let is_applied = |it: &Observation| match (&it.applied, self.model.tree(id(number))) {
            (Some(applied), Some(tree)) => applied.head == tree.head && it.failure.is_none(),
            _ => false,
        };
        self.observed(number, is_applied).await;
    }

    async fn observed(&self, number: u8, is_it: impl Fn(&Observation) -> bool) {
        let mut notices = self.model.subscribe();
        let observed = async {
            while !is_it(&self.model.observation(id(number))) {
                match notices.recv().await {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(LONG, observed).await.unwrap();
    }

    /// Term that the fence stands at.
    fn term(&self) -> Option<u64> {
        term(&self.northbound.read())
    }

    fn has_row(&self, number: u8) -> bool {
        self.northbound.read().load_balancer.get(&row(number)).is_some()
    }
}
