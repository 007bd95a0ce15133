//! Rows that the northbound database must hold, by docs/ovn.md alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fiberlb_ovn_testing::Server;
use serde_json::{Value, json};

use crate::client::Failure;
use crate::kinds::Kind;
use crate::model::{Model, Network, Resource, asking, transport};

/// A `Load_Balancer` row without its UUID; entries of VIPs are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    owner: String,
    name: String,
    protocol: String,
    vips: BTreeMap<String, Vec<String>>,
    options: BTreeMap<String, String>,
    selection: BTreeSet<String>,
}

/// Features of the OVN under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// `ipv6_src` in `selection_fields`.
    pub(crate) ipv6_selection: bool,
    /// `affinity_timeout`.
    pub(crate) affinity: bool,
    /// `ct_flush`.
    pub(crate) flush: bool,
    /// Responders answer by rows, and not by addresses of theirs.
    pub(crate) answer_rows: bool,
}

/// Compares the northbound database with what stands in all models.
///
/// # Errors
/// The first difference.
pub(crate) fn compare(
    server: &Server,
    networks: &[Network],
    models: &[&Model],
    features: Features,
) -> Result<(), Failure> {
    let read = |table: &str| -> Vec<Value> {
        server.rows(table, &json!([])).into_iter().map(|row| plain(&row)).collect()
    };
    let balancers = read("Load_Balancer");
    let mut groups: BTreeMap<String, Members> = BTreeMap::new();
    let mut found: Vec<Row> = Vec::new();
    for balancer in &balancers {
        let row = parsed(balancer);
        let root = models.iter().find_map(|model| model.get(Kind::LoadBalancer, &row.owner));
        let network =
            root.ok_or_else(|| format!("{row:?} is of no load balancer"))?.text("network").to_owned();
        let members = groups.entry(network).or_default();
        let members = if row.protocol.is_empty() { &mut members.answers } else { &mut members.listeners };
        members.insert(text(&balancer["_uuid"]).to_owned());
        found.push(row);
    }
    let mut expected: Vec<Row> = Vec::new();
    for model in models {
        for (id, root) in model.alive(Kind::LoadBalancer) {
            for (_, listener) in model.below(Kind::Listener, id).filter(|(_, it)| !it.going) {
                let asked = row(model, id, root, listener, features, false);
                // There are no proxies: what OVN served before these were asked for it goes on to serve.
                let standing = row(model, id, root, listener, features, true);
                let stands = !found.contains(&asked) && found.contains(&standing);
                // What this OVN lacks is refused where it alone may carry; what it served before goes on.
                let is_refused =
                    lacks(model, root, listener, features) && listener.text("datapath") == "DATAPATH_OVN";
                match (stands, is_refused) {
                    (true, _) => expected.push(standing),
                    (false, true) => {}
                    (false, false) => expected.push(asked),
                }
            }
            expected.extend(features.answer_rows.then(|| answer_row(id, root)));
        }
    }
    expected.sort();
    found.sort();
    if let Some(missing) = expected.iter().find(|row| !found.contains(row)) {
        let owner = |row: &&Row| row.owner == missing.owner;
        return Err(format!(
            "{missing:?}\n is missing; of that load balancer are there {:?}",
            found.iter().filter(owner).collect::<Vec<_>>()
        ));
    }
    if expected.len() != found.len() {
        let stray = found.iter().find(|row| !expected.contains(row));
        return Err(format!("{} rows, and not {}: {stray:?}", found.len(), expected.len()));
    }
    compare_groups(&read, networks, models, &groups, features)?;
    compare_ports(&read, models)
}

/// Rows of a network that its groups must have.
#[derive(Default)]
struct Members {
    listeners: BTreeSet<String>,
    answers: BTreeSet<String>,
}

fn compare_groups(
    read: &dyn Fn(&str) -> Vec<Value>,
    networks: &[Network],
    models: &[&Model],
    rows: &BTreeMap<String, Members>,
    features: Features,
) -> Result<(), Failure> {
    let (groups, switches, routers) =
        (read("Load_Balancer_Group"), read("Logical_Switch"), read("Logical_Router"));
    let (router_ports, empty) = (read("Logical_Router_Port"), Members::default());
    for network in networks {
        let roots = models.iter().flat_map(|model| model.alive(Kind::LoadBalancer));
        let roots: Vec<&Resource> =
            roots.map(|(_, it)| it).filter(|it| it.text("network") == network.id).collect();
        let named = |end: &str| {
            let name = format!("/network/{}{end}", network.id);
            groups.iter().find(|group| text(&group["name"]).ends_with(&name))
        };
        let (group, answers) = (named(""), named("#answers"));
        let router = routers.iter().find(|router| text(&router["name"]).ends_with(&network.id));
        if (group.is_some(), router.is_some()) != (!roots.is_empty(), !roots.is_empty()) {
            return Err(format!(
                "{} load balancers on {}: group {group:?}, responder {router:?}",
                roots.len(),
                network.name
            ));
        }
        let (Some(group), Some(router)) = (group, router) else { continue };
        let expected = rows.get(&network.id).unwrap_or(&empty);
        let members = set(&group["load_balancer"]);
        if members != expected.listeners {
            let expected = &expected.listeners;
            return Err(format!("the group of {} has {members:?}, and not {expected:?}", network.name));
        }
        let members = answers.map(|group| set(&group["load_balancer"]));
        if members != features.answer_rows.then(|| expected.answers.clone()) {
            return Err(format!("the answers of {} are {members:?}", network.name));
        }
        let switch = switches.iter().find(|switch| text(&switch["_uuid"]) == network.id);
        let of_switch = switch.map(|it| set(&it["load_balancer_group"])).unwrap_or_default();
        let of_responder = set(&router["load_balancer_group"]);
        let uuid = |group: &Value| text(&group["_uuid"]).to_owned();
        if !of_switch.contains(&uuid(group)) || of_responder != [uuid(answers.unwrap_or(group))].into() {
            return Err(format!(
                "the groups of {} are not on its switch and its responder: {of_switch:?}, {of_responder:?}",
                network.name
            ));
        }
        let ports = set(&router["ports"]);
        let port = router_ports.iter().find(|port| ports.contains(text(&port["_uuid"])));
        let answered = port.map(|port| set(&port["networks"])).unwrap_or_default();
        let answered: BTreeSet<&str> =
            answered.iter().filter(|it| !it.ends_with("/0")).map(String::as_str).collect();
        let vips = roots.iter().flat_map(|root| root.vips()).filter(|_| !features.answer_rows);
        let vips: BTreeSet<String> =
            vips.map(|vip| format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 })).collect();
        if answered != vips.iter().map(String::as_str).collect() {
            return Err(format!(
                "the responder of {} answers for {answered:?}, and not for {vips:?}",
                network.name
            ));
        }
    }
    Ok(())
}

/// Each load balancer has a port with its VIPs.
fn compare_ports(read: &dyn Fn(&str) -> Vec<Value>, models: &[&Model]) -> Result<(), Failure> {
    let kept = |port: &Value| {
        let addresses = set(&port["addresses"]);
        let words = addresses.iter().flat_map(|entry| entry.split(' ').skip(1));
        (owner(port), words.map(str::to_owned).collect::<BTreeSet<_>>())
    };
    let ports = read("Logical_Switch_Port");
    let found: BTreeMap<_, _> =
        ports.iter().filter(|port| text(&port["name"]).starts_with("fiberlb-vip-")).map(kept).collect();
    let roots = models.iter().flat_map(|model| model.alive(Kind::LoadBalancer));
    let expected: BTreeMap<String, BTreeSet<String>> =
        roots.map(|(id, it)| (id.clone(), it.vips().iter().map(IpAddr::to_string).collect())).collect();
    if found == expected { Ok(()) } else { Err(format!("ports keep {found:?}, and not {expected:?}")) }
}

/// True if the OVN under test lacks what a listener asks of it.
fn lacks(model: &Model, root: &Resource, listener: &Resource, features: Features) -> bool {
    let pool = model.get(Kind::Pool, listener.text("default_pool_id")).filter(|pool| !pool.going);
    let Some(pool) = pool else { return false };
    let has_v6 = root.vips().iter().any(IpAddr::is_ipv6);
    let cuts = pool.spec.get("drain_timeout").is_some_and(|it| it == "0s");
    pool.text("algorithm") == "ALGORITHM_SOURCE_IP" && has_v6 && !features.ipv6_selection
        || pool.spec.contains_key("session_persistence") && !features.affinity
        || cuts && !features.flush
}

/// Row of a listener. `stands`: OVN carries it as far as it can, though proxies are to.
fn row(
    model: &Model,
    id: &str,
    root: &Resource,
    listener: &Resource,
    features: Features,
    stands: bool,
) -> Row {
    let pool_id = listener.text("default_pool_id");
    let pool = model.get(Kind::Pool, pool_id).filter(|pool| !pool.going);
    let algorithm = pool.map(|pool| pool.text("algorithm")).unwrap_or_default();
    let timeout = pool.and_then(|pool| pool.spec.get("session_persistence")).map(|it| &it["timeout"]);
    let vips = root.vips();
    let has_v6 = vips.iter().any(IpAddr::is_ipv6);
    let lacks_v6 = has_v6 && !features.ipv6_selection;
    let cuts = pool.and_then(|pool| pool.spec.get("drain_timeout")).is_some_and(|it| it == "0s");
    let by_release = lacks(model, root, listener, features);
    let asks = listener.text("datapath") == "DATAPATH_PROXY"
        || !asking(&listener.spec, pool.map(|pool| &pool.spec), &model.backends_of(pool_id), &vips)
            .is_empty()
        || by_release && listener.text("datapath") == "DATAPATH_AUTO";
    let is_proxied = asks && !stands;
    // Backends that believe a header meet no client but through proxies.
    let takes = pool.is_some_and(|pool| pool.is_up() && !pool.text("protocol").contains("PROXY"));
    let is_up = root.is_up() && listener.is_up() && takes && !is_proxied;
    let port = listener.spec["port"].as_u64().unwrap();
    let backends: Vec<&Resource> =
        model.below(Kind::Backend, pool_id).map(|(_, it)| it).filter(|it| !it.going && is_up).collect();
    let by_client = algorithm == "ALGORITHM_SOURCE_IP" || timeout.is_some();
    let selection: &[&str] = match (is_proxied, algorithm) {
        (true, _) if by_client && !lacks_v6 => &["ip_src", "ip_dst"],
        (false, "ALGORITHM_SOURCE_IP") if !(stands && lacks_v6) => &["ip_src", "ip_dst"],
        (false, "ALGORITHM_SOURCE_IP_PORT") if !lacks_v6 => &["ip_src", "ip_dst", "tp_src", "tp_dst"],
        _ => &[],
    };
    let v6: &[&str] = if has_v6 && !selection.is_empty() { &["ipv6_src", "ipv6_dst"] } else { &[] };
    let mut options = BTreeMap::from([("reject".to_owned(), "true".to_owned())]);
    if transport(&listener.spec) == "udp" || cuts && !is_proxied {
        options.insert("ct_flush".to_owned(), "true".to_owned());
    }
    if features.answer_rows {
        options.insert("neighbor_responder".to_owned(), "none".to_owned());
    }
    let has_affinity = features.affinity && (!is_proxied || by_client && selection.is_empty());
    if let Some(timeout) = timeout.filter(|_| has_affinity) {
        options.insert("affinity_timeout".to_owned(), text(timeout).trim_end_matches('s').to_owned());
    }
    let name = if listener.text("name").is_empty() { root.text("name") } else { listener.text("name") };
    Row {
        owner: id.to_owned(),
        name: name.to_owned(),
        protocol: transport(&listener.spec).to_owned(),
        vips: vips.iter().map(|vip| (socket(*vip, port), rotation(*vip, &backends))).collect(),
        options,
        selection: selection.iter().chain(v6).map(|field| (*field).to_owned()).collect(),
    }
}

/// Row by which the responder answers for the VIPs of a load balancer.
fn answer_row(id: &str, root: &Resource) -> Row {
    Row {
        owner: id.to_owned(),
        name: root.text("name").to_owned(),
        protocol: String::new(),
        vips: root.vips().iter().map(|vip| (vip.to_string(), Vec::new())).collect(),
        options: BTreeMap::new(),
        selection: BTreeSet::new(),
    }
}

fn socket(address: IpAddr, port: u64) -> String {
    SocketAddr::new(address, u16::try_from(port).unwrap()).to_string()
}

/// Backends of a VIP, each as often as its weight asks. Weights are so small that a list is never cut.
fn rotation(vip: IpAddr, backends: &[&Resource]) -> Vec<String> {
    let address = |it: &Resource| it.text("address").parse::<IpAddr>().unwrap();
    let weight = |it: &Resource| usize::try_from(it.spec["weight"].as_u64().unwrap()).unwrap();
    let serving =
        backends.iter().filter(|it| it.is_up() && weight(it) > 0 && address(it).is_ipv4() == vip.is_ipv4());
    let (backups, others): (Vec<&Resource>, Vec<&Resource>) =
        serving.partition(|it| it.spec["backup"] == true);
    let chosen = if others.is_empty() { backups } else { others };
    let largest =
        (1..=256).rev().find(|divisor| chosen.iter().all(|it| weight(it) % divisor == 0)).unwrap_or(1);
    let entry = |it: &Resource| socket(address(it), it.spec["port"].as_u64().unwrap());
    let mut entries: Vec<String> =
        chosen.iter().flat_map(|it| std::iter::repeat_n(entry(it), weight(it) / largest)).collect();
    entries.sort();
    entries
}

fn parsed(row: &Value) -> Row {
    let map = |column: &str| -> BTreeMap<String, String> {
        row[column]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(value).to_owned()))
            .collect()
    };
    let entries = |list: String| {
        let mut entries: Vec<String> =
            list.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        entries.sort();
        entries
    };
    Row {
        owner: owner(row),
        name: text(&row["name"]).to_owned(),
        protocol: text(&row["protocol"]).to_owned(),
        vips: map("vips").into_iter().map(|(vip, list)| (vip, entries(list))).collect(),
        options: map("options"),
        selection: set(&row["selection_fields"]),
    }
}

/// Load balancer of a row.
fn owner(row: &Value) -> String {
    text(&row["external_ids"]["fiberlb:owner"]).rsplit('/').next().unwrap_or_default().to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A set column; one of one element is that element.
fn set(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(elements) => elements.iter().map(|element| text(element).to_owned()).collect(),
        element => std::iter::once(text(element).to_owned()).filter(|text| !text.is_empty()).collect(),
    }
}

/// A value without OVSDB's notation (RFC 7047, section 5.1).
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(columns) => columns.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        Value::Array(pair) => match (pair.first().and_then(Value::as_str), pair.get(1)) {
            (Some("uuid"), Some(uuid)) => uuid.clone(),
            (Some("set"), Some(Value::Array(elements))) => elements.iter().map(plain).collect(),
            (Some("map"), Some(Value::Array(pairs))) => {
                let pair = |pair: &Value| (text(&plain(&pair[0])).to_owned(), plain(&pair[1]));
                Value::Object(pairs.iter().map(pair).collect())
            }
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}
