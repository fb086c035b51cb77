//! Which item owns which target rows, when a query changes how that is known.
//!
//! Rows are found by the source key where the target key holds it ("covered"), and by a list in the
//! tracking row elsewhere. The next update evaluates every item; what it needs is that each row is
//! found by the item that had it, or is gone.

use super::apply::key_text;
use super::compose::tracking_keys;
use super::error::Result;
use super::external::ledger;
use super::model::{Source, Target, all_equal};
use super::sql::{self, ident};
use super::tuples::Statements;
use super::update::now_micros;

/// Goes from the way `before` finds its rows to that of `after`. The caller acts as the flow's
/// owner.
pub fn carry_over(source: &Source, before: &Target, after: &Target) -> Result<()> {
    let relation = after.relation_name();
    let tracking = &source.tracking;
    let owned = |columns: &[String]| {
        let columns: Vec<String> = columns.iter().map(|c| format!("x.{}", ident(c))).collect();
        all_equal(&source.key, &tracking_keys(source, "t"), &columns)
    };
    if let Some(columns) = &after.covered {
        // Rows whose key is no item's would never be found again; the others are their item's now.
        let nobodys = format!("not exists (select from {tracking} as t where {})", owned(columns));
        match &after.external {
            Some(external) => {
                let statements = Statements::connect()?;
                ledger::delete(&statements, after, external, "", &nobodys, now_micros())?;
            }
            None => {
                sql::execute(&format!("delete from {relation} as x where {nobodys}"), &[])?;
            }
        }
    } else if let Some(columns) = &before.covered {
        let key: Vec<String> = after.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
        sql::execute(
            &format!(
                "update {tracking} as t
                    set target_keys = coalesce(t.target_keys, '{{}}') operator(pg_catalog.||)
                          coalesce((select pg_catalog.jsonb_build_object('{id}',
                                      pg_catalog.jsonb_object_agg({key}::pg_catalog.text, null::pg_catalog.text))
                                      from {relation} as x where {owned}
                                    having pg_catalog.count(*) operator(pg_catalog.>) 0), '{{}}')",
                id = after.id,
                key = key_text(&key),
                owned = owned(columns),
            ),
            &[],
        )?;
    }
    Ok(())
}
