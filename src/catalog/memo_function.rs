//! A function whose results are memoized, as the catalog describes it.

use pgrx::pg_sys;

/// How what is missing is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoFunctionKind {
    /// By the function itself, in the query that calls it.
    Plain,
    /// Many inputs at a time, by a function over arrays.
    Batch {
        /// The function; none where it does not exist any more.
        function: pg_sys::Oid,
        /// Whose it was when it was noted.
        owner: pg_sys::Oid,
        size: i32,
    },
    /// Many inputs at a time, by a provider over the network.
    Embed,
    Generate,
    Post,
}

impl MemoFunctionKind {
    pub fn is_provided(self) -> bool {
        matches!(
            self,
            MemoFunctionKind::Embed | MemoFunctionKind::Generate | MemoFunctionKind::Post
        )
    }
}

/// A memoised function.
#[derive(Clone, Debug)]
pub struct MemoFunction {
    pub oid: pg_sys::Oid,
    /// With its schema and argument types, quoted.
    pub name: String,
    pub kind: MemoFunctionKind,
    /// Of its code and its version: results of another are not taken.
    pub fingerprint: pgrx::Uuid,
}
