//! Rows that the northbound database must hold, by docs/ovn.md alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fiberlb_ovn_testing::Server;
use serde_json::{Value, json};

use crate::client::Failure;
use crate::kinds::Kind;
use crate::model::{Model, Network, Resource, asking, shares, transport};

/// A `Load_Balancer` row without its UUID; entries of VIPs are sorted.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    owner: String,
    name: String,
    protocol: String,
    vips: BTreeMap<String, Listed>,
    options: BTreeMap<String, String>,
    selection: BTreeSet<String>,
}

/// Backends of a VIP.
#[derive(Clone, Debug)]
enum Listed {
    /// Each as often as it is listed, in order.
    Exactly(Vec<String>),
    /// 512 entries, of each backend about so many: of more the shares of several pools would be exact.
    Near(BTreeMap<String, f64>),
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exactly(one), Self::Exactly(other)) => one == other,
            (Self::Near(one), Self::Near(other)) => one == other,
            (Self::Near(quotas), Self::Exactly(list)) | (Self::Exactly(list), Self::Near(quotas)) => {
                // Each pool is rounded, and each backend in it; those below one entry have one, at the cost of others.
                let count = |backend: &String| list.iter().filter(|it| *it == backend).count() as f64;
                let is_near = |(backend, quota): (&String, &f64)| {
                    count(backend) >= 1.0 && (count(backend) - quota).abs() <= quotas.len() as f64 + 1.0
                };
                list.len() == MOST_ENTRIES
                    && list.iter().all(|it| quotas.contains_key(it))
                    && quotas.iter().all(is_near)
            }
        }
    }
}

/// Most entries of a VIP.
const MOST_ENTRIES: usize = 512;

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
                // There are no proxies: OVN goes on to serve what it served before these were required.
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
    compare_ports(&read, models, features)
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

/// Ports of each network have the VIPs on it; where answers are no rows, each load balancer has a port with its own.
fn compare_ports(
    read: &dyn Fn(&str) -> Vec<Value>,
    models: &[&Model],
    features: Features,
) -> Result<(), Failure> {
    let ports = read("Logical_Switch_Port");
    let (mut found, mut expected) = (Vips::new(), Vips::new());
    for port in ports.iter().filter(|port| text(&port["name"]).starts_with("fiberlb-vip-")) {
        let addresses = set(&port["addresses"]);
        let words = addresses.iter().flat_map(|entry| entry.split(' ').skip(1));
        found.entry(owner(port)).or_default().extend(words.map(str::to_owned));
    }
    let roots = models.iter().flat_map(|model| model.alive(Kind::LoadBalancer));
    for (id, root) in roots {
        let owner = if features.answer_rows { root.text("network") } else { id };
        expected.entry(owner.to_owned()).or_default().extend(root.vips().iter().map(IpAddr::to_string));
    }
    if found == expected { Ok(()) } else { Err(format!("ports keep {found:?}, and not {expected:?}")) }
}

/// VIPs by the id of the owner of the port that keeps them.
type Vips = BTreeMap<String, BTreeSet<String>>;

/// True if the OVN under test lacks what a listener asks of it.
fn lacks(model: &Model, root: &Resource, listener: &Resource, features: Features) -> bool {
    let has_v6 = root.vips().iter().any(IpAddr::is_ipv6);
    pools_of(model, listener).iter().any(|(pool, _)| {
        pool.text("algorithm") == "ALGORITHM_SOURCE_IP" && has_v6 && !features.ipv6_selection
            || pool.spec.contains_key("session_persistence") && !features.affinity
            || cuts(pool) && !features.flush
    })
}

fn cuts(pool: &Resource) -> bool {
    pool.spec.get("drain_timeout").is_some_and(|it| it == "0s")
}

/// Pools of a listener that stand, with their weights.
fn pools_of<'a>(model: &'a Model, listener: &Resource) -> Vec<(&'a Resource, u64)> {
    let pool = |id: &str| model.get(Kind::Pool, id).filter(|pool| !pool.going);
    shares(&listener.spec).into_iter().filter_map(|(id, weight)| Some((pool(id)?, weight))).collect()
}

/// Time-out of a pool's session persistence, in seconds.
fn affinity(pool: &Resource) -> Option<u32> {
    pool.spec.get("session_persistence").map(|it| text(&it["timeout"]).trim_end_matches('s').parse().unwrap())
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
    let pools = pools_of(model, listener);
    // What a row has once the pools have alike where OVN carries the listener; if it goes on to, though they are not alike any
    // more, it is that of the first one.
    let first = pools.first().map(|(pool, _)| *pool);
    let vips = root.vips();
    let has_v6 = vips.iter().any(IpAddr::is_ipv6);
    let lacks_v6 = has_v6 && !features.ipv6_selection;
    let by_release = lacks(model, root, listener, features);
    let asks = listener.text("datapath") == "DATAPATH_PROXY"
        || !asking(
            &listener.spec,
            &pools.iter().map(|(pool, _)| &pool.spec).collect::<Vec<_>>(),
            &model.backends_of(&listener.spec),
            &vips,
        )
        .is_empty()
        || by_release && listener.text("datapath") == "DATAPATH_AUTO";
    let is_proxied = asks && !stands;
    let is_up = root.is_up() && listener.is_up() && !is_proxied;
    let port = listener.spec["port"].as_u64().unwrap();
    let shares: Vec<(u64, Vec<&Resource>)> = shares(&listener.spec)
        .into_iter()
        .filter_map(|(id, weight)| {
            let pool = model.get(Kind::Pool, id).filter(|pool| !pool.going && pool.is_up())?;
            // Backends that believe a header meet no client but through proxies.
            let takes = is_up && !pool.text("protocol").contains("PROXY");
            let backends = model.below(Kind::Backend, id).map(|(_, it)| it);
            Some((weight, backends.filter(|it| !it.going && takes).collect()))
        })
        .collect();
    let algorithm = first.map(|pool| pool.text("algorithm")).unwrap_or_default();
    let timeout = if is_proxied {
        pools.iter().filter_map(|(pool, _)| affinity(pool)).max()
    } else {
        first.and_then(affinity)
    };
    let is_source_ip = |pool: &Resource| pool.text("algorithm") == "ALGORITHM_SOURCE_IP";
    let by_client = pools.iter().any(|(pool, _)| is_source_ip(pool)) || timeout.is_some();
    let selection: &[&str] = match (is_proxied, algorithm) {
        (true, _) if by_client && !lacks_v6 => &["ip_src", "ip_dst"],
        (false, "ALGORITHM_SOURCE_IP") if !(stands && lacks_v6) => &["ip_src", "ip_dst"],
        (false, "ALGORITHM_SOURCE_IP_PORT") if !lacks_v6 => &["ip_src", "ip_dst", "tp_src", "tp_dst"],
        _ => &[],
    };
    let v6: &[&str] = if has_v6 && !selection.is_empty() { &["ipv6_src", "ipv6_dst"] } else { &[] };
    let mut options = BTreeMap::from([("reject".to_owned(), "true".to_owned())]);
    if transport(&listener.spec) == "udp" || first.is_some_and(cuts) && !is_proxied {
        options.insert("ct_flush".to_owned(), "true".to_owned());
    }
    if features.answer_rows {
        options.insert("neighbor_responder".to_owned(), "none".to_owned());
    }
    let has_affinity = features.affinity && (!is_proxied || by_client && selection.is_empty());
    if let Some(timeout) = timeout.filter(|_| has_affinity) {
        options.insert("affinity_timeout".to_owned(), timeout.to_string());
    }
    let name = if listener.text("name").is_empty() { root.text("name") } else { listener.text("name") };
    Row {
        owner: id.to_owned(),
        name: name.to_owned(),
        protocol: transport(&listener.spec).to_owned(),
        vips: vips.iter().map(|vip| (socket(*vip, port), rotation(*vip, &shares))).collect(),
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
        vips: root.vips().iter().map(|vip| (vip.to_string(), Listed::Exactly(Vec::new()))).collect(),
        options: BTreeMap::new(),
        selection: BTreeSet::new(),
    }
}

fn socket(address: IpAddr, port: u64) -> String {
    SocketAddr::new(address, u16::try_from(port).unwrap()).to_string()
}

/// Backends of a VIP, each as often as its weight and that of its pool ask.
fn rotation(vip: IpAddr, pools: &[(u64, Vec<&Resource>)]) -> Listed {
    let pools = pools.iter().filter(|(weight, _)| *weight > 0);
    let serving: Vec<(u64, Vec<(String, u64)>)> = pools
        .map(|(weight, backends)| (*weight, serving(vip, backends)))
        .filter(|(_, backends)| !backends.is_empty())
        .collect();
    let sum = |backends: &[(String, u64)]| backends.iter().map(|(_, weight)| *weight).sum::<u64>();
    // All shares with one denominator. Weights are so small that the list of one pool is never cut.
    let product: u64 = serving.iter().map(|(_, backends)| sum(backends)).product();
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for (pool, backends) in &serving {
        for (backend, weight) in backends {
            *parts.entry(backend.clone()).or_default() += pool * weight * (product / sum(backends));
        }
    }
    let total: u64 = parts.values().sum();
    let largest = serving.iter().flat_map(|(pool, backends)| {
        backends.iter().map(move |(_, weight)| pool * weight * (product / sum(backends)))
    });
    let largest = largest.fold(0, divisor).max(1);
    if total / largest > MOST_ENTRIES as u64 {
        let quota = |part: u64| part as f64 / total as f64 * MOST_ENTRIES as f64;
        return Listed::Near(parts.into_iter().map(|(backend, part)| (backend, quota(part))).collect());
    }
    let entries = parts
        .into_iter()
        .flat_map(|(backend, part)| std::iter::repeat_n(backend, usize::try_from(part / largest).unwrap()));
    Listed::Exactly(entries.collect())
}

fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

/// Backends of a pool that take connections of a VIP, with their weights.
fn serving(vip: IpAddr, backends: &[&Resource]) -> Vec<(String, u64)> {
    let address = |it: &Resource| it.text("address").parse::<IpAddr>().unwrap();
    let weight = |it: &Resource| it.spec["weight"].as_u64().unwrap();
    let serving =
        backends.iter().filter(|it| it.is_up() && weight(it) > 0 && address(it).is_ipv4() == vip.is_ipv4());
    let (backups, others): (Vec<&Resource>, Vec<&Resource>) =
        serving.partition(|it| it.spec["backup"] == true);
    let chosen = if others.is_empty() { backups } else { others };
    let entry = |it: &Resource| socket(address(it), it.spec["port"].as_u64().unwrap());
    chosen.into_iter().map(|it| (entry(it), weight(it))).collect()
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
        vips: map("vips").into_iter().map(|(vip, list)| (vip, Listed::Exactly(entries(list)))).collect(),
        options: map("options"),
        selection: set(&row["selection_fields"]),
    }
}

/// Load balancer of a row.
fn owner(row: &Value) -> String {
    let keys = ["fiberlb:owner", "fiberlb:shared"];
    let owner = keys.iter().find_map(|key| row["external_ids"][key].as_str()).unwrap_or_default();
    owner.rsplit('/').next().unwrap_or_default().to_owned()
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
