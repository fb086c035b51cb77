//! `coco.alter_flow`: changes a flow's owner, label, batch size, pause and lineage index.

use pgrx::prelude::*;

use crate::catalog::object_names::owner_name;
use crate::catalog::{flow_rows, internal_tables, locks};
use crate::declare::lineage_index;
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::{clock, invalidation};
use crate::update::limits;

/// The settings to change; `None` leaves a setting unchanged.
pub struct Changes {
    pub owner: Option<pg_sys::Oid>,
    /// An empty text removes the label.
    pub label: Option<String>,
    /// Number of items; 0 restores the setting `coco.batch_size`.
    pub batch_size: Option<i32>,
    pub paused: Option<bool>,
    /// Whether an index finds listed target keys.
    pub lineage_index: Option<bool>,
}

/// The result of `alter_flow`.
pub struct AlteredFlow {
    /// The flow is live and was just unpaused, so it needs a worker.
    pub wants_worker: bool,
}

/// Changes a flow. The flow may be incomplete.
pub fn alter_flow(name: &str, changes: Changes) -> Result<AlteredFlow> {
    let flow_rows::FlowIdentity { id, owner } = flow_rows::identify_flow(name)?;
    if let Some(size) = changes.batch_size
        && !(0..=limits::LARGEST_BATCH).contains(&size)
    {
        return Err(Error::invalid(format!(
            "argument \"batch_size\" ({size}) must be between 0 and {}",
            limits::LARGEST_BATCH
        ))
        .hint("Use 0 to restore the setting coco.batch_size."));
    }
    locks::lock_flow(id)?;
    // Another session may have changed or dropped the flow while this session waited for the lock.
    let _now = PinnedSnapshot::take();
    flow_rows::identify_flow(name)?;
    if let Some(new) = changes.owner
        && new != owner
    {
        give_to(name, owner, new)?;
    }
    let _as = RoleGuard::extension_owner()?;
    if let Some(label) = &changes.label {
        let label = Some(label.as_str()).filter(|label| !label.is_empty());
        spi::execute("update coco.flow set label = $2 where id = $1", &[arg(id), arg(label)])?;
        // Every later evaluation gets this label, because evaluations hold the flow's lock.
        spi::execute(
            "insert into coco.flow_label (flow, since, label) values ($1, $2, $3)
             on conflict (flow, since) do update set label = excluded.label",
            &[arg(id), arg(clock::now_micros()), arg(label)],
        )?;
    }
    if let Some(size) = changes.batch_size {
        let size = Some(size).filter(|size| *size > 0);
        spi::execute("update coco.flow set batch_size = $2 where id = $1", &[arg(id), arg(size)])?;
    }
    if let Some(paused) = changes.paused {
        spi::execute("update coco.flow set paused = $2 where id = $1", &[arg(id), arg(paused)])?;
    }
    if let Some(wanted) = changes.lineage_index {
        spi::execute(
            "update coco.flow set lineage_index = $2 where id = $1",
            &[arg(id), arg(wanted)],
        )?;
        lineage_index::index(name, wanted)?;
    }
    let live =
        spi::scalar::<bool>("select live and not paused from coco.flow where id = $1", &[arg(id)])?;
    invalidation::note_change()?;
    Ok(AlteredFlow { wants_worker: changes.paused == Some(false) && live == Some(true) })
}

/// Transfers a flow, and everything that coco created for it, to another role. The rows in coco's
/// own tables stay where they are: afterwards the new owner may read them, and the old owner may
/// not.
fn give_to(flow: &str, old: pg_sys::Oid, new: pg_sys::Oid) -> Result<()> {
    // Requires the same membership as ALTER … OWNER TO.
    // SAFETY: syscache lookups inside a transaction; they raise an error if the caller lacks the
    // right.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        pg_sys::check_is_member_of_role(acting_role::current(), new);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::check_can_set_role(acting_role::current(), new);
    }
    let owner = owner_name(new)?;
    let acting = RoleGuard::extension_owner()?;
    let names = |query: &str| spi::select(query, &[arg(flow)], |r| spi::required::<String>(r, 1));
    let views = internal_tables::views(flow)?;
    // A role that was dropped has no rights to revoke.
    let old = spi::scalar::<String>(
        "select pg_catalog.quote_ident(rolname) from pg_catalog.pg_roles where oid = $1",
        &[arg(old)],
    )?;
    for view in views {
        if let Some(old) = &old {
            spi::execute(&format!("revoke all on {view} from {old}"), &[])?;
        }
        spi::execute(&format!("grant select on {view} to {owner}"), &[])?;
    }
    let made = names(
        "select c.oid::regclass::text from coco.target t join pg_class c on c.oid = t.relation
          where t.flow = $1 and t.managed and t.server is null",
    )?;
    spi::execute("update coco.flow set owner = $2 where flow = $1", &[arg(flow), arg(new)])?;
    drop(acting);
    // The caller acts as itself here, so the server checks the rights that ALTER TABLE requires.
    for table in made {
        spi::execute(&format!("alter table {table} owner to {owner}"), &[])?;
    }
    Ok(())
}
