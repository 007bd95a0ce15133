//! The loop that makes the machine what it should be, and looks again and again whether it still is.

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
use super::networks::Settings;
use super::ports::Ports;
use super::state::{NetworkState, State, Wanted};
use super::tenant::{Tenant, vips};
use crate::configuration::Network;

/// How often names and links are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often all of a network is looked at.
const LOOK_CLOSELY: Duration = Duration::from_secs(60);
/// Backoff of a network that failed.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// At the start, so long for Open vSwitch's database: it says of which kind the bridge is.
const VSWITCH: Duration = Duration::from_secs(1);
/// A VIP that only the disk remembers is announced after this, unless the plugin says before whose it is now.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Who is ready need not wait for all: while there is much to do, the state is told in between.
const TELL: Duration = Duration::from_millis(200);

/// Why a network is not as it should be, and when it is tried again.
#[derive(Debug)]
struct Failure {
    reason: String,
    count: u32,
    retry_at: Instant,
}

pub(super) struct Reconciler {
    netns_directory: PathBuf,
    /// None as long as nobody knows the installation.
    machine: Option<Machine>,
    ports: Ports,
    wanted: watch::Receiver<Wanted>,
    /// The one that is being carried out.
    order: Wanted,
    tenants: HashMap<Uuid, Tenant>,
    failures: HashMap<Uuid, Failure>,
    port_errors: HashMap<Uuid, String>,
    /// Networks to look at closely.
    due: BTreeSet<Uuid>,
    ports_are_due: bool,
    announcements: Announcements,
    state: watch::Sender<State>,
    told_at: Instant,
    chassis: watch::Sender<String>,
}

impl Reconciler {
    /// A reconciler that has done nothing yet.
    pub(super) fn new(
        settings: &Settings,
        ports: Ports,
        wanted: watch::Receiver<Wanted>,
        state: watch::Sender<State>,
        chassis: watch::Sender<String>,
    ) -> Self {
        Self {
            netns_directory: settings.netns_directory.clone(),
            machine: None,
            ports,
            wanted,
            order: Wanted::default(),
            tenants: HashMap::new(),
            failures: HashMap::new(),
            port_errors: HashMap::new(),
            due: BTreeSet::new(),
            ports_are_due: false,
            announcements: Announcements::default(),
            state,
            told_at: Instant::now(),
            chassis,
        }
    }

    /// Runs until nobody can tell it what is wanted any more.
    pub(super) async fn run(
        mut self,
        client: Client<Vswitch>,
        mut events: mpsc::UnboundedReceiver<Event<Change>>,
    ) {
        let mut status = client.status();
        // Without an answer it goes on: sockets and namespaces do not need it.
        let _ = timeout(VSWITCH, status.wait_for(|status| status.is_live())).await;
        let (mut looks, mut close_looks) = (interval(LOOK), interval(LOOK_CLOSELY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        close_looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.wanted.mark_changed();
        loop {
            let announcement = self.announcements.due_at();
            let has_work = !self.due.is_empty() || self.ports_are_due;
            tokio::select! {
                biased;
                () = until(announcement) => self.announce(),
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.take_order().await,
                    Err(_) => return,
                },
                Some(event) = events.recv() => self.hear(&event),
                _ = close_looks.tick() => self.due.extend(self.order.networks.keys()),
                _ = looks.tick() => self.look().await,
                () = ready(()), if has_work => self.work().await,
            }
        }
    }

    /// Takes what is wanted now, in place of what was.
    async fn take_order(&mut self) {
        let order = self.wanted.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.order, order);
        if before.installation != self.order.installation {
            self.change_installation().await;
        }
        let is_new = |id: &&Uuid| before.networks.get(*id) != self.order.networks.get(*id);
        self.due.extend(self.order.networks.keys().filter(is_new));
        self.failures.retain(|id, _| self.order.networks.contains_key(id));
        if self.order.is_complete && !before.is_complete {
            let networks: Vec<Uuid> = self.tenants.keys().copied().collect();
            networks.into_iter().for_each(|id| self.announce_anew(id));
        }
        // Ports of networks that are gone go first, then these themselves.
        self.ports_are_due = true;
    }

    /// Another installation begins with nothing; what the one before had goes.
    async fn change_installation(&mut self) {
        if let Some(before) = self.machine.take() {
            tracing::warn!(
                "this node belongs to another installation now: removing what it had of the one before"
            );
            self.remove_others(&before, &BTreeSet::new()).await;
        }
        self.tenants.clear();
        self.announcements = Announcements::default();
        self.machine = self.order.installation.and_then(|installation| self.open(installation));
    }

    fn open(&self, installation: Installation) -> Option<Machine> {
        let opened = Machine::open(Names(installation), &self.netns_directory);
        opened.inspect_err(|error| tracing::error!(%error, "cannot manage networks on this machine")).ok()
    }

    fn hear(&mut self, event: &Event<Change>) {
        let chassis = self.ports.chassis();
        self.chassis.send_if_modified(|known| {
            let is_news = *known != chassis;
            known.clone_from(&chassis);
            is_news
        });
        let (Event::Reloaded(changes) | Event::Changed(changes)) = event else { return };
        self.ports_are_due = true;
        let is_bridge =
            |change: &Change| matches!(change, Change::Bridge { name } if name == self.ports.bridge());
        if changes.iter().any(is_bridge) {
            // It may be of another kind than before.
            self.due.extend(self.order.networks.keys());
        }
    }

    /// A quick look at all: whether names and links are there, and whether something is to be tried again.
    async fn look(&mut self) {
        let now = Instant::now();
        if self.machine.is_none() {
            self.machine = self.order.installation.and_then(|installation| self.open(installation));
        }
        let Some(machine) = &self.machine else { return };
        let linked = machine.linked(self.order.networks.keys()).await.unwrap_or_default();
        let is_whole = |id: &Uuid| {
            linked.contains(id) && self.tenants.get(id).is_some_and(|tenant| machine.is_named(*id, tenant))
        };
        let is_due = |id: &&Uuid| match self.failures.get(*id) {
            Some(failure) => failure.retry_at <= now,
            None => !is_whole(id),
        };
        let due: Vec<Uuid> = self.order.networks.keys().filter(is_due).copied().collect();
        self.due.extend(due);
        self.ports_are_due |= !self.port_errors.is_empty();
    }

    /// One piece of work: networks first, then the ports of all of them.
    async fn work(&mut self) {
        if let Some(id) = self.due.pop_first() {
            self.ensure(id).await;
            if self.told_at.elapsed() >= TELL {
                let carried_out_before = self.state.borrow().sequence;
                self.publish(carried_out_before);
            }
            return;
        }
        self.ports_are_due = false;
        self.plug().await;
        self.publish(self.order.sequence);
    }

    async fn ensure(&mut self, id: Uuid) {
        self.ports_are_due = true;
        let Some(item) = self.order.networks.get(&id) else { return };
        let Some(machine) = &self.machine else { return self.note(id, Err(NetworkError::Machine)) };
        let network = &item.value;
        let before = self.tenants.remove(&id);
        let namespace = before.as_ref().map(|tenant| tenant.netns.key());
        let outcome = match machine.namespace(id, before) {
            Err(error) => Err(error),
            Ok(mut tenant) => {
                let is_new = namespace != Some(tenant.netns.key());
                self.unplug_unpaired(machine, &tenant, id).await;
                let done = machine.furnish(&mut tenant, network, self.ports.is_userspace()).await;
                let wait = if self.order.is_complete { Duration::ZERO } else { REMEMBERED };
                self.announcements.set(id, &vips(network), is_new, Instant::now() + wait);
                self.tenants.insert(id, tenant);
                done
            }
        };
        self.note(id, outcome);
    }

    /// Takes out the port of links that will be made anew: ovs-vswitchd would go on with the link that was, which is gone,
    /// and not see that another one has its name.
    async fn unplug_unpaired(&self, machine: &Machine, tenant: &Tenant, id: Uuid) {
        if machine.is_paired(tenant, id).await.unwrap_or(true) {
            return;
        }
        if let Err(error) = self.ports.unplug(machine.names, id).await {
            tracing::debug!(network = %id, %error, "cannot take out the port of links that are gone");
        }
    }

    fn note(&mut self, id: Uuid, outcome: Result<(), NetworkError>) {
        let Err(error) = outcome else {
            if self.failures.remove(&id).is_some() {
                tracing::info!(network = %id, "the network is as it should be again");
            }
            return;
        };
        let reason = error.to_string();
        let count = self.failures.get(&id).map_or(0, |failure| failure.count) + 1;
        if count == 1 {
            tracing::warn!(network = %id, %reason, "the network is not as it should be; trying again");
        }
        self.failures.insert(id, Failure { reason, count, retry_at: Instant::now() + RETRY.after(count) });
    }

    async fn plug(&mut self) {
        let Some(machine) = self.machine.clone() else { return };
        let plugs = self.plugs(machine.names);
        let plugged = match self.order.is_complete {
            true => self.ports.sweep(machine.names, &plugs).await,
            false => self.ports.plug(machine.names, &plugs).await,
        };
        let errors = match plugged {
            Ok(errors) => errors.into_iter().map(|(id, error)| (id, error.to_string())).collect(),
            Err(error) => plugs.iter().map(|plug| (plug.owner.id, error.to_string())).collect(),
        };
        self.note_ports(errors);
        let wanted = self.order.networks.keys().copied().collect();
        if self.order.is_complete {
            self.remove_others(&machine, &wanted).await;
        }
    }

    fn plugs(&self, names: Names) -> Vec<Plug> {
        let plug = |network: &Network| {
            let (owner, link) = (names.owner(network.id), names.outside(network.id).ok()?);
            Some(Plug { owner, link, iface_id: network.port_name.clone() })
        };
        self.order.networks.values().filter_map(|item| plug(&item.value)).collect()
    }

    fn note_ports(&mut self, errors: HashMap<Uuid, String>) {
        let is_news = |(network, reason): &(&Uuid, &String)| self.port_errors.get(*network) != Some(*reason);
        let mut news: BTreeMap<&String, Vec<&Uuid>> = BTreeMap::new();
        for (network, reason) in errors.iter().filter(is_news) {
            news.entry(reason).or_default().push(network);
        }
        for (reason, networks) in news {
            let (network, count) = (networks.first(), networks.len());
            tracing::warn!(?network, count, %reason, "ports of networks are not as they should be; trying again");
        }
        let before = std::mem::replace(&mut self.port_errors, errors);
        for healed in before.into_keys().filter(|id| !self.port_errors.contains_key(id)).collect::<Vec<_>>() {
            // What was said before the port was there was heard by nobody.
            self.announce_anew(healed);
        }
    }

    fn announce_anew(&mut self, id: Uuid) {
        if let Some(item) = self.order.networks.get(&id) {
            self.announcements.set(id, &vips(&item.value), true, Instant::now());
        }
    }

    /// Removes networks of the installation but for these.
    async fn remove_others(&mut self, machine: &Machine, wanted: &BTreeSet<Uuid>) {
        let others = match machine.leftovers(|id| wanted.contains(id)) {
            Ok(others) => others,
            Err(error) => {
                return tracing::warn!(%error, "cannot look for networks that are not wanted any more");
            }
        };
        for id in others {
            self.tenants.remove(&id);
            self.announcements.set(id, &BTreeSet::new(), false, Instant::now());
            if let Err(error) = machine.remove(id).await {
                tracing::warn!(network = %id, %error, "cannot remove a network that is not wanted any more");
            }
        }
    }

    fn announce(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.announcements.take_due(now) {
            let (network, vip) = due.held;
            let Some(tenant) = self.tenants.get(&network) else { continue };
            if due.is_repetition && !self.order.is_led {
                continue;
            }
            if let Err(error) = tenant.announce(vip) {
                tracing::debug!(%network, %vip, %error, "cannot announce a VIP");
            }
        }
    }

    fn publish(&mut self, sequence: u64) {
        self.told_at = Instant::now();
        let state = |id: &Uuid| {
            let tenant = self.tenants.get(id);
            let failure = self.failures.get(id).map(|failure| &failure.reason);
            NetworkState {
                sockets: tenant.map(|tenant| tenant.sockets.clone() as _),
                error: failure.or_else(|| self.port_errors.get(id)).cloned(),
                held: tenant.map(|tenant| tenant.held.clone()).unwrap_or_default(),
            }
        };
        let networks = self.order.networks.keys().map(|id| (*id, state(id))).collect();
        let state = State { sequence, networks };
        self.state.send_if_modified(|known| {
            let is_news = *known != state;
            *known = state;
            is_news
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
