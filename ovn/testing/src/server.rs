//! One real ovsdb-server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ovsdb::endpoint::Endpoint;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::program::{LONG, release, run, transaction};

/// Real ovsdb-server with OVN's northbound schema, killed on drop.
pub struct Server {
    dir: TempDir,
    child: Child,
    /// Further arguments, such as network endpoints.
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server that listens on a unix socket and on TCP.
    pub async fn start() -> Self {
        Self::start_with(vec!["--remote=ptcp:0:127.0.0.1".to_owned()]).await
    }

    /// Starts a server that listens on a unix socket, with further arguments.
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

    /// Waits until it accepts connections, and has logged its port.
    async fn ready(&self) {
        let accepts = async {
            while UnixStream::connect(socket(self.dir.path())).await.is_err() || self.logged_port().is_none()
            {
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
        self.logged_port().unwrap()
    }

    /// TCP port, which the server chooses and logs.
    fn logged_port(&self) -> Option<u16> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).ok()?;
        let port = log.lines().find_map(|line| line.split_once("listening on port "))?.1;
        port.trim().parse().ok()
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Restarts a killed server, on the same database and socket.
    pub async fn start_again(&mut self) {
        // What a killed server leaves behind would look like the new one.
        std::fs::remove_file(socket(self.dir.path())).unwrap();
        self.child = spawn(self.dir.path(), &self.arguments);
        self.ready().await;
    }

    /// Restarts a killed server on a given network port.
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

    /// Carries out a transaction through OVS's own client.
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

    /// Carries out a transaction on the file of a killed server.
    pub fn offline(&self, operations: &[Value]) {
        run(release()
            .command("ovsdb-tool")
            .arg("transact")
            .arg(database(self.dir.path()))
            .arg(transaction(operations)));
    }

    /// Reads whole rows of a table through OVS's own client.
    pub fn rows(&self, table: &str, conditions: &Value) -> Vec<Value> {
        let select = json!({"op": "select", "table": table, "where": conditions});
        self.foreign(&[select])[0]["rows"].as_array().unwrap().clone()
    }

    /// Counts rows of a table through OVS's own client.
    pub fn count(&self, table: &str, conditions: &Value) -> usize {
        let select = json!({"op": "select", "table": table, "where": conditions, "columns": ["_uuid"]});
        self.foreign(&[select])[0]["rows"].as_array().unwrap().len()
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
