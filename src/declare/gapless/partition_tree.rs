//! The partitions of a target's table, at all levels: which of them can be replaced, and which
//! tables of a flow and of its version are partners.
//!
//! Partners have the same place in the tree: the same bounds, below partners. Names do not matter,
//! because users may rename partitions.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::model::{Flow, Target};
use crate::catalog::version_rows::VersionRole;
use crate::declare::gapless::table_pair::TablePair;
use crate::declare::names;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// The table of a target, or one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeTable {
    pub relation: pg_sys::Oid,
    pub schema: String,
    pub name: String,
    /// How the table itself is partitioned, as in PARTITION BY.
    pub partitioned_by: Option<String>,
    /// The bounds of the partition, after those of the partitions that contain it. Empty for the
    /// target's own table.
    pub bounds: Vec<String>,
}

impl TreeTable {
    /// Returns the name, quoted and schema-qualified.
    pub fn qualified(&self) -> String {
        spi::qualified(&self.schema, &self.name)
    }
}

/// A table of the main flow, and the table of the version that takes over its name.
pub struct Partners {
    pub main: TreeTable,
    pub version: TreeTable,
    /// The name that the main flow's table gets, without its schema.
    pub retired: String,
}

impl Partners {
    /// Returns the name of the version's table in the middle of a swap, without its schema.
    pub fn temporary(&self) -> String {
        format!("coco_swap_{}", self.version.relation.to_u32())
    }
}

/// The tables below table `$1`. A partition that is being detached does not count.
const BELOW: &str = "
with recursive tree(relation) as (
  select $1::pg_catalog.oid
   union all
  select c.oid
    from tree as t
    join pg_catalog.pg_inherits as i
      on i.inhparent operator(pg_catalog.=) t.relation and not i.inhdetachpending
    join pg_catalog.pg_class as c
      on c.oid operator(pg_catalog.=) i.inhrelid and c.relispartition
)";

/// Returns a table and its partitions, each after the one that contains it. The caller acts as the
/// flow's owner, with only pg_catalog on the search path.
pub fn read_tree(root: pg_sys::Oid) -> Result<Vec<TreeTable>> {
    spi::select(
        "with recursive tree(relation, bounds) as (
           select $1::oid, '{}'::text[] collate \"C\"
            union all
           select c.oid, array_append(t.bounds, coalesce(pg_get_expr(c.relpartbound, c.oid), ''))
             from tree as t
             join pg_inherits as i on i.inhparent = t.relation and not i.inhdetachpending
             join pg_class as c on c.oid = i.inhrelid and c.relispartition
         )
         select t.relation, n.nspname::text, c.relname::text, pg_get_partkeydef(t.relation), t.bounds
           from tree as t
           join pg_class as c on c.oid = t.relation
           join pg_namespace as n on n.oid = c.relnamespace
          order by cardinality(t.bounds), t.relation",
        &[arg(root)],
        |r| {
            Ok(TreeTable {
                relation: spi::required(r, 1)?,
                schema: spi::required(r, 2)?,
                name: spi::required(r, 3)?,
                partitioned_by: r.get(4)?,
                bounds: spi::required(r, 5)?,
            })
        },
    )
}

/// Fails if a partition of a target cannot be replaced by another one. Returns the table and its
/// partitions.
pub fn check_partitions(
    flow: &Flow,
    target: &Target,
    root: pg_sys::Oid,
) -> Result<Vec<pg_sys::Oid>> {
    let name = target.relation_name();
    let query = format!(
        "{BELOW}
         select t.relation, pg_catalog.format('%I.%I', n.nspname, c.relname),
                c.relkind operator(pg_catalog.=) 'f',
                pg_catalog.pg_has_role($2, c.relowner, 'usage')
           from tree as t
           join pg_catalog.pg_class as c on c.oid operator(pg_catalog.=) t.relation
           join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) c.relnamespace
          order by t.relation operator(pg_catalog.<>) $1, 2"
    );
    let tree = spi::select(&query, &[arg(root), arg(flow.owner)], |r| {
        Ok((
            spi::required::<pg_sys::Oid>(r, 1)?,
            spi::required::<String>(r, 2)?,
            spi::required::<bool>(r, 3)?,
            spi::required::<bool>(r, 4)?,
        ))
    })?;
    for (_, partition, is_foreign, is_owned) in &tree {
        if *is_foreign {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("target {name} has a partition that cannot be replaced"),
            )
            .detail(format!("Partition {partition} is a foreign table."))
            .hint("Detach the partition, or call coco.set_query without gapless."));
        }
        if !*is_owned {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("owner of flow \"{}\" must be owner of partition {partition}", flow.name),
            )
            .detail(format!("A swap renames the partitions of target {name}."))
            .hint("Run ALTER TABLE … OWNER TO, or call coco.set_query without gapless."));
        }
    }
    Ok(tree.into_iter().map(|(relation, ..)| relation).collect())
}

/// Fails if the key of a version's target lacks a column by which the present table, or one of its
/// partitions, is partitioned.
pub fn check_partition_key(old: &Target, new: &Target, root: pg_sys::Oid) -> Result<()> {
    let query = format!(
        "{BELOW}
         select a.attname::text, a.atttypid
           from tree as t
           join pg_catalog.pg_partitioned_table as p
             on p.partrelid operator(pg_catalog.=) t.relation
           join pg_catalog.pg_attribute as a
             on a.attrelid operator(pg_catalog.=) t.relation
            and a.attnum operator(pg_catalog.=) any (p.partattrs::pg_catalog.int2[])
          order by 1"
    );
    let columns = spi::select(&query, &[arg(root)], |r| {
        Ok((spi::required::<String>(r, 1)?, spi::required::<pg_sys::Oid>(r, 2)?))
    })?;
    let is_kept = |name: &String, type_oid: pg_sys::Oid| {
        new.key.iter().any(|k| k.name == *name && k.type_oid == type_oid)
    };
    let lost = columns.iter().find(|(name, type_oid)| !is_kept(name, *type_oid));
    let Some((column, _)) = lost else { return Ok(()) };
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("the new key of target {} lacks a column of its partition key", old.relation_name()),
    )
    .detail(format!(
        "The table is partitioned by column \"{column}\", which must be a column of the key and keep its type."
    ))
    .hint("Keep the column in the key, or declare another flow with another target."))
}

/// Returns the tables of two targets in pairs, the targets' own tables first. Fails if a partition of
/// one of them has no partner. The caller acts as [`read_tree`] says.
pub fn partners(pair: &TablePair) -> Result<Vec<Partners>> {
    let main = read_tree(pair.main_table)?;
    let mut version = read_tree(pair.version_table)?;
    let mut found = Vec::with_capacity(main.len());
    let mut differences = Vec::new();
    for table in main {
        let partner = version.iter().position(|v| v.bounds == table.bounds);
        let Some(partner) = partner.map(|at| version.swap_remove(at)) else {
            differences.push(format!("The target also has partition {}.", table.qualified()));
            continue;
        };
        if partner.partitioned_by != table.partitioned_by {
            differences.push(format!(
                "Table {} is partitioned in another way than {}.",
                partner.qualified(),
                table.qualified()
            ));
        }
        if partner.schema != table.schema {
            differences.push(format!(
                "Table {} is not in the schema of {}.",
                partner.qualified(),
                table.qualified()
            ));
        }
        let retired = match table.bounds.is_empty() {
            true => pair.retired.clone(),
            false => names::version_partition_name(&table.name, table.relation, VersionRole::Old),
        };
        found.push(Partners { main: table, version: partner, retired });
    }
    let left = version.iter().map(|v| format!("The table also has partition {}.", v.qualified()));
    differences.extend(left);
    match differences.is_empty() {
        true => Ok(found),
        false => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {} is not partitioned like its target", pair.version.relation_name()),
        )
        .detail(differences.join(" "))
        .hint("Attach or detach partitions until both tables have the same ones, or give the version up with coco.discard.")),
    }
}
