//! Traffic, as tables.

use std::time::SystemTime;

use fiberlb_proto::v1::{DurationBucket, LoadBalancerStatistics, LoadBalancerTree, Traffic};

use super::drain;
use super::style;
use super::table::{Cell, aligned};
use crate::names;

/// Line of a listener, pool or backend.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    subject: String,
    /// False: OVN carries it.
    is_counted: bool,
    traffic: Traffic,
}

/// Lines of a load balancer's listeners, in the order of its tree, and of what is left of those that were removed.
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
    tree.listeners.iter().map(row).chain(removed(root, statistics)).collect()
}

/// Line of what is left of removed listeners, if there is anything.
fn removed(root: &str, statistics: &LoadBalancerStatistics) -> Option<Row> {
    let all = statistics.traffic.as_ref()?;
    let own = statistics.listeners.iter().filter_map(|listener| listener.traffic.as_ref());
    let own = own.map(|traffic| traffic.connections_draining).fold(0, u64::saturating_add);
    let connections_draining = all.connections_draining.checked_sub(own).filter(|left| *left > 0)?;
    let traffic = Traffic {
        connections_active: connections_draining,
        connections_draining,
        drain_deadline: all.drain_deadline,
        ..Traffic::default()
    };
    Some(Row { subject: format!("{root}/(removed)"), is_counted: true, traffic })
}

/// Lines of a load balancer's pools, each with those of its backends below it, in the order of its tree.
pub(crate) fn pools(tree: &LoadBalancerTree, statistics: &LoadBalancerStatistics) -> Vec<Row> {
    let row = |subject: String, traffic: Option<&Traffic>| Row {
        subject,
        is_counted: true,
        traffic: traffic.cloned().unwrap_or_default(),
    };
    let mut rows = Vec::new();
    for pool in &tree.pools {
        let own = pool.pool.clone().unwrap_or_default();
        let found = statistics.pools.iter().find(|found| found.pool_id == own.id);
        let name = if own.name.is_empty() { own.id } else { format!("{}/{}", root(tree), own.name) };
        rows.push(row(name.clone(), found.and_then(|found| found.traffic.as_ref())));
        for backend in &pool.backends {
            let found = statistics.backends.iter().find(|found| found.backend_id == backend.id);
            let subject = format!("{name}/{}", names::socket(backend));
            rows.push(row(subject, found.and_then(|found| found.traffic.as_ref())));
        }
    }
    rows
}

/// Name of a tree's load balancer, or its id.
fn root(tree: &LoadBalancerTree) -> &str {
    let root = tree.load_balancer.as_ref();
    root.map_or("", |root| if root.name.is_empty() { &root.id } else { &root.name })
}

/// Formats listeners, a row each; and, of a single load balancer, below them its pools and backends, how long connections lasted,
/// and what was not served, if there are any. `pools`: `None` for all load balancers.
pub(crate) fn tables(listeners: &[Row], pools: Option<&[Row]>, now: SystemTime) -> String {
    let mut text = of_listeners(listeners);
    let Some(pools) = pools else { return text };
    if !pools.is_empty() {
        let headings = ["POOL, BACKEND", "ACTIVE", "CONNECTIONS", "FAILED", "IN", "OUT", "NODES"];
        let mut lines = vec![headings.map(Cell::heading).into()];
        lines.extend(pools.iter().map(|row| {
            let mut cells = vec![Cell::plain(&row.subject)];
            cells.extend(figures(&row.traffic));
            cells
        }));
        text = format!("{text}\n{}", aligned(&lines));
    }
    let all: Vec<&Row> = listeners.iter().chain(pools).collect();
    for table in [of_draining(&all, now), of_durations(&all), of_reasons(&all)] {
        if !table.is_empty() {
            text = format!("{text}\n{table}");
        }
    }
    text
}

/// Connections that are left of drains; empty: there are none.
fn of_draining(rows: &[&Row], now: SystemTime) -> String {
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    for row in rows.iter().filter(|row| row.traffic.connections_draining > 0) {
        let reset = drain::reset(row.traffic.drain_deadline.as_ref(), now);
        let left = row.traffic.connections_draining.to_string();
        lines.push([&row.subject, &left, &reset].map(|text| Cell::plain(text)).into());
    }
    if lines.is_empty() {
        return String::new();
    }
    lines.insert(0, ["DRAINING", "CONNECTIONS", "LEFT"].map(Cell::heading).into());
    aligned(&lines)
}

/// Durations of connections that have ended; empty: there were none.
fn of_durations(rows: &[&Row]) -> String {
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    for row in rows {
        let buckets = &row.traffic.durations;
        let ended: u64 = buckets.iter().map(|bucket| bucket.connections_total).sum();
        if ended == 0 {
            continue;
        }
        let mean = format!("{} s", three_digits(row.traffic.duration_seconds_total / ended as f64));
        let mut cells = vec![row.subject.clone(), ended.to_string(), mean];
        cells.extend([50, 90, 99].map(|percent| at_most(buckets, ended, percent)));
        lines.push(cells.iter().map(|text| Cell::plain(text)).collect());
    }
    if lines.is_empty() {
        return String::new();
    }
    lines.insert(0, ["LASTED", "ENDED", "MEAN", "50 %", "90 %", "99 %"].map(Cell::heading).into());
    aligned(&lines)
}

/// Duration that so many percent of connections have not exceeded, as far as buckets say.
fn at_most(buckets: &[DurationBucket], ended: u64, percent: u64) -> String {
    let wanted = u128::from(ended) * u128::from(percent);
    let mut sum = 0_u128;
    let mut longest = 0.0;
    for bucket in buckets {
        sum += u128::from(bucket.connections_total);
        let Some(bound) = &bucket.at_most else { break };
        longest = bound.seconds as f64 + f64::from(bound.nanos) / 1e9;
        if sum * 100 >= wanted {
            return format!("<= {longest} s");
        }
    }
    format!("> {longest} s")
}

/// Formats a number that is not negative by its first digits.
fn three_digits(number: f64) -> String {
    let decimals = if number < 0.01 {
        4
    } else if number < 1.0 {
        3
    } else if number < 100.0 {
        1
    } else {
        0
    };
    format!("{number:.decimals$}")
}

/// Connections that were not served, or did not end well, by reason; empty: there were none.
fn of_reasons(rows: &[&Row]) -> String {
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    for row in rows {
        lines.extend(row.traffic.reasons.iter().map(|it| {
            let total = it.connections_total.to_string();
            [&row.subject, &it.reason, &total].map(|text| Cell::plain(text)).into()
        }));
    }
    if lines.is_empty() {
        return String::new();
    }
    lines.insert(0, ["FAILED AT", "REASON", "CONNECTIONS"].map(Cell::heading).into());
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
        NodeConnections, Pool, PoolStatistics, PoolTree, ReasonCount,
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
                pool: Some(Pool { id: "p".to_owned(), name: "app".to_owned(), ..Default::default() }),
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
            durations: buckets([2, 5, 0, 1]),
            duration_seconds_total: 9.87,
            connections_draining: 2,
            drain_deadline: None,
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
                traffic: Some(Traffic { reasons: Vec::new(), durations: Vec::new(), ..traffic.clone() }),
                ..Default::default()
            }],
            pools: vec![PoolStatistics {
                pool_id: "p".to_owned(),
                traffic: Some(Traffic { connections_total: 12, connections_draining: 5, ..traffic }),
            }],
            traffic: Some(Traffic {
                connections_draining: 3,
                drain_deadline: Some(prost_types::Timestamp { seconds: 40, nanos: 0 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text =
            tables(&listeners(&tree, &statistics), Some(&pools(&tree, &statistics)), SystemTime::UNIX_EPOCH);
        let text = anstream::adapter::strip_str(&text).to_string();
        let wanted = "\
LISTENER       CARRIER  ACTIVE  CONNECTIONS  FAILED  IN      OUT     NODES
web/tcp:80     PROXY    2       10           1       1.5 kB  2.0 MB  n1\\u{1b}=2
web/plain      OVN      -       -            -       -       -       -
web/(removed)  PROXY    1       0            0       0 B     0 B     -

POOL, BACKEND           ACTIVE  CONNECTIONS  FAILED  IN      OUT     NODES
web/app                 2       12           1       1.5 kB  2.0 MB  n1\\u{1b}=2
web/app/[fd00::1]:8080  2       10           1       1.5 kB  2.0 MB  n1\\u{1b}=2

DRAINING                CONNECTIONS  LEFT
web/tcp:80              2            until they end
web/(removed)           1            reset in 40 s
web/app                 5            until they end
web/app/[fd00::1]:8080  2            until they end

LASTED      ENDED  MEAN   50 %      90 %   99 %
web/tcp:80  8      1.2 s  <= 0.1 s  > 1 s  > 1 s
web/app     8      1.2 s  <= 0.1 s  > 1 s  > 1 s

FAILED AT   REASON      CONNECTIONS
web/tcp:80  no_backend  1
web/app     no_backend  1
";
        assert_eq!(text, wanted);
        let parts: Vec<&str> = wanted.split("\n\n").collect();
        let shown = |pools| {
            let text = tables(&listeners(&tree, &statistics), pools, SystemTime::UNIX_EPOCH);
            anstream::adapter::strip_str(&text).to_string()
        };
        assert_eq!(shown(None), format!("{}\n", parts[0]), "of all load balancers");
        let of_listener = |part: &str| -> String {
            part.lines().filter(|line| !line.starts_with("web/app")).map(|line| format!("{line}\n")).collect()
        };
        let short = [parts[3], parts[4]].map(of_listener).join("\n");
        let draining = "\
DRAINING       CONNECTIONS  LEFT
web/tcp:80     2            until they end
web/(removed)  1            reset in 40 s
";
        assert_eq!(shown(Some(&[])), format!("{}\n\n{draining}\n{short}", parts[0]), "it has no pool");
    }

    /// Buckets up to 1 s, and one for what is longer.
    fn buckets(counts: [u64; 4]) -> Vec<DurationBucket> {
        let bound = |nanos: i64| prost_types::Duration {
            seconds: nanos / 1_000_000_000,
            nanos: (nanos % 1_000_000_000) as i32,
        };
        let bounds = [Some(10_000_000), Some(100_000_000), Some(1_000_000_000), None];
        let bucket = |(at_most, connections_total): (Option<i64>, u64)| DurationBucket {
            at_most: at_most.map(bound),
            connections_total,
        };
        bounds.into_iter().zip(counts).map(bucket).collect()
    }

    #[test]
    fn durations_are_bounded_by_their_buckets() {
        let shown = |counts: [u64; 4]| {
            let ended = counts.iter().sum();
            [50, 99].map(|percent| at_most(&buckets(counts), ended, percent))
        };
        assert_eq!(shown([1, 0, 0, 0]), ["<= 0.01 s", "<= 0.01 s"]);
        assert_eq!(shown([50, 49, 1, 0]), ["<= 0.01 s", "<= 0.1 s"]);
        assert_eq!(shown([0, 0, 0, u64::MAX / 2]), ["> 1 s", "> 1 s"]);
        assert_eq!([0.001_24, 0.25, 12.34, 4_321.9].map(three_digits), ["0.0012", "0.250", "12.3", "4322"]);
    }
}
