//! Networks and addresses of load balancers.

use super::*;

fn at(vips: &[&str]) -> LoadBalancerDraft {
    let vip = |text: &&str| VipDraft { address: Some(text.parse().unwrap()), subnet: None };
    LoadBalancerDraft { vips: vips.iter().map(vip).collect(), ..load_balancer() }
}

fn on(network: &str) -> LoadBalancerDraft {
    LoadBalancerDraft { network: network.to_owned(), ..load_balancer() }
}

async fn refused(world: &World, draft: LoadBalancerDraft) -> ApiError {
    world.create::<LoadBalancer>(draft).await.unwrap_err()
}

#[tokio::test]
async fn a_network_is_its_uuid_or_the_name_of_exactly_one() {
    let world = World::new().await;
    let made = world.create::<LoadBalancer>(on("net")).await.unwrap();
    assert_eq!(made.record.spec.network, NETWORK);
    for (unknown, reason) in [
        ("", ErrorReason::InvalidFields),
        ("nowhere", ErrorReason::UnmetFields),
        ("00000000-0000-0000-0000-00000000000f", ErrorReason::UnmetFields),
    ] {
        let error = refused(&world, on(unknown)).await;
        assert_eq!((error.reason, fields(&error)), (reason, vec!["network"]), "{unknown:?}");
    }
    world.networks.lock().unwrap().networks.insert(Uuid::from_u128(7), ("net", Vec::new()));
    let error = refused(&world, on("net")).await;
    assert!(error.message.contains("2 logical switches are named \"net\""), "{error}");
}

#[tokio::test]
async fn a_load_balancer_shows_the_name_that_its_network_has_now() {
    let world = World::new().await;
    let made = world.create::<LoadBalancer>(on("net")).await.unwrap();
    assert_eq!(made.detail.network_name, "net");
    let shown = || world.cases.get::<LoadBalancer>(&tenant(), made.record.id).unwrap().detail.network_name;
    world.networks.lock().unwrap().networks.get_mut(&NETWORK).unwrap().0 = "renamed";
    assert_eq!(shown(), "renamed");
    world.networks.lock().unwrap().networks.insert(Uuid::from_u128(7), ("renamed", Vec::new()));
    assert_eq!(shown(), "", "a request by this name would be refused");
    world.networks.lock().unwrap().networks.clear();
    assert_eq!(shown(), "");
}

#[tokio::test]
async fn while_no_network_was_ever_seen_a_given_address_is_taken_at_its_word() {
    let world = World::new().await;
    world.networks.lock().unwrap().unseen = Some("connecting".to_owned());
    let elsewhere = Uuid::from_u128(7).to_string();
    let given = LoadBalancerDraft { network: elsewhere, ..at(&["10.9.0.1"]) };
    world.create::<LoadBalancer>(given).await.unwrap();
    for draft in [on("net"), load_balancer()] {
        let error = refused(&world, draft).await;
        assert_eq!(error.reason, ErrorReason::NorthboundUnavailable, "{error}");
        assert!(error.message.contains("(connecting)"), "{error}");
    }
    let wrong = LoadBalancerDraft { common: named(&"x".repeat(256)), ..on("net") };
    assert_eq!(fields(&refused(&world, wrong).await), ["name"], "what is wrong anyway is said first");
}

#[tokio::test]
async fn an_address_of_somebody_else_is_refused() {
    let world = World::new().await;
    world.create::<LoadBalancer>(at(&["10.0.0.9"])).await.unwrap();
    world.networks.lock().unwrap().holders.insert("10.0.0.10".parse().unwrap());
    for (address, why) in [("10.0.0.9", "another load balancer"), ("10.0.0.10", "in use by port vm-1")] {
        let error = refused(&world, at(&[address])).await;
        assert_eq!((error.reason, fields(&error)), (ErrorReason::TakenFields, vec!["vip_address"]));
        assert!(error.message.contains(why), "{error}");
    }
    for address in ["10.1.0.9", "10.0.0.0", "10.0.0.255"] {
        assert_eq!(refused(&world, at(&[address])).await.reason, ErrorReason::UnmetFields, "{address}");
    }
    for address in ["127.0.0.1", "224.0.0.1"] {
        assert_eq!(refused(&world, at(&[address])).await.reason, ErrorReason::InvalidFields, "{address}");
    }
}

#[tokio::test]
async fn a_second_vip_is_of_the_other_family() {
    let world = World::new().await;
    let made = world.create::<LoadBalancer>(at(&["10.0.0.9", "fd00::9"])).await.unwrap();
    assert_eq!(made.record.spec.vips.len(), 2);
    let error = refused(&world, at(&["10.0.0.11", "10.0.0.12"])).await;
    assert_eq!(fields(&error), ["additional_vips"], "{error}");
    let error = refused(&world, at(&["10.0.0.11", "fd00::11", "fd00::12"])).await;
    assert!(fields(&error).contains(&"additional_vips"), "{error}");
    let both = LoadBalancerDraft { vips: vec![VipDraft::default(); 2], ..load_balancer() };
    let vips = world.create::<LoadBalancer>(both).await.unwrap().record.spec.vips.clone();
    assert_ne!(vips[0].is_ipv4(), vips[1].is_ipv4(), "{vips:?}");
}

#[tokio::test]
async fn concurrent_creates_get_addresses_of_their_own_until_there_are_none() {
    let world = World::new().await;
    let subnet = Some("10.0.0.8/29".parse().unwrap());
    let draft = || LoadBalancerDraft { vips: vec![VipDraft { address: None, subnet }], ..load_balancer() };
    let made = futures_util::future::join_all((0..8).map(|_| world.create::<LoadBalancer>(draft()))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    let vips: BTreeSet<IpAddr> = made.into_iter().map(|made| made.unwrap().record.spec.vips[0]).collect();
    assert_eq!(
        (vips.len(), refused.len()),
        (5, 3),
        "six hosts, of which the first is the gateway's by habit"
    );
    for refused in refused {
        assert!(refused.unwrap_err().message.contains("the subnet 10.0.0.8/29 has no free address"));
    }
}

#[tokio::test]
async fn an_address_of_a_failed_create_is_free_again() {
    let world = World::new().await;
    let subnet = Some("10.0.0.8/30".parse().unwrap());
    let vips = vec![VipDraft { address: None, subnet }];
    let wrong = LoadBalancerDraft { common: named(&"x".repeat(256)), vips: vips.clone(), ..load_balancer() };
    for _ in 0..5 {
        assert_eq!(fields(&refused(&world, wrong.clone()).await), ["name"]);
    }
    world.create::<LoadBalancer>(LoadBalancerDraft { vips, ..load_balancer() }).await.unwrap();
}
