//! A checker whose verdicts a test waits for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proxy::health::{
    Check, CheckKind, CheckerConfig, HealthChecker, HealthMetrics, Http, InconclusiveCheck, Report, Target,
    TargetKey, Targets, Verdict,
};
use fiberlb_proxy::sockets::SocketFactory;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

/// Between two probes, unless a test says otherwise.
pub(crate) const DELAY: Duration = Duration::from_millis(100);
/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The network that tests of one network use.
pub(crate) const NETWORK: Uuid = Uuid::from_u128(7);

pub(crate) struct Watch {
    pub(crate) checker: HealthChecker,
    verdicts: UnboundedReceiver<Verdict>,
    inconclusive: UnboundedReceiver<InconclusiveCheck>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self::bounded(CheckerConfig::default())
    }

    pub(crate) fn bounded(config: CheckerConfig) -> Self {
        let (sender, verdicts) = unbounded_channel();
        let (doubts, inconclusive) = unbounded_channel();
        let report = move |report| match report {
            Report::Verdict(verdict) => drop(sender.send(verdict)),
            Report::Inconclusive(check) => drop(doubts.send(check)),
        };
        Self { checker: HealthChecker::start(config, report).unwrap(), verdicts, inconclusive }
    }

    pub(crate) fn apply(&self, world: &Arc<impl SocketFactory>, targets: Vec<Target>) {
        let factory: Arc<dyn SocketFactory> = Arc::clone(world) as _;
        self.checker.apply(Targets { networks: HashMap::from([(NETWORK, factory)]), targets }).unwrap();
    }

    pub(crate) async fn verdict(&mut self) -> Verdict {
        tokio::time::timeout(PATIENCE, self.verdicts.recv()).await.expect("no verdict came").unwrap()
    }

    /// The next report of probes that say nothing, or say something again.
    pub(crate) async fn inconclusive(&mut self) -> InconclusiveCheck {
        tokio::time::timeout(PATIENCE, self.inconclusive.recv()).await.expect("no report came").unwrap()
    }

    /// The verdicts that came and that nobody waited for.
    pub(crate) fn unread(&mut self) -> Vec<Verdict> {
        std::iter::from_fn(|| self.verdicts.try_recv().ok()).collect()
    }

    /// Waits until the metrics are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(HealthMetrics) -> bool) -> HealthMetrics {
        let wait = async {
            while !wanted(self.checker.metrics()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await;
        assert!(in_time.is_ok(), "{:?}", self.checker.metrics());
        self.checker.metrics()
    }
}

pub(crate) fn check(kind: CheckKind, rise: u32, fall: u32) -> Arc<Check> {
    Arc::new(Check::new(kind, DELAY, DELAY, rise, fall).unwrap())
}

pub(crate) fn http(codes: &str) -> CheckKind {
    CheckKind::Http(Http::new("GET", "/", None, codes.parse().unwrap()).unwrap())
}

pub(crate) fn target(address: SocketAddr, check: &Arc<Check>, backends: &[u128]) -> Target {
    let key = TargetKey { network: NETWORK, address, check: Arc::clone(check) };
    Target { key, backends: backends.iter().copied().map(Uuid::from_u128).collect(), has_route: true }
}
