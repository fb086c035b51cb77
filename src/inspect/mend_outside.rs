//! Queues the changes that mend an external target: the rows that it lacks or has changed, and
//! deletes of the rows that no item has.

use crate::catalog::model::{External, Flow, Target};
use crate::inspect::lineage::typed_alias;
use crate::memo;
use crate::outbox::ledger;
use crate::outbox::tables::FINGERPRINT;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock;
use crate::pg::columns::{Column, all_equal, numbered, stored};
use crate::pg::error::Result;
use crate::pg::spi::arg;
use crate::pg::tuplestore::rows::{self, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::KeyExprs;
use crate::update::orphans::{expected_rows_sql, failing_sources};

/// Target keys, each as the text of a JSON object.
#[derive(Default)]
pub struct KeysToMend {
    /// Keys of rows that are missing or different.
    pub rows: Vec<String>,
    /// Keys that no item has.
    pub extra: Vec<String>,
}

/// Queues the changes, and returns their number. The caller holds the flow's lock.
///
/// coco evaluates the query again, and queues a row only if the ledger has its fingerprint: the
/// update that changes the ledger queues the row itself. It queues a delete only if the ledger does
/// not have the key.
pub fn queue_mending(
    flow: &Flow,
    target: &Target,
    external: &External,
    keys: &KeysToMend,
) -> Result<i64> {
    let version = clock::now_micros();
    // The deletes come first: a server may regard an extra key and a missing one as equal.
    let extra = extra_keys(flow, target, &keys.extra)?;
    let deleted = ledger::queue_deletes(target, external, &extra, version)?;
    let missing = lacking_rows(flow, target, &keys.rows)?;
    Ok(deleted + ledger::queue_upserts(target, external, &missing, version)?)
}

/// Returns the extra keys as stored values `t1…`.
fn extra_keys(flow: &Flow, target: &Target, keys: &[String]) -> Result<TupleStore> {
    let key = stored(&target.key);
    let mut extra = TupleStore::new(&rows::typed("t", &key))?;
    if !keys.is_empty() {
        let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        let names: Vec<String> = key.iter().map(|k| format!("w.{}", k.quoted())).collect();
        let sql = format!("select {} from {}", names.join(", "), wanted_sql(&key)?);
        SpiSession::connect()?.query_into(&sql, &[arg(json_array(keys))], &mut extra)?;
    }
    Ok(extra)
}

/// Returns the rows of these keys as stored values `c1…`.
fn lacking_rows(flow: &Flow, target: &Target, keys: &[String]) -> Result<TupleStore> {
    let mut lacking = TupleStore::new(&rows::typed("c", &stored(&target.columns)))?;
    if keys.is_empty() {
        return Ok(lacking);
    }
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let recalling = memo::session_of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    let failing = failing_sources(flow)?;
    let key = stored(&target.key);
    let at = KeyExprs::new(&flow.sources[0], target);
    let wanted: Vec<String> = key.iter().map(|k| format!("w.{}", k.quoted())).collect();
    let values = target.columns.iter().zip(numbered("n.c", target.columns.len()));
    let values: Vec<String> = values.map(|(c, n)| c.as_stored(&n)).collect();
    let sql = format!(
        "select {values}
           from (select n.*, {fingerprint} as fingerprint from ({query}) as n offset 0) as n
           join {ledger} as x
             on {same} and x.{FINGERPRINT} operator(pg_catalog.=) n.fingerprint
          where exists (select from {from} where {is_wanted})",
        values = values.join(", "),
        fingerprint = ledger::fingerprint(target, "n.c"),
        query = expected_rows_sql(flow, target, &failing)?,
        ledger = target.relation_name(),
        same = all_equal(&target.key, &at.target_key, &at.new_key),
        from = wanted_sql(&key)?,
        is_wanted = all_equal(&key, &at.target_key, &wanted),
    );
    let statements = SpiSession::connect()?;
    statements.reads_many();
    statements.query_into(&sql, &[arg(json_array(keys))], &mut lacking)?;
    Ok(lacking)
}

/// Returns the relation `w` of the keys in the JSON array `$1`.
fn wanted_sql(key: &[Column]) -> Result<String> {
    let key: Vec<&Column> = key.iter().collect();
    let alias = typed_alias("w", &key)?;
    Ok(format!("pg_catalog.jsonb_to_recordset($1::pg_catalog.jsonb) as {alias}"))
}

fn json_array(keys: &[String]) -> String {
    format!("[{}]", keys.join(","))
}
