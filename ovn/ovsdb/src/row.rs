//! Rows of any database as types.

/// A row type: its columns, each under the name that it has in OVSDB.
#[macro_export]
macro_rules! row {
    (
        $(#[$doc:meta])* $name:ident in $table:literal {
            $( $(#[$column_doc:meta])* $field:ident $column:literal: $type:ty, )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$column_doc])* pub $field: $type, )*
        }

        impl $crate::replica::TableRow for $name {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$($column),*];

            fn set(&mut self, column: &str, value: &$crate::serde_json::Value) -> Result<(), $crate::value::ValueError> {
                match column {
                    $( $column => self.$field = $crate::column::Column::read(value)?, )*
                    _ => {}
                }
                Ok(())
            }

            fn modify(&mut self, column: &str, difference: &$crate::serde_json::Value) -> Result<(), $crate::value::ValueError> {
                match column {
                    $( $column => $crate::column::Column::apply(&mut self.$field, difference)?, )*
                    _ => {}
                }
                Ok(())
            }
        }

        impl $name {
            /// The columns that are not at their default, for an insert.
            #[must_use]
            pub fn to_row(&self) -> $crate::serde_json::Map<String, $crate::serde_json::Value> {
                Self::default().changed_columns(self)
            }

            /// The columns in which `wanted` differs, with its values, for an update.
            #[must_use]
            pub fn changed_columns(&self, wanted: &Self) -> $crate::serde_json::Map<String, $crate::serde_json::Value> {
                let mut columns = $crate::serde_json::Map::new();
                $(
                    if self.$field != wanted.$field {
                        columns.insert($column.to_owned(), $crate::column::Column::write(&wanted.$field));
                    }
                )*
                columns
            }
        }
    };
}
