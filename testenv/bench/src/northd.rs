//! CPU time of ovn-northd on what FiberLB writes for one load balancer, beside what it spends on one bare row.
//!
//! Changes are made one after the other, each awaited in the southbound database, and of all kinds in turn; what northd does while
//! nothing changes is subtracted.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_client::BackendServiceClient;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use ovsdb::client::{Client, Config, Event};
use ovsdb::operation::{Columns, Mutation, Operation};
use ovsdb::replica::MonitoredTable;
use ovsdb::untyped::{UntypedChange, UntypedReplica};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::database::rows_of_tree;
use crate::report::Report;
use crate::trees::{Bench, tree};

/// Rounds in which all kinds of changes are measured, after one that does not count: what else the machine does meets all of them.
const ROUNDS: u32 = 10;
/// Changes of a kind in a round.
const CHANGES: u32 = 10;
/// Least time from one change to the next, so that northd's caches are as cold for each kind.
const PACE: Duration = Duration::from_millis(50);
/// Time in which nothing changes.
const IDLE: Duration = Duration::from_secs(3);
/// Times that northd is found at rest, one after the other, until it is believed.
const QUIET: u32 = 4;
/// Longest wait for one change. On OVN before 24.03 each costs a whole pass.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the group of the bare rows.
const GROUP: &str = "bare";

/// Measures the ratios with so many load balancers present.
pub(crate) async fn measure(present: u32, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let bench = Bench::start(dir.path()).await?;
    println!("northd's CPU with {present} load balancers");
    bench.trees(16, present).await?;
    let mut northd = Northd::start(&bench, dir.path()).await?;
    let mut api = Api::connect(&bench)?;

    let mut costs = Costs::default();
    for round in 0..=ROUNDS {
        let spent = one_round(&bench, &mut northd, &mut api, present, round).await?;
        if round > 0 {
            costs.add(&spent);
        }
    }
    for (what, each) in KINDS.iter().zip(costs.0) {
        println!("  {what}: {:.2} ms of northd's CPU", each / f64::from(ROUNDS * CHANGES));
    }
    let [bare, end, created, flips, weights, deleted] = costs.0;
    let ratios =
        [("", created, 3.0), ("_flip", flips, 2.0), ("_weight", weights, 2.0), ("_delete", deleted, 2.0)];
    for (name, cost, goal) in ratios {
        report.at_most(&format!("northd_cpu_ratio{name}"), cost / bare, "", goal);
    }
    println!("northd_cpu_ratio_delete beside the end of a bare row: {:.3}", deleted / end);
    Ok(())
}

/// Kinds of changes, in the order of a round.
const KINDS: [&str; 6] = [
    "a bare row",
    "the end of a bare row",
    "a load balancer",
    "a backend that goes and returns",
    "a weight",
    "the end of a load balancer",
];

/// CPU time of the changes of each kind, in milliseconds.
#[derive(Default)]
struct Costs([f64; KINDS.len()]);

impl Costs {
    fn add(&mut self, round: &Costs) {
        self.0.iter_mut().zip(round.0).for_each(|(sum, spent)| *sum += spent);
    }
}

/// Measures some changes of each kind.
async fn one_round(
    bench: &Bench,
    northd: &mut Northd,
    api: &mut Api,
    present: u32,
    round: u32,
) -> anyhow::Result<Costs> {
    let first = round * CHANGES;
    let bare = northd.measured(first, async |southbound, number| bare_row(bench, southbound, number).await);
    let bare = bare.await?;
    let end = northd.measured(first, async |southbound, number| {
        let (row, name) = (bare_uuid(number), format!("bare-{number}"));
        bench.northbound.transact(vec![Operation::delete("Load_Balancer", row)]).await?;
        southbound.until(&[(&name, 1)], |change| change.after.is_none()).await
    });
    let end = end.await?;
    // It has as many rows as the release asks for.
    let created = northd.measured(first, async |southbound, number| {
        let name = api.create(bench, present + number).await?;
        southbound.until(&[(&name, rows_of_tree())], |change| change.after.is_some()).await
    });
    let created = created.await?;
    let backends = api.backends(0).await?;
    let flips = northd.measured(first, async |southbound, number| {
        let is_up = number % 2 == 1;
        let backend = v1::Backend { admin_state_up: Some(is_up), ..Default::default() };
        let name = api.update(&backends, (number - first) / 2, backend, "admin_state_up").await?;
        southbound.until(&[(&name, 1)], |change| change.after.is_some()).await
    });
    let flips = flips.await?;
    // Of another backend, since the last flip may have left the first one out of the row.
    let backends = api.backends(1).await?;
    let weights = northd.measured(first, async |southbound, number| {
        let backend = v1::Backend { weight: Some(3), ..Default::default() };
        let name = api.update(&backends, number - first, backend, "weight").await?;
        southbound.until(&[(&name, 1)], |change| change.after.is_some()).await
    });
    let weights = weights.await?;
    let deleted = northd.measured(first, async |southbound, _| {
        let name = api.delete().await?;
        southbound.until(&[(&name, rows_of_tree())], |change| change.after.is_none()).await
    });
    Ok(Costs([bare, end, created, flips, weights, deleted.await?]))
}

/// A bare row with five backends, in a group that a switch has.
async fn bare_row(bench: &Bench, southbound: &mut Southbound, number: u32) -> anyhow::Result<()> {
    let (row, group) = (bare_uuid(number), Uuid::new_v5(&Uuid::NAMESPACE_OID, GROUP.as_bytes()));
    let mut operations = Vec::new();
    if bench.northbound.read().load_balancer_group.get(&group).is_none() {
        let switch = bench.networks.first().context("no network")?.parse()?;
        operations.push(Operation::insert("Load_Balancer_Group", group, columns([("name", json!(GROUP))])));
        let group = ovsdb::value::uuid(group);
        let add = Mutation::insert("load_balancer_group", group);
        operations.push(Operation::mutate("Logical_Switch", switch, vec![add]));
    }
    let name = format!("bare-{number}");
    let backends: Vec<String> = (10..15).map(|host| format!("10.0.0.{host}:8080")).collect();
    let vips =
        json!(["map", [[format!("10.9.{}.{}:80", number / 250, 1 + number % 250), backends.join(",")]]]);
    let bare = columns([("name", json!(name)), ("vips", vips), ("protocol", json!("tcp"))]);
    operations.push(Operation::insert("Load_Balancer", row, bare));
    let add = Mutation::insert("load_balancer", ovsdb::value::uuid(row));
    operations.push(Operation::mutate("Load_Balancer_Group", group, vec![add]));
    bench.northbound.transact(operations).await?;
    southbound.until(&[(&name, 1)], |change| change.after.is_some()).await
}

fn bare_uuid(number: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("bare-{number}").as_bytes())
}

fn columns<const N: usize>(columns: [(&str, serde_json::Value); N]) -> Columns {
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The running northd.
struct Northd {
    pid: u32,
    southbound: Southbound,
    /// Share of a CPU that it takes while nothing changes.
    idle: f64,
    _processes: (crate::database::Process, crate::database::Process),
}

impl Northd {
    /// Starts it, and waits until it has computed what there is.
    async fn start(bench: &Bench, dir: &Path) -> anyhow::Result<Self> {
        let processes = bench.database.start_northd(dir).await?;
        let pid = processes.1.0.id();
        let southbound = Southbound::connect(dir).await?;
        let began = Instant::now();
        let wanted = bench.northbound.read().load_balancer.len();
        while southbound.client.read().rows("Load_Balancer").len() < wanted {
            anyhow::ensure!(began.elapsed() < PATIENCE * 3, "northd has not come to all load balancers");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        at_rest(pid).await?;
        let before = cpu(pid)?;
        tokio::time::sleep(IDLE).await;
        let idle = (cpu(pid)? - before).as_secs_f64() / IDLE.as_secs_f64();
        println!(
            "  northd took {:.1} s to start, and idles at {:.2} % of a CPU",
            before.as_secs_f64(),
            idle * 100.0
        );
        Ok(Self { pid, southbound, idle, _processes: processes })
    }

    /// CPU time of the changes of a kind, with numbers from the first on, in milliseconds.
    async fn measured(
        &mut self,
        first: u32,
        mut change: impl AsyncFnMut(&mut Southbound, u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        at_rest(self.pid).await?;
        let (began, before) = (Instant::now(), cpu(self.pid)?);
        for number in first..first + CHANGES {
            let next = tokio::time::Instant::now() + PACE;
            change(&mut self.southbound, number).await?;
            tokio::time::sleep_until(next).await;
        }
        at_rest(self.pid).await?;
        let spent = (cpu(self.pid)? - before).as_secs_f64() - self.idle * began.elapsed().as_secs_f64();
        Ok(spent * 1e3)
    }
}

/// Waits until northd works no more, since what a result is seen of may be followed by more. It may rest for a while in between, until
/// the southbound database has taken what it wrote.
async fn at_rest(pid: u32) -> anyhow::Result<()> {
    let (began, mut quiet) = (Instant::now(), 0);
    while quiet < QUIET {
        let before = cpu(pid)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        quiet = if cpu(pid)? - before < Duration::from_millis(3) { quiet + 1 } else { 0 };
        anyhow::ensure!(began.elapsed() < PATIENCE * 3, "northd does not come to rest");
    }
    Ok(())
}

/// CPU time of all threads of a process, from the scheduler's own account in nanoseconds.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let spent = text.split_whitespace().next().context("an empty schedstat")?;
        sum += Duration::from_nanos(spent.parse()?);
    }
    Ok(sum)
}

/// The southbound database, where results are seen.
struct Southbound {
    client: Client<UntypedReplica>,
    events: mpsc::UnboundedReceiver<Event<UntypedChange>>,
}

impl Southbound {
    async fn connect(dir: &Path) -> anyhow::Result<Self> {
        let table = |name: &str, column: &[&str]| MonitoredTable {
            columns: Some(column.iter().map(|column| (*column).to_owned()).collect()),
            ..MonitoredTable::new(name)
        };
        let tables = vec![table("Load_Balancer", &["name", "vips"])];
        let endpoint = format!("unix:{}", dir.join("sb.sock").display()).parse()?;
        let config = Config { endpoints: vec![endpoint], ..Config::new("OVN_Southbound") };
        let (client, events) = Client::start(config, UntypedReplica::of(tables));
        Ok(Self { client, events })
    }

    /// Waits for so many changes of rows of each name.
    async fn until(
        &mut self,
        wanted: &[(&str, u32)],
        is_it: impl Fn(&UntypedChange) -> bool,
    ) -> anyhow::Result<()> {
        let mut left: Vec<(&str, u32)> = wanted.to_vec();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while left.iter().any(|(_, count)| *count > 0) {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = event.with_context(|| format!("not seen in the southbound database: {left:?}"))?;
            let changes = match event.context("the southbound database is gone")? {
                Event::Reloaded(changes) | Event::Changed(changes) => changes,
                // A server that is busy for long: what changed comes with the next connection.
                Event::Disconnected => continue,
            };
            for change in changes.iter().filter(|change| is_it(change)) {
                let name = name_of(change);
                for (_, count) in left.iter_mut().filter(|(of, _)| *of == name) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        Ok(())
    }
}

fn name_of(change: &UntypedChange) -> &str {
    let row: Option<&Arc<Columns>> = change.after.as_ref().or(change.before.as_ref());
    row.and_then(|row| row.get("name")?.as_str()).unwrap_or_default()
}

/// A tenant, with the load balancers that are created while northd is measured.
struct Api {
    balancers: LoadBalancerServiceClient<tonic::transport::Channel>,
    backends: BackendServiceClient<tonic::transport::Channel>,
    /// Names and ids.
    made: Vec<(String, String)>,
}

impl Api {
    fn connect(bench: &Bench) -> anyhow::Result<Self> {
        let channel = bench.plugin.channel()?;
        Ok(Self {
            balancers: LoadBalancerServiceClient::new(channel.clone()),
            backends: BackendServiceClient::new(channel),
            made: Vec::new(),
        })
    }

    async fn create(&mut self, bench: &Bench, number: u32) -> anyhow::Result<String> {
        let tree = Some(tree(number, &bench.networks)?);
        let request = v1::ApplyLoadBalancerRequest { tree, ..Default::default() };
        let made = self.balancers.apply_load_balancer(request).await?.into_inner().tree;
        let root = made.and_then(|tree| tree.load_balancer).context("no load balancer")?;
        self.made.push((root.name.clone(), root.id));
        Ok(root.name)
    }

    /// The backend with this index of each load balancer, with the name of that.
    async fn backends(&mut self, index: usize) -> anyhow::Result<Vec<(String, String)>> {
        let mut backends = Vec::new();
        for (name, id) in &self.made {
            let request = v1::GetStatusTreeRequest { load_balancer_id: id.clone() };
            let tree = self.balancers.get_status_tree(request).await?.into_inner();
            let backend =
                tree.pools.first().and_then(|pool| pool.backends.get(index)).context("no backend")?;
            backends.push((name.clone(), backend.id.clone()));
        }
        Ok(backends)
    }

    /// Changes one field of one of these backends; the name of its load balancer.
    async fn update(
        &mut self,
        backends: &[(String, String)],
        number: u32,
        backend: v1::Backend,
        field: &str,
    ) -> anyhow::Result<String> {
        let (name, id) = backends.get(usize::try_from(number)?).context("no such backend")?;
        let backend = Some(v1::Backend { id: id.clone(), ..backend });
        let update_mask = Some(prost_types::FieldMask { paths: vec![field.to_owned()] });
        let request = v1::UpdateBackendRequest { backend, update_mask, ..Default::default() };
        self.backends.update_backend(request).await?;
        Ok(name.clone())
    }

    /// Deletes one of the load balancers; its name.
    async fn delete(&mut self) -> anyhow::Result<String> {
        let (name, id) = self.made.pop().context("no load balancer is left")?;
        let request = v1::DeleteLoadBalancerRequest { id, cascade: true, ..Default::default() };
        self.balancers.delete_load_balancer(request).await?;
        Ok(name)
    }
}
