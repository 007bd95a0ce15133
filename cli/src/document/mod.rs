//! Files for `apply`: YAML or JSON in the shape of the API's messages, with more lenient spellings. All errors of a file are reported
//! before anything is written.

mod convert;
mod nearest;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use prost_reflect::DynamicMessage;
use serde_json::{Map, Value as Json};

use crate::failure::{Exit, Failure};
use crate::kinds::{BACKEND, HEALTH_CHECK, Kind, LISTENER, LOAD_BALANCER, POOL};
use crate::schema::Schema;

/// Limit of keys and values of a file: some hundred thousand backends as `tree -o yaml` prints them. Expanded aliases count too, so
/// that a small file cannot exhaust the memory.
const MAX_NODES: usize = 20_000_000;

/// Document with its place: the file, and its number where the file has several.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Place, for messages.
    pub(crate) place: String,
    /// Document.
    pub(crate) document: Document,
}

/// Document to apply.
#[derive(Debug)]
pub(crate) enum Document {
    /// Whole tree.
    Tree(DynamicMessage),
    /// Single resource, with the names of the fields in the document.
    Resource(&'static Kind, DynamicMessage, Vec<String>),
}

/// Content of files.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// All documents, in the order of the files.
    pub(crate) documents: Vec<Placed>,
    /// Folders within folders, whose files are not read.
    pub(crate) skipped: Vec<PathBuf>,
}

/// Reads all documents of files, of all files of a folder (by name, without its folders), or of standard input for "-".
///
/// # Errors
/// Usage failure with all errors, a line each, with file, document and path.
pub(crate) fn read_all<'a>(
    schema: &Schema,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<Documents, Failure> {
    let (mut documents, mut errors, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        for file in files(path, &mut skipped)? {
            match read(schema, &file) {
                Ok(found) => documents.extend(placed(&file, found)),
                Err(failure) => errors.extend(failure.lines),
            }
        }
    }
    errors.extend(repeated(&documents));
    if errors.is_empty() {
        Ok(Documents { documents, skipped })
    } else {
        Err(Failure { exit: Exit::Usage, lines: errors })
    }
}

fn placed(file: &Path, documents: Vec<Document>) -> impl Iterator<Item = Placed> {
    let (file, is_one) = (file.display().to_string(), documents.len() == 1);
    documents.into_iter().zip(1..).map(move |(document, number)| {
        let place = if is_one { file.clone() } else { format!("{file}: document {number}") };
        Placed { place, document }
    })
}

/// Errors for load balancers that several documents describe: each would delete what the other one has created.
fn repeated(documents: &[Placed]) -> Vec<String> {
    let mut first: BTreeMap<[String; 3], &str> = BTreeMap::new();
    let mut errors = Vec::new();
    for Placed { place, document } in documents {
        let Document::Tree(tree) = document else { continue };
        let root = tree.get_field_by_name("load_balancer").and_then(|root| root.as_message().cloned());
        let text = |field: &str| {
            let value =
                root.as_ref().and_then(|root| Some(root.get_field_by_name(field)?.as_str()?.to_owned()));
            value.unwrap_or_default()
        };
        let (id, name) = (text("id"), text("name"));
        if id.is_empty() && name.is_empty() {
            continue;
        }
        let key = if id.is_empty() {
            [text("project_id"), String::new(), name.clone()]
        } else {
            [String::new(), id, String::new()]
        };
        if let Some(other) = first.get(&key) {
            errors.push(format!(
                "{place}: load balancer {name:?} is described by {other} too; keep one of them"
            ));
        } else {
            first.insert(key, place);
        }
    }
    errors
}

/// A file itself, or those of a folder that hold YAML or JSON; folders in it are added to `skipped`.
fn files(path: &Path, skipped: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failure = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failure)? {
        let file = entry.map_err(failure)?.path();
        let is_document = |ending: &OsStr| ["yaml", "yml", "json"].iter().any(|known| ending == *known);
        if file.extension().is_some_and(is_document) && file.is_file() {
            files.push(file);
        } else if file.is_dir() {
            skipped.push(file);
        }
    }
    if files.is_empty() {
        return Err(Failure::usage(format!("{}: no *.yaml, *.yml or *.json in this folder", path.display())));
    }
    files.sort();
    Ok(files)
}

fn read(schema: &Schema, path: &Path) -> Result<Vec<Document>, Failure> {
    let name = path.display().to_string();
    parse(schema, &text(path).map_err(|error| Failure::usage(format!("{name}: {error}")))?)
        .map_err(|failure| failure.about(&name))
}

fn text(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

/// Options for YAML 1.2, in which `no` and `n` are strings, with a budget for the largest tree.
fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! { max_events: MAX_NODES * 2, max_nodes: MAX_NODES };
    serde_saphyr::options! { strict_booleans: true, budget: budget }
}

/// Parses all documents of a text.
fn parse(schema: &Schema, text: &str) -> Result<Vec<Document>, Failure> {
    let parsed: Result<Vec<Json>, _> = serde_saphyr::from_multiple_with_options(text, options());
    let parsed = parsed.map_err(|error| Failure::usage(yaml_error(&error.to_string())))?;
    // A sequence, as `list` and `tree` print it, is equivalent to several documents.
    let flat = parsed
        .into_iter()
        .flat_map(|value| if let Json::Array(values) = value { values } else { vec![value] });
    let values: Vec<Json> = flat.filter(|value| !value.is_null()).collect();
    let mut documents = Vec::with_capacity(values.len());
    let mut errors = Vec::new();
    for (at, value) in values.iter().enumerate() {
        match document(schema, value) {
            Ok(document) => documents.push(document),
            Err(failure) if values.len() > 1 => {
                errors.extend(failure.about(&format!("document {}", at + 1)).lines);
            }
            Err(failure) => errors.extend(failure.lines),
        }
    }
    if errors.is_empty() && documents.is_empty() {
        return Err(Failure::usage("the file has no document"));
    }
    if errors.is_empty() { Ok(documents) } else { Err(Failure { exit: Exit::Usage, lines: errors }) }
}

/// Message of the YAML parser, without its picture and its hints for programmers.
fn yaml_error(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    let fault = first.split(", set DuplicateKeyPolicy").next().unwrap_or(first);
    fault.strip_prefix("error: ").unwrap_or(fault).to_owned()
}

fn document(schema: &Schema, value: &Json) -> Result<Document, Failure> {
    let Json::Object(object) = value else {
        return Err(Failure::usage("must be a mapping with load_balancer, listeners and pools"));
    };
    let kind = kind_of(object);
    let message = schema.message(kind.map_or("LoadBalancerTree", |kind| kind.message))?;
    let converted = convert::message(&message, object);
    let converted = converted.map_err(|lines| Failure { exit: Exit::Usage, lines })?;
    match kind {
        None if !converted.has_field_by_name("load_balancer") => {
            Err(Failure::usage("load_balancer: missing; a tree must have one"))
        }
        None => Ok(Document::Tree(converted)),
        Some(_) if !converted.has_field_by_name("id") => {
            Err(Failure::usage("id: missing; a single resource must have one"))
        }
        Some(kind) => Ok(Document::Resource(kind, converted, convert::named_fields(&message, object))),
    }
}

/// Kind of a document with a single resource, by its distinguishing keys; `None` for a tree.
fn kind_of(object: &Map<String, Json>) -> Option<&'static Kind> {
    let has = |snake: &str, camel: &str| object.contains_key(snake) || object.contains_key(camel);
    if has("load_balancer", "loadBalancer") || has("listeners", "listeners") || has("pools", "pools") {
        None
    } else if has("network", "network") || has("vip_address", "vipAddress") {
        Some(&LOAD_BALANCER)
    } else if has("address", "address") {
        Some(&BACKEND)
    } else if has("pool_id", "poolId") {
        Some(&HEALTH_CHECK)
    } else if has("port", "port") {
        Some(&LISTENER)
    } else if has("load_balancer_id", "loadBalancerId") {
        Some(&POOL)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{HealthCheckType, ListenerProtocol, LoadBalancerTree};

    use prost_reflect::{Kind as FieldKind, MessageDescriptor, Value};

    use super::*;
    use crate::args::Format;
    use crate::kinds::OUTPUT_ONLY;
    use crate::render::canonical;
    use crate::schema::is_duration;

    fn tree(text: &str) -> LoadBalancerTree {
        match parse(&Schema::load().unwrap(), text).unwrap().pop().unwrap() {
            Document::Tree(tree) => tree.transcode_to().unwrap(),
            Document::Resource(kind, ..) => panic!("a {}", kind.label),
        }
    }

    fn wrong(text: &str) -> Vec<String> {
        let failure = parse(&Schema::load().unwrap(), text).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        failure.lines
    }

    const FRIENDLY: &str = "
load_balancer: {name: web, network: tenant-a, tags: [prod], adminStateUp: false}
listeners:
  - {protocol: tcp, port: 80, defaultPoolId: app, client_data_timeout: 1m30s, connection_limit: -1}
pools:
  - pool: {name: app, protocol: POOL_PROTOCOL_TCP}
    backends:
      - {address: 10.0.1.11, port: 8080, weight: 0}
    health_check: {type: tls-hello, delay: 500ms, state: {provisioning_status: ACTIVE}}
";

    #[test]
    fn friendly_spellings() {
        let tree = tree(FRIENDLY);
        assert_eq!(tree.load_balancer.as_ref().unwrap().admin_state_up, Some(false));
        let listener = &tree.listeners[0];
        assert_eq!((listener.protocol(), listener.default_pool_id.as_str()), (ListenerProtocol::Tcp, "app"));
        assert_eq!(listener.client_data_timeout.unwrap().seconds, 90);
        assert_eq!(tree.pools[0].backends[0].weight, Some(0));
        let check = tree.pools[0].health_check.as_ref().unwrap();
        assert_eq!((check.r#type(), check.delay.unwrap().nanos), (HealthCheckType::TlsHello, 500_000_000));
        assert_eq!(check.state, None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let schema = Schema::load().unwrap();
        let mut first = tree(FRIENDLY);
        // Strings that YAML could parse as other types, and output-only fields.
        first.listeners[0].name = "yes".to_owned();
        first.listeners[0].description = "a: [b]\n# \u{9b}\ttext\n".to_owned();
        first.listeners[0].datapath_in_force = 1;
        first.listeners[0].datapath_reason = "it can".to_owned();
        first.listeners[0].proxy_node_ids.push("n1".to_owned());
        first.pools[0].health_check.as_mut().unwrap().expected_codes = "200".to_owned();
        for tag in
            ["1.10", "null", "~", "0x10", "- a", "1e3", "2001-01-01", "", "'", "\"", "!x", "&a", "a\u{85}b"]
        {
            first.load_balancer.as_mut().unwrap().tags.push(tag.to_owned());
        }
        let message = schema.dynamic("LoadBalancerTree", &first).unwrap();
        first.listeners[0].datapath_in_force = 0;
        first.listeners[0].datapath_reason = String::new();
        first.listeners[0].proxy_node_ids.clear();
        for format in [Format::Yaml, Format::Json] {
            let text = canonical::one(&message, &format).unwrap();
            assert!(!text.contains('\u{9b}'), "{text}");
            assert_eq!(tree(&text), first, "{text}");
        }
    }

    /// A message with a value in each field that can be set, and in those of all messages in it.
    fn filled(descriptor: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields().filter(|field| !OUTPUT_ONLY.contains(&field.name())) {
            let value = match field.kind() {
                FieldKind::Message(inner) if is_duration(&field.kind()) => {
                    let mut duration = DynamicMessage::new(inner);
                    duration.set_field_by_name("seconds", Value::I64(90));
                    duration.set_field_by_name("nanos", Value::I32(500_000_000));
                    Value::Message(duration)
                }
                FieldKind::Message(inner) => Value::Message(filled(&inner)),
                FieldKind::Enum(of) => Value::EnumNumber(of.values().last().unwrap().number()),
                FieldKind::String => Value::String("text".to_owned()),
                FieldKind::Bool => Value::Bool(true),
                FieldKind::Uint32 => Value::U32(u32::MAX),
                FieldKind::Uint64 => Value::U64(u64::MAX),
                FieldKind::Int32 => Value::I32(i32::MIN),
                kind => panic!("{}: {kind:?}", field.full_name()),
            };
            let value = if field.is_list() { Value::List(vec![value]) } else { value };
            message.set_field(&field, value);
        }
        message
    }

    #[test]
    fn every_field_that_is_written_is_read_again() {
        let schema = Schema::load().unwrap();
        let message = filled(&schema.message("LoadBalancerTree").unwrap());
        let wanted: LoadBalancerTree = message.transcode_to().unwrap();
        for format in [Format::Yaml, Format::Json] {
            let text = canonical::one(&message, &format).unwrap();
            assert_eq!(tree(&text), wanted, "{text}");
        }
        assert_eq!(
            wrong("{load_balancer: {}, listeners: [{bandwidth_limit: '1.5'}]}"),
            ["listeners[0].bandwidth_limit: must be a whole number of at least 0, not \"1.5\""]
        );
    }

    #[test]
    fn everything_wrong_is_named_with_its_path() {
        let text = "
load_balancer: {name: 5, netwrok: x}
listeners:
  - {protocol: TPC, port: many}
  - {port: -1, inspect_timeout: 5, tags: a}
pools: [{pool: {algorithm: 3.5}, backend: []}]
";
        let lines = wrong(text);
        let starts = [
            "load_balancer.name: must be text",
            "load_balancer.netwrok: unknown key; did you mean network?",
            "listeners[0].protocol: \"TPC\" is not one of TCP, UDP",
            "listeners[0].port: must be a whole number",
            "listeners[1].port: must be a whole number",
            "listeners[1].inspect_timeout: must be a duration",
            "listeners[1].tags: must be a list",
            "pools[0].pool.algorithm: must be one of",
            "pools[0].backend: unknown key; did you mean backends?",
        ];
        for start in starts {
            assert!(lines.iter().any(|line| line.starts_with(start)), "{start} in {lines:#?}");
        }
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    }

    #[test]
    fn several_documents_and_sequences() {
        let schema = Schema::load().unwrap();
        let one = "load_balancer: {name: a}\n";
        assert_eq!(parse(&schema, &format!("---\n{one}---\n{one}---\n")).unwrap().len(), 2);
        assert_eq!(
            parse(&schema, "[{load_balancer: {name: a}}, {load_balancer: {name: b}}]").unwrap().len(),
            2
        );
        let lines = wrong(&format!("{one}---\nload_balancr: {{}}\n"));
        assert_eq!(lines[0], "document 2: load_balancr: unknown key; did you mean load_balancer?");
        for text in [
            "",
            "---\n",
            "5",
            "[]",
            "a: [",
            "listeners: []",
            "load_balancer: {name: a}\nload_balancer: {name: b}",
        ] {
            assert!(!wrong(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_fault_of_the_yaml_is_one_line_with_its_place() {
        let lines = wrong("load_balancer: {name: a}\nload_balancer: {name: b}\n");
        assert_eq!(lines, ["line 2 column 1: duplicate mapping key: load_balancer"]);
        let lines = wrong("load_balancer: {name: a");
        assert!(lines.len() == 1 && !lines[0].contains('\n') && !lines[0].starts_with("error"), "{lines:?}");
    }

    #[test]
    fn single_resources_are_told_apart_by_their_keys() {
        let schema = Schema::load().unwrap();
        for (text, label) in [
            ("{id: x, network: n}", "load balancer"),
            ("{id: x, load_balancer_id: y, protocol: TCP, port: 80}", "listener"),
            ("{id: x, loadBalancerId: y, protocol: TCP}", "pool"),
            ("{id: x, pool_id: y, address: 10.0.0.1, port: 80}", "backend"),
            ("{id: x, pool_id: y, type: TCP}", "health check"),
        ] {
            match parse(&schema, text).unwrap().pop().unwrap() {
                Document::Resource(kind, _, fields) => {
                    assert_eq!(kind.label, label);
                    assert!(fields.contains(&"id".to_owned()));
                }
                Document::Tree(_) => panic!("{text} is no tree"),
            }
        }
        assert!(wrong("{network: n}")[0].starts_with("id: missing"));
    }
}
