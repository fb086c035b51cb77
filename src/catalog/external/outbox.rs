//! The outbox of a target outside this database: what is to be sent, and what became of it.
//!
//! Entries are written in the order of the updates of one flow, each of which holds the flow's lock
//! until it is committed: so an entry that becomes visible has a higher position than all that were
//! visible before.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry as Slot};
use std::hash::{Hash, Hasher};

use pgrx::pg_sys;

use super::tables::outbox_key;
use crate::catalog::error::{Error, Result};
use crate::catalog::locks;
use crate::catalog::model::{External, Flow, Target, all_equal, numbered};
use crate::catalog::role::{ActingAs, Settings};
use crate::catalog::sql::{self, arg};
use crate::catalog::stream::{self, Row};
use crate::catalog::tuples::{OneSnapshot, Statements};
use crate::engine::backoff;
use crate::engine::delivery::{Change, Encoding, Refused, Values};

/// What is sent at once.
pub struct Batch {
    pub changes: Vec<Change>,
    /// The entry of each change.
    pub positions: Vec<i64>,
    /// Up to where the outbox is sent with it.
    pub upto: i64,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub changes: usize,
    pub bytes: usize,
}

/// Reads what comes after a position: of each key the newest entry. With `refused`, first what was
/// refused before and is due again. `None` where there is nothing.
pub fn read(
    flow: &Flow,
    target: &Target,
    external: &External,
    after: i64,
    refused: bool,
    encoding: Encoding,
    size: Size,
) -> Result<Option<Batch>> {
    let acting = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    // In the order of the index, so that no more is read than is taken: an outbox is rarely analysed.
    for way in ["enable_seqscan", "enable_bitmapscan", "enable_sort"] {
        acting.set(way, "off")?;
    }
    let (values, also) = match encoding {
        Encoding::Binary => (numbered("o.c", target.columns.len()).join(", "), String::new()),
        Encoding::Json => json(target),
    };
    let select = |condition: &str| {
        format!(
            "select o.position, o.version, o.upsert, o.refused is not null, {values}
               from {} as o{also} where {condition} order by o.position limit {}",
            external.outbox, size.changes
        )
    };
    let fresh = select("o.position operator(pg_catalog.>) $1 and o.refused is null");
    let due = select(
        "o.refused is not null and (o.refused operator(pg_catalog.->>) 'next_retry')::pg_catalog.timestamptz
           operator(pg_catalog.<=) pg_catalog.clock_timestamp()",
    );
    let _snapshot = OneSnapshot::take();
    let statements = Statements::connect()?;
    let mut reading = Reading {
        encoder: Encoder::new(target, encoding)?,
        batch: Batch { changes: vec![], positions: vec![], upto: after },
        places: HashMap::new(),
        entries: size.changes,
        bytes: size.bytes,
    };
    if refused {
        stream::each(&statements, &due, &[], &mut |row| reading.add(row))?;
    }
    if reading.has_room() {
        stream::each(&statements, &fresh, &[arg(after)], &mut |row| reading.add(row))?;
    }
    let batch = reading.batch;
    Ok((!batch.changes.is_empty()).then_some(batch))
}

/// A batch that is being read.
struct Reading {
    encoder: Encoder,
    batch: Batch,
    /// Where the change of a key is, by the key's hash.
    places: HashMap<u64, usize>,
    /// What may be added still.
    entries: usize,
    bytes: usize,
}

impl Reading {
    fn has_room(&self) -> bool {
        self.entries > 0 && self.bytes > 0
    }

    /// Adds an entry; returns whether there is room for another.
    fn add(&mut self, entry: Row) -> Result<bool> {
        let position = entry.get::<i64>(0).unwrap_or(0);
        let version = entry.get::<i64>(1).unwrap_or(0);
        let upsert = entry.get::<bool>(2).unwrap_or(false);
        let (key, row) = self.encoder.encode(entry, upsert)?;
        let bytes = key.bytes() + row.as_ref().map_or(0, Values::bytes);
        let batch = &mut self.batch;
        let change = Change { key, row, version };
        match self.places.entry(hash(&change.key)) {
            Slot::Vacant(slot) => {
                slot.insert(batch.changes.len());
                batch.changes.push(change);
                batch.positions.push(position);
            }
            Slot::Occupied(place) if batch.changes[*place.get()].key == change.key => {
                batch.changes[*place.get()] = change;
                batch.positions[*place.get()] = position;
            }
            // Of another key, by chance: it is in the next batch.
            Slot::Occupied(_) => {
                self.entries = 0;
                return Ok(false);
            }
        }
        if !entry.get::<bool>(3).unwrap_or(false) {
            batch.upto = position;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.entries = self.entries.saturating_sub(1);
        Ok(self.has_room())
    }
}

fn hash(key: &Values) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Key and row of entry `o` as JSON text, and the relations that they are taken from.
fn json(target: &Target) -> (String, String) {
    let named = |names: Vec<String>, columns: &[crate::catalog::model::Column]| {
        let pairs: Vec<String> =
            names.iter().zip(columns).map(|(n, c)| format!("{n} as {}", c.quoted())).collect();
        pairs.join(", ")
    };
    let key: Vec<String> = outbox_key(target).iter().map(|k| format!("o.{k}")).collect();
    let values = "pg_catalog.row_to_json(k.*)::pg_catalog.text,
            case when o.upsert then pg_catalog.row_to_json(r.*)::pg_catalog.text end";
    let also = format!(
        " cross join lateral (select {}) as k cross join lateral (select {}) as r",
        named(key, &target.key),
        named(numbered("o.c", target.columns.len()), &target.columns)
    );
    (values.to_owned(), also)
}

/// Columns of an entry before its values.
const HEAD: usize = 4;

/// Writes rows in the form that a connector wants.
struct Encoder {
    encoding: Encoding,
    /// Each column's function to its binary form.
    send: Vec<pg_sys::FmgrInfo>,
    /// The places of the key columns.
    key: Vec<usize>,
    /// Where a value is put together, to be copied once its length is known.
    buffer: Vec<u8>,
    context: pg_sys::MemoryContext,
}

impl Encoder {
    fn new(target: &Target, encoding: Encoding) -> Result<Encoder> {
        let mut send = Vec::new();
        if encoding == Encoding::Binary {
            for column in &target.columns {
                // SAFETY: look-ups of the type's functions; an error is raised where it has none.
                unsafe {
                    let mut function = pg_sys::InvalidOid;
                    let mut variable = false;
                    pg_sys::getTypeBinaryOutputInfo(column.type_oid, &mut function, &mut variable);
                    let mut info = pg_sys::FmgrInfo::default();
                    pg_sys::fmgr_info(function, &mut info);
                    send.push(info);
                }
            }
        }
        let place = |k: &crate::catalog::model::Column| {
            target.columns.iter().position(|c| c.name == k.name).unwrap_or(0)
        };
        // SAFETY: a child of the transaction's context, deleted in drop or with it.
        let context = unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurTransactionContext,
                c"coco outbox".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        let key = target.key.iter().map(place).collect();
        Ok(Encoder { encoding, send, key, buffer: Vec::new(), context })
    }

    fn encode(&mut self, entry: Row, upsert: bool) -> Result<(Values, Option<Values>)> {
        if self.encoding == Encoding::Json {
            let text = |column| entry.get::<String>(column);
            let key = text(HEAD).ok_or_else(|| Error::internal("an entry has no key"))?;
            return Ok((Values::Json(key), text(HEAD + 1).map(Values::Json)));
        }
        let key = self.fields(entry, self.key.clone())?;
        let row = match upsert {
            true => Some(self.fields(entry, 0..self.send.len())?),
            false => None,
        };
        // SAFETY: nothing of it is used any more.
        unsafe { pg_sys::MemoryContextReset(self.context) };
        Ok((key, row))
    }

    fn fields(&mut self, entry: Row, places: impl IntoIterator<Item = usize>) -> Result<Values> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for place in places {
            self.field(&mut buffer, place, entry.datum(HEAD + place))?;
        }
        let values = Values::Binary(buffer.clone());
        self.buffer = buffer;
        Ok(values)
    }

    fn field(
        &mut self,
        to: &mut Vec<u8>,
        place: usize,
        datum: Option<pg_sys::Datum>,
    ) -> Result<()> {
        let Some(datum) = datum else {
            to.extend((-1i32).to_be_bytes());
            return Ok(());
        };
        // SAFETY: the function is the one of the column's type; its result is a bytea that is not
        // toasted, and lives in the context until the row is done.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            let bytes = pg_sys::SendFunctionCall(&mut self.send[place], datum);
            pg_sys::MemoryContextSwitchTo(before);
            let value = pgrx::varlena::varlena_to_byte_slice(bytes.cast());
            let length = i32::try_from(value.len())
                .map_err(|_| Error::internal("a value is larger than Postgres can hold"))?;
            to.extend(length.to_be_bytes());
            to.extend(value);
        }
        Ok(())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made in `new`.
            unsafe { pg_sys::MemoryContextDelete(self.context) };
        }
    }
}

/// Notes that a batch has arrived, but for what was refused.
pub fn settle(
    flow: &Flow,
    target: &Target,
    external: &External,
    batch: &Batch,
    refused: &[Refused],
    truncate_over: i64,
) -> Result<()> {
    let outbox = &external.outbox;
    let acting = ActingAs::flow_owner(flow.owner, &Settings::qualifying())?;
    // By their own index: an outbox is never analysed before it is large.
    acting.set("enable_seqscan", "off")?;
    let any_refused = format!("select true from {outbox} where refused is not null limit 1");
    if sql::one::<bool>(&any_refused, &[])?.is_some() {
        let bad: Vec<i64> =
            refused.iter().filter_map(|r| batch.positions.get(r.change).copied()).collect();
        let key = outbox_key(target);
        let of = |alias: &str| key.iter().map(|k| format!("{alias}.{k}")).collect::<Vec<_>>();
        // Also what a newer change of the same key has overtaken.
        sql::execute(
            &format!(
                "delete from {outbox} as o using {outbox} as s
                  where o.refused is not null and s.position = any ($1) and s.position >= o.position
                    and {} and o.position <> all ($2)",
                all_equal(&target.key, &of("o"), &of("s"))
            ),
            &[arg(batch.positions.clone()), arg(bad)],
        )?;
    }
    for r in refused {
        let Some(position) = batch.positions.get(r.change) else { continue };
        let attempts: i32 = sql::one(
            &format!("select coalesce((refused->>'attempts')::int, 0) + 1 from {outbox} where position = $1"),
            &[arg(*position)],
        )?
        .unwrap_or(1);
        sql::execute(
            &format!(
                "update {outbox} set refused = jsonb_build_object(
                    'sqlstate', $2::text, 'message', $3::text, 'attempts', $4::int,
                    'failed_at', clock_timestamp(),
                    'next_retry', clock_timestamp() + make_interval(secs => $5::float8))
                  where position = $1"
            ),
            &[
                arg(*position),
                arg(r.sqlstate.as_str()),
                arg(r.message.as_str()),
                arg(attempts),
                arg(backoff::delay(attempts.max(1) as u32).as_secs_f64()),
            ],
        )?;
    }
    drop(acting);
    super::delivery::sent(target.id, batch.upto)?;
    empty(flow, external, batch.upto, truncate_over)
}

/// Empties an outbox of which all is sent, if it is larger than that, and nobody is in the way.
fn empty(flow: &Flow, external: &External, sent: i64, over: i64) -> Result<()> {
    let outbox = &external.outbox;
    let acting = ActingAs::flow_owner(flow.owner, &Settings::qualifying())?;
    acting.set("enable_seqscan", "off")?;
    let large = sql::one::<bool>(
        "select pg_relation_size($1::text::regclass) > $2",
        &[arg(outbox.as_str()), arg(over)],
    )?;
    if large != Some(true) || !locks::flow_if_free(flow.id)? {
        return Ok(());
    }
    // With the flow's lock nothing is added.
    let _now = OneSnapshot::latest();
    let left = |condition: &str| {
        sql::one::<bool>(
            &format!("select true from {outbox} where {condition} limit 1"),
            &[arg(sent)],
        )
    };
    if left("position > $1")?.is_some() {
        // Behind all the time: then what is sent is deleted, and vacuumed.
        let huge = sql::one::<bool>(
            "select pg_relation_size($1::text::regclass) > $2",
            &[arg(outbox.as_str()), arg(over * 64)],
        )?;
        if huge == Some(true) {
            sql::execute(
                &format!("delete from {outbox} where refused is null and position <= $1"),
                &[arg(sent)],
            )?;
        }
        return Ok(());
    }
    if left("refused is not null and $1 is not null")?.is_some() {
        sql::execute(
            &format!("delete from {outbox} where refused is null and position <= $1"),
            &[arg(sent)],
        )?;
        return Ok(());
    }
    let oid = sql::one::<pg_sys::Oid>("select $1::text::regclass::oid", &[arg(outbox.as_str())])?;
    let lock = pg_sys::AccessExclusiveLock as i32;
    // SAFETY: a heavyweight lock, until the transaction ends.
    if let Some(oid) = oid
        && unsafe { pg_sys::ConditionalLockRelationOid(oid, lock) }
    {
        sql::execute(&format!("truncate {outbox}"), &[])?;
    }
    drop(acting);
    Ok(())
}

/// Lets everything that was refused be tried again at once.
pub fn retry(flow: &Flow) -> Result<()> {
    let _as = ActingAs::flow_owner(flow.owner, &Settings::qualifying())?;
    for external in flow.targets.iter().filter_map(|t| t.external.as_ref()) {
        sql::execute(
            &format!(
                "update {} set refused = refused || jsonb_build_object('next_retry', clock_timestamp())
                  where refused is not null",
                external.outbox
            ),
            &[],
        )?;
    }
    Ok(())
}

/// What waits in an outbox.
pub struct Waiting {
    /// Entries that are to be sent; counted up to [`COUNTED`].
    pub unsent: i64,
    /// Entries that the target has refused.
    pub refused: i64,
}

/// Entries that are counted, at most.
pub const COUNTED: i64 = 100_000;

pub fn waiting(external: &External, sent: i64) -> Result<Waiting> {
    let outbox = &external.outbox;
    let found = sql::select(
        &format!(
            "select (select count(*) from (select from {outbox} where position > $1 and refused is null
                       limit {COUNTED}) as u),
                    (select count(*) from {outbox} where refused is not null)"
        ),
        &[arg(sent)],
        |r| {
            Ok(Waiting {
                unsent: sql::required(r, 1)?,
                refused: sql::required(r, 2)?,
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| Error::internal("a count returned no row"))
}

/// Whether nothing is in an outbox, sent or not.
pub fn is_empty(external: &External) -> Result<bool> {
    let any: Option<bool> =
        sql::one(&format!("select true from {} limit 1", external.outbox), &[])?;
    Ok(any.is_none())
}

/// The position of the next entry, which is given out with that. Who holds the flow's lock may then give out those
/// that follow.
pub fn next_position(external: &External) -> Result<i64> {
    let _as = ActingAs::qualifying_names()?;
    sql::one(
        "select nextval(pg_get_serial_sequence($1, 'position')::regclass)",
        &[arg(external.outbox.as_str())],
    )?
    .ok_or_else(|| Error::internal("an outbox has lost its sequence"))
}

/// All positions up to this one are given out.
pub fn given_out(external: &External, last: i64) -> Result<()> {
    let _as = ActingAs::qualifying_names()?;
    sql::execute(
        "select setval(pg_get_serial_sequence($1, 'position')::regclass, $2)",
        &[arg(external.outbox.as_str()), arg(last)],
    )?;
    Ok(())
}

/// The position of the last entry; 0 where there is none.
pub fn last(external: &External) -> Result<i64> {
    Ok(sql::one(&format!("select max(position) from {}", external.outbox), &[])?.unwrap_or(0))
}

/// A row that a target has refused.
pub struct Failed {
    pub key: pgrx::JsonB,
    pub sqlstate: String,
    pub message: String,
    pub attempts: i32,
    pub failed_at: Option<pgrx::datum::TimestampWithTimeZone>,
    pub next_retry: Option<pgrx::datum::TimestampWithTimeZone>,
}

/// The rows that a target has refused. The caller acts as the flow's owner.
pub fn refused(target: &Target, external: &External) -> Result<Vec<Failed>> {
    let pairs: Vec<String> = target
        .key
        .iter()
        .zip(outbox_key(target))
        .map(|(k, c)| format!("{}, o.{c}", sql::literal(&k.name)))
        .collect();
    sql::select(
        &format!(
            "select jsonb_build_object({}), o.refused->>'sqlstate', o.refused->>'message',
                    (o.refused->>'attempts')::int, (o.refused->>'failed_at')::timestamptz,
                    (o.refused->>'next_retry')::timestamptz
               from {} as o where o.refused is not null order by o.position",
            pairs.join(", "),
            external.outbox
        ),
        &[],
        |r| {
            Ok(Failed {
                key: sql::required(r, 1)?,
                sqlstate: r.get::<String>(2)?.unwrap_or_default(),
                message: r.get::<String>(3)?.unwrap_or_default(),
                attempts: r.get::<i32>(4)?.unwrap_or(0),
                failed_at: r.get(5)?,
                next_retry: r.get(6)?,
            })
        },
    )
}
