//! Functions on texts and values: pieces of a text, normalized text, and fingerprints.

use crate::support::TestDb;
use crate::support::server::Session;

#[test]
fn chunks_are_numbered_and_lie_at_the_bytes_they_name() {
    let database = TestDb::new("text_chunks");
    let mut db = Session(database.connect());
    assert!(db.holds(
        "select bool_and(convert_from(substring(convert_to(t, 'UTF8') from byte_start + 1
                                      for byte_end - byte_start), 'UTF8') = chunk
                     and length(chunk) <= 30)
                and array_agg(n order by byte_start) = array(select generate_series(1, count(chunk)::int))
           from (values (repeat('Größe zählt, sagte sie. ', 20))) v(t), coco.split_text(t, 30, 5)"
    ));
    assert_eq!(db.number("select count(*) from coco.split_text('', 10)"), 0);
    assert_eq!(
        db.text(
            "select string_agg(chunk, '|') from coco.split_text(E'# A\\n\\none\\n\\n# B\\n\\ntwo', 10, 0, 'markdown')"
        ),
        "# A\n\none|# B\n\ntwo"
    );
}

#[test]
fn arguments_of_split_text_are_checked() {
    let database = TestDb::new("text_arguments");
    let mut db = Session(database.connect());
    assert_eq!(
        db.fails("select coco.split_text('a', 10, 10)"),
        "22023 invalid values for arguments \"size\" (10) and \"overlap\" (10)"
    );
    assert_eq!(
        db.fails("select coco.split_text('a', 10, 0, 'klingon')"),
        "22023 unrecognized value for argument \"language\": \"klingon\""
    );
}

#[test]
fn a_fingerprint_tells_values_apart_and_not_how_they_are_stored() {
    let database = TestDb::new("text_fingerprint");
    let mut db = Session(database.connect());
    let different = [
        "coco.fingerprint('a'::text, 'bc'::text)",
        "coco.fingerprint('ab'::text, 'c'::text)",
        "coco.fingerprint('abc'::text)",
        "coco.fingerprint('a'::text, null::text, 'bc'::text)",
        "coco.fingerprint(null::text)",
        "coco.fingerprint(''::text)",
        "coco.fingerprint(1)",
        "coco.fingerprint(-1)",
        "coco.fingerprint(1::bigint, 2)",
        "coco.fingerprint(row(1, 'a'::text))",
        "coco.fingerprint(row(1, null::text))",
        "coco.fingerprint(array[1, 2])",
        "coco.fingerprint(array[[1, 2]])",
        "coco.fingerprint('{\"a\": 1}'::jsonb)",
        "coco.fingerprint(1.0)",
        "coco.fingerprint(1.00)",
        "coco.fingerprint('infinity'::timestamptz)",
        "coco.fingerprint('<a/>'::text::cstring)",
        "coco.fingerprint('pg_class'::regclass)",
    ];
    let values = different.join("), (");
    assert_eq!(
        db.number(&format!("select count(distinct f) from (values ({values})) v(f)")),
        different.len() as i64
    );
    // Plain, compressed and out of line: one value, one fingerprint.
    db.run(
        "create temp table plain (t text); alter table plain alter t set storage plain;
         create temp table packed (t text);
         create temp table outside (t text); alter table outside alter t set storage external;
         insert into plain values (repeat('coco ', 1500)); insert into packed select t from plain;
         insert into outside select t from plain",
    );
    let all = "select t from plain union all select t from packed union all select t from outside";
    assert_eq!(db.number(&format!("select count(distinct coco.fingerprint(t)) from ({all}) x")), 1);
}

#[test]
fn an_enums_fingerprint_goes_by_its_label() {
    let database = TestDb::new("text_enum");
    let mut db = Session(database.connect());
    // Its OID would be another after a restore.
    db.run("create type a as enum ('x', 'y'); create type b as enum ('y', 'x')");
    assert!(db.holds("select coco.fingerprint('x'::a) = coco.fingerprint('x'::b)"));
    assert!(db.holds("select coco.fingerprint(array['x'::a]) = coco.fingerprint(array['x'::b])"));
    assert!(!db.holds("select coco.fingerprint(row('x'::a)) = coco.fingerprint(row('y'::a))"));
}

#[test]
fn a_records_dropped_columns_do_not_count() {
    let database = TestDb::new("text_dropped");
    let mut db = Session(database.connect());
    db.run("create table d (a int, gone text, b text); insert into d values (1, 'x', 'b')");
    db.run("create temp table was as select coco.fingerprint(row(a, b)) as f from d");
    db.run("alter table d drop gone");
    assert!(db.holds("select coco.fingerprint(d) = was.f from d, was"));
}

#[test]
fn normalized_text_keeps_words_lines_and_paragraphs() {
    let database = TestDb::new("text_normalized");
    let mut db = Session(database.connect());
    assert!(db.holds(r"select coco.normalize_text(E'a  b \r\n\r\nc\t\n') = E'a b\n\nc'"));
    assert!(db.holds("select coco.normalize_text(null) is null"));
}
