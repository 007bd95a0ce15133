//! Diff between desired and observed rows of the northbound database. Reads the model, the fleet and the
//! replica, and changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{
    self, AnswerForm, Capabilities, Desired, Installation, Member, Network, NetworkTraits, Owner, OwnerKind,
    Step, StepOperation, Topology,
};
use ovsdb::client::Client;
use uuid::Uuid;

use super::chains::{chained_backends, leads_to, networks_in_reach};
use super::desired::{NetworkObstacle, desired_state, obstacle};
use super::network::{answered, founds_or_ends_network, is_answered_for, reservation};
use super::queue::WorkKey;
use super::standing::{awaits_holder, may_await_holder};
use crate::catalog::Model;
use crate::fleet::Fleet;
use crate::resources::Tree;
use crate::status::Carried;

/// Inputs of a plan.
#[derive(Clone)]
pub struct Planner {
    /// Installation whose rows are planned.
    pub installation: Installation,
    /// Stored trees.
    pub model: Arc<Model>,
    /// Observed rows.
    pub northbound: Client<Northbound>,
    /// State of the proxy nodes.
    pub fleet: Arc<Fleet>,
}

/// One load balancer in a batch.
pub(super) struct Run {
    pub(super) id: Uuid,
    pub(super) tree: Option<Arc<Tree>>,
    /// Its desired rows.
    pub(super) rows: Desired,
    pub(super) carried: Carried,
    /// Number of its own steps in the batch.
    pub(super) steps: usize,
}

/// A batch that is ready to be sent.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Step>,
    pub(super) runs: Vec<Run>,
    /// Networks whose shared rows are in the batch.
    pub(super) networks: BTreeSet<Uuid>,
    /// Networks whose responder still answers by addresses of its port for VIPs that get answer rows. They are planned once
    /// more when the batch is committed.
    pub(super) moving: BTreeSet<Uuid>,
    pub(super) obstructed: Vec<(Uuid, NetworkObstacle)>,
    /// Traits of the networks that it concerns, as they were seen.
    pub(super) traits: HashMap<Uuid, NetworkTraits>,
    /// Networks with VIPs in reach of those that it concerns.
    in_reach: HashMap<Uuid, Vec<Uuid>>,
}

impl Batch {
    /// Traits of a network, looked up once in a batch.
    fn traits_of(&mut self, network: Uuid, nb: &Northbound) -> NetworkTraits {
        *self.traits.entry(network).or_insert_with(|| NetworkTraits::of(network, nb))
    }

    /// Networks with VIPs in reach of a network, looked up once in a batch.
    fn in_reach(&mut self, network: Uuid, nb: &Northbound, model: &Model) -> &[Uuid] {
        self.in_reach.entry(network).or_insert_with(|| networks_in_reach(network, nb, model))
    }
}

impl Planner {
    /// Keys of everything that is stored, and of all rows of this installation.
    pub(super) fn everything(&self) -> Vec<WorkKey> {
        let stored = self.model.load_balancers().into_iter().map(WorkKey::LoadBalancer);
        let nb = self.northbound.read();
        let owners = nb.owners().filter_map(|owner| owner.parse::<Owner>().ok());
        let ours = owners.filter(|owner| owner.installation == self.installation);
        let held = ours.map(|owner| match owner.kind {
            OwnerKind::LoadBalancer => WorkKey::LoadBalancer(owner.id),
            OwnerKind::Network => WorkKey::Network(owner.id),
        });
        let all: BTreeSet<WorkKey> = stored.chain(held).collect();
        all.into_iter().collect()
    }

    /// Capabilities of the connected OVN.
    pub(super) fn capabilities(&self) -> Capabilities {
        let schema = self.northbound.schema();
        schema.map_or(Capabilities::ALL, |schema| Capabilities::of(&schema, &self.northbound.read()))
    }

    /// Plans the diff for these keys, and for the networks of their load balancers.
    pub(super) fn plan(&self, keys: &[WorkKey]) -> Batch {
        let capabilities = self.capabilities();
        let nb = self.northbound.read();
        let form = capabilities.answer_form();
        let mut batch = Batch::default();
        let (mut networks, mut subnets) = (BTreeSet::new(), HashMap::new());
        for key in keys {
            let id = match key {
                WorkKey::Network(switch) => {
                    networks.insert(*switch);
                    batch.traits_of(*switch, &nb);
                    continue;
                }
                WorkKey::LoadBalancer(id) => *id,
            };
            let tree = self.model.tree(id);
            let changes_network =
                |tree: &&Arc<Tree>| founds_or_ends_network(tree, self.installation, form, &nb);
            networks.extend(tree.iter().filter(changes_network).map(|tree| tree.load_balancer.spec.network));
            let traits = tree.as_ref().map(|tree| batch.traits_of(tree.load_balancer.spec.network, &nb));
            let stop = tree
                .as_ref()
                .and_then(|tree| obstacle(tree, self.installation, &nb, &capabilities, &mut subnets));
            if let Some(obstacle) = stop {
                batch.obstructed.push((id, obstacle));
                continue;
            }
            let desired = tree.as_ref().map(|tree| {
                desired_state(
                    tree,
                    self.fleet.view(tree, &capabilities),
                    &self.model.observation(id),
                    traits.unwrap_or_default(),
                    &nb,
                    self.installation,
                    &capabilities,
                )
            });
            let mut desired = desired.unwrap_or_default();
            if let Some(tree) = &tree {
                let networks = batch.in_reach(tree.load_balancer.spec.network, &nb, &self.model);
                let holder = |network, address| self.model.vip_holder(network, address);
                desired.carried.chained = chained_backends(tree, networks, holder);
            }
            let before = batch.steps.len();
            batch.steps.extend(plan::diff(self.installation.load_balancer(id), &desired.rows, &nb));
            let steps = batch.steps.len() - before;
            if let Some(tree) = &tree {
                let is_answered = self.is_answered(tree, &nb, &capabilities);
                self.answer(tree, is_answered, form, &nb, &mut batch);
                if !self.reserve(tree, is_answered, form, &nb, &mut batch.steps) {
                    networks.insert(tree.load_balancer.spec.network);
                }
            }
            batch.runs.push(Run { id, tree, rows: desired.rows, carried: desired.carried, steps });
        }
        let mut wanted: HashSet<Member> = HashSet::new();
        for switch in &networks {
            let desired = self.shared(*switch, &nb, &capabilities);
            batch.steps.extend(plan::diff(self.installation.network(*switch), &desired, &nb));
            wanted.extend(desired.members);
        }
        // A port that goes from its load balancer to the network, or back, is nothing that its owner of before may remove.
        wanted.extend(batch.runs.iter().flat_map(|run| &run.rows.members));
        batch.steps.retain(
            |step| !matches!(step, Step::Refer(StepOperation::Delete, member) if wanted.contains(member)),
        );
        batch.networks = networks;
        batch
    }

    /// Diff of the addresses by which the network's responder answers for a load balancer. Where it answers by rows, addresses stay
    /// until the row is in force.
    fn answer(&self, tree: &Tree, is_answered: bool, form: AnswerForm, nb: &Northbound, batch: &mut Batch) {
        let answered = answered(tree, self.installation);
        let way = match (is_answered, form) {
            (false, _) => StepOperation::Delete,
            (true, AnswerForm::Networks) => StepOperation::Insert,
            (true, AnswerForm::Rows) => {
                batch.moving.extend(answered.addresses(nb).next().map(|_| answered.switch));
                return;
            }
        };
        batch.steps.extend(answered.steps(way, nb));
    }

    /// Adds the diff of the network's silent ports for a load balancer; false where the network has to be planned for it.
    fn reserve(
        &self,
        tree: &Tree,
        is_answered: bool,
        form: AnswerForm,
        nb: &Northbound,
        steps: &mut Vec<Step>,
    ) -> bool {
        let reservation = reservation(tree, self.installation);
        let way = match (is_answered, form) {
            (_, AnswerForm::Networks) => return !reservation.is_kept(nb),
            (true, AnswerForm::Rows) => StepOperation::Insert,
            (false, AnswerForm::Rows) => StepOperation::Delete,
        };
        let own = reservation.steps(way, nb);
        let is_all = own.is_some();
        steps.extend(own.into_iter().flatten());
        is_all
    }

    /// True if the network's responder answers for the VIPs of a tree, if only until nodes do.
    pub(super) fn is_answered(&self, tree: &Tree, nb: &Northbound, capabilities: &Capabilities) -> bool {
        let awaits = || {
            if !may_await_holder(tree, nb, self.installation) {
                return false;
            }
            let (view, before) = (self.fleet.view(tree, capabilities), self.model.observation(tree.id()));
            awaits_holder(tree, &view, &before, nb, self.installation)
        };
        is_answered_for(tree) || awaits()
    }

    /// Rows that the load balancers on one switch share.
    fn shared(&self, switch: Uuid, nb: &Northbound, capabilities: &Capabilities) -> Desired {
        let topology = Topology::of(switch, nb).unwrap_or_default();
        let exists = nb.logical_switch.get(&switch).is_some();
        let form = capabilities.answer_form();
        let (mut vips, mut addresses) = (BTreeSet::<IpAddr>::new(), BTreeSet::<IpAddr>::new());
        let (mut reserved, mut subnets) = (BTreeMap::<Uuid, BTreeSet<IpAddr>>::new(), HashMap::new());
        for (vip, id) in self.model.vips_on(switch) {
            let tree = self.model.tree(id).filter(|tree| {
                self.is_answered(tree, nb, capabilities)
                    && obstacle(tree, self.installation, nb, capabilities, &mut subnets).is_none()
            });
            let Some(tree) = tree.filter(|_| exists) else { continue };
            vips.insert(vip);
            if self.is_address(&tree, vip, form, nb) {
                addresses.insert(vip);
            }
            if form == AnswerForm::Rows {
                reserved.entry(reservation(&tree, self.installation).row).or_default().insert(vip);
            }
        }
        let network = Network {
            installation: self.installation,
            switch,
            form,
            vips,
            addresses,
            reserved,
            node_ports: if exists { self.fleet.node_ports(switch) } else { Vec::new() },
        };
        plan::network(&network, &topology)
    }

    /// True if a VIP that the responder answers for is to be an address of it. Where it answers by rows, that is one that is so until
    /// the row is in force.
    pub(super) fn is_address(&self, tree: &Tree, vip: IpAddr, form: AnswerForm, nb: &Northbound) -> bool {
        let answered = answered(tree, self.installation);
        match form {
            AnswerForm::Networks => true,
            AnswerForm::Rows => {
                plan::is_address(self.installation, answered.switch, vip, nb)
                    && !answered.is_answered_by_row(nb)
            }
        }
    }

    /// Load balancers with backends at the VIPs of a tree.
    pub(super) fn chained_to(&self, tree: &Tree) -> Vec<Uuid> {
        let spec = &tree.load_balancer.spec;
        let networks = networks_in_reach(spec.network, &self.northbound.read(), &self.model);
        let others: BTreeSet<Uuid> =
            networks.into_iter().flat_map(|network| self.model.vips_on(network).into_values()).collect();
        let leads = |id: &Uuid| self.model.tree(*id).is_some_and(|other| leads_to(&other, &spec.vips));
        others.into_iter().filter(|id| *id != tree.id() && leads(id)).collect()
    }

    /// Load balancers of a batch whose desired and observed rows are equal.
    pub(super) fn in_step(&self, batch: &Batch) -> HashSet<Uuid> {
        let nb = self.northbound.read();
        let has_all =
            |run: &&Run| plan::diff(self.installation.load_balancer(run.id), &run.rows, &nb).is_empty();
        batch.runs.iter().filter(has_all).map(|run| run.id).collect()
    }
}

#[cfg(test)]
mod tests;
