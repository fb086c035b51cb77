//! Lets columns of a target hold NULL again, if the query can return NULL for them by now.
//!
//! coco declares a column of a target NOT NULL if the query never returns NULL for it. That can
//! change: somebody drops the NOT NULL of a column that the query reads. The next update then drops
//! it in the target as well, before it writes a row with NULL.

use crate::catalog::model::{Flow, Target};
use crate::catalog::target_table;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};

/// Alters the targets of a flow whose query can return NULL by now. Waits for no lock: while another
/// session uses the target, items with NULL fail, and a later update alters the target and retries
/// the items.
pub fn allow_nulls(flow: &Flow) -> Result<()> {
    for target in flow.targets.iter().filter(|target| !target.nullable_again.is_empty()) {
        let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        let altered = target_table::allow_nulls(target, &target.nullable_again)?;
        drop(acting);
        if altered {
            note_nullable(target)?;
        }
    }
    Ok(())
}

fn note_nullable(target: &Target) -> Result<()> {
    let mut left = target.not_null.clone();
    left.retain(|name| !target.nullable_again.contains(name));
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.target set not_null = $2 where id = $1",
        &[arg(target.id), arg(left)],
    )?;
    invalidation::note_change()
}
