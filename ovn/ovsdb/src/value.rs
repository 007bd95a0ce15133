//! Values in OVSDB's notation (RFC 7047, section 5.1).

use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// A value is not what its column's type says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, found {found}")]
pub struct ValueError {
    /// What should be there.
    pub expected: &'static str,
    /// The beginning of what is.
    pub found: String,
}

impl ValueError {
    /// An error that shows the beginning of `found`.
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

/// Writes a UUID.
#[must_use]
pub fn uuid(uuid: Uuid) -> Value {
    json!(["uuid", uuid])
}

/// Writes a set.
#[must_use]
pub fn set(elements: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", elements.into_iter().collect::<Vec<_>>()])
}

/// Writes a map.
#[must_use]
pub fn map(pairs: impl IntoIterator<Item = (Value, Value)>) -> Value {
    json!(["map", pairs.into_iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>()])
}

/// Reads a UUID.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn as_uuid(value: &Value) -> Result<Uuid, ValueError> {
    let text = match value.as_array().map(Vec::as_slice) {
        Some([kind, text]) if kind == "uuid" => text.as_str(),
        _ => None,
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| ValueError::new("a UUID", value))
}

/// Reads a string.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn as_string(value: &Value) -> Result<String, ValueError> {
    value.as_str().map(str::to_owned).ok_or_else(|| ValueError::new("a string", value))
}

/// The elements of a set. A set of one element may be written as that element.
///
/// # Errors
/// [`ValueError`] for a malformed one.
pub fn elements(value: &Value) -> Result<&[Value], ValueError> {
    match value.as_array().map(Vec::as_slice) {
        Some([kind, elements]) if kind == "set" => elements
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| ValueError::new("the elements of a set", value)),
        _ => Ok(std::slice::from_ref(value)),
    }
}

/// The pairs of a map.
///
/// # Errors
/// [`ValueError`] for anything else.
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
