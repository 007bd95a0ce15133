//! One `Load_Balancer` row: a listener in OVN.

use std::net::SocketAddr;

use ovsdb::collections::{Map, Set};
use thiserror::Error;
use uuid::Uuid;

use super::{AnswerForm, Capabilities, OWNER_KEY, Owner, rotation};
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
    /// Value of `Load_Balancer.protocol`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Assignment of connections to backends (`Load_Balancer.selection_fields`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Hash of addresses, ports and protocol; OVN's default.
    FiveTuple,
    /// Hash of the client's address.
    SourceIp,
    /// Hash of the client's address and port.
    SourceIpPort,
}

/// Backend of a [`Balancer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Socket address of the backend.
    pub address: SocketAddr,
    /// Share of new connections relative to the others, 0 to 256; 0 takes none.
    pub weight: u16,
    /// True: serves only while no regular backend does.
    pub backup: bool,
    /// False: takes no new connections.
    pub enabled: bool,
}

/// Backends of a [`Balancer`] that have a share of its connections in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPool {
    /// Share of new connections relative to the other pools, 0 to 256; 0 takes none. That of a pool in which nobody serves is the
    /// others'.
    pub weight: u16,
    /// Backends of either family; each VIP uses those of its own.
    pub targets: Vec<Target>,
}

impl TargetPool {
    /// Pool that has no other one beside it.
    #[must_use]
    pub fn alone(targets: Vec<Target>) -> Self {
        Self { weight: 1, targets }
    }
}

/// Desired load balancer of one listener.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// UUID of the row.
    pub uuid: Uuid,
    /// Owner of the row.
    pub owner: Owner,
    /// Name for people; not unique in OVN.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Socket addresses that clients connect to, of either family.
    pub vips: Vec<SocketAddr>,
    /// Number of consecutive ports of each VIP, from its own on. The targets of the n-th one have the n-th port from theirs on.
    pub ports: u16,
    /// Backends, by pools that divide the connections.
    pub pools: Vec<TargetPool>,
    /// Selection of a backend.
    pub selection: Selection,
    /// Session persistence by client address, in seconds (`options:affinity_timeout`); `None` for none.
    pub affinity_timeout: Option<u16>,
    /// True: what OVN tracks to a backend ends when the backend leaves the row, or the row goes (`options:ct_flush`): its
    /// connections are cut. That of UDP ends so always.
    pub cut: bool,
    /// False: refuses all new connections.
    pub enabled: bool,
}

impl Balancer {
    /// Targets of all pools that have a share.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.pools.iter().filter(|pool| pool.weight > 0).flat_map(|pool| &pool.targets)
    }
}

/// Reason why a [`Balancer`] cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BalancerError {
    /// Address that OVN cannot balance. northd would drop the whole VIP, with only a log line.
    #[error("OVN cannot balance {0}: the port must not be 0, and the address must be that of one host")]
    Address(SocketAddr),
    /// Address above whose port there are not so many as the VIPs have.
    #[error("{0} has no port for each of {1}, which begin there")]
    Ports(SocketAddr, u16),
    /// VIP that occurs twice.
    #[error("VIP {0} is given twice")]
    DuplicateVip(SocketAddr),
    /// Feature that the connected OVN lacks.
    #[error("{feature} needs OVN {release} or later; the connected northbound database does not have it")]
    Unsupported {
        /// Feature, for people.
        feature: &'static str,
        /// First release of OVN with the feature.
        release: &'static str,
    },
}

/// Builds the row of a load balancer.
///
/// # Errors
/// [`BalancerError`], which names the malformed address or the missing feature.
pub fn balancer(spec: &Balancer, capabilities: &Capabilities) -> Result<LoadBalancer, BalancerError> {
    let mut vips = Map::new();
    for vip in &spec.vips {
        check_host(*vip)?;
        let targets = targets_of(spec, *vip)?;
        for offset in 0..spec.ports {
            let vip = above(*vip, offset, spec)?;
            if vips.insert(vip.to_string(), backends(spec, &targets, offset)?).is_some() {
                return Err(BalancerError::DuplicateVip(vip));
            }
        }
    }
    let mut options = Map::from([("reject".to_owned(), "true".to_owned())]);
    // A datagram begins no connection: without it a flow would go on to a backend that is gone, or is another tenant's by now.
    // A connection over TCP or SCTP ends by itself, and is let drain unless it is to be cut. An OVN without the option
    // ignores it.
    if spec.protocol == Protocol::Udp || spec.cut {
        options.insert("ct_flush".to_owned(), "true".to_owned());
    }
    // The responder answers for the VIP by a row of its own; the tenant's routers that have this one must not.
    if capabilities.answer_form() == AnswerForm::Rows {
        options.insert("neighbor_responder".to_owned(), "none".to_owned());
    }
    if let Some(seconds) = spec.affinity_timeout {
        require(capabilities.affinity, "SOURCE_IP session persistence", "22.12")?;
        options.insert("affinity_timeout".to_owned(), seconds.to_string());
    }
    Ok(LoadBalancer {
        name: spec.name.clone(),
        vips,
        protocol: Some(spec.protocol.as_str().to_owned()),
        selection_fields: selection_fields(spec, capabilities)?,
        options,
        external_ids: Map::from([(OWNER_KEY.to_owned(), spec.owner.to_string())]),
    })
}

/// Targets of a VIP in rotation; none: it rejects connections, since `reject` is set.
fn targets_of(spec: &Balancer, vip: SocketAddr) -> Result<Vec<SocketAddr>, BalancerError> {
    let same_family = |target: &&Target| target.address.is_ipv4() == vip.is_ipv4();
    for target in spec.pools.iter().flat_map(|pool| &pool.targets).filter(same_family) {
        check_host(target.address)?;
    }
    let pools = spec.pools.iter().map(|pool| (pool.weight, pool.targets.iter().filter(same_family)));
    Ok(if spec.enabled { rotation(pools) } else { Vec::new() })
}

/// Value of one key of `vips`.
fn backends(spec: &Balancer, targets: &[SocketAddr], offset: u16) -> Result<String, BalancerError> {
    let entries = targets.iter().map(|target| Ok(above(*target, offset, spec)?.to_string()));
    Ok(entries.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// The address with so much higher a port.
fn above(first: SocketAddr, offset: u16, spec: &Balancer) -> Result<SocketAddr, BalancerError> {
    let port = first.port().checked_add(offset).ok_or(BalancerError::Ports(first, spec.ports))?;
    Ok(SocketAddr::new(first.ip(), port))
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

/// Builds `selection_fields`. OVS hashes only fields that a packet has, and `ip_src` is a field of IPv4: without `ipv6_src`, all
/// clients of an IPv6 VIP would reach one backend.
fn selection_fields(spec: &Balancer, capabilities: &Capabilities) -> Result<Set<String>, BalancerError> {
    let has_v6 = spec.vips.iter().any(SocketAddr::is_ipv6);
    let fields: &[&str] = match spec.selection {
        Selection::FiveTuple => return Ok(Set::new()),
        // The default hash includes address and port as well.
        Selection::SourceIpPort if has_v6 && !capabilities.ipv6_selection => return Ok(Set::new()),
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

    fn target(address: &str) -> Target {
        Target { address: address.parse().unwrap(), weight: 1, backup: false, enabled: true }
    }

    fn spec(vips: &[&str], targets: &[&str]) -> Balancer {
        Balancer {
            uuid: Uuid::from_u128(1),
            owner: Installation(Uuid::from_u128(2)).load_balancer(Uuid::from_u128(3)),
            name: "web".to_owned(),
            protocol: Protocol::Tcp,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            ports: 1,
            pools: vec![TargetPool::alone(targets.iter().map(|text| target(text)).collect())],
            selection: Selection::FiveTuple,
            affinity_timeout: None,
            cut: false,
            enabled: true,
        }
    }

    #[test]
    fn each_port_of_a_range_has_its_own_of_each_target() {
        let range = |vip: &str, target: &str| {
            let spec = Balancer { ports: 3, ..spec(&[vip, "[fd00::9]:80"], &[target, "[fd00::1]:9000"]) };
            balancer(&spec, &Capabilities::ALL).map(|row| row.vips)
        };
        let expected = [
            ("10.0.0.9:80", "10.0.0.1:8080"),
            ("10.0.0.9:81", "10.0.0.1:8081"),
            ("10.0.0.9:82", "10.0.0.1:8082"),
            ("[fd00::9]:80", "[fd00::1]:9000"),
            ("[fd00::9]:81", "[fd00::1]:9001"),
            ("[fd00::9]:82", "[fd00::1]:9002"),
        ];
        let vips = range("10.0.0.9:80", "10.0.0.1:8080").unwrap();
        assert_eq!(
            vips.iter().map(|(vip, list)| (vip.as_str(), list.as_str())).collect::<Vec<_>>(),
            expected
        );
        for (vip, target) in [("10.0.0.9:65534", "10.0.0.1:80"), ("10.0.0.9:80", "10.0.0.1:65534")] {
            assert!(matches!(range(vip, target), Err(BalancerError::Ports(_, 3))), "{vip} {target}");
        }
    }

    #[test]
    fn an_ipv6_vip_is_written_whole_and_takes_its_own_family() {
        let row = balancer(
            &spec(&["10.0.0.9:80", "[fd00::9]:80"], &["10.0.0.1:8080", "[fd00::1]:8080"]),
            &Capabilities::ALL,
        )
        .unwrap();
        assert_eq!(row.vips.get("[fd00::9]:80").unwrap(), "[fd00::1]:8080");
        assert_eq!(row.vips.get("10.0.0.9:80").unwrap(), "10.0.0.1:8080");
    }

    #[test]
    fn pools_without_a_backend_of_a_vips_family_leave_it_to_the_others() {
        let pools =
            [(3, vec![target("10.0.0.1:80"), target("[fd00::1]:80")]), (1, vec![target("10.0.0.2:80")])];
        let pools = pools.map(|(weight, targets)| TargetPool { weight, targets }).to_vec();
        let spec = Balancer { pools, ..spec(&["10.0.0.9:80", "[fd00::9]:80"], &[]) };
        let row = balancer(&spec, &Capabilities::ALL).unwrap();
        assert_eq!(row.vips.get("10.0.0.9:80").unwrap(), "10.0.0.1:80,10.0.0.2:80,10.0.0.1:80,10.0.0.1:80");
        assert_eq!(row.vips.get("[fd00::9]:80").unwrap(), "[fd00::1]:80");
    }

    #[test]
    fn what_is_switched_off_refuses_and_keeps_its_key() {
        let off = Balancer { enabled: false, ..spec(&["10.0.0.9:80"], &["10.0.0.1:8080"]) };
        let row = balancer(&off, &Capabilities::ALL).unwrap();
        assert_eq!(row.vips.get("10.0.0.9:80").unwrap(), "");
        assert_eq!(row.options.get("reject").unwrap(), "true");
    }

    #[test]
    fn flows_of_udp_end_with_their_backend_and_connections_if_they_are_to_be_cut() {
        let table = [
            (Protocol::Udp, false, Some("true")),
            (Protocol::Tcp, false, None),
            (Protocol::Tcp, true, Some("true")),
            (Protocol::Sctp, false, None),
        ];
        for (protocol, cut, flushed) in table {
            for enabled in [true, false] {
                let spec = Balancer { protocol, cut, enabled, ..spec(&["10.0.0.9:53"], &["10.0.0.1:53"]) };
                let row = balancer(&spec, &Capabilities::ALL).unwrap();
                assert_eq!(row.options.get("ct_flush").map(String::as_str), flushed, "{protocol:?}");
            }
        }
    }

    #[test]
    fn an_address_that_northd_would_drop_is_refused() {
        for bad in ["10.0.0.1:0", "0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80"] {
            assert!(balancer(&spec(&["10.0.0.9:80"], &[bad]), &Capabilities::ALL).is_err(), "{bad}");
            assert!(balancer(&spec(&[bad], &[]), &Capabilities::ALL).is_err(), "{bad}");
        }
        assert!(balancer(&spec(&["[::ffff:10.0.0.1]:80"], &[]), &Capabilities::ALL).is_err());
        let twice = balancer(&spec(&["10.0.0.9:80", "10.0.0.9:80"], &[]), &Capabilities::ALL);
        assert!(matches!(twice, Err(BalancerError::DuplicateVip(_))));
    }

    #[test]
    fn what_the_connected_ovn_lacks_is_refused_by_name() {
        let old = Capabilities { ipv6_selection: false, affinity: false, ..Capabilities::ALL };
        let v6 = Balancer { selection: Selection::SourceIp, ..spec(&["[fd00::9]:80"], &[]) };
        assert!(
            balancer(&v6, &old).unwrap_err().to_string().contains("SOURCE_IP on an IPv6 VIP needs OVN 25.03")
        );
        let sticky = Balancer { affinity_timeout: Some(60), ..spec(&["10.0.0.9:80"], &[]) };
        assert!(balancer(&sticky, &old).unwrap_err().to_string().contains("22.12"));
        let v4 = Balancer { selection: Selection::SourceIp, ..spec(&["10.0.0.9:80"], &[]) };
        assert_eq!(
            balancer(&v4, &old).unwrap().selection_fields,
            ["ip_dst", "ip_src"].map(str::to_owned).into()
        );
    }
}
