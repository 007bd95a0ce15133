//! The life of a plugin among others: it asks for the lead, leads or follows, and asks again when that ends.

use std::sync::Arc;
use std::time::Duration;

use fiberlb_ovn::nb::{Change, Northbound};
use fiberlb_ovn::ovsdb::client::{Client, ConnectionStatus, Event};
use fiberlb_ovn::plan::Installation;
use tokio::sync::{mpsc, oneshot, watch};

use super::leader::{PAUSE, await_news, deposed, leader, tell, try_leader};
use super::publisher::Publisher;
use super::{LeaderRecord, Roles};
use crate::catalog::{Model, Writer};
use crate::fleet::{self, Controller, Fleet};
use crate::metrics::Metrics;
use crate::reconcile::{self, Ended, Fence, Planner, Reconciler};
use crate::resources::leader_key;
use crate::store::{Election, Revision, Store, Tenure, Term};

/// Longest wait for the end of a campaign when the plugin stops.
const PARTING: Duration = Duration::from_secs(2);

/// Longest time in which a plugin that is chosen must have heard what was stored until then.
const CAUGHT_UP: Duration = Duration::from_secs(10);
/// A plugin that cannot reach the northbound database lets others be chosen first.
const COURTESY: Duration = Duration::from_secs(2);

/// How a plugin leads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its reconciler.
    pub reconcile: reconcile::Settings,
    /// Its use of proxy nodes.
    pub fleet: fleet::Settings,
}

/// A plugin among those on its store.
pub struct Campaign {
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
    /// Whether it has led and not read the store anew since. Begins as false.
    pub has_led: bool,
}

impl Campaign {
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
        // All is compared when this plugin leads.
        while self.events.try_recv().is_ok() {}
        if !self.northbound.is_live() {
            if matches!(try_leader(&*self.store).await, Ok((Some(_), _))) {
                return self.follow(stop).await;
            }
            let mut status = self.northbound.status();
            let live = status.wait_for(ConnectionStatus::is_live);
            unless(stop, tokio::time::timeout(COURTESY, live)).await;
        }
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
        let (model, store, term) = (Arc::clone(&self.model), Arc::clone(&self.store), tenure.term());
        let lead = async {
            // Who led before may have written until this revision.
            if tokio::time::timeout(CAUGHT_UP, model.reached(revision)).await.is_err() {
                tracing::warn!("this plugin is behind the store's changes and gives the lead back");
                return;
            }
            self.lead(Some(term), stop.clone()).await;
        };
        tokio::select! {
            () = lead => {}
            () = tenure.over() => {
                tracing::warn!("this plugin could not keep its place in the store in time and leads no more");
            }
            () = deposed(&*store, revision) => {
                tracing::warn!("somebody else has taken this plugin's place in the store; it leads no more");
            }
        }
        self.metrics.leads.set(0);
        self.metrics.queue_length.set(0);
        self.roles.follow(None);
        self.model.lead(false);
        self.has_led = true;
        tenure.resign().await;
    }

    /// Leads until `stop` says true, or another plugin does.
    async fn lead(&mut self, term: Option<Term>, stop: watch::Receiver<bool>) {
        if let Err(error) = self.try_to_lead(term, stop.clone()).await {
            tracing::error!(%error, "the store's changes cannot be followed; beginning anew");
            unless(&stop, tokio::time::sleep(PAUSE)).await;
        }
    }

    async fn try_to_lead(&mut self, term: Option<Term>, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let tenure = term.as_ref().map(|term| term.revision);
        let fleet = Arc::new(self.load_fleet(term).await?);
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
        self.metrics.leads.set(1);
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
        let forgets = std::mem::take(&mut self.has_led);
        // Taken for this time, so that the rest can be looked at beside it.
        let (_, none) = mpsc::unbounded_channel();
        let mut events = std::mem::replace(&mut self.events, none);
        let following = async {
            tokio::select! {
                () = self.until_nobody_leads() => {}
                () = self.forget_own_observations(forgets) => {}
                () = self.know_nodes() => {}
                // All is compared when this plugin leads.
                () = ignore(&mut events) => {}
            }
        };
        unless(stop, following).await;
        self.events = events;
    }

    async fn until_nobody_leads(&self) {
        let mut told = Revision::ZERO;
        while let (Some(entry), seen) = leader(&*self.store).await {
            let record = LeaderRecord::decode(&entry.value);
            if entry.revision != told {
                tell(record.as_ref());
                told = entry.revision;
            }
            self.roles.follow(record);
            await_news(&*self.store, seen).await;
        }
    }

    /// What this plugin observed last, when it led, may never have been published.
    async fn forget_own_observations(&self, there_are: bool) {
        while there_are && self.model.read_anew(&*self.store).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    }

    /// Keeps what is stored of the nodes at hand.
    async fn know_nodes(&self) {
        loop {
            match self.load_fleet(None).await {
                Ok(fleet) => {
                    let fleet = Arc::new(fleet);
                    self.roles.know(Arc::clone(&fleet));
                    fleet.follow().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "what proxy nodes have cannot be read; trying again");
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
