//! Schedule of gratuitous ARP and ND announcements of VIPs. Pure.
//!
//! Frames get lost, and the first ones may come before OVN has bound the port: so a new VIP is announced
//! several times, and then rarely, for as long as the plugin leads the node. OVN's port of type `virtual`
//! follows the node that announced last. A node that is cut off from the plugin must therefore stop: the
//! plugin may have assigned the VIP to another one. For the same reason a VIP that is known from disk only is
//! announced after a moment in which the plugin may revoke it. Of two nodes that both believe to hold one,
//! the plugin's next snapshot revokes it from one.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Pauses after the first announcements.
const PAUSES_MS: [u64; 5] = [100, 400, 500, 1_000, 2_000];
/// Pause after each further one.
const STEADY: Duration = Duration::from_secs(10);

/// A VIP on a network.
pub(super) type NetworkVip = (Uuid, IpAddr);

/// An announcement that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DueAnnouncement {
    pub(super) held: NetworkVip,
    /// True for the periodic ones, which are for nodes that the plugin leads.
    pub(super) is_repetition: bool,
}

/// Held VIPs, with the time of each one's next announcement.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    next: HashMap<NetworkVip, (Instant, usize)>,
    queue: BTreeSet<(Instant, NetworkVip)>,
}

impl Announcements {
    /// Sets the VIPs of a network. New ones are announced from `first` on; with `anew` all are.
    pub(super) fn set(&mut self, network: Uuid, vips: &BTreeSet<IpAddr>, anew: bool, first: Instant) {
        let of_network = self.next.keys().filter(|(of, _)| *of == network).copied();
        let gone: Vec<NetworkVip> = of_network.filter(|(_, vip)| anew || !vips.contains(vip)).collect();
        for held in gone {
            self.forget(held);
        }
        for vip in vips {
            if !self.next.contains_key(&(network, *vip)) {
                self.put((network, *vip), first, 0);
            }
        }
    }

    /// Time of the next announcement.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes an announcement that is due, and schedules the next one of its VIP.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<DueAnnouncement> {
        let (at, held) = *self.queue.first()?;
        if at > now {
            return None;
        }
        let count = self.next.get(&held).map_or(0, |(_, count)| *count);
        self.forget(held);
        let pause = PAUSES_MS.get(count).map_or(STEADY, |pause| Duration::from_millis(*pause));
        self.put(held, now + pause, count + 1);
        Some(DueAnnouncement { held, is_repetition: count > PAUSES_MS.len() })
    }

    fn put(&mut self, held: NetworkVip, at: Instant, count: usize) {
        self.next.insert(held, (at, count));
        self.queue.insert((at, held));
    }

    fn forget(&mut self, held: NetworkVip) {
        if let Some((at, _)) = self.next.remove(&held) {
            self.queue.remove(&(at, held));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn times(announcements: &mut Announcements, from: Instant, until: Duration) -> Vec<(u128, bool)> {
        let mut times = Vec::new();
        while let Some(at) = announcements.due_at().filter(|at| *at <= from + until) {
            let due = announcements.take_due(at).unwrap();
            times.push(((at - from).as_millis(), due.is_repetition));
        }
        times
    }

    fn due(network: Uuid, vip: &str) -> Option<DueAnnouncement> {
        Some(DueAnnouncement { held: (network, vip.parse().unwrap()), is_repetition: false })
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
