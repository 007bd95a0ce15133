//! The lab with a clustered northbound database: that it is a cluster, and that its members can be stopped and cut off.

use fiberlb_lab::{Central, Lab, Member, Stop, can_run};

#[tokio::test]
async fn a_cluster_outlives_any_one_of_its_members() {
    if !can_run("a_cluster_outlives_any_one_of_its_members") {
        return;
    }
    let lab = Lab::start_clustered("cluster").await.unwrap();
    assert_eq!(lab.nb_endpoint().split(',').count(), 3);
    for how in [Stop::Kill, Stop::Graceful] {
        let leader = lab.nb_leader().await.unwrap();
        lab.stop(Central::Member(leader), how).await.unwrap();
        lab.next_nb_leader(leader).await.unwrap();
        lab.add_switch(leader.name(), &[]).await.unwrap();
        lab.restart(Central::Member(leader)).await.unwrap();
        lab.wait_for_member(leader).await.unwrap();
    }
    // northd follows: it sees what is written to whichever leads.
    lab.nbctl(&["--wait=sb", "sync"]).await.unwrap();
    lab.close().unwrap();
}

#[tokio::test]
async fn a_member_that_is_cut_off_or_frozen_loses_its_place() {
    if !can_run("a_member_that_is_cut_off_or_frozen_loses_its_place") {
        return;
    }
    let lab = Lab::start_clustered("cut").await.unwrap();
    let cut = lab.nb_leader().await.unwrap();
    lab.cut_member(cut).await.unwrap();
    let frozen = lab.next_nb_leader(cut).await.unwrap();
    lab.heal_member(cut).await.unwrap();
    lab.wait_for_member(cut).await.unwrap();
    lab.pause(Central::Member(frozen)).await.unwrap();
    lab.next_nb_leader(frozen).await.unwrap();
    lab.resume(Central::Member(frozen)).await.unwrap();
    for member in Member::ALL {
        lab.wait_for_member(member).await.unwrap();
    }
    lab.nbctl(&["--wait=sb", "sync"]).await.unwrap();
    lab.close().unwrap();
}
