//! Open vSwitch for one test, in its world: a real ovsdb-server with its schema, and ovs-vswitchd where a test needs it.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use fiberlb_node::ovs::{Change, DATABASE, Plan, Vswitch};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use ovsdb::client::{Client, Config, Event};
use ovsdb::endpoint::Endpoint;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::world::release;
use crate::world::{LONG, run};

/// Open vSwitch with a bridge `br-int` and a foreign port on it.
pub(crate) struct Switch {
    dir: TempDir,
    daemons: Vec<Child>,
}

impl Switch {
    pub(crate) async fn start() -> Self {
        // The world's own /run, so that nothing is left behind by a test that is killed.
        let dir = tempfile::tempdir_in("/run").unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let schema = release().vswitch_schema();
        run("ovsdb-tool", &["create", &path("conf.db"), schema.to_str().unwrap()]);
        let remote = format!("--remote=punix:{}", path("db.sock"));
        let server = daemon(&dir, "ovsdb-server", &[&path("conf.db"), &remote]);
        let switch = Self { dir, daemons: vec![server] };
        let accepts = async {
            while UnixStream::connect(switch.socket()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, accepts).await.expect("ovsdb-server accepts no connections");
        switch.vsctl(&["init"]);
        switch.vsctl(&["add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"]);
        switch
    }

    /// Starts ovs-vswitchd with the userspace datapath.
    pub(crate) fn start_vswitchd(&mut self) {
        let database = format!("unix:{}", self.socket().display());
        self.daemons.push(daemon(&self.dir, "ovs-vswitchd", &[&database]));
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    /// `ovs-vsctl`, which waits for no ovs-vswitchd.
    pub(crate) fn vsctl(&self, arguments: &[&str]) -> String {
        let database = format!("--db=unix:{}", self.socket().display());
        run("ovs-vsctl", &[&["--no-wait", "--timeout=20", &database], arguments].concat()).trim().to_owned()
    }

    /// Everything in the database but for volatile columns, as text.
    pub(crate) fn dump(&self) -> String {
        let columns = [
            ("Open_vSwitch", "bridges,external_ids"),
            ("Bridge", "_uuid,name,ports,external_ids"),
            ("Port", "_uuid,name,interfaces,external_ids"),
            ("Interface", "_uuid,name,type,external_ids"),
        ];
        let table =
            |(table, columns)| self.vsctl(&["--format=csv", &format!("--columns={columns}"), "list", table]);
        columns.map(table).concat()
    }

    pub(crate) async fn connect(&self) -> (Client<Vswitch>, Events) {
        let endpoints = vec![Endpoint::Unix(self.socket())];
        let (client, mut events) =
            Client::start(Config { endpoints, ..Config::new(DATABASE) }, Vswitch::new());
        let first = timeout(LONG, events.recv()).await.expect("no reload").unwrap();
        assert!(matches!(first, Event::Reloaded(_)));
        (client, events)
    }
}

pub(crate) type Events = UnboundedReceiver<Event<Change>>;

impl Drop for Switch {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            // It may be dead already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Starts a daemon that dies with this thread, also when the test is killed.
#[expect(unsafe_code, reason = "the hook of a child before its program begins")]
fn daemon(dir: &TempDir, program: &str, arguments: &[&str]) -> Child {
    let path = |name: String| dir.path().join(name).display().to_string();
    let mut command = release().command(program);
    command
        .args(arguments)
        .arg(format!("--unixctl={}", path(format!("{program}.ctl"))))
        .arg(format!("--log-file={}", path(format!("{program}.log"))))
        .arg("-vconsole:off")
        .env("OVS_RUNDIR", dir.path())
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: prctl is a plain system call, allowed between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    command.spawn().unwrap()
}

/// Makes a plan, in which nothing is refused, and carries it out.
pub(crate) async fn apply(client: &Client<Vswitch>, make: impl FnOnce(&Vswitch) -> Plan) {
    // The replica is read-locked no longer than that: the client must be able to write to it.
    let plan = make(&client.read());
    assert_eq!(plan.refused, []);
    client.transact(plan.operations).await.unwrap();
}

/// Waits until the replica is as it should be.
pub(crate) async fn replica(
    client: &Client<Vswitch>,
    events: &mut Events,
    what: &str,
    holds: impl Fn(&Vswitch) -> bool,
) {
    let waited = timeout(LONG, async {
        while !holds(&client.read()) {
            events.recv().await.expect("the client ended");
        }
    });
    assert!(waited.await.is_ok(), "not seen: {what}");
}
