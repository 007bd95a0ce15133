//! What is missing in the northbound database. Reads the model, the fleet and the replica, and changes nothing.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_ovn::nb::{LoadBalancerGroup, Northbound};
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::plan::{
    self, Capabilities, Desired, Installation, Network, Owner, OwnerKind, Step, StepOperation, Topology,
};
use uuid::Uuid;

use super::desired::{obstacle, wish};
use super::network::{founds_or_ends_network, is_answered_for};
use super::queue::Key;
use crate::catalog::Model;
use crate::fleet::Fleet;
use crate::resources::{LoadBalancer, Tree};
use crate::status::Carried;

/// What a plan is made from.
#[derive(Clone)]
pub struct Planner {
    /// Whose rows are planned.
    pub installation: Installation,
    /// What tenants ask for.
    pub model: Arc<Model>,
    /// What is there.
    pub northbound: Client<Northbound>,
    /// What proxy nodes do.
    pub fleet: Arc<Fleet>,
}

/// One load balancer in a batch.
pub(super) struct Run {
    pub(super) id: Uuid,
    pub(super) tree: Option<Arc<Tree>>,
    /// What it asks of OVN.
    pub(super) rows: Desired,
    pub(super) carried: Carried,
    /// How many of the batch's steps are its own.
    pub(super) steps: usize,
}

/// A batch that is ready to be sent.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Step>,
    pub(super) runs: Vec<Run>,
    pub(super) obstructed: Vec<(Uuid, String)>,
}

impl Planner {
    /// All that is stored, and all that the database holds of ours.
    pub(super) fn everything(&self) -> Vec<Key> {
        let stored = self.model.load_balancers().into_iter().map(Key::LoadBalancer);
        let nb = self.northbound.read();
        let owners = nb.owners().filter_map(|owner| owner.parse::<Owner>().ok());
        let ours = owners.filter(|owner| owner.installation == self.installation);
        let held = ours.map(|owner| match owner.kind {
            OwnerKind::LoadBalancer => Key::LoadBalancer(owner.id),
            OwnerKind::Network => Key::Network(owner.id),
        });
        let all: BTreeSet<Key> = stored.chain(held).collect();
        all.into_iter().collect()
    }

    /// What is missing for these keys, and for the networks that their load balancers are on.
    pub(super) fn plan(&self, keys: &[Key]) -> Batch {
        let nb = self.northbound.read();
        let schema = self.northbound.schema();
        let capabilities = schema.map_or(Capabilities::ALL, |schema| Capabilities::of(&schema, &nb));
        let mut batch = Batch::default();
        let mut networks = BTreeSet::new();
        for key in keys {
            let id = match key {
                Key::Network(switch) => {
                    networks.insert(*switch);
                    continue;
                }
                Key::LoadBalancer(id) => *id,
            };
            let tree = self.model.tree(id);
            let changes_network = |tree: &&Arc<Tree>| {
                founds_or_ends_network(tree, self.group_of(tree, &nb)) || self.lacks_responder(tree, &nb)
            };
            networks.extend(tree.iter().filter(changes_network).map(|tree| tree.load_balancer.spec.network));
            let stop = tree.as_ref().and_then(|tree| obstacle(tree, self.installation, &nb, &capabilities));
            if let Some(reason) = stop {
                batch.obstructed.push((id, reason));
                continue;
            }
            let wish = tree.as_ref().map(|tree| {
                wish(tree, self.fleet.view(tree, &capabilities), &nb, self.installation, &capabilities)
            });
            let wish = wish.unwrap_or_default();
            let before = batch.steps.len();
            batch.steps.extend(plan::diff(self.installation.load_balancer(id), &wish.rows, &nb));
            let steps = batch.steps.len() - before;
            batch.steps.extend(tree.iter().flat_map(|tree| self.answer(tree, &nb)));
            batch.runs.push(Run { id, tree, rows: wish.rows, carried: wish.carried, steps });
        }
        for switch in networks {
            batch.steps.extend(self.shared(switch, &nb, &capabilities));
        }
        batch
    }

    fn group_of<'a>(&self, tree: &Tree, nb: &'a Northbound) -> Option<&'a LoadBalancerGroup> {
        nb.load_balancer_group.get(&Network::group(self.installation, tree.load_balancer.spec.network))
    }

    /// Whether a VIP of a load balancer is one that nobody is there to answer for.
    fn lacks_responder(&self, tree: &Tree, nb: &Northbound) -> bool {
        let LoadBalancer { network, vips, .. } = &tree.load_balancer.spec;
        is_answered_for(tree) && plan::lacks_responder(self.installation, *network, vips, nb)
    }

    /// What is missing for the network's responder to answer for a load balancer, or to answer no more.
    fn answer(&self, tree: &Tree, nb: &Northbound) -> Vec<Step> {
        let LoadBalancer { network, vips, .. } = &tree.load_balancer.spec;
        let way = if is_answered_for(tree) { StepOperation::Insert } else { StepOperation::Delete };
        plan::answer(self.installation, *network, way, vips, nb)
    }

    /// What is missing of the rows that the load balancers on one switch share.
    fn shared(&self, switch: Uuid, nb: &Northbound, capabilities: &Capabilities) -> Vec<Step> {
        let topology = Topology::of(switch, nb).unwrap_or_default();
        let exists = nb.logical_switch.get(&switch).is_some();
        let mut vips: BTreeSet<IpAddr> = BTreeSet::new();
        for (vip, id) in self.model.vips_on(switch) {
            let serves = self.model.tree(id).is_some_and(|tree| {
                is_answered_for(&tree) && obstacle(&tree, self.installation, nb, capabilities).is_none()
            });
            if exists && serves {
                vips.insert(vip);
            }
        }
        let network = Network {
            installation: self.installation,
            switch,
            responder: plan::responder_families(self.installation, switch, &vips, nb),
            vips,
            node_ports: if exists { self.fleet.node_ports(switch) } else { Vec::new() },
        };
        plan::diff(self.installation.network(switch), &plan::network(&network, &topology), nb)
    }

    /// The load balancers of a batch that have all that they ask for.
    pub(super) fn in_step(&self, batch: &Batch) -> HashSet<Uuid> {
        let nb = self.northbound.read();
        let has_all =
            |run: &&Run| plan::diff(self.installation.load_balancer(run.id), &run.rows, &nb).is_empty();
        batch.runs.iter().filter(has_all).map(|run| run.id).collect()
    }
}
