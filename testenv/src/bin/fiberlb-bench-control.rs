//! Figures of the control plane: the real plugin on its embedded store, against a real ovsdb-server with the northbound
//! schema. Each figure ends in a line `FIGURE <name> <value> <unit> goal <goal> met|missed`.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::{Client, Config};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tonic::transport::Channel;

/// Networks that the load balancers are spread over.
const NETWORKS: u32 = 100;
/// Trees in each timed round.
const ROUND: u32 = 2000;
/// Load balancers that are present for the figures at scale.
const SCALE: u32 = 10_000;
/// Ticks of the kernel's CPU accounting in a second, the same on every Linux (USER_HZ).
const CLOCK_TICKS: u64 = 100;
/// Rounds of each figure; the median counts.
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let missed = runtime.block_on(run())?;
    if missed > 0 {
        println!("{missed} figures missed their goal");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn run() -> anyhow::Result<u32> {
    let mut report = Report::default();
    let dir = tempfile::tempdir()?;
    println!("fsync of 4 KiB, p50: {:.2} ms", fsync_p50(dir.path())?.as_secs_f64() * 1e3);

    let mut bench = Bench::start(dir.path()).await?;
    let one = bench.rounds(1, ROUND / 2).await?;
    report.at_least("trees_per_second_1", one, "1/s", 500.0);
    let transactions = bench.transactions().await?;
    let before = bench.made();
    let sixteen = bench.rounds(16, ROUND).await?;
    report.at_least("trees_per_second_16", sixteen, "1/s", 2000.0);
    let per_tree = (bench.transactions().await? - transactions) / f64::from(bench.made() - before);
    report.below("nb_transactions_per_tree", per_tree, "", 0.2);

    println!("filling up to {SCALE} load balancers");
    bench.trees(16, SCALE.saturating_sub(bench.made())).await?;
    bench.restart(&mut report).await?;
    let scaled = bench.rounds(16, ROUND / 2).await?;
    report.at_least("trees_per_second_16_at_10000", scaled, "1/s", 0.9 * 2000.0);

    println!("the same with northd running, beside:");
    let northd = bench.database.start_northd(dir.path()).await?;
    let beside = bench.trees(16, ROUND).await?;
    println!("trees_per_second_16_at_10000 with northd: {beside:.0} 1/s");
    drop(northd);
    Ok(report.missed)
}

/// Prints figures and counts those that missed their goal.
#[derive(Default)]
struct Report {
    missed: u32,
}

impl Report {
    fn at_least(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!(">={goal}"), value >= goal);
    }

    fn below(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!("<{goal}"), value < goal);
    }

    fn line(&mut self, name: &str, value: f64, unit: &str, goal: &str, met: bool) {
        self.missed += u32::from(!met);
        let unit = if unit.is_empty() { "ratio" } else { unit };
        println!("FIGURE {name} {value:.3} {unit} goal {goal} {}", if met { "met" } else { "missed" });
    }
}

/// The plugin under measurement with what surrounds it.
struct Bench {
    database: Database,
    plugin: Plugin,
    northbound: Client<Northbound>,
    next: Arc<AtomicU32>,
    networks: Arc<Vec<String>>,
}

impl Bench {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::start(dir).await?;
        let networks = Arc::new(database.make_networks()?);
        let plugin = Plugin::start(dir, &database.endpoint())?;
        plugin.ready().await?;
        let config =
            Config { endpoints: vec![database.endpoint().parse()?], ..Config::new("OVN_Northbound") };
        until("the plugin to reach the database", || plugin.is_connected()).await?;
        let (northbound, mut events) = Client::start(config, Northbound::new("fiberlb:owner"));
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(Self { database, plugin, northbound, next: Arc::default(), networks })
    }

    fn made(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// The median rate of some rounds.
    async fn rounds(&self, clients: u32, trees: u32) -> anyhow::Result<f64> {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(self.trees(clients, trees).await?);
        }
        rates.sort_by(f64::total_cmp);
        rates.get(ROUNDS / 2).copied().context("there were no rounds")
    }

    /// Creates trees with so many clients, each of which waits for each answer. Trees per second, from the first call until
    /// all of them are in the northbound database.
    async fn trees(&self, clients: u32, trees: u32) -> anyhow::Result<f64> {
        let last = self.made() + trees;
        let (started, cpu) = (Instant::now(), self.plugin.cpu()?);
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let client = LoadBalancerServiceClient::new(self.plugin.channel()?);
            tasks.push(tokio::spawn(create(
                client,
                Arc::clone(&self.next),
                last,
                Arc::clone(&self.networks),
            )));
        }
        for task in tasks {
            task.await??;
        }
        self.next.store(last, Ordering::Relaxed);
        self.in_northbound(last).await?;
        let rate = f64::from(trees) / started.elapsed().as_secs_f64();
        let cpu_us = (self.plugin.cpu()? - cpu).as_micros() / u128::from(trees);
        println!(
            "  {trees} trees with {clients} clients, {last} present: {rate:.0} 1/s, {cpu_us} us of the plugin's CPU each"
        );
        Ok(rate)
    }

    async fn in_northbound(&self, rows: u32) -> anyhow::Result<()> {
        let rows = usize::try_from(rows)?;
        until("all rows in the northbound database", || async {
            Ok(self.northbound.read().load_balancer.len() >= rows)
        })
        .await
    }

    /// Transactions that the plugin has committed since it started.
    async fn transactions(&self) -> anyhow::Result<f64> {
        self.plugin.metric("fiberlb_northbound_transactions_total{outcome=\"committed\"}").await
    }

    /// Restarts the plugin: how soon it serves, how soon it knows that everything is in force, and what it wrote.
    async fn restart(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.plugin.restart()?;
        let started = Instant::now();
        self.plugin.ready().await?;
        report.below("restart_serving", started.elapsed().as_secs_f64(), "s", 3.0);
        let mut client = LoadBalancerServiceClient::new(self.plugin.channel()?);
        loop {
            ensure!(started.elapsed() < Duration::from_secs(60), "the plugin is not in step after 60 s");
            let pending = v1::ProvisioningStatus::PendingCreate.into();
            let request = v1::ListLoadBalancersRequest {
                provisioning_status: pending,
                page_size: 1,
                ..Default::default()
            };
            let page = client.list_load_balancers(request).await?.into_inner();
            if page.load_balancers.is_empty() && page.next_page_token.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        report.below("restart_in_step", started.elapsed().as_secs_f64(), "s", 5.0);
        report.below("restart_writes", self.transactions().await?, "transactions", 1.0);
        report.below("plugin_memory", self.plugin.memory_mib()?, "MiB", 250.0);
        Ok(())
    }
}

async fn create(
    mut client: LoadBalancerServiceClient<Channel>,
    next: Arc<AtomicU32>,
    last: u32,
    networks: Arc<Vec<String>>,
) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= last {
            return Ok(());
        }
        let tree = Some(tree(number, &networks)?);
        client.apply_load_balancer(v1::ApplyLoadBalancerRequest { tree, ..Default::default() }).await?;
    }
}

/// One listener, one pool, five backends; the VIP is chosen by FiberLB.
fn tree(number: u32, networks: &[String]) -> anyhow::Result<v1::LoadBalancerTree> {
    let network = networks.get(usize::try_from(number % NETWORKS)?).context("no network")?;
    let backend = |index: u32| v1::Backend {
        address: format!("10.0.0.{}", 10 + index),
        port: 8080,
        ..Default::default()
    };
    let pool =
        v1::Pool { name: "web".to_owned(), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() };
    let listener = v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: 80,
        default_pool_id: "web".to_owned(),
        ..Default::default()
    };
    Ok(v1::LoadBalancerTree {
        load_balancer: Some(v1::LoadBalancer {
            name: format!("lb-{number}"),
            network: network.clone(),
            ..Default::default()
        }),
        listeners: vec![listener],
        pools: vec![v1::PoolTree {
            pool: Some(pool),
            backends: (0..5).map(backend).collect(),
            health_check: None,
        }],
    })
}

/// A child process that ends with this one's interest in it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ovsdb-server with an empty northbound database.
struct Database {
    dir: PathBuf,
    _server: Process,
}

impl Database {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let server = ovsdb_server(dir, "nb", "/usr/share/ovn/ovn-nb.ovsschema").await?;
        Ok(Self { dir: dir.to_owned(), _server: server })
    }

    fn endpoint(&self) -> String {
        format!("unix:{}", self.dir.join("nb.sock").display())
    }

    /// Makes the tenant networks; answers with their UUIDs.
    fn make_networks(&self) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new("ovn-nbctl");
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
        let output =
            Command::new("ovn-nbctl").arg(format!("--db={}", self.endpoint())).args(list).output()?;
        Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
    }

    async fn start_northd(&self, dir: &Path) -> anyhow::Result<(Process, Process)> {
        let southbound = ovsdb_server(dir, "sb", "/usr/share/ovn/ovn-sb.ovsschema").await?;
        let northd = Command::new("ovn-northd")
            .arg(format!("--ovnnb-db={}", self.endpoint()))
            .arg(format!("--ovnsb-db=unix:{}", dir.join("sb.sock").display()))
            .arg(format!("--unixctl={}", dir.join("northd.ctl").display()))
            .args(["-vconsole:off", "-vsyslog:off"])
            .spawn()?;
        Ok((southbound, Process(northd)))
    }
}

async fn ovsdb_server(dir: &Path, name: &str, schema: &str) -> anyhow::Result<Process> {
    let database = dir.join(format!("{name}.db"));
    let made = Command::new("ovsdb-tool").arg("create").arg(&database).arg(schema).status();
    ensure!(
        made.context("ovsdb-tool is not installed: run `make packages`")?.success(),
        "cannot make {name}.db"
    );
    let server = Command::new("ovsdb-server")
        .arg(&database)
        .arg(format!("--remote=punix:{}", dir.join(format!("{name}.sock")).display()))
        .arg(format!("--unixctl={}", dir.join(format!("{name}.ctl")).display()))
        .args(["-vconsole:off", "-vsyslog:off"])
        .spawn()?;
    let socket = dir.join(format!("{name}.sock"));
    until("ovsdb-server", || async { Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok()) }).await?;
    Ok(Process(server))
}

/// The plugin's own binary.
struct Plugin {
    process: Process,
    arguments: Vec<String>,
    api: String,
    metrics: String,
}

impl Plugin {
    fn start(dir: &Path, northbound: &str) -> anyhow::Result<Self> {
        let (api, metrics) = (free_address()?, free_address()?);
        let store = dir.join("store.redb").display().to_string();
        let arguments: Vec<String> = ["--listen", &api, "--metrics-listen", &metrics, "--store", &store]
            .into_iter()
            .chain(["--northbound", northbound, "--log", "warn", "--agents-listen", "off"])
            .map(str::to_owned)
            .collect();
        Ok(Self { process: spawn_plugin(&arguments)?, arguments, api, metrics })
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        self.process = spawn_plugin(&self.arguments)?;
        Ok(())
    }

    fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Channel::from_shared(format!("http://{}", self.api))?.tcp_nodelay(true).connect_lazy())
    }

    /// Waits until the plugin answers calls.
    async fn ready(&self) -> anyhow::Result<()> {
        until("the plugin to answer", || async {
            let mut client = LoadBalancerServiceClient::new(self.channel()?);
            let request = v1::ListLoadBalancersRequest { page_size: 1, ..Default::default() };
            Ok(client.list_load_balancers(request).await.is_ok())
        })
        .await
    }

    async fn is_connected(&self) -> anyhow::Result<bool> {
        Ok(self.metric("fiberlb_northbound_connected").await? > 0.0)
    }

    async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.metrics).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: fiberlb\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
    }

    /// CPU time that it has used since it started, in user and kernel mode.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id()))?;
        // Fields after the name, which is in parentheses: utime and stime are the 14th and the 15th of all (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / CLOCK_TICKS))
    }

    fn memory_mib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

fn spawn_plugin(arguments: &[String]) -> anyhow::Result<Process> {
    let binary = std::env::current_exe()?.with_file_name("fiberlb-plugin");
    let child = Command::new(&binary).args(arguments).stdin(Stdio::null()).spawn();
    Ok(Process(child.with_context(|| format!("cannot start {}", binary.display()))?))
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn until<F, R>(what: &str, mut holds: F) -> anyhow::Result<()>
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

/// The median time of an fsync after a write of 4 KiB.
fn fsync_p50(dir: &Path) -> anyhow::Result<Duration> {
    let mut file = fs::File::create(dir.join("fsync"))?;
    file.write_all(&[0; 4096])?;
    let mut times = Vec::new();
    for _ in 0..101 {
        let started = Instant::now();
        file.write_all_at(&[1; 4096], 0)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    times.get(times.len() / 2).copied().context("no measurement")
}
