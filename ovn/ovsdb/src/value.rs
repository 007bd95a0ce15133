//! JSON notation of values (RFC 7047, section 5.1): sets, maps and UUIDs as tagged arrays.

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// Value of another type than its column's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, found {found}")]
pub struct ValueError {
    /// Expected type, such as "a map".
    pub expected: &'static str,
    /// Beginning of the JSON that was found, at most 80 characters.
    pub found: String,
}

impl ValueError {
    /// Error for a value `found` where `expected` should be.
    #[must_use]
    pub fn new(expected: &'static str, found: &Value) -> Self {
        let mut found = found.to_string();
        if let Some((cut, _)) = found.char_indices().nth(80) {
            found.truncate(cut);
            found.push_str("...");
        }
        Self { expected, found }
    }
}

/// `["uuid", "<uuid>"]`.
#[must_use]
pub fn uuid(uuid: Uuid) -> Value {
    json!(["uuid", uuid])
}

/// `["set", [element, ...]]`.
#[must_use]
pub fn set(elements: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", elements.into_iter().collect::<Vec<_>>()])
}

/// `["map", [[key, value], ...]]`.
#[must_use]
pub fn map(pairs: impl IntoIterator<Item = (Value, Value)>) -> Value {
    json!(["map", pairs.into_iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>()])
}

/// Reads a UUID.
///
/// # Errors
/// [`ValueError`] for any other value, among them `["named-uuid", ...]`.
pub(crate) fn as_uuid(value: &Value) -> Result<Uuid, ValueError> {
    let text = match value.as_array().map(Vec::as_slice) {
        Some([kind, text]) if kind == "uuid" => text.as_str(),
        _ => None,
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| ValueError::new("a UUID", value))
}

/// Elements of a set. A value that is not tagged as a set is a set of that one element.
///
/// # Errors
/// [`ValueError`] for a tagged set without an array of elements.
pub fn elements(value: &Value) -> Result<&[Value], ValueError> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, elements]) if kind == "set" => elements
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| ValueError::new("the elements of a set", value)),
        _ => Ok(std::slice::from_ref(value)),
    }
}

/// Pairs of a map, each as key and value.
///
/// # Errors
/// [`ValueError`] for any other value.
pub fn pairs(value: &Value) -> Result<Vec<(&Value, &Value)>, ValueError> {
    let malformed = || ValueError::new("a map", value);
    let pairs = match value.as_array().map(Vec::as_slice) {
        Some([kind, pairs]) if kind == "map" => pairs.as_array().ok_or_else(malformed)?,
        _ => return Err(malformed()),
    };
    let pair = |pair: &'_ Value| match pair.as_array().map(Vec::as_slice) {
        Some([_, _]) => Ok(()),
        _ => Err(malformed()),
    };
    pairs.iter().try_for_each(pair)?;
    Ok(pairs.iter().filter_map(|pair| Some((pair.get(0)?, pair.get(1)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_notation() {
        let id = Uuid::from_u128(7);
        assert_eq!(as_uuid(&uuid(id)), Ok(id));
        assert_eq!(elements(&set([json!("a"), json!("b")])).unwrap().len(), 2);
        assert_eq!(elements(&json!("alone")).unwrap(), [json!("alone")]);
        assert_eq!(elements(&uuid(id)).unwrap(), [uuid(id)]);
        assert_eq!(pairs(&map([(json!("k"), json!("v"))])).unwrap(), [(&json!("k"), &json!("v"))]);
    }

    #[test]
    fn malformed_values_say_what_was_expected() {
        assert!(as_uuid(&json!(["uuid", "x"])).unwrap_err().to_string().starts_with("expected a UUID"));
        assert!(as_uuid(&json!(["named-uuid", "x"])).is_err());
        for bad in [json!(["set", 1]), json!(["set", {}])] {
            assert!(elements(&bad).is_err(), "{bad}");
        }
        for bad in [json!(["map", [["a"]]]), json!(["map", 1]), json!("x"), json!(["map", [1]])] {
            assert!(pairs(&bad).is_err(), "{bad}");
        }
    }
}
