//! Three network namespaces in a row: clients, proxy, backends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, unshare};

/// Address of the proxy that clients connect to.
pub(crate) const PROXY: &str = "10.91.1.1";
/// Address of the backends.
pub(crate) const BACKEND: &str = "10.91.2.2";
/// Core of the proxies; clients and backends share the other one.
const PROXY_CORE: u32 = 0;
const OTHER_CORE: u32 = 1;

/// A process that is killed on drop, and by the kernel if this one is killed.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().context("no standard output")?).read_line(&mut line)?;
        ensure!(!line.is_empty(), "a process of the benchmark has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Lets one that waits for it go on.
    pub(crate) fn go_on(&mut self) -> anyhow::Result<()> {
        Ok(self.0.stdin.as_mut().context("no standard input")?.write_all(b"\n")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Namespace of the clients is that of the process itself.
pub(crate) struct World {
    proxy: Process,
    backend: Process,
    _server: Option<Process>,
}

impl World {
    pub(crate) fn new() -> anyhow::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own needs root")?;
        let itself = std::env::current_exe()?;
        let holder = || {
            let mut holder = spawn(OTHER_CORE, None, &itself, &["hold"])?;
            holder.line().map(|_| holder)
        };
        let mut world = Self { proxy: holder()?, backend: holder()?, _server: None };
        let (proxy, backend) = (world.proxy.id(), world.backend.id());
        let own = std::process::id();
        for pid in [own, proxy, backend] {
            within(pid, "ip link set lo up")?;
            // A client's port may be used again at once: each round takes more of them than there are.
            sysctl(pid, "net.ipv4.ip_local_port_range=2048 65535")?;
            sysctl(pid, "net.ipv4.tcp_tw_reuse=1")?;
            sysctl(pid, "net.core.somaxconn=4096")?;
        }
        join(own, "clients", "10.91.1.2/24", proxy, "outside", "10.91.1.1/24")?;
        join(proxy, "inside", "10.91.2.1/24", backend, "backends", "10.91.2.2/24")?;
        let mut server = spawn(OTHER_CORE, Some(backend), &itself, &["backend"])?;
        server.line()?;
        world._server = Some(server);
        Ok(world)
    }

    /// Starts a program in the proxy's namespace, on the proxy's core.
    pub(crate) fn start_proxy(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
        spawn(PROXY_CORE, Some(self.proxy.id()), program, arguments)
    }

    /// Starts a client of this benchmark.
    pub(crate) fn start_client(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let arguments = [&["client"], arguments].concat();
        spawn(OTHER_CORE, None, &std::env::current_exe()?, &arguments)
    }
}

/// Keeps a namespace for as long as its standard input is open.
pub(crate) fn hold() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn spawn(core: u32, namespace: Option<u32>, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(pid) = namespace {
        command.args(["nsenter", &format!("--net=/proc/{pid}/ns/net"), "--"]);
    }
    command.args(["taskset", "--cpu-list", &core.to_string()]).arg(program).args(arguments);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    Ok(Process(child.with_context(|| format!("setpriv, nsenter, taskset or {}", program.display()))?))
}

/// Joins two namespaces by veth. Some hosts have BBR as their default, whose pacing costs timers.
fn join(
    one: u32,
    name: &str,
    address: &str,
    other: u32,
    other_name: &str,
    other_address: &str,
) -> anyhow::Result<()> {
    within(one, &format!("ip link add {name} type veth peer name {other_name} netns {other}"))?;
    for (pid, name, address) in [(one, name, address), (other, other_name, other_address)] {
        within(pid, &format!("ip address add {address} dev {name}"))?;
        within(pid, &format!("ip link set {name} up"))?;
        let subnet = address.replace(".1/", ".0/").replace(".2/", ".0/");
        within(pid, &format!("ip route replace {subnet} dev {name} congctl cubic"))?;
    }
    Ok(())
}

fn sysctl(pid: u32, setting: &str) -> anyhow::Result<()> {
    run(Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(["sysctl", "-qw", setting]))
}

fn within(pid: u32, command: &str) -> anyhow::Result<()> {
    run(Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(command.split(' ')))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}
