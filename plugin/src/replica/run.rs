//! The life of a plugin among others: it asks for the lead, leads or follows, and asks again when that ends.

use std::sync::Arc;
use std::time::Duration;

use fiberlb_ovn::nb::{Change, Northbound};
use fiberlb_ovn::ovsdb::client::{Client, Event};
use fiberlb_ovn::plan::Installation;
use tokio::sync::{mpsc, oneshot, watch};

use super::publisher::Publisher;
use super::{LeaderRecord, Roles};
use crate::api::Writer;
use crate::fleet::{self, Controller, Fleet};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::reconcile::{self, Ended, Fence, Planner, Reconciler};
use crate::resources::leader_key;
use crate::store::{Election, Entry, Revision, Store, Tenure};

/// Wait before the store is asked again, when it did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest wait for the end of a campaign when the plugin stops.
const PARTING: Duration = Duration::from_secs(2);

/// How a plugin leads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its reconciler.
    pub reconcile: reconcile::Settings,
    /// Its use of proxy nodes.
    pub fleet: fleet::Settings,
}

/// A plugin among those on its store.
pub struct Replica {
    /// The id that rows in OVN carry.
    pub installation: Installation,
    /// What is stored.
    pub model: Arc<Model>,
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// What is carried out.
    pub northbound: Client<Northbound>,
    /// What that tells.
    pub events: mpsc::UnboundedReceiver<Event<Change>>,
    /// Where deleted records go for good.
    pub writer: Arc<Writer>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where the place of this plugin is told.
    pub roles: Arc<Roles>,
    /// How it leads.
    pub settings: Settings,
    /// What it says of itself when it leads.
    pub record: LeaderRecord,
}

impl Replica {
    /// Runs until `stop` says true. A transaction in flight is waited for, and the lead is given up.
    ///
    /// # Errors
    /// None at present: what fails is tried again.
    pub async fn run(mut self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let store = Arc::clone(&self.store);
        while !*stop.borrow() {
            match store.election() {
                None => self.lead(None, stop.clone()).await,
                Some(election) => self.among_others(election, &stop).await,
            }
        }
        Ok(())
    }

    /// Asks for the lead once; leads if it is given, and follows if another has it.
    async fn among_others(&mut self, election: &dyn Election, stop: &watch::Receiver<bool>) {
        let mut campaign = election.campaign(&leader_key(), self.record.at_this_moment().encode());
        let Some(outcome) = unless(stop, &mut campaign).await else {
            // What it may have won must not stand in the others' way.
            if let Ok(Ok(Some(tenure))) = tokio::time::timeout(PARTING, campaign).await {
                tenure.resign().await;
            }
            return;
        };
        match outcome {
            Ok(Some(tenure)) => self.lead_for(tenure, stop).await,
            Ok(None) => self.follow(stop).await,
            Err(error) => {
                tracing::warn!(%error, "the store does not say who leads; asking again");
                unless(stop, tokio::time::sleep(PAUSE)).await;
            }
        }
    }

    /// Leads until that is over, and makes sure that nothing of it remains.
    async fn lead_for(&mut self, mut tenure: Tenure, stop: &watch::Receiver<bool>) {
        let revision = tenure.revision();
        tracing::info!(%revision, "this plugin leads from now on");
        self.metrics.leads.set(1);
        let model = Arc::clone(&self.model);
        let lead = async {
            // Who led before may have written until this revision.
            model.reached(revision).await;
            self.lead(Some(revision), stop.clone()).await;
        };
        tokio::select! {
            () = lead => {}
            () = tenure.over() => {
                tracing::warn!("this plugin could not keep its place in the store in time and leads no more");
            }
        }
        self.metrics.leads.set(0);
        self.roles.follow(None);
        self.model.lead(false);
        tenure.resign().await;
        if *stop.borrow() {
            return;
        }
        // What this plugin observed last may never have been published.
        if let Err(error) = self.model.read_anew(&*self.store).await {
            tracing::warn!(%error, "statuses may be old until the plugin that leads publishes them anew");
        }
    }

    /// Leads until `stop` says true, or another plugin does.
    async fn lead(&mut self, tenure: Option<Revision>, stop: watch::Receiver<bool>) {
        if let Err(error) = self.try_to_lead(tenure, stop.clone()).await {
            tracing::error!(%error, "the store's changes cannot be followed; beginning anew");
            unless(&stop, tokio::time::sleep(PAUSE)).await;
        }
    }

    async fn try_to_lead(
        &mut self,
        tenure: Option<Revision>,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let fleet = Arc::new(self.load_fleet(tenure).await?);
        let controller = Controller::new(Arc::clone(&fleet)).await?;
        let publisher = match tenure {
            Some(tenure) => {
                Some(Publisher::new(Arc::clone(&self.model), Arc::clone(&self.store), tenure).await?)
            }
            None => None,
        };
        let planner = Planner {
            installation: self.installation,
            model: Arc::clone(&self.model),
            northbound: self.northbound.clone(),
            fleet: Arc::clone(&fleet),
        };
        let fence = tenure.map(|tenure| Fence::new(self.installation, Arc::clone(&self.store), tenure));
        let (writer, metrics) = (Arc::clone(&self.writer), Arc::clone(&self.metrics));
        let reconciler = Reconciler::new(planner, fence, writer, metrics, self.settings.reconcile.clone());
        self.model.lead(true);
        self.roles.lead(&fleet);
        let (stop_reconciler, reconciler_stopped) = oneshot::channel();
        let reconcile = reconciler.run(&mut self.events, reconciler_stopped);
        tokio::pin!(reconcile);
        let publish = async {
            match publisher {
                Some(publisher) => publisher.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut reconcile => {
                if ended == Ended::Deposed {
                    tracing::warn!("another plugin leads; this one writes nothing to OVN any more");
                }
                return Ok(());
            }
            () = publish => {
                tracing::warn!("another plugin leads, as the store says");
                return Ok(());
            }
            // Ends in order when it is told to stop.
            ended = controller.run(stop) => ended?,
        }
        // The reconciler may have ended by itself.
        let _ = stop_reconciler.send(());
        reconcile.await;
        Ok(())
    }

    /// Serves what is asked until nobody leads any more.
    async fn follow(&mut self, stop: &watch::Receiver<bool>) {
        let (store, roles, metrics) = (&self.store, &self.roles, &self.metrics);
        let until_nobody_leads = async {
            while let Some(entry) = leader(&**store).await {
                let record = LeaderRecord::decode(&entry.value);
                match &record {
                    Some(record) => tracing::info!(
                        plugin = %record.plugin, host = record.host, "another plugin leads; this one serves the API"
                    ),
                    None => tracing::warn!(
                        "a newer plugin leads, whom this one does not understand; it serves the API"
                    ),
                }
                roles.follow(record);
                await_news(&**store, entry.revision).await;
            }
        };
        let events = &mut self.events;
        let unheard = async {
            // All is compared when this plugin leads.
            while events.recv().await.is_some() {}
            std::future::pending::<()>().await;
        };
        let stop = stop.clone();
        let parts = (self.installation, Arc::clone(&self.model), self.northbound.clone());
        let settings = self.settings.fleet.clone();
        let know_nodes = async {
            loop {
                let (installation, model, northbound) = parts.clone();
                let fleet =
                    Fleet::load(installation, model, northbound, Arc::clone(store), settings.clone(), None);
                match fleet.await {
                    Ok(fleet) => {
                        let fleet = Arc::new(fleet);
                        roles.know(Arc::clone(&fleet));
                        fleet.follow().await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what proxy nodes have cannot be read; trying again")
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        metrics.leads.set(0);
        let following = async {
            tokio::select! {
                () = until_nobody_leads => {}
                () = unheard => {}
                () = know_nodes => {}
            }
        };
        unless(&stop, following).await;
    }

    async fn load_fleet(&self, tenure: Option<Revision>) -> anyhow::Result<Fleet> {
        let fleet = Fleet::load(
            self.installation,
            Arc::clone(&self.model),
            self.northbound.clone(),
            Arc::clone(&self.store),
            self.settings.fleet.clone(),
            tenure,
        );
        Ok(fleet.await?)
    }
}

/// What the plugin that leads has put under its key; waits while the store does not answer.
async fn leader(store: &dyn Store) -> Option<Entry> {
    loop {
        match store.get(&leader_key()).await {
            Ok(entry) => return entry,
            Err(error) => tracing::warn!(%error, "the store does not say who leads; asking again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the key may be another one than at `revision`.
async fn await_news(store: &dyn Store, revision: Revision) {
    match store.watch(&leader_key(), revision).await {
        Ok(mut watch) => {
            if watch.next().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(_) => tokio::time::sleep(PAUSE).await,
    }
}

/// Does something unless `stop` says true before it is done.
async fn unless<T>(stop: &watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        // An error means that whoever could stop us is gone: stop too.
        _ = stop.wait_for(|stop| *stop) => None,
        done = future => Some(done),
    }
}
