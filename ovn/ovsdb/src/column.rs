//! Types of columns, and how their values and differences are read and written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::value::{self, ValueError};

/// A type that a column can have.
pub trait Column: Default + PartialEq {
    /// Reads a value.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn read(value: &Value) -> Result<Self, ValueError>;
    /// Writes a value.
    fn write(&self) -> Value;
    /// Applies a difference (ovsdb-server(7), "Update2 Notification"): for a column of at most one value that is the new
    /// value itself.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn apply(&mut self, difference: &Value) -> Result<(), ValueError> {
        *self = Self::read(difference)?;
        Ok(())
    }
}

/// A type that a set can hold.
pub trait Atom: Ord + Sized {
    /// Reads an element.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn read_atom(value: &Value) -> Result<Self, ValueError>;
    /// Writes an element.
    fn write_atom(&self) -> Value;
}

impl Atom for String {
    fn read_atom(value: &Value) -> Result<Self, ValueError> {
        value::as_string(value)
    }
    fn write_atom(&self) -> Value {
        json!(self)
    }
}

impl Atom for Uuid {
    fn read_atom(value: &Value) -> Result<Self, ValueError> {
        value::as_uuid(value)
    }
    fn write_atom(&self) -> Value {
        value::uuid(*self)
    }
}

impl Atom for bool {
    fn read_atom(value: &Value) -> Result<Self, ValueError> {
        value.as_bool().ok_or_else(|| ValueError::new("a boolean", value))
    }
    fn write_atom(&self) -> Value {
        json!(self)
    }
}

impl Atom for i64 {
    fn read_atom(value: &Value) -> Result<Self, ValueError> {
        Self::read(value)
    }
    fn write_atom(&self) -> Value {
        json!(self)
    }
}

impl Column for String {
    fn read(value: &Value) -> Result<Self, ValueError> {
        value::as_string(value)
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl Column for i64 {
    fn read(value: &Value) -> Result<Self, ValueError> {
        value.as_i64().ok_or_else(|| ValueError::new("an integer", value))
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl<T: Atom> Column for Option<T> {
    fn read(value: &Value) -> Result<Self, ValueError> {
        match value::elements(value)? {
            [] => Ok(None),
            [one] => T::read_atom(one).map(Some),
            _ => Err(ValueError::new("at most one value", value)),
        }
    }
    fn write(&self) -> Value {
        value::set(self.iter().map(T::write_atom))
    }
}

impl<T: Atom> Column for BTreeSet<T> {
    fn read(value: &Value) -> Result<Self, ValueError> {
        value::elements(value)?.iter().map(T::read_atom).collect()
    }
    fn write(&self) -> Value {
        value::set(self.iter().map(T::write_atom))
    }
    /// Elements of the difference that are there go, the others come.
    fn apply(&mut self, difference: &Value) -> Result<(), ValueError> {
        for element in value::elements(difference)? {
            let element = T::read_atom(element)?;
            if !self.remove(&element) {
                self.insert(element);
            }
        }
        Ok(())
    }
}

impl Column for BTreeMap<String, String> {
    fn read(value: &Value) -> Result<Self, ValueError> {
        let pair = |(key, value)| Ok((value::as_string(key)?, value::as_string(value)?));
        value::pairs(value)?.into_iter().map(pair).collect()
    }
    fn write(&self) -> Value {
        value::map(self.iter().map(|(key, value)| (json!(key), json!(value))))
    }
    /// A pair of the difference that is there as it is goes; any other sets its key.
    fn apply(&mut self, difference: &Value) -> Result<(), ValueError> {
        for (key, value) in value::pairs(difference)? {
            let (key, value) = (value::as_string(key)?, value::as_string(value)?);
            if self.get(&key) == Some(&value) {
                self.remove(&key);
            } else {
                self.insert(key, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Words = BTreeSet<String>;
    type Pairs = BTreeMap<String, String>;

    proptest! {
        #[test]
        fn columns_survive_their_notation(set in prop::collection::btree_set("[a-c]{1,2}", 0..5), map in prop::collection::btree_map("[a-c]", "[x-z]", 0..4), one in prop::option::of("[a-c]")) {
            prop_assert_eq!(&Words::read(&set.write()).unwrap(), &set);
            prop_assert_eq!(&Pairs::read(&map.write()).unwrap(), &map);
            prop_assert_eq!(&Option::<String>::read(&one.write()).unwrap(), &one);
        }

        #[test]
        fn the_symmetric_difference_of_two_sets_leads_from_one_to_the_other(
            before in prop::collection::btree_set("[a-d]", 0..5), after in prop::collection::btree_set("[a-d]", 0..5),
        ) {
            let difference: Words = before.symmetric_difference(&after).cloned().collect();
            let mut column = before;
            column.apply(&difference.write()).unwrap();
            prop_assert_eq!(column, after);
        }

        #[test]
        fn the_difference_of_two_maps_leads_from_one_to_the_other(
            before in prop::collection::btree_map("[a-c]", "[xy]", 0..4), after in prop::collection::btree_map("[a-c]", "[xy]", 0..4),
        ) {
            let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
            let set = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
            let difference: Pairs = gone.chain(set).map(|(key, value)| (key.clone(), value.clone())).collect();
            let mut column = before.clone();
            column.apply(&difference.write()).unwrap();
            prop_assert_eq!(column, after);
        }
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        assert!(Words::read(&json!([1])).is_err());
        assert!(Pairs::read(&json!("x")).is_err());
        assert!(Option::<String>::read(&json!(["set", ["a", "b"]])).is_err());
        assert!(i64::read(&json!("1")).is_err());
    }
}
