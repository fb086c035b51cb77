//! The minor releases of PostgreSQL from which coco is supported. Callers: `sql_api`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use crate::pg::error::{Error, Result};
use crate::pg::spi;

/// The first releases that contain the fixes of November 2026 for lateral references, Memoize plans
/// and transition tables of MERGE, as `server_version_num`.
const LEAST: [i32; 4] = [150_020, 160_016, 170_012, 180_007];

/// Raises a WARNING if the server is older than the first release of its branch that coco supports.
pub fn warn_if_too_old() -> Result<()> {
    let server = spi::scalar::<i32>(
        "select pg_catalog.current_setting('server_version_num')::pg_catalog.int4",
        &[],
    )?;
    let Some(server) = server else { return Ok(()) };
    if let Some(least) = least_release(server).filter(|least| server < *least) {
        let (least, server) = (name_of(least), name_of(server));
        let warning = Error::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("coco needs PostgreSQL {least} or later, and this server is {server}"),
        )
        .detail("Older releases can return wrong rows for queries with LATERAL and for Memoize plans, and can pass a wrong row of MERGE to the triggers that capture changes.")
        .hint("Update the server to the latest minor release of its version.");
        ErrorReport::from(warning).report(PgLogLevel::WARNING);
    }
    Ok(())
}

/// Returns the first supported release of a server's branch; `None` for a branch that is not listed.
fn least_release(server: i32) -> Option<i32> {
    LEAST.into_iter().find(|least| least / 10_000 == server / 10_000)
}

/// Returns a release as PostgreSQL names it.
fn name_of(release: i32) -> String {
    format!("{}.{}", release / 10_000, release % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_branch_has_its_least_release() {
        let older = |server| least_release(server).is_some_and(|least| server < least);
        assert!(older(150_019) && !older(150_020) && !older(150_021));
        assert!(older(160_015) && !older(160_016));
        assert!(older(170_011) && !older(170_012));
        assert!(older(180_006) && !older(180_007));
        assert!(!older(190_000));
        assert_eq!(name_of(180_007), "18.7");
    }
}
