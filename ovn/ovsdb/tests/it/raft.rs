//! A northbound database as a raft cluster of real ovsdb-servers, each in a directory of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ovsdb::client::Config;
use ovsdb::endpoint::Endpoint;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use fiberlb_ovn_testing::{LONG, config, release, run, transaction};

const DATABASE: &str = "OVN_Northbound";

/// One server of a cluster; it dies with this value.
struct Member {
    dir: TempDir,
    /// `None` while it is killed.
    child: Option<Child>,
}

/// The servers of a cluster, numbered from 0.
pub(crate) struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    /// So many members, all of which have joined.
    pub(crate) async fn start(count: usize) -> Self {
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

    /// Starts a killed member; it is in touch with the cluster when this returns.
    pub(crate) async fn start_again(&mut self, number: usize) {
        self.launch(number);
        self.joined(number).await;
    }

    /// Starts a killed member, and does not wait for anything.
    pub(crate) fn launch(&mut self, number: usize) {
        let member = &mut self.members[number];
        // What a killed server leaves behind would look like the new one.
        let _ = std::fs::remove_file(member.path("nb.sock"));
        member.child = Some(member.spawn());
    }

    /// Waits until a member is in touch with the cluster.
    pub(crate) async fn joined(&self, number: usize) {
        self.until(&format!("member {number} in the cluster"), || {
            let member = &self.members[number];
            let is_member = member.says("Status:")? == "cluster member";
            (is_member && member.says("Leader:")? != "unknown").then_some(())
        })
        .await;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by its name, `STOP` or `CONT`.
    pub(crate) fn signal(&self, number: usize, name: &str) {
        let child = self.members[number].child.as_ref().expect("the member runs");
        run(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()));
    }

    /// Makes a member forget the transactions that led to what it holds.
    pub(crate) async fn compact(&self, number: usize) {
        let member = &self.members[number];
        let before = member.says("Log:").unwrap();
        run(member.control().args(["--timeout=20", "ovsdb-server/compact", DATABASE]));
        // It answers before it is done.
        self.until("a compacted log", || member.says("Log:").filter(|log| *log != before)).await;
    }

    /// Which member leads. One that is frozen cannot be asked, and does not count.
    pub(crate) async fn leader(&self, frozen: Option<usize>) -> usize {
        self.until("a leader", || {
            let asked = (0..self.members.len()).filter(|number| Some(*number) != frozen);
            asked
                .into_iter()
                .find(|number| self.members[*number].says("Role:").is_some_and(|role| role == "leader"))
        })
        .await
    }

    /// The members that do not lead.
    pub(crate) async fn followers(&self) -> Vec<usize> {
        let leader = self.leader(None).await;
        (0..self.members.len()).filter(|number| *number != leader).collect()
    }

    pub(crate) fn endpoint(&self, number: usize) -> Endpoint {
        Endpoint::Unix(self.members[number].path("nb.sock"))
    }

    /// A client's configuration with all members.
    pub(crate) fn config(&self) -> Config {
        let endpoints = (0..self.members.len()).map(|number| self.endpoint(number)).collect();
        Config { endpoints, ..config(self.endpoint(0)) }
    }

    /// A member's database file.
    pub(crate) fn file(&self, number: usize) -> PathBuf {
        self.members[number].path("nb.db")
    }

    /// A transaction by someone else, through OVS's own client.
    pub(crate) async fn foreign(&self, operations: &[Value]) -> Value {
        let leader = self.members[self.leader(None).await].remote();
        let text = run(release()
            .command("ovsdb-client")
            .args(["--timeout=20", "transact"])
            .arg(leader)
            .arg(transaction(operations)));
        assert!(!text.contains("\"error\""), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Whole rows of a table, as OVS's own client sees them.
    pub(crate) async fn rows(&self, table: &str) -> Vec<Value> {
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

    /// What it says of its place in the cluster under this heading.
    fn says(&self, heading: &str) -> Option<String> {
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
