//! What happens to names after the declaration changes no row of a target.

use super::support::{TestDb, explain, update, verify};
use super::{differences, follows, quoted, text};

#[test]
fn a_later_overload_changes_nothing() {
    let mut db = TestDb::new("bound_overload");
    db.run(
        "create table t (id int primary key, v int not null, w varchar not null); insert into t values (1, 1, 'A'), (2, 2, 'B'), (3, 3, 'C');
         create function label(v numeric) returns text language sql immutable as $$ select 'number ' || v $$;
         create function differ(numeric, numeric) returns boolean language sql immutable as 'select $1 <> $2';
         create operator !== (leftarg = numeric, rightarg = numeric, function = differ);
         select coco.create_flow('f', 't', 'select id, label(v) as l, lower(w) as w, v !== 2 as d from t', 'tt', '{id}')",
    );
    db.update("f", "normal");
    let expected = "select id, label(v::numeric) as l, pg_catalog.lower(w::text) as w, v::numeric operator(public.!==) 2::numeric as d from t";
    db.run(
        "create function label(v int) returns text language sql immutable as $$ select 'integer ' || v $$;
         create function lower(varchar) returns text language sql immutable as $$ select 'planted' $$;
         create function differ(int, int) returns boolean language sql immutable as 'select null::boolean';
         create operator !== (leftarg = int, rightarg = int, function = differ);
         update t set v = v * 10, w = w || 'X' where id = 2",
    );
    follows(&mut db, "f", "tt", expected);
    // Nor where every item is evaluated anew, in a session that has seen nothing of what was before.
    let mut other = db.connect();
    update(&mut other, "f", "full_reprocess").unwrap_or_else(|e| panic!("{}", explain(&e)));
    let found = differences(&mut db, "tt", expected);
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The query is bound again when it is given again.
    db.run("select coco.set_query('f', null, 'select id, label(v) as l, lower(w) as w, v !== 2 as d from t')");
    follows(&mut db, "f", "tt", "select id, label(v) as l, lower(w) as w, v !== 2 as d from t");
}

#[test]
fn a_function_that_is_replaced_is_followed() {
    let mut db = TestDb::new("bound_replaced");
    db.run(
        "create table t (id int primary key, v int not null); insert into t values (1, 1), (2, 2);
         create function label(v int) returns text language sql immutable as $$ select 'one ' || v $$;
         select coco.create_flow('f', 't', 'select id, label(v) as l from t', 'tt', '{id}')",
    );
    follows(&mut db, "f", "tt", "select id, label(v) as l from t");
    db.run("create or replace function label(v int) returns text language sql immutable as $$ select 'two ' || v $$");
    follows(&mut db, "f", "tt", "select id, label(v) as l from t");
    db.run("alter function label(int) rename to etiquette");
    db.run("create or replace function etiquette(v int) returns text language sql immutable as $$ select 'three ' || v $$; update t set v = 5 where id = 1");
    follows(&mut db, "f", "tt", "select id, etiquette(v) as l from t");
}

#[test]
fn a_relation_in_an_earlier_schema_changes_nothing() {
    let mut db = TestDb::new("bound_earlier");
    let query = "select pay.id, amount * r as a from pay join rate using (cur)";
    db.run(&format!(
        "create schema app;
         create table public.rate (cur text primary key, r numeric); insert into public.rate values ('EUR', 1);
         create table public.pay (id int primary key, cur text not null, amount numeric not null); insert into public.pay values (1, 'EUR', 10), (2, 'EUR', 20);
         set search_path = app, public;
         select coco.create_flow('p'); select coco.add_source('p', 'pay');
         select coco.add_lookup('p', 'public.rate', affects => 'select pay.id from rate join pay using (cur)');
         select coco.add_target('p', 'public.paid', {}, '{{id}}')",
        quoted(query)
    ));
    db.update("p", "normal");
    db.run(
        "create table app.rate (cur text primary key, r numeric); insert into app.rate values ('EUR', 7);
         create table app.pay (id int primary key, cur text, amount numeric); insert into app.pay values (9, 'EUR', 9);
         update public.pay set amount = 11 where id = 1",
    );
    let expected = "select pay.id, amount * r as a from public.pay join public.rate using (cur)";
    follows(&mut db, "p", "public.paid", expected);
    db.run("update public.rate set r = 3");
    follows(&mut db, "p", "public.paid", expected);
    assert_eq!(
        text(&mut db, "select string_agg(a::text, ',' order by id) from public.paid"),
        "33,60"
    );
}

#[test]
fn temporary_objects_of_the_calling_session_change_nothing() {
    let mut db = TestDb::new("bound_temporary");
    let query = "select pay.id, amount * r as a, (amount::code)::text as c, twice(amount) as t from pay join rate using (cur)";
    db.run(&format!(
        "create table rate (cur text primary key, r numeric); insert into rate values ('EUR', 1);
         create table pay (id int primary key, cur text not null, amount numeric not null); insert into pay values (1, 'EUR', 10), (2, 'EUR', 20);
         create domain code as numeric; create function twice(numeric) returns numeric language sql immutable as 'select $1 * 2';
         select coco.create_flow('p'); select coco.add_source('p', 'pay', fingerprint => 'amount::code');
         select coco.add_lookup('p', 'rate', affects => 'select pay.id from rate join pay using (cur)');
         select coco.add_target('p', 'paid', {}, '{{id}}');
         select coco.create_flow('q', 'pay', 'select cur, sum(amount) as a from pay group by cur', 'sums', '{{cur}}', source_key => '{{cur}}')",
        quoted(query)
    ));
    db.update("p", "normal");
    db.update("q", "normal");
    db.run(
        "create temp table rate (cur text, r numeric); insert into rate values ('EUR', 99);
         create domain pg_temp.code as text default 'x' check (value <> '11');
         create function pg_temp.twice(numeric) returns numeric language sql immutable as 'select -1';
         update pay set amount = 11 where id = 1",
    );
    let expected = "select pay.id, amount * r as a, amount::text as c, public.twice(amount) as t from public.pay join public.rate using (cur)";
    let sums = "select cur, sum(amount) as a from public.pay group by cur";
    follows(&mut db, "p", "paid", expected);
    db.run("create temp table pay (id int, cur text, amount numeric); insert into pay values (1, 'EUR', 1000); create temp table paid (id int); create temp table sums (x int);
            update public.pay set amount = 12 where id = 1; update public.rate set r = 2");
    follows(&mut db, "p", "public.paid", expected);
    follows(&mut db, "q", "public.sums", sums);
    assert_eq!(
        text(&mut db, "select count(*)::text from coco.preview('p', 'full_reprocess')"),
        "0"
    );
    db.run("drop table pg_temp.pay, pg_temp.rate, pg_temp.paid, pg_temp.sums");
    follows(&mut db, "p", "paid", expected);
}

#[test]
fn renamed_schemas_tables_columns_and_types_change_nothing() {
    let mut db = TestDb::new("bound_renamed");
    db.run(
        "create schema shop; set search_path = shop, public;
         create type mood as enum ('a', 'b'); create function f(int) returns int language sql immutable as 'select $1 * 2';
         create table t (id int primary key, v int not null, m mood not null); insert into t values (1, 1, 'a'), (2, 2, 'b');
         create table names (id int primary key, name text); insert into names values (1, 'one'), (2, 'two');
         select coco.create_flow('row', 't', 'select id, f(v) as v, m from t', 'shop.tt', '{id}');
         select coco.create_flow('group', 't', 'select m, sum(f(v)) as v from shop.t group by m', 'shop.gg', '{m}', source_key => '{m}');
         select coco.create_flow('joined'); select coco.add_source('joined', 't', ordinal => 'v::bigint', fingerprint => 'f(v)');
         select coco.add_lookup('joined', 'names', affects => 'select id from names');
         select coco.add_target('joined', 'shop.jj', 'select t.id, name, v from t join names using (id)', '{id}')",
    );
    let mut other = db.connect();
    let mut step = |db: &mut TestDb, rename: &str, schema: &str, table: &str, v: &str, f: &str| {
        db.run(rename);
        db.run(&format!("update {schema}.{table} set {v} = {v} + 1; insert into {schema}.{table} select max(id) + 1, 5, 'b' from {schema}.{table}"));
        // A session that has updated before, and one that has not.
        follows(
            db,
            "row",
            &format!("{schema}.tt"),
            &format!("select id, {schema}.{f}({v}) as v, m from {schema}.{table}"),
        );
        for flow in ["group", "joined"] {
            update(&mut other, flow, "normal")
                .unwrap_or_else(|e| panic!("{rename}: {}", explain(&e)));
            let found = verify(&mut other, flow, false)
                .unwrap_or_else(|e| panic!("{rename}: {}", explain(&e)));
            assert!(found.is_empty(), "{rename}: {found:?}");
        }
        let found = differences(
            db,
            &format!("{schema}.gg"),
            &format!("select m, sum({schema}.{f}({v})) as v from {schema}.{table} group by m"),
        );
        assert!(found.is_empty(), "{rename}: {found:?}");
        let found = differences(
            db,
            &format!("{schema}.jj"),
            &format!(
                "select t.id, name, {v} from {schema}.{table} t join {schema}.names using (id)"
            ),
        );
        assert!(found.is_empty(), "{rename}: {found:?}");
        assert_eq!(
            text(db, "select coalesce(string_agg(last_error, ';'), '') from coco.status"),
            "",
            "{rename}"
        );
    };
    step(&mut db, "select 1", "shop", "t", "v", "f");
    step(&mut db, "alter schema shop rename to store", "store", "t", "v", "f");
    step(&mut db, "alter table store.t rename to things", "store", "things", "v", "f");
    step(&mut db, "alter function store.f rename to g", "store", "things", "v", "g");
    step(&mut db, "alter type store.mood rename to feeling", "store", "things", "v", "g");
    step(
        &mut db,
        "alter table store.things rename column v to amount",
        "store",
        "things",
        "amount",
        "g",
    );
    step(
        &mut db,
        "create schema shop; create table shop.t (id int primary key, v text); create function shop.f(int) returns int language sql as 'select 0'",
        "store",
        "things",
        "amount",
        "g",
    );
    step(&mut db, "alter schema store rename to mart", "mart", "things", "amount", "g");
}

/// A collation that is not its database's, under which `upper` and the order differ from "C".
fn other_collation(db: &mut TestDb) -> Option<String> {
    let found = text(
        db,
        "select coalesce((select collname::text from pg_collation where collname in ('pg_unicode_fast', 'pg_c_utf8', 'und-x-icu') order by collname desc limit 1), '')",
    );
    (!found.is_empty()).then_some(found)
}

#[test]
fn a_group_keeps_the_collations_of_its_columns() {
    let mut db = TestDb::new("bound_collations");
    let Some(collation) = other_collation(&mut db) else {
        eprintln!("this server has no collation to tell apart");
        return;
    };
    db.run(&format!(
        r#"create table word (id int primary key, page int not null, w text collate "{collation}" not null, n text collate "C" not null);
           insert into word values (1, 1, 'élan', 'b'), (2, 1, 'zebra', 'B'), (3, 2, 'straße', 'ç'), (4, 2, 'ÉTÉ', 'Ç');
           create domain named as text collate "{collation}"; alter table word add column d named; update word set d = w;"#
    ));
    let mut queries = vec![
        "select page, string_agg(upper(w), ' ' order by id) as s from word group by page".to_owned(),
        "select page, bool_or(w ~* 'éTÉ') as m, initcap(max(w)) as i, lower(min(w)) as l from word group by page".to_owned(),
        "select page, string_agg(w, ',' order by w) as o, string_agg(n, ',' order by n) as p from word group by page".to_owned(),
        "select page, count(distinct w) as c, min(n) as a, max(n) as b, bool_and(w < 'z') as lt from word group by page".to_owned(),
        "select page, string_agg(upper(d), ',' order by d) as s from word group by page".to_owned(),
    ];
    // A server that is built without ICU has no collation under which unequal strings are equal.
    let ignoring_case =
        "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    if db.client.batch_execute(ignoring_case).is_ok() {
        db.run(
            "create table mail (id int primary key, page int not null, w text collate ci not null); insert into mail values (1, 1, 'a@x'), (2, 1, 'A@X'), (3, 2, 'c@x')",
        );
        queries.push(
            "select page, count(distinct w) as c, bool_or(w = 'C@X') as e from mail group by page"
                .to_owned(),
        );
    }
    for (n, query) in queries.iter().enumerate() {
        let source = if query.contains("from mail") { "mail" } else { "word" };
        db.run(&format!(
            "select coco.create_flow('g{n}', '{source}', {}, 't{n}', '{{page}}', source_key => '{{page}}')",
            quoted(query)
        ));
    }
    for change in ["select 1", "update word set w = w || 'é', d = 'ß' || d where id in (2, 3)"] {
        db.run(change);
        for (n, query) in queries.iter().enumerate() {
            follows(&mut db, &format!("g{n}"), &format!("t{n}"), query);
        }
    }
}

#[test]
fn the_same_query_given_again_after_a_column_was_added_is_evaluated_again() {
    let mut db = TestDb::new("bound_added_column");
    let all = [
        ("j", "select id, to_jsonb(d) as j from doc d"),
        ("w", "select id, d::text as j from doc d"),
        ("star", "select * from doc"),
        ("c", "with q as (select * from public.doc) select id, row_to_json(q)::text as j from q"),
    ];
    db.run("create table doc (id int primary key, title text); insert into doc values (1, 'a'), (2, 'b')");
    for (flow, query) in all {
        db.run(&format!(
            "select coco.create_flow('{flow}', 'doc', {}, 't_{flow}', '{{id}}')",
            quoted(query)
        ));
        follows(&mut db, flow, &format!("t_{flow}"), query);
    }
    db.run("alter table doc add column lang text default 'en'; update doc set lang = 'de' where id = 2");
    for (flow, query) in all {
        // As with a view: `*` is what it was. An update must not fail, and target and coco.verify agree.
        db.update(flow, "normal");
        db.verify_clean(flow);
        db.run(&format!("select coco.set_query('{flow}', null, {})", quoted(query)));
        follows(&mut db, flow, &format!("t_{flow}"), query);
    }
}

#[test]
fn expressions_of_a_source_are_bound_too() {
    let mut db = TestDb::new("bound_expressions");
    db.run(
        "create table t (id int primary key, v int not null, m bigint not null); insert into t values (1, 1, 1), (2, 2, 1);
         create function norm(numeric) returns text language sql immutable as $$ select 'n' || $1 $$;
         create function version(numeric) returns bigint language sql immutable as 'select $1::bigint';
         create function touched(numeric) returns int language sql immutable as 'select $1::int';
         create table rate (id int primary key, r int not null); insert into rate values (1, 1), (2, 1);
         select coco.create_flow('f'); select coco.add_source('f', 't', ordinal => 'version(m)', fingerprint => 'norm(v)');
         select coco.add_lookup('f', 'rate', affects => 'select touched(id) as id from rate');
         select coco.add_target('f', 'tt', 'select t.id, t.v * r as v from t join rate using (id)', '{id}')",
    );
    let query = "select t.id, t.v * r as v from t join rate using (id)";
    follows(&mut db, "f", "tt", query);
    // Better matches, by which nothing would ever change, and nothing be affected.
    db.run(
        "create function norm(int) returns text language sql immutable as $$ select 'same' $$;
         create function version(bigint) returns bigint language sql immutable as 'select -1::bigint';
         create function touched(int) returns int language sql immutable as 'select null::int';
         update t set v = 10, m = 2 where id = 1; update rate set r = 5 where id = 2",
    );
    follows(&mut db, "f", "tt", query);
    let mut other = db.connect();
    other
        .batch_execute("create temp table rate (id int, r int); create temp table t (id int)")
        .unwrap();
    db.run("update rate set r = 6 where id = 1; update t set v = 11, m = 3 where id = 2");
    update(&mut other, "f", "normal").unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert_eq!(differences(&mut db, "tt", query), Vec::<String>::new());
    db.verify_clean("f");
}

#[test]
fn a_changed_type_of_what_a_query_reads_never_gives_wrong_rows() {
    let mut db = TestDb::new("bound_retyped");
    db.run(
        "create table t (id int primary key, v bigint not null); insert into t values (1, 1), (2, 4702111234474983745);
         create view shown as select id, v from t;
         create function body(int) returns bigint language sql stable as 'select v from t where id = $1';
         select coco.create_flow('f', 't', 'select id, body(id) as v from t', 'tt', '{id}');
         select coco.create_flow('g'); select coco.add_source('g', 't'); select coco.add_lookup('g', 'shown', key => '{id}', capture => 'scan', affects => 'select id from shown');
         select coco.add_target('g', 'gg', 'select t.id, shown.v from t join shown using (id)', '{id}')",
    );
    db.update("f", "normal");
    db.update("g", "normal");
    // Made again with another type: a query that was bound to the first one fails or follows, and never reads one type as another.
    db.client
        .batch_execute("drop function body(int) cascade")
        .unwrap_or_else(|e| println!("the function cannot be dropped: {}", explain(&e)));
    db.client
        .batch_execute("create function body(int) returns bytea language sql stable as $$ select '\\x41'::bytea $$")
        .unwrap_or_else(|e| println!("nor made again: {}", explain(&e)));
    db.run("update t set v = 3 where id = 1");
    if let Ok(counts) = update(&mut db.client, "f", "normal")
        && counts[0].failed == 0
    {
        assert_eq!(
            differences(&mut db, "tt", "select id, body(id) as v from t"),
            Vec::<String>::new()
        );
    }
    // The server has not gone.
    assert_eq!(text(&mut db, "select count(*)::text from tt"), "2");
}
