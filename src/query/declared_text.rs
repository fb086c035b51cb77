//! Texts that declare a bound query or expression again.
//!
//! The text of a declaration may no longer declare the same: a table or a column that it names has
//! another name now, or other objects have its names. In that case, PostgreSQL writes the stored
//! tree as a text. In this text, the item has the source's name, and all other names are qualified.
//!
//! Caller: `inspect`.

use pgrx::PgList;
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char};

use crate::catalog::model::BoundView;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns;
use crate::pg::error::{Error, Result};
use crate::query::bound_query::{self, Bound};
use crate::query::named_source::Named;
use crate::query::{same_query, view_tree};

/// A text that declares a query.
pub struct DeclaredText {
    pub text: String,
    /// The alias of the place that is the item, if the text does not tell it.
    pub item: Option<String>,
    /// Whether the text was bound and found to declare the same query.
    pub is_exact: bool,
}

/// Whether the names of a query's output columns are part of the query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OutputNames {
    Significant,
    Insignificant,
}

/// Returns a text that declares the query that a view keeps: `text` if possible. The caller acts as
/// the flow's owner.
pub fn query_text(
    argument: &str,
    text: &str,
    view: &BoundView,
    named: &[Named],
    output_names: OutputNames,
) -> Result<DeclaredText> {
    let stored =
        Bound { tree: view_tree::read_bound_query(view.view)?, places: view.places.clone() };
    let bind = |text: &str, item: Option<&String>| {
        // An error means that the text does not declare the query with this item.
        let fresh =
            bound_query::bind_query(argument, text, named, item.map(String::as_str)).ok()?;
        if output_names == OutputNames::Insignificant {
            same_query::copy_column_names(&stored, &fresh);
        }
        Some(fresh)
    };
    let found = |text: String, item: Option<&String>| {
        Ok(DeclaredText { text, item: item.cloned(), is_exact: true })
    };
    let aliases = bound_query::item_aliases(&stored, named);
    for item in std::iter::once(None).chain(aliases.iter().map(Some)) {
        if bind(text, item).is_some_and(|fresh| same_query::is_same_query(&fresh, &stored)) {
            return found(text.to_owned(), item);
        }
    }
    let written = written_text(&stored, named)?;
    if let Some(fresh) = bind(&written, None)
        && fresh.places == stored.places
    {
        // The text of a tree names columns that the tree leaves unnamed, so the new tree may differ
        // although its text is the same.
        if same_query::is_same_query(&fresh, &stored) || written_text(&fresh, named)? == written {
            return found(written, None);
        }
    }
    Ok(DeclaredText { text: text.to_owned(), item: None, is_exact: false })
}

/// Writes a bound query as a text.
fn written_text(query: &Bound, named: &[Named]) -> Result<String> {
    let relations: Vec<pg_sys::Oid> = named.iter().map(|n| n.relation).collect();
    let _names = RoleGuard::qualifying_names()?;
    // SAFETY: a copy of an analyzed tree, which is changed and written here alone. The text is
    // palloc'd, and ends with a NUL.
    let text = unsafe {
        let copy = pg_sys::copyObjectImpl(query.tree.cast()).cast::<pg_sys::Query>();
        let places = bound_query::occurrences(copy, &relations);
        for (place, id) in places.iter().zip(query.places.iter()) {
            if let Some(source) = named.iter().find(|n| n.id == *id) {
                refer_by_name(&mut *place.entry, source)?;
            }
        }
        c_text(pg_sys::pg_get_querydef(copy, false))
    };
    Ok(text.trim().trim_end_matches(';').to_owned())
}

/// Makes PostgreSQL write an entry by the name of a source, without a schema: the entry becomes a
/// reference to a CTE of this name, with the columns that the relation has now.
unsafe fn refer_by_name(entry: &mut pg_sys::RangeTblEntry, source: &Named) -> Result<()> {
    let columns = columns::numbers(source.relation)?;
    let last = columns.last().map_or(0, |(number, _)| *number);
    // SAFETY: the strings and nodes are palloc'd, and live as long as the tree. An entry of an
    // analyzed tree has a name.
    unsafe {
        let mut names = PgList::<pg_sys::String>::new();
        for number in 1..=last {
            // A dropped column has an empty name.
            let name =
                columns.iter().find(|(n, _)| *n == number).map_or("", |(_, name)| name.as_str());
            names.push(pg_sys::makeString(pstring(name)?));
        }
        (*entry.eref).colnames = names.into_pg();
        entry.rtekind = pg_sys::RTEKind::RTE_CTE;
        entry.ctename = pstring(&source.name)?;
    }
    Ok(())
}

/// Returns the expression of a column of the query that a view keeps, as a text over the columns of
/// the only relation that the query reads. With `qualified`, each column follows the name `source`.
pub fn column_text(
    view: &BoundView,
    column: &str,
    source: &str,
    relation: pg_sys::Oid,
    qualified: bool,
) -> Result<Option<String>> {
    let tree = view_tree::read_bound_query(view.view)?;
    let name = pstring(source)?;
    let _names = RoleGuard::qualifying_names()?;
    // SAFETY: the tree was just read. Its variables refer to the relation of the context, which is
    // the only one.
    unsafe {
        let Some(expression) = same_query::column_of(tree, column) else { return Ok(None) };
        let expression = pg_sys::copyObjectImpl(expression.cast()).cast::<pg_sys::Node>();
        // Before PostgreSQL 16, a view's tree begins with two entries for the view itself.
        #[cfg(feature = "pg15")]
        pg_sys::OffsetVarNodes(expression, -2, 0);
        let context = pg_sys::deparse_context_for(name, relation);
        Ok(Some(c_text(pg_sys::deparse_expression(expression, context, qualified, false))))
    }
}

/// Writes an expression over the columns of one row of a relation, which has number 1.
///
/// # Safety
/// The expression is analyzed, and all of its variables are columns of the relation.
pub unsafe fn expression_text(
    expression: *mut pg_sys::Node,
    relation: pg_sys::Oid,
) -> Result<String> {
    let _names = RoleGuard::qualifying_names()?;
    // SAFETY: the caller upholds the same contract. The name appears nowhere in the text.
    unsafe {
        let context = pg_sys::deparse_context_for(pstring("s")?, relation);
        Ok(c_text(pg_sys::deparse_expression(expression, context, false, false)))
    }
}

/// Copies a text into PostgreSQL's memory.
fn pstring(text: &str) -> Result<*mut c_char> {
    let text = CString::new(text).map_err(|_| Error::internal("name contains a NUL byte"))?;
    // SAFETY: the text ends with a NUL, and is copied.
    Ok(unsafe { pg_sys::pstrdup(text.as_ptr()) })
}

/// Copies a text of PostgreSQL's.
///
/// # Safety
/// `text` ends with a NUL.
unsafe fn c_text(text: *const c_char) -> String {
    // SAFETY: the caller upholds the same contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
