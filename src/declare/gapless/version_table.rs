//! Creates the table of a new version: as the table of the main flow, with the columns and the key
//! of the new query. The table is empty, so each of its indexes and constraints costs nothing here.
//! `partitions` creates partitions in the same way.

use pgrx::prelude::*;

use crate::catalog::model::{Flow, Target};
use crate::catalog::target_table;
use crate::catalog::version_rows::VersionRole;
use crate::declare::gapless::partition_tree::{self, TreeTable};
use crate::declare::names;
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::columns::{self, Attribute, Column};
use crate::pg::error::{Error, Result};
use crate::pg::relations::find_relation;
use crate::pg::spi::{self, arg, ident};

/// Creates the table of `new`, which replaces the table of `old`, without partitions.
pub fn create(main: &Flow, old: &Target, new: &Target) -> Result<pg_sys::Oid> {
    let Some(template) = old.relation else {
        return Err(Error::internal("the table of a replaceable target vanished"));
    };
    partition_tree::check_partition_key(old, new, template)?;
    let acting = RoleGuard::flow_owner(main.owner, &SavedGucs::qualifying())?;
    let tree = partition_tree::read_tree(template)?;
    drop(acting);
    tree.iter().try_for_each(|table| check_retired_name(main, old, table))?;
    let _as = RoleGuard::flow_owner(main.owner, &SavedGucs::qualifying())?;
    let name = new.relation_name();
    spi::execute(&create_sql(template, &name, &old.relation_name(), Identity::Copied)?, &[])?;
    let table = find_relation(&new.schema, &new.name)?
        .ok_or_else(|| Error::internal(format!("table {name} was not created")))?;
    name_after_partners(template, table)?;
    let is_nullable = |key: &[Column]| key.iter().any(|k| k.nullable.is_some());
    // An adopted table keeps what its owner declared.
    let changes_null = old.made && is_nullable(&old.key) != is_nullable(&new.key);
    let changes_key = changes_null || !same_names(&old.key, &new.key);
    if changes_key {
        drop_uniqueness(table, &name, &old.key)?;
    }
    fit_columns(old, new, table, &name)?;
    if changes_key && old.made {
        allow_null(old, new, table, &name)?;
    }
    if !target_table::has_unique_index(table, &new.key)? {
        add_key(new, table, &name)?;
    }
    fit_not_null(old, new, &name)?;
    copy_foreign_keys(template, table, &name)?;
    Ok(table)
}

/// Fails if a relation has the name that a table of the main flow will have, unless it is the table
/// of the flow's old version, which the swap drops.
fn check_retired_name(main: &Flow, old: &Target, table: &TreeTable) -> Result<()> {
    let retired = match table.bounds.is_empty() {
        true => names::version_table_name(&old.name, VersionRole::Old),
        false => names::version_partition_name(&table.name, table.relation, VersionRole::Old),
    };
    let Some(relation) = find_relation(&table.schema, &retired)? else { return Ok(()) };
    let _as = RoleGuard::extension_owner()?;
    let target = spi::select(
        "select managed, flow from coco_internal.target where relation = $1::oid::regclass",
        &[arg(relation)],
        |r| Ok((spi::required::<bool>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?
    .pop();
    let old_version = names::version_name(&main.name, VersionRole::Old)?;
    let of_old_version = target.filter(|(_, flow)| *flow == old_version);
    let hint = match of_old_version {
        Some((true, _)) => return Ok(()),
        Some((false, flow)) => format!(
            "Drop flow \"{flow}\" with coco.drop_flow, and then drop or rename the relation. coco keeps an adopted table under this name."
        ),
        None => {
            "Drop or rename the relation. coco keeps an adopted table under this name.".to_owned()
        }
    };
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
        format!("relation {} already exists", spi::qualified(&table.schema, &retired)),
    )
    .detail(format!("The swap gives this name to the present table {}.", table.qualified()))
    .hint(hint))
}

/// Whether a new table gets identity columns of its own.
#[derive(Clone, Copy)]
pub enum Identity {
    Copied,
    /// A partition has those of the table that it is attached to.
    Inherited,
}

/// Returns the CREATE TABLE of a table that has the properties of another one.
pub fn create_sql(
    template: pg_sys::Oid,
    name: &str,
    like: &str,
    identity: Identity,
) -> Result<String> {
    let options = match identity {
        Identity::Copied => "including all",
        Identity::Inherited => "including all excluding identity",
    };
    let statement = spi::scalar::<String>(
        "select format('create %s table %s (like %s %s)%s%s%s%s',
                       case c.relpersistence when 'u' then 'unlogged' end, $2, $3, $4,
                       ' partition by ' || pg_get_partkeydef(c.oid),
                       ' using ' || quote_ident(a.amname),
                       (select format(' with (%s)', string_agg(format('%I = %L', o.option_name, o.option_value), ', '))
                          from pg_options_to_table(c.reloptions) as o having count(*) > 0),
                       ' tablespace ' || quote_ident(s.spcname))
           from pg_class as c
           left join pg_am as a on a.oid = c.relam
           left join pg_tablespace as s on s.oid = c.reltablespace
          where c.oid = $1",
        &[arg(template), arg(name), arg(like), arg(options)],
    )?;
    statement.ok_or_else(|| Error::internal("the table of a replaceable target vanished"))
}

/// Names each index of a new table after the index that it is a copy of, so that the swap finds it
/// whatever happens to the columns. LIKE copies indexes in the order of their OIDs.
pub fn name_after_partners(template: pg_sys::Oid, table: pg_sys::Oid) -> Result<()> {
    let renames = spi::select(
        "with i as (
           select x.indrelid, x.indexrelid, n.nspname, c.relname,
                  row_number() over (partition by x.indrelid order by x.indexrelid) as n,
                  count(*) over (partition by x.indrelid) as of
             from pg_index as x join pg_class as c on c.oid = x.indexrelid
             join pg_namespace as n on n.oid = c.relnamespace
            where x.indrelid in ($1, $2) and x.indislive
         )
         select format('alter index %I.%I rename to %I', w.nspname, w.relname,
                       'coco_new_' || o.indexrelid)
           from i as o join i as w using (n, of)
          where o.indrelid = $1 and w.indrelid = $2",
        &[arg(template), arg(table)],
        |r| spi::required::<String>(r, 1),
    )?;
    run_all(&renames)
}

/// Drops the unique constraints and indexes on exactly these columns.
pub fn drop_uniqueness(table: pg_sys::Oid, name: &str, key: &[Column]) -> Result<()> {
    let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let drops = spi::select(
        "select case when t.conname is null then format('drop index %I.%I', n.nspname, c.relname)
                     else format('alter table %s drop constraint %I', $2, t.conname) end
           from pg_index as i join pg_class as c on c.oid = i.indexrelid
           join pg_namespace as n on n.oid = c.relnamespace
           left join pg_constraint as t on t.conindid = i.indexrelid and t.conrelid = $1
          where i.indrelid = $1 and i.indisunique
            and (select array_agg(a.attname::text order by a.attname::text)
                   from pg_attribute as a
                  where a.attrelid = $1 and a.attnum = any (i.indkey[0:i.indnkeyatts - 1]))
              = (select array_agg(k order by k) from unnest($3::text[]) as k)",
        &[arg(table), arg(name), arg(names)],
        |r| spi::required::<String>(r, 1),
    )?;
    run_all(&drops)
}

/// Gives an empty table the columns of a target.
pub fn fit_columns(old: &Target, new: &Target, table: pg_sys::Oid, name: &str) -> Result<()> {
    let attributes = columns::of_relation(table)?;
    let has = |columns: &[Column], a: &Attribute| columns.iter().any(|c| c.name == a.column.name);
    let mut changes: Vec<String> = attributes
        .iter()
        .filter(|a| has(&old.columns, a) && !has(&new.columns, a))
        .map(|a| format!("drop column {}", a.column.quoted()))
        .collect();
    for column in &new.columns {
        let type_name = format!("{}{}", column.type_name, columns::collate(column.collation)?);
        let quoted = column.quoted();
        match attributes.iter().find(|a| a.column.name == column.name) {
            None => changes.push(format!("add column {quoted} {type_name}")),
            Some(a) if same_type(&a.column, column) => {}
            // An adopted table may have wider columns than the query.
            Some(a) if !old.made && a.column.type_oid == column.type_oid => {}
            Some(_) => changes.push(format!(
                "alter column {quoted} drop default, alter column {quoted} type {type_name} using null"
            )),
        }
    }
    match changes.is_empty() {
        true => Ok(()),
        false => run_all(&[format!("alter table {name} {}", changes.join(", "))]),
    }
}

fn same_type(a: &Column, b: &Column) -> bool {
    a.type_oid == b.type_oid && a.typmod == b.typmod && a.collation == b.collation
}

/// Lets columns that were part of the key, and no longer are, be NULL.
fn allow_null(old: &Target, new: &Target, table: pg_sys::Oid, name: &str) -> Result<()> {
    let attributes = columns::of_relation(table)?;
    for key in &old.key {
        let leaves = new.key.iter().all(|k| k.name != key.name || k.nullable.is_some());
        let is_there = attributes.iter().any(|a| a.column.name == key.name && a.not_null);
        if leaves && is_there {
            run_all(&[format!("alter table {name} alter column {} drop not null", key.quoted())])?;
        }
    }
    Ok(())
}

/// Declares NOT NULL the columns for which the new query never returns NULL, instead of those for
/// which the old one did not.
fn fit_not_null(old: &Target, new: &Target, name: &str) -> Result<()> {
    let is_known = |k: &Column, column: &String| k.name == *column && k.nullable.is_none();
    let stays = |column: &String| {
        new.not_null.contains(column) || new.key.iter().any(|k| is_known(k, column))
    };
    let has = |column: &String| new.columns.iter().any(|c| c.name == *column);
    let mut changes: Vec<String> = old
        .not_null
        .iter()
        .filter(|column| has(column) && !stays(column))
        .map(|column| format!("alter column {} drop not null", ident(column)))
        .collect();
    let not_null = new.not_null.iter();
    changes.extend(not_null.map(|column| format!("alter column {} set not null", ident(column))));
    match changes.is_empty() {
        true => Ok(()),
        false => run_all(&[format!("alter table {name} {}", changes.join(", "))]),
    }
}

/// Adds the primary key, or a unique constraint if the table has another primary key. The columns
/// that equal the source key come first, as in [`target_table::create_target_table`].
fn add_key(new: &Target, table: pg_sys::Oid, name: &str) -> Result<()> {
    let has_primary = spi::scalar::<bool>(
        "select true from pg_index where indrelid = $1 and indisprimary",
        &[arg(table)],
    )?;
    let key = target_table::ordered_key_sql(new);
    let constraint = match has_primary {
        Some(true) if new.key.iter().all(|k| k.nullable.is_none()) => format!("unique ({key})"),
        _ => target_table::key_constraint_sql(new),
    };
    let mut statements = vec![format!("alter table {name} add {constraint}")];
    let known = new.key.iter().filter(|k| k.nullable.is_none());
    let not_null: Vec<String> =
        known.map(|k| format!("alter column {} set not null", k.quoted())).collect();
    if !constraint.starts_with("primary key") && !not_null.is_empty() {
        statements.push(format!("alter table {name} {}", not_null.join(", ")));
    }
    run_all(&statements)
}

/// Copies the foreign keys of a table whose columns exist in the other one. LIKE does not copy
/// them.
pub fn copy_foreign_keys(template: pg_sys::Oid, table: pg_sys::Oid, name: &str) -> Result<()> {
    let keys = spi::select(
        "select c.conname::text, pg_get_constraintdef(c.oid)
           from pg_constraint as c
          where c.conrelid = $1 and c.contype = 'f' and c.conparentid = 0
            and not exists (
              select from unnest(c.conkey) as k(num)
                join pg_attribute as a on a.attrelid = $1 and a.attnum = k.num
               where not exists (select from pg_attribute as b
                                  where b.attrelid = $2 and b.attname = a.attname and not b.attisdropped))
          order by c.conname",
        &[arg(template), arg(table)],
        |r| Ok((spi::required::<String>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    for (constraint, definition) in keys {
        let constraint = ident(&constraint);
        run_all(&[format!("alter table {name} add constraint {constraint} {definition}")])?;
    }
    Ok(())
}

/// Reports whether two keys have the same columns.
pub fn same_names(a: &[Column], b: &[Column]) -> bool {
    let names = |key: &[Column]| {
        let mut names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
        names.sort();
        names
    };
    names(a) == names(b)
}

/// Runs statements that define objects. The caller acts as the flow's owner.
pub fn run_all(statements: &[String]) -> Result<()> {
    for statement in statements {
        spi::execute(statement, &[])?;
    }
    Ok(())
}
