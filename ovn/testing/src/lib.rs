//! Support of the tests of the OVN crates: a real ovsdb-server with the northbound schema in a directory of its own, and
//! a client of it. A failure panics, as it does in a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::missing_panics_doc)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fiberlb_northbound::{Change, Northbound};
use fiberlb_ovn_release::Release;
use ovsdb::client::{Client, Config, ConnectionStatus, Event};
use ovsdb::endpoint::Endpoint;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use uuid::Uuid;

/// Key in `external_ids` that names a row's owner in these tests.
pub const OWNER_KEY: &str = "fiberlb:owner";

/// Nothing here takes longer, unless it never comes.
pub const LONG: Duration = Duration::from_secs(20);

/// The release whose programs the tests run.
pub fn release() -> &'static Release {
    Release::chosen().unwrap()
}

/// Events of a client.
pub type Events = UnboundedReceiver<Event<Change>>;

/// A real ovsdb-server with OVN's northbound schema; it dies with this value.
pub struct Server {
    dir: TempDir,
    child: Child,
    /// What else it is started with: where it listens on the network.
    arguments: Vec<String>,
}

impl Server {
    /// Starts one that listens on a unix socket and on TCP.
    pub async fn start() -> Self {
        Self::start_with(vec!["--remote=ptcp:0:127.0.0.1".to_owned()]).await
    }

    /// Starts one that listens on a unix socket, with further arguments.
    pub async fn start_with(arguments: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(release()
            .command("ovsdb-tool")
            .arg("create")
            .arg(database(dir.path()))
            .arg(release().northbound_schema()));
        let child = spawn(dir.path(), &arguments);
        let server = Self { dir, child, arguments };
        server.ready().await;
        server
    }

    /// Waits until it accepts connections, and has said on which port.
    async fn ready(&self) {
        let accepts = async {
            while UnixStream::connect(socket(self.dir.path())).await.is_err() || self.said_port().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, accepts).await.expect("ovsdb-server accepts no connections");
    }

    /// Endpoint of its unix socket.
    pub fn unix(&self) -> Endpoint {
        Endpoint::Unix(socket(self.dir.path()))
    }

    /// Its TCP endpoint.
    pub fn tcp(&self) -> Endpoint {
        Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: self.port() }
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.said_port().unwrap()
    }

    /// The server chose its port and tells it in its log.
    fn said_port(&self) -> Option<u16> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).ok()?;
        let port = log.lines().find_map(|line| line.split_once("listening on port "))?.1;
        port.trim().parse().ok()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a killed one again, on the same database and socket.
    pub async fn start_again(&mut self) {
        // What a killed server leaves behind would look like the new one.
        std::fs::remove_file(socket(self.dir.path())).unwrap();
        self.child = spawn(self.dir.path(), &self.arguments);
        self.ready().await;
    }

    /// Starts a killed one again, on the network port that it had.
    pub async fn start_again_on(&mut self, port: u16) {
        for argument in &mut self.arguments {
            *argument = argument.replace(":0:", &format!(":{port}:"));
        }
        self.start_again().await;
    }

    /// Sends a signal by its name, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()));
    }

    /// A transaction by someone else, through OVS's own client.
    pub fn foreign(&self, operations: &[Value]) -> Value {
        let endpoint = format!("unix:{}", socket(self.dir.path()).display());
        let text =
            run(release().command("ovsdb-client").arg("transact").arg(endpoint).arg(transaction(operations)));
        let results: Value = serde_json::from_str(&text).unwrap();
        assert!(!text.contains("\"error\""), "{text}");
        results
    }

    /// Converts the database to a schema that differs by its version.
    pub fn convert(&self, version: &str) {
        let mut schema: Value =
            serde_json::from_str(&std::fs::read_to_string(release().northbound_schema()).unwrap()).unwrap();
        schema["version"] = version.into();
        // It is checked only by OVN's own build.
        schema.as_object_mut().unwrap().remove("cksum");
        let file = self.dir.path().join("schema");
        std::fs::write(&file, schema.to_string()).unwrap();
        let endpoint = format!("unix:{}", socket(self.dir.path()).display());
        run(release().command("ovsdb-client").arg("convert").arg(endpoint).arg(file));
    }

    /// A transaction on the file of a server that does not run.
    pub fn offline(&self, operations: &[Value]) {
        run(release()
            .command("ovsdb-tool")
            .arg("transact")
            .arg(database(self.dir.path()))
            .arg(transaction(operations)));
    }

    /// Whole rows of a table, as OVS's own client sees them.
    pub fn rows(&self, table: &str, conditions: &Value) -> Vec<Value> {
        let select = json!({"op": "select", "table": table, "where": conditions});
        self.foreign(&[select])[0]["rows"].as_array().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("nb.db")
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("nb.sock")
}

/// Parameters of a `transact` request on the northbound database.
pub fn transaction(operations: &[Value]) -> String {
    let head = [json!("OVN_Northbound")];
    Value::Array(head.iter().chain(operations).cloned().collect()).to_string()
}

fn spawn(dir: &Path, arguments: &[String]) -> Child {
    release()
        .command("ovsdb-server")
        .arg(database(dir))
        .arg(format!("--remote=punix:{}", socket(dir).display()))
        .args(arguments)
        .arg(format!("--unixctl={}", dir.join("ctl").display()))
        .arg(format!("--log-file={}", dir.join("log").display()))
        .arg("-vconsole:off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ovsdb-server can be started")
}

/// Standard output of a program that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Defaults with a fast reconnect.
pub fn config(endpoint: Endpoint) -> Config {
    Config {
        endpoints: vec![endpoint],
        backoff_least: Duration::from_millis(20),
        backoff_most: Duration::from_millis(50),
        ..Config::new("OVN_Northbound")
    }
}

/// A client that is live, with its first events taken.
pub async fn connect(config: Config) -> (Client<Northbound>, Events) {
    let (client, mut events) = Client::start(config, Northbound::new(OWNER_KEY));
    reloaded(&mut events).await;
    (client, events)
}

/// The changes of the next reload; events before it are passed over.
pub async fn reloaded(events: &mut Events) -> Vec<Change> {
    loop {
        match timeout(LONG, events.recv()).await.expect("no reload").expect("the client ended") {
            Event::Reloaded(changes) => return changes,
            Event::Changed(_) | Event::Disconnected => {}
        }
    }
}

/// Waits for a connection status.
pub async fn status(client: &Client<Northbound>, what: &str, holds: impl Fn(&ConnectionStatus) -> bool) {
    let mut status = client.status();
    let waited = timeout(LONG, status.wait_for(|status| holds(status))).await.is_ok();
    assert!(waited, "not seen: {what}; the status is: {}", *client.status().borrow());
}

/// Waits until the replica is as it should be.
pub async fn replica(
    client: &Client<Northbound>,
    events: &mut Events,
    what: &str,
    holds: impl Fn(&Northbound) -> bool,
) {
    let waited = timeout(LONG, async {
        while !holds(&client.read()) {
            events.recv().await.expect("the client ended");
        }
    });
    assert!(waited.await.is_ok(), "not seen: {what}");
}

/// Columns of a load balancer with an owner.
pub fn owned(name: &str, owner: &str) -> Map<String, Value> {
    let row = json!({"name": name, "external_ids": ["map", [[OWNER_KEY, owner]]]});
    row.as_object().unwrap().clone()
}

/// The condition that picks one row.
pub fn row(uuid: Uuid) -> Value {
    json!([["_uuid", "==", ["uuid", uuid]]])
}
