//! Decides whether the table of a target can be replaced: which objects depend on it, and whether
//! coco can move them to another table.

use pgrx::prelude::*;

use crate::catalog::model::{Flow, Target};
use crate::declare::gapless::partition_tree;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// A SELECT of the objects that depend on table `$1` or its partitions, and that coco cannot move.
/// `$2` is the flow's owner; `$3` to `$6` are the names, types, type modifiers and collations of the
/// columns that the new table has; `$7` are the table and its partitions.
const FIXED: &str = "
with after(name, type, typmod, coll) as (
  select * from unnest($3::text[], $4::bigint[], $5::int[], $6::bigint[])
), own(class, object) as (
  select 'pg_class'::regclass::oid, unnest($7)
   union all
  select 'pg_type'::regclass::oid, unnest(array[t.oid, t.typarray])
    from pg_class as c join pg_type as t on t.oid = c.reltype where c.oid = any ($7)
   union all
  select 'pg_constraint'::regclass::oid, oid from pg_constraint where conrelid = any ($7)
), dependents as (
  select distinct d.classid, d.objid
    from own as o join pg_depend as d on d.refclassid = o.class and d.refobjid = o.object
), known as (
  select d.classid, d.objid, w.ev_class as view, v.relowner,
         exists (
           select from pg_depend as u
             join pg_attribute as a on a.attrelid = u.refobjid and a.attnum = u.refobjsubid
            where u.classid = 'pg_rewrite'::regclass and u.objid = d.objid
              and u.refclassid = 'pg_class'::regclass and u.refobjid = any ($7)
              and not exists (select from after as n
                               where n.name = a.attname::text and n.type = a.atttypid::bigint
                                 and n.typmod = a.atttypmod and n.coll = a.attcollation::bigint)
         ) as changes
    from dependents as d
    left join pg_rewrite as w
      on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid and w.ev_type = '1'
    left join pg_class as v
      on v.oid = w.ev_class and v.relkind = 'v' and v.oid <> all ($7)
     -- coco's own views are the bound queries of flows that read the table
     and v.relnamespace not in (select n.oid from pg_namespace as n where n.nspname = 'coco')
)
select case when k.relowner is null then pg_describe_object(k.classid, k.objid, 0)
            when k.relowner <> $2
              then format('%s, which belongs to another role', pg_describe_object('pg_class'::regclass, k.view, 0))
            else format('%s, which uses a column that changes', pg_describe_object('pg_class'::regclass, k.view, 0))
            end as object
  from known as k
 where not (k.relowner is not null and k.relowner = $2 and not k.changes)
   and not exists (select from own as o where o.class = k.classid and o.object = k.objid)
   and not exists (select from pg_attrdef where k.classid = 'pg_attrdef'::regclass and oid = k.objid and adrelid = any ($7))
   -- the constraint of a partition belongs to that of the table, which is listed itself
   and not exists (select from pg_constraint
                    where k.classid = 'pg_constraint'::regclass and oid = k.objid
                      and (conrelid = any ($7) and confrelid <> all ($7) or conparentid <> 0))
   -- internal triggers belong to foreign keys, which are listed themselves
   and not exists (select from pg_trigger
                    where k.classid = 'pg_trigger'::regclass and oid = k.objid and (tgrelid = any ($7) or tgisinternal))
   and not exists (select from pg_policy where k.classid = 'pg_policy'::regclass and oid = k.objid and polrelid = any ($7))
   and not exists (select from pg_statistic_ext
                    where k.classid = 'pg_statistic_ext'::regclass and oid = k.objid and stxrelid = any ($7))
   and not exists (select from pg_publication_rel
                    where k.classid = 'pg_publication_rel'::regclass and oid = k.objid and prrelid = any ($7))
   and not exists (select from pg_class as c
                    where k.classid = 'pg_class'::regclass and c.oid = k.objid
                      and (exists (select from pg_index as i where i.indexrelid = c.oid and i.indrelid = any ($7))
                           or exists (select from pg_class as t where t.oid = any ($7) and t.reltoastrelid = c.oid)
                           or c.relkind = 'S'
                              and exists (select from pg_depend as i
                                           where i.classid = k.classid and i.objid = c.oid and i.deptype = 'i'
                                             and i.refobjid = any ($7))))
 union
select format('the foreign key %I of the table to itself', conname)
  from pg_constraint where conrelid = any ($7) and confrelid = any ($7) and conparentid = 0
 union
select format('%s, as its partition or child', inhparent::regclass) from pg_inherits where inhrelid = $1
 union
select format('extension %I, as its member', e.extname)
  from pg_depend as d join pg_extension as e on e.oid = d.refobjid
 where d.classid = 'pg_class'::regclass and d.objid = any ($7) and d.deptype = 'e'
 union
select format('publication %I, which has another owner, a row filter or a list of columns', p.pubname)
  from pg_publication_rel as r join pg_publication as p on p.oid = r.prpubid
 where r.prrelid = any ($7)
   and (not pg_has_role($2, p.pubowner, 'usage')
        or to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null)
 union
select format('trigger %I, whose function the owner of the flow may not execute', t.tgname)
  from pg_trigger as t
 where t.tgrelid = any ($7) and not t.tgisinternal and not has_function_privilege($2, t.tgfoid, 'execute')
   and not exists (select from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
                    where p.oid = t.tgfoid and p.proname = 'capture' and n.nspname = 'coco_internal')
 order by 1";

/// Fails if coco cannot replace the table of a target by a table for a query with these columns.
pub fn check_replaceable(flow: &Flow, target: &Target, after: &[Column]) -> Result<()> {
    let tree = check_table(flow, target)?;
    check_dependents(flow, target, &tree, &columns_for(target, tree.root, after)?)
}

/// Fails if coco cannot replace the table of a target by another table.
pub fn check_replaceable_by(flow: &Flow, target: &Target, other: pg_sys::Oid) -> Result<()> {
    let tree = check_table(flow, target)?;
    let after: Vec<Column> =
        columns::of_relation(other)?.into_iter().map(|attribute| attribute.column).collect();
    check_dependents(flow, target, &tree, &after)
}

fn check_dependents(
    flow: &Flow,
    target: &Target,
    tree: &CheckedTree,
    after: &[Column],
) -> Result<()> {
    let fixed = fixed_objects(flow, tree, after)?;
    if fixed.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot replace target {} because other objects depend on it", target.relation_name()),
    )
    .detail(format!("coco cannot move these objects to another table: {}.", fixed.join("; ")))
    .hint("Drop these objects, and create them again after the swap. Or call coco.set_query without gapless."))
}

/// The table of a target, and the table with its partitions.
struct CheckedTree {
    root: pg_sys::Oid,
    tables: Vec<pg_sys::Oid>,
}

/// Checks the owner, the columns and the partitions of a target's table.
fn check_table(flow: &Flow, target: &Target) -> Result<CheckedTree> {
    let name = target.relation_name();
    let Some(relation) = target.relation else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("target {name} was dropped"),
        )
        .hint("Call coco.update to create and fill it again."));
    };
    let is_owned = spi::scalar::<bool>(
        "select pg_catalog.pg_has_role($2, c.relowner, 'usage')
           from pg_catalog.pg_class as c where c.oid = $1",
        &[arg(relation), arg(flow.owner)],
    )?
    .ok_or_else(|| Error::internal("the table of a target vanished"))?;
    if !is_owned {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("owner of flow \"{}\" must be owner of target {name}", flow.name),
        )
        .detail("A swap renames the table.")
        .hint("Run ALTER TABLE … OWNER TO, or call coco.set_query without gapless."));
    }
    let others: Vec<String> = columns::of_relation(relation)?
        .into_iter()
        // The columns of a broken query are unknown.
        .filter(|a| target.bound.is_some() && !a.generated)
        .filter(|a| !target.columns.iter().any(|c| c.name == a.column.name))
        .map(|a| a.column.quoted())
        .collect();
    if !others.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("target {name} has columns that the query does not return"),
        )
        .detail(format!("coco cannot fill these columns of the new table: {}.", others.join(", ")))
        .hint("Drop the columns, or call coco.set_query without gapless."));
    }
    let tables = partition_tree::check_partitions(flow, target, relation)?;
    Ok(CheckedTree { root: relation, tables })
}

/// Returns the columns of the table that `version_table` creates for a query with the columns
/// `after`: the query's columns, and the generated columns of the present table. Columns of an
/// adopted table may be wider than the query's.
fn columns_for(target: &Target, relation: pg_sys::Oid, after: &[Column]) -> Result<Vec<Column>> {
    let present = columns::of_relation(relation)?;
    let of_table = |column: &Column| {
        let same = present.iter().find(|a| a.column.name == column.name);
        match same.filter(|a| !target.made && a.column.type_oid == column.type_oid) {
            Some(attribute) => attribute.column.clone(),
            None => column.clone(),
        }
    };
    let is_in = |columns: &[Column], name: &str| columns.iter().any(|c| c.name == name);
    let generated = present
        .iter()
        .filter(|a| a.generated)
        .map(|a| &a.column)
        .filter(|c| !is_in(after, &c.name) && !is_in(&target.columns, &c.name));
    Ok(after.iter().map(of_table).chain(generated.cloned()).collect())
}

fn fixed_objects(flow: &Flow, tree: &CheckedTree, after: &[Column]) -> Result<Vec<String>> {
    let _names = RoleGuard::qualifying_names()?;
    let names: Vec<String> = after.iter().map(|c| c.name.clone()).collect();
    let types: Vec<i64> = after.iter().map(|c| c.type_oid.to_u32().into()).collect();
    let typmods: Vec<i32> = after.iter().map(|c| c.typmod).collect();
    let collations: Vec<i64> = after.iter().map(|c| c.collation.to_u32().into()).collect();
    spi::select(
        FIXED,
        &[
            arg(tree.root),
            arg(flow.owner),
            arg(names),
            arg(types),
            arg(typmods),
            arg(collations),
            arg(tree.tables.clone()),
        ],
        |r| spi::required(r, 1),
    )
}
