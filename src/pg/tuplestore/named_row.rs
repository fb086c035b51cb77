//! Row types whose columns are defined once: name, order, type and the SQL expression of each
//! column. Code that reads or selects such a row does not count columns.

/// Defines a row type and the expressions of a SELECT that returns it.
///
/// The first struct is one row, read into Rust values; any column can be NULL. The second struct
/// has the SQL expression of each column, so that a SELECT cannot leave a column out.
macro_rules! named_row {
    (
        $(#[$doc:meta])*
        $visibility:vis struct $row:ident, $expressions:ident {
            $($(#[$column_doc:meta])* $column:ident: $type:ty,)+
        }
    ) => {
        $(#[$doc])*
        // Some columns are read by SQL only.
        #[allow(dead_code)]
        $visibility struct $row {
            $($(#[$column_doc])* pub $column: Option<$type>,)+
        }

        impl $row {
            /// The names of the columns, in their order.
            #[allow(dead_code)]
            pub const NAMES: &'static [&'static str] = &[$(stringify!($column)),+];

            /// Returns the columns, in their order.
            pub fn columns() -> Vec<$crate::pg::tuplestore::rows::RowColumn> {
                vec![$($crate::pg::tuplestore::rows::RowColumn::new(
                    stringify!($column),
                    <$type as pgrx::IntoDatum>::type_oid(),
                )),+]
            }

            /// Reads the columns from a row in which `before` other columns precede them.
            pub fn read(row: $crate::pg::tuplestore::row::Row, before: usize) -> $row {
                #[allow(non_camel_case_types)]
                enum Position { $($column),+ }
                $row { $($column: row.get(before + Position::$column as usize)),+ }
            }
        }

        /// The SQL expressions of the columns.
        #[derive(Clone, Copy)]
        $visibility struct $expressions<'a> {
            $(pub $column: &'a str,)+
        }

        impl $expressions<'_> {
            /// Returns the expressions in the order of the columns.
            pub fn select_list(&self) -> String {
                [$(self.$column),+].join(", ")
            }
        }
    };
}

pub(crate) use named_row;
