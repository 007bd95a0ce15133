//! A short run of chaos: a whole installation, of which parts die, freeze and are cut off, loses nothing and doubles nothing.
//! `make chaos` is the long one.

#![cfg(test)]

use fiberlb_chaos::run::{Options, run};
use fiberlb_lab::can_run_with;

/// Proxy nodes that die alone, a mixed act, and a quorum of etcd that is lost, within 40 s: `fiberlb-chaos --plan` says it.
const SEED: u64 = 273;

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_of_chaos_loses_nothing() {
    if !can_run_with("a_short_run_of_chaos_loses_nothing", &["etcd", "etcdctl"]) {
        return;
    }
    let name = "chaos-short".to_owned();
    let options = Options { name, seed: SEED, seconds: 34, plugins: 3, is_loud: false };
    let report = run(&options).await.unwrap();
    assert!(report.violations.is_empty(), "seed {SEED}: {report}");
}
