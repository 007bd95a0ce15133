//! A chassis: a world with an Open_vSwitch database, and the agent's process.

use std::process::{Child, Command, Stdio};

use fiberlb_ovn_release::Release;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use uuid::Uuid;

use crate::plugin::{Plugin, Session};
use crate::world::{World, eventually};

pub(crate) const INSTALLATION: Uuid = Uuid::from_u128(0x1157a11a_7000_4000_8000_000000000001);

/// A world with an Open_vSwitch database, a bridge `br-int`, and a plugin that the test plays.
pub(crate) struct Chassis {
    pub(crate) world: World,
    pub(crate) plugin: Plugin,
    ovsdb: Child,
}

/// The agent's process; it is killed with this value.
pub(crate) struct Agent(Child);

impl Chassis {
    pub(crate) async fn new() -> Self {
        let world = World::new();
        let (database, socket) = (world.file("conf.db"), world.file("db.sock"));
        let schema = Release::chosen().unwrap().vswitch_schema();
        world.run(&format!("ovsdb-tool create {} {}", database.display(), schema.display()));
        let ovsdb = database_server(&world);
        eventually("ovsdb-server listens", || socket.exists()).await;
        let plugin = Plugin::start(&world.file("agents.sock"));
        let chassis = Self { world, plugin, ovsdb };
        chassis.vsctl("init");
        chassis.vsctl("set open_vswitch . external_ids:system-id=chassis-1");
        chassis.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev");
        chassis
    }

    /// Runs ovs-vsctl, which does not wait for ovs-vswitchd: there is none.
    pub(crate) fn vsctl(&self, arguments: &str) -> String {
        let db = self.world.file("db.sock");
        self.world.run(&format!("ovs-vsctl --no-wait --db=unix:{} {arguments}", db.display()))
    }

    /// SIGKILL for the database's server.
    pub(crate) fn kill_database(&mut self) {
        self.ovsdb.kill().unwrap();
        self.ovsdb.wait().unwrap();
        std::fs::remove_file(self.world.file("db.sock")).unwrap();
    }

    /// Starts a killed one again.
    pub(crate) async fn start_database(&mut self) {
        self.ovsdb = database_server(&self.world);
        let socket = self.world.file("db.sock");
        eventually("ovsdb-server listens", || socket.exists()).await;
    }

    /// Names of the ports on br-int, sorted.
    pub(crate) fn ports(&self) -> Vec<String> {
        let mut ports: Vec<String> = self.vsctl("list-ports br-int").lines().map(str::to_owned).collect();
        ports.sort();
        ports
    }

    /// `iface-id` of each interface that has one.
    pub(crate) fn iface_ids(&self) -> Vec<String> {
        let text = self.vsctl("--format=json --columns=external_ids list interface");
        let table: Value = serde_json::from_str(&text).unwrap();
        let rows = table["data"].as_array().unwrap().iter();
        let pairs = rows.flat_map(|row| row[0][1].as_array().unwrap().clone());
        let ids = pairs.filter(|pair| pair[0] == "iface-id").map(|pair| pair[1].as_str().unwrap().to_owned());
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids
    }

    /// Starts the agent.
    pub(crate) fn agent(&self) -> Agent {
        let log = std::fs::File::options().create(true).append(true).open(self.world.file("log")).unwrap();
        Agent(self.command().stderr(log).spawn().unwrap())
    }

    /// The agent's command, with all its settings.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.world.command(env!("CARGO_BIN_EXE_fiberlb-proxy"));
        self.settings(&mut command);
        command
    }

    pub(crate) fn settings(&self, command: &mut Command) {
        let unix = |name: &str| format!("unix:{}", self.world.file(name).display());
        command
            .args(["--node-id", "node-1", "--workers", "1", "--drain-timeout", "1"])
            .args(["--metrics-listen", "127.0.0.1:9632"])
            .args(["--plugin", &unix("agents.sock"), "--ovs-db", &unix("db.sock")])
            .args(["--netns-dir", "/run/netns", "--log", "info,fiberlb_proxy=debug"])
            .arg("--state-dir")
            .arg(self.world.file("state"));
        let file = self.world.file("proxy.toml");
        if file.exists() {
            command.arg("--config").arg(file);
        }
    }

    /// Waits until the agent has something on disk: from then on a crash loses nothing.
    pub(crate) async fn remembers(&self, id: Uuid) {
        let (file, id) = (self.world.file("state/configuration"), id.to_string());
        let has = |bytes: Vec<u8>| bytes.windows(id.len()).any(|part| part == id.as_bytes());
        eventually("it is on disk", || std::fs::read(&file).is_ok_and(has)).await;
    }

    /// Log of the agent.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.world.file("log")).unwrap_or_default()
    }

    /// Starts the agent, and takes it in.
    pub(crate) async fn joined(&self) -> (Agent, Session) {
        let agent = self.agent();
        let session = self.plugin.welcomed(INSTALLATION).await;
        (agent, session)
    }
}

fn database_server(world: &World) -> Child {
    world
        .command("ovsdb-server")
        .arg(world.file("conf.db"))
        .arg(format!("--remote=punix:{}", world.file("db.sock").display()))
        .arg(format!("--unixctl={}", world.file("ctl").display()))
        .arg("-vconsole:off")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Chassis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.log());
        }
        let _ = self.ovsdb.kill();
        let _ = self.ovsdb.wait();
    }
}

impl Agent {
    /// Ends it as an operator does, and waits until it has.
    pub(crate) async fn stop(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        let mut status = None;
        eventually("the agent ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success());
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
