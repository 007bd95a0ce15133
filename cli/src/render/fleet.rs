//! Proxy nodes and their verdicts, as tables.

use std::time::SystemTime;

use fiberlb_proto::v1::{
    BackendHealth, Node, NodeEjection, NodeInconclusive, NodeStatus, NodeVerdict, ResourceState,
};
use prost_types::Timestamp;

use super::drain;
use super::style;
use super::table::{Cell, aligned};

/// Formats nodes, a row each.
pub(crate) fn nodes(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return "no proxy node has ever connected\n".to_owned();
    }
    let headings = [
        "ID",
        "STATUS",
        "DUTY",
        "ZONE",
        "CHASSIS",
        "NETWORKS",
        "LISTENERS",
        "CONNECTIONS",
        "SINCE",
        "REASON",
    ];
    let mut rows = vec![headings.map(Cell::heading).into()];
    rows.extend(nodes.iter().map(row));
    aligned(&rows)
}

fn row(it: &Node) -> Vec<Cell> {
    let why = [&it.reason, &it.waiting_for].map(String::as_str);
    let why: Vec<&str> = why.into_iter().filter(|why| !why.is_empty()).collect();
    vec![
        Cell::plain(&it.id),
        status(it.status()),
        duty(it),
        Cell::plain(&it.zone),
        Cell::plain(&it.chassis),
        Cell::plain(&it.networks.to_string()),
        Cell::plain(&it.listeners.to_string()),
        Cell::plain(&it.connections.to_string()),
        time(it.since.as_ref()),
        Cell::plain(&why.join("; ")),
    ]
}

/// Formats one node, a line for each field.
pub(crate) fn node(it: &Node) -> String {
    let mut facts = vec![
        ("node", Cell::plain(&it.id)),
        ("status", status(it.status())),
        ("since", time(it.since.as_ref())),
        ("duty", duty(it)),
        ("zone", Cell::plain(&it.zone)),
        ("chassis", Cell::plain(&it.chassis)),
        ("release", Cell::plain(&it.release)),
        ("capabilities", Cell::plain(&it.capabilities.join(", "))),
        ("registered_at", time(it.registered_at.as_ref())),
        ("networks", Cell::plain(&it.networks.to_string())),
        ("draining_networks", Cell::plain(&it.draining_networks.to_string())),
        ("listeners", Cell::plain(&it.listeners.to_string())),
        ("connections", Cell::plain(&it.connections.to_string())),
    ];
    if it.connections_draining > 0 {
        let reset = drain::reset(it.drain_deadline.as_ref(), SystemTime::now());
        let left = format!("{} connections left, {reset}", it.connections_draining);
        facts.push(("draining", Cell::plain(&left)));
    }
    let texts = [("waiting_for", &it.waiting_for), ("reason", &it.reason)];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    facts.extend(texts.map(|(name, text)| (name, Cell::plain(text))));
    aligned(&facts.into_iter().map(|(name, value)| vec![Cell::heading(name), value]).collect::<Vec<_>>())
}

/// Duty that operators assigned to a node, and its progress.
fn duty(it: &Node) -> Cell {
    let (style, name) = match (it.draining, it.cordoned) {
        (true, _) if it.networks == 0 => (style::FAIR, "DRAINED"),
        (true, _) => (style::FAIR, "DRAINING"),
        (false, true) => (style::FAIR, "CORDONED"),
        (false, false) => (style::DIM, "-"),
    };
    Cell::painted(style::painted(style, name), name)
}

fn status(status: NodeStatus) -> Cell {
    let (style, name) = match status {
        NodeStatus::Alive => (style::GOOD, "ALIVE"),
        NodeStatus::Silent => (style::FAIR, "SILENT"),
        NodeStatus::Dead => (style::BAD, "DEAD"),
        NodeStatus::Unspecified => (style::DIM, "-"),
    };
    Cell::painted(style::painted(style, name), name)
}

/// Formats the health of the backend `shown` in this state, with a row for each verdict, and for each node that leaves it out.
pub(crate) fn health(shown: &str, state: &ResourceState, it: &BackendHealth) -> String {
    let state = ResourceState { operating_status: it.operating_status, ..state.clone() };
    let operating = Cell::painted(style::operating(&state), style::operating_name(it.operating_status()));
    let mut facts = vec![
        vec![Cell::heading("backend"), Cell::plain(shown)],
        vec![Cell::heading("operating_status"), operating],
    ];
    if !it.reason.is_empty() {
        facts.push(vec![Cell::heading("reason"), Cell::plain(&it.reason)]);
    }
    format!("{}\n{}{}", aligned(&facts), verdicts(it), ejections(&it.ejections))
}

/// Formats the verdicts on backends, by their addresses; `more`: number of further ones that were not requested.
pub(crate) fn healths(found: &[(String, BackendHealth)], more: usize) -> String {
    let mut rows =
        vec![["BACKEND", "NODE", "PROBES FROM", "VERDICT", "SINCE", "REASON"].map(Cell::heading).into()];
    for (socket, it) in found {
        let said = it.verdicts.iter().map(verdict).chain(it.inconclusive.iter().map(inconclusive));
        rows.extend(said.map(|cells| [vec![Cell::plain(socket)], cells].into_iter().flatten().collect()));
    }
    if rows.len() == 1 {
        return String::new();
    }
    let more = if more > 0 { format!("and {more} more; see `health show`\n") } else { String::new() };
    format!("{}{more}", aligned(&rows))
}

/// Formats what each node says of a backend.
pub(crate) fn verdicts(it: &BackendHealth) -> String {
    if it.verdicts.is_empty() && it.inconclusive.is_empty() {
        return "no node has a verdict on it\n".to_owned();
    }
    let mut rows = vec![["NODE", "PROBES FROM", "VERDICT", "SINCE", "REASON"].map(Cell::heading).into()];
    rows.extend(it.verdicts.iter().map(verdict));
    rows.extend(it.inconclusive.iter().map(inconclusive));
    aligned(&rows)
}

/// Nodes that leave a backend out of their choice; empty for none.
fn ejections(ejections: &[NodeEjection]) -> String {
    if ejections.is_empty() {
        return String::new();
    }
    let row =
        |it: &NodeEjection| vec![Cell::plain(&it.node_id), time(it.until.as_ref()), Cell::plain(&it.reason)];
    let mut rows = vec![["NODE", "LEFT OUT UNTIL", "REASON"].map(Cell::heading).into()];
    rows.extend(ejections.iter().map(row));
    format!("\n{}", aligned(&rows))
}

fn verdict(it: &NodeVerdict) -> Vec<Cell> {
    let (style, name) = if it.up { (style::GOOD, "UP") } else { (style::BAD, "DOWN") };
    let shown = Cell::painted(style::painted(style, name), name);
    let (node, reason) = (Cell::plain(&it.node_id), Cell::plain(&it.reason));
    vec![node, addresses(&it.addresses), shown, time(it.since.as_ref()), reason]
}

fn inconclusive(it: &NodeInconclusive) -> Vec<Cell> {
    const NAME: &str = "INCONCLUSIVE";
    let shown = Cell::painted(style::painted(style::FAIR, NAME), NAME);
    let (node, reason) = (Cell::plain(&it.node_id), Cell::plain(&it.reason));
    vec![node, addresses(&it.addresses), shown, time(it.since.as_ref()), reason]
}

/// Formats the addresses of a node; "-" for none.
fn addresses(addresses: &[String]) -> Cell {
    Cell::plain(&if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") })
}

/// Formats a time in UTC; "-" for none.
fn time(time: Option<&Timestamp>) -> Cell {
    time.map_or_else(|| Cell::plain("-"), |time| Cell::plain(&time.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_style(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_row_for_each_node() {
        let one = Node {
            id: "n1".to_owned(),
            status: NodeStatus::Alive.into(),
            chassis: "ch1\u{1b}[2J".to_owned(),
            networks: 2,
            since: Some(Timestamp { seconds: 0, nanos: 0 }),
            ..Default::default()
        };
        let other =
            Node { id: "n2".to_owned(), status: 3, reason: "silent for 5 s".to_owned(), ..one.clone() };
        let text = without_style(&nodes(&[one, other]));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["n1", "ALIVE", "-", r"ch1\u{1b}[2J", "2", "0", "0", "1970-01-01T00:00:00Z"]);
        assert_eq!(lines[2][1], "DEAD");
        assert!(text.ends_with("silent for 5 s\n"), "{text}");
        assert_eq!(nodes(&[]), "no proxy node has ever connected\n");
    }

    #[test]
    fn how_far_a_drain_is() {
        let mut it =
            Node { id: "n1".to_owned(), status: 1, cordoned: true, networks: 2, ..Default::default() };
        let duty_of = |it: &Node| {
            let shown = without_style(&node(it));
            shown.lines().find_map(|line| line.strip_prefix("duty ")).unwrap().trim().to_owned()
        };
        assert_eq!(duty_of(&it), "CORDONED");
        it.draining = true;
        it.waiting_for = "network x: 3 connections go through it".to_owned();
        assert_eq!(duty_of(&it), "DRAINING");
        let shown = without_style(&node(&it));
        assert!(shown.ends_with("waiting_for        network x: 3 connections go through it\n"), "{shown}");
        it.networks = 0;
        assert_eq!(duty_of(&it), "DRAINED");
        assert!(without_style(&nodes(&[it])).contains("DRAINED"));
    }

    #[test]
    fn the_verdict_of_each_node() {
        let down = NodeVerdict {
            node_id: "n1".to_owned(),
            up: false,
            reason: "connection refused".to_owned(),
            since: Some(Timestamp { seconds: 1, nanos: 500_000_000 }),
            addresses: vec!["10.0.0.250".to_owned(), "fd00::fa".to_owned()],
        };
        let up = NodeVerdict { node_id: "n2".to_owned(), up: true, ..Default::default() };
        let mut health_of = BackendHealth {
            backend_id: "b".to_owned(),
            operating_status: 4,
            reason: "the proxy nodes disagree".to_owned(),
            verdicts: vec![down, up],
            inconclusive: vec![NodeInconclusive {
                node_id: "n2".to_owned(),
                reason: "cannot make a socket".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let wanted = "\
backend           web/app/one (10.0.0.1:80)
operating_status  DEGRADED
reason            the proxy nodes disagree

NODE  PROBES FROM           VERDICT       SINCE                     REASON
n1    10.0.0.250, fd00::fa  DOWN          1970-01-01T00:00:01.500Z  connection refused
n2    -                     UP            -
n2    -                     INCONCLUSIVE  -                         cannot make a socket
";
        assert_eq!(
            without_style(&health("web/app/one (10.0.0.1:80)", &ResourceState::default(), &health_of)),
            wanted
        );
        health_of.verdicts.clear();
        assert!(!health("x", &ResourceState::default(), &health_of).contains("no node"));
        health_of.inconclusive.clear();
        assert!(
            health("x", &ResourceState::default(), &health_of).ends_with("\n\nno node has a verdict on it\n")
        );
        health_of.ejections.push(NodeEjection {
            node_id: "n1".to_owned(),
            until: Some(Timestamp { seconds: 1, nanos: 0 }),
            reason: "connection refused".to_owned(),
        });
        let wanted = "\
no node has a verdict on it

NODE  LEFT OUT UNTIL        REASON
n1    1970-01-01T00:00:01Z  connection refused
";
        assert!(without_style(&health("x", &ResourceState::default(), &health_of)).ends_with(wanted));
    }
}
