//! Traffic, as a table.

use fiberlb_proto::v1::{LoadBalancerStatistics, LoadBalancerTree, Traffic};

use super::style;
use super::table::{Cell, aligned};

/// One listener's line.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    listener: String,
    /// False: OVN carries it.
    is_counted: bool,
    traffic: Traffic,
}

/// Lines of a load balancer's listeners, in the order of its tree.
pub(crate) fn rows(tree: &LoadBalancerTree, statistics: &LoadBalancerStatistics) -> Vec<Row> {
    let root = tree.load_balancer.clone().unwrap_or_default();
    let root = if root.name.is_empty() { &root.id } else { &root.name };
    let row = |listener: &fiberlb_proto::v1::Listener| {
        let own = if listener.name.is_empty() {
            let protocol = listener.protocol().as_str_name().to_ascii_lowercase();
            format!("{}:{}", protocol.rsplit('_').next().unwrap_or_default(), listener.port)
        } else {
            listener.name.clone()
        };
        let found = statistics.listeners.iter().find(|found| found.listener_id == listener.id);
        Row {
            listener: format!("{root}/{own}"),
            is_counted: found.is_some_and(|found| found.counted),
            traffic: found.and_then(|found| found.traffic.clone()).unwrap_or_default(),
        }
    };
    tree.listeners.iter().map(row).collect()
}

/// Formats listeners, a row each.
pub(crate) fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no listeners\n".to_owned();
    }
    let headings = ["LISTENER", "CARRIER", "ACTIVE", "CONNECTIONS", "FAILED", "IN", "OUT", "NODES"];
    let mut lines = vec![headings.map(Cell::heading).into()];
    lines.extend(rows.iter().map(line));
    aligned(&lines)
}

fn line(row: &Row) -> Vec<Cell> {
    let it = &row.traffic;
    if !row.is_counted && it.connections_total == 0 {
        let dash = || Cell::painted(style::painted(style::DIM, "-"), "-");
        let mut cells = vec![Cell::plain(&row.listener), Cell::plain("OVN")];
        cells.extend((0..6).map(|_| dash()));
        return cells;
    }
    let nodes: Vec<String> =
        it.nodes.iter().map(|node| format!("{}={}", node.node_id, node.connections_active)).collect();
    vec![
        Cell::plain(&row.listener),
        Cell::plain(if row.is_counted { "PROXY" } else { "OVN" }),
        Cell::plain(&it.connections_active.to_string()),
        Cell::plain(&it.connections_total.to_string()),
        Cell::plain(&it.connections_failed_total.to_string()),
        Cell::plain(&bytes(it.bytes_in_total)),
        Cell::plain(&bytes(it.bytes_out_total)),
        Cell::plain(&if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") }),
    ]
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
    use fiberlb_proto::v1::{Listener, ListenerProtocol, ListenerStatistics, LoadBalancer, NodeConnections};

    use super::*;

    #[test]
    fn bytes_are_shown_in_units() {
        let shown = [0, 999, 1_000, 999_949, 999_950, 1_234_567, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.2 MB", "18.4 EB"]);
    }

    #[test]
    fn a_row_for_each_listener() {
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
            ..Default::default()
        };
        let traffic = Traffic {
            connections_total: 10,
            connections_failed_total: 1,
            bytes_in_total: 1_500,
            bytes_out_total: 2_000_000,
            connections_active: 2,
            nodes: vec![NodeConnections { node_id: "n1\u{1b}".to_owned(), connections_active: 2 }],
        };
        let counted = |id: &str, counted, traffic| ListenerStatistics {
            listener_id: id.to_owned(),
            counted,
            traffic: Some(traffic),
        };
        let statistics = LoadBalancerStatistics {
            listeners: vec![counted("a", true, traffic), counted("b", false, Traffic::default())],
            ..Default::default()
        };
        let text = anstream::adapter::strip_str(&table(&rows(&tree, &statistics))).to_string();
        let wanted = "\
LISTENER    CARRIER  ACTIVE  CONNECTIONS  FAILED  IN      OUT     NODES
web/tcp:80  PROXY    2       10           1       1.5 kB  2.0 MB  n1\\u{1b}=2
web/plain   OVN      -       -            -       -       -       -
";
        assert_eq!(text, wanted);
    }
}
