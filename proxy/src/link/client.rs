//! Keeps a stream to one of the plugins up.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use super::attempts::{Attempts, backoff};
use super::dialer::{Dialer, OpenStream};
use super::endpoint::{PluginEndpoint, TlsFiles};
use super::redirects::{RedirectError, Redirects};
use super::session::{LinkWiring, Session, StreamEnd, pause};

/// Lifetime of a stream after which its end is no failure.
const SERVED: Duration = Duration::from_secs(3);
/// Identity of the node, for its Hello.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Unique among the nodes of an installation.
    pub id: String,
    /// Random id of this run of the process.
    pub boot_id: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// `system-id` of the local Open vSwitch; empty until it is known.
    pub chassis: watch::Receiver<String>,
    /// Capabilities of the data plane, as words of `Hello.capabilities`.
    pub capabilities: Vec<String>,
}

/// Settings of the stream to the plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Endpoints of the plugins, tried in turn from a random one on, so that nodes spread over the plugins.
    pub endpoints: Vec<PluginEndpoint>,
    /// Files for `https` endpoints.
    pub tls: Option<TlsFiles>,
}

/// Status of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// There is none, or it is being opened.
    Disconnected {
        /// Reason, for people.
        reason: String,
    },
    /// There is one.
    Connected {
        /// Endpoint of the plugin.
        endpoint: PluginEndpoint,
    },
}

/// Keeps a stream to one of the plugins up.
pub struct Link {
    settings: LinkSettings,
    node: NodeIdentity,
    wiring: LinkWiring,
    status: watch::Sender<LinkStatus>,
}

impl Link {
    /// Prepares; nothing happens before [`Link::run`].
    #[must_use]
    pub fn new(
        settings: LinkSettings,
        node: NodeIdentity,
        wiring: LinkWiring,
    ) -> (Self, watch::Receiver<LinkStatus>) {
        let reason = "no attempt was made yet".to_owned();
        let (status, watched) = watch::channel(LinkStatus::Disconnected { reason });
        (Self { settings, node, wiring, status }, watched)
    }

    /// Runs until `stop` is true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            // An error means that the sender is gone: stop too.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep_up() => {}
        }
    }

    /// Keeps a stream open. After one has ended or was refused, the next plugin is tried at once: the leader,
    /// if a follower redirects to it, else the next one of the list. After a whole round of failures there is
    /// a pause.
    async fn keep_up(&mut self) {
        let endpoints = self.settings.endpoints.clone();
        let first = fastrand::usize(..endpoints.len().max(1));
        let mut attempts = Attempts::new(endpoints.len());
        let mut redirects = Redirects::default();
        let mut log = AttemptLog::default();
        for (at, own) in endpoints.iter().enumerate().cycle().skip(first) {
            log.at = at;
            let Some(has_served) = self.dial(own, &mut redirects, &mut log).await else { return };
            let round = attempts.ended(has_served);
            if has_served || round.is_some() {
                redirects.forget();
            }
            if let Some(round) = round {
                pause(&mut self.wiring, backoff(round, fastrand::f64())).await;
            }
        }
    }

    /// Opens streams to an endpoint of the node's own list, and to those that it redirects to. Returns true
    /// if the last one lived long enough; `None`: the agent stops.
    async fn dial(
        &mut self,
        own: &PluginEndpoint,
        redirects: &mut Redirects,
        log: &mut AttemptLog,
    ) -> Option<bool> {
        redirects.begin(own);
        let mut endpoint = own.clone();
        loop {
            let (end, lived) = self.stream(&endpoint).await;
            if matches!(end, StreamEnd::Stopping) {
                return None;
            }
            if !lived.is_zero() {
                log.reasons.clear();
            }
            if lived >= SERVED {
                redirects.forget();
            }
            let in_a_row = redirects.in_a_row();
            let redirect = redirects.after(end.status(), self.settings.tls.is_some());
            let reason = log.ended(&endpoint, &end, in_a_row, redirect.as_ref());
            self.status.send_replace(LinkStatus::Disconnected { reason });
            match redirect {
                Some(Ok(leader)) => endpoint = leader,
                Some(Err(_)) | None => return Some(lived >= SERVED),
            }
        }
    }

    /// Runs one stream, and those that renew it. Returns the last one's end, and the time that they lived after their Welcome.
    async fn stream(&mut self, endpoint: &PluginEndpoint) -> (StreamEnd, Duration) {
        let dialer = Dialer {
            endpoint: endpoint.clone(),
            tls: self.settings.tls.clone(),
            node: self.node.clone(),
            held: self.wiring.held.clone(),
        };
        let mut lived = Duration::ZERO;
        let mut open = match dialer.open().await {
            Ok(open) => open,
            Err(end) => return (end, lived),
        };
        loop {
            let OpenStream { out, inbound, welcome } = open;
            let session = Session::new(&mut self.wiring, &self.status, &dialer, out);
            let (next, age) = session.run(inbound, welcome).await;
            lived += age;
            match next {
                Ok(next) => open = *next,
                Err(end) => return (end, lived),
            }
        }
    }
}

/// Last reason of each place in the list, so that one that stays is logged once.
#[derive(Default)]
struct AttemptLog {
    /// Place in the node's own list.
    at: usize,
    /// By place in the list and number of redirects from there.
    reasons: HashMap<(usize, usize), String>,
}

impl AttemptLog {
    /// Logs the end of an attempt if its reason has changed, and returns the reason.
    fn ended(
        &mut self,
        endpoint: &PluginEndpoint,
        end: &StreamEnd,
        in_a_row: usize,
        redirect: Option<&Result<PluginEndpoint, RedirectError>>,
    ) -> String {
        let reason = match redirect {
            Some(Err(error)) => format!("{endpoint}: {end}; {error}"),
            _ => format!("{endpoint}: {end}"),
        };
        if self.reasons.insert((self.at, in_a_row), reason.clone()).as_ref() == Some(&reason) {
            return reason;
        }
        match redirect {
            Some(Ok(leader)) => tracing::info!(%endpoint, %leader, "redirected to the leader"),
            _ => tracing::warn!(%reason, "disconnected from the plugin; serving the last configuration"),
        }
        reason
    }
}
