//! The server's plans for a flow's statements over a batch: whether they are set-based, and which
//! indexes are missing.

use std::collections::BTreeSet;

use crate::catalog::model::{Flow, KeyExpressions, Source, Target};
use crate::inspect::explain::finding::{Finding, between, finding};
use crate::memo;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg, ident, qualified};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::Batch;
use crate::query::compose::{self, Items};
use crate::query::declared_text;
use crate::update::limits::Limits;
use crate::update::lookups;
use coco_core::plan_reader;
use coco_core::plan_reader::{FullRead, Rescan};

/// Up to this size in bytes, reading a table again for each item costs little.
const SMALL: i64 = 8 * 8192;

/// From this size in bytes, a plan for one item should not read the whole table.
const LARGE: i64 = 1024 * 1024;

/// Returns the plans of all statements of a flow, and the missing indexes.
pub fn plans(flow: &Flow, limits: Limits) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    let mut indexes = Indexes::default();
    for source in &flow.sources {
        for target in &flow.targets {
            let name = between(&source.name, &target.shown());
            let sql = compose::evaluate(flow, source, target, Items::Batch)?;
            all.extend(both(flow, source, &name, &sql, limits, &mut indexes)?);
        }
    }
    for affected in &flow.lookups {
        let Some(source) = flow.sources.iter().find(|s| s.id == affected.of) else { continue };
        let Some(sql) = lookups::keys_affected_by(affected, source) else { continue };
        let name = between(&affected.relation.name, &source.name);
        all.extend(both(flow, &affected.relation, &name, &sql, limits, &mut indexes)?);
    }
    for target in &flow.targets {
        indexes.for_deletes(target)?;
    }
    all.extend(indexes.findings(flow));
    Ok(all)
}

/// Plans a statement over `coco_batch` for one item and for a full batch.
fn both(
    flow: &Flow,
    batched: &Source,
    name: &str,
    sql: &str,
    limits: Limits,
    indexes: &mut Indexes,
) -> Result<Vec<Finding>> {
    let (text, reads) = planned(flow, batched, sql, 1)?;
    indexes.look_at(batched, &reads)?;
    let mut all = vec![finding("plan for one item", name, text).verbatim()];
    let (text, reads) = planned(flow, batched, sql, limits.batch)?;
    let size = match flow.batch_size {
        Some(own) => format!("For {own} items, the flow's batch_size."),
        None => format!("For {} items, the setting coco.batch_size.", limits.batch),
    };
    all.push(finding("plan for a batch", name, text).verbatim().hint(size));
    all.push(set_based(name, &reads)?);
    Ok(all)
}

/// Plans a statement over a batch of `count` items. Returns the plan as text, and the tables that
/// it reads as a whole.
fn planned(
    flow: &Flow,
    batched: &Source,
    sql: &str,
    count: usize,
) -> Result<(String, Vec<FullRead>)> {
    let recalling = memo::session_of_look(flow)?;
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let batch = Batch::new(batched, false)?;
    let statements = SpiSession::connect()?;
    statements.name_as_of("coco_batch", batch.rows(), count)?;
    // EXPLAIN runs once, so its plan is not cached.
    statements.reads_many();
    let text = statements.texts(&format!("explain {sql}"))?.join("\n");
    Ok((text, full_reads(&statements, sql)?))
}

/// Plans a statement, and returns the tables that it reads as a whole.
pub fn full_reads(statements: &SpiSession, sql: &str) -> Result<Vec<FullRead>> {
    let json = statements.texts(&format!("explain (verbose, format json) {sql}"))?.concat();
    let json: serde_json::Value = serde_json::from_str(&json)
        .map_err(|e| Error::internal(format!("EXPLAIN returned invalid JSON: {e}")))?;
    Ok(plan_reader::find_full_reads(&json))
}

/// Reports whether one of these tables is so large that a statement for one item should not read
/// the whole table.
pub fn reads_large_table(reads: &[FullRead]) -> Result<bool> {
    let _names = RoleGuard::qualifying_names()?;
    for read in reads {
        if Table::of(read)?.bytes > SMALL {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reports whether a plan is set-based: it reads only small tables again for each item.
fn set_based(name: &str, reads: &[FullRead]) -> Result<Finding> {
    let mut again = Vec::new();
    let mut small = BTreeSet::new();
    for read in reads {
        let Some(why) = &read.rescan else { continue };
        let table = Table::of(read)?;
        let why = match why {
            Rescan::SubPlan(subplan) => subplan.clone(),
            Rescan::NestedLoop => "inner side of a nested loop".to_owned(),
        };
        match table.bytes > SMALL {
            true => again.push(format!("{} ({why})", table.shown)),
            false => drop(small.insert(table.shown)),
        }
    }
    if !again.is_empty() {
        let detail = format!("no: read as a whole for each item: {}", again.join(", "));
        return Ok(finding("set-based", name, detail).hint(
            "Create an index for the condition, or replace the subquery by a join or an aggregate, which reads the table once.",
        ));
    }
    let mut detail = "yes: no table is read again for each item, except by an index".to_owned();
    if !small.is_empty() {
        let small: Vec<String> = small.into_iter().collect();
        detail.push_str(&format!(" or because it is small: {}", small.join(", ")));
    }
    Ok(finding("set-based", name, detail).hint("Plans do not show what happens inside functions."))
}

/// A table in a plan.
struct Table {
    oid: pgrx::pg_sys::Oid,
    shown: String,
    bytes: i64,
}

impl Table {
    fn of(read: &FullRead) -> Result<Table> {
        let shown = qualified(&read.schema, &read.name);
        let found = spi::select(
            "select c.oid, coalesce(pg_catalog.pg_relation_size(c.oid), 0)
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where n.nspname = $1 and c.relname = $2",
            &[arg(read.schema.as_str()), arg(read.name.as_str())],
            |r| Ok((spi::required(r, 1)?, spi::required::<i64>(r, 2)?)),
        )?;
        // A table that was dropped in the meantime counts as empty.
        let (oid, bytes) = found.into_iter().next().unwrap_or((pgrx::pg_sys::InvalidOid, 0));
        Ok(Table { oid, shown, bytes })
    }
}

/// Returns the columns and expressions of a source key, as an index on them names them.
fn key_in_index(source: &Source, key: &KeyExpressions) -> Result<Vec<String>> {
    let place = |(n, k): (usize, &Column)| {
        if !source.is_expression(n) {
            return Ok(k.quoted());
        }
        let (of, relation) = (&source.name, source.relation);
        let text = declared_text::column_text(&key.bound, &k.name, of, relation, false)?;
        Ok(format!("({})", text.unwrap_or_default()))
    };
    source.key.iter().enumerate().map(place).collect()
}

/// Reports whether an index that is always usable begins with these columns, in any order.
fn indexed(relation: pgrx::pg_sys::Oid, columns: &[String]) -> Result<bool> {
    let found = spi::scalar::<bool>(
        "select exists (
           select from pg_catalog.pg_index i
            where i.indrelid = $1 and i.indisvalid and i.indpred is null
              and i.indnkeyatts >= pg_catalog.cardinality($2)
              and (select pg_catalog.array_agg(a.attname::text order by a.attname::text collate \"C\")
                     from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k(attnum, n)
                     join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                    where k.n <= pg_catalog.cardinality($2))
                = (select pg_catalog.array_agg(c.name order by c.name collate \"C\")
                     from pg_catalog.unnest($2) as c(name)))",
        &[arg(relation), arg(columns.to_vec())],
    )?;
    Ok(found == Some(true))
}

/// The missing indexes, without duplicates.
#[derive(Default)]
struct Indexes(Vec<Finding>);

impl Indexes {
    fn want(&mut self, table: &str, columns: &[String], why: String) {
        let columns: Vec<String> = columns.iter().map(|c| ident(c)).collect();
        self.want_over(table, &columns, why);
    }

    /// Adds an index over columns and expressions.
    fn want_over(&mut self, table: &str, columns: &[String], why: String) {
        let create = format!("CREATE INDEX ON {table} ({});", columns.join(", "));
        if !self.0.iter().any(|f| f.hint.as_deref() == Some(&create)) {
            self.0.push(finding("index", table, why).hint(create));
        }
    }

    /// Adds indexes for large tables that the plan for one item reads as a whole.
    fn look_at(&mut self, source: &Source, reads: &[FullRead]) -> Result<()> {
        for read in reads {
            let table = Table::of(read)?;
            if table.bytes < LARGE {
                continue;
            }
            let size =
                format!("for one item, the whole table is read ({} MB)", table.bytes / LARGE);
            let columns = read.compared_columns.as_slice();
            let of_source = table.oid == source.relation;
            if let (true, Some(key)) = (of_source, &source.key_expressions) {
                self.want_over(&table.shown, &key_in_index(source, key)?, size);
            } else if columns.is_empty() {
                let found = finding(
                    "index",
                    &table.shown,
                    format!("{size}, without a condition that an index could serve"),
                );
                self.0.push(found);
            } else if indexed(table.oid, &columns[..1])? {
                let why = format!("{size}, although it has an index on {}", ident(&columns[0]));
                let found = finding("index", &table.shown, why);
                let hint = "Run ANALYZE on it. If that does not help, compare the types on both sides of the condition.";
                self.0.push(found.hint(hint));
            } else {
                self.want(&table.shown, columns, size);
            }
        }
        Ok(())
    }

    /// Adds the index with which an update finds the target rows of an item.
    fn for_deletes(&mut self, target: &Target) -> Result<()> {
        let (Some(covered), Some(relation)) = (&target.covered, target.relation) else {
            return Ok(());
        };
        if !indexed(relation, covered)? {
            let why =
                "coco finds the rows of an item by its key, and no index begins with these columns";
            self.want(&target.relation_name(), covered, why.to_owned());
        }
        Ok(())
    }

    fn findings(self, flow: &Flow) -> Vec<Finding> {
        match self.0.is_empty() {
            true => vec![finding("index", &flow.name, "none is missing")],
            false => self.0,
        }
    }
}
