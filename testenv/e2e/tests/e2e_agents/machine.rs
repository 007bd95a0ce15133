//! State of a node's machine, by the system's own tools.

use std::collections::BTreeMap;

use fiberlb_lab::Lab;
use fiberlb_lab::proxy::ProxyNode;

/// Namespaces, ports, links and addresses of a chassis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Bridges, each with its ports.
    pub(crate) bridges: BTreeMap<String, Vec<String>>,
    /// Links in the chassis' own namespace.
    pub(crate) links: Vec<String>,
    /// Namespaces, each with its addresses by link. IPv6 link-local ones are left out.
    pub(crate) namespaces: BTreeMap<String, Vec<String>>,
}

impl Machine {
    /// Looks at a machine on which nothing changes.
    pub(crate) async fn of(lab: &Lab, node: &ProxyNode) -> Machine {
        Machine::at_rest(lab, node).await.expect("a namespace vanished meanwhile")
    }

    /// Looks; `None` where a namespace vanished between being listed and being entered.
    pub(crate) async fn at_rest(lab: &Lab, node: &ProxyNode) -> Option<Machine> {
        let chassis = node.chassis();
        let mut bridges = BTreeMap::new();
        for bridge in words(&lab.ovs_vsctl(chassis, &["list-br"]).await.unwrap()) {
            let ports = words(&lab.ovs_vsctl(chassis, &["list-ports", &bridge]).await.unwrap());
            bridges.insert(bridge, ports);
        }
        let links = on_chassis(lab, chassis, &["ip", "-br", "link"]).await;
        let mut namespaces = BTreeMap::new();
        for name in node.namespaces().unwrap() {
            let file = format!("--net={}/{name}", node.netns_dir());
            let shown =
                try_on_chassis(lab, chassis, &["nsenter", &file, "ip", "-br", "address"]).await.ok()?;
            namespaces.insert(name, shown.lines().map(addresses).collect());
        }
        let mut links: Vec<String> = links.lines().map(link).collect();
        links.sort();
        Some(Machine { bridges, links, namespaces })
    }
}

/// Runs a program on a chassis and gives what it prints.
pub(crate) async fn on_chassis(lab: &Lab, chassis: &str, line: &[&str]) -> String {
    try_on_chassis(lab, chassis, line).await.unwrap()
}

/// The same, for what may fail; what it says then.
async fn try_on_chassis(lab: &Lab, chassis: &str, line: &[&str]) -> Result<String, String> {
    let mut command = lab.chassis_command(chassis, line[0]);
    let output = command.args(&line[1..]).output().await.unwrap();
    if !output.status.success() {
        return Err(format!("{line:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8(output.stdout).unwrap())
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    words.sort();
    words
}

/// A link's name and MAC of a line of `ip -br link`; not its peer's number.
fn link(line: &str) -> String {
    let mut words = line.split_whitespace();
    let (name, mac) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    // The MAC of the outer end of a pair is the kernel's choice.
    if name.starts_with("flb") { name.split('@').next().unwrap().to_owned() } else { format!("{name} {mac}") }
}

fn addresses(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let link = words.remove(0).split('@').next().unwrap();
    let mut found: Vec<&str> = words.split_off(1);
    found.retain(|address| !address.starts_with("fe80:"));
    found.sort_unstable();
    format!("{link} {}", found.join(" "))
}
