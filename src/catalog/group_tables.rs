//! Creates and drops the tables and views in which coco keeps the groups of a source by deltas.
//! [`group_state`](crate::catalog::group_state) describes their columns.
//!
//! Caller: `declare`.

use pgrx::pg_sys;

use crate::catalog::group_state::{FAILING, GroupShape, ROWS};
use crate::catalog::internal_tables::{self, InternalTable, SCHEMA, contributions_table};
use crate::catalog::model::Source;
use crate::catalog::object_comments::{contributions_comment, groups_comment, rows_comment};
use crate::catalog::object_names::object_name;
use crate::catalog::objects;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column, numbered};
use crate::pg::error::Result;
use crate::pg::relations;
use crate::pg::spi::{self, arg, literal};

/// The prefix of the name of the view that keeps the row part of a query.
pub const ROWS_VIEW: &str = "rows";

/// What coco creates for the groups of a source.
pub struct NewGroups<'a> {
    pub flow: &'a str,
    pub owner: pg_sys::Oid,
    pub source: &'a Source,
    /// The columns that identify a row, as coco stores them.
    pub row_key: &'a [Column],
    pub shape: &'a GroupShape,
    /// The row part of the query, and its columns.
    pub rows: *mut pg_sys::Query,
    pub columns: &'a [Column],
}

/// Creates the tables and views, after dropping those of an earlier query.
pub fn create_groups(new: &NewGroups) -> Result<()> {
    drop_groups(new.source.id)?;
    let rows_name = object_name(ROWS_VIEW, new.source.id, new.flow);
    let rows_view = objects::create_bound_view(
        &rows_name,
        new.owner,
        new.columns,
        new.rows,
        &rows_comment(new.flow, &new.source.name),
    )?;
    let _as = RoleGuard::extension_owner()?;
    create_contributions(new)?;
    let groups_view = create_states(new)?;
    let row_key: Vec<String> = new.row_key.iter().map(|k| k.name.clone()).collect();
    spi::execute(
        "update coco_internal.source
            set row_key = $2, rows_view = $3::oid::regclass, groups_view = $4::text::regclass where id = $1",
        &[arg(new.source.id), arg(row_key), arg(rows_view), arg(groups_view)],
    )?;
    Ok(())
}

/// Returns the definitions of columns `prefix1`, `prefix2`, … that store these.
fn definitions(
    prefix: &str,
    stored: &[Column],
    is_nullable: impl Fn(&Column) -> bool,
) -> Result<Vec<String>> {
    let define = |(column, name): (&Column, String)| {
        let collation = columns::collate(column.collation)?;
        // Without type modifiers: the column may be made wider.
        let type_name = spi::type_name(column.type_oid, -1)?;
        let not_null = if is_nullable(column) { "" } else { " not null" };
        Ok(format!("{name} {type_name}{collation}{not_null}"))
    };
    stored.iter().zip(numbered(prefix, stored.len())).map(define).collect()
}

fn create_contributions(new: &NewGroups) -> Result<()> {
    let NewGroups { source, row_key, shape, .. } = new;
    let table = contributions_table(source.id);
    let key = columns::stored(&source.key);
    let values: Vec<Column> = shape.values.iter().map(|value| value.column.clone()).collect();
    let mut columns = definitions("r", row_key, |_| false)?;
    columns.extend(definitions("g", &key, |column| column.nullable.is_some())?);
    columns.extend(definitions("v", &values, |_| true)?);
    columns.push("failure text".to_owned());
    spi::execute(
        &format!(
            "create table {table} ({}, primary key ({})) with (fillfactor = 90)",
            columns.join(", "),
            numbered("r", row_key.len()).join(", ")
        ),
        &[],
    )?;
    let group = numbered("g", key.len()).join(", ");
    let index = |on: String, condition: &str| {
        spi::execute(&format!("create index on {table} using btree ({on}) where {condition}"), &[])
    };
    index(group.clone(), "failure is not null")?;
    for (on, value) in shape.indexed("") {
        index(format!("{group}, {on}"), &format!("{} is not null", value.column.name))?;
    }
    let comment = contributions_comment(new.flow, &source.name);
    spi::execute(&format!("comment on table {table} is {}", literal(&comment)), &[])?;
    Ok(())
}

/// Creates the table of groups, and returns the name of its view.
fn create_states(new: &NewGroups) -> Result<String> {
    let NewGroups { source, shape, .. } = new;
    let table = InternalTable::Groups.name(source.id);
    let key = columns::stored(&source.key);
    let mut columns = definitions("k", &key, |column| column.nullable.is_some())?;
    columns.push(format!("{ROWS} bigint not null, {FAILING} bigint not null, failure text"));
    for part in &shape.parts {
        let collation = columns::collate(part.column.collation)?;
        // Counts and sums add up; the other parts are NULL for a group without a value.
        let not_null = if part.part.adds_up() { " not null" } else { "" };
        columns.push(format!(
            "{} {}{collation}{not_null}",
            part.column.name,
            spi::type_name(part.column.type_oid, -1)?
        ));
    }
    let unique = match key.iter().any(|k| k.nullable.is_some()) {
        true => "unique nulls not distinct",
        false => "primary key",
    };
    // A group changes often, and its next row version should stay on the page.
    spi::execute(
        &format!(
            "create table {table} ({}, {unique} ({})) with (fillfactor = 80)",
            columns.join(", "),
            numbered("k", key.len()).join(", ")
        ),
        &[],
    )?;
    let comment = groups_comment(new.flow, &source.name);
    spi::execute(&format!("comment on table {table} is {}", literal(&comment)), &[])?;
    internal_tables::make_view(InternalTable::Groups, source.id, new.flow, new.owner, &comment)
}

/// Returns the columns of the table of groups from the key on that an item has: see
/// [`GroupState::columns`](crate::catalog::model::GroupState).
pub fn state_columns(key: &[Column], shape: &GroupShape) -> Result<Vec<Column>> {
    let mut all: Vec<Column> = columns::stored(key);
    for (column, name) in all.iter_mut().zip(numbered("k", key.len())) {
        column.name = name;
    }
    for name in [ROWS, FAILING] {
        let bigint = pg_sys::INT8OID;
        all.push(columns::result_column(name.to_owned(), bigint, -1, pg_sys::InvalidOid)?);
    }
    all.extend(shape.parts.iter().map(|part| part.column.clone()));
    Ok(all)
}

/// Drops the tables and views of the groups of a source, if they exist.
pub fn drop_groups(source: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let views = spi::select(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
           from coco_internal.source s
           join pg_catalog.pg_class c on c.oid in (s.rows_view, s.groups_view)
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where s.id = $1",
        &[arg(source)],
        |r| spi::required::<String>(r, 1),
    )?;
    for view in views {
        spi::execute(&format!("drop view {view}"), &[])?;
    }
    for table in internal_tables::group_tables(source) {
        spi::execute(&format!("drop table if exists {table}"), &[])?;
    }
    Ok(())
}

/// Reports whether both tables of the groups of a source exist with the columns of a shape.
pub fn has_tables(source: &Source, key: &[Column], shape: &GroupShape) -> Result<bool> {
    let types = |name: String| -> Result<Option<Vec<pg_sys::Oid>>> {
        let Some(table) = relations::find_relation(SCHEMA, &name)? else { return Ok(None) };
        let columns = columns::of_relation(table)?;
        Ok(Some(columns.into_iter().map(|a| a.column.type_oid).collect()))
    };
    let stored = |columns: &[Column]| -> Vec<pg_sys::Oid> {
        columns::stored(columns).iter().map(|column| column.type_oid).collect()
    };
    let values: Vec<Column> = shape.values.iter().map(|value| value.column.clone()).collect();
    let parts: Vec<Column> = shape.parts.iter().map(|part| part.column.clone()).collect();
    let text = vec![pg_sys::TEXTOID];
    let bigint = vec![pg_sys::INT8OID; 2];
    let contributions =
        [stored(&source.row_key), stored(key), stored(&values), text.clone()].concat();
    let groups = [stored(key), bigint, text, stored(&parts)].concat();
    Ok(types(format!("contributions_{}", source.id))? == Some(contributions)
        && types(format!("groups_{}", source.id))? == Some(groups))
}
