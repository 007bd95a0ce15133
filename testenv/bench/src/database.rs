//! A real ovsdb-server with the northbound schema, and northd where that is measured too.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use fiberlb_lab::{Release, Version};
use fiberlb_northbound::Northbound;
use ovsdb::client::{Client, Config};

/// Networks that the load balancers are spread over.
pub(crate) const NETWORKS: u32 = 100;

/// A child process that ends with this one's interest in it.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ovsdb-server with an empty northbound database.
pub(crate) struct Database {
    dir: PathBuf,
    _server: Process,
}

impl Database {
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let server = ovsdb_server(dir, "nb", &Release::chosen()?.northbound_schema()).await?;
        Ok(Self { dir: dir.to_owned(), _server: server })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix:{}", self.dir.join("nb.sock").display())
    }

    /// Makes the tenant networks; answers with their UUIDs.
    pub(crate) fn make_networks(&self) -> anyhow::Result<Vec<String>> {
        let mut command = Release::chosen()?.command("ovn-nbctl");
        command.arg(format!("--db={}", self.endpoint())).arg("--timeout=20");
        for number in 0..NETWORKS {
            let name = format!("net-{number}");
            command.args([
                "--",
                "ls-add",
                &name,
                "--",
                "set",
                "logical_switch",
                &name,
                "other_config:subnet=10.0.0.0/16",
            ]);
        }
        ensure!(command.status()?.success(), "ovn-nbctl could not make the networks");
        let list = ["--bare", "--columns=_uuid", "list", "logical_switch"];
        let mut command = Release::chosen()?.command("ovn-nbctl");
        let output = command.arg(format!("--db={}", self.endpoint())).args(list).output()?;
        Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
    }

    /// A replica of the database, by which rows are waited for.
    pub(crate) fn observe(&self) -> anyhow::Result<Client<Northbound>> {
        let config = Config { endpoints: vec![self.endpoint().parse()?], ..Config::new("OVN_Northbound") };
        let (northbound, mut events) = Client::start(config, Northbound::new("fiberlb:owner"));
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(northbound)
    }

    pub(crate) async fn start_northd(&self, dir: &Path) -> anyhow::Result<(Process, Process)> {
        let southbound = ovsdb_server(dir, "sb", &Release::chosen()?.southbound_schema()).await?;
        let northd = Release::chosen()?
            .command("ovn-northd")
            .arg(format!("--ovnnb-db={}", self.endpoint()))
            .arg(format!("--ovnsb-db=unix:{}", dir.join("sb.sock").display()))
            .arg(format!("--unixctl={}", dir.join("northd.ctl").display()))
            .args(["-vconsole:off", "-vsyslog:off"])
            .spawn()?;
        Ok((southbound, Process(northd)))
    }
}

pub(crate) async fn ovsdb_server(dir: &Path, name: &str, schema: &Path) -> anyhow::Result<Process> {
    let database = dir.join(format!("{name}.db"));
    let release = Release::chosen()?;
    let made = release.command("ovsdb-tool").arg("create").arg(&database).arg(schema).status()?;
    ensure!(made.success(), "cannot make {name}.db");
    let server = release
        .command("ovsdb-server")
        .arg(&database)
        .arg(format!("--remote=punix:{}", dir.join(format!("{name}.sock")).display()))
        .arg(format!("--unixctl={}", dir.join(format!("{name}.ctl")).display()))
        .args(["-vconsole:off", "-vsyslog:off"])
        .spawn()?;
    let socket = dir.join(format!("{name}.sock"));
    until("ovsdb-server", || async { Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok()) }).await?;
    Ok(Process(server))
}

/// Rows of `Load_Balancer` that a tree of one listener has: that, and its answer where that is a row.
pub(crate) fn rows_of_tree() -> u32 {
    1 + u32::from(Release::chosen().is_ok_and(|release| release.ovn() >= Version::new(24, 9, 0)))
}

/// Waits until there are the rows of so many trees in the database.
pub(crate) async fn until_rows(northbound: &Client<Northbound>, trees: u32) -> anyhow::Result<()> {
    let rows = usize::try_from(trees * rows_of_tree())?;
    until("all rows in the northbound database", || async {
        Ok(northbound.read().load_balancer.len() >= rows)
    })
    .await
}

pub(crate) async fn until<F, R>(what: &str, mut holds: F) -> anyhow::Result<()>
where
    F: FnMut() -> R,
    R: Future<Output = anyhow::Result<bool>>,
{
    let started = Instant::now();
    while !holds().await? {
        if started.elapsed() > Duration::from_secs(120) {
            bail!("waited 120 s in vain for {what}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
