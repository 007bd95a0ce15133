//! What the rest of the plugin asks about its place among the others.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::LeaderRecord;
use crate::agents::{Desk, PeerAddress};
use crate::fleet::Fleet;

/// This plugin's place among those on its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leads,
    /// Another one does; `None`: none, as far as is known.
    Follows(Option<LeaderRecord>),
}

/// The place of this plugin, and what is known of the proxy nodes in it.
pub struct Roles {
    role: watch::Sender<Role>,
    desk: watch::Sender<Desk>,
    /// Where this plugin leads, all of it; else what is stored.
    fleet: RwLock<Arc<Fleet>>,
}

impl Roles {
    /// A plugin that follows nobody yet, with what is stored of the nodes.
    pub fn new(fleet: Arc<Fleet>) -> Self {
        let (role, desk) = (watch::Sender::new(Role::Follows(None)), watch::Sender::new(Desk::Nobody));
        Self { role, desk, fleet: RwLock::new(fleet) }
    }

    /// The place of this moment.
    pub fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    /// Whether this plugin leads.
    pub fn leads(&self) -> bool {
        *self.role.borrow() == Role::Leads
    }

    /// Where the plugin that leads hears others; `None`: it is this one, none, or it does not say.
    pub fn leader(&self) -> Option<PeerAddress> {
        match &*self.role.borrow() {
            Role::Follows(Some(record)) => record.agents.clone(),
            Role::Follows(None) | Role::Leads => None,
        }
    }

    /// What is known of the proxy nodes.
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who hears node agents.
    pub fn desk(&self) -> watch::Receiver<Desk> {
        self.desk.subscribe()
    }

    /// This plugin leads from now on, with `fleet` hearing the nodes.
    pub(crate) fn lead(&self, fleet: &Arc<Fleet>) {
        self.know(Arc::clone(fleet));
        self.role.send_replace(Role::Leads);
        self.desk.send_replace(Desk::Here(Arc::clone(fleet) as _));
    }

    /// Another plugin leads, or none that is known.
    pub(super) fn follow(&self, leader: Option<LeaderRecord>) {
        let desk = match &leader {
            Some(LeaderRecord { agents: Some(address), .. }) => Desk::Elsewhere(address.clone()),
            _ => Desk::Nobody,
        };
        self.role.send_replace(Role::Follows(leader));
        // An equal one would end the streams.
        self.desk.send_if_modified(|now| {
            let is_news = *now != desk;
            *now = desk;
            is_news
        });
    }

    /// What is known of the nodes from now on.
    pub(super) fn know(&self, fleet: Arc<Fleet>) {
        *self.fleet.write().unwrap_or_else(PoisonError::into_inner) = fleet;
    }
}
