//! State of the nodes for display: the leader computes it from their streams and publishes it; followers read
//! it from the store. Keys below `/fiberlb/nodestatus/`, one for each node.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Draining;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{NodeRecord, VERSION, decode};
use crate::fleet::placement::moves::NetworkWait;
use crate::fleet::state::{FleetState, Now};
use crate::resources::checksum;
use crate::status::Liveness;
use fiberlb_store::Write;

/// Prefix of the keys.
pub(in crate::fleet) const NODE_STATUSES: &str = "/fiberlb/nodestatus/";
/// Difference of times that is none, in milliseconds: a time is computed anew from a monotonic clock each time.
const SAME_TIME_MS: u64 = 1000;
/// Most characters of a stored text.
const MOST_CHARS: usize = 1000;

/// State of a node's stream, as its plugin knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    version: u32,
    /// Liveness by its last contact.
    pub liveness: Liveness,
    /// Reason of the liveness, or an error that the node reports; empty if all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Time at which its stream came or went, in milliseconds since 1970, by the leader's clock.
    pub since_ms: u64,
    /// Number of listeners that it serves.
    #[serde(default)]
    pub listeners: usize,
    /// Connections that it carries.
    #[serde(default)]
    pub connections: u64,
    /// Connections among them on networks that drain from it.
    #[serde(default)]
    pub draining: u64,
    /// Drain deadline, at which these are reset, in milliseconds since 1970, by the leader's clock; `None`: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline_ms: Option<u64>,
    /// Reason why one of its networks cannot leave it yet; empty if none has to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting_for: String,
    /// Network that the reason is about. Without one, the reason itself may name it, as earlier releases did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_network: Option<Uuid>,
}

/// A node for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Node id.
    pub id: String,
    /// Stored record; `None` until it is written.
    pub record: Option<NodeRecord>,
    /// Number of networks on which it has a port.
    pub networks: usize,
    /// Number of networks on which it takes no new connections.
    pub draining_networks: usize,
    /// State of its stream; `None`: the leader has published none.
    pub status: Option<NodeStatus>,
}

impl NodeView {
    /// The view where no leader is known, so that nobody has the node's stream.
    #[must_use]
    pub fn without_leader(self) -> Self {
        let status = self.status.map(|status| {
            let (now, word) = match status.liveness {
                Liveness::Alive => (Liveness::Silent, "alive"),
                Liveness::Silent => (Liveness::Silent, "silent"),
                Liveness::Dead => (Liveness::Dead, "dead"),
            };
            let reason = format!("no leader has contact to the nodes; last known as {word}");
            NodeStatus { liveness: now, reason, ..status }
        });
        Self { status, ..self }
    }
}

impl NodeStatus {
    /// State of a node, what its networks wait for, and what drains from it.
    fn of(node: &Node, wait: Option<&NetworkWait>, draining: Draining, now: Now) -> Self {
        let liveness = node.contact.liveness(now.at);
        let draining = if liveness == Liveness::Dead { Draining::default() } else { draining };
        let elapsed = now.at.saturating_duration_since(node.since).as_millis();
        Self {
            version: VERSION,
            liveness,
            reason: shortened(&reason(node, liveness)),
            since_ms: now.ms.saturating_sub(u64::try_from(elapsed).unwrap_or(u64::MAX)),
            listeners: node.counters.len(),
            connections: if liveness == Liveness::Dead { 0 } else { node.connections() },
            draining: draining.connections,
            drain_deadline_ms: draining.deadline_ms,
            waiting_for: wait.map(|wait| shortened(&wait.why)).unwrap_or_default(),
            waiting_network: wait.map(|wait| wait.network),
        }
    }

    /// Decides whether this is to be published in place of `before`. What changes with each connection is worth
    /// a write only `with_counters`.
    fn is_news(&self, before: Option<&Self>, with_counters: bool) -> bool {
        let Some(before) = before else { return true };
        let counted = |it: &Self| {
            (it.listeners, it.connections, it.draining, it.waiting_for.clone(), it.waiting_network)
        };
        let is_counted = counted(before) == counted(self);
        before.liveness != self.liveness
            || before.reason != self.reason
            || before.since_ms.abs_diff(self.since_ms) > SAME_TIME_MS
            || (with_counters && !is_counted)
    }
}

/// Reason of a node's liveness, or one of the errors that it reports, and its troubles.
fn reason(node: &Node, liveness: Liveness) -> String {
    match liveness {
        Liveness::Alive => errors(node),
        Liveness::Silent if node.contact.last.is_none() => {
            "the plugin has just started and waits for it".to_owned()
        }
        Liveness::Silent => "its stream has just ended; waiting for its return".to_owned(),
        Liveness::Dead => {
            "no contact: is fiberlb-proxy running there, and can it reach the plugin?".to_owned()
        }
    }
}

fn errors(node: &Node) -> String {
    let errors: BTreeMap<_, _> =
        node.results.iter().filter_map(|(id, result)| Some((id, result.as_ref().err()?))).collect();
    let count = errors.len();
    let errors = errors.values().next();
    let errors = errors.map(|first| format!("{count} things cannot be carried out there, such as: {first}"));
    errors.into_iter().chain(node.troubles.iter().cloned()).collect::<Vec<_>>().join("; ")
}

fn shortened(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

/// Changes of the published state that are to be written; `None`: the node is gone.
pub(in crate::fleet) type StatusChanges = Vec<(String, Option<NodeStatus>)>;

impl FleetState {
    /// State of all nodes, as their streams tell.
    pub(in crate::fleet) fn statuses(&self, now: Now) -> BTreeMap<&str, NodeStatus> {
        let waits = self.waits(now);
        let draining = self.draining(now);
        let draining = |id: &str| draining.get(id).copied().unwrap_or_default();
        self.nodes().map(|(id, node)| (id, NodeStatus::of(node, waits.get(id), draining(id), now))).collect()
    }

    /// State of a node, as its stream tells.
    pub(in crate::fleet) fn status(&self, id: &str, now: Now) -> Option<NodeStatus> {
        let wait = self.wait_of(id, now);
        Some(NodeStatus::of(self.node(id)?, wait.as_ref(), self.draining_of(id, now), now))
    }

    /// Differences between the published state and the current one.
    pub(in crate::fleet) fn unpublished(&self, now: Now, with_counters: bool) -> StatusChanges {
        let current = self.statuses(now);
        let gone = self.published.keys().filter(|id| !current.contains_key(id.as_str()));
        let gone: StatusChanges = gone.map(|id| (id.clone(), None)).collect();
        let is_news = |id: &str, status: &NodeStatus| status.is_news(self.published.get(id), with_counters);
        let changed = current.into_iter().filter(|(id, status)| is_news(id, status));
        gone.into_iter().chain(changed.map(|(id, status)| (id.to_owned(), Some(status)))).collect()
    }

    /// Applies a change of the published state.
    pub(in crate::fleet) fn set_published(&mut self, id: &str, status: Option<NodeStatus>) {
        match status {
            Some(status) => drop(self.published.insert(id.to_owned(), status)),
            None => drop(self.published.remove(id)),
        }
    }

    /// Applies a stored change of the published state; keys of other things are ignored.
    pub(in crate::fleet) fn apply_published(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(id) = key.strip_prefix(NODE_STATUSES) {
            self.set_published(id, value.and_then(decode));
        }
    }

    /// Numbers of networks on which each node has a port, and of those that it drains.
    pub(in crate::fleet) fn port_counts(&self) -> HashMap<&str, (usize, usize)> {
        let mut counts: HashMap<&str, (usize, usize)> = HashMap::new();
        for network in self.allocations.networks() {
            for (node, port) in self.allocations.ports(network) {
                let (all, draining) = counts.entry(node).or_default();
                *all += 1;
                *draining += usize::from(port.draining_since.is_some());
            }
        }
        counts
    }
}

/// The write that publishes a change.
///
/// # Errors
/// None for this type.
pub(in crate::fleet) fn status_write(
    id: &str,
    status: Option<&NodeStatus>,
) -> Result<Write, serde_json::Error> {
    let key = format!("{NODE_STATUSES}{id}");
    Ok(match status {
        Some(status) => Write::Put { key, value: checksum::add(serde_json::to_vec(status)?) },
        None => Write::Delete { key },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::agents::Observer as _;
    use crate::fleet::controller::Controller;
    use crate::fleet::examples::{fleet, fleet_of, join};
    use crate::fleet::{Fleet, FleetSettings};
    use fiberlb_store::{CommitError, Revision, Term};

    fn status() -> NodeStatus {
        NodeStatus {
            version: VERSION,
            liveness: Liveness::Alive,
            reason: String::new(),
            since_ms: 10_000,
            listeners: 1,
            connections: 7,
            draining: 0,
            drain_deadline_ms: None,
            waiting_for: String::new(),
            waiting_network: None,
        }
    }

    #[test]
    fn what_changes_with_each_connection_waits_for_its_time() {
        let before = status();
        let is_news = |after: &NodeStatus| [false, true].map(|counts| after.is_news(Some(&before), counts));
        assert_eq!(is_news(&status()), [false, false]);
        assert_eq!(is_news(&NodeStatus { since_ms: 10_900, ..status() }), [false, false], "the same time");
        assert_eq!(is_news(&NodeStatus { connections: 8, ..status() }), [false, true]);
        assert_eq!(is_news(&NodeStatus { draining: 3, ..status() }), [false, true]);
        assert_eq!(is_news(&NodeStatus { waiting_for: "3 connections".into(), ..status() }), [false, true]);
        assert_eq!(is_news(&NodeStatus { liveness: Liveness::Silent, ..status() }), [true, true]);
        assert_eq!(is_news(&NodeStatus { reason: "a port is taken".into(), ..status() }), [true, true]);
        assert_eq!(is_news(&NodeStatus { since_ms: 12_000, ..status() }), [true, true], "another stream");
        assert!(status().is_news(None, false));
    }

    #[test]
    fn nobody_is_called_alive_while_no_leader_hears_the_nodes() {
        let seen = |liveness| {
            let status = Some(NodeStatus { liveness, ..status() });
            let id = "a".to_owned();
            let view = NodeView { id, record: None, networks: 1, draining_networks: 0, status };
            let seen = view.without_leader().status.unwrap();
            (seen.liveness, seen.reason)
        };
        let reason = |word: &str| format!("no leader has contact to the nodes; last known as {word}");
        assert_eq!(seen(Liveness::Alive), (Liveness::Silent, reason("alive")));
        assert_eq!(seen(Liveness::Dead), (Liveness::Dead, reason("dead")));
    }

    #[test]
    fn a_stored_state_reads_the_same_and_none_of_a_newer_release_is_read() {
        let Write::Put { key, value } = status_write("n1", Some(&status())).unwrap() else { panic!() };
        assert_eq!(key, "/fiberlb/nodestatus/n1");
        assert_eq!(decode::<NodeStatus>(&value), Some(status()));
        assert_eq!(decode::<NodeStatus>(br#"{"version":9,"liveness":"alive","since_ms":1}"#), None);
    }

    /// Another plugin's fleet on the same store.
    async fn follower(leader: &Fleet) -> Fleet {
        let (model, store) = (Arc::clone(&leader.model), Arc::clone(&leader.store));
        let northbound = leader.northbound.clone();
        Fleet::load(leader.installation, model, northbound, store, FleetSettings::default(), None)
            .await
            .unwrap()
    }

    /// Liveness of the nodes, as a plugin shows it.
    fn shown(fleet: &Fleet) -> Vec<(String, Option<Liveness>)> {
        let shown = |view: NodeView| (view.id, view.status.map(|status| status.liveness));
        fleet.node_views().into_iter().map(shown).collect()
    }

    #[tokio::test]
    async fn followers_show_what_the_leader_publishes() {
        let leader = Arc::new(fleet(|_| {}).await);
        let _controller = Controller::new(Arc::clone(&leader)).await.unwrap();
        let follower = Arc::new(follower(&leader).await);
        let following = tokio::spawn({
            let follower = Arc::clone(&follower);
            async move { follower.follow().await }
        });
        assert!(shown(&follower).iter().all(|(_, liveness)| liveness.is_none()), "nothing is published yet");
        join(&leader, &["a"]);
        leader.publish_statuses(true).await.unwrap();
        let published = tokio::time::timeout(Duration::from_secs(10), async {
            while shown(&follower) != shown(&leader) {
                tokio::task::yield_now().await;
            }
        });
        published.await.unwrap();
        assert_eq!(shown(&follower)[0], ("a".to_owned(), Some(Liveness::Alive)));
        let (mine, theirs) = (&follower.node_views()[0], &leader.node_views()[0]);
        assert_eq!((mine.networks, &mine.record), (1, &theirs.record));
        assert_eq!(leader.publish_statuses(true).await.unwrap(), 0, "it is published once");
        following.abort();
    }

    #[tokio::test]
    async fn a_new_leader_and_the_old_one_find_what_was_published() {
        let leader = Arc::new(fleet(|_| {}).await);
        let controller = Controller::new(Arc::clone(&leader)).await.unwrap();
        join(&leader, &["a"]);
        leader.publish_statuses(true).await.unwrap();
        drop(controller);
        leader.left("a", 1, "it went", false);
        assert_eq!(shown(&leader)[0].1, Some(Liveness::Alive), "it hears nobody any more");
        let next = Arc::new(follower(&leader).await);
        let _controller = Controller::new(Arc::clone(&next)).await.unwrap();
        assert_eq!(shown(&next)[0].1, Some(Liveness::Silent));
        // Nodes b and c are as they were: silent since the plugin started, a moment ago.
        assert_eq!(next.publish_statuses(true).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn the_state_of_a_removed_node_goes() {
        let leader = Arc::new(fleet(|_| {}).await);
        leader.publish_statuses(true).await.unwrap();
        leader.state_mut().nodes.remove("b");
        assert_eq!(leader.publish_statuses(false).await.unwrap(), 1);
        let key = |node| format!("{NODE_STATUSES}{node}");
        assert_eq!(leader.store.get(&key("b")).await.unwrap(), None);
        assert!(leader.store.get(&key("a")).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn one_that_leads_no_more_publishes_nothing() {
        let over = Term::example(Revision(999), Instant::now());
        let late = fleet_of(|_| {}, Some(over)).await;
        let refused = late.publish_statuses(true).await;
        assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
        assert_eq!(late.store.get(&format!("{NODE_STATUSES}a")).await.unwrap(), None);
    }
}
