//! The loop that brings the machine to the desired state, and checks periodically that it still is in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::ready;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fiberlb_daemon::backoff::Backoff;
use fiberlb_node::ovs::{Change, Plug, Vswitch};
use fiberlb_northbound::plan::Installation;
use ovsdb::client::{Client, Event};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use uuid::Uuid;

use super::announcements::Announcements;
use super::error::NetworkError;
use super::machine::Machine;
use super::names::Names;
use super::networks::NetworkSettings;
use super::ports::Ports;
use super::state::{DesiredNetworks, NetworkState, NetworksState};
use super::tenant::{Tenant, announced};
use crate::configuration::Network;

/// Interval at which names and links are checked.
const CHECK: Duration = Duration::from_secs(1);
/// Interval at which all of a network is checked.
const FULL_CHECK: Duration = Duration::from_secs(60);
/// Backoff of a network that failed.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Longest wait for Open vSwitch's database at the start: it has the datapath type of the bridge.
const VSWITCH: Duration = Duration::from_secs(1);
/// Time after which a VIP that is known from disk only is announced, unless the plugin has revoked it by
/// then.
const STORED_VIP_DELAY: Duration = Duration::from_secs(5);
/// Interval at which the state is published while there is more to do: networks that are ready need not wait
/// for the others.
const PUBLISH: Duration = Duration::from_millis(200);

/// Failure of a network, and time of its retry.
#[derive(Debug)]
struct NetworkFailure {
    reason: String,
    count: u32,
    retry_at: Instant,
}

pub(super) struct Reconciler {
    netns_directory: PathBuf,
    /// None until the installation is known.
    machine: Option<Machine>,
    ports: Ports,
    desired: watch::Receiver<DesiredNetworks>,
    /// The desired state that is being applied.
    current: DesiredNetworks,
    tenants: HashMap<Uuid, Tenant>,
    failures: HashMap<Uuid, NetworkFailure>,
    port_errors: HashMap<Uuid, String>,
    /// Networks to check fully.
    due: BTreeSet<Uuid>,
    ports_are_due: bool,
    announcements: Announcements,
    state: watch::Sender<NetworksState>,
    published_at: Instant,
    chassis: watch::Sender<String>,
}

impl Reconciler {
    /// A reconciler that has done nothing yet.
    pub(super) fn new(
        settings: &NetworkSettings,
        ports: Ports,
        desired: watch::Receiver<DesiredNetworks>,
        state: watch::Sender<NetworksState>,
        chassis: watch::Sender<String>,
    ) -> Self {
        Self {
            netns_directory: settings.netns_directory.clone(),
            machine: None,
            ports,
            desired,
            current: DesiredNetworks::default(),
            tenants: HashMap::new(),
            failures: HashMap::new(),
            port_errors: HashMap::new(),
            due: BTreeSet::new(),
            ports_are_due: false,
            announcements: Announcements::default(),
            state,
            published_at: Instant::now(),
            chassis,
        }
    }

    /// Runs until the sender of the desired state is dropped.
    pub(super) async fn run(
        mut self,
        client: Client<Vswitch>,
        mut events: mpsc::UnboundedReceiver<Event<Change>>,
    ) {
        let mut status = client.status();
        // Without an answer it goes on: sockets and namespaces do not need it.
        let _ = timeout(VSWITCH, status.wait_for(|status| status.is_live())).await;
        let (mut checks, mut full_checks) = (interval(CHECK), interval(FULL_CHECK));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        full_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.desired.mark_changed();
        loop {
            let announcement = self.announcements.due_at();
            let has_work = !self.due.is_empty() || self.ports_are_due;
            tokio::select! {
                biased;
                () = until(announcement) => self.announce(),
                changed = self.desired.changed() => match changed {
                    Ok(()) => self.change_desired().await,
                    Err(_) => return,
                },
                Some(event) = events.recv() => self.vswitch_changed(&event),
                _ = full_checks.tick() => self.due.extend(self.current.networks.keys()),
                _ = checks.tick() => self.check().await,
                () = ready(()), if has_work => self.work().await,
            }
        }
    }

    /// Replaces the desired state.
    async fn change_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.current, desired);
        if before.installation != self.current.installation {
            self.change_installation().await;
        }
        let is_new = |id: &&Uuid| before.networks.get(*id) != self.current.networks.get(*id);
        self.due.extend(self.current.networks.keys().filter(is_new));
        self.failures.retain(|id, _| self.current.networks.contains_key(id));
        if self.current.is_complete && !before.is_complete {
            let networks: Vec<Uuid> = self.tenants.keys().copied().collect();
            networks.into_iter().for_each(|id| self.announce_anew(id));
        }
        // Ports of removed networks are removed first, then the networks.
        self.ports_are_due = true;
    }

    /// Starts over for another installation; the objects of the previous one are removed.
    async fn change_installation(&mut self) {
        if let Some(before) = self.machine.take() {
            tracing::warn!(
                "this node belongs to another installation now: removing the objects of the previous one"
            );
            self.remove_others(&before, &BTreeSet::new()).await;
        }
        self.tenants.clear();
        self.announcements = Announcements::default();
        self.machine = self.current.installation.and_then(|installation| self.open(installation));
    }

    fn open(&self, installation: Installation) -> Option<Machine> {
        let opened = Machine::open(Names(installation), &self.netns_directory);
        opened.inspect_err(|error| tracing::error!(%error, "cannot manage networks on this machine")).ok()
    }

    fn vswitch_changed(&mut self, event: &Event<Change>) {
        let chassis = self.ports.chassis();
        self.chassis.send_if_modified(|known| {
            let is_changed = *known != chassis;
            known.clone_from(&chassis);
            is_changed
        });
        let (Event::Reloaded(changes) | Event::Changed(changes)) = event else { return };
        self.ports_are_due = true;
        let is_bridge =
            |change: &Change| matches!(change, Change::Bridge { name } if name == self.ports.bridge());
        if changes.iter().any(is_bridge) {
            // Its datapath type may have changed.
            self.due.extend(self.current.networks.keys());
        }
    }

    /// Checks quickly that names and links exist, and schedules retries.
    async fn check(&mut self) {
        let now = Instant::now();
        if self.machine.is_none() {
            self.machine = self.current.installation.and_then(|installation| self.open(installation));
        }
        let Some(machine) = &self.machine else { return };
        let linked = machine.linked(self.current.networks.keys()).await.unwrap_or_default();
        let is_whole = |id: &Uuid| {
            linked.contains(id) && self.tenants.get(id).is_some_and(|tenant| machine.is_named(*id, tenant))
        };
        let is_due = |id: &&Uuid| match self.failures.get(*id) {
            Some(failure) => failure.retry_at <= now,
            None => !is_whole(id),
        };
        let due: Vec<Uuid> = self.current.networks.keys().filter(is_due).copied().collect();
        self.due.extend(due);
        self.ports_are_due |= !self.port_errors.is_empty();
    }

    /// Does one piece of work: networks first, then the ports of all of them.
    async fn work(&mut self) {
        if let Some(id) = self.due.pop_first() {
            self.ensure(id).await;
            if self.published_at.elapsed() >= PUBLISH {
                let applied_before = self.state.borrow().sequence;
                self.publish(applied_before);
            }
            return;
        }
        self.ports_are_due = false;
        self.plug().await;
        self.publish(self.current.sequence);
    }

    async fn ensure(&mut self, id: Uuid) {
        self.ports_are_due = true;
        let Some(item) = self.current.networks.get(&id) else { return };
        let Some(machine) = &self.machine else { return self.record(id, Err(NetworkError::Machine)) };
        let network = &item.value;
        let before = self.tenants.remove(&id);
        let namespace = before.as_ref().map(|tenant| tenant.netns.key());
        let outcome = match machine.namespace(id, before) {
            Err(error) => Err(error),
            Ok(mut tenant) => {
                let is_new = namespace != Some(tenant.netns.key());
                self.unplug_unpaired(machine, &tenant, id).await;
                let done = machine.configure(&mut tenant, network, self.ports.is_userspace()).await;
                let wait = if self.current.is_complete { Duration::ZERO } else { STORED_VIP_DELAY };
                self.announcements.set(id, &announced(network), is_new, Instant::now() + wait);
                self.tenants.insert(id, tenant);
                done
            }
        };
        self.record(id, outcome);
    }

    /// Removes the port of links that will be created anew: ovs-vswitchd would keep the old link, which is
    /// gone, and not notice another one of its name.
    async fn unplug_unpaired(&self, machine: &Machine, tenant: &Tenant, id: Uuid) {
        if machine.is_paired(tenant, id).await.unwrap_or(true) {
            return;
        }
        if let Err(error) = self.ports.unplug(machine.names, id).await {
            tracing::debug!(network = %id, %error, "cannot remove the port of links that are gone");
        }
    }

    fn record(&mut self, id: Uuid, outcome: Result<(), NetworkError>) {
        let Err(error) = outcome else {
            if self.failures.remove(&id).is_some() {
                tracing::info!(network = %id, "network recovered");
            }
            return;
        };
        let reason = error.to_string();
        let count = self.failures.get(&id).map_or(0, |failure| failure.count) + 1;
        if count == 1 {
            tracing::warn!(network = %id, %reason, "cannot apply network; retrying");
        }
        self.failures
            .insert(id, NetworkFailure { reason, count, retry_at: Instant::now() + RETRY.after(count) });
    }

    async fn plug(&mut self) {
        let Some(machine) = self.machine.clone() else { return };
        let plugs = self.plugs(machine.names);
        let plugged = match self.current.is_complete {
            true => self.ports.sweep(machine.names, &plugs).await,
            false => self.ports.plug(machine.names, &plugs).await,
        };
        let errors = match plugged {
            Ok(errors) => errors.into_iter().map(|(id, error)| (id, error.to_string())).collect(),
            Err(error) => plugs.iter().map(|plug| (plug.owner.id, error.to_string())).collect(),
        };
        self.record_ports(errors);
        let wanted = self.current.networks.keys().copied().collect();
        if self.current.is_complete {
            self.remove_others(&machine, &wanted).await;
        }
    }

    fn plugs(&self, names: Names) -> Vec<Plug> {
        let plug = |network: &Network| {
            let (owner, link) = (names.owner(network.id), names.outside(network.id).ok()?);
            Some(Plug { owner, link, iface_id: network.port_name.clone() })
        };
        self.current.networks.values().filter_map(|item| plug(&item.value)).collect()
    }

    fn record_ports(&mut self, errors: HashMap<Uuid, String>) {
        let is_changed =
            |(network, reason): &(&Uuid, &String)| self.port_errors.get(*network) != Some(*reason);
        let mut changed: BTreeMap<&String, Vec<&Uuid>> = BTreeMap::new();
        for (network, reason) in errors.iter().filter(is_changed) {
            changed.entry(reason).or_default().push(network);
        }
        for (reason, networks) in changed {
            let (network, count) = (networks.first(), networks.len());
            tracing::warn!(?network, count, %reason, "cannot apply ports of networks; retrying");
        }
        let before = std::mem::replace(&mut self.port_errors, errors);
        for healed in before.into_keys().filter(|id| !self.port_errors.contains_key(id)).collect::<Vec<_>>() {
            // Announcements from before the port existed reached nobody.
            self.announce_anew(healed);
        }
    }

    fn announce_anew(&mut self, id: Uuid) {
        if let Some(item) = self.current.networks.get(&id) {
            self.announcements.set(id, &announced(&item.value), true, Instant::now());
        }
    }

    /// Removes all other networks of the installation.
    async fn remove_others(&mut self, machine: &Machine, wanted: &BTreeSet<Uuid>) {
        let others = match machine.leftovers(|id| wanted.contains(id)) {
            Ok(others) => others,
            Err(error) => {
                return tracing::warn!(%error, "cannot list networks that are no longer placed here");
            }
        };
        for id in others {
            self.tenants.remove(&id);
            self.announcements.set(id, &BTreeMap::new(), false, Instant::now());
            if let Err(error) = machine.remove(id).await {
                tracing::warn!(network = %id, %error, "cannot remove a network that is no longer placed here");
            }
        }
    }

    fn announce(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.announcements.take_due(now) {
            let (network, address) = due.address;
            let Some(tenant) = self.tenants.get(&network) else { continue };
            if due.needs_leader && !self.current.is_led {
                continue;
            }
            if let Err(error) = tenant.announce(address, due.mac) {
                tracing::debug!(%network, %address, %error, "cannot announce an address");
            }
        }
    }

    fn publish(&mut self, sequence: u64) {
        self.published_at = Instant::now();
        let state = |id: &Uuid| {
            let tenant = self.tenants.get(id);
            let failure = self.failures.get(id).map(|failure| &failure.reason);
            NetworkState {
                sockets: tenant.map(|tenant| tenant.sockets.clone() as _),
                error: failure.or_else(|| self.port_errors.get(id)).cloned(),
                held: tenant.map(|tenant| tenant.held.clone()).unwrap_or_default(),
            }
        };
        let networks = self.current.networks.keys().map(|id| (*id, state(id))).collect();
        let state = NetworksState { sequence, networks };
        self.state.send_if_modified(|known| {
            let is_changed = *known != state;
            *known = state;
            is_changed
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
