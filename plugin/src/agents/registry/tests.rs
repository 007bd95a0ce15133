use std::collections::BTreeSet;

use super::*;
use crate::datapath::NodeFeatures;

/// Records its calls.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Log {
    fn joined(&self, _: u64, hello: &Hello) -> Result<watch::Receiver<Option<Arc<Configuration>>>, Refusal> {
        self.note(format!("{} joined", hello.boot_id));
        if hello.node_id == "banned" {
            Err(Refusal::Denied("banned".to_owned()))
        } else {
            Ok(watch::channel(None).1)
        }
    }
    fn heard(&self, _: &str, _: u64) {}
    fn acknowledged(&self, _: &str, _: u64, _: bool, _: Vec<Acknowledgement>) {}
    fn verdicts(&self, _: &str, _: u64, _: bool, _: Vec<Verdict>) {}
    fn inconclusive(&self, _: &str, _: u64, _: bool, _: Vec<ReportedDoubt>) {}
    fn counters(&self, _: &str, _: u64, _: Vec<TrafficReport>, _: Vec<TrafficReport>) {}
    fn ejections(&self, _: &str, _: u64, _: Vec<ReportedEjection>) {}
    fn troubles(&self, _: &str, _: u64, _: Vec<NodeTrouble>) {}
    fn read_listeners(&self) -> watch::Receiver<Arc<BTreeSet<Uuid>>> {
        watch::channel(Arc::default()).1
    }
    fn access_log(&self, _: &str, _: u64, _: AccessLogReport) {}
    fn left(&self, _: &str, _: u64, reason: &str, _: bool) {
        self.note(format!("left: {reason}"));
    }
}

fn hello(node: &str, boot: &str) -> Hello {
    Hello {
        node_id: node.to_owned(),
        boot_id: boot.to_owned(),
        chassis: String::new(),
        release: String::new(),
        zone: String::new(),
        capabilities: NodeFeatures::of_old_agents(),
        held_vips: BTreeSet::new(),
    }
}

/// A registry whose nodes all join the same observer.
struct Joining {
    registry: Arc<Registry>,
    observer: Arc<dyn Observer>,
}

impl Joining {
    async fn join(
        &self,
        hello: &Hello,
    ) -> Result<(Presence, watch::Receiver<Option<Arc<Configuration>>>), Refusal> {
        self.registry.join(&self.observer, hello).await
    }
}

fn registry(silence_limit: Duration) -> (Joining, Arc<Log>) {
    let log = Arc::new(Log::default());
    let observer: Arc<dyn Observer> = log.clone();
    (Joining { registry: Arc::new(Registry::new(silence_limit)), observer }, log)
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn another_process_waits_while_the_first_is_alive() {
    let (registry, log) = registry(LONG);
    let (first, _) = registry.join(&hello("n", "a")).await.unwrap();
    assert_eq!(registry.join(&hello("n", "b")).await.err(), Some(Refusal::Alive));
    assert!(registry.join(&hello("m", "b")).await.is_ok(), "another node is another node");
    drop(first);
    assert!(registry.join(&hello("n", "b")).await.is_ok());
    assert_eq!(log.lines().first().unwrap(), "a joined");
}

/// Ends as a session does: once a later stream waits.
async fn ends_when_replaced(mut presence: Presence) {
    presence.replaced().await;
    presence.reason = "replaced".to_owned();
}

#[tokio::test]
async fn the_same_process_replaces_itself_and_the_old_one_leaves_first() {
    let (registry, log) = registry(LONG);
    let (first, _) = registry.join(&hello("n", "a")).await.unwrap();
    let epoch = first.epoch();
    tokio::spawn(ends_when_replaced(first));
    let (second, _) = registry.join(&hello("n", "a")).await.unwrap();
    assert!(second.epoch() > epoch);
    assert_eq!(log.lines(), ["a joined", "left: replaced", "a joined"]);
}

#[tokio::test]
async fn another_process_replaces_a_silent_one() {
    let (registry, log) = registry(Duration::ZERO);
    let (first, _) = registry.join(&hello("n", "a")).await.unwrap();
    tokio::spawn(ends_when_replaced(first));
    assert!(registry.join(&hello("n", "b")).await.is_ok());
    assert_eq!(log.lines().get(..3).unwrap(), ["a joined", "left: replaced", "b joined"]);
}

#[tokio::test]
async fn who_is_turned_away_has_not_left_and_takes_no_place() {
    let (registry, log) = registry(LONG);
    for _ in 0..2 {
        assert!(matches!(registry.join(&hello("banned", "a")).await, Err(Refusal::Denied(_))));
    }
    assert_eq!(log.lines(), ["a joined", "a joined"]);
    assert!(registry.registry.lock().is_empty());
}

#[tokio::test]
async fn there_is_a_limit_of_nodes() {
    let (registry, _) = registry(LONG);
    let mut all = Vec::new();
    for at in 0..MOST_NODES {
        all.push(registry.join(&hello(&at.to_string(), "a")).await.unwrap());
    }
    assert_eq!(registry.join(&hello("one-more", "a")).await.err(), Some(Refusal::Full));
    drop(all);
    assert!(registry.join(&hello("one-more", "a")).await.is_ok());
}
