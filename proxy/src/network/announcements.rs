//! Schedule of gratuitous ARP and ND announcements of VIPs and of the node's own addresses. Pure.
//!
//! Frames get lost, and the first ones may come before OVN has bound the port: so a new VIP is announced
//! several times, and then rarely, for as long as the plugin leads the node. OVN's port of type `virtual`
//! follows the node that announced last. A node that is cut off from the plugin must therefore stop: the
//! plugin may have assigned the VIP to another one. For the same reason a VIP that is known from disk only is
//! announced after a moment in which the plugin may revoke it. Of two nodes that both believe to hold one,
//! the plugin's next snapshot revokes it from one. An address of its own a node has alone, but machines on the network
//! may still know it as that of the node that had it before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fiberlb_node::netlink::Mac;
use uuid::Uuid;

/// Pause after each further announcement of a VIP.
const STEADY: Duration = Duration::from_secs(10);

/// An address on a network.
pub(super) type NetworkAddress = (Uuid, IpAddr);

/// Kind of an address, on which the times of its announcements depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressKind {
    /// Of one node at a time.
    Vip,
    /// Of this node, for as long as it is on the network.
    Own,
    /// A VIP that this node held, and that OVN answers for at this MAC: OVN announces nothing.
    Answered(Mac),
}

impl AddressKind {
    /// Pause in milliseconds after each of the first announcements.
    const fn pauses_ms(self) -> &'static [u64] {
        match self {
            Self::Vip | Self::Answered(_) => &[100, 400, 500, 1_000, 2_000],
            // OVN may bind the port late where many networks come at once.
            Self::Own => &[1_000, 3_000, 10_000, 30_000],
        }
    }

    /// Pause after so many announcements and one more; `None`: it was the last one.
    fn pause(self, count: usize) -> Option<Duration> {
        match self.pauses_ms().get(count) {
            Some(pause) => Some(Duration::from_millis(*pause)),
            None => (self == Self::Vip).then_some(STEADY),
        }
    }
}

/// An announcement that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DueAnnouncement {
    pub(super) address: NetworkAddress,
    /// MAC that it is at; `None`: that of this node.
    pub(super) mac: Option<Mac>,
    /// True for those which are for nodes that the plugin leads: the periodic ones, and those of another MAC, which is there no more
    /// if the plugin has changed it since.
    pub(super) needs_leader: bool,
}

/// Addresses, with the time of each one's next announcement.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    known: HashMap<NetworkAddress, Scheduled>,
    queue: BTreeSet<(Instant, NetworkAddress)>,
}

#[derive(Clone, Copy, Debug)]
struct Scheduled {
    kind: AddressKind,
    /// Announcements that were made.
    count: usize,
    /// `None`: no further one.
    at: Option<Instant>,
}

impl Announcements {
    /// Sets the addresses of a network. New ones are announced from `first` on; with `anew` all are.
    pub(super) fn set(
        &mut self,
        network: Uuid,
        addresses: &BTreeMap<IpAddr, AddressKind>,
        anew: bool,
        first: Instant,
    ) {
        let of_network = self.known.keys().filter(|(of, _)| *of == network).copied();
        let is_kept = |of: &NetworkAddress, addresses: &BTreeMap<IpAddr, AddressKind>| {
            addresses.get(&of.1) == self.known.get(of).map(|scheduled| &scheduled.kind)
        };
        let gone: Vec<NetworkAddress> = of_network.filter(|of| anew || !is_kept(of, addresses)).collect();
        for address in gone {
            self.forget(address);
        }
        for (address, kind) in addresses {
            let address = (network, *address);
            if !self.known.contains_key(&address) {
                self.put(address, Scheduled { kind: *kind, count: 0, at: Some(first) });
            }
        }
    }

    /// Time of the next announcement.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes an announcement that is due, and schedules the next one of its address.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<DueAnnouncement> {
        let (at, address) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        let Scheduled { kind, count, .. } = self.known.get(&address).copied()?;
        let at = kind.pause(count).map(|pause| now + pause);
        self.put(address, Scheduled { kind, count: count + 1, at });
        let mac = match kind {
            AddressKind::Answered(mac) => Some(mac),
            AddressKind::Vip | AddressKind::Own => None,
        };
        let needs_leader = mac.is_some() || count > kind.pauses_ms().len();
        Some(DueAnnouncement { address, mac, needs_leader })
    }

    fn put(&mut self, address: NetworkAddress, scheduled: Scheduled) {
        self.known.insert(address, scheduled);
        self.queue.extend(scheduled.at.map(|at| (at, address)));
    }

    fn forget(&mut self, address: NetworkAddress) {
        if let Some(Scheduled { at: Some(at), .. }) = self.known.remove(&address) {
            self.queue.remove(&(at, address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vips(texts: &[&str]) -> BTreeMap<IpAddr, AddressKind> {
        texts.iter().map(|text| (text.parse().unwrap(), AddressKind::Vip)).collect()
    }

    fn times(announcements: &mut Announcements, from: Instant, until: Duration) -> Vec<(u128, bool)> {
        let mut times = Vec::new();
        while let Some(at) = announcements.due_at().filter(|at| *at <= from + until) {
            let due = announcements.take_due(at).unwrap();
            times.push(((at - from).as_millis(), due.needs_leader));
        }
        times
    }

    fn due(network: Uuid, vip: &str) -> Option<DueAnnouncement> {
        Some(DueAnnouncement { address: (network, vip.parse().unwrap()), mac: None, needs_leader: false })
    }

    #[test]
    fn a_vip_is_announced_at_once_then_more_and_more_rarely() {
        let (mut announcements, now, network) = (Announcements::default(), Instant::now(), Uuid::nil());
        announcements.set(network, &vips(&["10.0.0.9"]), false, now);
        let announced = times(&mut announcements, now, Duration::from_secs(30));
        let first = [0, 100, 500, 1_000, 2_000, 4_000].map(|at| (at, false));
        assert_eq!(announced, [&first[..], &[(14_000, true), (24_000, true)]].concat());
        announcements.set(network, &vips(&[]), false, now);
        assert_eq!(announcements.due_at(), None);
    }

    #[test]
    fn an_address_of_the_node_is_announced_five_times() {
        let (mut announcements, now, network) = (Announcements::default(), Instant::now(), Uuid::nil());
        let own = BTreeMap::from([("10.0.0.5".parse().unwrap(), AddressKind::Own)]);
        announcements.set(network, &own, false, now);
        let announced = times(&mut announcements, now, Duration::from_secs(60));
        assert_eq!(announced, [0, 1_000, 4_000, 14_000, 44_000].map(|at| (at, false)));
        announcements.set(network, &own, false, now);
        assert_eq!(announcements.due_at(), None);
        announcements.set(network, &own, true, now);
        assert_eq!(announcements.due_at(), Some(now));
        // One that has become a VIP is announced as such.
        assert_eq!(times(&mut announcements, now, Duration::from_secs(60)).len(), 5);
        announcements.set(network, &vips(&["10.0.0.5"]), false, now);
        assert_eq!(announcements.due_at(), Some(now));
    }

    #[test]
    fn a_vip_that_ovn_answers_for_is_announced_at_its_mac_six_times() {
        let (mut announcements, now, network) = (Announcements::default(), Instant::now(), Uuid::nil());
        announcements.set(network, &vips(&["10.0.0.9"]), false, now);
        assert_eq!(announcements.take_due(now), due(network, "10.0.0.9"));
        let mac = Mac([0x0e, 0, 0, 0, 0, 1]);
        let left = BTreeMap::from([("10.0.0.9".parse().unwrap(), AddressKind::Answered(mac))]);
        announcements.set(network, &left, false, now);
        let first = announcements.take_due(now).unwrap();
        assert_eq!((first.mac, first.needs_leader), (Some(mac), true), "what a disk remembers may be over");
        assert_eq!(times(&mut announcements, now, Duration::from_secs(60)).len(), 5);
        assert_eq!(announcements.due_at(), None);
    }

    #[test]
    fn what_is_held_already_keeps_its_rhythm_unless_told_anew() {
        let (mut announcements, now, network) = (Announcements::default(), Instant::now(), Uuid::nil());
        announcements.set(network, &vips(&["10.0.0.9"]), false, now);
        assert_eq!(times(&mut announcements, now, Duration::from_secs(5)).len(), 6);
        let later = now + Duration::from_secs(5);
        announcements.set(network, &vips(&["10.0.0.9", "fd00::9"]), false, later);
        announcements.set(Uuid::max(), &vips(&[]), true, later);
        assert_eq!(announcements.take_due(later), due(network, "fd00::9"));
        assert_eq!(announcements.take_due(later), None);
        announcements.set(network, &vips(&["10.0.0.9"]), true, later);
        assert_eq!(announcements.take_due(later), due(network, "10.0.0.9"));
    }
}
