//! An etcd of three members on loopback, with the settings that etcd has by default.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::database::{Process, until};

/// Members of the cluster.
const MEMBERS: usize = 3;

/// A cluster that ends with this.
pub(super) struct Etcd {
    members: Vec<Member>,
}

struct Member {
    process: Process,
    /// `host:port` for clients.
    client: String,
}

impl Etcd {
    /// Starts it with its data below `dir`, and waits until it takes writes.
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let ports = (0..MEMBERS).map(|_| Ok((free_address()?, free_address()?)));
        let ports = ports.collect::<anyhow::Result<Vec<_>>>()?;
        let peers: Vec<String> =
            (0..).zip(&ports).map(|(index, (_, peer))| format!("m{index}=http://{peer}")).collect();
        let peers = peers.join(",");
        let mut members = Vec::new();
        for (index, (client, peer)) in ports.into_iter().enumerate() {
            let process = spawn(&dir.join(format!("etcd{index}")), index, &client, &peer, &peers)?;
            members.push(Member { process: Process(process), client });
        }
        let etcd = Self { members };
        until("etcd to take writes", || async { Ok(etcd.ctl(&["put", "/bench", ""]).is_ok()) }).await?;
        Ok(etcd)
    }

    /// Value of a plugin's `--store` for this cluster.
    pub(super) fn store(&self) -> String {
        format!("chainfire://{}", self.endpoints())
    }

    /// CPU time that all members have used.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        self.members.iter().map(|member| fiberlb_lab::cpu(member.process.0.id())).sum()
    }

    /// The cluster's revision: each transaction that changes something makes one.
    pub(super) fn revision(&self) -> anyhow::Result<f64> {
        let answer = self.ctl(&["get", "/bench", "-w", "fields"])?;
        let revision = answer.lines().find_map(|line| line.strip_prefix("\"Revision\" : "));
        Ok(revision.context("etcdctl tells no revision")?.trim().parse()?)
    }

    fn endpoints(&self) -> String {
        let clients: Vec<&str> = self.members.iter().map(|member| member.client.as_str()).collect();
        clients.join(",")
    }

    fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints()]);
        command.args(["--command-timeout", "2s"]).args(arguments).stderr(Stdio::null());
        let output = command.output().context("etcdctl is not installed: run `make packages`")?;
        ensure!(output.status.success(), "etcdctl {arguments:?} fails");
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn spawn(
    dir: &Path,
    index: usize,
    client: &str,
    peer: &str,
    peers: &str,
) -> anyhow::Result<std::process::Child> {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    std::fs::create_dir_all(dir)?;
    let log = std::fs::File::create(dir.join("log"))?;
    // With the signal nothing is left behind when this program is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "etcd", "--name", &format!("m{index}")]);
    command.arg("--data-dir").arg(dir.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", peers, "--logger", "zap", "--log-level", "warn"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    child.context("cannot start etcd: run `make packages`")
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
