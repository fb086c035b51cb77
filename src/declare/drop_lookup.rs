//! Drops a lookup of a flow, with its tracking table and its query `affects`.
//!
//! Callers: `add_lookup`, `derive_lookups`.

use crate::catalog::model::Lookup;
use crate::catalog::objects;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};

/// Drops a lookup. The caller holds the flow's lock, and afterwards ends captures that nothing needs
/// any longer ([`end_unneeded`](crate::capture::triggers::end_unneeded)).
pub fn drop_lookup(lookup: &Lookup) -> Result<()> {
    let relation = &lookup.relation;
    let acting = RoleGuard::extension_owner()?;
    spi::execute("delete from coco_internal.cursor where source = $1", &[arg(relation.id)])?;
    spi::execute("delete from coco_internal.source where id = $1", &[arg(relation.id)])?;
    drop(acting);
    let mut views = vec![relation.tracking_view.clone()];
    views.extend(lookup.affects.as_ref().map(|affects| affects.name.clone()));
    objects::drop_all(&views, std::slice::from_ref(&relation.tracking))?;
    invalidation::note_change()
}
