//! The cloud of the demo: one tenant network over two hypervisors, with clients and backends on both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use fiberlb_lab::workload::Server;
use fiberlb_lab::{Lab, Vm, VmSpec, find_labs};

use crate::terminal::Terminal;

/// The tenant's network: an OVN logical switch.
pub(crate) const NETWORK: &str = "tenant-net";
/// Port of the backends.
pub(crate) const BACKEND_PORT: u16 = 8080;

/// The hypervisors.
pub(crate) const CHASSIS: [&str; 2] = ["ch1", "ch2"];

/// Name, chassis and address of each client.
const CLIENTS: [(&str, &str, &str); 2] = [("client1", "ch1", "10.0.0.101"), ("client2", "ch2", "10.0.0.102")];
/// The same of each backend; the last one is the spare.
const BACKENDS: [(&str, &str, &str); 4] = [
    ("backend1", "ch1", "10.0.0.11"),
    ("backend2", "ch2", "10.0.0.12"),
    ("backend3", "ch2", "10.0.0.13"),
    ("backend4", "ch1", "10.0.0.14"),
];
/// All tables of the northbound database that a load balancer could leave a trace in.
const TABLES: [&str; 6] = [
    "Load_Balancer",
    "Load_Balancer_Group",
    "Logical_Switch",
    "Logical_Switch_Port",
    "Logical_Router",
    "Logical_Router_Port",
];

/// A lab with the tenant's machines in it.
#[derive(Debug)]
pub(crate) struct Cloud {
    /// The machines that send requests.
    pub(crate) clients: Vec<Vm>,
    /// The machines that answer.
    pub(crate) backends: Vec<Vm>,
    servers: BTreeMap<String, Server>,
    lab: Lab,
}

impl Cloud {
    /// Starts OVN, the machines, and a server on each backend.
    ///
    /// # Errors
    /// The machine cannot run a lab, or a part does not start.
    pub(crate) async fn start(terminal: &Terminal) -> Result<Cloud> {
        let lab = terminal
            .during("starting OVN's central part: two databases and ovn-northd", Lab::start(&lab_name()))
            .await?;
        terminal
            .during(
                "starting two chassis, each with Open vSwitch and ovn-controller",
                lab.add_all_chassis(&CHASSIS),
            )
            .await?;
        lab.add_switch(NETWORK, &[("subnet", "10.0.0.0/24")]).await?;
        let specs = CLIENTS.into_iter().chain(BACKENDS).map(spec).collect();
        let mut clients =
            terminal.during("plugging six machines into the tenant's network", lab.add_vms(specs)).await?;
        ensure!(clients.len() == CLIENTS.len() + BACKENDS.len(), "some machines are missing");
        let backends = clients.split_off(CLIENTS.len());
        let servers = backends.iter().map(serve).collect::<Result<_>>()?;
        terminal.during("waiting until both chassis know them all", lab.wait_for_sync()).await?;
        Ok(Cloud { clients, backends, servers, lab })
    }

    /// The lab, for agents on its chassis.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Stops the server on a backend.
    pub(crate) fn stop_server(&mut self, backend: &str) {
        drop(self.servers.remove(backend));
    }

    /// Starts the server on a backend again.
    ///
    /// # Errors
    /// There is no such backend, or its port is taken.
    pub(crate) fn start_server(&mut self, backend: &str) -> Result<()> {
        let vm = self.backends.iter().find(|vm| vm.name() == backend).context("there is no such backend")?;
        self.servers.extend([serve(vm)?]);
        Ok(())
    }

    /// The lab's name.
    pub(crate) fn name(&self) -> &str {
        self.lab.world().name()
    }

    /// Endpoint of OVN's northbound database.
    pub(crate) fn northbound(&self) -> String {
        self.lab.nb_endpoint()
    }

    /// The line to type for a shell in the lab.
    pub(crate) fn shell(&self) -> String {
        self.lab.nsenter_line()
    }

    /// Waits until all that is in OVN's database is in force on both chassis.
    ///
    /// # Errors
    /// A timeout of 20 s, or an aborted daemon.
    pub(crate) async fn in_force(&self) -> Result<()> {
        Ok(self.lab.wait_for_sync().await?)
    }

    /// Rows of the load balancers in OVN's database, for a person.
    ///
    /// # Errors
    /// `ovn-nbctl` fails.
    pub(crate) async fn load_balancer_rows(&self) -> Result<String> {
        let columns = ["--columns=protocol,vips", "list", "Load_Balancer"];
        Ok(self.lab.nbctl(&columns).await?)
    }

    /// Number of entries in OVN's database for a VIP with its port.
    ///
    /// # Errors
    /// `ovn-nbctl` fails.
    pub(crate) async fn entries(&self, vip: SocketAddr) -> Result<usize> {
        let listed = self.lab.nbctl(&["--bare", "--columns=vips", "list", "Load_Balancer"]).await?;
        let key = format!("{vip}=");
        let list = listed.split_whitespace().find_map(|pair| pair.strip_prefix(&key)).unwrap_or_default();
        Ok(list.split(',').filter(|entry| !entry.is_empty()).count())
    }

    /// All rows that a load balancer could leave a trace in, with all their columns.
    ///
    /// # Errors
    /// `ovn-nbctl` fails.
    pub(crate) async fn rows(&self) -> Result<BTreeSet<String>> {
        let mut rows = BTreeSet::new();
        for table in TABLES {
            let listed = self.lab.nbctl(&["list", table]).await?;
            rows.extend(
                listed
                    .split("\n\n")
                    .map(str::trim)
                    .filter(|row| !row.is_empty())
                    .map(|row| format!("{table}\n{row}")),
            );
        }
        Ok(rows)
    }

    /// The addresses of the clients.
    ///
    /// # Errors
    /// None for the machines made here.
    pub(crate) fn client_addresses(&self) -> Result<BTreeSet<IpAddr>> {
        Ok(self.clients.iter().map(Vm::ipv4).collect::<Result<_, _>>()?)
    }

    /// Takes everything away, and tells whether its daemons were well until now.
    ///
    /// # Errors
    /// A daemon logged an emergency.
    pub(crate) fn end(self) -> Result<()> {
        Ok(self.lab.close()?)
    }
}

/// `demo`, unless somebody keeps a demo of that name.
fn lab_name() -> String {
    let is_taken = find_labs().iter().any(|lab| lab.world.name() == "demo");
    if is_taken { format!("demo-{}", std::process::id()) } else { "demo".to_owned() }
}

fn spec((name, chassis, address): (&str, &str, &str)) -> VmSpec {
    VmSpec::new(name, chassis, NETWORK).address(&format!("{address}/24"))
}

fn serve(vm: &Vm) -> Result<(String, Server)> {
    let server = Server::tcp(vm, SocketAddr::new(vm.ipv4()?, BACKEND_PORT), vm.name())?;
    Ok((vm.name().to_owned(), server))
}
