//! Suites that run inside a backend; each test rolls back. What needs several transactions or
//! sessions is tested from outside, in `tests/`.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    fn one<T: pgrx::FromDatum + pgrx::IntoDatum>(sql: &str) -> Option<T> {
        Spi::get_one(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    fn all_different(values: &[&str]) {
        let list = values.join("), (");
        let sql = format!("select count(distinct f) from (values ({list})) v(f)");
        assert_eq!(one::<i64>(&sql), Some(values.len() as i64), "{sql}");
    }

    #[pg_test]
    fn chunks_are_numbered_and_at_the_bytes_they_say() {
        let sql = "select bool_and(convert_from(substring(convert_to(t, 'UTF8') from byte_start + 1
                                                for byte_end - byte_start), 'UTF8') = chunk
                               and length(chunk) <= 30)
                          and array_agg(n order by byte_start) = array(select generate_series(1, count(chunk)::int))
                     from (values (repeat('Größe zählt, sagte sie. ', 20))) v(t), coco.split_text(t, 30, 5)";
        assert_eq!(one::<bool>(sql), Some(true));
        assert_eq!(one::<i64>("select count(*) from coco.split_text('', 10)"), Some(0));
        assert_eq!(
            one::<String>(
                "select string_agg(chunk, '|') from coco.split_text(E'# A\n\none\n\n# B\n\ntwo', 10, 0, 'markdown')"
            ),
            Some("# A\n\none|# B\n\ntwo".to_owned())
        );
    }

    #[pg_test(error = "invalid values for arguments \"size\" (10) and \"overlap\" (10)")]
    fn an_overlap_as_long_as_the_chunk_is_refused() {
        Spi::run("select coco.split_text('a', 10, 10)").unwrap();
    }

    #[pg_test(error = "unrecognized value for argument \"language\": \"klingon\"")]
    fn an_unknown_language_is_refused() {
        Spi::run("select coco.split_text('a', 10, 0, 'klingon')").unwrap();
    }

    #[pg_test]
    fn a_fingerprint_tells_values_apart_and_not_how_they_are_stored() {
        all_different(&[
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
        ]);
        // Plain, compressed and out of line: one value, one fingerprint.
        Spi::run(
            "create temp table plain (t text); alter table plain alter t set storage plain;
             create temp table packed (t text);
             create temp table outside (t text); alter table outside alter t set storage external;
             insert into plain values (repeat('coco ', 1500)); insert into packed select t from plain;
             insert into outside select t from plain",
        )
        .unwrap();
        let sql = "select count(distinct coco.fingerprint(t)) from
                     (select t from plain union all select t from packed union all select t from outside) x";
        assert_eq!(one::<i64>(sql), Some(1));
    }

    #[pg_test]
    fn an_enums_fingerprint_goes_by_its_label() {
        // Its oid would be another after a restore.
        Spi::run("create type a as enum ('x', 'y'); create type b as enum ('y', 'x')").unwrap();
        assert_eq!(
            one::<bool>("select coco.fingerprint('x'::a) = coco.fingerprint('x'::b)"),
            Some(true)
        );
        assert_eq!(
            one::<bool>("select coco.fingerprint(array['x'::a]) = coco.fingerprint(array['x'::b])"),
            Some(true)
        );
        assert_eq!(
            one::<bool>("select coco.fingerprint(row('x'::a)) = coco.fingerprint(row('y'::a))"),
            Some(false)
        );
    }

    #[pg_test]
    fn a_records_dropped_columns_do_not_count() {
        Spi::run("create table d (a int, gone text, b text); insert into d values (1, 'x', 'b')")
            .unwrap();
        Spi::run("create temp table was as select coco.fingerprint(row(a, b)) as f from d")
            .unwrap();
        Spi::run("alter table d drop gone").unwrap();
        assert_eq!(one::<bool>("select coco.fingerprint(d) = was.f from d, was"), Some(true));
    }

    #[pg_test]
    fn normalised_text_keeps_words_lines_and_paragraphs() {
        let same = r"select coco.normalize_text(E'a  b \r\n\r\nc\t\n') = E'a b\n\nc'";
        assert_eq!(one::<bool>(same), Some(true));
        assert_eq!(one::<String>("select coco.normalize_text(null)"), None);
    }
}
