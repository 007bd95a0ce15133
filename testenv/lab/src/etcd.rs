//! A cluster of Debian's etcd in the lab, which serves as ChainFire: each member on a host of its own, so that it can be
//! killed, frozen, cut off and started again on the data that it left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::host::Host;
use crate::lab::Lab;
use crate::process::{Process, Program};
use crate::run::{COMMAND_LIMIT, run};

/// Port for clients.
const CLIENT_PORT: u16 = 2379;
/// Port for peers.
const PEER_PORT: u16 = 2380;
/// Longest wait for a leader.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time that `etcdctl` may take for what it is asked, in seconds. Only a hang meets it.
const ANSWER_S: u64 = 20;
/// The same for a member that may be down, frozen or cut off.
const LOOK_S: u64 = 2;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<EtcdMember>,
}

/// One of its members.
#[derive(Debug)]
pub struct EtcdMember {
    host: Host,
    process: Process,
}

impl Cluster {
    /// Starts a cluster of so many members on hosts `etcd0`, `etcd1`, ..., and waits until it takes writes.
    ///
    /// # Errors
    /// There is no etcd, or it does not come up.
    pub async fn start(lab: &Lab, members: usize) -> Result<Self> {
        let mut hosts = Vec::new();
        for index in 0..members {
            hosts.push(lab.add_host(&format!("etcd{index}")).await?);
        }
        let peer = |(index, host): (usize, &Host)| format!("{}={}", name(index), url(host, PEER_PORT));
        let peers: Vec<String> = hosts.iter().enumerate().map(peer).collect();
        let mut members = Vec::new();
        for (index, host) in hosts.into_iter().enumerate() {
            let process = Process::start(program(index, &host, &peers.join(","))).await?;
            members.push(EtcdMember { host, process });
        }
        let cluster = Self { members };
        cluster.leader().await?;
        Ok(cluster)
    }

    /// Value of a plugin's `--store` for this cluster.
    #[must_use]
    pub fn store(&self) -> String {
        let endpoint = |member: &EtcdMember| SocketAddr::new(member.host.address(), CLIENT_PORT).to_string();
        let endpoints: Vec<String> = self.members.iter().map(endpoint).collect();
        format!("chainfire://{}", endpoints.join(","))
    }

    /// The members.
    #[must_use]
    pub fn members(&self) -> &[EtcdMember] {
        &self.members
    }

    /// The members, to kill them and start them again.
    #[must_use]
    pub fn members_mut(&mut self) -> &mut [EtcdMember] {
        &mut self.members
    }

    /// The leader, by its place among [`Cluster::members`]. Waits until there is one.
    ///
    /// # Errors
    /// There is none within a minute.
    pub async fn leader(&self) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for (index, member) in self.members.iter().enumerate() {
                // Who is down, frozen or cut off does not lead.
                if matches!(member.leads().await, Ok(true)) {
                    return Ok(index);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("etcd has no leader for {PATIENCE:?}")
    }

    /// Runs `etcdctl` on the first member's host with all endpoints, and returns its output.
    ///
    /// # Errors
    /// A failure of `etcdctl`, with its output.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let first = self.members.first().context("the cluster has no members")?;
        let endpoints: Vec<String> =
            self.members.iter().map(|member| url(&member.host, CLIENT_PORT)).collect();
        etcdctl(&first.host, &endpoints.join(","), ANSWER_S, arguments).await
    }
}

impl EtcdMember {
    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to kill it and start it again.
    #[must_use]
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn leads(&self) -> Result<bool> {
        let status = ["endpoint", "status", "-w", "fields"];
        let text = etcdctl(&self.host, &url(&self.host, CLIENT_PORT), LOOK_S, &status).await?;
        Ok(is_leader(&text))
    }
}

/// True if this is the status of the leader: `"MemberID" : 1`, `"Leader" : 1`, a line each.
fn is_leader(status: &str) -> bool {
    let field = |wanted: &str| {
        status.lines().find_map(|line| line.split_once(" : ").filter(|(name, _)| *name == wanted))
    };
    match (field("\"MemberID\""), field("\"Leader\"")) {
        (Some((_, member)), Some((_, leader))) => member == leader && leader != "0",
        _ => false,
    }
}

async fn etcdctl(host: &Host, endpoints: &str, limit_s: u64, arguments: &[&str]) -> Result<String> {
    let mut command = host.command("env");
    let limit = format!("{limit_s}s");
    command.args(["ETCDCTL_API=3", "etcdctl", "--endpoints", endpoints]);
    command.args(["--command-timeout", &limit, "--dial-timeout", &limit]).args(arguments);
    Ok(run(command, COMMAND_LIMIT).await?)
}

fn program(index: usize, host: &Host, peers: &str) -> Program {
    let (name, client, peer) = (name(index), url(host, CLIENT_PORT), url(host, PEER_PORT));
    let data = format!("/run/host/{name}");
    let options = [
        ["--name", &name],
        ["--data-dir", &data],
        ["--listen-client-urls", &client],
        ["--advertise-client-urls", &client],
        ["--listen-peer-urls", &peer],
        ["--initial-advertise-peer-urls", &peer],
        ["--initial-cluster", peers],
        // Short, so that a lab has a new leader soon.
        ["--heartbeat-interval", "50"],
        ["--election-timeout", "500"],
        // So that a member that comes back is sent a snapshot now and then.
        ["--snapshot-count", "2000"],
        ["--logger", "zap"],
        ["--log-level", "warn"],
    ];
    let arguments = options.as_flattened().iter().map(|text| (*text).to_owned()).collect();
    let (world, netns) = (host.world().clone(), host.netns_name().to_owned());
    Program { world, netns, name, binary: "/usr/bin/etcd".into(), arguments }
}

fn name(index: usize) -> String {
    format!("etcd{index}")
}

fn url(host: &Host, port: u16) -> String {
    format!("http://{}", SocketAddr::new(host.address(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_told_from_its_status() {
        assert!(is_leader("\"ClusterID\" : 3\n\"MemberID\" : 7\n\"Leader\" : 7\n"));
        assert!(!is_leader("\"MemberID\" : 7\n\"Leader\" : 8\n"));
        assert!(!is_leader("\"MemberID\" : 0\n\"Leader\" : 0\n"));
        assert!(!is_leader(""));
    }
}
