//! Diff between desired and observed rows, for display. Changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use fiberlb_northbound::plan::{self, Member, NetworkTraits, Step, StepOperation};
use fiberlb_northbound::{Northbound, TableKind};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Planner;
use super::queue::WorkKey;
use crate::api::{Difference, DifferenceKind, Subject};
use crate::catalog::shared_id_text;
use crate::datapath::Carrier;

/// Result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Distinct differences, grouped by load balancer.
    pub found: BTreeSet<Difference>,
    /// Number of load balancers that were compared.
    pub load_balancers: usize,
    /// Features that the connected OVN lacks or cannot keep, and what follows.
    pub lacking: Vec<&'static str>,
}

/// Warning about VIPs on Neutron's networks, whose addresses OVN cannot reserve.
const NOT_RESERVED_IN_NEUTRON: &str = "there are VIPs on networks of Neutron, which keeps addresses in its own database and may give \
    them to ports: only a Neutron port with a VIP's address reserves it";

/// Network with VIPs where OVN does not balance all packets.
const STATELESS: &str = "there are stateless ACLs on networks with VIPs, or port groups with such: OVN does not balance the packets \
    that they match, and listeners there are DEGRADED";

/// Network with VIPs where clients outside OVN are served by chance.
const PHYSICAL: &str = "there are VIPs on networks that lead to physical ones, where each chassis answers for them: only DIRECT \
    exposure serves clients there";

/// Network with VIPs and others behind more than one router.
const DISTANT: &str = "there are networks two routers away from networks with VIPs: OVN does not balance for clients there, only on \
    networks that share a router with the VIP's own";

/// Load balancers whose rows OVN takes for one another where a backend calls itself.
const SHARED_SESSIONS: &str = "several load balancers on one network have session persistence on the same backends: these cannot \
    reach all of their VIPs themselves; all other clients can";

impl Planner {
    /// Compares all desired rows with the observed ones.
    pub fn verify(&self) -> Differences {
        let mut differences =
            Differences { lacking: self.capabilities().lacking(), ..Differences::default() };
        let mut networks = BTreeSet::new();
        for key in self.everything() {
            let subject = match key {
                WorkKey::LoadBalancer(id) => {
                    differences.load_balancers += 1;
                    Subject::LoadBalancer(id)
                }
                WorkKey::Network(switch) => {
                    networks.insert(switch);
                    Subject::Network(switch)
                }
            };
            let batch = self.plan(&[key]);
            let blocked = batch.obstructed.into_iter().map(|(id, obstacle)| Difference {
                subject: Subject::LoadBalancer(id),
                kind: DifferenceKind::Blocked,
                table: String::new(),
                row: id,
                detail: obstacle.reason,
            });
            differences.found.extend(blocked);
            let nb = self.northbound.read();
            differences.found.extend(batch.steps.into_iter().map(|step| difference(subject, step, &nb)));
        }
        differences.found.extend(self.shared_ids());
        differences.lacking.extend(self.caveats(&networks));
        differences.lacking.extend(self.has_shared_sessions().then_some(SHARED_SESSIONS));
        differences
    }

    /// Load balancers that cannot be applied as they are stored, since others have the same ids below them.
    fn shared_ids(&self) -> impl Iterator<Item = Difference> {
        self.model.shared_ids().into_iter().flat_map(|(id, holders)| {
            let detail = shared_id_text(id, &holders);
            holders.into_iter().map(move |holder| Difference {
                subject: Subject::LoadBalancer(holder),
                kind: DifferenceKind::Blocked,
                table: String::new(),
                row: holder,
                detail: detail.clone(),
            })
        })
    }

    /// Caveats of OVN on those of these networks that have VIPs, each once.
    fn caveats(&self, networks: &BTreeSet<Uuid>) -> impl Iterator<Item = &'static str> {
        let nb = self.northbound.read();
        let (mut is_on_neutron, mut is_stateless, mut is_physical) = (false, false, false);
        let mut is_distant = false;
        for switch in networks.iter().filter(|switch| self.model.has_vips(**switch)) {
            let traits = NetworkTraits::of(*switch, &nb);
            let row = nb.logical_switch.get(switch);
            is_on_neutron |= row.is_some_and(|row| row.neutron_network().is_some());
            is_stateless |= traits.has_stateless_acls;
            is_physical |= traits.is_physical;
            is_distant = is_distant || plan::has_distant_networks(*switch, &nb);
        }
        let found = [
            (is_on_neutron, NOT_RESERVED_IN_NEUTRON),
            (is_stateless, STATELESS),
            (is_physical, PHYSICAL),
            (is_distant, DISTANT),
        ];
        found.into_iter().filter_map(|(is_so, caveat)| is_so.then_some(caveat))
    }

    /// True if OVN keeps sessions of several load balancers on one network at the same backend. Those of one load balancer are said
    /// in its status.
    fn has_shared_sessions(&self) -> bool {
        let mut first: HashMap<(Uuid, SocketAddr), Uuid> = HashMap::new();
        self.model.load_balancers().into_iter().filter_map(|id| self.model.tree(id)).any(|tree| {
            let observation = self.model.observation(tree.id());
            let is_by_ovn = |id: Uuid| observation.carrier_in_force(id) == Some(Carrier::Ovn);
            let listeners = tree.listeners.values().filter(|listener| is_by_ovn(listener.id));
            let pools = listeners.flat_map(|listener| tree.pools_of(&listener.spec));
            let keepers = pools.filter(|(pool, _)| pool.spec.persistence.is_some()).map(|(pool, _)| pool.id);
            let network = tree.load_balancer.spec.network;
            keepers.collect::<BTreeSet<Uuid>>().into_iter().flat_map(|pool| tree.backends_of(pool)).any(
                |backend| {
                    let holder = first.entry((network, backend.spec.address)).or_insert(tree.id());
                    *holder != tree.id()
                },
            )
        })
    }
}

fn difference(subject: Subject, step: Step, nb: &Northbound) -> Difference {
    let of = |kind, table: TableKind, row, detail| Difference {
        subject,
        kind,
        table: table.name().to_owned(),
        row,
        detail,
    };
    let kind_of = |way| match way {
        StepOperation::Insert => DifferenceKind::Missing,
        StepOperation::Delete => DifferenceKind::Unexpected,
    };
    match step {
        Step::Insert(row, content) => of(DifferenceKind::Missing, content.table(), row, String::new()),
        Step::Update(table, row, columns) => {
            of(DifferenceKind::Different, table, row, columns_in_words(&columns, &held(table, row, nb)))
        }
        Step::Delete(table, row) => of(DifferenceKind::Unexpected, table, row, String::new()),
        Step::Refer(way, Member { table, row, column, element }) => {
            of(kind_of(way), table, row, format!("{column}: {element}"))
        }
        Step::Network(way, port, network) => {
            of(kind_of(way), TableKind::LogicalRouterPort, port, format!("networks: {network}"))
        }
        Step::Address(way, port, address) => {
            of(kind_of(way), TableKind::LogicalSwitchPort, port, format!("addresses: {address}"))
        }
    }
}

/// Observed columns of a row.
fn held(table: TableKind, row: Uuid, nb: &Northbound) -> Map<String, Value> {
    let columns = match table {
        TableKind::LoadBalancer => nb.load_balancer.get(&row).map(|row| row.to_row()),
        TableKind::LoadBalancerGroup => nb.load_balancer_group.get(&row).map(|row| row.to_row()),
        TableKind::LogicalRouter => nb.logical_router.get(&row).map(|row| row.to_row()),
        TableKind::LogicalRouterPort => nb.logical_router_port.get(&row).map(|row| row.to_row()),
        TableKind::LogicalRouterPolicy => nb.logical_router_policy.get(&row).map(|row| row.to_row()),
        TableKind::LogicalSwitchPort => nb.logical_switch_port.get(&row).map(|row| row.to_row()),
        TableKind::LogicalSwitch => None,
    };
    columns.unwrap_or_default()
}

/// `COLUMN: IS instead of SHOULD`, in OVSDB's notation (RFC 7047, section 5.1).
fn columns_in_words(should: &Map<String, Value>, is: &Map<String, Value>) -> String {
    let column = |(name, should): (&String, &Value)| match is.get(name) {
        Some(is) => format!("{name}: {is} instead of {should}"),
        None => format!("{name}: nothing instead of {should}"),
    };
    should.iter().map(column).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use fiberlb_northbound::LoadBalancer;
    use fiberlb_northbound::plan::Row;
    use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
    use serde_json::json;

    use super::*;

    const ROW: Uuid = Uuid::from_u128(5);
    const SUBJECT: Subject = Subject::LoadBalancer(Uuid::from_u128(1));

    #[test]
    fn each_step_says_what_differs() {
        let mut nb = Northbound::new("owner");
        let held = json!({"name": "by hand", "external_ids": ["map", []]});
        let change = RowChange::Insert(held.as_object().unwrap().clone());
        nb.apply(vec![RowUpdate { table: "Load_Balancer".into(), uuid: ROW, change }]).unwrap();
        let should = json!({"name": "web"}).as_object().unwrap().clone();
        let member = Member {
            table: TableKind::LoadBalancerGroup,
            row: Uuid::from_u128(9),
            column: "load_balancer",
            element: ROW,
        };
        let cases = [
            (Step::Insert(ROW, Row::LoadBalancer(LoadBalancer::default())), DifferenceKind::Missing, ""),
            (
                Step::Update(TableKind::LoadBalancer, ROW, should),
                DifferenceKind::Different,
                "name: \"by hand\" instead of \"web\"",
            ),
            (Step::Delete(TableKind::LoadBalancer, ROW), DifferenceKind::Unexpected, ""),
            (
                Step::Refer(StepOperation::Insert, member),
                DifferenceKind::Missing,
                "load_balancer: 00000000-0000-0000-0000-000000000005",
            ),
            (
                Step::Network(StepOperation::Delete, ROW, "10.0.0.1/32".into()),
                DifferenceKind::Unexpected,
                "networks: 10.0.0.1/32",
            ),
            (
                Step::Address(StepOperation::Insert, ROW, "0e:00:00:00:00:01 10.0.0.1".into()),
                DifferenceKind::Missing,
                "addresses: 0e:00:00:00:00:01 10.0.0.1",
            ),
        ];
        for (step, kind, detail) in cases {
            let difference = difference(SUBJECT, step, &nb);
            assert_eq!((difference.kind, difference.detail.as_str()), (kind, detail));
        }
    }
}
