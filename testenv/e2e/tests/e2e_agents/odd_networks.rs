//! Networks unlike others: with IPv6 alone, behind security groups, under another name, and load balancers in a row.

use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Requests;
use fiberlb_proto::v1;

use crate::api::{delete, id_of, online, until_tree};
use crate::common::add_network;
use crate::resources::{
    DIRECT_VIPS, OVN_PORT, PROXY_PORT, VIPS, at, backend, load_balancer, load_balancer_v4, on_both,
    on_one_node,
};
use crate::scenario::scenario;
use crate::site::{BACKEND_PORT, Site, ask, serve, serve_v4, vm};

/// Requests to each target.
const REQUESTS: u64 = 5;
/// Drops all that no other rule of the group of this name passes, as Neutron does.
const DROP: &str = "1001";
/// Priority of the rules that pass something.
const PASS: &str = "1002";

/// Codes of the listeners' reasons, by their ports.
fn codes(tree: &v1::LoadBalancerTree) -> Vec<(u32, &str)> {
    let states = tree.listeners.iter().filter_map(|it| Some((it.port, it.state.as_ref()?)));
    let mut codes: Vec<(u32, &str)> =
        states.map(|(port, state)| (port, state.reason_code.as_str())).collect();
    codes.sort_unstable();
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_in_a_row_are_served_by_proxies_and_said_where_ovn_carries_the_first() {
    scenario(
        "load_balancers_in_a_row_are_served_by_proxies_and_said_where_ovn_carries_the_first",
        || async {
            let site = Site::start("in-a-row").await;
            let [b1, client] = site.vms([("b1", 1, "ch1"), ("c1", 11, "ch2")]).await;
            let _server = serve_v4(&b1);
            let mut rear = load_balancer_v4("rear", site.network, VIPS[0], &[1]);
            rear.listeners = vec![crate::resources::listener(OVN_PORT)];
            let rear = online(&site.tenant, rear).await;
            let front_vip = "10.0.0.103";
            let mut front = on_both(load_balancer_v4("front", site.network, front_vip, &[]));
            front.pools[0].backends = vec![v1::Backend { port: OVN_PORT.into(), ..backend(VIPS[0]) }];
            let front = site.tenant.apply(front).await;
            let said = [(u32::from(OVN_PORT), "BACKEND_IS_VIP"), (u32::from(PROXY_PORT), "")];
            let tree = until_tree(&site.tenant, &id_of(&front), "the VIP behind the VIP", |tree| {
                codes(tree) == said && tree.listeners.iter().any(|it| it.proxy_node_ids.len() == 2)
            })
            .await;
            let state = tree.load_balancer.as_ref().unwrap().state.as_ref().unwrap();
            assert_eq!(state.operating_status(), v1::OperatingStatus::Degraded, "{state:?}");
            site.lab.wait_for_sync().await.unwrap();
            let report = ask(&client, at(front_vip, PROXY_PORT), REQUESTS).await;
            assert_eq!(report.share("b1"), REQUESTS, "{report}");
            let lost = Requests::tcp(&client, at(front_vip, OVN_PORT)).timeout(Duration::from_secs(2));
            assert_eq!(lost.run(2).await.unwrap().answered, 0, "OVN serves it: the status need not warn");

            // The first one is the other's no longer.
            delete(&site.tenant, &id_of(&rear)).await;
            until_tree(&site.tenant, &id_of(&front), "no VIP behind the VIP", |tree| {
                codes(tree).iter().all(|(_, code)| *code != "BACKEND_IS_VIP")
            })
            .await;
            site.close();
        },
    )
    .await;
}

/// All of these targets are served by the machine `b1`.
async fn serves(clients: &[&Vm], vips: &[[&str; 2]; 2], families: &[usize]) {
    let [balanced, direct] = vips;
    for client in clients {
        for family in families {
            for target in [
                at(balanced[*family], OVN_PORT),
                at(balanced[*family], PROXY_PORT),
                at(direct[*family], OVN_PORT),
            ] {
                let report = ask(client, target, REQUESTS).await;
                assert_eq!(report.share("b1"), REQUESTS, "{} to {target}: {report}", client.name());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_groups_that_drop_what_they_do_not_pass_and_another_name_keep_nobody_from_vips() {
    scenario(
        "security_groups_that_drop_what_they_do_not_pass_and_another_name_keep_nobody_from_vips",
        || async {
            let site = Site::start("security-groups").await;
            let [b1, client, other] =
                site.vms([("b1", 1, "ch1"), ("c1", 11, "ch2"), ("c2", 12, "ch1")]).await;
            let _servers = serve(&b1);
            let nbctl = async |arguments: &[&str]| drop(site.lab.nbctl(arguments).await.unwrap());
            nbctl(&["pg-add", "group", "b1", "c1", "c2"]).await;
            for (direction, port) in [("from-lport", "inport"), ("to-lport", "outport")] {
                nbctl(&["acl-add", "group", direction, DROP, &format!("{port} == @group && ip"), "drop"])
                    .await;
            }
            for family in ["ip4", "ip6"] {
                let all = format!("inport == @group && {family}");
                nbctl(&["acl-add", "group", "from-lport", PASS, &all, "allow-related"]).await;
                let service = format!("outport == @group && {family} && tcp.dst == {BACKEND_PORT}");
                nbctl(&["acl-add", "group", "to-lport", PASS, &service, "allow-related"]).await;
            }
            online(&site.tenant, on_both(load_balancer("both", site.network, VIPS, &[1]))).await;
            let direct = on_one_node(load_balancer("direct", site.network, DIRECT_VIPS, &[1]));
            let direct = online(&site.tenant, direct).await;
            site.lab.wait_for_sync().await.unwrap();
            let vips = [VIPS, DIRECT_VIPS];
            serves(&[&client, &other, &b1], &vips, &[0, 1]).await;

            nbctl(&["set", "Logical_Switch", "sw0", "name=renamed"]).await;
            delete(&site.tenant, &id_of(&direct)).await;
            let mut again = on_one_node(load_balancer("direct", site.network, DIRECT_VIPS, &[1]));
            again.load_balancer.as_mut().unwrap().network = "renamed".to_owned();
            online(&site.tenant, again).await;
            site.lab.wait_for_sync().await.unwrap();
            serves(&[&client], &vips, &[0, 1]).await;
            site.close();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_with_ipv6_alone_is_served_on_every_path() {
    scenario("a_network_with_ipv6_alone_is_served_on_every_path", || async {
        let site = Site::start("ipv6-alone").await;
        let network = add_network(&site.lab, "sw6", &[("ipv6_prefix", "fd00::/64")]).await;
        let specs = [("b1", 1, "ch1"), ("c1", 11, "ch2")];
        let specs = specs.map(|(name, number, chassis)| vm(name, number, chassis, "sw6"));
        let [b1, client]: [Vm; 2] = site.lab.add_vms(specs.into()).await.unwrap().try_into().unwrap();
        let _servers = serve(&b1);
        let six = |name: &str, vip: &str| {
            let mut tree = load_balancer_v4(name, network, vip, &[]);
            tree.pools[0].backends = vec![backend("fd00::1")];
            tree
        };
        online(&site.tenant, on_both(six("both", VIPS[1]))).await;
        online(&site.tenant, on_one_node(six("direct", DIRECT_VIPS[1]))).await;
        // An IPv4 backend has no subnet there.
        let mut refused = six("four", "fd00::104");
        refused.pools[0].backends = vec![backend("10.0.0.1")];
        let request = v1::ApplyLoadBalancerRequest { tree: Some(refused), ..Default::default() };
        let refused = site.tenant.client.clone().apply_load_balancer(request).await.unwrap_err();
        assert!(refused.message().contains("IPv4"), "{refused:?}");
        site.lab.wait_for_sync().await.unwrap();
        serves(&[&client, &b1], &[VIPS, DIRECT_VIPS], &[1]).await;
        site.close();
    })
    .await;
}
