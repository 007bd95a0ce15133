//! Traffic of tenants' clients: new connections on both datapaths all the time, and established ones.

use std::time::Duration;

use anyhow::Result;
use fiberlb_lab::Vm;
use fiberlb_lab::workload::{EchoSession, EchoSessions, Sample, Trace};

use crate::clock::Clock;
use crate::load_balancer::TrafficTarget;
use crate::tolerance::{FLOWS_ARE_BACK, NOTICED, Tolerances};

/// Pace of the requests of each client on each path, each on a new connection. The more connections, the sooner Open
/// vSwitch aborts in its conntrack.
const PACE: Duration = Duration::from_millis(200);
/// Connections of each client that stay open.
const SESSIONS: usize = 4;

/// The traffic of all clients.
#[derive(Debug)]
pub struct Traffic {
    ovn: Vec<Trace>,
    proxied: Vec<Trace>,
    sessions: Vec<EchoSessions>,
}

/// Results of the traffic.
#[derive(Debug, Default)]
pub struct Met {
    /// Requests on OVN's path.
    pub ovn: Vec<Sample>,
    /// Requests on the proxies' path.
    pub proxied: Vec<Sample>,
    /// Connections through OVN that were there from the beginning.
    pub sessions: Vec<EchoSession>,
}

impl Traffic {
    /// Begins.
    ///
    /// # Errors
    /// There can be no threads for it.
    pub fn start(clients: &[Vm], target: TrafficTarget) -> Result<Self> {
        let traces = |target| clients.iter().map(move |vm| Trace::start(vm, target, PACE));
        let sessions = clients.iter().map(|vm| EchoSessions::start(vm, target.ovn, SESSIONS));
        Ok(Self {
            sessions: sessions.collect::<std::io::Result<_>>()?,
            ovn: traces(target.ovn).collect::<std::io::Result<_>>()?,
            proxied: traces(target.proxied).collect::<std::io::Result<_>>()?,
        })
    }

    /// Waits for requests under way, and makes no more.
    pub async fn stop(self) -> Met {
        let sessions = self.sessions.iter().flat_map(EchoSessions::so_far).collect();
        let mut met = Met { sessions, ..Met::default() };
        for trace in self.ovn {
            met.ovn.extend(trace.stop().await);
        }
        for trace in self.proxied {
            met.proxied.extend(trace.stop().await);
        }
        met
    }
}

impl Met {
    /// Descriptions of violations. `aborts` of Open vSwitch itself excuse more than deaths of nodes do.
    #[must_use]
    pub fn violations(&self, nodes: &Tolerances, aborts: &[Duration], clock: &Clock) -> Vec<String> {
        let established = Tolerances::of_aborts(aborts, NOTICED);
        let open_vswitch = Tolerances::of_aborts(aborts, FLOWS_ARE_BACK);
        let mut found: Vec<String> = self.sessions.iter().filter_map(silent).collect();
        let sessions = self.sessions.iter().flat_map(|session| broken(session, clock));
        found.extend(sessions.filter(|(at, _)| !established.has(*at)).map(|(_, what)| what));
        let ovn = failures(&self.ovn, clock).filter(|(began, _)| !open_vswitch.has(*began));
        found.extend(ovn.map(|(_, what)| format!("on OVN's path {what}")));
        let proxied = failures(&self.proxied, clock);
        let proxied = proxied.filter(|(began, _)| !nodes.has(*began) && !open_vswitch.has(*began));
        found.extend(proxied.map(|(_, what)| format!("on the proxies' path {what}")));
        found
    }

    /// A line for each kind of traffic.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let path = |name: &str, samples: &[Sample]| {
            let failed = samples.iter().filter(|sample| sample.outcome.is_err()).count();
            let answered = samples.iter().filter(|sample| sample.outcome.is_ok());
            let slowest = answered.map(|sample| sample.took).max().unwrap_or_default();
            format!("{name}: {} requests, {failed} failed, slowest answer {slowest:.1?}", samples.len())
        };
        let exchanges: u64 = self.sessions.iter().map(|session| session.exchanges).sum();
        let longest = self.sessions.iter().map(|session| session.longest).max().unwrap_or_default();
        let broken: usize = self.sessions.iter().map(|session| session.broken.len()).sum();
        let sessions = self.sessions.len();
        vec![
            path("OVN's path", &self.ovn),
            path("the proxies' path", &self.proxied),
            format!(
                "{sessions} sessions: {exchanges} exchanges, {broken} connections broke, longest {longest:.1?}"
            ),
        ]
    }

    /// All requests that failed, a line each.
    #[must_use]
    pub fn failed(&self, clock: &Clock) -> String {
        let ovn = failures(&self.ovn, clock).map(|(_, what)| format!("ovn: {what}\n"));
        let proxied = failures(&self.proxied, clock).map(|(_, what)| format!("proxied: {what}\n"));
        let sessions =
            self.sessions.iter().flat_map(|session| broken(session, clock)).map(|(_, what)| what + "\n");
        ovn.chain(proxied).chain(sessions).collect()
    }
}

fn broken<'a>(session: &'a EchoSession, clock: &'a Clock) -> impl Iterator<Item = (Duration, String)> + 'a {
    session.broken.iter().map(|(at, why)| {
        let at = clock.at(*at);
        (at, format!("an established connection broke at {at:.3?}, {why}"))
    })
}

fn silent(session: &EchoSession) -> Option<String> {
    (session.exchanges == 0).then(|| "a session never exchanged anything".to_owned())
}

fn failures<'a>(samples: &'a [Sample], clock: &'a Clock) -> impl Iterator<Item = (Duration, String)> + 'a {
    samples.iter().filter_map(|sample| {
        let (began, why) = (clock.at(sample.began), sample.outcome.as_ref().err()?);
        Some((began, format!("a request at {began:.3?} failed after {:.1?}: {why}", sample.took)))
    })
}
