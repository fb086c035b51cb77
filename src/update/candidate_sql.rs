//! The SQL that finds candidates: which rows of a source and its tracking table it joins, and which
//! columns it returns. [`crate::update::detect`] runs it; nothing in this file runs a statement.

use std::collections::BTreeSet;

use crate::catalog::model::{FillOrder, Source};
use crate::pg::clock;
use crate::pg::columns::{Column, all_equal, equal_by_nulls, numbered};
use crate::pg::spi::ident;
use crate::query::{compose, key_rows, names};
use crate::update::candidate_rows::{CandidateExprs, CandidateRow};
use coco_core::decision::Mode;
use coco_core::version::LogicId;

/// Returns the carried columns of the items, for the target list of a SELECT over the source.
fn carried(source: &Source, carry: bool) -> String {
    let columns = compose::carried(source).into_iter().filter(|_| carry);
    columns.map(|(column, value)| format!(", {value} as {}", column.name)).collect()
}

/// Returns the key columns of a row of the source, qualified with the source's name.
fn keys_of(source: &Source) -> Vec<String> {
    source.key_of(&ident(&source.name))
}

/// Returns an alias for `coco_changed` that is not the source's name, for a SELECT that also reads
/// the source under its name.
fn changed_alias(source: &Source) -> &'static str {
    if source.name == "c" { "d" } else { "c" }
}

/// Returns the key columns with the aliases `k1…`, and without aliases.
fn key_numbers(source: &Source) -> (Vec<String>, Vec<String>) {
    let keys = keys_of(source);
    let named =
        keys.iter().zip(numbered("k", keys.len())).map(|(k, n)| format!("{k} as {n}")).collect();
    (named, keys)
}

/// Returns a SELECT of a source's items: `k1…`, `ordinal`, `fingerprint`, `present`, and the number
/// of `rows` with the key. With `carry`, also the carried columns. If the source has an ordinal, it
/// leaves the fingerprint to [`fingerprints_sql`]. `filter` selects rows before Postgres computes
/// anything for them.
fn items_sql(source: &Source, filter: &str, carry: bool) -> String {
    items_of(source, &key_rows::rows_relation(source), filter, carry)
}

/// Returns the same for the rows of another FROM item, with those of the relation's columns that the
/// statement reads.
fn items_of(source: &Source, relation: &str, filter: &str, carry: bool) -> String {
    let (named, keys) = key_numbers(source);
    let (named, keys) = (named.join(", "), keys.join(", "));
    let carried = carried(source, carry);
    let expressions = compose::expressions(source);
    let from = format!("{relation} as {}{expressions}", ident(&source.name));
    let fingerprint = compose::fingerprint_of_row(source);
    match compose::ordinal_of_row(source) {
        // Rows have no order within their group, so their fingerprints are sorted.
        None if source.grouped => format!(
            "select {named}, null::pg_catalog.int8 as ordinal,
                    coco.fingerprint(pg_catalog.array_agg({fingerprint} order by {fingerprint})) as fingerprint,
                    true as present, 1::pg_catalog.int8 as rows{carried}
               from {from}{filter} group by {keys}"
        ),
        None => format!(
            "select {named}, null::pg_catalog.int8 as ordinal, {fingerprint} as fingerprint,
                    true as present, 1::pg_catalog.int8 as rows{carried}{failure}
               from {from}{filter}",
            failure = failure_column(source),
        ),
        Some(ordinal) if source.promised => format!(
            "select {named}, pg_catalog.max({ordinal}) as ordinal,
                    null::pg_catalog.uuid as fingerprint,
                    true as present, pg_catalog.count(*) as rows
               from {from}{filter} group by {keys}"
        ),
        Some(ordinal) => format!(
            "select {named}, {ordinal} as ordinal, null::pg_catalog.uuid as fingerprint,
                    true as present, 1::pg_catalog.int8 as rows{carried}
               from {from}"
        ),
    }
}

/// Returns the column of the failure of a group whose state coco keeps, for the target list of a SELECT
/// over the groups.
fn failure_column(source: &Source) -> String {
    match source.reads_states {
        true => format!(", {}.failure", ident(&source.name)),
        false => String::new(),
    }
}

/// Returns an expression over the items `s`: why coco cannot read the item.
pub fn unread_sql(source: &Source) -> &'static str {
    if source.reads_states { "s.failure" } else { "null" }
}

/// Returns a SELECT of all items of a source, each with its fingerprint: `k1…`, `ordinal`,
/// `fingerprint`.
pub fn all_items_sql(source: &Source) -> String {
    let Some(ordinal) = compose::ordinal_of_row(source) else {
        return items_sql(source, "", false);
    };
    let (named, _) = key_numbers(source);
    format!(
        "select {named}, {ordinal} as ordinal, {fingerprint} as fingerprint from {relation} as {name}{expressions}",
        named = named.join(", "),
        fingerprint = compose::fingerprint_of_row(source),
        relation = key_rows::rows_relation(source),
        name = ident(&source.name),
        expressions = compose::expressions(source),
    )
}

/// Returns a SELECT of the candidates in `coco_candidate` with their fingerprints. Under an outer
/// join, Postgres would compute a fingerprint where it reads the source, for every row. This
/// statement uses an inner join. A candidate stays as it is if the source has no such item (any
/// more), or if its key is NULL.
pub fn fingerprints_sql(source: &Source) -> String {
    let (named, _) = key_numbers(source);
    let (ours, theirs) = (numbered("c.k", named.len()), numbered("s.k", named.len()));
    let columns = |fingerprint: &str| {
        let known = CandidateRow::NAMES.iter().map(|name| match *name {
            "fingerprint" => fingerprint.to_owned(),
            name => format!("c.{name}"),
        });
        ours.iter().cloned().chain(known).collect::<Vec<_>>().join(", ")
    };
    let known: Vec<String> = ours.iter().map(|k| format!("{k} is not null")).collect();
    format!(
        "select {with} from coco_candidate as c
           join (select {named}, {fingerprint} as fingerprint from {relation} as {name}{expressions}) as s on {same}
          where c.present and c.unread is null
         union all
         select {without} from coco_candidate as c
          where not (c.present and c.unread is null and {known})",
        with = columns("s.fingerprint"),
        named = named.join(", "),
        fingerprint = compose::fingerprint_of_row(source),
        relation = key_rows::rows_relation(source),
        name = ident(&source.name),
        expressions = compose::expressions(source),
        same = all_equal(&source.key, &ours, &theirs),
        without = columns("c.fingerprint"),
        known = known.join(" and "),
    )
}

/// Returns an SQL condition: a scan returns an item (`s`, `t`) that is not forced. If the source
/// has an ordinal, the scan leaves out an item whose version is committed, and does not read its
/// content. It never leaves out a key with several rows.
pub fn is_changed_sql(source: &Source, mode: Mode, logic: LogicId) -> String {
    let same_logic = format!("t.logic_id operator(pg_catalog.=) {}", logic.0);
    let same_content = "t.content_fingerprint operator(pg_catalog.=) s.fingerprint";
    let settled = match (&source.ordinal, mode.evaluates_all()) {
        (_, true) => "false".to_owned(),
        (Some(_), false) => format!(
            "{same_logic} and t.source_ordinal operator(pg_catalog.>=) s.ordinal and t.failure is null
             and s.rows operator(pg_catalog.=) 1"
        ),
        (None, false) => format!("{same_logic} and {same_content} and t.failure is null"),
    };
    format!("not coalesce({settled}, false)")
}

/// Returns an SQL condition: `coco_forced` has the key of `of`.
pub fn is_forced_sql(source: &Source, of: &str) -> String {
    let keys = source.key.len();
    let same = all_equal(&source.key, &numbered(&format!("{of}.k"), keys), &numbered("f.k", keys));
    format!("exists (select from coco_forced as f where {same})")
}

/// Returns a SELECT of the keys of all items of a source and of all tracked items, and whether they
/// are `forced`. It reads nothing else of the items.
pub fn every_key_sql(source: &Source, forced: &str) -> String {
    let (named, own) = key_numbers(source);
    let grouped = match source.grouped || source.promised {
        true => format!(" group by {}", own.join(", ")),
        false => String::new(),
    };
    let tracked = compose::tracking_keys(source, "t");
    let (ours, names) = (numbered("s.k", own.len()), numbered("k", own.len()));
    let all = ours.iter().zip(&tracked).zip(&names);
    let all: Vec<String> =
        all.map(|((s, t), name)| format!("coalesce({s}, {t}) as {name}")).collect();
    format!(
        "select {names}, {forced}
           from (select {all}
                   from (select {named} from {relation} as {name}{grouped}) as s
                   full join {tracking} as t on {same}) as c",
        names = numbered("c.k", own.len()).join(", "),
        all = all.join(", "),
        named = named.join(", "),
        relation = key_rows::rows_relation(source),
        name = ident(&source.name),
        tracking = source.tracking_view,
        same = all_equal(&source.key, &ours, &tracked),
    )
}

/// Returns the relations of a scan of the whole source.
pub fn scanned_relations(source: &Source) -> String {
    format!("({}) as s full join {} as t", items_sql(source, "", false), source.tracking_view)
}

/// Returns the relations of a lookup of the keys in `coco_changed`, which looks each key up.
pub fn looked_up_relations(source: &Source, carry: bool) -> String {
    let changed = numbered("c.k", source.key.len());
    // Groups are selected before their rows are aggregated; otherwise Postgres would aggregate all
    // groups.
    let items = match source.grouped || source.promised {
        true if source.has_nullable_key() => items_of(source, &rows_of_changed(source), "", carry),
        true => {
            let wanted = changed_alias(source);
            let keys = numbered(&format!("{wanted}.k"), source.key.len());
            let same = all_equal(&source.key, &keys, &keys_of(source));
            let inside =
                format!(" where exists (select from coco_changed as {wanted} where {same})");
            items_sql(source, &inside, carry)
        }
        false => items_sql(source, "", carry),
    };
    format!(
        "coco_changed as c left join ({items}) as s on {} left join {} as t",
        all_equal(&source.key, &changed, &numbered("s.k", source.key.len())),
        source.tracking_view
    )
}

/// Returns a FROM item with the rows of the groups in `coco_changed`, if columns of the key are
/// nullable. Each combination of columns that are NULL has a SELECT of its own: an index finds its
/// rows, and Postgres reads none of them if no changed key has this combination.
fn rows_of_changed(source: &Source) -> String {
    let (name, wanted) = (ident(&source.name), changed_alias(source));
    // Not all columns: the owner may lack the right to read some.
    let expressions = source.expressions.iter().flat_map(|expressions| &expressions.used);
    let read = source.used.iter().chain(expressions).map(Column::quoted);
    let key = (0..source.key.len()).map(|place| source.key_column(place));
    let columns: BTreeSet<String> = key.chain(read).map(|c| format!("{name}.{c}")).collect();
    let columns = columns.into_iter().collect::<Vec<_>>().join(", ");
    let keys = numbered(&format!("{wanted}.k"), source.key.len());
    let each: Vec<String> = equal_by_nulls(&source.key, &keys_of(source), &keys)
        .into_iter()
        .map(|alike| {
            let any = |condition: &str| {
                format!("exists (select from coco_changed as {wanted} where {condition})")
            };
            let first = alike.is_null.map_or(String::new(), |nulls| any(&nulls) + " and ");
            format!(
                "select {columns} from {relation} as {name} where {first}{same}",
                relation = key_rows::rows_relation(source),
                same = any(&alike.condition),
            )
        })
        .collect();
    format!("({})", each.join(" union all "))
}

/// Returns the relations of a lookup of the keys in `coco_changed`, which joins all of them at
/// once.
pub fn joined_relations(source: &Source, carry: bool) -> String {
    format!("({}) as s left join {} as t", bulk_items_sql(source, carry), source.tracking_view)
}

/// Returns the relations of the keys in `coco_changed` as items of which coco could read nothing.
pub fn unread_relations(source: &Source) -> String {
    format!(
        "(select {}, c.forced, true as present, null::pg_catalog.int8 as ordinal,
                 null::pg_catalog.uuid as fingerprint, 1::pg_catalog.int8 as rows
            from coco_changed as c) as s left join {} as t",
        numbered("c.k", source.key.len()).join(", "),
        source.tracking_view
    )
}

/// Returns a SELECT of many items. The plan of the SELECT may read the whole source. Because of the
/// OFFSET, Postgres computes fingerprints after the join, only for the selected rows.
fn bulk_items_sql(source: &Source, carry: bool) -> String {
    let wanted = changed_alias(source);
    let keys = numbered(&format!("{wanted}.k"), source.key.len());
    let own = keys_of(source);
    let there = format!("{} is not null", own[0]);
    let when_there = |value: &str| format!("case when {there} then {value} end");
    let (ordinal, fingerprint) = match compose::ordinal_of_row(source) {
        Some(ordinal) => (when_there(ordinal), "null::pg_catalog.uuid".to_owned()),
        None => {
            ("null::pg_catalog.int8".to_owned(), when_there(&compose::fingerprint_of_row(source)))
        }
    };
    format!(
        "select {keys}, {wanted}.forced, {there} as present, {ordinal} as ordinal,
                {fingerprint} as fingerprint, 1::pg_catalog.int8 as rows{carried}
           from coco_changed as {wanted} left join {relation} as {name} on {same}{expressions} offset 0",
        keys = keys.join(", "),
        carried = carried(source, carry),
        relation = key_rows::rows_relation(source),
        name = ident(&source.name),
        same = all_equal(&source.key, &keys, &own),
        expressions = compose::expressions(source),
    )
}

/// The relations that candidates come from: `s` (the current items) and `t` (the tracking rows), to
/// be joined by key.
pub struct CandidateSource<'a> {
    pub relations: String,
    /// An expression: whether the item is forced.
    pub forced: &'a str,
    /// The relation that has the requested keys: `s`, or a relation that `s` is joined to.
    pub keyed: &'a str,
    /// Whether `s` has the carried columns.
    pub carry: bool,
    /// An expression: the text of the reason why coco could not read the item.
    pub unread: &'a str,
}

/// Returns a SELECT of the candidates that meet a condition, in the columns of
/// [`crate::update::candidate_rows::candidate_columns`].
pub fn candidates_sql(source: &Source, from: &CandidateSource, condition: &str) -> String {
    let carried: String = match from.carry {
        true => compose::carried(source).iter().map(|(c, _)| format!(", s.{}", c.name)).collect(),
        false => String::new(),
    };
    let ours = numbered(&format!("{}.k", from.keyed), source.key.len());
    let tracked = compose::tracking_keys(source, "t");
    let keys: Vec<String> =
        ours.iter().zip(&tracked).map(|(s, t)| format!("coalesce({s}, {t})")).collect();
    let row = CandidateExprs {
        present: "coalesce(s.present, false)",
        ordinal: "s.ordinal",
        fingerprint: "s.fingerprint",
        tracked: &compose::is_tracked_sql(source),
        source_ordinal: "t.source_ordinal",
        content_fingerprint: "t.content_fingerprint",
        logic_id: "t.logic_id",
        process_ordinal: "t.process_ordinal",
        failed: "t.failure is not null",
        failed_fingerprint: "(t.failure operator(pg_catalog.->>) 'content_fingerprint')::pg_catalog.uuid",
        failed_logic: "(t.failure operator(pg_catalog.->>) 'logic_id')::pg_catalog.int4",
        due: &clock::is_due_sql("t.failure", "pg_catalog.clock_timestamp()"),
        attempts: "(t.failure operator(pg_catalog.->>) 'attempts')::pg_catalog.int4",
        claims: "t.failure operator(pg_catalog.->>) 'claims'",
        forced: from.forced,
        rows: "s.rows",
        unread: &format!("{}::pg_catalog.text", from.unread),
    };
    format!(
        "select {keys}, {row}{carried}
           from {relations} on {on}
          where {condition}",
        keys = keys.join(", "),
        row = row.select_list(),
        relations = from.relations,
        on = all_equal(&source.key, &ours, &tracked),
    )
}

/// Returns a SELECT of the candidates in `coco_candidate`, which carry no columns, sorted by their
/// ordinals. Those without an ordinal come last.
pub fn sorted_sql(source: &Source, order: FillOrder) -> String {
    let keys = numbered("c.k", source.key.len());
    let others = CandidateRow::NAMES.iter().map(|name| format!("c.{name}"));
    let columns: Vec<String> = keys.into_iter().chain(others).collect();
    let direction = match order {
        FillOrder::Newest => "desc",
        FillOrder::Oldest => "asc",
    };
    format!(
        "select {} from coco_candidate as c order by c.ordinal {direction} nulls last",
        columns.join(", ")
    )
}

/// Returns a SELECT of the key, as text, of a candidate in `coco_candidate` with several rows.
pub fn several_rows_sql(source: &Source) -> String {
    let keys = numbered("c.k", source.key.len());
    let known: Vec<String> = keys.iter().map(|k| format!("{k} is not null")).collect();
    format!(
        "select {} from coco_candidate as c
          where c.rows operator(pg_catalog.>) 1 and {} limit 1",
        names::key_text(&keys),
        known.join(" and ")
    )
}
