//! Drawing of a tree: resources with their ports, weights, statuses and reasons.

use fiberlb_proto::v1::{
    Backend, Datapath, HealthCheck, HealthCheckType, Listener, LoadBalancer, LoadBalancerTree,
    OperatingStatus, Pool, PoolTree, ProvisioningStatus, ResourceState, WeightedPool,
};

use super::escape::clean;
use super::style::{self, painted};
use crate::names;
use crate::value::show_duration;

/// Line of the drawing, with the lines below it.
#[derive(Default)]
struct Node {
    text: String,
    /// Kind of the resource; empty for a remark.
    kind: &'static str,
    /// True if the resource is not active, or serves with less than its desired state.
    is_bad: bool,
    children: Vec<Node>,
}

/// Draws a tree, with a newline after each line. Pools without a listener are drawn as well.
pub(crate) fn draw(tree: &LoadBalancerTree) -> String {
    let mut out = String::new();
    lines(&root(tree), "", "", &mut out);
    out
}

/// Draws a pool with what stands below it.
pub(crate) fn draw_pool(tree: &PoolTree) -> String {
    let mut out = String::new();
    lines(&pool(tree), "", "", &mut out);
    out
}

/// Draws what is bad in trees, with what it stands below, and counts it.
pub(crate) fn draw_bad(trees: &[LoadBalancerTree]) -> String {
    let mut roots: Vec<Node> = trees.iter().map(root).collect();
    let counts: Vec<String> = ["backend", "health check", "pool", "listener", "load balancer"]
        .into_iter()
        .filter_map(|kind| {
            let (bad, all) = roots.iter().map(|root| count(root, kind)).fold((0, 0), sum);
            (bad > 0).then(|| format!("{bad} of {all} {kind}s"))
        })
        .collect();
    roots.retain_mut(keep_bad);
    let mut out = String::new();
    for root in &roots {
        lines(root, "", "", &mut out);
        out.push('\n');
    }
    match counts.as_slice() {
        [] => out.push_str("nothing is bad\n"),
        counts => out.push_str(&format!("bad: {}\n", counts.join(", "))),
    }
    out
}

/// Number of a kind's resources that are bad, and of all.
fn count(node: &Node, kind: &str) -> (usize, usize) {
    let own = (usize::from(node.kind == kind && node.is_bad), usize::from(node.kind == kind));
    node.children.iter().map(|child| count(child, kind)).fold(own, sum)
}

fn sum(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    (one.0 + other.0, one.1 + other.1)
}

/// Leaves out what is not bad and has nothing bad below it. Returns false if that is the node itself.
fn keep_bad(node: &mut Node) -> bool {
    node.children.retain_mut(keep_bad);
    node.is_bad || !node.children.is_empty()
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

fn root(tree: &LoadBalancerTree) -> Node {
    let pools: Vec<&Pool> = tree.pools.iter().filter_map(|pool| pool.pool.as_ref()).collect();
    let mut children: Vec<Node> = tree.listeners.iter().map(|it| listener(it, &pools)).collect();
    children.extend(tree.pools.iter().map(pool));
    Node { children, ..tree.load_balancer.as_ref().map(load_balancer).unwrap_or_default() }
}

fn load_balancer(it: &LoadBalancer) -> Node {
    let mut facts = vec![clean(&it.vip_address).into_owned()];
    facts.extend(it.additional_vips.iter().map(|vip| clean(&vip.address).into_owned()));
    facts.retain(|fact| !fact.is_empty());
    let facts = [vec![facts.join(", ")], disabled_mark(it.admin_state_up)].concat();
    node("load balancer", named(&it.name, &it.id), &facts, it.state.as_ref())
}

fn listener(it: &Listener, pools: &[&Pool]) -> Node {
    let port = format!("{} {}", short(it.protocol().as_str_name(), "LISTENER_PROTOCOL_"), names::ports(it));
    let mut facts = vec![if it.name.is_empty() { String::new() } else { port }];
    facts.push(pools_of(it, pools));
    facts.push(datapath(it));
    facts.push(allowed(it));
    facts.push(trusted(it));
    facts.extend(disabled_mark(it.admin_state_up));
    node("listener", &names::of_listener(it), &facts, it.state.as_ref())
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

/// Pool of a listener, or its pools with their shares.
fn pools_of(it: &Listener, pools: &[&Pool]) -> String {
    let name = |id: &str| {
        let pool = pools.iter().find(|pool| pool.id == id);
        clean(pool.map_or(id, |pool| named(&pool.name, &pool.id))).into_owned()
    };
    let total: u32 = it.weighted_pools.iter().map(weight).fold(0, u32::saturating_add);
    let shared = |pool: &WeightedPool| format!("{} {}", name(&pool.pool_id), share(weight(pool), total));
    match it.weighted_pools.as_slice() {
        [] if it.default_pool_id.is_empty() => "→ no pool".to_owned(),
        [] => format!("→ pool {}", name(&it.default_pool_id)),
        several => format!("→ pools {}", several.iter().map(shared).collect::<Vec<_>>().join(", ")),
    }
}

fn weight(pool: &WeightedPool) -> u32 {
    pool.weight.unwrap_or(1)
}

/// Share of a pool in percent, with one digit behind the point where it is no whole number.
fn share(weight: u32, total: u32) -> String {
    let tenths = (u64::from(weight) * 1_000 + u64::from(total) / 2) / u64::from(total.max(1));
    match (tenths / 10, tenths % 10) {
        (0, 0) if weight > 0 => "<0.1 %".to_owned(),
        (whole, 0) => format!("{whole} %"),
        (whole, tenth) => format!("{whole}.{tenth} %"),
    }
}

fn pool(tree: &PoolTree) -> Node {
    let mut children: Vec<Node> = tree.health_check.iter().map(health_check).collect();
    children.extend(tree.backends.iter().map(backend));
    if tree.backends.is_empty() {
        children.push(Node { text: painted(style::DIM, "no backends"), ..Node::default() });
    }
    let own = tree.pool.as_ref().map(|it| {
        let algorithm = short(it.algorithm().as_str_name(), "ALGORITHM_");
        let mut facts = vec![format!("{} {algorithm}", short(it.protocol().as_str_name(), "POOL_PROTOCOL_"))];
        facts.extend(it.session_persistence.iter().map(|persistence| {
            format!("sticky by {}", short(persistence.r#type().as_str_name(), "SESSION_PERSISTENCE_TYPE_"))
        }));
        facts.extend(disabled_mark(it.admin_state_up));
        node("pool", named(&it.name, &it.id), &facts, it.state.as_ref())
    });
    Node { children, ..own.unwrap_or_default() }
}

fn backend(it: &Backend) -> Node {
    let socket = names::socket(it);
    let mut facts = vec![format!("weight {}", it.weight.unwrap_or(1))];
    if !it.name.is_empty() {
        facts.insert(0, clean(&socket).into_owned());
    }
    facts.extend(it.backup.then(|| "backup".to_owned()));
    facts.extend(disabled_mark(it.admin_state_up));
    node("backend", named(&it.name, &socket), &facts, it.state.as_ref())
}

fn health_check(it: &HealthCheck) -> Node {
    let kind = short(it.r#type().as_str_name(), "HEALTH_CHECK_TYPE_");
    let mut facts = vec![if it.name.is_empty() { String::new() } else { kind.to_owned() }];
    if matches!(it.r#type(), HealthCheckType::Http | HealthCheckType::Https) {
        facts.push(clean(&it.http_path).into_owned());
    }
    facts.extend(it.delay.map(|delay| format!("every {}", duration(delay))));
    facts.extend(it.timeout.map(|timeout| format!("within {}", duration(timeout))));
    facts.extend(disabled_mark(it.admin_state_up));
    node("health check", named(&it.name, &kind.to_ascii_lowercase()), &facts, it.state.as_ref())
}

/// Node without children: kind, name, facts, statuses, reason.
fn node(kind: &'static str, name: &str, facts: &[String], state: Option<&ResourceState>) -> Node {
    let mut parts = vec![format!("{kind} {}", painted(style::STRONG, &clean(name)))];
    parts.extend(facts.iter().filter(|fact| !fact.is_empty()).cloned());
    if let Some(state) = state {
        let provisioning = style::provisioning(state.provisioning_status());
        parts.push(format!("{provisioning} {}", style::operating(state)));
        parts.extend((!state.reason.is_empty()).then(|| clean(&state.reason).into_owned()));
        parts.extend(
            state.next_attempt_at.as_ref().map(|at| painted(style::DIM, &format!("next attempt at {at}"))),
        );
    }
    Node { text: parts.join("  "), kind, is_bad: state.is_some_and(is_bad), children: Vec::new() }
}

fn is_bad(state: &ResourceState) -> bool {
    state.provisioning_status() != ProvisioningStatus::Active
        || !matches!(state.operating_status(), OperatingStatus::Online | OperatingStatus::NoMonitor)
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
├─ listener tcp:80  → pool app  by OVN  switched off  ACTIVE ONLINE
├─ listener tcp:81  → pool app  by PROXY on n1, n2  for 10.0.0.0/8, fd00::/8\\u{1b}  behind 10.0.0.9/32  ACTIVE ONLINE
├─ pool app  TCP ROUND_ROBIN
│  ├─ backend b1  10.0.1.11:80  weight 3  ACTIVE OFFLINE  checked and found down: timed out
│  └─ backend [fd00::1]:80  weight 3  backup  ACTIVE NO_MONITOR
└─ 
   └─ no backends
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn pools_are_drawn_with_their_shares() {
        let drawn = |weights: &[(&str, u32)]| {
            let pool = |(id, weight): &(&str, u32)| WeightedPool {
                pool_id: (*id).to_owned(),
                weight: Some(*weight),
            };
            let listener =
                Listener { weighted_pools: weights.iter().map(pool).collect(), ..Default::default() };
            let app = Pool { id: "p1".to_owned(), name: "app".to_owned(), ..Default::default() };
            pools_of(&listener, &[&app])
        };
        assert_eq!(drawn(&[]), "→ no pool");
        assert_eq!(drawn(&[("p1", 90), ("p2", 10)]), "→ pools app 90 %, p2 10 %");
        assert_eq!(drawn(&[("p1", 0), ("p2", 256)]), "→ pools app 0 %, p2 100 %");
        assert_eq!(drawn(&[("p1", 2), ("p2", 1)]), "→ pools app 66.7 %, p2 33.3 %");
        assert_eq!([share(1, 4_096), share(0, 0)], ["<0.1 %", "0 %"]);
    }

    #[test]
    fn what_is_bad_is_drawn_alone_and_counted() {
        let (bad, mut good) = (tree(), tree());
        good.load_balancer.as_mut().unwrap().state = state(1, 1, "");
        good.pools[0].backends.remove(0);
        let text = anstream::adapter::strip_str(&draw_bad(&[bad, good.clone()])).to_string();
        let wanted = "\
load balancer web  10.0.1.100  PENDING_UPDATE DEGRADED  waiting for\\u{1b} OVN
└─ pool app  TCP ROUND_ROBIN
   └─ backend b1  10.0.1.11:80  weight 3  ACTIVE OFFLINE  checked and found down: timed out

bad: 1 of 3 backends, 1 of 2 load balancers
";
        assert_eq!(text, wanted);
        assert_eq!(draw_bad(&[good]), "nothing is bad\n");
    }
}
