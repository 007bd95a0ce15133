//! Rust types of columns: reading them from JSON, writing them, and applying the differences that updates carry.
//!
//! | column of the schema | Rust type |
//! |---|---|
//! | one `string`, `integer`, `boolean`, `uuid`, `real` | [`String`], [`i64`], [`bool`], [`Uuid`], [`Real`] |
//! | at most one value (`"min": 0, "max": 1`) | [`Option`] of those |
//! | a set (`"max"` above 1) | [`Set`] of those |
//! | a map | [`Map`] of those |

use std::cmp::Ordering;

use serde_json::{Value, json};
use uuid::Uuid;

use super::collections::{Map, Set};
use super::value::{self, ValueError};

/// Rust type of a column.
///
/// Every [`Atom`] that has a default is one, and so are [`Option`], [`Set`] and [`Map`] of atoms.
pub trait Column: Default + PartialEq {
    /// Reads a value in OVSDB's notation (RFC 7047, section 5.1).
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn read(value: &Value) -> Result<Self, ValueError>;

    /// Writes the value in OVSDB's notation.
    fn write(&self) -> Value;

    /// Applies the difference that an update carries (ovsdb-server(7), "Update2 Notification"): the new value of a column
    /// that holds at most one value, otherwise the symmetric difference of the sets or maps.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type. A set or map may then be changed in part.
    fn apply(&mut self, difference: &Value) -> Result<(), ValueError> {
        *self = Self::read(difference)?;
        Ok(())
    }
}

/// Rust type of one of OVSDB's atomic types (RFC 7047, section 3.2, `<atomic-type>`): what a column, an element of a set,
/// or a key or value of a map holds.
///
/// Implement it for a type of your own to have columns parsed on arrival; a value that cannot be parsed ends the connection.
///
/// ```
/// use ovsdb::column::{Atom, Column as _};
/// use ovsdb::value::ValueError;
/// use serde_json::{Value, json};
///
/// #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
/// struct Vlan(u16);
///
/// impl Atom for Vlan {
///     fn read_atom(value: &Value) -> Result<Self, ValueError> {
///         let tag = value.as_u64().and_then(|tag| u16::try_from(tag).ok()).filter(|tag| *tag < 4096);
///         tag.map(Self).ok_or_else(|| ValueError::new("a VLAN tag", value))
///     }
///
///     fn write_atom(&self) -> Value {
///         json!(self.0)
///     }
/// }
///
/// assert_eq!(Option::<Vlan>::read(&json!(7)), Ok(Some(Vlan(7))));
/// assert!(Option::<Vlan>::read(&json!(4096)).is_err());
/// ```
pub trait Atom: Ord + Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn read_atom(value: &Value) -> Result<Self, ValueError>;

    /// Writes one value.
    fn write_atom(&self) -> Value;
}

/// Value for an operation: a Rust value of a [`Column`]'s type, a string literal, or JSON that is in OVSDB's notation already.
pub trait IntoValue {
    /// JSON in OVSDB's notation.
    fn into_value(self) -> Value;
}

impl<C: Column> IntoValue for C {
    fn into_value(self) -> Value {
        self.write()
    }
}

impl IntoValue for Value {
    fn into_value(self) -> Value {
        self
    }
}

impl IntoValue for &str {
    fn into_value(self) -> Value {
        json!(self)
    }
}

/// A `real`: a double-precision number that is ordered by [`f64::total_cmp`], so that it can be an element of a set. It must be
/// finite, since JSON has no other numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Real {}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Atom for String {
    fn read_atom(value: &Value) -> Result<Self, ValueError> {
        value.as_str().map(str::to_owned).ok_or_else(|| ValueError::new("a string", value))
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
        value.as_i64().ok_or_else(|| ValueError::new("an integer", value))
    }

    fn write_atom(&self) -> Value {
        json!(self)
    }
}

impl Atom for Real {
    fn read_atom(value: &Value) -> Result<Self, ValueError> {
        value.as_f64().map(Self).ok_or_else(|| ValueError::new("a number", value))
    }

    fn write_atom(&self) -> Value {
        json!(self.0)
    }
}

impl<T: Atom + Default> Column for T {
    fn read(value: &Value) -> Result<Self, ValueError> {
        T::read_atom(value)
    }

    fn write(&self) -> Value {
        self.write_atom()
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

impl<T: Atom> Column for Set<T> {
    fn read(value: &Value) -> Result<Self, ValueError> {
        value::elements(value)?.iter().map(T::read_atom).collect()
    }

    fn write(&self) -> Value {
        value::set(self.iter().map(T::write_atom))
    }

    /// Removes the elements of the difference that are present, and adds the others.
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

impl<K: Atom, V: Atom> Column for Map<K, V> {
    fn read(value: &Value) -> Result<Self, ValueError> {
        let pair = |(key, value)| Ok((K::read_atom(key)?, V::read_atom(value)?));
        value::pairs(value)?.into_iter().map(pair).collect()
    }

    fn write(&self) -> Value {
        value::map(self.iter().map(|(key, value)| (key.write_atom(), value.write_atom())))
    }

    /// Removes the pairs of the difference that are present with the same value, and sets the others.
    fn apply(&mut self, difference: &Value) -> Result<(), ValueError> {
        for (key, value) in value::pairs(difference)? {
            let (key, value) = (K::read_atom(key)?, V::read_atom(value)?);
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

    type Words = Set<String>;
    type Pairs = Map<String, String>;

    fn set(elements: &'static str) -> impl Strategy<Value = Words> {
        prop::collection::vec(elements, 0..5).prop_map(Words::from_iter)
    }

    fn pairs(values: &'static str) -> impl Strategy<Value = Pairs> {
        prop::collection::vec(("[a-c]", values), 0..4).prop_map(Pairs::from_iter)
    }

    proptest! {
        #[test]
        fn columns_survive_their_notation(set in set("[a-c]{1,2}"), map in pairs("[x-z]"), one in prop::option::of("[a-c]")) {
            prop_assert_eq!(&Words::read(&set.write()).unwrap(), &set);
            prop_assert_eq!(&Pairs::read(&map.write()).unwrap(), &map);
            prop_assert_eq!(&Option::<String>::read(&one.write()).unwrap(), &one);
        }

        #[test]
        fn the_symmetric_difference_of_two_sets_leads_from_one_to_the_other(
            before in set("[a-d]"), after in set("[a-d]"),
        ) {
            let one_only = |one: &Words, other: &Words| one.iter().filter(|word| !other.contains(*word)).cloned().collect::<Vec<_>>();
            let difference: Words = one_only(&before, &after).into_iter().chain(one_only(&after, &before)).collect();
            let mut column = before;
            column.apply(&difference.write()).unwrap();
            prop_assert_eq!(column, after);
        }

        #[test]
        fn the_difference_of_two_maps_leads_from_one_to_the_other(
            before in pairs("[xy]"), after in pairs("[xy]"),
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
        assert!(Real::read(&json!("1")).is_err());
        assert!(Map::<i64, Uuid>::read(&json!(["map", [["1", "x"]]])).is_err());
    }

    #[test]
    fn all_atomic_types_are_read_as_they_are_written() {
        fn survives<C: Column + std::fmt::Debug>(column: &C) {
            assert_eq!(&C::read(&column.write()).unwrap(), column);
        }
        survives(&true);
        survives(&-7_i64);
        survives(&Real(0.5));
        survives(&Uuid::from_u128(7));
        survives(&Set::from([Real(2.0), Real(-1.5)]));
        survives(&Map::from([(7_i64, Uuid::from_u128(1))]));
        assert_eq!(Real::read(&json!(3)), Ok(Real(3.0)), "a real may be written without its fraction");
    }

    #[test]
    fn literals_and_json_are_values_as_well() {
        assert_eq!("a".into_value(), json!("a"));
        assert_eq!(json!(["set", [1]]).into_value(), json!(["set", [1]]));
        assert_eq!(Set::from([1_i64]).into_value(), json!(["set", [1]]));
    }
}
