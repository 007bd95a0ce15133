//! Campaign loop: campaigns, then leads or follows, and campaigns again when that ends.

use std::sync::Arc;
use std::time::Duration;

use fiberlb_northbound::plan::Installation;
use fiberlb_northbound::{Change, Northbound};
use ovsdb::client::{Client, ConnectionStatus, Event};
use tokio::sync::{mpsc, oneshot, watch};

use super::leader::{PAUSE, await_news, deposed, leader, log_leader, try_leader};
use super::node_publisher::NodePublisher;
use super::publisher::Publisher;
use super::{LeaderRecord, Roles};
use crate::catalog::{Model, Writer};
use crate::fleet::{Controller, Fleet, FleetSettings};
use crate::metrics::Metrics;
use crate::reconcile::{Ended, Fence, Planner, ReconcileSettings, Reconciler};
use crate::resources::leader_key;
use fiberlb_store::{Election, Leadership, Revision, Store, Term};

/// Longest wait for the end of a campaign at shutdown.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time for the model of a new leader to catch up with the revision of its election.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which a plugin without the northbound database, or that was elected and could not lead, lets others
/// be elected first.
const YIELD_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings that only a leader uses.
#[derive(Clone, Debug)]
pub struct LeadershipSettings {
    /// Settings of the reconciler.
    pub reconcile: ReconcileSettings,
    /// Settings of the fleet.
    pub fleet: FleetSettings,
}

/// Campaign of this plugin for the leadership of its store.
pub struct Campaign {
    /// Installation id, carried by rows in OVN.
    pub installation: Installation,
    /// Everything that is stored.
    pub model: Arc<Model>,
    /// Store of the model, and of the election.
    pub store: Arc<dyn Store>,
    /// Northbound database that is written to.
    pub northbound: Client<Northbound>,
    /// Changes of the northbound database.
    pub events: mpsc::UnboundedReceiver<Event<Change>>,
    /// Writer that removes deleted records.
    pub writer: Arc<Writer>,
    /// Metrics of this plugin.
    pub metrics: Arc<Metrics>,
    /// Role of this plugin, kept up to date by the campaign.
    pub roles: Arc<Roles>,
    /// Settings that only a leader uses.
    pub settings: LeadershipSettings,
    /// Value of the leader's key while this plugin leads.
    pub record: LeaderRecord,
    /// True after leading, until the store has been read again. Starts as false.
    pub has_led: bool,
}

impl Campaign {
    /// Runs until `stop` is true, then waits for a transaction in flight and resigns.
    ///
    /// # Errors
    /// None at present: failures are retried.
    pub async fn run(mut self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let store = Arc::clone(&self.store);
        while !*stop.borrow() {
            match store.election() {
                None => {
                    if !self.lead(None, stop.clone()).await {
                        unless_stopped(&stop, tokio::time::sleep(PAUSE)).await;
                    }
                }
                Some(election) => self.campaign(election, &stop).await,
            }
        }
        Ok(())
    }

    /// Campaigns once: leads if elected, follows if another plugin leads.
    async fn campaign(&mut self, election: &dyn Election, stop: &watch::Receiver<bool>) {
        // A new leader compares everything, so pending events are dropped.
        while self.events.try_recv().is_ok() {}
        if !self.northbound.is_live() {
            if matches!(try_leader(&*self.store).await, Ok((Some(_), _))) {
                return self.follow(stop).await;
            }
            let mut status = self.northbound.status();
            let live = status.wait_for(ConnectionStatus::is_live);
            unless_stopped(stop, tokio::time::timeout(YIELD_TIMEOUT, live)).await;
        }
        let mut campaign = election.campaign(&leader_key(), self.record.elected_now().encode());
        let Some(outcome) = unless_stopped(stop, &mut campaign).await else {
            // A lease that it may have won must not block the others.
            if let Ok(Ok(Some(leadership))) = tokio::time::timeout(RESIGN_TIMEOUT, campaign).await {
                leadership.resign().await;
            }
            return;
        };
        match outcome {
            Ok(Some(leadership)) => self.lead_for(leadership, stop).await,
            Ok(None) => self.follow(stop).await,
            Err(error) => {
                tracing::warn!(%error, "leader election failed; retrying");
                unless_stopped(stop, tokio::time::sleep(PAUSE)).await;
            }
        }
    }

    /// Leads for one term, then resigns and resets the state of a leader.
    async fn lead_for(&mut self, mut leadership: Leadership, stop: &watch::Receiver<bool>) {
        let revision = leadership.revision();
        tracing::info!(%revision, "acquired leadership");
        let (model, store, term) = (Arc::clone(&self.model), Arc::clone(&self.store), leadership.term());
        let mut could_lead = true;
        let lead = async {
            // The previous leader may have written up to this revision.
            if tokio::time::timeout(CATCH_UP_TIMEOUT, model.reached(revision)).await.is_err() {
                tracing::warn!("model did not catch up with the store in time; resigning leadership");
                could_lead = false;
                return;
            }
            could_lead = self.lead(Some(term), stop.clone()).await;
        };
        tokio::select! {
            () = lead => {}
            () = leadership.over() => {
                tracing::warn!("lost leadership: lease not renewed in time");
            }
            () = deposed(&*store, revision) => {
                tracing::warn!("lost leadership: leader key replaced or deleted");
            }
        }
        self.metrics.leads.set(0);
        self.metrics.queue_length.set(0);
        self.roles.follow(None);
        self.model.lead(false);
        self.has_led = true;
        leadership.resign().await;
        if !could_lead {
            unless_stopped(stop, tokio::time::sleep(YIELD_TIMEOUT)).await;
        }
    }

    /// Leads until `stop` is true or leadership is lost. Returns false if it could not.
    async fn lead(&mut self, term: Option<Term>, stop: watch::Receiver<bool>) -> bool {
        let led = self.try_to_lead(term, stop).await;
        if let Err(error) = &led {
            tracing::error!(%error, "failed to lead; retrying");
        }
        led.is_ok()
    }

    async fn try_to_lead(&mut self, term: Option<Term>, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let revision = term.as_ref().map(|term| term.revision);
        let fleet = Arc::new(self.load_fleet(term).await?);
        let controller = Controller::new(Arc::clone(&fleet)).await?;
        let mut publisher =
            Publisher::new(Arc::clone(&self.model), Arc::clone(&self.store), revision).await?;
        let planner = Planner {
            installation: self.installation,
            model: Arc::clone(&self.model),
            northbound: self.northbound.clone(),
            fleet: Arc::clone(&fleet),
        };
        let fence = revision.map(|elected| Fence::new(self.installation, Arc::clone(&self.store), elected));
        let (writer, metrics) = (Arc::clone(&self.writer), Arc::clone(&self.metrics));
        let reconciler = Reconciler::new(planner, fence, writer, metrics, self.settings.reconcile.clone());
        self.model.lead(true);
        self.roles.lead(&fleet);
        self.metrics.leads.set(1);
        let (stop_reconciler, reconciler_stopped) = oneshot::channel();
        let reconcile = reconciler.run(&mut self.events, reconciler_stopped);
        tokio::pin!(reconcile);
        let publish = async {
            let publish_nodes = async {
                match revision {
                    Some(_) => NodePublisher::new(Arc::clone(&fleet)).run().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = publisher.run() => {}
                () = publish_nodes => {}
            }
        };
        tokio::select! {
            ended = &mut reconcile => {
                if ended == Ended::Deposed {
                    tracing::warn!("lost leadership: another plugin is leader; stopped writing to OVN");
                }
                return Ok(());
            }
            () = publish => {
                tracing::warn!("lost leadership: store refused to publish statuses");
                return Ok(());
            }
            // Shuts down in order when `stop` is true.
            ended = controller.run(stop) => ended?,
        }
        // The reconciler may have ended already.
        let _ = stop_reconciler.send(());
        reconcile.await;
        // The next leader, or this plugin after its restart, goes on from what was shown last.
        if let Ok(Err(error)) = tokio::time::timeout(RESIGN_TIMEOUT, publisher.publish()).await {
            tracing::warn!(%error, "failed to publish the last statuses");
        }
        Ok(())
    }

    /// Serves the API until there is no leader.
    async fn follow(&mut self, stop: &watch::Receiver<bool>) {
        let forgets = std::mem::take(&mut self.has_led);
        // Taken out, so that `self` can be borrowed by the other branches.
        let (_, none) = mpsc::unbounded_channel();
        let mut events = std::mem::replace(&mut self.events, none);
        let following = async {
            tokio::select! {
                () = self.follow_leader() => {}
                () = self.reload_observations(forgets) => {}
                () = self.follow_fleet() => {}
                // A new leader compares everything, so these events are dropped.
                () = ignore(&mut events) => {}
            }
        };
        unless_stopped(stop, following).await;
        self.events = events;
    }

    async fn follow_leader(&self) {
        let mut logged = Revision::ZERO;
        while let (Some(entry), seen) = leader(&*self.store).await {
            let record = LeaderRecord::decode(&entry.value);
            if entry.revision != logged {
                log_leader(record.as_ref());
                logged = entry.revision;
            }
            self.roles.follow(record);
            await_news(&*self.store, seen).await;
        }
    }

    /// Reads the store again after leading: the last own observations may never have been published.
    async fn reload_observations(&self, there_are: bool) {
        while there_are && self.model.reload(&*self.store).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    }

    /// Follows the stored records of the nodes.
    async fn follow_fleet(&self) {
        loop {
            match self.load_fleet(None).await {
                Ok(fleet) => {
                    let fleet = Arc::new(fleet);
                    self.roles.set_fleet(Arc::clone(&fleet));
                    fleet.follow().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to load the fleet from the store; retrying");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn load_fleet(&self, term: Option<Term>) -> anyhow::Result<Fleet> {
        let fleet = Fleet::load(
            self.installation,
            Arc::clone(&self.model),
            self.northbound.clone(),
            Arc::clone(&self.store),
            self.settings.fleet.clone(),
            term,
        );
        Ok(fleet.await?)
    }
}

async fn ignore(events: &mut mpsc::UnboundedReceiver<Event<Change>>) {
    while events.recv().await.is_some() {}
    std::future::pending::<()>().await;
}

/// Runs `future` unless `stop` becomes true first.
async fn unless_stopped<T>(stop: &watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        // An error means that the sender is gone: stop too.
        _ = stop.wait_for(|stop| *stop) => None,
        done = future => Some(done),
    }
}

#[cfg(test)]
mod tests;
