//! A memoized function, as the catalog describes it.

use pgrx::pg_sys;

/// The way to compute a missing result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoFunctionKind {
    /// The function itself computes it, in the query that calls it.
    Plain,
    /// A function over arrays computes many inputs at a time.
    Batch {
        /// The function; invalid if it no longer exists.
        function: pg_sys::Oid,
        /// The function's owner when coco recorded it.
        owner: pg_sys::Oid,
        size: i32,
    },
    /// A provider computes many inputs at a time, over the network.
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

/// A memoized function.
#[derive(Clone, Debug)]
pub struct MemoFunction {
    pub oid: pg_sys::Oid,
    /// The name with schema and argument types, quoted.
    pub name: String,
    pub owner: pg_sys::Oid,
    pub kind: MemoFunctionKind,
    /// The fingerprint of the function's code and version. Results with another fingerprint are not
    /// used.
    pub fingerprint: pgrx::Uuid,
    /// `None`: results of any age are used.
    pub ttl: Option<MemoTtl>,
}

/// How old a stored result may be when an item uses it.
#[derive(Clone, Debug)]
pub struct MemoTtl {
    pub micros: i64,
    /// The interval as it was declared.
    pub shown: String,
}
