//! A real Neutron (ML2/OVN) on a machine of the lab, with the lab's databases as its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fiberlb_lab::process::{Process, Program};
use fiberlb_lab::run::run;
use fiberlb_lab::{Host, Lab, World};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::until;

/// Far above what a program of Neutron's takes on a busy machine.
const PROGRAM_LIMIT: Duration = Duration::from_secs(300);
/// Folder of its files in the lab.
const FOLDER: &str = "/run/neutron";
/// Name of the log of its maintenance worker in there.
const MAINTENANCE_LOG: &str = "maintenance.log";

pub(crate) struct Neutron {
    _process: Process,
    /// Its worker that compares its own database with OVN's all the time, and repairs what differs.
    _maintenance: Process,
    host: Host,
    world: World,
    python: PathBuf,
}

impl Neutron {
    /// Starts one of a release that `make test-neutron` has installed, such as `29`.
    pub(crate) async fn start(lab: &Lab, release: &str) -> Neutron {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let python = repository.join(format!("target/neutron-{release}"));
        assert!(python.exists(), "Neutron {release} is not installed: testenv/install-packages.sh --neutron");
        let host = lab.add_host("neutron").await.unwrap();
        let listen = SocketAddr::new(host.address(), 9696).to_string();
        let mut prepare = host.command("sh");
        prepare.arg(repository.join("testenv/neutron/prepare.sh")).args([
            &*python.to_string_lossy(),
            FOLDER,
            &listen,
        ]);
        run(prepare, PROGRAM_LIMIT).await.unwrap();
        let world = lab.world().clone();
        let program = |name: &str, binary: PathBuf, arguments: Vec<String>| Program {
            world: world.clone(),
            netns: host.netns_name().to_owned(),
            name: name.to_owned(),
            binary: python.join(binary),
            arguments,
        };
        let server = program("neutron", "bin/uwsgi".into(), vec![format!("{FOLDER}/uwsgi.ini")]);
        let maintenance = [
            repository.join("testenv/neutron/maintenance.py").display().to_string(),
            python.join("bin/neutron-ovn-maintenance-worker").display().to_string(),
            format!("--config-file={FOLDER}/neutron.conf"),
            format!("--log-file={FOLDER}/{MAINTENANCE_LOG}"),
        ];
        // By its name proper, such as `python3.11`.
        let interpreter = python.join("bin/python").canonicalize().unwrap();
        let interpreter = Path::new("bin").join(interpreter.file_name().unwrap());
        let maintenance = program("neutron-maintenance", interpreter, maintenance.to_vec());
        let _process = Process::start(server).await.unwrap();
        let _maintenance = Process::start(maintenance).await.unwrap();
        let neutron = Neutron { _process, _maintenance, host, world, python };
        until("Neutron to answer", async || neutron.try_call("GET", "/v2.0/networks", None).await).await;
        neutron
    }

    /// Calls its API, and gives the status and what it answers.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let answer = self.try_call(method, path, body).await;
        answer.unwrap_or_else(|| panic!("Neutron does not answer {method} {path}"))
    }

    async fn try_call(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let length = body.len();
        let mut stream = self.host.connect(SocketAddr::new(self.host.address(), 9696)).await.ok()?;
        // Without a length at the answer: it ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PROGRAM_LIMIT, read).await.ok()?.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Waits for two more rounds of the maintenance worker, of which the second one has begun later than this: nothing failed in
    /// any round yet.
    pub(crate) async fn maintain(&self) {
        let log = || {
            let path = self.world.path(FOLDER).join(MAINTENANCE_LOG);
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let rounds = |log: &str| log.matches("task check_for_inconsistencies finished").count();
        let before = rounds(&log());
        until("two rounds of Neutron's maintenance", async || (rounds(&log()) >= before + 2).then_some(()))
            .await;
        let log = log();
        let failed: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("Failed to fix") || line.contains(" failed after "))
            .collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    /// Has its tool compare OVN's northbound database with its own, and repair what differs.
    pub(crate) async fn repair(&self) {
        let mut tool = self.host.command(&self.python.join("bin/neutron-ovn-db-sync-util").to_string_lossy());
        let configuration = format!("{FOLDER}/neutron.conf");
        tool.args(["--config-file", &configuration, "--ovn-neutron_sync_mode", "repair"]);
        run(tool, PROGRAM_LIMIT).await.unwrap();
    }
}
