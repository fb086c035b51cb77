//! Inserts many rows as COPY does: a page at a time, with one WAL record per page, where INSERT
//! writes one per row. Indexes, constraints and errors are those of the table.

pub mod dest_receiver;
pub mod spec;

use pgrx::pg_sys;

use crate::pg::bulk_insert::dest_receiver::{ColumnValue, Receiver};
use crate::pg::bulk_insert::spec::{
    BulkTarget, FilledRows, FillingRows, IndexMaintenance, InsertRights, RowBuffer, RowsAside,
    TakenRows,
};
use crate::pg::error::Result;
use crate::pg::spi::{self, Arg, arg, ident, literal};
use crate::pg::tuplestore::row_types::attribute;
use crate::pg::tuplestore::statements::SpiSession;

/// Writes `select <expressions> from …` into these columns of a table, and returns the number of
/// rows. Uses INSERT for few rows, and for a table that is not plain.
pub fn insert(
    statements: &SpiSession,
    table: &str,
    columns: &[(String, String)],
    from: &str,
    args: &[Arg],
) -> Result<i64> {
    let filling = BulkTarget {
        table,
        columns,
        entries: IndexMaintenance::AtOnce,
        counted: None,
        by: InsertRights::Caller,
        takes: TakenRows::All,
    };
    if statements.reads_many_rows()
        && let Some(written) =
            as_copy(statements, &[filling], Collected::default(), from, args, false)?
    {
        return Ok(written.all);
    }
    let (names, expressions): (Vec<_>, Vec<_>) =
        columns.iter().map(|(name, e)| (ident(name), e.as_str())).unzip();
    let insert = format!(
        "insert into {table} ({}) select {} from {from}",
        names.join(", "),
        expressions.join(", ")
    );
    statements.execute(&insert, args)
}

/// Writes a SELECT to several tables at once, under the active snapshot, and can also collect the
/// rows. Returns `None` if the caller must use INSERT instead; some rows may then already be
/// written.
pub fn fill(
    statements: &SpiSession,
    tables: &[BulkTarget],
    keeping: Option<RowBuffer>,
    rows: FillingRows,
) -> Result<Option<FilledRows>> {
    let FillingRows { from, args, aside } = rows;
    as_copy(statements, tables, Collected { keeping, aside }, from, args, true)
}

/// The rows that a bulk insert collects.
#[derive(Default)]
struct Collected<'a> {
    keeping: Option<RowBuffer<'a>>,
    aside: Option<RowsAside<'a>>,
}

fn as_copy(
    statements: &SpiSession,
    tables: &[BulkTarget],
    collected: Collected,
    from: &str,
    args: &[Arg],
    as_active: bool,
) -> Result<Option<FilledRows>> {
    let Collected { keeping, aside } = collected;
    let mut oids = Vec::new();
    for filling in tables {
        let acting = filling.by.act()?;
        let oid = oid_of(filling.table)?;
        drop(acting);
        match oid {
            Some(oid) => oids.push(oid),
            None => return Ok(None),
        }
    }
    // SAFETY: the tables are closed below; after an error, the transaction's end closes them. The
    // locks stay, as after INSERT.
    unsafe {
        let open = |oid: &pg_sys::Oid| pg_sys::table_open(*oid, pg_sys::RowExclusiveLock as i32);
        let relations: Vec<pg_sys::Relation> = oids.iter().map(open).collect();
        let mut columns = Some(Vec::new());
        for (relation, filling) in relations.iter().zip(tables) {
            let acting = filling.by.act()?;
            let more = column_values(*relation, filling.table, filling.columns, args)?;
            drop(acting);
            columns = columns.zip(more).map(|(mut columns, more)| {
                columns.push(more);
                columns
            });
        }
        if relations.iter().zip(tables).any(|(r, filling)| runs_functions(*r, filling.entries)) {
            statements.by_one_process();
        }
        let mut written = None;
        if let Some(columns) = columns {
            let mut list: Vec<String> =
                columns.iter().flatten().filter_map(ColumnValue::selected).collect();
            if let Some(keeping) = &keeping {
                list.push("null::pg_catalog.int8".to_owned());
                list.extend_from_slice(&keeping.expressions);
            }
            if let Some(aside) = &aside {
                list.extend_from_slice(aside.expressions);
            }
            // Assign a transaction id now: it cannot be assigned while parallel workers run.
            pg_sys::GetCurrentTransactionId();
            let select = format!("select {} from {from}", list.join(", "));
            let mut receiver = Receiver::new(&relations, tables, &columns, keeping, aside);
            let all = statements.send(&select, args, receiver.destination(), as_active)?;
            let kept = all - receiver.withheld;
            written = receiver.fits.then_some(FilledRows { all, kept });
            receiver.end();
        }
        for relation in relations {
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
        }
        Ok(written)
    }
}

/// Reports whether functions of constraints or indexes run for each written row. Such functions
/// need not be parallel-safe.
unsafe fn runs_functions(relation: pg_sys::Relation, entries: IndexMaintenance) -> bool {
    // SAFETY: an open relation.
    unsafe {
        let constraints = (*(*relation).rd_att).constr;
        entries == IndexMaintenance::AtOnce
            || !constraints.is_null() && (*constraints).num_check > 0
    }
}

/// Reports whether rows of these columns can be written in bulk, as far as this is known without
/// the rows.
pub fn supports_bulk_insert(
    table: &str,
    columns: &[(String, String)],
    by: InsertRights,
) -> Result<bool> {
    let _as = by.act()?;
    let Some(oid) = oid_of(table)? else {
        return Ok(false);
    };
    // SAFETY: the relation is closed below; after an error, the transaction's end closes it.
    unsafe {
        let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
        let values = column_values(relation, table, columns, &[])?;
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Ok(values.is_some())
    }
}

/// Returns the OID of a table, by its quoted name.
pub fn oid_of(table: &str) -> Result<Option<pg_sys::Oid>> {
    spi::scalar("select $1::text::regclass::oid", &[arg(table)])
}

/// Returns the values of a table's columns; `None` if the caller must use INSERT.
unsafe fn column_values(
    relation: pg_sys::Relation,
    table: &str,
    columns: &[(String, String)],
    args: &[Arg],
) -> Result<Option<Vec<ColumnValue>>> {
    // SAFETY: an open relation.
    unsafe {
        match is_plain(relation) {
            true => values_of_plain(relation, table, columns, args),
            false => Ok(None),
        }
    }
}

/// Reports whether an INSERT by the current user would only check constraints and write heap and
/// indexes.
unsafe fn is_plain(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation.
    unsafe {
        let class = &*(*relation).rd_rel;
        class.relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
            && class.relam == pg_sys::HEAP_TABLE_AM_OID
            && !class.relhastriggers
            && !class.relhasrules
            && !has_policies(class)
            && !class.relispartition
            && !pg_sys::XactReadOnly
            && pg_sys::pg_class_aclcheck(
                (*relation).rd_id,
                pg_sys::GetUserId(),
                pg_sys::ACL_INSERT as pg_sys::AclMode,
            ) == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Reports whether row-level security may apply to the current user. It never applies to the owner
/// of a table, unless the table forces it.
fn has_policies(class: &pg_sys::FormData_pg_class) -> bool {
    // SAFETY: reads the backend's own state.
    let user = unsafe { pg_sys::GetUserId() };
    class.relrowsecurity && (class.relforcerowsecurity || class.relowner != user)
}

/// Returns the value of each of the table's columns; `None` if a column has a default that is not
/// available here.
unsafe fn values_of_plain(
    relation: pg_sys::Relation,
    table: &str,
    columns: &[(String, String)],
    args: &[Arg],
) -> Result<Option<Vec<ColumnValue>>> {
    let mut list = Vec::new();
    // SAFETY: the caller passes an open relation, which has a tuple descriptor.
    let (shape, count) = unsafe { ((*relation).rd_att, (*(*relation).rd_att).natts as usize) };
    for place in 0..count {
        // SAFETY: `place` stays below the descriptor's number of attributes.
        let attribute = unsafe { &*attribute(shape, place) };
        let name = pgrx::name_data_to_str(&attribute.attname);
        if attribute.attisdropped || attribute.attgenerated != 0 {
            return Ok(None);
        }
        let given = columns.iter().find(|(column, _)| column == name);
        list.push(match given {
            Some((_, expression)) => argument(expression, args, attribute)
                .unwrap_or_else(|| ColumnValue::Selected(expression.clone())),
            None if attribute.attidentity != 0 => match next_of(table, name)? {
                Some(next) => ColumnValue::Selected(next),
                None => return Ok(None),
            },
            None if attribute.atthasdef => return Ok(None),
            // A domain may not allow NULL.
            None if is_domain(attribute.atttypid) => {
                let name = spi::type_name(attribute.atttypid, attribute.atttypmod)?;
                ColumnValue::Selected(format!("null::{name}"))
            }
            None => ColumnValue::Same(None),
        });
    }
    Ok(Some(list))
}

fn is_domain(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: a lookup in the system catalogs, within a transaction.
    unsafe { pg_sys::getBaseType(type_oid) != type_oid }
}

/// Returns the value of an expression that is one of the statement's arguments, and of the column's
/// type; `None` for any other expression, and for a type that is passed by reference.
fn argument(
    expression: &str,
    args: &[Arg],
    attribute: &pg_sys::FormData_pg_attribute,
) -> Option<ColumnValue> {
    let number: usize = expression.strip_prefix('$')?.parse().ok()?;
    let given = args.get(number.checked_sub(1)?)?;
    let fits = given.oid() == attribute.atttypid && attribute.attbyval && attribute.atttypmod == -1;
    fits.then(|| ColumnValue::Same(given.datum().map(|datum| datum.sans_lifetime())))
}

/// Returns the next value of an identity column, if the current user may use its sequence.
fn next_of(table: &str, column: &str) -> Result<Option<String>> {
    let sequence = spi::scalar::<String>(
        "select s.name from pg_get_serial_sequence($1, $2) as s(name)
          where has_sequence_privilege(s.name, 'usage')",
        &[arg(table), arg(column)],
    )?;
    Ok(sequence.map(|s| format!("pg_catalog.nextval({}::pg_catalog.regclass)", literal(&s))))
}
