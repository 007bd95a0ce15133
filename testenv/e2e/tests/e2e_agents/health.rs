//! A backend fails: no new connection goes to it after a bounded time, on either datapath, and the API says why.

use std::time::{Duration, Instant};

use fiberlb_proto::v1;

use crate::api::{fares, id_of, levels, online, until_tree};
use crate::faults::{Fault, Patient, Traffic};
use crate::resources::{VIPS, both_targets, limit, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, ask};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_leaves_both_paths_in_time_and_returns() {
    scenario("a_killed_backend_leaves_both_paths_in_time_and_returns", || async {
        fails_and_returns("health-refused", Fault::Refused).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_drops_packets_leaves_both_paths_in_time_and_returns() {
    scenario("a_machine_that_drops_packets_leaves_both_paths_in_time_and_returns", || async {
        fails_and_returns("health-silent", Fault::Silent).await;
    })
    .await;
}

async fn fails_and_returns(name: &str, fault: Fault) {
    let site = Site::start(name).await;
    let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
    let mut patients = [Patient::healthy(&b1), Patient::healthy(&b2)];
    let tree = online(&site.tenant, on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]))).await;
    site.lab.wait_for_sync().await.unwrap();

    one_fails(&site, &id_of(&tree), &mut patients[1], &c1, fault).await;
    all_fail(&site, &id_of(&tree), &mut patients[0], &c1, fault).await;

    for patient in &mut patients {
        patient.recover().await;
    }
    let back = until_tree(&site.tenant, &id_of(&tree), "all ONLINE again", |tree| {
        levels(tree).iter().all(|(status, _)| *status == v1::OperatingStatus::Online)
    })
    .await;
    assert_eq!(fares(&back, "10.0.0.2"), (v1::OperatingStatus::Online, String::new()));
    site.lab.wait_for_sync().await.unwrap();
    for target in both_targets() {
        let report = ask(&c1, target, 40).await;
        assert_eq!((report.answered, report.shares.len()), (40, 2), "{target}: {report}");
    }
    site.close();
}

/// One of two backends fails under traffic.
async fn one_fails(site: &Site, id: &str, patient: &mut Patient, client: &fiberlb_lab::Vm, fault: Fault) {
    let traffic = Traffic::start(client);
    traffic.reaches(&["b1", "b2"]).await;
    let failed = Instant::now();
    patient.fail(fault).await;
    let dead = Instant::now();
    let degraded = until_tree(&site.tenant, id, "DEGRADED at every level", |tree| {
        let degraded = levels(tree).iter().all(|(status, _)| *status == v1::OperatingStatus::Degraded);
        degraded && fares(tree, "10.0.0.2").0 == v1::OperatingStatus::Offline
    })
    .await;
    println!("{fault:?}: the API says so after {:.1?}; allowed: {:.1?}", failed.elapsed(), limit());
    assert!(failed.elapsed() <= limit(), "the status came after {:?}", failed.elapsed());
    let (status, reason) = fares(&degraded, "10.0.0.2");
    let why = if fault == Fault::Refused { "refused" } else { "no answer" };
    assert!(
        status == v1::OperatingStatus::Offline && reason.contains("found down") && reason.contains(why),
        "{reason}"
    );
    for (_, reason) in levels(&degraded) {
        assert!(!reason.is_empty(), "{degraded:?}");
    }
    let health = site.operator().health(&crate::api::backend(&degraded, "10.0.0.2").id).await;
    assert!(health.verdicts.len() == 2 && health.verdicts.iter().all(|verdict| !verdict.up), "{health:?}");

    let rest = (failed + limit()).saturating_duration_since(Instant::now());
    traffic.go_on(rest + Duration::from_secs(2)).await;
    let ended = Instant::now();
    for met in traffic.stop().await {
        println!("{fault:?}: {}", met.summary(failed));
        met.is_well(failed + limit(), ended, &["b1"]);
        if fault == Fault::Refused && !met.is_ovn() {
            // What the server was answering when it died is lost with it.
            let lost = met.failed().into_iter().filter(|it| it.began >= dead || it.began + it.took < failed);
            assert_eq!(lost.count(), 0, "a proxy tries another backend: {}", met.summary(failed));
        }
    }
}

/// The last one fails too: connections are refused, and everything is ERROR.
async fn all_fail(site: &Site, id: &str, patient: &mut Patient, client: &fiberlb_lab::Vm, fault: Fault) {
    patient.fail(fault).await;
    let error = until_tree(&site.tenant, id, "ERROR at every level", |tree| {
        levels(tree).iter().all(|(status, _)| *status == v1::OperatingStatus::Error)
    })
    .await;
    for (_, reason) in levels(&error) {
        assert!(!reason.is_empty(), "{error:?}");
    }
    site.lab.wait_for_sync().await.unwrap();
    for target in both_targets() {
        let began = Instant::now();
        let report = ask(client, target, 5).await;
        let refused =
            report.answered == 0 && report.failed.iter().all(|it| it.after < Duration::from_secs(3));
        assert!(refused, "{target}: {report} in {:?}", began.elapsed());
    }
}
