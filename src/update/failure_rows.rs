//! Records the failure of an item in its tracking row.

use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::numbered;
use crate::pg::error::Result;
use crate::pg::spi::arg;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::Batch;
use coco_core::version::LogicId;

/// Records that the only item of `batch` failed, and when coco retries it. The item's target rows
/// stay.
pub fn record_failures(
    source: &Source,
    batch: &Batch,
    failure: &ItemFailure,
    logic: LogicId,
    attempts: i32,
    delay: std::time::Duration,
) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    let columns = numbered("k", source.key.len()).join(", ");
    let keys = numbered("b.k", source.key.len()).join(", ");
    let (target, claims) = failure.claims.clone().unzip();
    statements.execute(
        &format!(
            "insert into {} as t ({columns}, failure)
             select {keys}, pg_catalog.jsonb_build_object(
                      'sqlstate', $1::text, 'message', $2::text, 'detail', $3::text, 'hint', $4::text,
                      'attempts', $5::int, 'since', clock.now, 'failed_at', clock.now,
                      'next_retry', clock.now
                         operator(pg_catalog.+) pg_catalog.make_interval(secs => $6::float8),
                      'content_fingerprint', b.fingerprint, 'logic_id', $7::int,
                      'target', $8::int, 'claims', $9::text)
               from coco_batch as b
              cross join (select pg_catalog.clock_timestamp() as now) as clock
             on conflict ({columns}) do update
                set failure = excluded.failure operator(pg_catalog.||)
                    pg_catalog.jsonb_build_object('since', coalesce(t.failure operator(pg_catalog.->) 'since',
                                                                    excluded.failure operator(pg_catalog.->) 'since'))",
            source.tracking
        ),
        &[
            arg(failure.sqlstate.as_str()),
            arg(failure.message.as_str()),
            arg(failure.detail.clone()),
            arg(failure.hint.clone()),
            arg(attempts),
            arg(delay.as_secs_f64()),
            arg(logic.0),
            arg(target),
            arg(claims),
        ],
    )?;
    Ok(())
}
