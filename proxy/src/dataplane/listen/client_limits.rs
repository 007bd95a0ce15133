//! Limits of single clients of a listener on this node, and of the rate at which all of them connect: a table of clients by
//! address, shared by the workers. The tables are bounded in size, each for itself and all together.

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::rate::RateBucket;
use crate::dataplane::spec::Limits;

/// Parts of the table, each with a lock of its own: workers rarely meet.
const SHARDS: usize = 16;

/// Most clients in a shard: in all 65,536, some 6 MB a listener at most.
const SHARD_CAPACITY: usize = 4_096;

/// Most clients in the tables of all listeners of the node, some 100 MB.
const NODE_CAPACITY: usize = 1 << 20;

/// Interval at which all tables are looked through for clients that need no place any more: those of a listener to which
/// nobody connects any more would stay else.
const SWEEP: Duration = Duration::from_secs(5);

/// Clients in a shard below which it is not looked through for those that need no place any more.
const FEW: usize = 64;

/// Nanoseconds between two looks through a shard that is full of clients which need their places.
const FULL_PAUSE: u64 = 100_000_000;

/// Reason why a client is refused by one of these limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum LimitRefusal {
    /// It has as many connections as one client may have.
    ClientConnections,
    /// It connects too often.
    ClientRate,
    /// All clients together connect too often.
    Rate,
}

/// Outcome for a client that is admitted.
#[derive(Debug)]
pub(super) enum Admitted {
    /// Its connection counts as the client's until this is dropped.
    Counted(Box<ClientPlace>),
    /// No limit of single clients is set.
    Uncounted,
    /// The table is full.
    NoRoom,
}

/// Tables of all listeners of the node.
#[derive(Debug)]
pub(in crate::dataplane) struct ClientTables {
    capacity: usize,
    clients: AtomicUsize,
    gates: Mutex<Vec<Weak<ClientGate>>>,
}

impl Default for ClientTables {
    fn default() -> Self {
        Self { capacity: NODE_CAPACITY, clients: AtomicUsize::new(0), gates: Mutex::default() }
    }
}

impl ClientTables {
    /// Drops clients that need no place any more, again and again.
    pub(in crate::dataplane) async fn sweep_all(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            for gate in self.gates() {
                gate.sweep(Instant::now());
                tokio::task::yield_now().await;
            }
        }
    }

    fn gates(&self) -> Vec<Arc<ClientGate>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|gate| gate.strong_count() > 0);
        gates.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes a place for a client; false: there is none.
    fn take(&self) -> bool {
        let has_place = self.clients.fetch_add(1, Relaxed) < self.capacity;
        if !has_place {
            self.release(1);
        }
        has_place
    }

    fn release(&self, clients: usize) {
        self.clients.fetch_sub(clients, Relaxed);
    }
}

/// The table of one listener, with the rate of all of its clients. It outlives changes of the limits.
#[derive(Debug)]
pub(in crate::dataplane) struct ClientGate {
    tables: Arc<ClientTables>,
    started: Instant,
    /// Rate of each client in force; 0: there is none.
    client_rate: AtomicU32,
    all: Mutex<RateBucket>,
    shards: [Mutex<ClientShard>; SHARDS],
    /// Keyed at random: clients choose their addresses, and must not be able to choose their shard.
    hasher: std::hash::RandomState,
}

/// Connections of a client, now and in the last second.
#[derive(Clone, Copy, Debug, Default)]
struct ClientUse {
    connections: u32,
    rate: RateBucket,
}

impl ClientUse {
    /// True if its place can be another one's.
    fn is_over(&self, rate: Option<u32>, now: u64) -> bool {
        self.connections == 0 && rate.is_none_or(|rate| self.rate.is_empty(rate, now))
    }
}

impl ClientGate {
    /// The gate for these limits, if they need one: the one that is `kept` for the listener, or a new one.
    pub(in crate::dataplane) fn of(
        limits: &Limits,
        kept: &mut Option<Arc<Self>>,
        tables: &Arc<ClientTables>,
    ) -> Option<Arc<Self>> {
        if !limits.need_counting() {
            return None;
        }
        let gate = kept.get_or_insert_with(|| Self::new(tables));
        gate.client_rate.store(limits.client_connection_rate.unwrap_or(0), Relaxed);
        Some(Arc::clone(gate))
    }

    /// A gate that nobody has passed yet.
    fn new(tables: &Arc<ClientTables>) -> Arc<Self> {
        let gate = Arc::new(Self {
            tables: Arc::clone(tables),
            started: Instant::now(),
            client_rate: AtomicU32::new(0),
            all: Mutex::default(),
            shards: Default::default(),
            hasher: std::hash::RandomState::new(),
        });
        tables.gates.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&gate));
        gate
    }

    /// Admits one more connection of a client.
    ///
    /// # Errors
    /// The reason why it is refused. It takes nothing of what the others have then.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<Admitted, LimitRefusal> {
        let now = self.clock(now);
        let Limits { client_connections, connection_rate, client_connection_rate: rate, .. } = *limits;
        if client_connections.is_none() && rate.is_none() {
            self.take_one(connection_rate, now)?;
            return Ok(Admitted::Uncounted);
        }
        let client = client.to_canonical();
        let mut shard = self.shard(client);
        let known = shard.clients.get(&client).copied();
        let mut used = known.unwrap_or_default();
        if client_connections.is_some_and(|limit| used.connections >= limit) {
            return Err(LimitRefusal::ClientConnections);
        }
        if rate.is_some_and(|rate| !used.rate.has_room(rate, now)) {
            return Err(LimitRefusal::ClientRate);
        }
        self.take_one(connection_rate, now)?;
        if known.is_none() && !shard.make_room(rate, now, &self.tables) {
            return Ok(Admitted::NoRoom);
        }
        used.connections = used.connections.saturating_add(1);
        if let Some(rate) = rate {
            used.rate.add(rate, now);
        }
        shard.clients.insert(client, used);
        Ok(Admitted::Counted(Box::new(ClientPlace { gate: Arc::clone(self), client })))
    }

    fn take_one(&self, rate: Option<u32>, now: u64) -> Result<(), LimitRefusal> {
        let Some(rate) = rate else { return Ok(()) };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.has_room(rate, now) {
            return Err(LimitRefusal::Rate);
        }
        all.add(rate, now);
        Ok(())
    }

    fn clock(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Drops the clients that need no place any more.
    fn sweep(&self, now: Instant) {
        let rate = Some(self.client_rate.load(Relaxed)).filter(|rate| *rate > 0);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.sweep(rate, self.clock(now), &self.tables);
        }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, ClientShard> {
        let hash = self.hasher.hash_one(client);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientGate {
    fn drop(&mut self) {
        let shards = self.shards.iter_mut();
        let clients =
            shards.map(|shard| shard.get_mut().unwrap_or_else(PoisonError::into_inner).clients.len());
        self.tables.release(clients.sum());
    }
}

/// A connection of a client, counted until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct ClientPlace {
    gate: Arc<ClientGate>,
    client: IpAddr,
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.gate.shard(self.client).end_one(self.client, &self.gate.tables);
    }
}

/// Part of the table. A client's place is another one's as soon as it has no connection and its latest ones are a second
/// old.
#[derive(Debug, Default)]
struct ClientShard {
    clients: HashMap<IpAddr, ClientUse>,
    /// Number of clients at which places are looked for that are over.
    sweep_at: usize,
    /// Time before which that is not worth a look.
    full_until: u64,
}

impl ClientShard {
    /// Makes room for one more client; false: there is none. Looking through the clients costs each of them, over time, as
    /// much as inserting it.
    fn make_room(&mut self, rate: Option<u32>, now: u64, tables: &ClientTables) -> bool {
        let sweep_at = self.sweep_at.max(FEW);
        if self.clients.len() >= sweep_at && now >= self.full_until {
            self.sweep(rate, now, tables);
        }
        self.clients.len() < SHARD_CAPACITY && tables.take()
    }

    /// Drops the clients that need no place any more.
    fn sweep(&mut self, rate: Option<u32>, now: u64, tables: &ClientTables) {
        let before = self.clients.len();
        self.clients.retain(|_, used| !used.is_over(rate, now));
        let left = self.clients.len();
        tables.release(before - left);
        self.sweep_at = (2 * left).clamp(FEW, SHARD_CAPACITY);
        self.full_until = if left < SHARD_CAPACITY { 0 } else { now.saturating_add(FULL_PAUSE) };
        if self.clients.capacity() > 4 * self.sweep_at {
            self.clients.shrink_to(self.sweep_at);
        }
    }

    fn end_one(&mut self, client: IpAddr, tables: &ClientTables) {
        let Some(used) = self.clients.get_mut(&client) else { return };
        used.connections = used.connections.saturating_sub(1);
        if used.connections == 0 && used.rate.is_unused() {
            self.clients.remove(&client);
            tables.release(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const NONE: Limits = Limits {
        connections: None,
        client_data: None,
        backend_connect: None,
        backend_data: None,
        client_connections: None,
        connection_rate: None,
        client_connection_rate: None,
        bandwidth: None,
        half_close: None,
    };

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn gate() -> Arc<ClientGate> {
        ClientGate::new(&Arc::default())
    }

    fn held(gate: &ClientGate) -> usize {
        gate.shards.iter().map(|shard| shard.lock().unwrap().clients.len()).sum()
    }

    #[test]
    fn a_gate_is_there_where_a_limit_needs_it_and_outlives_its_change() {
        let (mut kept, tables) = (None, Arc::default());
        let mut of = |limits| ClientGate::of(&limits, &mut kept, &tables);
        assert!(of(NONE).is_none());
        let gate = of(Limits { connection_rate: Some(1), ..NONE }).unwrap();
        let other = Limits { client_connections: Some(1), ..NONE };
        assert!(Arc::ptr_eq(&gate, &of(other).unwrap()));
        assert!(of(NONE).is_none());
        assert!(Arc::ptr_eq(&gate, &of(other).unwrap()), "those that it counts are still there");
    }

    #[test]
    fn all_tables_together_are_bounded_and_clients_of_long_ago_leave_their_places() {
        let tables = Arc::new(ClientTables { capacity: 100, ..ClientTables::default() });
        let limits = Limits { client_connection_rate: Some(1), ..NONE };
        let [mut kept, mut other] = [None, None];
        let (first, now) = (ClientGate::of(&limits, &mut kept, &tables).unwrap(), Instant::now());
        let second = ClientGate::of(&limits, &mut other, &tables).unwrap();
        let is_counted = |gate: &Arc<ClientGate>, number, now| {
            matches!(gate.admit(address(number), &limits, now), Ok(Admitted::Counted(_)))
        };
        let counted = (0..200).filter(|number| is_counted(&first, *number, now)).count();
        assert_eq!((counted, held(&first), is_counted(&second, 1, now)), (100, 100, false));
        tables.gates().iter().for_each(|gate| gate.sweep(now));
        assert_eq!(held(&first), 100, "of a moment ago");
        let later = now + Duration::from_secs(2);
        tables.gates().iter().for_each(|gate| gate.sweep(later));
        assert_eq!((held(&first), tables.clients.load(Relaxed)), (0, 0));
        assert!((0..50).all(|number| is_counted(&second, number, later)));
        drop((second, other));
        assert_eq!((tables.gates().len(), tables.clients.load(Relaxed)), (1, 0));
    }

    #[test]
    fn a_client_has_its_number_of_connections_and_leaves_nothing_behind() {
        let (gate, now) = (gate(), Instant::now());
        let limits = Limits { client_connections: Some(2), ..NONE };
        let ask = |client: &str| match gate.admit(client.parse().unwrap(), &limits, now) {
            Ok(Admitted::Counted(place)) => Ok(place),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        };
        let first = ask("192.0.2.1").unwrap();
        let _second = ask("::ffff:192.0.2.1").unwrap();
        assert_eq!(ask("192.0.2.1").unwrap_err(), LimitRefusal::ClientConnections);
        let other = ask("2001:db8::1").unwrap();
        drop(ask("2001:db8::2").unwrap());
        drop(first);
        let _third = ask("192.0.2.1").unwrap();
        assert_eq!(ask("192.0.2.1").unwrap_err(), LimitRefusal::ClientConnections);
        drop(other);
        assert_eq!(held(&gate), 1);
    }

    #[test]
    fn who_is_refused_takes_nothing_of_the_rate_of_all() {
        let (gate, now) = (gate(), Instant::now());
        let limits = Limits { connection_rate: Some(3), client_connection_rate: Some(2), ..NONE };
        let ask = |client, after| {
            let admitted = gate.admit(address(client), &limits, now + Duration::from_millis(after));
            admitted.map(drop)
        };
        assert_eq!([ask(1, 0), ask(1, 0)], [Ok(()), Ok(())]);
        for _ in 0..100 {
            assert_eq!(ask(1, 0), Err(LimitRefusal::ClientRate));
        }
        assert_eq!([ask(2, 0), ask(3, 0)], [Ok(()), Err(LimitRefusal::Rate)]);
        assert_eq!([ask(1, 501), ask(1, 501)], [Ok(()), Err(LimitRefusal::ClientRate)]);
        let only_all = Limits { connection_rate: Some(1), ..NONE };
        let later = now + Duration::from_secs(10);
        assert!(matches!(gate.admit(address(9), &only_all, later), Ok(Admitted::Uncounted)));
        assert_eq!(gate.admit(address(9), &only_all, later).unwrap_err(), LimitRefusal::Rate);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_refuses_nobody_and_is_forgotten_after_a_second() {
        let (gate, now) = (gate(), Instant::now());
        let limits = Limits { client_connection_rate: Some(1), client_connections: Some(5), ..NONE };
        let mut kept = Vec::new();
        let mut no_room = 0;
        for number in 0..200_000 {
            match gate.admit(address(number), &limits, now) {
                Ok(Admitted::Counted(place)) if number % 1_000 == 0 => kept.push((number, place)),
                Ok(Admitted::Counted(place)) => drop(place),
                Ok(Admitted::NoRoom) => no_room += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(held(&gate) <= SHARDS * SHARD_CAPACITY && no_room > 100_000, "{} {no_room}", held(&gate));
        assert_eq!(gate.admit(address(0), &limits, now).unwrap_err(), LimitRefusal::ClientRate);
        let later = now + Duration::from_secs(2);
        for number in 1_000_000..1_000_300 {
            assert!(matches!(gate.admit(address(number), &limits, later), Ok(Admitted::Counted(_))));
        }
        let most = kept.len() + 300;
        assert!(held(&gate) <= most, "{} of {most}", held(&gate));
        let room: usize = gate.shards.iter().map(|shard| shard.lock().unwrap().clients.capacity()).sum();
        assert!(room < SHARDS * 8 * FEW, "{room}");
    }

    proptest! {
        /// Connections that come and go in any order: exactly as many as are open are counted.
        #[test]
        fn a_client_never_has_more_than_its_limit_nor_is_refused_below(
            limit in 1_u32..4,
            steps in prop::collection::vec((0_u32..5, any::<bool>()), 0..200),
        ) {
            let (gate, now) = (gate(), Instant::now());
            let limits = Limits { client_connections: Some(limit), ..NONE };
            let mut open: HashMap<u32, Vec<Box<ClientPlace>>> = HashMap::new();
            for (client, comes) in steps {
                let own = open.entry(client).or_default();
                if !comes {
                    own.pop();
                    continue;
                }
                match gate.admit(address(client), &limits, now) {
                    Ok(Admitted::Counted(place)) => own.push(place),
                    refused => {
                        prop_assert_eq!(refused.map(drop), Err(LimitRefusal::ClientConnections));
                        prop_assert_eq!(own.len(), limit as usize);
                    }
                }
                prop_assert!(own.len() <= limit as usize);
            }
            prop_assert_eq!(held(&gate), open.values().filter(|own| !own.is_empty()).count());
        }
    }
}
