//! Failed items without a tracking row, because their key is too long for an index or contains
//! NULL. coco identifies them by a digest of the key.
//!
//! coco never writes target rows for such an item. coco looks at the item again when its row
//! changes, and at each scan.

use pgrx::datum::TimestampWithTimeZone;

use crate::catalog::internal_tables;
use crate::catalog::item_failure::{self, ItemFailure};
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::json::{Json, object_sql};
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::Batch;

/// Bytes. An index may not be able to hold a longer key: the limit is a third of a page, minus the
/// overhead of a row.
pub const LONG: usize = 2000;

/// How many characters of a long key coco shows.
const SHOWN: usize = 200;

/// Returns an SQL expression for the key of a row of `coco_batch` as JSON. Texts longer than `most`
/// are cut.
fn key(source: &Source, most: Option<usize>) -> String {
    object_sql(source.key.iter().enumerate().map(|(n, column)| {
        let value = internal_tables::for_json(column, &format!("b.k{}", n + 1));
        let value = match most {
            None => value,
            Some(most) => format!(
                "case when pg_catalog.length(({value})::text) > {most}
                      then pg_catalog.to_jsonb(pg_catalog.left(({value})::text, {most}) || '...')
                      else pg_catalog.to_jsonb({value}) end"
            ),
        };
        (column.name.as_str(), value)
    }))
}

/// Returns an SQL expression for the digest of the complete key.
fn digest(source: &Source) -> String {
    format!("pg_catalog.md5(({})::text)::uuid", key(source, None))
}

/// Records that the only item of a batch failed.
pub fn record(source: &Source, batch: &Batch, failure: &ItemFailure) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.execute(
        &format!(
            "insert into coco_internal.untracked as u (source, item, source_key, failure)
             select $1, {}, {}, $2::jsonb from coco_batch as b
             on conflict (source, item) do update
                set failure = excluded.failure, failed_at = excluded.failed_at, attempts = u.attempts + 1",
            digest(source),
            key(source, Some(SHOWN)),
        ),
        &[arg(source.id), arg(failure.to_text())],
    )?;
    Ok(())
}

/// Deletes the records of a batch's items, which no longer exist.
pub fn forget(source: &Source, gone: &Batch) -> Result<()> {
    if !has_any(source)? {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", gone.rows())?;
    statements.execute(
        &format!(
            "delete from coco_internal.untracked as u using coco_batch as b
              where u.source = $1 and u.item = {}",
            digest(source)
        ),
        &[arg(source.id)],
    )?;
    Ok(())
}

/// Deletes the records of a source's items that have not failed since a time, in microseconds since
/// 1970. Call this after a complete scan.
pub fn forget_before(source: &Source, since: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "delete from coco_internal.untracked
          where source = $1 and failed_at < pg_catalog.to_timestamp($2 / 1000000.0)",
        &[arg(source.id), arg(since)],
    )?;
    Ok(())
}

/// Reports whether a source has failed items without a tracking row.
pub fn has_any(source: &Source) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let any = "select true from coco_internal.untracked where source = $1 limit 1";
    Ok(spi::scalar::<bool>(any, &[arg(source.id)])?.is_some())
}

/// A failed item without a tracking row.
pub struct Untracked {
    pub source_key: Json,
    pub failure: ItemFailure,
    pub attempts: i32,
    pub failed_at: TimestampWithTimeZone,
}

impl Untracked {
    /// Reports whether a column of the key is NULL. The comparison of a target with its query
    /// leaves out rows without a key.
    pub fn has_no_key(&self) -> bool {
        self.failure.sqlstate == item_failure::NULL_KEY
    }
}

/// Returns the untracked items of a source. The caller acts as the extension's owner.
pub fn of(source: &Source) -> Result<Vec<Untracked>> {
    spi::select(
        "select source_key, failure::text, attempts, failed_at
           from coco_internal.untracked where source = $1 order by source_key",
        &[arg(source.id)],
        |r| {
            Ok(Untracked {
                source_key: spi::required(r, 1)?,
                failure: ItemFailure::from_text(&spi::required::<String>(r, 2)?),
                attempts: spi::required(r, 3)?,
                failed_at: spi::required(r, 4)?,
            })
        },
    )
}
