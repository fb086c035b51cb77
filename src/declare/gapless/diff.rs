//! `coco.diff`: the rows that differ between the targets of a flow and those of its other version.

use pgrx::PgSqlErrorCode;

use crate::catalog::model::{Flow, Target};
use crate::catalog::version_rows::{self, VersionRole};
use crate::declare::gapless::table_pair::TablePair;
use crate::flows::load;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column, all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::notice::notice;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg, literal};

/// A row that differs between two versions of a target.
pub struct VersionDifference {
    /// `missing` from the newer version, `extra` in it, or `different`.
    pub difference: String,
    pub key: Json,
    pub old: Option<Json>,
    pub new: Option<Json>,
}

/// Compares a flow with its new version, or with its old one if it has no new one. Returns at most
/// `max_rows` rows for each target, and reports the numbers of rows in a NOTICE for each target.
pub fn differences(name: &str, max_rows: i64) -> Result<Vec<VersionDifference>> {
    let flow = load::load_to_read(name)?;
    let versions = version_rows::versions_of(flow.id)?;
    let Some(version) = versions.first() else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" has no other version"),
        )
        .hint("Declare one with coco.set_query(…, gapless => true)."));
    };
    let other = load::load_to_read(&version.name)?;
    let pairs = TablePair::of_flows(&flow, &other)?;
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let _now = PinnedSnapshot::take();
    let mut found = Vec::new();
    for pair in &pairs {
        let (old, new) = match version.role {
            VersionRole::New => (&pair.main, &pair.version),
            VersionRole::Old => (&pair.version, &pair.main),
        };
        found.extend(compare(&flow, pair, old, new, max_rows)?);
    }
    Ok(found)
}

fn compare(
    flow: &Flow,
    pair: &TablePair,
    old: &Target,
    new: &Target,
    max_rows: i64,
) -> Result<Vec<VersionDifference>> {
    let in_old = |column: &&Column| old.columns.iter().any(|c| c.name == column.name);
    let comparable =
        |k: &Column| old.columns.iter().any(|c| c.name == k.name && c.type_oid == k.type_oid);
    if !new.key.iter().all(comparable) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("the versions of target {} of flow \"{}\" cannot be compared", pair.name(), flow.name),
        )
        .detail("A key column of the new version is missing from the old one, or has another type there.")
        .hint("Compare the tables with a query of your own."));
    }
    let shared: Vec<&Column> = new.columns.iter().filter(in_old).collect();
    let joined = joined(old, new, &shared);
    let counts = spi::select(
        &format!(
            "select pg_catalog.count(*) filter (where n.coco_here is null),
                    pg_catalog.count(*) filter (where o.coco_here is null),
                    pg_catalog.count(*) filter (where o.coco_here and n.coco_here) {joined}"
        ),
        &[],
        |r| Ok([spi::required::<i64>(r, 1)?, spi::required(r, 2)?, spi::required(r, 3)?]),
    )?;
    for [missing, extra, different] in counts {
        notice(format!(
            "target {}: {missing} missing, {extra} extra, {different} different rows",
            pair.name()
        ));
    }
    tell_unshared(pair, old, new);
    let key: Vec<String> = new
        .key
        .iter()
        .zip(numbered("k", new.key.len()))
        .map(|(k, n)| format!("{}, coalesce(n.{n}, o.{n})", literal(&k.name)))
        .collect();
    spi::select(
        &format!(
            "select case when n.coco_here is null then 'missing' when o.coco_here is null then 'extra'
                         else 'different' end,
                    pg_catalog.jsonb_build_object({}),
                    case when o.coco_here then pg_catalog.to_jsonb(o.coco_row) end,
                    case when n.coco_here then pg_catalog.to_jsonb(n.coco_row) end
                    {joined} limit $1",
            key.join(", ")
        ),
        &[arg(max_rows)],
        |r| {
            Ok(VersionDifference {
                difference: spi::required(r, 1)?,
                key: spi::required(r, 2)?,
                old: r.get(3)?,
                new: r.get(4)?,
            })
        },
    )
}

/// Returns FROM and WHERE of the rows that differ: `o` and `n`, each with its key as `k1…`, its
/// shared columns as `c1…`, the whole row, and whether it exists.
fn joined(old: &Target, new: &Target, shared: &[&Column]) -> String {
    // Chosen so that no column of the targets has this name: it stands for the whole row.
    let mut row = "coco_row".to_owned();
    while old.columns.iter().chain(&new.columns).any(|c| c.name == row) {
        row.push('_');
    }
    let side = |target: &Target, alias: &str| {
        let columns: Vec<String> = new
            .key
            .iter()
            .zip(numbered("k", new.key.len()))
            .chain(shared.iter().copied().zip(numbered("c", shared.len())))
            .map(|(column, n)| format!("{row}.{} as {n}", column.quoted()))
            .collect();
        format!(
            "(select {}, {row} as coco_row, true as coco_here from {} as {row}) as {alias}",
            columns.join(", "),
            target.relation_name()
        )
    };
    let same_type = |column: &Column| {
        old.columns.iter().any(|c| c.name == column.name && c.type_oid == column.type_oid)
    };
    let mut differs = Vec::new();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (column, n) in shared.iter().zip(numbered("c", shared.len())) {
        if same_type(column) {
            before.push(format!("o.{n}"));
            after.push(format!("n.{n}"));
        } else {
            differs.push(format!(
                "pg_catalog.to_jsonb(o.{n})::pg_catalog.text is distinct from pg_catalog.to_jsonb(n.{n})::pg_catalog.text"
            ));
        }
    }
    if !before.is_empty() {
        differs.push(format!(
            "row({})::record operator(pg_catalog.*<>) row({})::record",
            before.join(", "),
            after.join(", ")
        ));
    }
    if differs.is_empty() {
        differs.push("false".to_owned());
    }
    let keys = |alias: &str| -> Vec<String> {
        numbered("k", new.key.len()).iter().map(|k| format!("{alias}.{k}")).collect()
    };
    format!(
        "from {} full join {} on {} where o.coco_here is null or n.coco_here is null or {}",
        side(old, "o"),
        side(new, "n"),
        all_equal(&new.key, &keys("o"), &keys("n")),
        differs.join(" or ")
    )
}

/// Reports columns that only one of the versions has, because they are not compared.
fn tell_unshared(pair: &TablePair, old: &Target, new: &Target) {
    let only = |of: &Target, other: &Target| -> Vec<String> {
        let is_missing = |c: &&columns::Column| !other.columns.iter().any(|o| o.name == c.name);
        of.columns.iter().filter(is_missing).map(Column::quoted).collect()
    };
    for (columns, which) in [(only(old, new), "old"), (only(new, old), "new")] {
        if !columns.is_empty() {
            notice(format!(
                "target {}: only the {which} version has these columns, which are not compared: {}",
                pair.name(),
                columns.join(", ")
            ));
        }
    }
}
