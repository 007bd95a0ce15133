//! Ports on the integration bridge, by the local Open vSwitch database.

use std::collections::HashMap;

use fiberlb_node::netlink::IfName;
use fiberlb_node::ovs::{self, Plan, Plug, PlugError, Vswitch};
use ovsdb::client::Client;
use uuid::Uuid;

use super::error::NetworkError;
use super::names::Names;

/// `datapath_type` of a bridge in userspace.
const NETDEV: &str = "netdev";
/// Key of the switch's `external_ids` with the chassis' name.
const SYSTEM_ID: &str = "system-id";

/// Ports on the integration bridge.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    client: Client<Vswitch>,
    bridge: String,
}

/// What stands in the way of networks' ports.
pub(super) type Errors = HashMap<Uuid, NetworkError>;

impl Ports {
    pub(super) fn new(client: Client<Vswitch>, bridge: String) -> Self {
        Self { client, bridge }
    }

    /// The bridge's name.
    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Whether the bridge is of OVS's userspace datapath, as far as is known.
    pub(super) fn is_userspace(&self) -> bool {
        let vswitch = self.client.read();
        vswitch.bridge_named(&self.bridge).is_some_and(|(_, bridge)| bridge.datapath_type == NETDEV)
    }

    /// The chassis' name; empty if it is not known.
    pub(super) fn chassis(&self) -> String {
        let vswitch = self.client.read();
        let mut rows = vswitch.open_vswitch.iter();
        rows.find_map(|(_, row)| row.external_ids.get(SYSTEM_ID).cloned()).unwrap_or_default()
    }

    /// Plugs in what is missing of these, and nothing else.
    ///
    /// # Errors
    /// What holds for all of them.
    pub(super) async fn plug(&self, names: Names, plugs: &[Plug]) -> Result<Errors, NetworkError> {
        let mut whole = Plan::default();
        for plug in plugs {
            let plan = ovs::plug(&self.client.read(), &self.bridge, plug);
            whole.operations.extend(plan.operations);
            whole.refused.extend(plan.refused);
        }
        self.carry_out(names, plugs, whole).await
    }

    /// Plugs in what is missing of these, and takes out what else the installation has.
    ///
    /// # Errors
    /// What holds for all of them.
    pub(super) async fn sweep(&self, names: Names, plugs: &[Plug]) -> Result<Errors, NetworkError> {
        let plan = ovs::sweep(&self.client.read(), &self.bridge, names.0, plugs);
        self.carry_out(names, plugs, plan).await
    }

    /// Takes out what a network has.
    ///
    /// # Errors
    /// Open vSwitch's database does not do it.
    pub(super) async fn unplug(&self, names: Names, network: Uuid) -> Result<(), NetworkError> {
        let plan = ovs::unplug(&self.client.read(), names.owner(network));
        self.carry_out(names, &[], plan).await.map(drop)
    }

    async fn carry_out(&self, names: Names, plugs: &[Plug], plan: Plan) -> Result<Errors, NetworkError> {
        // Without the time since when, which would be another reason each second.
        if let Some(reason) = self.client.status().borrow().reason() {
            return Err(NetworkError::Vswitch(reason));
        }
        if !plan.operations.is_empty() {
            let done = self.client.transact(plan.operations).await;
            done.map_err(|error| NetworkError::Vswitch(error.to_string()))?;
        }
        let mut errors = refused(plugs, plan.refused);
        for (network, error) in self.complaints(names) {
            errors.entry(network).or_insert(error);
        }
        Ok(errors)
    }

    /// What ovs-vswitchd says of our interfaces.
    fn complaints(&self, names: Names) -> Vec<(Uuid, NetworkError)> {
        let vswitch = self.client.read();
        let complaint = |link: &str, error: &str| NetworkError::Interface {
            link: link.to_owned(),
            error: error.to_owned(),
        };
        let interfaces = vswitch.interfaces_of(names.0);
        interfaces
            .filter_map(|(_, owner, row)| Some((owner.id, complaint(&row.name, row.error.as_ref()?))))
            .collect()
    }
}

fn refused(plugs: &[Plug], refused: Vec<PlugError>) -> Errors {
    let networks: HashMap<&IfName, Uuid> = plugs.iter().map(|plug| (&plug.link, plug.owner.id)).collect();
    let of = |error: &PlugError| {
        let (PlugError::NoBridge { link, .. }
        | PlugError::Taken { link, .. }
        | PlugError::Contested { link, .. }) = error;
        networks.get(link).copied()
    };
    refused.into_iter().filter_map(|error| Some((of(&error)?, error.into()))).collect()
}
