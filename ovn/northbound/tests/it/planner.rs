//! Plans carried out on a real northbound database: they converge, and leave what is foreign alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fiberlb_northbound::plan::{
    AnswerForm, Answered, Balancer, Capabilities, Desired, Installation, Network, Owner, Protocol, Row,
    Selection, Step, Target, TargetPool, Topology, balancer, diff, network, operations,
};
use fiberlb_northbound::{LoadBalancer, Northbound, TableKind};
use ovsdb::client::Client;
use ovsdb::error::TransactError;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Events, connect};
use fiberlb_ovn_testing::{OWNER_KEY, Server, config, row as row_of};

const SWITCH: Uuid = Uuid::from_u128(0x51);
const OTHER_SWITCH: Uuid = Uuid::from_u128(0x52);
const ROUTER: Uuid = Uuid::from_u128(0x61);

/// Foreign rows: two switches behind one router, a VM, and a load balancer of somebody else's.
fn seed(server: &Server) {
    let insert = |table: &str, uuid: u128, row: Value| json!({"op": "insert", "table": table, "uuid": Uuid::from_u128(uuid), "row": row});
    let id = |uuid: u128| json!(["uuid", Uuid::from_u128(uuid)]);
    let link = |name: &str, port: &str| json!({"name": name, "type": "router", "addresses": "router", "options": ["map", [["router-port", port]]]});
    let router_port =
        |name: &str, network: &str| json!({"name": name, "mac": "0a:00:00:00:00:01", "networks": network});
    server.foreign(&[
        insert("Logical_Switch_Port", 0x71, json!({"name": "vm", "addresses": "0a:00:00:00:00:09 10.0.0.5"})),
        insert("Logical_Switch_Port", 0x72, link("s1-r", "r-s1")),
        insert("Logical_Switch_Port", 0x73, link("s2-r", "r-s2")),
        insert("Logical_Router_Port", 0x74, router_port("r-s1", "10.0.0.1/24")),
        insert("Logical_Router_Port", 0x75, router_port("r-s2", "10.0.1.1/24")),
        insert(
            "Load_Balancer",
            0x76,
            json!({"name": "theirs", "vips": ["map", [["10.9.9.9:80", "10.0.0.5:80"]]]}),
        ),
        insert("Load_Balancer_Group", 0x77, json!({"name": "their group", "load_balancer": id(0x76)})),
        insert(
            "Logical_Switch",
            0x51,
            json!({"name": "s1", "ports": ["set", [id(0x71), id(0x72)]], "load_balancer": id(0x76)}),
        ),
        insert(
            "Logical_Switch",
            0x52,
            json!({"name": "s2", "ports": id(0x73), "load_balancer_group": id(0x77)}),
        ),
        insert("Logical_Router", 0x61, json!({"name": "r", "ports": ["set", [id(0x74), id(0x75)]]})),
        insert("NB_Global", 0x78, json!({"name": "theirs"})),
    ]);
}

/// All that OVS's own client sees, by table, without what the server itself counts up.
fn everything(server: &Server) -> Vec<(&'static str, Vec<Value>)> {
    let tables = [
        "Load_Balancer",
        "Load_Balancer_Group",
        "Logical_Switch",
        "Logical_Switch_Port",
        "Logical_Router",
        "Logical_Router_Port",
        "Logical_Router_Policy",
        "NB_Global",
    ];
    let rows = |table| {
        let mut rows = server.rows(table, &json!([]));
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            row.remove("_version");
        }
        rows.sort_by_key(|row| row["_uuid"].to_string());
        rows
    };
    tables.map(|table| (table, rows(table))).into()
}

fn installation() -> Installation {
    Installation(Uuid::from_u128(0xf1))
}

fn owner() -> Owner {
    installation().load_balancer(Uuid::from_u128(0x1b))
}

/// Desired state of a load balancer with one listener.
fn load_balancer(vip: &str, targets: &[&str]) -> Desired {
    let target =
        |text: &&str| Target { address: text.parse().unwrap(), weight: 1, backup: false, enabled: true };
    let wish = Balancer {
        uuid: installation().row("listener", "1"),
        owner: owner(),
        name: "web".to_owned(),
        protocol: Protocol::Tcp,
        vips: vec![vip.parse().unwrap()],
        ports: 1,
        pools: vec![TargetPool::alone(targets.iter().map(target).collect())],
        selection: Selection::SourceIp,
        affinity_timeout: Some(60),
        cut: false,
        enabled: true,
    };
    let row = Row::LoadBalancer(balancer(&wish, &Capabilities::ALL).unwrap());
    let group = (TableKind::LoadBalancerGroup, Network::group(installation(), SWITCH), "load_balancer");
    let mut desired = Desired::default();
    desired.add(wish.uuid, row, [group]);
    let vips: Vec<IpAddr> = wish.vips.iter().map(std::net::SocketAddr::ip).collect();
    let row = installation().row("answer", "1");
    let answered = Answered { installation: installation(), switch: SWITCH, row, vips: &vips };
    answered.add_row(&mut desired, owner(), "web");
    desired
}

/// A world with a client, and a way to bring it about that owners have what they desire.
struct World {
    server: Server,
    client: Client<Northbound>,
    _events: Events,
}

impl World {
    async fn start() -> Self {
        let server = Server::start().await;
        seed(&server);
        let (client, events) = connect(config(server.unix())).await;
        Self { server, client, _events: events }
    }

    fn network(&self, vips: &[&str]) -> Desired {
        let vips: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        let row = installation().row("vip", "1");
        let wish = Network {
            installation: installation(),
            switch: SWITCH,
            form: AnswerForm::Rows,
            addresses: BTreeSet::new(),
            reserved: BTreeMap::from([(row, vips.clone())]),
            vips,
            node_ports: Vec::new(),
        };
        network(&wish, &Topology::of(SWITCH, &self.client.read()).unwrap())
    }

    fn steps(&self, wishes: &[(Owner, Desired)]) -> Vec<Step> {
        let nb = self.client.read();
        wishes.iter().flat_map(|(owner, desired)| diff(*owner, desired, &nb)).collect()
    }

    /// Applies desired state in one transaction; nothing is left to do then, and every operation matched its row.
    async fn converge(&self, wishes: &[(Owner, Desired)]) {
        let steps = self.steps(wishes);
        assert_ne!(steps, [], "there is nothing to do");
        let results = self.client.transact(operations(steps)).await.unwrap();
        assert!(results.iter().all(|result| result.count.is_none_or(|count| count == 1)), "{results:?}");
        assert_eq!(self.steps(wishes), [], "the plan did not converge");
    }

    fn wishes(&self, vips: &[&str], targets: &[&str]) -> [(Owner, Desired); 2] {
        let listener = format!("{}:80", vips[0]);
        let network = self.network(vips);
        [(installation().network(SWITCH), network), (owner(), load_balancer(&listener, targets))]
    }
}

#[tokio::test]
async fn a_load_balancer_comes_changes_and_goes_without_a_trace() {
    let world = World::start().await;
    let before = everything(&world.server);

    world.converge(&world.wishes(&["10.0.0.200"], &["10.0.0.5:80"])).await;
    let topology = Topology::of(SWITCH, &world.client.read()).unwrap();
    assert_eq!(topology.switches, BTreeSet::from([SWITCH, OTHER_SWITCH]));
    assert_eq!(topology.next_hops.iter().map(|hop| hop.router).collect::<Vec<_>>(), [ROUTER]);
    let referrers = |group: Uuid| world.client.read().group_referrers(group).count();
    assert_eq!(referrers(Network::group(installation(), SWITCH)), 2, "both switches");
    assert_eq!(referrers(Network::answers(installation(), SWITCH)), 1, "the responder");

    world.converge(&world.wishes(&["10.0.0.200"], &["10.0.0.5:80", "10.0.0.6:80"])).await;

    let none = [(installation().network(SWITCH), world.network(&[])), (owner(), Desired::default())];
    world.converge(&none).await;
    assert_eq!(
        everything(&world.server),
        before,
        "something of ours is left, or something foreign was touched"
    );
}

#[tokio::test]
async fn who_goes_leaves_nothing_in_the_group_that_another_joins_in_the_same_transaction() {
    let world = World::start().await;
    world.converge(&world.wishes(&["10.0.0.200"], &["10.0.0.5:80"])).await;
    let joining = installation().load_balancer(Uuid::from_u128(0x1c));
    let row = LoadBalancer {
        external_ids: [(OWNER_KEY.to_owned(), joining.to_string())].into(),
        ..LoadBalancer::default()
    };
    let (uuid, group) = (Uuid::from_u128(0x2c), Network::group(installation(), SWITCH));
    let mut desired = Desired::default();
    desired.add(uuid, Row::LoadBalancer(row), [(TableKind::LoadBalancerGroup, group, "load_balancer")]);
    world.converge(&[(joining, desired), (owner(), Desired::default())]).await;
    let groups = world.server.rows("Load_Balancer_Group", &row_of(group));
    assert_eq!(groups[0]["load_balancer"], json!(["uuid", uuid]));
}

#[tokio::test]
async fn a_responder_router_comes_changes_and_goes_without_a_trace() {
    let world = World::start().await;
    let before = everything(&world.server);
    world.converge(&world.wishes(&["10.0.0.200"], &["10.0.0.5:80"])).await;
    // A responder that answers by addresses becomes one that answers by rows, and that again.
    let by_networks = |vips: &[&str]| {
        let vips: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        let row = installation().row("vip", "1");
        let wish = Network {
            installation: installation(),
            switch: SWITCH,
            form: AnswerForm::Networks,
            addresses: vips.clone(),
            reserved: BTreeMap::from([(row, vips.clone())]),
            vips,
            node_ports: Vec::new(),
        };
        let topology = Topology::of(SWITCH, &world.client.read()).unwrap();
        [(installation().network(SWITCH), network(&wish, &topology))]
    };
    world.converge(&by_networks(&["10.0.0.200", "fd00::200"])).await;
    world.converge(&by_networks(&["fd00::200"])).await;
    world.converge(&world.wishes(&["10.0.0.200"], &["10.0.0.5:80"])).await;
    let none = [(installation().network(SWITCH), world.network(&[])), (owner(), Desired::default())];
    world.converge(&none).await;
    assert_eq!(
        everything(&world.server),
        before,
        "something of ours is left, or something foreign was touched"
    );
}

#[tokio::test]
async fn what_others_did_to_our_rows_is_put_right() {
    let world = World::start().await;
    let wishes = world.wishes(&["10.0.0.200"], &["10.0.0.5:80"]);
    world.converge(&wishes).await;
    let whole = everything(&world.server);
    let of = |uuid: Uuid| json!([["_uuid", "==", ["uuid", uuid]]]);
    let (lb, group) = (installation().row("listener", "1"), Network::group(installation(), SWITCH));
    let harm = [
        json!({"op": "update", "table": "Load_Balancer", "where": of(lb), "row": {"vips": ["map", []], "protocol": "udp"}}),
        json!({"op": "delete", "table": "Load_Balancer", "where": of(lb)}),
        json!({"op": "update", "table": "Load_Balancer_Group", "where": of(group), "row": {"load_balancer": ["set", []]}}),
        json!({"op": "update", "table": "Logical_Switch", "where": of(OTHER_SWITCH), "row": {"load_balancer_group": ["set", []]}}),
        json!({"op": "mutate", "table": "Logical_Switch", "where": of(SWITCH),
            "mutations": [["ports", "delete", ["uuid", installation().row("vip", "1")]]]}),
    ];
    for (index, operation) in harm.into_iter().enumerate() {
        world.server.foreign(&[operation]);
        // A transaction of our own comes after the update of the one before it.
        world.client.transact(vec![]).await.unwrap();
        let nb_has_seen = !world.steps(&wishes).is_empty();
        assert!(nb_has_seen, "harm {index} was not seen");
        world.converge(&wishes).await;
    }
    let theirs = json!(["uuid", Uuid::from_u128(0x77)]);
    world.server.foreign(&[json!({"op": "mutate", "table": "Logical_Switch", "where": of(OTHER_SWITCH),
        "mutations": [["load_balancer_group", "insert", theirs]]})]);
    assert_eq!(everything(&world.server), whole);
}

#[tokio::test]
async fn two_installations_do_not_see_each_other() {
    let world = World::start().await;
    world.converge(&world.wishes(&["10.0.0.200"], &["10.0.0.5:80"])).await;
    let mine = everything(&world.server);
    let other = Installation(Uuid::from_u128(0xf2));
    let theirs = Network {
        installation: other,
        switch: SWITCH,
        form: AnswerForm::Rows,
        vips: BTreeSet::from(["10.0.0.201".parse().unwrap()]),
        addresses: BTreeSet::new(),
        reserved: BTreeMap::new(),
        node_ports: Vec::new(),
    };
    let topology = Topology::of(SWITCH, &world.client.read()).unwrap();
    world.converge(&[(other.network(SWITCH), network(&theirs, &topology))]).await;
    world.converge(&[(other.network(SWITCH), Desired::default())]).await;
    assert_eq!(everything(&world.server), mine);
}

#[tokio::test]
async fn a_plan_that_was_carried_out_is_refused_when_it_is_sent_again() {
    let world = World::start().await;
    let wishes = world.wishes(&["10.0.0.200"], &["10.0.0.5:80"]);
    let steps = world.steps(&wishes);
    world.client.transact(operations(steps.clone())).await.unwrap();
    let whole = everything(&world.server);
    let again = world.client.transact(operations(steps)).await;
    assert!(matches!(again, Err(TransactError::Refused { operation: Some(_), .. })), "{again:?}");
    assert_eq!(everything(&world.server), whole);
}
