//! Rows of the northbound database as they stand there, read by OVN's own tool.

use std::collections::BTreeMap;

use fiberlb_lab::Lab;
use serde_json::Value;

/// All rows of a table by UUID, each as an object of its columns: maps are objects, UUIDs are text.
#[allow(dead_code, reason = "some tests look at listeners alone")]
pub(crate) async fn rows(lab: &Lab, table: &str) -> BTreeMap<String, Value> {
    printed(lab, &["list", table]).await
}

/// The `Load_Balancer` rows of listeners, by their UUIDs: those of answers have no protocol.
#[allow(dead_code, reason = "not all tests look at them")]
pub(crate) async fn listener_rows(lab: &Lab) -> BTreeMap<String, Value> {
    printed(lab, &["find", "Load_Balancer", "protocol!=[]"]).await
}

async fn printed(lab: &Lab, command: &[&str]) -> BTreeMap<String, Value> {
    let printed = lab.nbctl(&[&["--format=json"], command].concat()).await.unwrap();
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let headings: Vec<&str> = printed["headings"].as_array().unwrap().iter().map(text).collect();
    let row = |cells: &Value| -> Value {
        let cells = cells.as_array().unwrap().iter().map(plain);
        headings.iter().map(|heading| (*heading).to_owned()).zip(cells).collect()
    };
    let rows = printed["data"].as_array().unwrap().iter().map(row);
    rows.map(|row| (text(&row["_uuid"]).to_owned(), row)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A value without OVSDB's notation (RFC 7047, section 5.1). A set of one element stays that element.
fn plain(value: &Value) -> Value {
    let Some([kind, content]) = value.as_array().map(Vec::as_slice) else { return value.clone() };
    match (kind.as_str(), content.as_array()) {
        (Some("uuid"), _) => content.clone(),
        (Some("set"), Some(elements)) => elements.iter().map(plain).collect(),
        (Some("map"), Some(pairs)) => {
            pairs.iter().map(|pair| (text(&plain(&pair[0])).to_owned(), plain(&pair[1]))).collect()
        }
        _ => value.clone(),
    }
}
