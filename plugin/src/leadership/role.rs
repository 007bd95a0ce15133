//! Role of this plugin, for its other modules.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::LeaderRecord;
use crate::agents::{PeerAddress, SessionRoute};
use crate::fleet::{Fleet, NodeRecord, NodeView};

/// Role of this plugin among those on its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the leader.
    Leads,
    /// It is a follower; `None`: the leader is unknown.
    Follows(Option<LeaderRecord>),
}

/// Current role, and the state of the proxy nodes that it gives access to.
pub struct Roles {
    role: watch::Sender<Role>,
    route: watch::Sender<SessionRoute>,
    /// Full state on the leader, stored records only on a follower.
    fleet: RwLock<Arc<Fleet>>,
}

impl Roles {
    /// A follower without a known leader. `fleet`: the stored records of the nodes.
    pub fn new(fleet: Arc<Fleet>) -> Self {
        let role = watch::Sender::new(Role::Follows(None));
        let route = watch::Sender::new(SessionRoute::NoLeader);
        Self { role, route, fleet: RwLock::new(fleet) }
    }

    /// Current role.
    pub fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    /// True on the leader.
    pub fn leads(&self) -> bool {
        *self.role.borrow() == Role::Leads
    }

    /// Address of the leader; `None`: this plugin, unknown, or not advertised.
    pub fn leader(&self) -> Option<PeerAddress> {
        match &*self.role.borrow() {
            Role::Follows(Some(record)) => record.agents.clone(),
            Role::Follows(None) | Role::Leads => None,
        }
    }

    /// Current state of the proxy nodes.
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All proxy nodes for display, in the order of their ids.
    pub fn node_views(&self) -> Vec<NodeView> {
        self.fleet().node_views().into_iter().map(|view| self.seen(view)).collect()
    }

    /// A proxy node for display, with a record that may be newer than this plugin's own.
    pub fn node_view(&self, record: NodeRecord) -> NodeView {
        self.seen(self.fleet().node_view(record))
    }

    /// A view as it is where this plugin stands: a published state is old once no leader is known.
    fn seen(&self, view: NodeView) -> NodeView {
        if *self.role.borrow() == Role::Follows(None) { view.without_leader() } else { view }
    }

    /// Destination of node streams, as it changes.
    pub fn route(&self) -> watch::Receiver<SessionRoute> {
        self.route.subscribe()
    }

    /// Becomes leader; `fleet` receives the nodes' streams.
    pub(crate) fn lead(&self, fleet: &Arc<Fleet>) {
        self.set_fleet(Arc::clone(fleet));
        self.role.send_replace(Role::Leads);
        self.route.send_replace(SessionRoute::Local(Arc::clone(fleet) as _));
    }

    /// Becomes follower of `leader`, if one is known.
    pub(super) fn follow(&self, leader: Option<LeaderRecord>) {
        let route = match &leader {
            Some(LeaderRecord { agents: Some(address), .. }) => SessionRoute::Leader(address.clone()),
            _ => SessionRoute::NoLeader,
        };
        self.role.send_replace(Role::Follows(leader));
        // An equal value must not be sent: it would end the streams.
        self.route.send_if_modified(|now| {
            let is_news = *now != route;
            *now = route;
            is_news
        });
    }

    /// Replaces the state of the proxy nodes.
    pub(super) fn set_fleet(&self, fleet: Arc<Fleet>) {
        *self.fleet.write().unwrap_or_else(PoisonError::into_inner) = fleet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::examples::fleet;
    use crate::status::Liveness;

    #[tokio::test]
    async fn a_published_state_is_shown_for_what_it_is() {
        let fleet = Arc::new(fleet(|_| {}).await);
        let roles = Roles::new(Arc::clone(&fleet));
        let first = |roles: &Roles| roles.node_views().remove(0).status;
        assert_eq!(first(&roles), None, "nothing is published");
        fleet.publish_statuses(true).await.unwrap();
        let reason = |roles: &Roles| first(roles).unwrap().reason;
        assert!(reason(&roles).contains("no leader"), "{}", reason(&roles));
        let leader = LeaderRecord::new(uuid::Uuid::nil(), "elsewhere".to_owned(), None);
        roles.follow(Some(leader));
        assert!(!reason(&roles).contains("no leader"), "{}", reason(&roles));
        assert_eq!(first(&roles).unwrap().liveness, Liveness::Silent);
    }
}
