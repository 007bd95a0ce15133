//! The macro that makes types of rows.

/// Declares a type of row: a struct with a field for each column of interest.
///
/// A field has the name of its column, or names it behind `=` where Rust needs another name. Its type implements
/// [`Column`](crate::column::Column). Columns that are not listed are not monitored.
///
/// The struct derives `Clone`, `Debug`, `Default`, `PartialEq` and `Eq`, implements [`TableRow`](crate::replica::TableRow), and
/// has two methods:
///
/// * `fn to_row(&self) -> Columns`: the columns that are not at their default, for an insert;
/// * `fn changed_columns(&self, wanted: &Self) -> Columns`: the columns in which `wanted` differs from `self`, with the values
///   that they have in `wanted`, for an update.
///
/// ```
/// use ovsdb::collections::{Map, Set};
/// use ovsdb::operation::Operation;
/// use uuid::Uuid;
///
/// ovsdb::row! {
///     /// Port of a bridge.
///     pub struct Port in "Port" {
///         /// Unique name.
///         pub name: String,
///         /// Interfaces: one, or several of a bond.
///         pub interfaces: Set<Uuid>,
///         /// VLAN tag, 1 to 4095, of an access port.
///         pub vlan: Option<i64> = "tag",
///         /// Keys of whoever made the row.
///         pub external_ids: Map<String, String>,
///     }
/// }
///
/// let before = Port { name: "eth1".to_owned(), vlan: Some(7), ..Port::default() };
/// let insert = Operation::insert("Port", Uuid::new_v4(), before.to_row());
///
/// let after = Port { vlan: Some(8), ..before.clone() };
/// let changed = before.changed_columns(&after);
/// assert_eq!(changed.keys().collect::<Vec<_>>(), ["tag"]);
/// # let _ = insert;
/// ```
#[macro_export]
macro_rules! row {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident in $table:literal {
            $(
                $(#[$field_attribute:meta])*
                $field_visibility:vis $field:ident: $type:ty $(= $column:literal)?
            ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        $visibility struct $name {
            $( $(#[$field_attribute])* $field_visibility $field: $type, )*
        }

        impl $crate::replica::TableRow for $name {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$($crate::row!(@column $field $($column)?)),*];

            fn set(
                &mut self,
                column: &str,
                value: &$crate::serde_json::Value,
            ) -> ::core::result::Result<(), $crate::value::ValueError> {
                $(
                    if column == $crate::row!(@column $field $($column)?) {
                        self.$field = $crate::column::Column::read(value)?;
                    }
                )*
                ::core::result::Result::Ok(())
            }

            fn modify(
                &mut self,
                column: &str,
                difference: &$crate::serde_json::Value,
            ) -> ::core::result::Result<(), $crate::value::ValueError> {
                $(
                    if column == $crate::row!(@column $field $($column)?) {
                        $crate::column::Column::apply(&mut self.$field, difference)?;
                    }
                )*
                ::core::result::Result::Ok(())
            }
        }

        impl $name {
            /// Columns that are not at their default, for an insert.
            #[must_use]
            #[allow(dead_code, reason = "not each program that declares a row uses all of it")]
            $visibility fn to_row(&self) -> $crate::operation::Columns {
                Self::default().changed_columns(self)
            }

            /// Columns in which `wanted` differs from this row, with the values of `wanted`, for an update.
            #[must_use]
            #[allow(dead_code, reason = "not each program that declares a row uses all of it")]
            $visibility fn changed_columns(&self, wanted: &Self) -> $crate::operation::Columns {
                let mut columns = $crate::operation::Columns::new();
                $(
                    if self.$field != wanted.$field {
                        let column = $crate::row!(@column $field $($column)?).to_owned();
                        columns.insert(column, $crate::column::Column::write(&wanted.$field));
                    }
                )*
                columns
            }
        }
    };
    (@column $field:ident) => { ::core::stringify!($field) };
    (@column $field:ident $column:literal) => { $column };
}
