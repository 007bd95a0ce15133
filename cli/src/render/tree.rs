//! Drawing of a tree: resources with their ports, weights, statuses and reasons.

use fiberlb_proto::v1::{
    Backend, Datapath, HealthCheck, HealthCheckType, Listener, LoadBalancer, LoadBalancerTree, Pool,
    PoolTree, ResourceState,
};

use super::escape::clean;
use super::style::{self, painted};
use crate::value::show_duration;

/// Line of the drawing, with the lines below it.
struct Node {
    text: String,
    children: Vec<Node>,
}

/// Draws a tree, with a newline after each line. Pools without a listener are drawn as well.
pub(crate) fn draw(tree: &LoadBalancerTree) -> String {
    let pools: Vec<&Pool> = tree.pools.iter().filter_map(|pool| pool.pool.as_ref()).collect();
    let mut children: Vec<Node> = tree.listeners.iter().map(|it| listener(it, &pools)).collect();
    children.extend(tree.pools.iter().map(pool));
    let root = tree.load_balancer.as_ref().map(load_balancer).unwrap_or_default();
    let mut out = String::new();
    lines(&Node { text: root, children }, "", "", &mut out);
    out
}

/// Writes a node with the prefix `first`, and the nodes below it with the prefix `rest`.
fn lines(node: &Node, first: &str, rest: &str, out: &mut String) {
    out.push_str(first);
    out.push_str(&node.text);
    out.push('\n');
    let last = node.children.len().saturating_sub(1);
    for (at, child) in node.children.iter().enumerate() {
        let (branch, below) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines(child, &format!("{rest}{branch}"), &format!("{rest}{below}"), out);
    }
}

fn load_balancer(it: &LoadBalancer) -> String {
    let mut facts = vec![clean(&it.vip_address).into_owned()];
    facts.extend(it.additional_vips.iter().map(|vip| clean(&vip.address).into_owned()));
    facts.retain(|fact| !fact.is_empty());
    let facts = [vec![facts.join(", ")], disabled_mark(it.admin_state_up)].concat();
    line("load balancer", named(&it.name, &it.id), &facts, it.state.as_ref())
}

fn listener(it: &Listener, pools: &[&Pool]) -> Node {
    let mut facts = vec![format!("{} {}", short(it.protocol().as_str_name(), "LISTENER_PROTOCOL_"), it.port)];
    facts.push(default_pool(it, pools));
    facts.push(datapath(it));
    facts.push(allowed(it));
    facts.push(trusted(it));
    facts.extend(disabled_mark(it.admin_state_up));
    Node { text: line("listener", named(&it.name, &it.id), &facts, it.state.as_ref()), children: Vec::new() }
}

/// Datapath of a listener, and its proxy nodes; empty while it is not served.
fn datapath(it: &Listener) -> String {
    if it.datapath_in_force() == Datapath::Auto {
        return String::new();
    }
    let by = format!("by {}", short(it.datapath_in_force().as_str_name(), "DATAPATH_"));
    if it.proxy_node_ids.is_empty() {
        return by;
    }
    format!("{by} on {}", clean(&it.proxy_node_ids.join(", ")))
}

/// Clients that a listener allows, if not all: their subnets, or the number of these where there are many.
fn allowed(it: &Listener) -> String {
    match it.allowed_cidrs.len() {
        0 => String::new(),
        1..=3 => format!("for {}", clean(&it.allowed_cidrs.join(", "))),
        many => format!("for {many} subnets"),
    }
}

/// Proxies that a listener takes clients' addresses from.
fn trusted(it: &Listener) -> String {
    match it.trusted_proxies.len() {
        0 => String::new(),
        1..=3 => format!("behind {}", clean(&it.trusted_proxies.join(", "))),
        many => format!("behind proxies of {many} subnets"),
    }
}

/// Default pool of a listener.
fn default_pool(it: &Listener, pools: &[&Pool]) -> String {
    if it.default_pool_id.is_empty() {
        return "→ no pool".to_owned();
    }
    let pool = pools.iter().find(|pool| pool.id == it.default_pool_id);
    let name = pool.map_or(it.default_pool_id.as_str(), |pool| named(&pool.name, &pool.id));
    format!("→ pool {}", clean(name))
}

fn pool(tree: &PoolTree) -> Node {
    let mut children: Vec<Node> = tree.health_check.iter().map(health_check).collect();
    children.extend(tree.backends.iter().map(backend));
    if tree.backends.is_empty() {
        children.push(Node { text: painted(style::DIM, "no backends"), children: Vec::new() });
    }
    let text = tree.pool.as_ref().map(|it| {
        let algorithm = short(it.algorithm().as_str_name(), "ALGORITHM_");
        let mut facts = vec![format!("{} {algorithm}", short(it.protocol().as_str_name(), "POOL_PROTOCOL_"))];
        facts.extend(it.session_persistence.iter().map(|persistence| {
            format!("sticky by {}", short(persistence.r#type().as_str_name(), "SESSION_PERSISTENCE_TYPE_"))
        }));
        facts.extend(disabled_mark(it.admin_state_up));
        line("pool", named(&it.name, &it.id), &facts, it.state.as_ref())
    });
    Node { text: text.unwrap_or_default(), children }
}

fn backend(it: &Backend) -> Node {
    let (address, port) = (clean(&it.address), it.port);
    let socket =
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    let mut facts = vec![format!("weight {}", it.weight.unwrap_or(1))];
    if !it.name.is_empty() {
        facts.insert(0, socket.clone());
    }
    facts.extend(it.backup.then(|| "backup".to_owned()));
    facts.extend(disabled_mark(it.admin_state_up));
    let name = if it.name.is_empty() { socket.as_str() } else { it.name.as_str() };
    Node { text: line("backend", name, &facts, it.state.as_ref()), children: Vec::new() }
}

fn health_check(it: &HealthCheck) -> Node {
    let mut facts = vec![short(it.r#type().as_str_name(), "HEALTH_CHECK_TYPE_").to_owned()];
    if matches!(it.r#type(), HealthCheckType::Http | HealthCheckType::Https) {
        facts.push(clean(&it.http_path).into_owned());
    }
    facts.extend(it.delay.map(|delay| format!("every {}", duration(delay))));
    facts.extend(it.timeout.map(|timeout| format!("within {}", duration(timeout))));
    facts.extend(disabled_mark(it.admin_state_up));
    Node {
        text: line("health check", named(&it.name, &it.id), &facts, it.state.as_ref()),
        children: Vec::new(),
    }
}

/// Formats one line: kind, name, facts, statuses, reason.
fn line(kind: &str, name: &str, facts: &[String], state: Option<&ResourceState>) -> String {
    let mut parts = vec![format!("{kind} {}", painted(style::STRONG, &clean(name)))];
    parts.extend(facts.iter().filter(|fact| !fact.is_empty()).cloned());
    if let Some(state) = state {
        let provisioning = style::provisioning(state.provisioning_status());
        parts.push(format!("{provisioning} {}", style::operating(state.operating_status())));
        parts.extend((!state.reason.is_empty()).then(|| clean(&state.reason).into_owned()));
        parts.extend(
            state.next_attempt_at.as_ref().map(|at| painted(style::DIM, &format!("next attempt at {at}"))),
        );
    }
    parts.join("  ")
}

/// Mark of a disabled resource.
fn disabled_mark(admin_state_up: Option<bool>) -> Vec<String> {
    if admin_state_up == Some(false) { vec![painted(style::FAIR, "switched off")] } else { Vec::new() }
}

/// Name, or id if there is no name.
fn named<'a>(name: &'a str, id: &'a str) -> &'a str {
    if name.is_empty() { id } else { name }
}

/// Name of an enum value without its prefix.
fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn duration(duration: prost_types::Duration) -> String {
    duration.try_into().map_or_else(|_| "?".to_owned(), show_duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(provisioning: i32, operating: i32, reason: &str) -> Option<ResourceState> {
        Some(ResourceState {
            provisioning_status: provisioning,
            operating_status: operating,
            reason: reason.to_owned(),
            ..Default::default()
        })
    }

    fn tree() -> LoadBalancerTree {
        let backend = |name: &str, address: &str, backup| Backend {
            name: name.to_owned(),
            address: address.to_owned(),
            port: 80,
            weight: Some(3),
            backup,
            state: if backup { state(1, 6, "") } else { state(1, 3, "checked and found down: timed out") },
            ..Default::default()
        };
        let listener = Listener {
            id: "l1".to_owned(),
            protocol: 1,
            port: 80,
            default_pool_id: "p1".to_owned(),
            datapath_in_force: 1,
            admin_state_up: Some(false),
            state: state(1, 1, ""),
            ..Default::default()
        };
        let nodes = vec!["n1".to_owned(), "n2".to_owned()];
        let proxied = Listener { datapath_in_force: 2, proxy_node_ids: nodes, ..listener.clone() };
        LoadBalancerTree {
            load_balancer: Some(LoadBalancer {
                name: "web".to_owned(),
                vip_address: "10.0.1.100".to_owned(),
                state: state(3, 4, "waiting for\u{1b} OVN"),
                ..Default::default()
            }),
            listeners: vec![
                listener,
                Listener {
                    id: "l2".to_owned(),
                    port: 81,
                    admin_state_up: None,
                    allowed_cidrs: vec!["10.0.0.0/8".to_owned(), "fd00::/8\u{1b}".to_owned()],
                    trusted_proxies: vec!["10.0.0.9/32".to_owned()],
                    ..proxied
                },
            ],
            pools: vec![
                PoolTree {
                    pool: Some(Pool {
                        id: "p1".to_owned(),
                        name: "app".to_owned(),
                        protocol: 1,
                        algorithm: 1,
                        ..Default::default()
                    }),
                    backends: vec![backend("b1", "10.0.1.11", false), backend("", "fd00::1", true)],
                    health_check: None,
                },
                PoolTree::default(),
            ],
            etag: String::new(),
        }
    }

    #[test]
    fn the_whole_tree_is_drawn() {
        let text = anstream::adapter::strip_str(&draw(&tree())).to_string();
        let wanted = "\
load balancer web  10.0.1.100  PENDING_UPDATE DEGRADED  waiting for\\u{1b} OVN
├─ listener l1  TCP 80  → pool app  by OVN  switched off  ACTIVE ONLINE
├─ listener l2  TCP 81  → pool app  by PROXY on n1, n2  for 10.0.0.0/8, fd00::/8\\u{1b}  behind 10.0.0.9/32  ACTIVE ONLINE
├─ pool app  TCP ROUND_ROBIN
│  ├─ backend b1  10.0.1.11:80  weight 3  ACTIVE OFFLINE  checked and found down: timed out
│  └─ backend [fd00::1]:80  weight 3  backup  ACTIVE NO_MONITOR
└─ 
   └─ no backends
";
        assert_eq!(text, wanted);
    }
}
