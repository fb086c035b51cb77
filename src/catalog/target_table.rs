//! Target tables in this database: creates, adopts, alters and checks them.
//!
//! Callers: `declare`, `update`, `flows`.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::model::Target;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Attribute, Column};
use crate::pg::error::{Error, Result};
use crate::pg::relations::find_relation;
use crate::pg::spi::{self, arg, ident};
use crate::pg::subtransaction::subtransaction;

/// Creates the table of a target. The caller acts as the flow's owner.
pub fn create_target_table(target: &Target) -> Result<pg_sys::Oid> {
    let columns: Vec<String> = target
        .columns
        .iter()
        .map(|c| definition(c, is_not_null(target, c)))
        .collect::<Result<_>>()?;
    let name = target.relation_name();
    let schema = spi::scalar::<bool>(
        "select true from pg_catalog.pg_namespace as n
          where n.nspname operator(pg_catalog.=) $1::pg_catalog.text",
        &[arg(target.schema.as_str())],
    )?;
    if schema.is_none() {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME,
            format!("schema \"{}\" does not exist", target.schema),
        )
        .detail(format!("coco creates target {} in this schema.", target.shown()))
        .hint("Create the schema with CREATE SCHEMA: the next update then creates the target."));
    }
    let constraint = key_constraint_sql(target);
    spi::execute(&format!("create table {name} ({}, {constraint})", columns.join(", ")), &[])?;
    find_relation(&target.schema, &target.name)?
        .ok_or_else(|| Error::internal(format!("table {name} was not created")))
}

/// Returns the constraint that keeps a target's key unique. The columns that equal the source key
/// come first: the index then finds an item's rows.
pub fn key_constraint_sql(target: &Target) -> String {
    let kind = match has_nullable_key(target) {
        true => "unique nulls not distinct",
        false => "primary key",
    };
    format!("{kind} ({})", ordered_key_sql(target))
}

/// Reports whether NULL in a column of the target's key is a value like any other.
fn has_nullable_key(target: &Target) -> bool {
    target.key.iter().any(|k| k.nullable.is_some())
}

/// Returns the columns of a target's key in the order in which its index has them.
pub fn ordered_key_sql(target: &Target) -> String {
    let covered = target.covered.clone().unwrap_or_default();
    let mut key: Vec<&Column> = target.key.iter().collect();
    key.sort_by_key(|k| !covered.contains(&k.name));
    let key: Vec<String> = key.iter().map(|k| k.quoted()).collect();
    key.join(", ")
}

fn definition(column: &Column, not_null: bool) -> Result<String> {
    let not_null = if not_null { " not null" } else { "" };
    Ok(format!(
        "{} {}{}{not_null}",
        column.quoted(),
        column.type_name,
        columns::collate(column.collation)?
    ))
}

fn is_key(target: &Target, column: &Column) -> bool {
    target.key.iter().any(|k| k.name == column.name)
}

/// Reports whether a column of the key cannot be NULL.
fn is_known_key(target: &Target, column: &Column) -> bool {
    target.key.iter().any(|k| k.name == column.name && k.nullable.is_none())
}

/// Reports whether coco declares a column of a new table NOT NULL.
fn is_not_null(target: &Target, column: &Column) -> bool {
    let named = |names: &[String]| names.contains(&column.name);
    is_known_key(target, column) || named(&target.not_null) && !named(&target.nullable_again)
}

/// Reports whether rules may rewrite statements on a target; `false` if the table does not exist.
pub fn has_rules(target: &Target) -> bool {
    let Some(relation) = target.relation else { return false };
    // SAFETY: the relation is closed at once; the lock stays, as after any statement that writes to
    // the table.
    unsafe {
        let relation = pg_sys::table_open(relation, pg_sys::RowExclusiveLock as i32);
        let rules = (*(*relation).rd_rel).relhasrules;
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        rules
    }
}

/// Checks that an existing table can hold the target: columns, key and privileges.
pub fn check_adoptable(target: &Target, relation: pg_sys::Oid, owner: pg_sys::Oid) -> Result<()> {
    let name = target.relation_name();
    let kind = spi::scalar::<String>(
        "select relkind::text from pg_catalog.pg_class where oid = $1",
        &[arg(relation)],
    )?;
    if !matches!(kind.as_deref(), Some("r" | "p")) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("target {name} is not a table"),
        )
        .hint("Name a table, or a table that does not exist yet: coco then creates it."));
    }
    let may: bool = spi::scalar(
        "select pg_catalog.has_table_privilege($1, $2, 'select')
            and pg_catalog.has_table_privilege($1, $2, 'insert')
            and pg_catalog.has_table_privilege($1, $2, 'update')
            and pg_catalog.has_table_privilege($1, $2, 'delete')",
        &[arg(owner), arg(relation)],
    )?
    .unwrap_or(false);
    if !may {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for target {name}"),
        )
        .hint(format!("Run GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO the flow's owner.")));
    }
    let attributes = columns::of_relation(relation)?;
    let lacks = misfits(target, &attributes);
    if !lacks.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("target {name} does not fit the query's columns"),
        )
        .detail(format!("{}.", lacks.join("; ")))
        .hint("Alter the table, cast in the query to the table's types, or name a table that does not exist yet. coco never alters a table that it did not create."));
    }
    if has_children(relation)? {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("tables inherit from target {name}"),
        )
        .detail("No unique index spans a table and its inheritance children.")
        .hint("Name a table without children, or a partitioned one."));
    }
    if !has_unique_index(relation, &target.key)? {
        let key: Vec<String> = target.key.iter().map(Column::quoted).collect();
        let key = key.join(", ");
        let kind = match has_nullable_key(target) {
            true => "UNIQUE NULLS NOT DISTINCT",
            false => "PRIMARY KEY",
        };
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
            format!("target {name} has no unique index on its key ({key})"),
        )
        .hint(format!("ALTER TABLE {name} ADD {kind} ({key});")));
    }
    Ok(())
}

/// Checks that a target still has the columns for its query's rows, and that these columns store
/// values unchanged.
pub fn check_fits(flow: &str, target: &Target) -> Result<()> {
    let (Some(relation), None) = (target.relation, &target.external) else { return Ok(()) };
    let attributes = columns::of_relation(relation)?;
    let mut lacks = Vec::new();
    for column in &target.columns {
        let (name, wanted) = (format!("\"{}\"", column.name), &column.type_name);
        match attributes.iter().find(|a| a.column.name == column.name) {
            None => lacks.push((
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("has no column {name}"),
                format!("The query returns {name} as {wanted}"),
            )),
            Some(a) if a.column.type_oid != column.type_oid => lacks.push((
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("has another type for column {name}"),
                format!("Column {name} is {}, the query returns {wanted}", a.column.type_name),
            )),
            Some(a) if !keeps_values(column, &a.column) => lacks.push((
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("has another type for column {name}"),
                format!(
                    "Column {name} is {}, the query returns {wanted}: writing would change values",
                    a.column.type_name
                ),
            )),
            Some(a) if a.generated => lacks.push((
                PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS,
                format!("generates column {name}"),
                format!("Column {name} is a generated column, which accepts no values"),
            )),
            Some(_) => {}
        }
    }
    let Some((code, first, _)) = lacks.first() else { return Ok(()) };
    let details: Vec<&str> = lacks.iter().map(|(_, _, detail)| detail.as_str()).collect();
    Err(Error::new(*code, format!("target {} of flow \"{flow}\" {first}", target.relation_name()))
        .detail(format!("{}.", details.join("; ")))
        .hint("Alter the table back, or call coco.set_query with a query that fits: coco alters a table that it created."))
}

/// Reports whether a table's column stores values of a query's column of the same type unchanged,
/// or rejects them.
fn keeps_values(query: &Column, table: &Column) -> bool {
    let (from, to) = (query.typmod, table.typmod);
    if to < 0 || from == to {
        return true;
    }
    // The typmod of numeric contains precision and scale, plus the size of a header.
    let scale = |typmod: i32| (typmod - pg_sys::VARHDRSZ as i32) & 0x7ff;
    match query.type_oid {
        pg_sys::NUMERICOID => from >= 0 && scale(from) == scale(to),
        // Six digits are the maximum.
        pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID | pg_sys::TIMEOID | pg_sys::TIMETZOID => {
            to == 6 || (0..=to).contains(&from)
        }
        pg_sys::INTERVALOID | pg_sys::BPCHAROID => false,
        _ => true,
    }
}

/// Returns the differences that prevent a table from holding the target's rows.
fn misfits(target: &Target, attributes: &[Attribute]) -> Vec<String> {
    let mut lacks = Vec::new();
    for column in &target.columns {
        let found = attributes.iter().find(|a| a.column.name == column.name);
        match found {
            None => lacks.push(format!(
                "The table has no column {} {}",
                column.quoted(),
                column.type_name
            )),
            Some(a) if a.column.type_oid != column.type_oid => lacks.push(format!(
                "Column {} is {}, the query returns {}",
                column.quoted(),
                a.column.type_name,
                column.type_name
            )),
            Some(a) if !keeps_values(column, &a.column) => lacks.push(format!(
                "Column {} is {}, the query returns {}: writing would change values",
                column.quoted(),
                a.column.type_name,
                column.type_name
            )),
            Some(a) if a.generated => {
                lacks.push(format!("Column {} is generated", column.quoted()))
            }
            Some(a) if is_known_key(target, column) && !a.not_null => {
                lacks.push(format!("Key column {} is nullable", column.quoted()))
            }
            Some(_) => {}
        }
    }
    for a in attributes {
        let ours = target.columns.iter().any(|c| c.name == a.column.name);
        if !ours && a.not_null && !a.has_default && !a.generated {
            lacks.push(format!(
                "Column {} is not null, has no default and is not in the query",
                a.column.quoted()
            ));
        }
    }
    lacks
}

const UNIQUE: &str = "
select pg_catalog.bool_or(true)
  from pg_catalog.pg_index i
 where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate
   and i.indpred is null and i.indexprs is null
   -- if NULL is a value like any other, two rows cannot have it in the key
   and (not $3 or i.indnullsnotdistinct
        or not exists (select from pg_catalog.pg_attribute a
                        where a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
                          and not a.attnotnull))
   -- an index does not span the tables that inherit from its own table
   and not exists (select from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhparent
                    where h.inhparent = $1 and c.relkind = 'r')
   -- the index distinguishes the same values as the column
   and not exists (
     select from pg_catalog.generate_series(0, i.indnkeyatts - 1) as n
       join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[n]
       join pg_catalog.pg_collation c on c.oid = a.attcollation
      where not c.collisdeterministic and i.indcollation[n] <> a.attcollation)
   and (select pg_catalog.array_agg(a.attname::text order by a.attname::text)
          from pg_catalog.pg_attribute a
         where a.attrelid = i.indrelid
           and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])) operator(pg_catalog.=)
       (select pg_catalog.array_agg(k order by k) from pg_catalog.unnest($2::text[]) k)";

/// Reports whether tables inherit from a table. Their rows are then read as rows of the table.
/// Partitions do not count.
pub fn has_children(relation: pg_sys::Oid) -> Result<bool> {
    let found = spi::scalar::<bool>(
        "select true from pg_catalog.pg_inherits h
           join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) h.inhparent
          where h.inhparent operator(pg_catalog.=) $1
            and c.relkind operator(pg_catalog.=) 'r'::pg_catalog.\"char\" limit 1",
        &[arg(relation)],
    )?;
    Ok(found == Some(true))
}

/// Reports whether an immediate, complete unique index covers exactly these columns, and contains
/// all rows that a query of the table returns.
pub fn has_unique_index(relation: pg_sys::Oid, key: &[Column]) -> Result<bool> {
    let _as = RoleGuard::qualifying_names()?;
    let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let has_null = key.iter().any(|k| k.nullable.is_some());
    Ok(spi::scalar::<bool>(UNIQUE, &[arg(relation), arg(names), arg(has_null)])?.unwrap_or(false))
}

/// Returns the columns of a target's unique indexes and exclusion constraints, except indexes on
/// its key alone. Includes the columns that their expressions and predicates use.
pub fn constrained_columns(target: &Target) -> Result<Vec<String>> {
    let (Some(relation), None) = (target.relation, &target.external) else { return Ok(vec![]) };
    let _as = RoleGuard::qualifying_names()?;
    let names: Vec<String> = target.key.iter().map(|k| k.name.clone()).collect();
    spi::select(
        "with constrained as (
           select i.indexrelid, a.attname::text as name
             from pg_catalog.pg_index i
             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid
              and (a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
                   or exists (select from pg_catalog.pg_depend d
                               where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = i.indexrelid
                                 and d.refclassid = 'pg_catalog.pg_class'::regclass
                                 and d.refobjid = i.indrelid and d.refobjsubid = a.attnum))
            where i.indrelid = $1 and a.attnum > 0 and (i.indisunique or i.indisexclusion)
         )
         select distinct c.name from constrained c
          where exists (select from constrained other
                         where other.indexrelid = c.indexrelid and other.name <> all ($2::text[]))",
        &[arg(relation), arg(names)],
        |r| spi::required(r, 1),
    )
}

/// Reports whether the table itself rejects duplicate keys, whatever their values: it has an index
/// that compares keys as GROUP BY does, also those with NULL. The table may have been
/// altered since coco created or adopted it.
pub fn refuses_keys_twice(relation: pg_sys::Oid, key: &[Column]) -> Result<bool> {
    let _as = RoleGuard::qualifying_names()?;
    let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    // As an OID, "no collation" would be passed as NULL.
    let collations: Vec<i64> = key.iter().map(|k| k.collation.to_u32().into()).collect();
    let found = spi::scalar::<bool>(
        "select exists (
           select from pg_catalog.pg_index i
            where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indisready
              and i.indimmediate and i.indpred is null and i.indexprs is null
              and i.indnkeyatts = cardinality($2)
              and i.indnkeyatts = (
                select count(*) from generate_series(0, i.indnkeyatts - 1) as n
                  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[n]
                  join pg_catalog.pg_opclass o on o.oid = i.indclass[n]
                  join unnest($2::text[], $3::bigint[]) as k(name, collated) on k.name = a.attname
                 where (a.attnotnull or i.indnullsnotdistinct) and o.opcdefault and i.indcollation[n] = k.collated::oid))",
        &[arg(relation), arg(names), arg(collations)],
    )?;
    Ok(found == Some(true))
}

/// The effect of altering a table on its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Altered {
    Nothing,
    /// Columns were added, dropped or emptied: coco must write every row again.
    Columns,
    /// The type of a key column changed: the table was emptied.
    Key,
}

/// Alters a table that coco created so that it matches the target's new columns. Columns whose type
/// changes lose their values until the next update. The caller acts as the flow's owner.
///
/// `not_null` are the columns that coco declared NOT NULL before. They stay so only if the new query
/// never returns NULL for them, and other columns become so only if the table is empty. Afterwards,
/// the target has the columns that are so now.
pub fn alter_to_fit(
    target: &mut Target,
    not_null: &[String],
    relation: pg_sys::Oid,
) -> Result<Altered> {
    let attributes = columns::of_relation(relation)?;
    let name = target.relation_name();
    let (mut changes, mut kept) = (Vec::new(), Vec::new());
    let mut key_changes = false;
    for a in &attributes {
        if !target.columns.iter().any(|c| c.name == a.column.name) {
            changes.push(format!("drop column {}", a.column.quoted()));
        }
    }
    for column in &target.columns {
        match attributes.iter().find(|a| a.column.name == column.name) {
            None => changes.push(format!("add column {}", definition(column, false)?)),
            Some(a) if same_type(&a.column, column) => kept.push(column.name.clone()),
            Some(_) => {
                key_changes |= is_key(target, column);
                changes.push(format!(
                    "alter column {c} drop default, alter column {c} type {}{} using null",
                    column.type_name,
                    columns::collate(column.collation)?,
                    c = column.quoted(),
                ));
            }
        }
    }
    if key_changes {
        spi::execute(&format!("truncate {name}"), &[])?;
    }
    let altered = match (changes.is_empty(), key_changes) {
        (true, _) => Altered::Nothing,
        (false, true) => Altered::Key,
        (false, false) => Altered::Columns,
    };
    let is_empty = key_changes || is_empty(target)?;
    let has = |name: &String| attributes.iter().any(|a| a.column.name == *name);
    let can_be_null = |name: &&String| !target.not_null.contains(name) || !kept.contains(name);
    for column in not_null.iter().filter(can_be_null).filter(|name| has(name)) {
        if target.columns.iter().any(|c| c.name == *column) {
            changes.push(format!("alter column {} drop not null", ident(column)));
        }
    }
    let stays = |name: &String| not_null.contains(name) && kept.contains(name);
    let becomes: Vec<String> =
        target.not_null.iter().filter(|name| is_empty && !stays(name)).cloned().collect();
    for column in &becomes {
        changes.push(format!("alter column {} set not null", ident(column)));
    }
    target.not_null.retain(|name| stays(name) || becomes.contains(name));
    if !changes.is_empty() {
        spi::execute(&format!("alter table {name} {}", changes.join(", ")), &[])?;
    }
    Ok(altered)
}

/// Lets columns of the key of a table that coco created be NULL, if the target's new query can return
/// NULL for them. The caller acts as the flow's owner.
pub fn allow_null_keys(target: &Target, relation: pg_sys::Oid) -> Result<()> {
    let attributes = columns::of_relation(relation)?;
    let is_strict = |k: &&Column| {
        k.nullable.is_some() && attributes.iter().any(|a| a.column.name == k.name && a.not_null)
    };
    let loosened: Vec<String> = target
        .key
        .iter()
        .filter(is_strict)
        .map(|k| format!("alter column {} drop not null", k.quoted()))
        .collect();
    if loosened.is_empty() {
        return Ok(());
    }
    let primary = spi::scalar::<String>(
        "select c.conname::pg_catalog.text from pg_catalog.pg_constraint c
          where c.conrelid operator(pg_catalog.=) $1
            and c.contype operator(pg_catalog.=) 'p'::pg_catalog.\"char\"",
        &[arg(relation)],
    )?;
    let mut changes: Vec<String> =
        primary.iter().map(|name| format!("drop constraint {}", ident(name))).collect();
    changes.extend(loosened);
    changes.push(format!("add {}", key_constraint_sql(target)));
    let sql = format!("alter table {} {}", target.relation_name(), changes.join(", "));
    spi::execute(&sql, &[])?;
    Ok(())
}

/// Reports whether exactly those columns of the key can be NULL in a table that can be so in the
/// target.
pub fn has_nulls_of_key(target: &Target, attributes: &[Attribute]) -> bool {
    target.key.iter().all(|k| {
        let found = attributes.iter().find(|a| a.column.name == k.name);
        found.is_some_and(|a| a.not_null == k.nullable.is_none())
    })
}

/// Declares that columns of a target can be NULL. Does nothing, and returns `false`, if another
/// session uses the table, or if the flow's owner no longer owns it. The caller acts as the flow's
/// owner.
pub fn allow_nulls(target: &Target, columns: &[String]) -> Result<bool> {
    let Some(relation) = target.relation else { return Ok(false) };
    let owns = spi::scalar::<bool>(
        "select pg_catalog.pg_has_role(c.relowner, 'usage')
           from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) $1",
        &[arg(relation)],
    )?;
    let lock = pg_sys::AccessExclusiveLock as i32;
    // SAFETY: takes a heavyweight lock, which the transaction's end releases.
    if owns != Some(true) || !unsafe { pg_sys::ConditionalLockRelationOid(relation, lock) } {
        return Ok(false);
    }
    let changes: Vec<String> =
        columns.iter().map(|c| format!("alter column {} drop not null", ident(c))).collect();
    let sql = format!("alter table {} {}", target.relation_name(), changes.join(", "));
    // The table may have a constraint of its owner's that needs the column to be NOT NULL.
    let altered: std::result::Result<bool, Result<bool>> =
        subtransaction(|| spi::execute(&sql, &[]).map(|_| true).map_err(Err), |_| Ok(false));
    altered.or_else(|failed| failed)
}

fn same_type(a: &Column, b: &Column) -> bool {
    a.type_oid == b.type_oid && a.typmod == b.typmod && a.collation == b.collation
}

/// Reports whether a target has no rows.
pub fn is_empty(target: &Target) -> Result<bool> {
    let any: Option<bool> =
        spi::scalar(&format!("select true from {} limit 1", target.relation_name()), &[])?;
    Ok(any.is_none())
}

/// Splits a target's name into schema and name. Without a schema, uses the schema of the table
/// found on the search path, or the schema in which the owner would create the table. The name may
/// begin with the name of this database, as in SQL. The caller acts as the flow's owner.
pub fn resolve_name(given: &str) -> Result<(String, String)> {
    let parts: Vec<String> = spi::scalar("select pg_catalog.parse_ident($1)", &[arg(given)])?
        .ok_or_else(|| Error::invalid("argument \"target\" is empty"))?;
    for part in &parts {
        if part.len() > 63 {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
                format!("target name {} is over 63 bytes", ident(part)),
            ));
        }
    }
    match parts.as_slice() {
        [name] => {
            let schema = spi::scalar::<String>(
                "select coalesce(
                   (select n.nspname from pg_catalog.pg_class c
                      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                     where c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident($1))),
                   pg_catalog.current_schema())::text",
                &[arg(name.as_str())],
            )?;
            let schema = schema.ok_or_else(|| {
                Error::new(
                    PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME,
                    format!("no schema has been selected to create target {} in", ident(name)),
                )
                .hint("Qualify the target's name, or set search_path to a schema that exists.")
            })?;
            Ok((schema, name.clone()))
        }
        [schema, name] => Ok((schema.clone(), name.clone())),
        [database, schema, name] => {
            let here = spi::scalar::<String>("select pg_catalog.current_database()::text", &[])?;
            match here.as_ref() == Some(database) {
                true => Ok((schema.clone(), name.clone())),
                false => Err(Error::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("cross-database references are not implemented: {given}"),
                )
                .hint("Name a table of this database.")),
            }
        }
        _ => Err(Error::invalid(format!("argument \"target\": {given} is not a table name"))
            .hint("Write table or schema.table.")),
    }
}
