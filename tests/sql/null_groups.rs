//! Groups whose key is NULL: a group like any other, as in GROUP BY.

use crate::support;

use crate::compared::{is_the_query, refused, rows, text};
use support::TestDb;

/// The table of the flows, with a value, another and none in each column of their keys.
const SALES: &str = "
    create table sales (id int primary key, city text, kind int, amount int not null);
    insert into sales values (1, 'Rome', 1, 10), (2, null, 1, 20), (3, null, null, 30), (4, 'Oslo', 2, 40),
                             (5, '', 1, 50), (6, 'Rome', null, 60)";

/// What writers do to it.
const CHANGES: [&str; 9] = [
    "update sales set amount = amount + 1 where id = 2",
    "update sales set city = null where id = 1",
    "update sales set city = 'Rome' where id = 2",
    "update sales set kind = null where id = 4",
    "insert into sales values (7, null, 2, 70), (8, 'Bern', 2, 80)",
    "delete from sales where city is null",
    "insert into sales values (9, null, null, 90)",
    "update sales set city = coalesce(city, 'none'), kind = null",
    "truncate sales; insert into sales values (1, null, 3, 1), (2, null, 3, 2)",
];

const QUERIES: [(&str, &str, &str, &str); 4] = [
    // by key
    (
        "one",
        "city",
        "city",
        "select city, count(*) as n, sum(amount) as total from sales group by city",
    ),
    (
        "both",
        "city,kind",
        "kind,city",
        "select city, kind, count(*) as n, sum(amount) as total from sales group by city, kind",
    ),
    // by list: the target key is not the source key
    (
        "lower",
        "city",
        "place",
        "select lower(city) as place, max(amount) as most from sales group by city",
    ),
    // many rows of one item
    (
        "each",
        "city",
        "city,id",
        "select city, id, amount, sum(amount) over (partition by city) as of_city from sales",
    ),
];

#[test]
fn rows_move_between_null_and_other_groups() {
    for capture in ["trigger", "scan"] {
        let mut db = TestDb::new(&format!("null_groups_{capture}"));
        db.run(SALES);
        for (flow, key, target_key, query) in QUERIES {
            db.run(&format!(
                "select coco.create_flow('{flow}', 'sales', '{query}', '{flow}_t', '{{{target_key}}}',
                   source_key => '{{{key}}}', capture => '{capture}')"
            ));
            db.update(flow, "normal");
            is_the_query(&mut db, flow, &format!("{flow}_t"), query, "the first update");
            let seen = db.update(flow, "normal")[0].evaluated;
            assert_eq!(seen, 0, "{capture} {flow}");
        }
        for change in CHANGES {
            db.run(change);
            for (flow, _, _, query) in QUERIES {
                db.update(flow, "normal");
                is_the_query(&mut db, flow, &format!("{flow}_t"), query, change);
            }
        }
        for (flow, _, _, query) in QUERIES {
            db.update(flow, "full_reprocess");
            is_the_query(&mut db, flow, &format!("{flow}_t"), query, "full_reprocess");
        }
    }
}

#[test]
fn only_the_groups_that_change_are_evaluated() {
    let mut db = TestDb::new("null_groups_few");
    db.run(
        "create table sales (id int primary key, city text, amount int not null);
         insert into sales select i, case when i % 10 > 0 then 'c' || i % 10 end, i from generate_series(1, 5000) i;
         create index on sales (city); analyze sales;
         select coco.create_flow('f', 'sales', 'select city, sum(amount) as total from sales group by city',
           't', '{city}', source_key => '{city}', capture => 'trigger')",
    );
    let first = &db.update("f", "normal")[0];
    assert_eq!((first.seen, first.evaluated, first.upserted), (10, 10, 10), "{first:?}");
    db.run("update sales set amount = amount + 1 where id = 10");
    let next = &db.update("f", "normal")[0];
    assert_eq!((next.seen, next.evaluated, next.upserted), (1, 1, 1), "{next:?}");
    db.run("update sales set city = null where id = 1");
    let next = &db.update("f", "normal")[0];
    assert_eq!((next.seen, next.evaluated, next.upserted), (2, 2, 2), "{next:?}");
    db.verify_clean("f");
    db.run("update sales set amount = amount + 1");
    let next = &db.update("f", "normal")[0];
    assert_eq!((next.seen, next.evaluated, next.upserted), (10, 10, 10), "{next:?}");
    db.verify_clean("f");
}

#[test]
fn the_tables_treat_null_as_a_value() {
    let mut db = TestDb::new("null_groups_tables");
    db.run(SALES);
    db.run(
        "select coco.create_flow('f', 'sales', 'select city, count(*) as n from sales group by city', 't', '{city}',
           source_key => '{city}');
         select coco.create_flow('g', 'sales', 'select coalesce(city, '''') || ''!'' as c, count(*) as n from sales group by city',
           'g', '{c}', source_key => '{city}');
         select coco.create_flow('h', 'sales', 'select coalesce(city, ''?'') as c, count(*) as n from sales group by city',
           'h', '{c}', source_key => '{city}')",
    );
    let constraint = |table: &str| {
        format!(
            "select string_agg(pg_get_constraintdef(oid), ',') from pg_constraint
              where conrelid = '{table}'::regclass and contype in ('p', 'u')"
        )
    };
    assert_eq!(text(&mut db, &constraint("t")), "UNIQUE NULLS NOT DISTINCT (city)");
    // The query may return NULL for all that is known.
    assert_eq!(text(&mut db, &constraint("g")), "UNIQUE NULLS NOT DISTINCT (c)");
    assert_eq!(text(&mut db, &constraint("h")), "PRIMARY KEY (c)");
    let tracking = "select tracking::text from coco_internal.source where flow = 'f'";
    let tracking = text(&mut db, tracking);
    assert_eq!(text(&mut db, &constraint(&tracking)), "UNIQUE NULLS NOT DISTINCT (k1)");
    db.update("f", "normal");
    db.run("insert into t values ('Paris', 0)");
    let twice = refused(&mut db, "insert into t values (null, 0)");
    assert!(twice.starts_with("23505 | "), "{twice}");
}

#[test]
fn an_adopted_table_needs_a_key_with_one_null() {
    let mut db = TestDb::new("null_groups_adopted");
    db.run(SALES);
    db.run("create table t (city text unique, n bigint)");
    let query = "select city, count(*) as n from sales group by city";
    let create = format!(
        "select coco.create_flow('f', 'sales', '{query}', 't', '{{city}}', source_key => '{{city}}')"
    );
    assert_eq!(
        refused(&mut db, &create),
        "42P16 | target public.t has no unique index on its key (city) |  | \
         ALTER TABLE public.t ADD UNIQUE NULLS NOT DISTINCT (city);"
    );
    db.run("alter table t add unique nulls not distinct (city)");
    db.run(&create);
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "the first update");
}

#[test]
fn a_null_key_is_shown_evaluated_traced_and_repaired() {
    let mut db = TestDb::new("null_groups_shown");
    db.run(SALES);
    let query = "select city, count(*) as n from sales group by city";
    db.run(&format!(
        "select coco.create_flow('f', 'sales', '{query}', 't', '{{city}}', source_key => '{{city}}')"
    ));
    assert_eq!(
        rows(
            &mut db,
            "select concat_ws(' ', change, key) from coco.preview('f') where key = '{\"city\": null}'"
        ),
        ["insert {\"city\": null}"]
    );
    db.update("f", "normal");
    let none = "{\"city\": null}";
    let tracked = "select source_key from coco.tracking where flow = 'f' order by source_key::text";
    assert!(rows(&mut db, tracked).contains(&none.to_owned()));
    assert_eq!(
        rows(&mut db, &format!("select output from coco.evaluate('f', '{none}')")),
        ["{\"n\": 2, \"city\": null}"]
    );
    assert_eq!(
        rows(
            &mut db,
            &format!("select concat_ws(' ', source_key, state) from coco.lineage('t', '{none}')")
        ),
        ["{\"city\": null} produced"]
    );
    assert_eq!(
        rows(
            &mut db,
            &format!(
                "select concat_ws(' ', target, key) from coco.outputs('f', '{none}') as o(source, target, key, listed)"
            )
        ),
        ["public.t {\"city\": null}"]
    );
    db.run("update t set n = 100 where city is null; delete from t where city = 'Oslo'");
    assert_eq!(
        rows(
            &mut db,
            "select concat_ws(' ', difference, key) from coco.verify('f') order by difference"
        ),
        ["different {\"city\": null}", "missing {\"city\": \"Oslo\"}"]
    );
    db.run("select * from coco.verify('f', repair => true)");
    is_the_query(&mut db, "f", "t", query, "the repair");
    db.run("delete from t where city is null; insert into t values ('Nowhere', 1)");
    db.run("select * from coco.verify('f', repair => true)");
    is_the_query(&mut db, "f", "t", query, "the second repair");
}

#[test]
fn a_group_of_null_that_fails_delays_nobody() {
    let mut db = TestDb::new("null_groups_fail");
    db.run(SALES);
    let query = "select city, sum(100 / (amount - 20)) as n from sales group by city";
    db.run(&format!(
        "select coco.create_flow('f', 'sales', '{query}', 't', '{{city}}', source_key => '{{city}}', capture => 'trigger')"
    ));
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (3, 1), "{c:?}");
    let errors = "select concat_ws(' ', source_key, sqlstate) from coco.errors";
    assert_eq!(rows(&mut db, errors), ["{\"city\": null} 22012"]);
    assert_eq!(text(&mut db, "select count(*) from t"), "3");
    let c = &db.update("f", "retry")[0];
    assert_eq!(c.failed, 1, "{c:?}");
    assert_eq!(rows(&mut db, errors), ["{\"city\": null} 22012"]);
    db.run("update sales set amount = 21 where id = 2");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "the correction");
}

#[test]
fn a_changed_query_and_a_version_keep_the_group_of_null() {
    let mut db = TestDb::new("null_groups_changed");
    db.run(SALES);
    let first = "select coalesce(city, '''') as city, count(*) as n from sales group by sales.city";
    db.run("delete from sales where id = 5");
    db.run(&format!(
        "select coco.create_flow('f', 'sales', '{first}', 't', '{{city}}', source_key => '{{city}}')"
    ));
    db.update("f", "normal");
    assert_eq!(text(&mut db, "select count(*) from t where city = ''"), "1");
    // The key can be NULL now.
    let second = "select city, count(*) as n from sales group by city";
    db.run(&format!("select coco.set_query('f', 't', '{second}')"));
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", second, "set_query");
    let third = "select city, count(*) + 1 as n from sales group by city";
    db.run(&format!("select coco.set_query('f', 't', '{third}', gapless => true)"));
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", third, "the swap");
    // What is declared again from its definition is the same.
    let definition = text(&mut db, "select coco.flow_definition('f')");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    db.run(&definition);
    assert_eq!(text(&mut db, "select coco.flow_definition('f')"), definition);
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", third, "the declaration again");
    // The same declaration changes nothing.
    db.run(&format!(
        "select coco.create_flow('f', 'sales', '{third}', 't', '{{city}}', source_key => '{{city}}', or_replace => true)"
    ));
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
}

#[test]
fn a_column_that_becomes_nullable_makes_groups_when_it_is_declared_again() {
    let mut db = TestDb::new("null_groups_later");
    db.run(
        "create table s (id int primary key, k int not null, v int not null);
         insert into s values (1, 1, 1), (2, 1, 2)",
    );
    let query = "select k, sum(v) as total from s group by k";
    let create = |more: &str| {
        format!(
            "select coco.create_flow('f', 's', '{query}', 't', '{{k}}', source_key => '{{k}}'{more})"
        )
    };
    db.run(&create(""));
    db.update("f", "normal");
    db.run("alter table s alter column k drop not null; insert into s values (3, null, 3)");
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    assert_eq!(rows(&mut db, "select sqlstate from coco.errors"), ["22004"]);
    db.run(&create(", or_replace => true"));
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "the declaration again");
    assert_eq!(text(&mut db, "select total from t where k is null"), "3");
}

#[test]
fn lookups_affect_the_group_of_null() {
    let mut db = TestDb::new("null_groups_lookup");
    db.run(
        "create table rates (kind int primary key, rate int not null);
         insert into rates values (1, 2), (2, 3);
         create table s (id int primary key, city text, kind int not null, v int not null);
         insert into s values (1, null, 1, 10), (2, 'Rome', 2, 20), (3, null, 2, 30);
         select coco.create_flow('f');
         select coco.add_source('f', 's', key => '{city}');
         select coco.add_lookup('f', 'rates', affects => 'select s.city from rates r join s on s.kind = r.kind');
         select coco.add_target('f', 't',
           'select s.city, sum(s.v * r.rate) as total from s join rates r on r.kind = s.kind group by s.city', '{city}')",
    );
    db.update("f", "normal");
    db.run("update rates set rate = 5 where kind = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    assert_eq!(text(&mut db, "select total from t where city is null"), "140");
    db.verify_clean("f");
}

#[test]
fn a_table_without_a_column_that_is_not_null_is_read_as_a_whole() {
    let mut db = TestDb::new("null_groups_bare");
    db.run("create table bare (city text, v int); insert into bare values (null, 1), ('Rome', 2)");
    let query = "select city, sum(v) as total from bare group by city";
    db.run(&format!(
        "select coco.create_flow('f', 'bare', '{query}', 't', '{{city}}', source_key => '{{city}}', capture => 'trigger')"
    ));
    db.update("f", "normal");
    for change in [
        "insert into bare values (null, 3)",
        "update bare set city = 'Oslo' where v = 1",
        "delete from bare where city is null",
        "insert into bare values (null, null)",
        "truncate bare",
    ] {
        db.run(change);
        db.update("f", "normal");
        is_the_query(&mut db, "f", "t", query, change);
    }
}

#[test]
fn values_of_many_types_can_be_null_in_a_key() {
    let mut db = TestDb::new("null_groups_types");
    db.run(
        "create type mood as enum ('sad', 'glad'); create domain code as text check (value <> '')",
    );
    let types = [
        ("int", "1", "2"),
        ("numeric", "1.50", "1.5"),
        ("timestamptz", "'2026-01-01'", "'2026-01-02'"),
        ("boolean", "true", "false"),
        (
            "uuid",
            "'00000000-0000-0000-0000-000000000001'",
            "'00000000-0000-0000-0000-000000000002'",
        ),
        ("varchar(10)", "'a'", "'b'"),
        ("char(3)", "'a'", "'b'"),
        ("bytea", "'\\x01'", "'\\x02'"),
        ("text collate \"C\"", "'a'", "'B'"),
        ("mood", "'sad'", "'glad'"),
        ("code", "'a'", "'b'"),
        ("int4range", "'[1,2)'", "'[2,3)'"),
        ("jsonb", "'1'", "'null'"),
    ];
    for (n, (name, one, other)) in types.into_iter().enumerate() {
        db.run(&format!(
            "create table s{n} (id int primary key, k {name}, v int not null);
             insert into s{n} values (1, {one}, 1), (2, null, 2), (3, null, 3)"
        ));
        let query = format!("select k, sum(v) as total from s{n} group by k");
        db.run(&format!(
            "select coco.create_flow('f{n}', 's{n}', '{query}', 't{n}', '{{k}}', source_key => '{{k}}')"
        ));
        let (flow, target) = (format!("f{n}"), format!("t{n}"));
        db.update(&flow, "normal");
        is_the_query(&mut db, &flow, &target, &query, name);
        db.run(&format!(
            "update s{n} set k = {other} where id = 2; update s{n} set k = null where id = 1"
        ));
        db.update(&flow, "normal");
        is_the_query(&mut db, &flow, &target, &query, name);
        db.run(&format!("delete from s{n} where k is null"));
        db.update(&flow, "normal");
        is_the_query(&mut db, &flow, &target, &query, name);
    }
}

#[test]
fn what_cannot_be_a_nullable_key_is_refused() {
    let mut db = TestDb::new("null_groups_refused");
    db.run(
        "create table s (id int primary key, a int, b int, c int, d int, e int, tags text[], m money);
         create table rates (k int, v int)",
    );
    let create = |key: &str, more: &str| {
        format!(
            "select coco.create_flow('f', 's', 'select 1 as one, count(*) as n from s', 't', '{{one}}', source_key => '{key}'{more})"
        )
    };
    let five = refused(&mut db, &create("{a,b,c,d,e}", ""));
    assert!(
        five.starts_with("54000 | the source key of public.s has 5 nullable columns | At most 4 "),
        "{five}"
    );
    for (column, name) in [("tags", "text[]"), ("m", "money")] {
        let said = refused(&mut db, &create(&format!("{{{column}}}"), ""));
        assert!(
            said.starts_with(&format!(
                "0A000 | nullable key column \"{column}\" of source public.s has unsupported type {name} | "
            )),
            "{said}"
        );
        assert!(said.contains("SET NOT NULL"), "{said}");
    }
    let ordinal = refused(&mut db, &create("{a}", ", ordinal => 'id'"));
    assert!(
        ordinal.starts_with("0A000 | argument \"ordinal\" is not supported for groups | "),
        "{ordinal}"
    );
    db.run("select coco.create_flow('g'); select coco.add_source('g', 's', key => '{a}')");
    let lookup = refused(
        &mut db,
        "select coco.add_lookup('g', 'rates', key => '{k}', affects => 'select k from rates')",
    );
    assert!(
        lookup.starts_with("42P16 | key column \"k\" of source public.rates is nullable | "),
        "{lookup}"
    );
}

#[test]
fn an_owner_who_may_read_some_columns_has_groups_of_null() {
    let mut db = TestDb::new("null_groups_columns");
    db.run(SALES);
    db.run(
        "do $$ begin
           if not exists (select from pg_roles where rolname = 'null_groups_reader') then
             create role null_groups_reader;
           end if;
         end $$;
         grant usage on schema coco to null_groups_reader;
         grant usage, create on schema public to null_groups_reader;
         alter table sales add column secret text default 'x';
         grant select (city, amount), trigger on sales to null_groups_reader",
    );
    db.run("set role null_groups_reader");
    let query = "select city, sum(amount) as total from sales group by city";
    db.run(&format!(
        "select coco.create_flow('f', 'sales', '{query}', 't', '{{city}}', source_key => '{{city}}',
           fingerprint => 'amount', capture => 'trigger')"
    ));
    db.update("f", "normal");
    db.run("reset role");
    db.run(
        "update sales set city = null where id = 1; update sales set amount = amount + 1 where id = 3",
    );
    db.run("set role null_groups_reader");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (2, 0), "{c:?}");
    is_the_query(&mut db, "f", "t", query, "the changes");
}

#[cfg(feature = "http")]
#[test]
fn an_external_target_has_no_null_in_its_key() {
    let mut db = TestDb::new("null_groups_external");
    db.run(SALES);
    db.run("create server away foreign data wrapper coco_http options (url 'http://127.0.0.1:1/')");
    let create = |column: &str| {
        format!(
            "select coco.create_flow('f', 'sales', 'select {column} as city, count(*) as n from sales group by sales.city',
               'totals', '{{city}}', source_key => '{{city}}', server => 'away')"
        )
    };
    let said = refused(&mut db, &create("city"));
    assert!(
        said.starts_with(
            "0A000 | key column \"city\" of target \"totals\" on server away can be NULL | "
        ),
        "{said}"
    );
    assert!(said.contains("coalesce(city, '') AS city"), "{said}");
    db.run(&create("coalesce(city, '''')"));
}
