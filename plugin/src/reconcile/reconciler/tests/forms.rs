//! A northd of another release takes over, on which responders answer in another form.

use fiberlb_northbound::plan::Network;

use super::*;
use crate::reconcile::examples::GLOBAL;

impl World {
    fn northd(&self, version: &str) {
        let options = columns([("options", json!(["map", [["northd_internal_version", version]]]))]);
        self.database.write(&[Operation::update("NB_Global", GLOBAL, options)]).unwrap();
    }

    /// Number of answer rows in force, and of VIPs that are addresses of the responder.
    fn answers(&self) -> (usize, usize) {
        let nb = self.northbound.read();
        let group = nb.load_balancer_group.get(&Network::answers(INSTALLATION, NETWORK));
        let networks = nb.logical_router_port.iter().flat_map(|(_, port)| &port.networks);
        (
            group.map(|group| group.load_balancer.len()).unwrap_or_default(),
            networks.filter(|network| plan::vip_of(network).is_some()).count(),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn another_northd_has_the_form_of_answers_changed_in_two_transactions() {
    let mut world = World::new().await;
    world.northd("23.03.1-20.27.0-70.6");
    let _running = world.start().await;
    world.add(1).await;
    world.add(2).await;
    sleep(LONG).await;
    assert_eq!((world.sent(), world.answers()), (2, (0, 2)));

    world.northd("25.03.0-20.41.0-76.8");
    world.sent_all(3).await;
    sleep(LONG).await;
    assert_eq!(world.answers(), (2, 0));
    // The rows first, and then the addresses go.
    assert_eq!((world.sent(), world.metrics.queue_length.get()), (4, 0));

    // What others do to either is put right.
    let answer = crate::rows::answer_row(INSTALLATION, id(1));
    world.database.write(&[Operation::delete("Load_Balancer", answer)]).unwrap();
    world.sent_all(5).await;
    assert_eq!(world.answers(), (2, 0));
    let group = Network::answers(INSTALLATION, NETWORK);
    let empty = columns([("load_balancer", json!(["set", []]))]);
    world.database.write(&[Operation::update("Load_Balancer_Group", group, empty)]).unwrap();
    world.sent_all(6).await;
    assert_eq!(world.answers(), (2, 0));
    let responder = INSTALLATION.row("responder", &NETWORK.to_string());
    let empty = columns([("load_balancer_group", json!(["set", []]))]);
    world.database.write(&[Operation::update("Logical_Router", responder, empty)]).unwrap();
    world.sent_all(7).await;
    assert!(world.northbound.read().group_referrers(group).any(|(_, router)| router == responder));
    let port = INSTALLATION.row("responder-router-port", &NETWORK.to_string());
    let networks = columns([("networks", json!(["set", ["169.254.77.1/0", "fe80::77/0", "10.0.0.1/32"]]))]);
    world.database.write(&[Operation::update("Logical_Router_Port", port, networks)]).unwrap();
    world.sent_all(8).await;
    assert_eq!(world.answers(), (2, 0));
    sleep(LONG).await;
    assert_eq!((world.sent(), world.metrics.queue_length.get()), (8, 0));

    // The old one comes back: both at once.
    world.northd("23.03.1-20.27.0-70.6");
    world.sent_all(9).await;
    sleep(LONG).await;
    assert_eq!((world.sent(), world.answers()), (9, (0, 2)));
}
