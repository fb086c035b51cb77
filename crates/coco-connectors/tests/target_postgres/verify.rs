//! What a table holds: digests of ranges of keys, and rows.

use super::remote_db::{RemoteDb, connector, schema};
use super::{delivery_error, docs};
use coco_core::change::{Change, TargetSchema};
use coco_core::key_range::{ChangeDigests, KeyRange, PartDigests, PartSums};

fn digests(schema: &TargetSchema, change: &Change) -> ChangeDigests {
    let verification = connector().verification.expect("the connector reads tables");
    (verification.digests)(schema, change).expect("digests of a change")
}

/// The digests of the rows that were sent.
fn sent(
    schema: &TargetSchema,
    changes: &[Change],
    ranges: &[KeyRange],
    digits: u32,
) -> PartDigests {
    let mut sums = PartSums::new(ranges, digits);
    for change in changes {
        let digests = digests(schema, change);
        sums.add(digests.key, digests.row.expect("a row"));
    }
    sums.finish()
}

/// A value of each kind, with nulls, as a query over `n` and the columns for it.
const KINDS: [(&str, &str, &str); 24] = [
    ("id", "bigint", "n"),
    ("i2", "smallint", "nullif(n % 7, 0)"),
    ("i4", "integer", "-n"),
    ("n", "numeric", "case when n % 2 = 0 then n * 1.10 else n * 1.1 end"),
    ("n2", "numeric(10,2)", "n / 3.0"),
    ("f4", "real", "n / 3.0"),
    ("f8", "double precision", "case n % 5 when 0 then 'NaN' when 1 then '-0' else n / 3.0 end"),
    ("b", "boolean", "n % 3 = 0"),
    ("t", "text", "case n % 4 when 0 then null when 1 then '' else 'größe ' || n end"),
    ("vc", "character varying(20)", "'v' || n"),
    ("bc", "character(5)", "'c'"),
    ("by", "bytea", "decode(md5(n::text), 'hex')"),
    ("d", "date", "date '2024-02-29' + n::int"),
    (
        "ts",
        "timestamp without time zone",
        "timestamp '2024-02-29 12:34:56.789' + n * interval '1 h'",
    ),
    ("tz", "timestamp with time zone", "timestamptz '2024-03-31 01:30:00+01' + n * interval '1 h'"),
    ("iv", "interval", "n * interval '1 month 2 days 03:04:05.6'"),
    ("ti", "time without time zone", "time '12:34:56.789'"),
    ("u", "uuid", "md5(n::text)::uuid"),
    ("j", "json", "'{\"b\": 1.0,  \"a\": null}'"),
    ("jb", "jsonb", "jsonb_build_object('n', n, 'x', n * 1.10)"),
    ("ta", "text[]", "array['a', null, 'ü' || n]"),
    ("ia", "integer[]", "case when n % 6 = 0 then '{}' else array[n, -n]::int[] end"),
    ("r", "int4range", "int4range(n::int, n::int + 5)"),
    ("ip", "inet", "'10.0.0.1/8'"),
];

#[test]
fn values_of_each_kind_have_the_same_digest_on_both_sides() {
    let remote = &mut RemoteDb::new("verify_kinds");
    let name = remote.name.clone();
    // No setting of the other side changes a digest.
    for setting in [
        "datestyle = 'German, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
    ] {
        remote.sql.run(&format!("alter database {name} set {setting}"));
    }
    let columns: Vec<(&str, &str)> = KINDS.iter().map(|(c, t, _)| (*c, *t)).collect();
    let schema = schema("kinds", &columns, &["id"]);
    let values: Vec<String> = KINDS.iter().map(|(_, t, value)| format!("({value})::{t}")).collect();
    let query = format!("select {} from generate_series(1, 300) n", values.join(", "));
    let changes = remote.rows(&schema, &query);
    let mut target = remote.ready(&schema);
    target.applied(&changes);
    for digits in [1, 2, 5] {
        let held = target.part_digests(&[KeyRange::ALL], digits).expect("digests");
        assert_eq!(held, sent(&schema, &changes, &[KeyRange::ALL], digits));
    }
    let ranges = ["0", "7", "f"].map(|prefix| KeyRange::from_prefix(prefix).expect("a range"));
    let held = target.part_digests(&ranges, 3).expect("digests");
    assert_eq!(held, sent(&schema, &changes, &ranges, 3));

    let mut rows = target.held_rows(&ranges, 1000).expect("rows");
    rows.sort_by_key(|row| row.key);
    let mut wanted: Vec<ChangeDigests> = changes.iter().map(|c| digests(&schema, c)).collect();
    wanted.retain(|d| ranges.iter().any(|range| range.contains(d.key)));
    wanted.sort_by_key(|d| d.key);
    assert!(!wanted.is_empty());
    let found: Vec<ChangeDigests> =
        rows.iter().map(|row| ChangeDigests { key: row.key, row: Some(row.row) }).collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_changed_row_changes_the_digest_of_its_range() {
    let remote = &mut RemoteDb::new("verify_changed");
    let schema = docs();
    let changes = remote.rows(&schema, "select n, 't' || n, n from generate_series(1, 100) n");
    let mut target = remote.ready(&schema);
    target.applied(&changes);
    remote.sql.run("update docs set price = price + 0.01 where id = 42");
    let held = target.part_digests(&[KeyRange::ALL], 2).expect("digests");
    let sent = sent(&schema, &changes, &[KeyRange::ALL], 2);
    let differing: Vec<&KeyRange> =
        sent.iter().filter(|(range, sum)| held.get(range) != Some(sum)).map(|(r, _)| r).collect();
    let key = digests(&schema, &changes[41]).key;
    assert_eq!(differing, [&KeyRange::holding(key, 2)]);
    let rows = target.held_rows(&[KeyRange::holding(key, 2)], 100).expect("rows");
    let row = rows.iter().find(|row| row.key == key).expect("the row");
    assert_eq!(row.json, r#"{"id": 42}"#);
    assert_ne!(Some(row.row), digests(&schema, &changes[41]).row);
}

#[test]
fn keys_of_several_columns_with_odd_names_are_read() {
    let remote = &mut RemoteDb::new("verify_odd");
    let columns = [("it's", "text"), ("a\"b", "integer"), ("V", "text")];
    let schema = schema("odd", &columns, &["a\"b", "it's"]);
    let changes =
        remote.rows(&schema, "select 'x''\"\\' || n, n, null from generate_series(1, 20) n");
    let mut target = remote.ready(&schema);
    target.applied(&changes);
    let held = target.part_digests(&[KeyRange::ALL], 1).expect("digests");
    assert_eq!(held, sent(&schema, &changes, &[KeyRange::ALL], 1));
    let key = digests(&schema, &changes[2]).key;
    let rows = target.held_rows(&[KeyRange::holding(key, 32)], 10).expect("rows");
    let json: serde_json::Value = serde_json::from_str(&rows[0].json).expect("JSON");
    assert_eq!(json, serde_json::json!({ "a\"b": 3, "it's": "x'\"\\3" }));
    assert_eq!(rows.len(), 1);
}

#[test]
fn an_enum_has_the_same_digest_on_both_sides() {
    let remote = &mut RemoteDb::new("verify_enum");
    remote.sql.run("create type mood as enum ('fine', 'glum')");
    let schema = schema("moods", &[("id", "integer"), ("m", "public.mood")], &["id"]);
    let query = "select n, case when n = 1 then 'fine' else 'glum' end::mood
                   from generate_series(1, 3) n";
    let changes = remote.rows(&schema, query);
    let mut target = remote.ready(&schema);
    target.applied(&changes);
    let held = target.part_digests(&[KeyRange::ALL], 1).expect("digests");
    assert_eq!(held, sent(&schema, &changes, &[KeyRange::ALL], 1));
}

#[test]
fn more_rows_than_asked_for_are_an_error() {
    let remote = &mut RemoteDb::new("verify_more");
    let schema = docs();
    let changes = remote.rows(&schema, "select n, 't', n from generate_series(1, 10) n");
    let mut target = remote.ready(&schema);
    target.applied(&changes);
    assert_eq!(target.held_rows(&[KeyRange::ALL], 10).expect("rows").len(), 10);
    let error = delivery_error(target.held_rows(&[KeyRange::ALL], 9));
    assert_eq!(error.sqlstate, "40001");
}

#[test]
fn an_empty_table_has_no_parts() {
    let remote = &mut RemoteDb::new("verify_empty");
    let mut target = remote.ready(&docs());
    assert_eq!(target.part_digests(&[KeyRange::ALL], 1).expect("digests"), PartDigests::new());
    assert_eq!(target.held_rows(&[KeyRange::ALL], 10).expect("rows"), []);
}
