//! Carries a column of a bound query over to a newly bound query, as it was bound. Binding its text
//! again could find other objects under the same names.

use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

use crate::pg::error::{Error, Result};
use crate::query::view_tree;

/// Adds the column `name` of the query that a view keeps to the query `tree`. Both queries read one
/// row of `relation`, in a FROM item of their own, and nothing else in FROM.
pub fn carry_column(
    tree: *mut pg_sys::Query,
    view: pg_sys::Oid,
    relation: pg_sys::Oid,
    name: &str,
) -> Result<()> {
    let before = view_tree::of_view(view)?;
    let lost = || Error::internal("the view of a source's expressions has another shape");
    // SAFETY: `tree` was just created, and `before` is a copy of what the view keeps, so nobody else
    // reads or changes them. Their lists contain the node types that their names say. The added
    // expression refers to the FROM item of `tree`, which has the same relation.
    unsafe {
        let (old, new) = (place(before, relation), place(tree, relation));
        let (old, new) = (old.ok_or_else(lost)?, new.ok_or_else(lost)?);
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*before).targetList);
        let is_kept = |entry: &*mut pg_sys::TargetEntry| {
            let named = (**entry).resname;
            !named.is_null() && CStr::from_ptr(named).to_bytes() == name.as_bytes()
        };
        let kept = entries.iter_ptr().find(is_kept).ok_or_else(lost)?;
        if old.number != new.number {
            pg_sys::ChangeVarNodes((*kept).expr.cast(), old.number, new.number, 0);
        }
        let mut columns = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        (*kept).resno = columns.len() as pg_sys::AttrNumber + 1;
        columns.push(kept);
        (*tree).targetList = columns.into_pg();
        (*tree).hasSubLinks |= (*before).hasSubLinks;
        read_also(tree, new.entry, before, old.entry);
    }
    Ok(())
}

/// A FROM item: its number in the query, and its entry.
struct FromItem {
    number: i32,
    entry: *mut pg_sys::RangeTblEntry,
}

/// Finds the FROM item that reads a relation.
unsafe fn place(tree: *mut pg_sys::Query, relation: pg_sys::Oid) -> Option<FromItem> {
    // SAFETY: the caller passes an analyzed tree.
    unsafe {
        let entries = PgList::<pg_sys::RangeTblEntry>::from_pg((*tree).rtable);
        let found = entries.iter_ptr().enumerate().find(|(_, entry)| {
            (**entry).rtekind == pg_sys::RTEKind::RTE_RELATION && (**entry).relid == relation
        });
        found.map(|(at, entry)| FromItem { number: at as i32 + 1, entry })
    }
}

/// Lets the query require the privilege to read the columns that the other query reads.
#[cfg(feature = "pg15")]
unsafe fn read_also(
    _tree: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
    _before: *mut pg_sys::Query,
    other: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the caller passes entries of its two trees.
    unsafe {
        (*entry).selectedCols = pg_sys::bms_union((*entry).selectedCols, (*other).selectedCols);
    }
}

/// Lets the query require the privilege to read the columns that the other query reads.
#[cfg(not(feature = "pg15"))]
unsafe fn read_also(
    tree: *mut pg_sys::Query,
    entry: *mut pg_sys::RangeTblEntry,
    before: *mut pg_sys::Query,
    other: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the caller passes trees and entries of theirs. The number of an entry's privileges in
    // its query's list begins at 1.
    unsafe {
        let of = |tree: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry| {
            let all = PgList::<pg_sys::RTEPermissionInfo>::from_pg((*tree).rteperminfos);
            ((*entry).perminfoindex as usize).checked_sub(1).and_then(|at| all.get_ptr(at))
        };
        if let (Some(own), Some(other)) = (of(tree, entry), of(before, other)) {
            (*own).selectedCols = pg_sys::bms_union((*own).selectedCols, (*other).selectedCols);
        }
    }
}
