//! Raft cluster of real ovsdb-servers, each in a directory of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ovsdb::client::Config;
use ovsdb::endpoint::Endpoint;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::client::config;
use crate::program::{DATABASE, LONG, release, run, transaction};

/// One server of a cluster; it dies with this value.
struct Member {
    dir: TempDir,
    /// `None` while it is killed.
    child: Option<Child>,
}

/// The servers of a cluster, numbered from 0.
pub struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    /// Starts `count` members; all of them have joined when this returns.
    pub async fn start(count: usize) -> Self {
        let mut cluster = Self { members: Vec::new() };
        for number in 0..count {
            let member = Member { dir: tempfile::tempdir().unwrap(), child: None };
            let mut tool = release().command("ovsdb-tool");
            match cluster.members.first() {
                None => tool
                    .arg("create-cluster")
                    .arg(member.path("nb.db"))
                    .arg(release().northbound_schema())
                    .arg(member.raft()),
                Some(first) => tool
                    .arg("join-cluster")
                    .arg(member.path("nb.db"))
                    .arg(DATABASE)
                    .arg(member.raft())
                    .arg(first.raft()),
            };
            run(&mut tool);
            cluster.members.push(member);
            cluster.start_again(number).await;
        }
        cluster
    }

    /// Starts a killed member; it has joined when this returns.
    pub async fn start_again(&mut self, number: usize) {
        self.launch(number);
        self.joined(number).await;
    }

    /// Starts a killed member without waiting.
    pub fn launch(&mut self, number: usize) {
        let member = &mut self.members[number];
        // What a killed server leaves behind would look like the new one.
        let _ = std::fs::remove_file(member.path("nb.sock"));
        member.child = Some(member.spawn());
    }

    /// Waits until a member has joined.
    pub async fn joined(&self, number: usize) {
        self.until(&format!("member {number} in the cluster"), || {
            let member = &self.members[number];
            let is_member = member.status("Status:")? == "cluster member";
            (is_member && member.status("Leader:")? != "unknown").then_some(())
        })
        .await;
    }

    /// Kills a member (SIGKILL).
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by its name, `STOP` or `CONT`.
    pub fn signal(&self, number: usize, name: &str) {
        let child = self.members[number].child.as_ref().expect("the member runs");
        run(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()));
    }

    /// Compacts the log of a member, so that it can no longer send deltas.
    pub async fn compact(&self, number: usize) {
        let member = &self.members[number];
        let before = member.status("Log:").unwrap();
        run(member.control().args(["--timeout=20", "ovsdb-server/compact", DATABASE]));
        // It answers before it is done.
        self.until("a compacted log", || member.status("Log:").filter(|log| *log != before)).await;
    }

    /// Waits for the leader. A frozen member is not asked.
    pub async fn leader(&self, frozen: Option<usize>) -> usize {
        self.until("a leader", || {
            let asked = (0..self.members.len()).filter(|number| Some(*number) != frozen);
            asked
                .into_iter()
                .find(|number| self.members[*number].status("Role:").is_some_and(|role| role == "leader"))
        })
        .await
    }

    /// Followers.
    pub async fn followers(&self) -> Vec<usize> {
        let leader = self.leader(None).await;
        (0..self.members.len()).filter(|number| *number != leader).collect()
    }

    /// Endpoint of a member's unix socket.
    pub fn endpoint(&self, number: usize) -> Endpoint {
        Endpoint::Unix(self.members[number].path("nb.sock"))
    }

    /// Configuration of a client, with all members.
    pub fn config(&self) -> Config {
        let endpoints = (0..self.members.len()).map(|number| self.endpoint(number)).collect();
        Config { endpoints, ..config(self.endpoint(0)) }
    }

    /// Database file of a member.
    pub fn file(&self, number: usize) -> PathBuf {
        self.members[number].path("nb.db")
    }

    /// Carries out a transaction through OVS's own client.
    pub async fn foreign(&self, operations: &[Value]) -> Value {
        let leader = self.members[self.leader(None).await].remote();
        let text = run(release()
            .command("ovsdb-client")
            .args(["--timeout=20", "transact"])
            .arg(leader)
            .arg(transaction(operations)));
        assert!(!text.contains("\"error\""), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Reads whole rows of a table through OVS's own client.
    pub async fn rows(&self, table: &str) -> Vec<Value> {
        let select = json!({"op": "select", "table": table, "where": []});
        self.foreign(&[select]).await[0]["rows"].as_array().unwrap().clone()
    }

    async fn until<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < end, "not seen: {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Member {
    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.path("nb.sock").display())
    }

    fn raft(&self) -> String {
        format!("unix:{}", self.path("raft").display())
    }

    fn spawn(&self) -> Child {
        release()
            .command("ovsdb-server")
            .arg(self.path("nb.db"))
            .arg(format!("--remote=p{}", self.remote()))
            .arg(format!("--unixctl={}", self.path("ctl").display()))
            .arg(format!("--log-file={}", self.path("log").display()))
            .arg("-vconsole:off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ovsdb-server can be started")
    }

    /// Value of a heading of `cluster/status`.
    fn status(&self, heading: &str) -> Option<String> {
        self.child.as_ref()?;
        let output = self.control().args(["--timeout=2", "cluster/status", DATABASE]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().find_map(|line| line.strip_prefix(heading)).map(|rest| rest.trim().to_owned())
    }

    fn control(&self) -> Command {
        let mut command = release().command("ovs-appctl");
        command.arg(format!("--target={}", self.path("ctl").display()));
        command
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
