//! The site under test: a real ovsdb-server with two networks, and plugins on it, on a store of their own or on etcd.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fiberlb_lab::plugin::{Plugin, free_address};
use fiberlb_ovn_testing::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;
use crate::client::Failure;
use crate::model::{MOST_BACKENDS, MOST_LISTENERS, MOST_PAGE, MOST_POOLS, MOST_TAGS, Network};

/// Far above what anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// No plugin.
const NONE: usize = usize::MAX;

/// Clients' way to the plugins.
pub(crate) struct Plugins {
    apis: Vec<Api>,
    /// The one that is down.
    down: AtomicUsize,
}

impl Plugins {
    pub(crate) fn count(&self) -> usize {
        self.apis.len()
    }

    pub(crate) fn api(&self, index: usize) -> &Api {
        &self.apis[index]
    }

    pub(crate) fn is_down(&self, index: usize) -> bool {
        self.down.load(Ordering::Relaxed) == index
    }
}

/// All of it.
pub(crate) struct Site {
    pub(crate) northbound: Server,
    pub(crate) networks: Vec<Network>,
    pub(crate) plugins: Arc<Plugins>,
    processes: Vec<Plugin>,
    _etcd: Option<Etcd>,
    folder: TempDir,
}

impl Site {
    /// Starts so many plugins; several are on an etcd.
    pub(crate) async fn start(plugins: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let northbound = Server::start().await;
        let networks = networks(&northbound);
        let etcd = match plugins {
            1 => None,
            _ => Some(Etcd::start(folder.path()).await),
        };
        let limits = folder.path().join("plugin.toml");
        let text = format!(
            "[limits]\nlisteners_per_load_balancer = {MOST_LISTENERS}\npools_per_load_balancer = {MOST_POOLS}\n\
             backends_per_pool = {MOST_BACKENDS}\ntags = {MOST_TAGS}\ndefault_page = 5\nmax_page = {MOST_PAGE}\n"
        );
        std::fs::write(&limits, text).unwrap();
        let store = etcd.as_ref().map(|etcd| format!("chainfire://{}", etcd.client)).unwrap_or_default();
        let mut more = vec!["--config", limits.to_str().unwrap(), "--log", "info"];
        if etcd.is_some() {
            more.extend(["--store", &store, "--agents-listen", "off"]);
        }
        let binary = Plugin::binary().unwrap();
        let mut processes = Vec::new();
        for index in 0..plugins {
            let folder = folder.path().join(format!("plugin{index}"));
            std::fs::create_dir_all(&folder).unwrap();
            let endpoint = northbound.unix().to_string();
            processes.push(Plugin::start(&binary, &folder, &endpoint, &more).await.unwrap());
        }
        let apis = processes.iter().map(|plugin| Api::new(plugin.channel().unwrap())).collect();
        let plugins = Arc::new(Plugins { apis, down: AtomicUsize::new(NONE) });
        let site = Self { northbound, networks, plugins, processes, _etcd: etcd, folder };
        for plugin in &site.processes {
            connected(plugin).await;
        }
        site
    }

    /// Kills a plugin (SIGKILL).
    pub(crate) fn kill(&mut self, index: usize) {
        self.plugins.down.store(index, Ordering::Relaxed);
        self.processes[index].kill().unwrap();
    }

    /// Starts a killed one again.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.processes[index].start_again().await.unwrap();
        connected(&self.processes[index]).await;
        self.plugins.down.store(NONE, Ordering::Relaxed);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in 0..self.processes.len() {
                let log = self.folder.path().join(format!("plugin{index}/plugin.log"));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let telling = log.lines().rev().filter(|line| !line.contains("audit")).take(10);
                eprintln!(
                    "the end of plugin {index}'s log, newest first:\n{}",
                    telling.collect::<Vec<_>>().join("\n")
                );
            }
        }
    }
}

/// Names are looked up in the northbound database.
async fn connected(plugin: &Plugin) {
    until("the northbound database", async || {
        let connected = plugin.metric("fiberlb_northbound_connected").await;
        connected
            .is_ok_and(|connected| connected > 0.5)
            .then_some(())
            .ok_or_else(|| "not connected".to_owned())
    })
    .await
    .unwrap();
}

/// Asks again and again until all is well.
///
/// # Errors
/// The last reason.
pub(crate) async fn until<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(why) if began.elapsed() > PATIENCE => {
                return Err(format!("waited {PATIENCE:?} for {what}: {why}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Two networks, one of both address families.
fn networks(northbound: &Server) -> Vec<Network> {
    let switch = |name: &str, config: Value| json!({"op": "insert", "table": "Logical_Switch", "row": {"name": name, "other_config": ["map", config]}});
    let made = northbound.foreign(&[
        json!({"op": "insert", "table": "NB_Global", "row": {}}),
        switch("sw0", json!([["subnet", "10.1.0.0/16"]])),
        switch("sw1", json!([["subnet", "10.2.0.0/16"], ["ipv6_prefix", "fd02::"]])),
    ]);
    let id = |index: usize| made[index]["uuid"][1].as_str().unwrap().to_owned();
    vec![
        Network { name: "sw0", id: id(1), prefix: "10.1.", has_v6: false },
        Network { name: "sw1", id: id(2), prefix: "10.2.", has_v6: true },
    ]
}

/// One member of etcd on loopback.
struct Etcd {
    child: Child,
    /// `host:port` for clients.
    client: String,
}

impl Etcd {
    async fn start(folder: &Path) -> Self {
        let (client, peer) =
            (free_address().unwrap().to_string(), format!("http://{}", free_address().unwrap()));
        let url = format!("http://{client}");
        // With the signal nothing is left behind when a test is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "etcd", "--name", "m0", "--data-dir"])
            .arg(folder.join("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("m0={peer}"), "--logger", "zap", "--log-level", "error"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let etcd = Self { child, client };
        until("etcd to take writes", async || {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args([
                "--endpoints",
                &etcd.client,
                "--command-timeout",
                "2s",
                "put",
                "/x",
                "",
            ]);
            let output = command.output().map_err(|error| error.to_string())?;
            output
                .status
                .success()
                .then_some(())
                .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
        })
        .await
        .unwrap();
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
