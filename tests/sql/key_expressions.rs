//! Groups whose key contains expressions: each change moves rows between the groups of the old and the new values.

use crate::support;

use crate::compared::{is_the_query, refused, rows, text};
use support::TestDb;

/// Columns of types that a change log stores in another form than the table: lengths, scales, a domain, and one without
/// NULL.
const SALES: &str = "
    create domain short as varchar(8);
    create table sales (id int primary key, at timestamptz not null, city varchar(10), code char(3), name short,
                        price numeric(8,2), kind int not null, amount int not null);
    insert into sales
    select i, timestamptz '2026-03-01 12:00Z' + i * interval '5 hours', (array['Rome', 'ROME', 'Oslo', null])[i % 4 + 1],
           'c' || i % 3, 'n' || i % 2, i / 3.0, i % 3, i
      from generate_series(1, 40) i";

/// Each with its source key, its target key, and its query.
const FLOWS: [(&str, &str, &str, &str); 6] = [
    (
        "day",
        "{(at at time zone 'Europe/Berlin')::date}",
        "day",
        "select (at at time zone 'Europe/Berlin')::date as day, count(*) as n, sum(amount) as total from sales group by 1",
    ),
    (
        "city",
        "{lower(city),kind}",
        "city,kind",
        "select lower(city) as city, kind, sum(amount) as total, max(id) as last from sales group by lower(city), kind",
    ),
    (
        "several",
        "{\"upper(code || name) AS code\",trunc(price)}",
        "c,p",
        "with s as (select upper(code || name) as c, trunc(price) as p, amount from sales)
         select c, p, sum(amount) as total from s group by c, p",
    ),
    // rows of the group, and none of the key's columns among the others that the query reads
    (
        "rows",
        "{amount % 5}",
        "id",
        "select id, kind, count(*) over (partition by amount % 5) as beside from sales",
    ),
    // by list: the target key is not the source key
    (
        "list",
        "{id / 10}",
        "most",
        "select max(id) as most, string_agg(code, ',' order by id) as codes from sales group by id / 10",
    ),
    (
        "parity",
        "{amount % 2 = 0}",
        "even",
        "select amount % 2 = 0 as even, avg(price) as mean from sales group by 1",
    ),
];

/// What writers do.
const CHANGES: [&str; 11] = [
    "update sales set amount = amount + 1 where id = 2",
    "update sales set at = at + interval '1 day', city = 'Bern' where id % 7 = 0",
    "update sales set city = null, price = null where id = 1",
    "update sales set code = null where id < 4",
    "update sales set name = 'other', price = 999.99 where id = 5",
    "insert into sales values (100, '2020-01-01Z', 'Paris', 'x', null, 1, 1, 1), (101, '2020-01-01Z', 'PARIS', 'X', 'n', 1, 1, 3)",
    "delete from sales where id between 20 and 25",
    "update sales set id = id + 1000 where id = 7",
    "update sales set city = city, amount = amount",
    "truncate sales; insert into sales values (1, '2020-06-01 22:30Z', 'a', 'b', 'c', 2, 0, 4)",
    "delete from sales",
];

fn declare(db: &mut TestDb, capture: &str) {
    for (flow, key, target_key, query) in FLOWS {
        db.client
            .execute(
                "select coco.create_flow($1, 'sales', $2, $1 || '_t', $3::text::text[], source_key => $4::text::text[],
                                         capture => $5)",
                &[&flow, &query, &format!("{{{target_key}}}"), &key, &capture],
            )
            .unwrap_or_else(|error| panic!("{flow}: {error:?}"));
    }
}

#[test]
fn rows_move_between_the_groups_of_old_and_new_values() {
    for capture in ["trigger", "scan"] {
        let mut db = TestDb::new(&format!("key_expressions_{capture}"));
        db.run(SALES);
        declare(&mut db, capture);
        for (flow, _, _, query) in FLOWS {
            db.update(flow, "normal");
            is_the_query(&mut db, flow, &format!("{flow}_t"), query, "the first update");
            let again = &db.update(flow, "normal")[0];
            assert_eq!(again.evaluated, 0, "{capture} {flow}");
        }
        for change in CHANGES {
            db.run(change);
            for (flow, _, _, query) in FLOWS {
                db.update(flow, "normal");
                is_the_query(&mut db, flow, &format!("{flow}_t"), query, change);
            }
        }
    }
}

#[test]
fn deltas_keep_groups_by_expressions() {
    let mut db = TestDb::new("key_expressions_deltas");
    db.run(SALES);
    let flows = [
        FLOWS[0],
        FLOWS[1],
        FLOWS[5],
        (
            "both",
            "{kind,upper(code)}",
            "shown,more",
            "select upper(code) || '!' as shown, kind * 2 as more, count(*) filter (where amount > 3) as n from sales
              where id % 6 > 0 group by upper(code), kind having count(*) > 1",
        ),
    ];
    for (flow, key, target_key, query) in flows {
        db.client
            .execute(
                "select coco.create_flow($1, 'sales', $2, $1 || '_t', $3::text::text[], source_key => $4::text::text[],
                                         aggregate => 'delta')",
                &[&flow, &query, &format!("{{{target_key}}}"), &key],
            )
            .unwrap_or_else(|error| panic!("{flow}: {error:?}"));
        db.update(flow, "normal");
        is_the_query(&mut db, flow, &format!("{flow}_t"), query, "the first update");
        assert_eq!(db.update(flow, "normal")[0].evaluated, 0, "{flow}");
    }
    for change in CHANGES {
        db.run(change);
        for (flow, _, _, query) in flows {
            db.update(flow, "normal");
            is_the_query(&mut db, flow, &format!("{flow}_t"), query, change);
        }
    }
    // A row for which the query raises an error fails its group alone.
    db.run(
        "insert into sales (id, at, kind, amount) values (1, '2026-06-01Z', 1, 1), (2, '2026-06-02Z', 1, 0);
         select coco.create_flow('failing', 'sales', 'select (at at time zone ''UTC'')::date as day, sum(10 / amount) as x
           from sales group by 1', 'failing_t', '{day}', source_key => '{(at at time zone ''UTC'')::date AS day}',
           aggregate => 'delta')",
    );
    db.update("failing", "normal");
    assert_eq!(rows(&mut db, "select day || ' ' || x from failing_t"), ["2026-06-01 10"]);
    let failed =
        "select source_key::text || ' ' || sqlstate from coco.errors where flow = 'failing'";
    assert_eq!(rows(&mut db, failed), ["{\"day\": \"2026-06-02\"} 22012"]);
    db.run("update sales set amount = 5 where id = 2; select coco.retry('failing')");
    db.verify_clean("failing");
}

#[test]
fn no_query_over_such_groups_is_warned_of() {
    let mut db = TestDb::new("key_expressions_local");
    db.run(SALES);
    declare(&mut db, "auto");
    let warnings = "select name || ': ' || detail from coco.flows as f, coco.explain(f.flow) as e
                     where e.section = 'warning'";
    assert_eq!(rows(&mut db, warnings), Vec::<String>::new());
    // The rows of a group are found by the key, where the query tells that both are the same.
    let owned = "select flow || ' ' || coalesce(array_to_string(item_key_columns, ','), '-')
                   from coco_internal.target order by flow";
    assert_eq!(
        rows(&mut db, owned),
        ["city city,kind", "day day", "list -", "parity even", "rows -", "several c,p"]
    );
}

#[test]
fn only_the_groups_that_change_are_looked_at() {
    let mut db = TestDb::new("key_expressions_few");
    db.run(
        "create table sales (id int primary key, at timestamptz not null, amount int not null);
         insert into sales select i, timestamptz '2026-01-01Z' + i * interval '1 minute', i from generate_series(1, 40000) i;
         analyze sales;
         select coco.create_flow('f', 'select (at at time zone ''UTC'')::date as day, sum(amount) as total from sales group by 1')",
    );
    let first = &db.update("f", "normal")[0];
    assert_eq!((first.seen, first.upserted), (28, 28), "{first:?}");
    db.run("update sales set amount = amount + 1 where id = 100");
    let next = &db.update("f", "normal")[0];
    assert_eq!((next.seen, next.evaluated, next.upserted), (1, 1, 1), "{next:?}");
    db.run("update sales set at = at + interval '2 days' where id = 200");
    let next = &db.update("f", "normal")[0];
    assert_eq!((next.seen, next.evaluated, next.upserted), (2, 2, 2), "{next:?}");
    db.verify_clean("f");
    // An index on the expression serves the rows of one group, and coco.explain says so.
    let index = "select hint from coco.explain('f') where section = 'index'";
    let create = text(&mut db, index);
    assert_eq!(create, "CREATE INDEX ON public.sales ((((at AT TIME ZONE 'UTC'::text))::date));");
    db.run(&create);
    db.run("analyze sales");
    let plan = "select string_agg(detail, e'\\n') from coco.explain('f') where section = 'plan for one item'";
    let plan = text(&mut db, plan);
    assert!(plan.contains("sales_timezone_idx") && !plan.contains("Seq Scan on sales"), "{plan}");
}

#[test]
fn the_key_is_found_in_the_query() {
    let mut db = TestDb::new("key_expressions_found");
    db.run(
        "create table sales (id int primary key, at timestamptz not null, city text not null, amount int not null);
         create table cities (city text primary key, country text not null);
         insert into cities values ('Rome', 'it'), ('Oslo', 'no');
         insert into sales values (1, '2026-01-01Z', 'Rome', 1), (2, '2026-01-02Z', 'Oslo', 2), (3, '2026-01-02Z', 'Rome', 4);
         select coco.create_flow('by_month',
           $$select date_trunc('month', at at time zone 'UTC') as month, upper(city) as city, sum(amount) as total
               from sales group by 1, 2$$);
         select coco.create_flow('by_day',
           $$select (at at time zone 'UTC')::date as day, string_agg(distinct c.country, ',') as countries
               from sales s join cities c using (city) group by 1$$)",
    );
    // The name of a column of the table stays the column's.
    assert_eq!(
        rows(&mut db, "select array_to_string(key, ',') from coco.sources order by flow"),
        ["day", "month,city1"]
    );
    for flow in ["by_month", "by_day"] {
        db.update(flow, "normal");
        db.verify_clean(flow);
    }
    // A lookup beside such a key finds the groups that it affects.
    db.run("update cities set country = 'IT' where city = 'Rome'");
    let c = &db.update("by_day", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (2, 2), "{c:?}");
    db.run("update cities set country = 'NO' where city = 'Oslo'");
    let c = &db.update("by_day", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    db.verify_clean("by_day");
    // No single relation determines these groups.
    let why = refused(
        &mut db,
        "select coco.create_flow('x', $$select s.city || c.country as both, count(*) from sales s, cities c group by 1$$)",
    );
    assert!(why.contains("argument \"source\" is missing"), "{why}");
}

#[test]
fn targets_have_a_primary_key_where_the_expression_is_never_null() {
    let mut db = TestDb::new("key_expressions_null");
    db.run(SALES);
    declare(&mut db, "auto");
    let constraint = |table: &str| {
        format!(
            "select pg_get_constraintdef(oid) from pg_constraint
              where conrelid = '{table}'::regclass and contype in ('p', 'u')"
        )
    };
    assert_eq!(text(&mut db, &constraint("day_t")), "PRIMARY KEY (day)");
    assert_eq!(text(&mut db, &constraint("city_t")), "UNIQUE NULLS NOT DISTINCT (city, kind)");
}

#[test]
fn an_item_is_named_by_its_key() {
    let mut db = TestDb::new("key_expressions_named");
    db.run(SALES);
    declare(&mut db, "auto");
    db.update("city", "normal");
    assert_eq!(
        rows(
            &mut db,
            "select source_key::text from coco.lineage('city_t', '{\"city\": \"rome\", \"kind\": 1}')"
        ),
        ["{\"kind\": 1, \"lower\": \"rome\"}"]
    );
    assert_eq!(
        rows(
            &mut db,
            "select key::text from coco.outputs('city', '{\"kind\": 1, \"lower\": null}')"
        ),
        ["{\"city\": null, \"kind\": 1}"]
    );
    let evaluated =
        "select output - 'last' from coco.evaluate('city', '{\"kind\": 2, \"lower\": \"oslo\"}')";
    let stored = "select to_jsonb(t) - 'last' from city_t t where city = 'oslo' and kind = 2";
    assert_eq!(
        rows(&mut db, &format!("select x::text from ({evaluated}) q(x)")),
        rows(&mut db, &format!("select x::text from ({stored}) q(x)"))
    );
    let given = "select (output->>'total')::text from coco.evaluate('city', '{\"kind\": 2, \"lower\": \"oslo\"}',
                   item => '[{\"id\": 1, \"city\": \"OSLO\", \"amount\": 5}, {\"id\": 2, \"city\": \"Oslo\", \"amount\": 6}]')";
    assert_eq!(rows(&mut db, given), ["11"]);
}

#[test]
fn an_error_in_the_expression_is_that_of_a_row_that_exists() {
    let mut db = TestDb::new("key_expressions_error");
    db.run(
        "create table s (id int primary key, t text not null, v int not null);
         insert into s values (1, '1', 1), (2, '2', 2);
         select coco.create_flow('f', 's', 'select t::int as k, sum(v) as total from s group by 1', 't', '{k}',
                                 source_key => '{t::int}')",
    );
    db.update("f", "normal");
    db.run("insert into s values (3, 'three', 3)");
    let why = refused(&mut db, "select * from coco.update('f')");
    assert!(why.starts_with("22P02 | "), "{why}");
    // The change log still has the row when it has gone.
    db.run("delete from s where id = 3; update s set v = 10 where id = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    db.verify_clean("f");
    db.run("update s set t = '2' where id = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.upserted, c.deleted), (1, 1, 1), "{c:?}");
    db.verify_clean("f");
}

#[test]
fn names_that_the_expression_was_bound_to_stay() {
    let mut db = TestDb::new("key_expressions_bound");
    db.run(
        "create schema first; create schema other;
         create function first.part(int) returns int immutable language sql return $1 % 10;
         create function other.part(int) returns int immutable language sql return -1;
         create table s (id int primary key, k int not null, v int not null);
         insert into s select i, i, i from generate_series(1, 20) i;
         set search_path = first, public;
         select coco.create_flow('f', 's', 'select part(k) as p, sum(v) as total from s group by 1', 'public.t', '{p}',
                                 source_key => '{part(k)}');
         set search_path = other, public",
    );
    db.update("f", "normal");
    db.run("alter table s rename column k to other_name; update s set v = 100 where id = 3");
    db.update("f", "normal");
    db.verify_clean("f");
    assert_eq!(text(&mut db, "select count(*)::text from public.t"), "10");
    // What the flow reads is what its definition says.
    db.run("set search_path = public");
    let definition = text(&mut db, "select coco.flow_definition('f')");
    assert!(definition.contains("first.part(other_name)"), "{definition}");
    db.run("select coco.rename_flow('f', 'g')");
    let comment =
        "select obj_description(key_view, 'pg_class') || ' ' || key_view from coco_internal.source";
    assert_eq!(
        text(&mut db, comment),
        "The expressions in the key of source s of flow g coco.key_1_g"
    );
    // Its logic is part of the flow's.
    db.run("create or replace function first.part(int) returns int immutable language sql return $1 % 2");
    db.update("g", "normal");
    db.verify_clean("g");
    assert_eq!(text(&mut db, "select count(*)::text from public.t"), "2");
    let why = refused(&mut db, "drop function first.part(int)");
    assert!(why.starts_with("2BP01 | "), "{why}");
}

#[test]
fn a_declaration_with_the_same_expressions_changes_nothing() {
    let mut db = TestDb::new("key_expressions_again");
    db.run(SALES);
    declare(&mut db, "auto");
    for (flow, _, _, query) in FLOWS {
        db.update(flow, "normal");
        let definition = text(&mut db, &format!("select coco.flow_definition('{flow}')"));
        let again = definition.replacen("(flow", "(or_replace => true, flow", 1);
        db.run(&again);
        assert_eq!(db.update(flow, "normal")[0].evaluated, 0, "{flow}");
        db.run(&format!("select coco.drop_flow('{flow}')"));
        db.run(&definition);
        db.update(flow, "normal");
        is_the_query(&mut db, flow, &format!("{flow}_t"), query, "declared from its definition");
    }
    let plan = |key: &str| {
        format!(
            "select object || ' ' || change from coco.plan('city', 'sales', 'select lower(city) as city, kind, sum(amount) as total,
                                          max(id) as last from sales group by lower(city), kind', 'city_t', '{{city,kind}}', source_key => '{key}')"
        )
    };
    assert_eq!(rows(&mut db, &plan("{kind, lower( city ) /* as before */}")), Vec::<String>::new());
    assert_eq!(
        rows(&mut db, &plan("{upper(city),kind}"))[0],
        "source key (lower(city), kind) becomes (upper(city), kind)"
    );
}

#[test]
fn a_query_changes_without_a_gap() {
    let mut db = TestDb::new("key_expressions_gapless");
    db.run(SALES);
    declare(&mut db, "auto");
    db.update("day", "normal");
    db.run(
        "select coco.set_query('day', 'day_t', 'select (at at time zone ''Europe/Berlin'')::date as day, min(amount) as least
                                                  from sales group by 1', gapless => true)",
    );
    db.update("day", "normal");
    db.run("update sales set at = at - interval '3 days' where id = 9");
    db.update("day", "normal");
    let query = "select (at at time zone 'Europe/Berlin')::date as day, min(amount) as least from sales group by 1";
    is_the_query(&mut db, "day", "day_t", query, "the swap");
}

#[test]
fn an_owner_who_may_read_some_columns_groups_by_an_expression() {
    let mut db = TestDb::new("key_expressions_columns");
    db.run(SALES);
    db.run(
        "do $$ begin
           if not exists (select from pg_roles where rolname = 'key_expressions_reader') then
             create role key_expressions_reader;
           end if;
         end $$;
         grant usage on schema coco to key_expressions_reader;
         grant usage, create on schema public to key_expressions_reader;
         grant select (city, amount), trigger on sales to key_expressions_reader;
         set role key_expressions_reader",
    );
    let query = "select lower(city) as city, sum(amount) as total from sales group by 1";
    db.run(&format!(
        "select coco.create_flow('f', 'sales', '{query}', 't', '{{city}}', source_key => '{{lower(city)}}',
           fingerprint => 'amount', capture => 'trigger')"
    ));
    db.update("f", "normal");
    db.run("reset role; update sales set city = null where id = 1; update sales set amount = amount + 1 where id = 3");
    db.run("set role key_expressions_reader");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "the change");
    db.run("reset role; drop owned by key_expressions_reader cascade");
}

#[test]
fn only_immutable_expressions_of_one_row_are_keys() {
    let mut db = TestDb::new("key_expressions_refused");
    db.run("create type pair as (a int, b int); create table s (id int primary key, at timestamptz, t text, j json, p pair)");
    let cases = [
        ("{at::date}", "42P17", "the expression at::date in the source key is not immutable"),
        (
            "{random() > id}",
            "42P17",
            "the expression random() > id in the source key is not immutable",
        ),
        (
            "{count(*)}",
            "0A000",
            "the expression count(*) in the source key is not computed from the columns of one row",
        ),
        ("{row_number() over ()}", "0A000", "is not computed from the columns of one row"),
        ("{(select max(id) from s)}", "0A000", "is not computed from the columns of one row"),
        ("{\"generate_series(1, id)\"}", "0A000", "is not computed from the columns of one row"),
        ("{1 + 1}", "0A000", "is not computed from the columns of one row"),
        ("{s.*}", "22023", "argument \"source_key\" contains *"),
        ("{\"id, t\"}", "42601", "argument \"source_key\" must consist of columns and expressions"),
        ("{id from s}", "42601", "argument \"source_key\" must consist of columns and expressions"),
        (
            "{id; drop table s}",
            "42601",
            "argument \"source_key\" must consist of columns and expressions",
        ),
        (
            "{distinct id}",
            "42601",
            "argument \"source_key\" must consist of columns and expressions",
        ),
        ("{nothing + 1}", "42703", "column \"nothing\" does not exist"),
        (
            "{(j -> 'a')}",
            "42804",
            "key column \"expr\" of source public.s has type json, which has no order",
        ),
        (
            "{(j ->> 'a')}",
            "42804",
            "key column \"j\" of source public.s has type json, which has no order",
        ),
        (
            "{(p).a}",
            "0A000",
            "key column \"p\" of source public.s has unsupported type public.pair",
        ),
    ];
    for (key, code, message) in cases {
        let why = refused(
            &mut db,
            &format!(
                "select coco.create_flow('x', 's', 'select id, count(*) as n from s group by id', 'x', '{{id}}', source_key => $k${key}$k$)"
            ),
        );
        assert!(why.starts_with(&format!("{code} | ")) && why.contains(message), "{key}: {why}");
    }
    db.run("create table r (k text primary key); select coco.create_flow('x'); select coco.add_source('x', 's')");
    let why = refused(&mut db, "select coco.add_lookup('x', 'r', key => '{lower(k)}')");
    assert!(
        why.starts_with(
            "0A000 | the key of lookup public.r cannot contain the expression lower(k)"
        ),
        "{why}"
    );
}
