//! Logical switches and routers, as a tenant's cloud would have made them.

use ipnetwork::IpNetwork;
use uuid::Uuid;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::check_name;

impl Lab {
    /// Adds a logical switch with these pairs of `other_config`, such as `("subnet", "10.0.0.0/24")`. Gives its row's
    /// UUID.
    ///
    /// # Errors
    /// [`LabError::Command`] if NB refuses it.
    pub async fn add_switch(&self, name: &str, other_config: &[(&str, &str)]) -> Result<Uuid> {
        check_name("switch", name)?;
        let mut arguments = words(&["ls-add", name]);
        for (key, value) in other_config {
            arguments.extend(words(&["--", "set", "Logical_Switch", name]));
            arguments.push(format!("other_config:{key}={}", quoted(value)));
        }
        self.nbctl_words(&arguments).await?;
        // Within the transaction that makes the row, ovn-nbctl knows only a provisional UUID.
        self.row_id(&words(&["get", "Logical_Switch", name, "_uuid"])).await
    }

    /// Adds a logical router. Gives its row's UUID.
    ///
    /// # Errors
    /// [`LabError::Command`] if NB refuses it.
    pub async fn add_router(&self, name: &str) -> Result<Uuid> {
        check_name("router", name)?;
        self.nbctl_words(&words(&["lr-add", name])).await?;
        self.row_id(&words(&["get", "Logical_Router", name, "_uuid"])).await
    }

    /// Connects a router to a switch. The router's port has these addresses with prefixes, such as `10.0.0.1/24`, and the
    /// name `ROUTER-SWITCH`; the switch's port is `SWITCH-ROUTER`.
    ///
    /// # Errors
    /// [`LabError::Invalid`] for a malformed address, [`LabError::Command`] if NB refuses it.
    pub async fn attach_router(&self, router: &str, switch: &str, addresses: &[&str]) -> Result<()> {
        let router_port = format!("{router}-{switch}");
        let switch_port = format!("{switch}-{router}");
        let mac = self.new_router_mac().to_string();
        let mut arguments = words(&["lrp-add", router, &router_port, &mac]);
        for address in addresses {
            arguments.push(parse_address(&router_port, address)?.to_string());
        }
        arguments.extend(words(&["--", "lsp-add", switch, &switch_port]));
        arguments.extend(words(&["--", "lsp-set-type", &switch_port, "router"]));
        arguments.extend(words(&["--", "lsp-set-addresses", &switch_port, "router"]));
        let option = format!("router-port={router_port}");
        arguments.extend(words(&["--", "lsp-set-options", &switch_port, &option]));
        self.nbctl_words(&arguments).await.map(drop)
    }

    pub(crate) async fn nbctl_words(&self, arguments: &[String]) -> Result<String> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.nbctl(&arguments).await
    }

    async fn row_id(&self, arguments: &[String]) -> Result<Uuid> {
        let printed = self.nbctl_words(arguments).await?;
        printed.trim().parse().map_err(|error: uuid::Error| {
            LabError::invalid("row id from ovn-nbctl", printed.trim(), format!("{error}"))
        })
    }
}

/// An address with its prefix length; without one it is a single host.
pub(crate) fn parse_address(owner: &str, text: &str) -> Result<IpNetwork> {
    text.parse().map_err(|error: ipnetwork::IpNetworkError| {
        LabError::invalid(format!("address of {owner}"), text, error.to_string())
    })
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A value as the OVSDB tools read it literally, with whatever colons it has.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}
