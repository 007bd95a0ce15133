//! One `Load_Balancer` row: what a listener asks of OVN.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use thiserror::Error;
use uuid::Uuid;

use super::{Capabilities, OWNER_KEY, Owner, rotation};
use crate::LoadBalancer;

/// Transport protocol of a row (`Load_Balancer.protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The name in OVN's schema.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// By what a connection is assigned to a backend (`Load_Balancer.selection_fields`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// OVN's default: a hash of addresses, ports and protocol.
    FiveTuple,
    /// One client address, one backend.
    SourceIp,
    /// By client address and port.
    SourceIpPort,
}

/// One backend of a [`Balancer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Share relative to the others, 0 to 256; 0 takes no new connections.
    pub weight: u16,
    /// Serves only while no other does.
    pub backup: bool,
    /// False: takes no new connections.
    pub enabled: bool,
}

/// What one listener asks of OVN.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// UUID of its row.
    pub uuid: Uuid,
    /// Whose it is.
    pub owner: Owner,
    /// For people; OVN's `name` is not unique.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where clients connect. IPv4 and IPv6 may stand side by side.
    pub vips: Vec<SocketAddr>,
    /// Backends of either family; each VIP takes those of its own.
    pub targets: Vec<Target>,
    /// By what a backend is chosen.
    pub selection: Selection,
    /// Seconds for which a client address stays with the backend that it met first (`options:affinity_timeout`).
    pub affinity_timeout: Option<u16>,
    /// False: refuses all new connections.
    pub enabled: bool,
}

/// Why a [`Balancer`] cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BalancerError {
    /// northd drops a whole VIP for one malformed address, with only a log line.
    #[error(
        "{0} is not an address that OVN can balance: the port must not be 0 and the address must be one host's"
    )]
    Address(SocketAddr),
    /// The same address and port would be written for two things.
    #[error("VIP {0} is given twice")]
    DuplicateVip(SocketAddr),
    /// The connected database is of an older OVN.
    #[error("{feature} needs OVN {release} or later; the connected northbound database does not have it")]
    Unsupported {
        /// What was asked for.
        feature: &'static str,
        /// First release that has it.
        release: &'static str,
    },
}

/// The row that carries out `wish`.
///
/// # Errors
/// Says which address is malformed or which feature the connected OVN lacks; nothing of such a row is written.
pub fn balancer(wish: &Balancer, capabilities: &Capabilities) -> Result<LoadBalancer, BalancerError> {
    let mut vips = BTreeMap::new();
    for vip in &wish.vips {
        check_host(*vip)?;
        if vips.insert(vip.to_string(), backends_of(wish, *vip)?).is_some() {
            return Err(BalancerError::DuplicateVip(*vip));
        }
    }
    let mut options = BTreeMap::from([("reject".to_owned(), "true".to_owned())]);
    if let Some(seconds) = wish.affinity_timeout {
        require(capabilities.affinity, "SOURCE_IP session persistence", "22.12")?;
        options.insert("affinity_timeout".to_owned(), seconds.to_string());
    }
    Ok(LoadBalancer {
        name: wish.name.clone(),
        vips,
        protocol: Some(wish.protocol.as_str().to_owned()),
        selection_fields: selection_fields(wish, capabilities)?,
        options,
        external_ids: BTreeMap::from([(OWNER_KEY.to_owned(), wish.owner.to_string())]),
    })
}

/// The value of one key of `vips`: the rotation, or nothing, which refuses since `reject` is set.
fn backends_of(wish: &Balancer, vip: SocketAddr) -> Result<String, BalancerError> {
    let same_family = || wish.targets.iter().filter(|target| target.address.is_ipv4() == vip.is_ipv4());
    for target in same_family() {
        check_host(target.address)?;
    }
    if !wish.enabled {
        return Ok(String::new());
    }
    let entries: Vec<String> = rotation(same_family()).iter().map(ToString::to_string).collect();
    Ok(entries.join(","))
}

fn check_host(address: SocketAddr) -> Result<(), BalancerError> {
    let scoped =
        matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.ip().to_ipv4_mapped().is_some());
    let one_host = match address {
        SocketAddr::V4(v4) => !v4.ip().is_broadcast(),
        SocketAddr::V6(_) => true,
    };
    let ip = address.ip();
    if address.port() == 0 || scoped || !one_host || ip.is_unspecified() || ip.is_multicast() {
        return Err(BalancerError::Address(address));
    }
    Ok(())
}

/// OVS hashes only fields that a packet has: `ip_src` is IPv4's alone, so an IPv6 VIP needs `ipv6_src` as well, or all of
/// its clients would meet one backend.
fn selection_fields(wish: &Balancer, capabilities: &Capabilities) -> Result<BTreeSet<String>, BalancerError> {
    let has_v6 = wish.vips.iter().any(SocketAddr::is_ipv6);
    let fields: &[&str] = match wish.selection {
        Selection::FiveTuple => return Ok(BTreeSet::new()),
        // By address and port is what the default hash does as well.
        Selection::SourceIpPort if has_v6 && !capabilities.ipv6_selection => return Ok(BTreeSet::new()),
        Selection::SourceIpPort if has_v6 => {
            &["ip_src", "ip_dst", "ipv6_src", "ipv6_dst", "tp_src", "tp_dst"]
        }
        Selection::SourceIpPort => &["ip_src", "ip_dst", "tp_src", "tp_dst"],
        Selection::SourceIp if has_v6 => {
            require(capabilities.ipv6_selection, "SOURCE_IP on an IPv6 VIP", "25.03")?;
            &["ip_src", "ip_dst", "ipv6_src", "ipv6_dst"]
        }
        Selection::SourceIp => &["ip_src", "ip_dst"],
    };
    require(capabilities.selection_fields, "a source IP algorithm", "20.03")?;
    Ok(fields.iter().map(|field| (*field).to_owned()).collect())
}

fn require(has: bool, feature: &'static str, release: &'static str) -> Result<(), BalancerError> {
    if has { Ok(()) } else { Err(BalancerError::Unsupported { feature, release }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Installation;

    fn wish(vips: &[&str], targets: &[&str]) -> Balancer {
        Balancer {
            uuid: Uuid::from_u128(1),
            owner: Installation(Uuid::from_u128(2)).load_balancer(Uuid::from_u128(3)),
            name: "web".to_owned(),
            protocol: Protocol::Tcp,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            targets: targets
                .iter()
                .map(|target| Target {
                    address: target.parse().unwrap(),
                    weight: 1,
                    backup: false,
                    enabled: true,
                })
                .collect(),
            selection: Selection::FiveTuple,
            affinity_timeout: None,
            enabled: true,
        }
    }

    #[test]
    fn an_ipv6_vip_is_written_whole_and_takes_its_own_family() {
        let row = balancer(
            &wish(&["10.0.0.9:80", "[fd00::9]:80"], &["10.0.0.1:8080", "[fd00::1]:8080"]),
            &Capabilities::ALL,
        )
        .unwrap();
        assert_eq!(row.vips["[fd00::9]:80"], "[fd00::1]:8080");
        assert_eq!(row.vips["10.0.0.9:80"], "10.0.0.1:8080");
    }

    #[test]
    fn what_is_switched_off_refuses_and_keeps_its_key() {
        let off = Balancer { enabled: false, ..wish(&["10.0.0.9:80"], &["10.0.0.1:8080"]) };
        let row = balancer(&off, &Capabilities::ALL).unwrap();
        assert_eq!(row.vips["10.0.0.9:80"], "");
        assert_eq!(row.options["reject"], "true");
    }

    #[test]
    fn an_address_that_northd_would_drop_is_refused() {
        for bad in ["10.0.0.1:0", "0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80"] {
            assert!(balancer(&wish(&["10.0.0.9:80"], &[bad]), &Capabilities::ALL).is_err(), "{bad}");
            assert!(balancer(&wish(&[bad], &[]), &Capabilities::ALL).is_err(), "{bad}");
        }
        assert!(balancer(&wish(&["[::ffff:10.0.0.1]:80"], &[]), &Capabilities::ALL).is_err());
        let twice = balancer(&wish(&["10.0.0.9:80", "10.0.0.9:80"], &[]), &Capabilities::ALL);
        assert!(matches!(twice, Err(BalancerError::DuplicateVip(_))));
    }

    #[test]
    fn what_the_connected_ovn_lacks_is_refused_by_name() {
        let old = Capabilities { ipv6_selection: false, affinity: false, ..Capabilities::ALL };
        let v6 = Balancer { selection: Selection::SourceIp, ..wish(&["[fd00::9]:80"], &[]) };
        assert!(
            balancer(&v6, &old).unwrap_err().to_string().contains("SOURCE_IP on an IPv6 VIP needs OVN 25.03")
        );
        let sticky = Balancer { affinity_timeout: Some(60), ..wish(&["10.0.0.9:80"], &[]) };
        assert!(balancer(&sticky, &old).unwrap_err().to_string().contains("22.12"));
        let v4 = Balancer { selection: Selection::SourceIp, ..wish(&["10.0.0.9:80"], &[]) };
        assert_eq!(
            balancer(&v4, &old).unwrap().selection_fields,
            ["ip_dst", "ip_src"].map(str::to_owned).into()
        );
    }
}
