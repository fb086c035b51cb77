//! Failed items that an update by keys must retry: no change in the source brings them.

use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::spi::arg;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose;
use crate::update::candidate_rows::key_columns;
use coco_core::decision::Mode;

/// Adds the failed items whose retry time has come: the change log does not have them. With
/// [`Mode::Retry`], also adds the items with parked rows. Returns how many other failed items wait.
pub fn add_due_failures(
    statements: &SpiSession,
    source: &Source,
    mode: Mode,
    keys: &mut TupleStore,
) -> Result<i64> {
    let acting = RoleGuard::qualifying_names()?;
    // Use the index on failed items even before the table is analyzed for the first time.
    acting.set("enable_seqscan", "off")?;
    let stands_out = match mode {
        // The caller has made items with parked rows count as never committed.
        Mode::Retry => "(t.failure is not null or t.parked is not null)",
        _ => "t.failure is not null",
    };
    let failed = format!("from {} as t where {stands_out}", source.tracking_view);
    if statements.read_text(&format!("select true {failed} limit 1"), &[])?.is_none() {
        return Ok(0);
    }
    // Both statements use one time, so that each item is either retried or waits.
    let now = statements
        .read_text("select pg_catalog.clock_timestamp()::pg_catalog.text", &[])?
        .unwrap_or_default();
    let due = match mode {
        Mode::Retry => "true".to_owned(),
        _ => clock::is_due_sql("t.failure", "$1::pg_catalog.text::pg_catalog.timestamptz"),
    };
    let waiting;
    let mut more = TupleStore::new(&key_columns(source))?;
    {
        let inner = SpiSession::connect()?;
        inner.name("coco_changed", keys)?;
        let tracked = compose::tracking_keys(source, "t");
        let known = numbered("c.k", source.key.len());
        let failed = format!(
            "{failed} and not exists (select from coco_changed as c where {})",
            all_equal(&source.key, &known, &tracked),
        );
        inner.select_into(
            &format!("select {}, false {failed} and {due}", tracked.join(", ")),
            &[arg(now.as_str())],
            &mut more,
        )?;
        let others = format!("select pg_catalog.count(*) {failed} and not coalesce({due}, false)");
        let count = inner.read_text(&others, &[arg(now.as_str())])?;
        waiting = count.and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    keys.append(&mut more)?;
    Ok(waiting)
}
