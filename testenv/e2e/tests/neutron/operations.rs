//! Operations of a tenant and an operator on a network, by Neutron's API.

use serde_json::{Value, json};

use crate::service::Neutron;

/// A tenant's network with all that a tenant has on it.
pub(crate) struct Network<'a> {
    neutron: &'a Neutron,
    name: String,
    /// The network's id.
    pub(crate) id: String,
    subnet: String,
    machine: String,
    outcomes: Vec<(String, u16)>,
}

impl<'a> Network<'a> {
    /// Makes the network, a subnet 10.0.0.0/24 and a machine's port on it.
    pub(crate) async fn create(neutron: &'a Neutron, name: &str) -> Network<'a> {
        let (name, outcomes) = (name.to_owned(), Vec::new());
        let (id, subnet, machine) = (String::new(), String::new(), String::new());
        let mut network = Network { neutron, name, id, subnet, machine, outcomes };
        network.id = network.make("network", json!({"name": network.name})).await;
        network.subnet = network.make("subnet", network.subnet_of("10.0.0.0/24")).await;
        network.machine = network.make("port", json!({"network_id": network.id})).await;
        network
    }

    fn subnet_of(&self, cidr: &str) -> Value {
        json!({"network_id": self.id, "ip_version": 4, "cidr": cidr})
    }

    /// Changes everything that can be changed, one thing after the other.
    pub(crate) async fn change(&mut self, outside: &str) {
        for change in [
            json!({"name": format!("{}-renamed", self.name)}),
            json!({"mtu": 1300}),
            json!({"description": "changed"}),
            json!({"dns_domain": "example.org."}),
            json!({"port_security_enabled": false}),
            json!({"port_security_enabled": true}),
            json!({"admin_state_up": false}),
            json!({"admin_state_up": true}),
        ] {
            self.update("network", &self.id.clone(), change).await;
        }
        for change in [
            json!({"dns_nameservers": ["192.0.2.53"]}),
            json!({"host_routes": [{"destination": "198.51.100.0/24", "nexthop": "10.0.0.9"}]}),
            json!({"enable_dhcp": false}),
            json!({"enable_dhcp": true}),
            json!({"allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.200"}]}),
        ] {
            self.update("subnet", &self.subnet.clone(), change).await;
        }
        self.ports().await;
        self.routing(outside).await;
    }

    async fn ports(&mut self) {
        let sriov = json!({"network_id": self.id, "binding:vnic_type": "direct"});
        for port in [json!({"network_id": self.id}), sriov] {
            let port = self.make("port", port).await;
            self.update("port", &port, json!({"name": "renamed", "security_groups": []})).await;
            self.delete("port", &port).await;
        }
        let second = self.make("subnet", self.subnet_of("10.0.1.0/24")).await;
        self.delete("subnet", &second).await;
    }

    /// A router with the way out, a floating IP of the machine, and all of it taken away again.
    async fn routing(&mut self, outside: &str) {
        let router = self.make("router", json!({"name": self.name})).await;
        let interface = json!({"subnet_id": self.subnet});
        let path = format!("/v2.0/routers/{router}");
        self.put(&format!("{path}/add_router_interface"), interface.clone()).await;
        let gateway = json!({"external_gateway_info": {"network_id": outside}});
        self.update("router", &router, gateway).await;
        let floating = json!({"floating_network_id": outside, "port_id": self.machine});
        let floating = self.make("floatingip", floating).await;
        self.update("network", &self.id.clone(), json!({"description": "routed"})).await;
        self.update("router", &router, json!({"name": "renamed"})).await;
        let route = json!({"destination": "203.0.113.0/24", "nexthop": "10.0.0.9"});
        self.update("router", &router, json!({"routes": [route]})).await;
        self.neutron.repair().await;
        self.update("router", &router, json!({"routes": []})).await;
        self.delete("floatingip", &floating).await;
        self.update("router", &router, json!({"external_gateway_info": {}})).await;
        self.put(&format!("{path}/remove_router_interface"), interface).await;
        self.delete("router", &router).await;
    }

    /// Deletes the network with all that the tenant has on it, and gives what Neutron answered to each call, ever.
    pub(crate) async fn delete_all(mut self) -> Vec<(String, u16)> {
        self.delete("port", &self.machine.clone()).await;
        self.delete("network", &self.id.clone()).await;
        self.outcomes
    }

    async fn make(&mut self, kind: &str, fields: Value) -> String {
        let what = format!("create {kind} {}", self.nameless(&fields));
        let (status, made) =
            self.neutron.call("POST", &format!("/v2.0/{kind}s"), Some(json!({kind: fields}))).await;
        self.outcomes.push((what, status));
        made[kind]["id"].as_str().unwrap_or_else(|| panic!("no {kind}: {made}")).to_owned()
    }

    async fn update(&mut self, kind: &str, id: &str, fields: Value) {
        let what = format!("update {kind} {}", self.nameless(&fields));
        let (status, _) =
            self.neutron.call("PUT", &format!("/v2.0/{kind}s/{id}"), Some(json!({kind: fields}))).await;
        self.outcomes.push((what, status));
    }

    async fn put(&mut self, path: &str, body: Value) {
        let (status, _) = self.neutron.call("PUT", path, Some(body)).await;
        self.outcomes.push((path.rsplit('/').next().unwrap_or_default().to_owned(), status));
    }

    async fn delete(&mut self, kind: &str, id: &str) {
        let (status, _) = self.neutron.call("DELETE", &format!("/v2.0/{kind}s/{id}"), None).await;
        self.outcomes.push((format!("delete {kind}"), status));
    }

    /// The text of a call's fields without what differs between two networks: names and ids.
    fn nameless(&self, fields: &Value) -> String {
        let keys = fields.as_object().into_iter().flatten().map(|(key, value)| {
            match key.ends_with("_id") || key == "name" {
                true => key.clone(),
                false => format!("{key}={value}"),
            }
        });
        keys.collect::<Vec<_>>().join(" ").replace(&self.id, "NETWORK")
    }
}
