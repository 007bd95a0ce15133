//! The node agent's metrics under attack, in a real process: others are served meanwhile.
#![cfg(test)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fiberlb_daemon::descriptors;
use fiberlb_daemon::testing::{Daemon, Opening, get, open};
use tempfile::TempDir;

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

struct World {
    agent: Daemon,
    started: Instant,
    metrics: SocketAddr,
    _directory: TempDir,
}

impl World {
    /// Starts an agent without a plugin and without Open vSwitch. `files`: its limit of open files.
    async fn start(files: Option<u32>) -> Self {
        // For the attacks.
        descriptors::raise_limit().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let (state, netns) = (file("state"), file("netns"));
        let (plugin, ovs) = (format!("unix:{}", file("plugin.sock")), format!("unix:{}", file("ovs.sock")));
        let arguments = [
            ["--state-dir", &state],
            ["--netns-dir", &netns],
            ["--plugin", &plugin],
            ["--ovs-db", &ovs],
            ["--node-id", "node-1"],
            ["--workers", "1"],
            ["--metrics-listen", "127.0.0.1:0"],
            ["--log-format", "json"],
        ];
        let mut agent = Daemon::start(env!("CARGO_BIN_EXE_fiberlb-proxy"), &arguments.concat(), files);
        let started = Instant::now();
        let metrics = agent.serving("metrics_address").await.parse().unwrap();
        Self { agent, started, metrics, _directory: directory }
    }

    async fn serves(&self) {
        let (status, text) = get(HONEST, self.metrics, "/metrics").await.unwrap();
        assert!(status == 200 && text.contains("fiberlb_proxy_plugin_connected 0"), "{text}");
    }

    async fn serves_during(&self, count: u32, per_second: u32, opening: Opening) -> usize {
        let attack = tokio::spawn(open(count, per_second, opening, ATTACKER, self.metrics));
        while !attack.is_finished() {
            self.serves().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let connections = attack.await.unwrap();
        self.serves().await;
        let share = self.agent.cpu_share(Duration::from_secs(3)).await;
        println!("{share:.3} of a core with {opening:?}");
        assert!(share < 0.05, "{opening:?}: {share} of a core");
        connections.len()
    }

    fn check_log(&self) {
        let (log, seconds) = (self.agent.log(), self.started.elapsed().as_secs() + 1);
        let lines = log.iter().filter(|line| line.contains("\"listener\":\"metrics\"")).count() as u64;
        assert!(lines > 0 && lines <= seconds, "{lines} lines in {seconds} s: {log:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_connects_keeps_nobody_out() {
    let world = World::start(None).await;
    for opening in [Opening::Silent, Opening::HalfPreface, Opening::HalfHello] {
        assert!(world.serves_during(2000, 0, opening).await > 0);
    }
    assert!(world.serves_during(900, 300, Opening::Hello).await > 0);
    world.check_log();
    assert_eq!(world.agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_descriptors_are_kept_for_the_rest_of_the_agent() {
    let world = World::start(Some(256)).await;
    assert!(world.serves_during(400, 0, Opening::Silent).await > 0);
    world.check_log();
    assert_eq!(world.agent.stop().await, Some(0));
}

#[tokio::test]
async fn it_says_what_is_not_ready_yet() {
    let world = World::start(None).await;
    assert_eq!(get(HONEST, world.metrics, "/livez").await.unwrap(), (200, "ok\n".to_owned()));
    let (status, text) = get(HONEST, world.metrics, "/readyz").await.unwrap();
    let line = "configuration: neither the disk nor a plugin has given one yet\n";
    assert!(status == 503 && text.contains(line), "{status} {text}");
}
