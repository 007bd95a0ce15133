//! The machines that hold what is replicated: members of etcd and of the northbound database.

use std::path::Path;

use anyhow::Result;
use fiberlb_lab::process::{Process, Program};
use fiberlb_lab::run::{self, COMMAND_LIMIT, run};
use fiberlb_lab::{Host, Lab, Member};

/// Folder of the northbound servers' certificates, in the world.
const PKI: &str = "/run/host/nb";
/// Makes a CA, and certificates of it for the servers and the plugins, in the working directory.
const MAKE_PKI: &str = "
set -eu
make='openssl req -newkey rsa:2048 -nodes -days 30 -x509'
$make -subj /CN=northbound-ca -keyout ca.key -out ca.pem
for name in server plugin; do
    $make -subj /CN=$name -keyout $name.key -out $name.pem -CA ca.pem -CAkey ca.key \\
        -addext basicConstraints=critical,CA:FALSE
done
mkdir -p /run/lib/etc/fiberlb/nb
cp ca.pem plugin.pem plugin.key /run/lib/etc/fiberlb/nb
";

/// Gives a machine its address on the management network of the pages: 10.0.0.N.
pub(crate) async fn address(host: &Host, octet: u8) -> Result<()> {
    let mut command = host.command("ip");
    command.args(["address", "add", &format!("10.0.0.{octet}/24"), "dev", "management"]);
    run(command, COMMAND_LIMIT).await?;
    Ok(())
}

/// Puts the members of the northbound database on the management network, and an etcd beside each.
pub(crate) async fn control(lab: &Lab, tls: bool) -> Result<Vec<Process>> {
    if tls {
        make_pki(lab).await?;
    }
    let mut members = Vec::new();
    for (member, octet) in Member::ALL.into_iter().zip(1_u8..) {
        let host = lab.join_management(member.name().to_owned()).await?;
        address(&host, octet).await?;
        listen(lab, member, octet, tls).await?;
        members.push(Process::start(etcd(&host, octet)).await?);
    }
    ready(lab).await?;
    Ok(members)
}

async fn make_pki(lab: &Lab) -> Result<()> {
    std::fs::create_dir_all(lab.world().path(PKI))?;
    let mut command = lab.world().command(None, "sh");
    command.args(["-c", &format!("cd {PKI}\n{MAKE_PKI}")]);
    run(command, COMMAND_LIMIT).await?;
    let [key, certificate, ca] = ["server.key", "server.pem", "ca.pem"].map(|file| format!("{PKI}/{file}"));
    lab.nbctl(&["set-ssl", &key, &certificate, &ca]).await?;
    Ok(())
}

async fn listen(lab: &Lab, member: Member, octet: u8, tls: bool) -> Result<()> {
    let control = lab.world().path(&format!("/run/central/{}.ctl", member.name()));
    let scheme = if tls { "pssl" } else { "ptcp" };
    let mut command = run::command("ovs-appctl");
    command.arg(format!("--target={}", control.display()));
    command.args(["ovsdb-server/add-remote", &format!("{scheme}:6641:10.0.0.{octet}")]);
    run(command, COMMAND_LIMIT).await?;
    Ok(())
}

fn etcd(host: &Host, octet: u8) -> Program {
    let name = |octet: u8| format!("control-{octet}");
    let url = |octet: u8, port: u16| format!("http://10.0.0.{octet}:{port}");
    let peers = [1, 2, 3].map(|octet| format!("{}={}", name(octet), url(octet, 2380))).join(",");
    let (client, peer) = (url(octet, 2379), url(octet, 2380));
    let options = [
        ["--name", &name(octet)],
        ["--data-dir", &format!("/run/host/etcd{octet}")],
        ["--listen-client-urls", &client],
        ["--advertise-client-urls", &client],
        ["--listen-peer-urls", &peer],
        ["--initial-advertise-peer-urls", &peer],
        ["--initial-cluster", &peers],
        ["--logger", "zap"],
        ["--log-level", "warn"],
    ];
    let arguments = options.as_flattened().iter().map(|text| (*text).to_owned()).collect();
    Program {
        world: host.world().clone(),
        netns: host.netns_name().to_owned(),
        name: format!("etcd{octet}"),
        binary: Path::new("/usr/bin/etcd").to_owned(),
        arguments,
    }
}

/// Waits until etcd takes writes.
async fn ready(lab: &Lab) -> Result<()> {
    let mut command = lab.world().command(Some("nb1"), "env");
    let endpoints = [1, 2, 3].map(|octet| format!("http://10.0.0.{octet}:2379")).join(",");
    command.args(["ETCDCTL_API=3", "etcdctl", "--endpoints", &endpoints, "--command-timeout=25s"]);
    command.args(["put", "/ready", "yes"]);
    run(command, COMMAND_LIMIT).await?;
    Ok(())
}
