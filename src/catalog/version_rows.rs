//! The rows of `coco_internal.version`: flows that are a new or an old version of another flow, for a change
//! without a gap.
//!
//! Callers: `declare`, `inspect`, `workers`.

use pgrx::PgSqlErrorCode;
use pgrx::datum::Interval;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// What a version is to its main flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionRole {
    /// Is built beside the main flow, and replaces it.
    New,
    /// Was the main flow before the last swap.
    Old,
}

impl VersionRole {
    pub fn name(self) -> &'static str {
        match self {
            VersionRole::New => "new",
            VersionRole::Old => "old",
        }
    }

    /// Returns the end of the names of such a flow and its tables.
    pub fn suffix(self) -> &'static str {
        match self {
            VersionRole::New => "@new",
            VersionRole::Old => "@old",
        }
    }
}

/// A version of a flow.
pub struct FlowVersion {
    pub id: i32,
    pub name: String,
    /// The main flow.
    pub of: i32,
    pub of_name: String,
    pub role: VersionRole,
    /// Whether the update that finds a new version caught up also swaps it in.
    pub swaps_by_itself: bool,
    /// Whether the time is over for which an old version is kept.
    pub is_expired: bool,
}

/// A version to store.
pub struct NewVersion {
    pub id: i32,
    pub of: i32,
    pub swaps_by_itself: bool,
    pub keep_old: Interval,
}

const SELECT: &str = "
select v.flow, f.flow, v.of, m.flow, v.role = 'new', v.swap = 'auto',
       coalesce(v.keep_until <= clock_timestamp(), false)
  from coco_internal.version v join coco_internal.flow f on f.id = v.flow join coco_internal.flow m on m.id = v.of";

fn read(condition: &str, id: i32) -> Result<Vec<FlowVersion>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(&format!("{} where {condition} order by v.role", SELECT.trim()), &[arg(id)], |r| {
        Ok(FlowVersion {
            id: spi::required(r, 1)?,
            name: spi::required(r, 2)?,
            of: spi::required(r, 3)?,
            of_name: spi::required(r, 4)?,
            role: match spi::required(r, 5)? {
                true => VersionRole::New,
                false => VersionRole::Old,
            },
            swaps_by_itself: spi::required(r, 6)?,
            is_expired: spi::required(r, 7)?,
        })
    })
}

/// Returns the versions of a main flow, the new one first.
pub fn versions_of(main: i32) -> Result<Vec<FlowVersion>> {
    read("v.of = $1", main)
}

/// Returns the version of a main flow with this role.
pub fn version_of(main: i32, role: VersionRole) -> Result<Option<FlowVersion>> {
    Ok(versions_of(main)?.into_iter().find(|version| version.role == role))
}

/// Returns the version that a flow is; `None` for a main flow.
pub fn as_version(flow: i32) -> Result<Option<FlowVersion>> {
    Ok(read("v.flow = $1", flow)?.pop())
}

/// Fails if a new version of a flow is being built: it would replace a change of the flow.
pub fn check_no_new_version(flow: i32, name: &str) -> Result<()> {
    match version_of(flow, VersionRole::New)? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" already has a new version"),
        )
        .hint("Call coco.swap to use it, or coco.discard to give it up.")),
    }
}

/// Returns the old versions of all flows whose time is over.
pub fn expired_versions() -> Result<Vec<i32>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select flow from coco_internal.version where role = 'old' and keep_until <= clock_timestamp()",
        &[],
        |r| spi::required(r, 1),
    )
}

/// Reports whether a flow has a partitioned target in this database.
pub fn has_partitioned_target(flow: i32) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::scalar::<bool>(
        "select true from coco_internal.flow f join coco_internal.target t on t.flow = f.flow
           join pg_class c on c.oid = t.relation and c.relkind = 'p'
          where f.id = $1 and t.server is null limit 1",
        &[arg(flow)],
    )?;
    Ok(found == Some(true))
}

/// Returns the old versions of flows that have a partitioned target.
pub fn partitioned_old_versions() -> Result<Vec<i32>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select distinct v.flow
           from coco_internal.version v join coco_internal.flow m on m.id = v.of
           join coco_internal.target t on t.flow = m.flow
           join pg_class c on c.oid = t.relation and c.relkind = 'p'
          where v.role = 'old' and t.server is null",
        &[],
        |r| spi::required(r, 1),
    )
}

/// Stores a new version.
pub fn insert_new(version: &NewVersion) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco_internal.version (flow, of, role, swap, keep_old) values ($1, $2, 'new', $3, $4)",
        &[
            arg(version.id),
            arg(version.of),
            arg(if version.swaps_by_itself { "auto" } else { "manual" }),
            arg(version.keep_old),
        ],
    )?;
    Ok(())
}

/// Stores that a version is the main flow from now on, and that the flow `main` is its old version.
/// The main flow has no other old version.
pub fn exchange(main: i32, version: &FlowVersion) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let declared = spi::returning(
        "delete from coco_internal.version where flow = $1 returning swap, keep_old",
        &[arg(version.id)],
        |r| Ok((spi::required::<String>(r, 1)?, spi::required::<Interval>(r, 2)?)),
    )?;
    let Some((swap, keep_old)) = declared.into_iter().next() else {
        return Err(Error::internal("the version of a flow vanished"));
    };
    spi::execute(
        "update coco_internal.version set of = $2 where of = $1",
        &[arg(main), arg(version.id)],
    )?;
    spi::execute(
        "insert into coco_internal.version (flow, of, role, swap, keep_old, keep_until)
         values ($1, $2, 'old', $3, $4, clock_timestamp() + $4)",
        &[arg(main), arg(version.id), arg(swap), arg(keep_old)],
    )?;
    Ok(())
}

/// Records why a version is not swapped in, or could not be updated; `None` if nothing prevents it.
pub fn note_reason(version: i32, why: Option<&Error>) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let (message, hint) = match why {
        Some(why) => (Some(why.message.as_str()), why.hint.clone()),
        None => (None, None),
    };
    spi::execute(
        "update coco_internal.version set waits_for = $2, hint = $3
          where flow = $1 and (waits_for is distinct from $2 or hint is distinct from $3)",
        &[arg(version), arg(message), arg(hint)],
    )?;
    Ok(())
}
