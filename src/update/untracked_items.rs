//! Failed items that cannot be tracked: no index holds their keys, or these are NULL. They are known by a digest of the
//! key.
//!
//! Such an item is never evaluated into a target. It is looked at again when its row changes, and by each scan.

use pgrx::datum::TimestampWithTimeZone;

use crate::catalog::internal_tables;
use crate::catalog::item_failure::{self, ItemFailure};
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::spi::{self, arg, literal};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::Batch;

/// Bytes of a key of which an index may not hold more: a third of a page, less what a row needs besides.
pub const LONG: usize = 2000;

/// The characters of a long key that are shown.
const SHOWN: usize = 200;

/// An expression for the key of a row of `coco_batch` as JSON. A long text is shown in part.
fn key(source: &Source, most: Option<usize>) -> String {
    let pairs: Vec<String> = source
        .key
        .iter()
        .enumerate()
        .map(|(n, column)| {
            let value = internal_tables::for_json(column, &format!("b.k{}", n + 1));
            let value = match most {
                None => value,
                Some(most) => format!(
                    "case when pg_catalog.length(({value})::text) > {most}
                          then pg_catalog.to_jsonb(pg_catalog.left(({value})::text, {most}) || '...')
                          else pg_catalog.to_jsonb({value}) end"
                ),
            };
            format!("{}, {value}", literal(&column.name))
        })
        .collect();
    format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
}

/// An expression for the digest of the same.
fn digest(source: &Source) -> String {
    format!("pg_catalog.md5(({})::text)::uuid", key(source, None))
}

/// Records that the one item of a batch failed.
pub fn record(source: &Source, batch: &Batch, failure: &ItemFailure) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.execute(
        &format!(
            "insert into coco.untracked as u (source, item, source_key, failure)
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

/// Forgets the items of a batch, which are gone.
pub fn forget(source: &Source, gone: &Batch) -> Result<()> {
    if !has_any(source)? {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", gone.rows())?;
    statements.execute(
        &format!(
            "delete from coco.untracked as u using coco_batch as b
              where u.source = $1 and u.item = {}",
            digest(source)
        ),
        &[arg(source.id)],
    )?;
    Ok(())
}

/// Forgets the items of a source that did not fail again since: microseconds since 1970. All of it was looked at.
pub fn forget_before(source: &Source, since: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "delete from coco.untracked
          where source = $1 and failed_at < pg_catalog.to_timestamp($2 / 1000000.0)",
        &[arg(source.id), arg(since)],
    )?;
    Ok(())
}

/// Whether any item of a source has failed and is not tracked.
pub fn has_any(source: &Source) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let any = "select true from coco.untracked where source = $1 limit 1";
    Ok(spi::scalar::<bool>(any, &[arg(source.id)])?.is_some())
}

/// A failed item that is not tracked.
pub struct Untracked {
    pub source_key: Json,
    pub failure: ItemFailure,
    pub attempts: i32,
    pub failed_at: TimestampWithTimeZone,
}

impl Untracked {
    /// Whether a column of its key is NULL: rows without a key are left out where a target is compared with its query.
    pub fn has_no_key(&self) -> bool {
        self.failure.sqlstate == item_failure::NULL_KEY
    }
}

/// Those of a source. The caller acts as the extension's owner.
pub fn of(source: &Source) -> Result<Vec<Untracked>> {
    spi::select(
        "select source_key, failure::text, attempts, failed_at
           from coco.untracked where source = $1 order by source_key",
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
