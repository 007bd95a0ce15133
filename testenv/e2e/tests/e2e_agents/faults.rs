//! Ways for a backend to fail, and what clients met meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Sample, Server, Trace};

use crate::common::PATIENCE;
use crate::resources::both_targets;
use crate::site::serve_v4;

/// Pace of the requests to each path. Many connections at once make Open vSwitch 3.1 abort in its userspace conntrack.
const PACE: Duration = Duration::from_millis(75);
/// A request that is sent to where somebody answers takes less, also when a packet was lost while OVN's flows changed.
const SOON: Duration = Duration::from_secs(4);

/// Failure of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its process is gone: connections are refused.
    Refused,
    /// Its machine drops every packet.
    Silent,
}

/// A backend that can fail.
pub(crate) struct Patient {
    pub(crate) vm: Vm,
    server: Option<Server>,
}

impl Patient {
    pub(crate) fn healthy(vm: &Vm) -> Patient {
        Patient { vm: vm.clone(), server: Some(serve_v4(vm)) }
    }

    pub(crate) async fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Refused => drop(self.server.take()),
            Fault::Silent => drop(self.vm.exec("ip", &["link", "set", "eth0", "down"]).await.unwrap()),
        }
    }

    pub(crate) async fn recover(&mut self) {
        self.vm.exec("ip", &["link", "set", "eth0", "up"]).await.unwrap();
        if self.server.is_none() {
            self.server = Some(serve_v4(&self.vm));
        }
    }
}

/// Requests of a client to OVN's path and to the proxies', at the same time.
pub(crate) struct Traffic {
    traces: [Trace; 2],
}

/// Results of the requests to one path.
pub(crate) struct Met {
    pub(crate) path: &'static str,
    pub(crate) samples: Vec<Sample>,
}

impl Traffic {
    pub(crate) fn start(client: &Vm) -> Traffic {
        Traffic::start_at(client, PACE)
    }

    /// The same with a request each `pace`: a test that takes long must not wear out the lab's own conntrack.
    pub(crate) fn start_at(client: &Vm, pace: Duration) -> Traffic {
        Traffic { traces: both_targets().map(|target| Trace::start(client, target, pace).unwrap()) }
    }

    /// Waits until each of these servers has answered on each path lately.
    pub(crate) async fn reaches(&self, servers: &[&str]) {
        let since = Instant::now();
        loop {
            let samples = self.traces.each_ref().map(Trace::so_far);
            let answers = |samples: &[Sample], server: &str| {
                samples.iter().any(|it| it.began > since && it.server() == Some(server))
            };
            if samples.iter().all(|samples| servers.iter().all(|server| answers(samples, server))) {
                return;
            }
            if since.elapsed() > PATIENCE {
                let [ovn, proxied] = samples.map(|samples| met_since(&samples, since));
                panic!(
                    "no answers from all of {servers:?} within {PATIENCE:?}; OVN: {ovn}; PROXY: {proxied}"
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets it go on for so long.
    pub(crate) async fn go_on(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Ends it, once all requests have.
    pub(crate) async fn stop(self) -> [Met; 2] {
        let [ovn, proxied] = self.traces;
        let (ovn, proxied) = tokio::join!(ovn.stop(), proxied.stop());
        [Met { path: "OVN", samples: ovn }, Met { path: "PROXY", samples: proxied }]
    }
}

/// Counts of each server's answers and of each failure since then.
fn met_since(samples: &[Sample], since: Instant) -> String {
    let mut counts = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.began > since) {
        let met = sample
            .outcome
            .as_ref()
            .map_or_else(|why| format!("failed: {why}"), |answer| answer.server.clone());
        *counts.entry(met).or_insert(0) += 1;
    }
    format!("{counts:?}")
}

impl Met {
    pub(crate) fn is_ovn(&self) -> bool {
        self.path == "OVN"
    }

    /// Samples that began within a time.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |it| it.began >= from && it.began < to)
    }

    /// Failed samples.
    pub(crate) fn failed(&self) -> Vec<&Sample> {
        self.samples.iter().filter(|it| it.outcome.is_err()).collect()
    }

    /// All that began within a time were answered soon, by these servers alone, and there were some.
    pub(crate) fn is_well(&self, from: Instant, to: Instant, servers: &[&str]) {
        let within: Vec<&Sample> = self.between(from, to).collect();
        assert!(within.len() >= 10, "{}: only {} requests", self.path, within.len());
        for it in within {
            let well = it.took < SOON && it.server().is_some_and(|server| servers.contains(&server));
            assert!(well, "{}: {:?} after {:?}", self.path, it, it.began - from);
        }
    }

    /// In a line, relative to a moment: how many failed, and the last one that did.
    pub(crate) fn summary(&self, moment: Instant) -> String {
        let failed = self.failed();
        let after = |it: &Sample| it.began.saturating_duration_since(moment);
        let last =
            failed.last().map(|it| format!(", the last began {:.1?} after: {:?}", after(it), it.outcome));
        let slow = self.samples.iter().filter(|it| it.took > Duration::from_secs(1)).count();
        let (path, total) = (self.path, self.samples.len());
        format!(
            "{path}: {} of {total} failed, {slow} took over 1 s{}",
            failed.len(),
            last.unwrap_or_default()
        )
    }
}
