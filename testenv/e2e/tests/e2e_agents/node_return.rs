//! A dead node returns, and takes back its share: no connection elsewhere breaks.

use std::time::{Duration, Instant};

use crate::common::until;
use crate::drain::{PACE, PROXIED, shop_on_one};
use crate::echo::{EchoConnection, alive};
use crate::faults::Traffic;
use crate::resources::both_targets;
use crate::scenario::scenario;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_that_returns_breaks_no_connection_through_its_stand_in() {
    scenario("a_dead_node_that_returns_breaks_no_connection_through_its_stand_in", || async {
        let settings = "move_after_s = 3\ndrain_s = 120";
        let (mut site, _servers, client, [first, stand_in]) = shop_on_one("return", settings).await;
        let [_, proxied] = both_targets();
        let own = site.listed(PROXIED).await;
        let number = site.nodes.iter().position(|node| node.id() == first).unwrap();
        let killed = Instant::now();
        site.nodes[number].kill().unwrap();
        site.until_listed(PROXIED, "the stand-in", |list| list.len() == 1 && *list != own).await;
        println!("{stand_in} stands in for {first} after {:.1?}", killed.elapsed());
        site.lab.wait_for_sync().await.unwrap();

        let mut connections = EchoConnection::open_many(&client, proxied, 4).await;
        let traffic = Traffic::start_at(&client, PACE);
        traffic.reaches(&["b1", "b2"]).await;
        let returned = Instant::now();
        site.nodes[number].start_again().await.unwrap();
        let standing_in = site.listed(PROXIED).await;
        site.until_listed(PROXIED, "the first node", |list| list.len() == 1 && *list != standing_in).await;
        println!("{first} has its share back after {:.1?}", returned.elapsed());
        traffic.go_on(Duration::from_secs(3)).await;
        assert_eq!(alive(&mut connections).await, 4);

        // A plugin that is killed in the middle goes on where it was, and writes nothing.
        site.tenant.plugin.kill().unwrap();
        site.tenant.plugin.start_again().await.unwrap();
        site.nodes_alive().await;
        traffic.go_on(Duration::from_secs(12)).await;
        assert_eq!(alive(&mut connections).await, 4);
        assert!(site.tenant.plugin.northbound_transactions().await.unwrap() < 0.5, "it wrote");
        assert!(!site.node(&stand_in).namespaces().unwrap().is_empty());
        for met in traffic.stop().await {
            println!("{}", met.summary(returned));
            assert!(met.failed().is_empty(), "{}", met.summary(returned));
        }

        let ended = Instant::now();
        drop(connections);
        until("the stand-in without a namespace", async || {
            site.node(&stand_in).namespaces().unwrap().is_empty().then_some(())
        })
        .await;
        println!("the network has left {stand_in} {:.1?} after the last connection", ended.elapsed());
        site.close();
    })
    .await;
}
