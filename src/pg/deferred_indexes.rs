//! Adds the index entries of rows that were written without any. If this blocks nobody for long,
//! coco rebuilds the table's indexes; otherwise it adds the entries row by row.
//!
//! Caller: `update`, for initial loads.

use pgrx::{PgList, pg_sys};

use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert::spec::{BulkTarget, InsertRights};
use crate::pg::bulk_insert::{self, dest_receiver};
use crate::pg::error::{Error, Result};
use crate::pg::tuplestore::row_types::attribute;

/// The largest number of rows for which coco does not rebuild an index, because a new file would
/// cost more.
const FEW: i64 = 1000;

const SHARE: i32 = pg_sys::ShareLock as i32;

const EXCLUSIVE: i32 = pg_sys::AccessExclusiveLock as i32;

const NO_LOCK: i32 = pg_sys::NoLock as i32;

/// Reports whether locks that are taken now are released when the current statement ends. Call it
/// before starting a subtransaction: within one, the answer is always `false`.
pub fn in_autocommit() -> bool {
    // SAFETY: reads the backend's own state.
    !unsafe { pg_sys::IsTransactionBlock() }
}

/// A table that rows were written to.
pub struct Written {
    table: String,
    by: InsertRights,
    pub rows: i64,
    /// The columns with values. In all other columns, the rows have none.
    columns: Vec<String>,
}

impl Written {
    /// Describes rows that a bulk insert has written.
    pub fn new(filling: &BulkTarget, rows: i64) -> Written {
        Written {
            table: filling.table.to_owned(),
            by: filling.by,
            rows,
            columns: filling.columns.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// Adds the index entries of all rows that this subtransaction wrote to a table, none of which has
/// an entry.
///
/// Returns `false` if the number of rows found differs from `written.rows`, because some rows then
/// have entries already. If `locks_pass` is false, locks only a table that nobody else can see yet.
pub fn add_entries(written: &Written, locks_pass: bool) -> Result<bool> {
    let Written { table, by, rows, columns } = written;
    let rows = *rows;
    let _as = by.act()?;
    let oid = bulk_insert::oid_of(table)?
        .ok_or_else(|| Error::internal(format!("table {table} does not exist")))?;
    // SAFETY: the table is closed below; after an error, the transaction's end closes it. The
    // command counter makes the written rows visible.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
        let indexes = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        let takes = |index: &pg_sys::Oid| takes_rows(relation, *index, columns);
        let indexes: Vec<pg_sys::Oid> = indexes.iter_oid().filter(takes).collect();
        let build = rows > FEW && may_lock(relation, locks_pass) && lock(oid, &indexes);
        let all = build || indexes.is_empty() || row_by_row(relation) == rows;
        pg_sys::table_close(relation, NO_LOCK);
        if build {
            for index in indexes {
                rebuild(index)?;
            }
        }
        Ok(all)
    }
}

/// Reports whether an index contains rows that have values only in these columns. A partial index
/// on rows with a value in another column does not.
unsafe fn takes_rows(table: pg_sys::Relation, index: pg_sys::Oid, columns: &[String]) -> bool {
    // SAFETY: an index of an open table; a NullTest and a Var match their tags.
    unsafe {
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let condition =
            PgList::<pg_sys::Node>::from_pg(pg_sys::RelationGetIndexPredicate(relation));
        pg_sys::index_close(relation, NO_LOCK);
        let [Some(node), None] = [condition.get_ptr(0), condition.get_ptr(1)] else { return true };
        if (*node).type_ != pg_sys::NodeTag::T_NullTest {
            return true;
        }
        let test = &*node.cast::<pg_sys::NullTest>();
        let var = test.arg.cast::<pg_sys::Var>();
        if test.nulltesttype != pg_sys::NullTestType::IS_NOT_NULL
            || (*var).xpr.type_ != pg_sys::NodeTag::T_Var
            || (*var).varattno <= 0
        {
            return true;
        }
        let column = attribute((*table).rd_att, (*var).varattno as usize - 1);
        columns.iter().any(|c| c == pgrx::name_data_to_str(&(*column).attname))
    }
}

/// Reports whether the current user may lock a table, and would not block other sessions for long.
/// Readers would wait, because the planner opens all indexes.
unsafe fn may_lock(relation: pg_sys::Relation, locks_pass: bool) -> bool {
    // SAFETY: an open relation; the rest reads the backend's own state.
    unsafe {
        let owned = (*(*relation).rd_rel).relowner == pg_sys::GetUserId();
        let new = (*relation).rd_createSubid != 0;
        owned && (new || locks_pass)
    }
}

/// Locks a table and its indexes without waiting. Returns `false` if another session, or this
/// session itself, uses one of them, or if an index is not complete.
unsafe fn lock(table: pg_sys::Oid, indexes: &[pg_sys::Oid]) -> bool {
    // SAFETY: the relations exist: the table is open.
    unsafe {
        if !pg_sys::ConditionalLockRelationOid(table, SHARE) {
            return false;
        }
        for (n, index) in indexes.iter().enumerate() {
            let locked = pg_sys::ConditionalLockRelationOid(*index, EXCLUSIVE);
            if !locked || !is_free(*index) {
                for index in &indexes[..n + usize::from(locked)] {
                    pg_sys::UnlockRelationOid(*index, EXCLUSIVE);
                }
                pg_sys::UnlockRelationOid(table, SHARE);
                return false;
            }
        }
    }
    true
}

/// Reports whether an index is complete, and not in use by an open cursor of this session.
unsafe fn is_free(index: pg_sys::Oid) -> bool {
    // SAFETY: the index is locked.
    unsafe {
        let relation = pg_sys::index_open(index, NO_LOCK);
        let state = &*(*relation).rd_index;
        let free =
            (*relation).rd_refcnt == 1 && state.indisvalid && state.indisready && state.indislive;
        pg_sys::index_close(relation, NO_LOCK);
        free
    }
}

/// Rebuilds a locked index, as REINDEX does. A btree build sorts within `work_mem`, which limits
/// all memory of an update. Other index types use the settings that their users have chosen.
fn rebuild(index: pg_sys::Oid) -> Result<()> {
    let acting = RoleGuard::same();
    // SAFETY: the index and its table are locked; the index is closed before the build.
    unsafe {
        let relation = pg_sys::index_open(index, NO_LOCK);
        let class = &*(*relation).rd_rel;
        let (persistence, method) = (class.relpersistence, class.relam);
        pg_sys::index_close(relation, NO_LOCK);
        if method == pg_sys::BTREE_AM_OID {
            let memory = pg_sys::work_mem.min(pg_sys::maintenance_work_mem);
            acting.set("maintenance_work_mem", &format!("{memory}kB"))?;
        }
        let mut params = pg_sys::ReindexParams::default();
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::reindex_index(std::ptr::null(), index, false, persistence, &raw mut params);
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        pg_sys::reindex_index(index, false, persistence, &raw mut params);
    }
    Ok(())
}

/// Adds the index entries of the rows of this subtransaction one by one. Returns the number of
/// rows.
unsafe fn row_by_row(relation: pg_sys::Relation) -> i64 {
    let mut rows = 0;
    // SAFETY: everything is closed and freed below, or with the transaction. The scan sees every
    // row version, and holds the page of the row in the slot.
    unsafe {
        let ours = pg_sys::GetCurrentTransactionId();
        let state = pg_sys::CreateExecutorState();
        let result = dest_receiver::result_of(relation);
        pg_sys::ExecOpenIndices(result, false);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = pg_sys::heap_beginscan(
            relation,
            &raw mut pg_sys::SnapshotAnyData,
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::ScanOptions::SO_TYPE_SEQSCAN | pg_sys::ScanOptions::SO_ALLOW_STRAT,
        );
        while pg_sys::heap_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            let mut copied = false;
            let row = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut copied);
            if (*(*row).t_data).t_choice.t_heap.t_xmin != ours {
                continue;
            }
            rows += 1;
            dest_receiver::add_entries_of(result, slot, state);
            let expressions = pg_sys::MakePerTupleExprContext(state);
            pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
        }
        pg_sys::heap_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::ExecCloseIndices(result);
        pg_sys::FreeExecutorState(state);
    }
    rows
}
