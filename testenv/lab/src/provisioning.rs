//! Adding VMs to a lab and taking them away: LSP, namespace, veth, binding.

use std::net::IpAddr;

use futures_util::future::try_join_all;
use ipnetwork::IpNetwork;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::{Mac, check_name};
use crate::network::{parse_address, words};
use crate::vm::{LspAddresses, Vm, VmSpec};

/// A checked specification with all that the lab chose for it.
struct Plan {
    spec: VmSpec,
    index: u32,
    mac: Mac,
    addresses: Vec<IpNetwork>,
}

impl Lab {
    /// Adds a VM and waits until its port is up and all chassis know the way to it.
    ///
    /// # Errors
    /// [`LabError::Invalid`] for a malformed address or name, or whatever OVN or the kernel refuses.
    pub async fn add_vm(&self, spec: VmSpec) -> Result<Vm> {
        let mut vms = self.add_vms(vec![spec]).await?;
        vms.pop().ok_or_else(|| LabError::Unavailable("the VM was not made".to_owned()))
    }

    /// Adds several VMs at once: much faster than one after another. They come back in the order given.
    ///
    /// # Errors
    /// As [`Lab::add_vm`].
    pub async fn add_vms(&self, specs: Vec<VmSpec>) -> Result<Vec<Vm>> {
        let mut plans = specs.into_iter().map(|spec| self.plan(spec)).collect::<Result<Vec<_>>>()?;
        self.add_ports(&plans).await?;
        self.take_dynamic_addresses(&mut plans).await?;
        let vms = try_join_all(plans.into_iter().map(|plan| self.plug(plan))).await?;
        self.wait_until_up(&vms).await?;
        self.wait_for_sync().await?;
        Ok(vms)
    }

    /// Takes a VM away, with its LSP and namespace.
    ///
    /// # Errors
    /// [`LabError`] if a part of it is gone already.
    pub async fn remove_vm(&self, vm: Vm) -> Result<()> {
        self.nbctl(&["lsp-del", &vm.name]).await?;
        let index = vm.index.to_string();
        self.world().script("remove-vm.sh", &[&vm.name, &vm.chassis, &index]).await.map(drop)
    }

    fn plan(&self, spec: VmSpec) -> Result<Plan> {
        for (what, name) in [("VM", &spec.name), ("chassis", &spec.chassis), ("switch", &spec.switch)] {
            check_name(what, name)?;
        }
        let parse = |text: &String| parse_address(&spec.name, text);
        let addresses = spec.addresses.iter().map(parse).collect::<Result<Vec<_>>>()?;
        if spec.lsp_addresses == LspAddresses::Dynamic && !addresses.is_empty() {
            return Err(LabError::invalid(
                "VM",
                &spec.name,
                "OVN chooses its addresses: it has none of its own",
            ));
        }
        let index = self.take_index();
        let mac = spec.mac.unwrap_or_else(|| Mac::numbered(0, index));
        Ok(Plan { spec, index, mac, addresses })
    }

    async fn add_ports(&self, plans: &[Plan]) -> Result<()> {
        // northd has chosen dynamic addresses only after its next pass.
        let dynamic = plans.iter().any(Plan::is_dynamic);
        let mut arguments = words(if dynamic { &["--wait=sb"] } else { &[] });
        for plan in plans {
            arguments.extend(words(&["--", "lsp-add", &plan.spec.switch, &plan.spec.name]));
            arguments.extend(words(&["--", "lsp-set-addresses", &plan.spec.name, &plan.lsp_addresses()]));
        }
        self.nbctl_words(&arguments).await.map(drop)
    }

    async fn take_dynamic_addresses(&self, plans: &mut [Plan]) -> Result<()> {
        for plan in plans.iter_mut().filter(|plan| plan.is_dynamic()) {
            let row = ["Logical_Switch_Port", plan.spec.name.as_str(), "dynamic_addresses"];
            let chosen = self.nbctl(&["get", row[0], row[1], row[2]]).await?;
            let subnet = self.subnet_prefix(&plan.spec.switch).await?;
            plan.addresses = dynamic_addresses(&chosen, subnet);
            if plan.addresses.is_empty() {
                return Err(LabError::invalid("dynamic addresses of VM", chosen.trim(), "OVN chose none"));
            }
        }
        Ok(())
    }

    async fn subnet_prefix(&self, switch: &str) -> Result<u8> {
        let subnet = self.nbctl(&["get", "Logical_Switch", switch, "other_config:subnet"]).await?;
        Ok(parse_address(switch, subnet.trim().trim_matches('"'))?.prefix())
    }

    async fn plug(&self, plan: Plan) -> Result<Vm> {
        let Plan { spec, index, mac, addresses } = plan;
        let mut arguments = vec![spec.name.clone(), spec.chassis.clone(), index.to_string(), mac.to_string()];
        arguments.push(spec.gateways.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "));
        arguments.extend(addresses.iter().map(IpNetwork::to_string));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.world().script("vm.sh", &arguments).await?;
        let netns = self.world().netns(&format!("vm.{}", spec.name))?;
        let world = self.world().clone();
        Ok(Vm { name: spec.name, chassis: spec.chassis, index, mac, addresses, netns, world })
    }

    async fn wait_until_up(&self, vms: &[Vm]) -> Result<()> {
        for vm in vms {
            self.nbctl(&["wait-until", "Logical_Switch_Port", &vm.name, "up=true"]).await?;
        }
        Ok(())
    }
}

impl Plan {
    fn is_dynamic(&self) -> bool {
        self.spec.lsp_addresses == LspAddresses::Dynamic
    }

    /// The LSP's `addresses`, as `ovn-nbctl lsp-set-addresses` takes it.
    fn lsp_addresses(&self) -> String {
        match self.spec.lsp_addresses {
            LspAddresses::Unknown => "unknown".to_owned(),
            LspAddresses::Dynamic => format!("{} dynamic", self.mac),
            LspAddresses::Static => {
                let mut words = vec![self.mac.to_string()];
                words.extend(self.addresses.iter().map(|address| address.ip().to_string()));
                words.join(" ")
            }
        }
    }
}

/// Addresses in a `dynamic_addresses` column such as `"02:00:00:00:00:05 10.0.0.2 fd00::200:ff:fe00:5"`. IPv4 gets the
/// prefix length of the subnet, IPv6 64, which is all that OVN's IPAM knows.
fn dynamic_addresses(column: &str, ipv4_prefix: u8) -> Vec<IpNetwork> {
    let words = column.trim().trim_matches('"').split_whitespace();
    let with_prefix = |ip: IpAddr| {
        let prefix = if ip.is_ipv4() { ipv4_prefix } else { 64 };
        IpNetwork::new(ip, prefix).ok()
    };
    words.filter_map(|word| word.parse().ok().and_then(with_prefix)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_addresses_are_read_from_their_column() {
        let both = dynamic_addresses("\"02:00:00:00:00:05 10.0.0.2 fd00::5\"\n", 24);
        assert_eq!(both, ["10.0.0.2/24".parse().unwrap(), "fd00::5/64".parse().unwrap()]);
        assert!(dynamic_addresses("\"02:00:00:00:00:05\"\n", 24).is_empty());
        assert!(dynamic_addresses("[]\n", 24).is_empty());
    }
}
