//! Traffic, as tables.

use fiberlb_proto::v1::{LoadBalancerStatistics, LoadBalancerTree, Traffic};

use super::style;
use super::table::{Cell, aligned};
use crate::names;

/// Line of a listener or backend.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    subject: String,
    /// False: OVN carries it.
    is_counted: bool,
    traffic: Traffic,
}

/// Lines of a load balancer's listeners, in the order of its tree.
pub(crate) fn listeners(tree: &LoadBalancerTree, statistics: &LoadBalancerStatistics) -> Vec<Row> {
    let root = root(tree);
    let row = |listener: &fiberlb_proto::v1::Listener| {
        let found = statistics.listeners.iter().find(|found| found.listener_id == listener.id);
        Row {
            subject: format!("{root}/{}", names::of_listener(listener)),
            is_counted: found.is_some_and(|found| found.counted),
            traffic: found.and_then(|found| found.traffic.clone()).unwrap_or_default(),
        }
    };
    tree.listeners.iter().map(row).collect()
}

/// Lines of a load balancer's backends, in the order of its tree.
pub(crate) fn backends(tree: &LoadBalancerTree, statistics: &LoadBalancerStatistics) -> Vec<Row> {
    let mut rows = Vec::new();
    for pool in &tree.pools {
        let own = pool.pool.clone().unwrap_or_default();
        let own = if own.name.is_empty() { own.id } else { format!("{}/{}", root(tree), own.name) };
        for backend in &pool.backends {
            let found = statistics.backends.iter().find(|found| found.backend_id == backend.id);
            rows.push(Row {
                subject: format!("{own}/{}", names::socket(backend)),
                is_counted: true,
                traffic: found.and_then(|found| found.traffic.clone()).unwrap_or_default(),
            });
        }
    }
    rows
}

/// Name of a tree's load balancer, or its id.
fn root(tree: &LoadBalancerTree) -> &str {
    let root = tree.load_balancer.as_ref();
    root.map_or("", |root| if root.name.is_empty() { &root.id } else { &root.name })
}

/// Formats listeners, a row each; and, of a single load balancer, below them its backends and what was not served, if there are
/// any. `backends`: `None` for all load balancers.
pub(crate) fn tables(listeners: &[Row], backends: Option<&[Row]>) -> String {
    let mut text = of_listeners(listeners);
    let Some(backends) = backends else { return text };
    if !backends.is_empty() {
        let headings = ["BACKEND", "ACTIVE", "CONNECTIONS", "FAILED", "IN", "OUT", "NODES"];
        let mut lines = vec![headings.map(Cell::heading).into()];
        lines.extend(backends.iter().map(|row| {
            let mut cells = vec![Cell::plain(&row.subject)];
            cells.extend(figures(&row.traffic));
            cells
        }));
        text = format!("{text}\n{}", aligned(&lines));
    }
    let reasons = of_reasons(listeners);
    if !reasons.is_empty() {
        text = format!("{text}\n{reasons}");
    }
    text
}

/// Connections that were not served, or did not end well, by listener and reason; empty: there were none.
fn of_reasons(listeners: &[Row]) -> String {
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    for row in listeners {
        lines.extend(row.traffic.reasons.iter().map(|it| {
            let total = it.connections_total.to_string();
            [&row.subject, &it.reason, &total].map(|text| Cell::plain(text)).into()
        }));
    }
    if lines.is_empty() {
        return String::new();
    }
    lines.insert(0, ["LISTENER", "REASON", "CONNECTIONS"].map(Cell::heading).into());
    aligned(&lines)
}

fn of_listeners(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no listeners\n".to_owned();
    }
    let headings = ["LISTENER", "CARRIER", "ACTIVE", "CONNECTIONS", "FAILED", "IN", "OUT", "NODES"];
    let mut lines = vec![headings.map(Cell::heading).into()];
    lines.extend(rows.iter().map(line));
    aligned(&lines)
}

fn line(row: &Row) -> Vec<Cell> {
    if !row.is_counted && row.traffic.connections_total == 0 {
        let dash = || Cell::painted(style::painted(style::DIM, "-"), "-");
        let mut cells = vec![Cell::plain(&row.subject), Cell::plain("OVN")];
        cells.extend((0..6).map(|_| dash()));
        return cells;
    }
    let mut cells =
        vec![Cell::plain(&row.subject), Cell::plain(if row.is_counted { "PROXY" } else { "OVN" })];
    cells.extend(figures(&row.traffic));
    cells
}

fn figures(it: &Traffic) -> [Cell; 6] {
    let nodes: Vec<String> =
        it.nodes.iter().map(|node| format!("{}={}", node.node_id, node.connections_active)).collect();
    [
        it.connections_active.to_string(),
        it.connections_total.to_string(),
        it.connections_failed_total.to_string(),
        bytes(it.bytes_in_total),
        bytes(it.bytes_out_total),
        if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") },
    ]
    .map(|text| Cell::plain(&text))
}

/// Formats bytes in decimal units.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut shown = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if shown < 999.95 {
            break;
        }
        (shown, unit) = (shown / 1_000.0, larger);
    }
    format!("{shown:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{
        Backend, BackendStatistics, Listener, ListenerProtocol, ListenerStatistics, LoadBalancer,
        NodeConnections, Pool, PoolTree, ReasonCount,
    };

    use super::*;

    #[test]
    fn bytes_are_shown_in_units() {
        let shown = [0, 999, 1_000, 999_949, 999_950, 1_234_567, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.2 MB", "18.4 EB"]);
    }

    #[test]
    fn a_row_for_each_listener_and_backend() {
        let listener = |id: &str, name: &str, port| Listener {
            id: id.to_owned(),
            name: name.to_owned(),
            port,
            protocol: ListenerProtocol::Tcp.into(),
            ..Default::default()
        };
        let tree = LoadBalancerTree {
            load_balancer: Some(LoadBalancer { name: "web".to_owned(), ..Default::default() }),
            listeners: vec![listener("a", "", 80), listener("b", "plain", 81)],
            pools: vec![PoolTree {
                pool: Some(Pool { name: "app".to_owned(), ..Default::default() }),
                backends: vec![Backend {
                    id: "c".to_owned(),
                    address: "fd00::1".to_owned(),
                    port: 8080,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let traffic = Traffic {
            connections_total: 10,
            connections_failed_total: 1,
            bytes_in_total: 1_500,
            bytes_out_total: 2_000_000,
            connections_active: 2,
            nodes: vec![NodeConnections { node_id: "n1\u{1b}".to_owned(), connections_active: 2 }],
            reasons: vec![ReasonCount { reason: "no_backend".to_owned(), connections_total: 1 }],
        };
        let counted = |id: &str, counted, traffic| ListenerStatistics {
            listener_id: id.to_owned(),
            counted,
            traffic: Some(traffic),
        };
        let statistics = LoadBalancerStatistics {
            listeners: vec![counted("a", true, traffic.clone()), counted("b", false, Traffic::default())],
            backends: vec![BackendStatistics {
                backend_id: "c".to_owned(),
                traffic: Some(traffic),
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = tables(&listeners(&tree, &statistics), Some(&backends(&tree, &statistics)));
        let text = anstream::adapter::strip_str(&text).to_string();
        let wanted = "\
LISTENER    CARRIER  ACTIVE  CONNECTIONS  FAILED  IN      OUT     NODES
web/tcp:80  PROXY    2       10           1       1.5 kB  2.0 MB  n1\\u{1b}=2
web/plain   OVN      -       -            -       -       -       -

BACKEND                 ACTIVE  CONNECTIONS  FAILED  IN      OUT     NODES
web/app/[fd00::1]:8080  2       10           1       1.5 kB  2.0 MB  n1\\u{1b}=2

LISTENER    REASON      CONNECTIONS
web/tcp:80  no_backend  1
";
        assert_eq!(text, wanted);
        let parts: Vec<&str> = wanted.split("\n\n").collect();
        let shown = |backends| {
            let text = tables(&listeners(&tree, &statistics), backends);
            anstream::adapter::strip_str(&text).to_string()
        };
        assert_eq!(shown(None), format!("{}\n", parts[0]), "of all load balancers");
        assert_eq!(shown(Some(&[])), format!("{}\n\n{}", parts[0], parts[2]), "it has no backend");
    }
}
