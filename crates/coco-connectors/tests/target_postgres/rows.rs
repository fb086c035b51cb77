//! Rows as they come, change and go.

use super::remote_db::{DrivenTarget, RemoteDb, connector, schema};
use super::{ALL_DOCS, delivery_error, docs, has};
use coco_connectors::targets::Prepared;
use coco_core::change::{Change, ErrorScope, Values};

#[test]
fn rows_come_change_and_go() {
    let mut remote = RemoteDb::new("rows_come");
    let mut docs = remote.open(&docs());
    assert_eq!(docs.exists(), Ok(false));
    assert_eq!(docs.exists(), Ok(false), "to look makes nothing");
    assert_eq!(docs.prepare(), Ok(Prepared::Made));
    assert_eq!(docs.exists(), Ok(true));
    let two = remote.rows(&docs.schema, "values (1, 'one', 1.5), (2, 'two', null)");
    docs.applied(&two);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,one,1.50)", "(2,two,)"]);

    // The same batch again, and again in another session that finds the table.
    docs.applied(&two);
    let mut again = remote.open(&docs.schema);
    assert_eq!(again.prepare(), Ok(Prepared::Found));
    again.applied(&two);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,one,1.50)", "(2,two,)"]);

    let mut mixed = remote.rows(&docs.schema, "values (2, 'zwei', 2.25), (3, null, 3)");
    mixed.extend(remote.deletions(&docs.schema, "values (1), (99)"));
    docs.applied(&mixed);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(2,zwei,2.25)", "(3,,3.00)"]);
    docs.applied(&mixed);
    again.applied(&mixed);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(2,zwei,2.25)", "(3,,3.00)"]);

    docs.applied(&remote.deletions(&docs.schema, "values (2), (3)"));
    docs.applied(&[]);
    assert_eq!(remote.sql.number("select count(*) from docs"), 0);

    docs.remove().expect("it goes");
    docs.remove().expect("nothing there is no error");
    assert!(remote.sql.holds("select to_regclass('docs') is null"));
    let mut made = remote.open(&docs.schema);
    assert_eq!(made.prepare(), Ok(Prepared::Made));
}

#[test]
fn rows_that_come_before_they_are_noted_are_seen_after() {
    let mut remote = RemoteDb::new("filled");
    let mut docs = remote.ready(&docs());
    let rows = remote.rows(&docs.schema, "select n, 'row ' || n, n from generate_series(1, 500) n");
    let mut reader = remote.server.connect(&remote.name);
    let mut is_seen = |rows| assert_eq!(reader.number("select count(*) from docs"), rows);
    assert_eq!(docs.load_stream(&rows, false, || is_seen(0)), Ok(false));
    is_seen(0);
    assert_eq!(docs.load_stream(&rows, true, || is_seen(0)), Ok(true));
    is_seen(500);
    // Existing rows are left to `apply`.
    assert_eq!(docs.load_stream(&rows[..1], true, || is_seen(500)), Ok(false));
    docs.applied(&rows);
    is_seen(500);
    // Rejected rows are, too.
    remote.sql.run("truncate docs; alter table docs add check (id <> 7)");
    let mut again = remote.ready(&docs.schema);
    assert_eq!(again.load_stream(&rows, true, || is_seen(0)), Ok(false));
    is_seen(0);
    let rejected = again.apply(&rows).expect("an answer");
    assert_eq!(
        rejected.iter().map(|r| (r.change, r.sqlstate.as_str())).collect::<Vec<_>>(),
        [(6, "23514")]
    );
    is_seen(499);
    // Malformed rows are not written.
    remote.sql.run("truncate docs");
    let mut again = remote.ready(&docs.schema);
    let mut malformed = rows[..3].to_vec();
    malformed[1].row = Some(Values::Binary(vec![0, 0, 0, 9, 1]));
    assert_eq!(again.load_stream(&malformed, true, || is_seen(0)), Ok(false));
    is_seen(0);
    assert_eq!(again.apply(&malformed).expect("an answer").len(), 1);
    is_seen(2);
}

#[test]
fn what_is_the_same_is_not_written() {
    let mut remote = RemoteDb::new("same_not_written");
    let mut docs = remote.ready(&docs());
    let query = "select n, 'row ' || n, n * 1.5 from generate_series(1, 100) n";
    docs.applied(&remote.rows(&docs.schema, query));
    remote.sql.run("create table before as select xmin::text as x, id from docs");
    let query = "select n, case n % 10 when 0 then 'new' else 'row ' || n end, n * 1.5
                   from generate_series(1, 100) n";
    docs.applied(&remote.rows(&docs.schema, query));
    let written = "select count(*) from docs join before using (id) where docs.xmin::text <> x";
    assert_eq!(remote.sql.number(written), 10);
    assert_eq!(remote.sql.number("select count(*) from docs where title = 'new'"), 10);
}

#[test]
fn what_is_equal_and_not_the_same_is_written() {
    let mut remote = RemoteDb::new("equal_not_same");
    let numbers =
        schema("n", &[("k", "numeric"), ("v", "numeric"), ("f", "double precision")], &["k"]);
    let mut numbers = remote.ready(&numbers);
    numbers.applied(&remote.rows(&numbers.schema, "values (1.0, 2.0, '0'::float8)"));
    numbers.applied(&remote.rows(&numbers.schema, "values (1.00, 2.00, '-0'::float8)"));
    assert_eq!(remote.sql.rows("select n::text from n"), ["(1.00,2.00,-0)"]);
    numbers.applied(&remote.deletions(&numbers.schema, "values (1.000)"));
    assert_eq!(remote.sql.number("select count(*) from n"), 0);
}

#[test]
fn keys_of_several_columns_and_of_other_operators() {
    let mut remote = RemoteDb::new("keys");
    if has(&mut remote, "citext") {
        remote.sql.run("create schema ext; create extension citext schema ext");
        let words = schema("words", &[("n", "integer"), ("word", "public.citext")], &["word"]);
        let mut words = remote.ready(&words);
        words.applied(&remote.rows(&words.schema, "values (1, 'One'::ext.citext), (2, 'two')"));
        words.applied(&remote.rows(&words.schema, "values (3, 'ONE'::ext.citext)"));
        words.applied(&remote.deletions(&words.schema, "values ('TWO'::ext.citext)"));
        assert_eq!(remote.sql.rows("select words::text from words"), ["(3,ONE)"]);
        // Two keys here that are one key on the server can only be fixed in the declaration.
        let twice = remote.rows(&words.schema, "values (4, 'x'::ext.citext), (5, 'X')");
        let found = delivery_error(words.apply(&twice));
        assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "21000"));
    }
    let parts = schema("parts", &[("v", "text"), ("b", "text"), ("a", "integer[]")], &["a", "b"]);
    remote
        .sql
        .run("create table parts (v text, b text collate \"C\", a integer[], primary key (b, a))");
    let mut parts = remote.ready(&parts);
    parts
        .applied(&remote.rows(&parts.schema, "values ('x', 'b', '{1}'::int[]), ('y', 'b', '{2}')"));
    parts.applied(&remote.rows(&parts.schema, "values ('z', 'b', '{1}'::int[])"));
    parts.applied(&remote.deletions(&parts.schema, "values ('{2}'::int[], 'b')"));
    assert_eq!(remote.sql.rows("select parts::text from parts"), ["(z,b,{1})"]);
    let all_key = schema("tags", &[("a", "integer"), ("b", "text")], &["a", "b"]);
    let mut tags = remote.ready(&all_key);
    for _ in 0..2 {
        tags.applied(&remote.rows(&all_key, "values (1, 'x'), (1, 'y')"));
    }
    assert_eq!(remote.sql.number("select count(*) from tags"), 2);
}

fn refused_places(docs: &mut DrivenTarget, changes: &[Change]) -> Vec<(usize, String)> {
    let rejected = docs.apply(changes).unwrap_or_else(|t| panic!("{t:?}"));
    rejected.into_iter().map(|r| (r.change, r.sqlstate)).collect()
}

#[test]
fn rows_that_are_refused_keep_no_other_from_arriving() {
    let mut remote = RemoteDb::new("refused");
    remote.sql.run(
        "create table docs (id bigint primary key, title text unique, price numeric(10,2) check (price < 1000));
         create table notes (doc bigint references docs deferrable initially deferred);
         create function picky() returns trigger language plpgsql as $$
           begin
             if new.title = 'raise' then raise exception 'not this one'; end if;
             return new;
           end $$;
         create trigger picky before insert or update on docs for each row execute function picky()",
    );
    let mut docs = remote.ready(&docs());
    let some = "select n, case n when 20 then 'raise' when 30 then repeat(md5('x') || md5('y'), 900) else 't' || n end,
                       case n when 10 then 1000 else n end
                  from generate_series(0, 99) n";
    let long = some.replace(
        "repeat(md5('x') || md5('y'), 900)",
        "(select string_agg(md5(i::text), '') from generate_series(1, 900) i)",
    );
    let rows = remote.rows(&docs.schema, &long);
    let expected = [(10, "23514"), (20, "P0001"), (30, "54000")].map(|(n, s)| (n, s.to_owned()));
    // By a direct copy, and then as existing rows.
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.number("select count(*) from docs"), 97);
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.number("select count(*) from docs"), 97);

    // Deletions that a deferred constraint forbids, among others. A value of a unique column other
    // than the key is free again after its row is deleted.
    remote.sql.run("insert into notes values (5), (7)");
    let mut mixed = remote.deletions(&docs.schema, "select n from generate_series(4, 8) n");
    mixed.extend(remote.rows(&docs.schema, "values (200, 't4', 1), (201, 't5', 1)"));
    let expected = [(1, "23503"), (3, "23503"), (6, "23505")].map(|(n, s)| (n, s.to_owned()));
    assert_eq!(refused_places(&mut docs, &mixed), expected);
    let left =
        remote.sql.rows("select id from docs where id between 4 and 8 or id >= 200 order by id");
    assert_eq!(left, ["5", "7", "200"]);
    assert_eq!(refused_places(&mut docs, &mixed), expected);

    // All changes.
    let rows = remote.rows(&docs.schema, "select n, 'raise', 1 from generate_series(300, 364) n");
    let rejected = docs.apply(&rows).expect("no trouble");
    assert_eq!(rejected.iter().map(|r| r.change).collect::<Vec<_>>(), (0..65).collect::<Vec<_>>());
    assert!(rejected.iter().all(|r| r.message == "not this one"));
    docs.applied(&remote.rows(&docs.schema, "values (300, 'fine', 1)"));
}

#[test]
fn rows_swap_a_value_that_is_unique_beside_the_key() {
    let mut remote = RemoteDb::new("swaps");
    remote.sql.run(
        "create table docs (id bigint primary key, title text unique, price numeric(10,2) check (price < 1000));
         create table children (doc bigint references docs on delete cascade)",
    );
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "select n, 't' || n, 1 from generate_series(0, 99) n"));
    remote.sql.run("insert into children values (50)");
    let swap =
        "select n, case n when 1 then 't2' when 2 then 't3' when 3 then 't1' else 't' || n end, 2
                  from generate_series(0, 99) n";
    docs.applied(&remote.rows(&docs.schema, swap));
    let title = "select string_agg(title, ' ' order by id) from docs where id between 1 and 3";
    assert_eq!(remote.sql.rows(title), ["t2 t3 t1"]);
    // A row that does not change the value is updated.
    assert_eq!(remote.sql.number("select count(*) from children"), 1);
    docs.applied(
        &remote.rows(&docs.schema, "select n, 't' || n + 1, 2 from generate_series(1, 99) n"),
    );
    assert_eq!(remote.sql.rows(title), ["t2 t3 t4"]);

    // Together with rejected rows: for a value, for a value of an unrelated row, and for values
    // that rejected rows keep.
    let rows = "values (1, 't4', 1), (3, 't2', 1), (5, 't7', 1000), (10, 't6', 1), (20, 't0', 1), (30, 't21', 1), (40, 't31', 1)";
    let expected = [(2, "23514"), (3, "23505"), (4, "23505"), (5, "23505"), (6, "23505")];
    let expected = expected.map(|(n, s)| (n, s.to_owned()));
    let rows = remote.rows(&docs.schema, rows);
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.rows(title), ["t4 t3 t2"]);
    assert_eq!(remote.sql.number("select count(*) from docs"), 100);
}

#[test]
fn rows_out_of_form_are_refused_alone() {
    let mut remote = RemoteDb::new("malformed");
    let mut docs = remote.ready(&docs());
    let mut rows = remote.rows(&docs.schema, "select n, 'x', 1 from generate_series(0, 4) n");
    let Some(Values::Binary(bytes)) = rows[1].row.as_mut() else { panic!("no bytes") };
    bytes.truncate(9);
    rows[3].row = Some(Values::Json("{}".to_owned()));
    let expected = [(1, "22P03"), (3, "22P03")].map(|(n, s)| (n, s.to_owned()));
    assert_eq!(refused_places(&mut docs, &rows), expected);
    // In the right form, but not a value of its type.
    let mut rows = remote.rows(&docs.schema, "select n, 'xx', 1 from generate_series(0, 4) n");
    let Some(Values::Binary(bytes)) = rows[2].row.as_mut() else { panic!("no bytes") };
    bytes[16] = 0xff;
    assert_eq!(refused_places(&mut docs, &rows), [(2, "22021".to_owned())]);
    assert_eq!(
        remote.sql.rows("select id || title from docs order by id"),
        ["0xx", "1xx", "2x", "3xx", "4xx"]
    );
}

#[test]
fn whole_batches_of_all_kinds() {
    let mut remote = RemoteDb::new("large");
    let mut docs = remote.ready(&docs());
    let most = connector().batch.changes as i64;
    for n in 0..3 {
        let (from, to) = (n * most, (n + 1) * most - 1);
        let query =
            format!("select n, repeat('x', 200), n % 100 from generate_series({from}, {to}) n");
        docs.applied(&remote.rows(&docs.schema, &query));
    }
    assert_eq!(remote.sql.number("select count(*) from docs"), 3 * most);
    // Some rows are new, some changed, some unchanged, some deleted, one rejected.
    remote.sql.run("alter table docs add check (price <> 666)");
    let query = format!(
        "select n, case when n % 2 = 0 then 'y' else repeat('x', 200) end,
                case n when {most} + 17 then 666 else n % 100 end
           from generate_series({most} * 5 / 2, {most} * 7 / 2 - 1001) n
         union all select {most} + 17, 'y', 666"
    );
    let mut rows = remote.rows(&docs.schema, &query);
    rows.extend(remote.deletions(&docs.schema, "select n from generate_series(0, 998) n"));
    assert_eq!(rows.len(), most as usize);
    let expected = vec![(most as usize - 1000, "23514".to_owned())];
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.number("select count(*) from docs"), most * 7 / 2 - 1000 - 999);
    assert_eq!(remote.sql.number("select count(*) from docs where title = 'y'"), (most - 1000) / 2);
    assert_eq!(refused_places(&mut docs, &rows), expected);
}

#[test]
fn new_rows_are_copied_also_after_others() {
    let mut remote = RemoteDb::new("new_again");
    // A direct copy follows only the lock in its transaction; rows through the temporary table
    // follow other commands. A statement trigger distinguishes them.
    remote.sql.run(
        "create table docs (id bigint primary key, title text, price numeric(10,2));
         create table how (query text);
         create function note() returns trigger language plpgsql as $$
           begin insert into public.how values (left(current_query(), 4)); return null; end $$;
         create trigger note before insert on docs execute function note()",
    );
    let mut docs = remote.ready(&docs());
    let mut write = |from: i64, to: i64| {
        let query = format!("select n, 'x', 1 from generate_series({from}, {to}) n");
        docs.applied(&remote.rows(&docs.schema, &query));
        let how = remote.sql.rows("select query from how");
        remote.sql.run("truncate how");
        how
    };
    // The first batch into an empty table, then new rows, then some existing ones, then new rows,
    // of which the first batch shows that they are new.
    assert_eq!(write(1, 10), ["copy"]);
    assert_eq!(write(11, 20), ["copy"]);
    assert_eq!(write(15, 25), ["with"]);
    assert_eq!(write(30, 35), ["with"]);
    assert_eq!(write(40, 45), ["copy"]);
    assert_eq!(remote.sql.number("select count(*) from docs"), 37);
}
