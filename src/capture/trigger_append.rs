//! Appends a statement's keys to a table's change log: the work of the capture triggers.
//!
//! This code runs in every writer, so it does only one job: it appends the keys, with the
//! transaction's id, to the log's current segment. It uses no SPI, looks up no names and checks no
//! privileges for that. A backend looks up what it needs once, and caches it until an invalidation
//! message says that it may have changed.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

use crate::catalog::internal_tables;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg, ident};
use crate::pg::tuplestore::row_types::check_types;

unsafe extern "C-unwind" {
    // Declared in utils/datum.h, the same from 15 to 18, and missing from pgrx's bindings.
    fn datumIsEqual(
        a: pg_sys::Datum,
        b: pg_sys::Datum,
        by_value: bool,
        length: std::ffi::c_int,
    ) -> bool;
}

/// The number of keys that one heap operation writes.
const AT_ONCE: usize = 500;

/// The largest size in bytes of a tuple that PostgreSQL stores inline, whatever the page size.
const LONG: u32 = 200;

/// The destination of the changes of one table.
struct Route {
    relation: pg_sys::Oid,
    capture: i32,
    /// The log's current segment.
    segment: pg_sys::Oid,
    /// The table's columns that the log stores, in the log's order. `None` if table and log no
    /// longer match: triggers then record only that any row may have changed.
    columns: Option<Vec<i16>>,
    /// Whether no invalidation message has arrived since the lookup.
    valid: Cell<bool>,
}

thread_local! {
    /// Routes by table and capture: a partition may be captured with its parent and by itself.
    static ROUTES: RefCell<HashMap<(u32, i32), Rc<Route>>> = RefCell::new(HashMap::new());
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    /// The number of invalidation messages received.
    static HEARD: Cell<u64> = const { Cell::new(0) };
}

/// Appends the changes that fire the current trigger to the log. Returns the capture whose log it
/// wrote to; `None` if there is no log.
///
/// # Safety
/// `fcinfo` belongs to a call in progress.
pub unsafe fn capture(fcinfo: pg_sys::FunctionCallInfo) -> Result<Option<i32>> {
    // SAFETY: the server passes valid trigger data. Its slots and tables exist until the call
    // returns, and have the row type that `locked_route` has compared with the log's. This block
    // closes what it opens; after an error, the transaction's end does.
    unsafe {
        let Some(trigger) = trigger_data(fcinfo) else {
            return Err(crate::pg::error::Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "function coco_internal.capture was not called by trigger manager",
            )
            .hint("Do not create triggers with this function. coco creates them: see the argument \"capture\" of coco.add_source."));
        };
        let Some(route) = locked_route(trigger)? else {
            return Ok(None);
        };
        let mut log = Log::open(&route);
        match (&route.columns, event(trigger)) {
            (None, _) | (_, pg_sys::TRIGGER_EVENT_TRUNCATE) => log.push_unknown(),
            (Some(columns), what) if trigger.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 => {
                let old = trigger.tg_trigslot;
                match what {
                    pg_sys::TRIGGER_EVENT_UPDATE => {
                        log.push_pair(old, trigger.tg_newslot, columns);
                    }
                    _ => log.push(old, columns),
                }
            }
            (Some(columns), what) => {
                let shape = (*trigger.tg_relation).rd_att;
                match what {
                    pg_sys::TRIGGER_EVENT_INSERT => {
                        let new = Transition::open(trigger.tg_newtable, shape);
                        while new.advance() {
                            log.push(new.slot, columns);
                        }
                    }
                    pg_sys::TRIGGER_EVENT_DELETE => {
                        let old = Transition::open(trigger.tg_oldtable, shape);
                        while old.advance() {
                            log.push(old.slot, columns);
                        }
                    }
                    // Both tables contain the statement's rows in the same order.
                    _ => {
                        let old = Transition::open(trigger.tg_oldtable, shape);
                        let new = Transition::open(trigger.tg_newtable, shape);
                        while old.advance() {
                            match new.advance() {
                                true => log.push_pair(old.slot, new.slot, columns),
                                false => log.push(old.slot, columns),
                            }
                        }
                    }
                }
            }
        }
        log.close();
        Ok(Some(route.capture))
    }
}

unsafe fn trigger_data<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Option<&'a pg_sys::TriggerData> {
    // SAFETY: `fcinfo` belongs to a call in progress; its context matches its tag, and exists until
    // the call returns.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return None;
        }
        Some(&*context.cast::<pg_sys::TriggerData>())
    }
}

fn event(trigger: &pg_sys::TriggerData) -> u32 {
    trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK
}

/// Returns the route of the firing trigger's table, after locking its segment against TRUNCATE.
/// `None` if no log exists: the trigger was left behind, or the log was not restored with its
/// database.
unsafe fn locked_route(trigger: &pg_sys::TriggerData) -> Result<Option<Rc<Route>>> {
    let lock = pg_sys::RowExclusiveLock as i32;
    loop {
        // SAFETY: the caller passes the trigger of a call in progress.
        let Some(route) = (unsafe { route(trigger)? }) else {
            return Ok(None);
        };
        // SAFETY: calls the lock manager; the transaction's end releases the lock.
        unsafe {
            // Only a segment that is not current is ever locked for long. A writer that finds its
            // segment locked has missed a rotation.
            if !pg_sys::ConditionalLockRelationOid(route.segment, lock) {
                pg_sys::AcceptInvalidationMessages();
                if route.valid.get() {
                    pg_sys::LockRelationOid(route.segment, lock);
                }
            }
            if route.valid.get() {
                return Ok(Some(route));
            }
            // The segment may still be the current one; an unneeded lock does not harm a writer.
        }
    }
}

unsafe fn route(trigger: &pg_sys::TriggerData) -> Result<Option<Rc<Route>>> {
    // SAFETY: the trigger's relation is open while the trigger fires.
    let (relation, shape) =
        unsafe { ((*trigger.tg_relation).rd_id, (*trigger.tg_relation).rd_att) };
    // SAFETY: as above; the argument is a string in the trigger's definition.
    let capture = unsafe {
        let definition = &*trigger.tg_trigger;
        if definition.tgnargs < 1 {
            return Ok(None);
        }
        CStr::from_ptr(*definition.tgargs).to_str().ok().and_then(|id| id.parse::<i32>().ok())
    };
    let Some(capture) = capture else {
        return Ok(None);
    };
    let place = (relation.to_u32(), capture);
    let known = ROUTES.with(|r| r.borrow().get(&place).cloned());
    if let Some(route) = known.filter(|r| r.valid.get()) {
        return Ok(Some(route));
    }
    watch();
    // SAFETY: as above: `shape` belongs to the open relation.
    let found = unsafe {
        pg_sys::AcceptInvalidationMessages();
        look_up(capture, relation, shape, catalog_schema(trigger))?
    };
    let route = found.map(Rc::new);
    ROUTES.with(|r| {
        let mut routes = r.borrow_mut();
        match &route {
            Some(route) => routes.insert(place, route.clone()),
            None => routes.remove(&place),
        }
    });
    Ok(route)
}

/// Returns the schema of the catalog, quoted: the one that has the trigger's function. Version 0.1.0
/// has both in another schema than later versions.
unsafe fn catalog_schema(trigger: &pg_sys::TriggerData) -> String {
    // SAFETY: lookups in the system catalogs while the trigger fires; a name that is found is a
    // string of its own.
    let name = unsafe {
        let schema = pg_sys::get_func_namespace((*trigger.tg_trigger).tgfoid);
        pg_sys::get_namespace_name(schema)
    };
    match name.is_null() {
        true => internal_tables::SCHEMA.to_owned(),
        // SAFETY: as above.
        false => ident(&unsafe { CStr::from_ptr(name) }.to_string_lossy()),
    }
}

unsafe fn look_up(
    capture: i32,
    relation: pg_sys::Oid,
    shape: pg_sys::TupleDesc,
    catalog: String,
) -> Result<Option<Route>> {
    let heard = HEARD.get();
    let Ok(_as) = RoleGuard::writing_log() else {
        return Ok(None);
    };
    // Use the latest snapshot of the catalog, also in a transaction that reads an older state.
    // SAFETY: the snapshot is popped below; after an error, the end of the transaction pops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let found = spi::select(
        // A schema of the extension: version 0.1.0 has its logs in another one than later versions.
        &format!("select c.columns, s.oid
           from {catalog}.capture c
           join pg_catalog.pg_class s
             on s.relname operator(pg_catalog.=) pg_catalog.format('log_%s_%s', c.id, c.segment)::pg_catalog.name
            and s.relkind operator(pg_catalog.=) 'r'
           join pg_catalog.pg_depend d
             on d.classid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
            and d.objid operator(pg_catalog.=) s.relnamespace
            and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
            and d.deptype operator(pg_catalog.=) 'e'
           join pg_catalog.pg_extension e
             on e.oid operator(pg_catalog.=) d.refobjid and e.extname operator(pg_catalog.=) 'coco'
          where c.id operator(pg_catalog.=) $1"),
        &[arg(capture)],
        |r| Ok((spi::required::<Vec<String>>(r, 1)?, spi::required::<pg_sys::Oid>(r, 2)?)),
    )?;
    // SAFETY: pops the snapshot pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    let Some((names, segment)) = found.into_iter().next() else {
        return Ok(None);
    };
    // SAFETY: this block opens and closes the log. The caller takes the lock on the segment. After
    // an invalidation message the code compares the row types again.
    let columns = unsafe {
        let log = pg_sys::table_open(segment, pg_sys::AccessShareLock as i32);
        // The code writes the first column whatever the others are.
        let checked = check_types((*log).rd_att, 0, &[pg_sys::XID8OID]).map(|_| ());
        let columns = matching(shape, (*log).rd_att, &names);
        pg_sys::table_close(log, pg_sys::AccessShareLock as i32);
        checked?;
        columns
    };
    // An invalidation during the lookup makes the route stale.
    let valid = Cell::new(HEARD.get() == heard);
    Ok(Some(Route { relation, capture, segment, columns, valid }))
}

/// Returns the numbers of the named columns in the table's row type, if each has its log column's
/// type or a domain over it.
unsafe fn matching(
    table: pg_sys::TupleDesc,
    log: pg_sys::TupleDesc,
    names: &[String],
) -> Option<Vec<i16>> {
    // SAFETY: the caller passes the row types of two open relations; places stay below the number
    // of attributes.
    unsafe {
        if (*log).natts as usize != names.len() + 1 {
            return None;
        }
        let mut numbers = Vec::with_capacity(names.len());
        for (n, name) in names.iter().enumerate() {
            let kept = crate::pg::tuplestore::row_types::attribute(log, n + 1);
            let found = (0..(*table).natts as usize).find(|place| {
                let a = crate::pg::tuplestore::row_types::attribute(table, *place);
                !(*a).attisdropped
                    && CStr::from_ptr((*a).attname.data.as_ptr()).to_bytes() == name.as_bytes()
                    && ((*a).atttypid == (*kept).atttypid
                        || pg_sys::getBaseType((*a).atttypid) == (*kept).atttypid)
            })?;
            numbers.push(found as i16 + 1);
        }
        Some(numbers)
    }
}

/// Registers for messages about changed tables, at the first lookup.
fn watch() {
    if WATCHING.replace(true) {
        return;
    }
    // SAFETY: registered once per backend.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0usize));
    }
}

/// Marks the routes over a table or segment that changed as invalid; all of them for `InvalidOid`.
unsafe extern "C-unwind" fn forget(_arg: pg_sys::Datum, changed: pg_sys::Oid) {
    HEARD.set(HEARD.get() + 1);
    ROUTES.with(|r| {
        // The map is never borrowed for writing here: no call of PostgreSQL occurs during such a
        // borrow.
        if let Ok(routes) = r.try_borrow() {
            for route in routes.values() {
                if changed == pg_sys::InvalidOid
                    || changed == route.relation
                    || changed == route.segment
                {
                    route.valid.set(false);
                }
            }
        }
    });
}

/// A transition table that is being read.
struct Transition {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Transition {
    unsafe fn open(store: *mut pg_sys::Tuplestorestate, shape: pg_sys::TupleDesc) -> Transition {
        // SAFETY: the caller passes the store of a transition table of the firing trigger, and the
        // type of its rows.
        unsafe {
            // Use a separate read pointer, because other triggers read the same store. The store
            // frees it.
            let pointer =
                pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot(shape, &pg_sys::TTSOpsMinimalTuple);
            Transition { store, pointer, slot }
        }
    }

    unsafe fn advance(&self) -> bool {
        // SAFETY: the store exists until the trigger has fired, which is longer than `self`;
        // pointer and slot come from `open`.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot)
        }
    }
}

impl Drop for Transition {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `open` created the slot; after an error, the memory context frees it.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

/// The current segment, open for appending.
struct Log {
    relation: pg_sys::Relation,
    indexes: pg_sys::CatalogIndexState,
    shape: pg_sys::TupleDesc,
    xid: u64,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    filled: usize,
}

impl Log {
    unsafe fn open(route: &Route) -> Log {
        // SAFETY: the segment exists and is locked: the route came from `locked_route`, and the
        // lock stays until the transaction ends.
        unsafe {
            // `locked_route` has locked the segment.
            let relation = pg_sys::table_open(route.segment, pg_sys::NoLock as i32);
            Log {
                relation,
                indexes: pg_sys::CatalogOpenIndexes(relation),
                shape: (*relation).rd_att,
                xid: pg_sys::GetTopFullTransactionId().value,
                slots: Vec::new(),
                filled: 0,
            }
        }
    }

    /// Appends the key of a row.
    unsafe fn push(&mut self, row: *mut pg_sys::TupleTableSlot, columns: &[i16]) {
        // SAFETY: the caller passes a row of the trigger's table and the columns of its route,
        // which exist in its row type; `add` has space for each of them and the transaction.
        unsafe {
            self.add(|values, nulls| {
                for (n, column) in columns.iter().enumerate() {
                    *values.add(n + 1) = attribute_of(row, *column, &mut *nulls.add(n + 1));
                }
            });
        }
    }

    /// Appends the key of an updated row, or both keys if the key changed.
    unsafe fn push_pair(
        &mut self,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
        columns: &[i16],
    ) {
        // SAFETY: as in `push`, for both rows.
        unsafe {
            if !self.same_key(old, new, columns) {
                self.push(old, columns);
            }
            self.push(new, columns);
        }
    }

    unsafe fn same_key(
        &self,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
        columns: &[i16],
    ) -> bool {
        // SAFETY: as in `push`; `matching` has checked that the log's columns have the types of the
        // key's.
        unsafe {
            columns.iter().enumerate().all(|(n, column)| {
                let (mut old_null, mut new_null) = (false, false);
                let a = attribute_of(old, *column, &mut old_null);
                let b = attribute_of(new, *column, &mut new_null);
                let kept = crate::pg::tuplestore::row_types::attribute(self.shape, n + 1);
                match (old_null, new_null) {
                    (false, false) => datumIsEqual(a, b, (*kept).attbyval, (*kept).attlen as i32),
                    (a, b) => a == b,
                }
            })
        }
    }

    /// Appends a key of NULLs, which means that any row may have changed.
    unsafe fn push_unknown(&mut self) {
        // SAFETY: the closure writes to no column.
        unsafe { self.add(|_, _| ()) }
    }

    unsafe fn add(&mut self, fill: impl FnOnce(*mut pg_sys::Datum, *mut bool)) {
        // SAFETY: the slots have the log's row type; this function creates them, and `close` drops
        // them. `fill` writes only to columns of that type.
        unsafe {
            if self.filled == self.slots.len() {
                self.slots
                    .push(pg_sys::MakeSingleTupleTableSlot(self.shape, &pg_sys::TTSOpsHeapTuple));
            }
            let slot = self.slots[self.filled];
            pg_sys::ExecClearTuple(slot);
            let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
            *values = pg_sys::Datum::from(self.xid);
            *nulls = false;
            for n in 1..(*self.shape).natts as usize {
                *nulls.add(n) = true;
            }
            fill(values, nulls);
            pg_sys::ExecStoreVirtualTuple(slot);
            // Copy the values: they belong to the row, and the caller moves on to the next row.
            pg_sys::ExecMaterializeSlot(slot);
            let mut to_free = false;
            let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut to_free);
            if (*tuple).t_len > LONG
                || u32::from((*(*tuple).t_data).t_infomask) & pg_sys::HEAP_HASEXTERNAL != 0
            {
                // The tuple must be stored out of line. PostgreSQL then stores another tuple in its
                // place, and a multi-insert does not pass that one to the index.
                pg_sys::CatalogTupleInsertWithInfo(self.relation, tuple, self.indexes);
                return;
            }
            self.filled += 1;
            if self.filled == AT_ONCE {
                self.flush();
            }
        }
    }

    unsafe fn flush(&mut self) {
        if self.filled > 0 {
            // SAFETY: the log is a heap with one plain index, and `filled` slots are filled.
            unsafe {
                pg_sys::CatalogTuplesMultiInsertWithInfo(
                    self.relation,
                    self.slots.as_mut_ptr(),
                    self.filled as i32,
                    self.indexes,
                );
            }
            self.filled = 0;
        }
    }

    unsafe fn close(mut self) {
        // SAFETY: `open` and `add` created the relation, indexes and slots; nothing uses them
        // afterwards, because this function consumes the log.
        unsafe {
            self.flush();
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::CatalogCloseIndexes(self.indexes);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
        }
    }
}

/// Returns a column of a row, by its number from 1.
unsafe fn attribute_of(
    row: *mut pg_sys::TupleTableSlot,
    column: i16,
    null: &mut bool,
) -> pg_sys::Datum {
    // SAFETY: the caller passes a row and a column of its row type; attributes that are not
    // deformed yet are deformed first.
    unsafe {
        if (*row).tts_nvalid < column {
            pg_sys::slot_getsomeattrs_int(row, column as i32);
        }
        let place = column as usize - 1;
        *null = *(*row).tts_isnull.add(place);
        *(*row).tts_values.add(place)
    }
}
