//! The node agent in a real process: its metrics under attack, while others are served; what a service manager sees of it.
#![cfg(test)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fiberlb_daemon::descriptors;
use fiberlb_daemon::testing::{Daemon, NotifySocket, Opening, get, open};
use tempfile::TempDir;

const AGENT: &str = env!("CARGO_BIN_EXE_fiberlb-proxy");
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
        let mut agent = Daemon::start(AGENT, &arguments.concat(), files);
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

fn configuration(directory: &Path, more: &str) -> PathBuf {
    let path = directory.join("proxy.toml");
    let here = directory.display();
    let text = format!(
        "node.id = \"node-1\"\nmetrics.listen = \"127.0.0.1:0\"\nstate.dir = \"{here}/state\"\n\
         network.netns_dir = \"{here}/netns\"\nnetwork.ovs_db = \"unix:{here}/ovs.sock\"\n{more}"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn systemd_sees_it_ready_alive_and_stopping() {
    let (directory, manager) = (tempfile::tempdir().unwrap(), NotifySocket::bind());
    configuration(
        directory.path(),
        &format!("plugin.endpoints = [\"unix:{}/p\"]\n", directory.path().display()),
    );
    let variables = manager.variables(Duration::from_millis(300));
    let [socket, watchdog] = variables.each_ref().map(String::as_str);
    let folder = format!("CONFIGURATION_DIRECTORY={}", directory.path().display());
    let agent = Daemon::start("env", &[socket, watchdog, &folder, AGENT], None);
    assert!(manager.notified("READY=1").await.contains("STATUS=node node-1; metrics on 127.0.0.1:"));
    manager.notified("WATCHDOG=1").await;
    manager.notified("WATCHDOG=1").await;
    assert_eq!(agent.stop().await, Some(0));
    assert!(manager.notified("STOPPING=1").await.contains("WATCHDOG_USEC=0"));
    assert_eq!(manager.rest().await, [""; 0], "another beat would arm the watchdog again");
}

#[test]
fn a_check_names_each_fault_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    let more = format!(
        "dataplane.workers = 0\n[plugin]\nendpoints = [\"https://plugin:9633\"]\ntls_ca = \"{here}/ca.pem\"\n\
         tls_certificate = \"{here}/node.pem\"\ntls_key = \"{here}/node.key\"\n"
    );
    for (more, status, words) in [
        ("", 0, &["the configuration is good"][..]),
        (&more, 1, &["dataplane.workers is 0", "plugin.tls_*: cannot read", "ca.pem", "node.pem"]),
    ] {
        let configuration = configuration(directory.path(), more);
        let checked = Command::new(AGENT).arg("check").arg("--config").arg(configuration).output().unwrap();
        let text = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
        assert_eq!(checked.status.code(), Some(status), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert!(!directory.path().join("state").exists());
}
