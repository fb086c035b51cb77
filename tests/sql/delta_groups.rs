//! Groups that coco keeps by deltas: `aggregate => 'delta'`.

mod declared;
mod failing;

use crate::support;

use crate::compared::{is_the_query, rows, text};
use support::TestDb;

/// The states count the rows of the contributions, and no group is empty. For keys of one column.
fn states_are_whole(db: &mut TestDb, flow: &str) {
    let id = text(db, &format!("select id from coco_internal.source where flow = '{flow}'"));
    let found = rows(
        db,
        &format!(
            "select coalesce(s.rows, 0) || ' for ' || coalesce(c.rows, 0)
               from coco_internal.groups_{id} s
               full join (select g1, count(*) as rows, count(failure) as failing
                            from coco_internal.contributions_{id} group by g1) c
                 on array[s.k1] = array[c.g1]
              where s.rows is distinct from c.rows or s.failing is distinct from c.failing or s.rows = 0"
        ),
    );
    assert!(found.is_empty(), "{flow}: {found:?}");
}

fn create(flow: &str, table: &str, query: &str, key: &str) -> String {
    format!(
        "select coco.create_flow('{flow}', '{table}', $q$ {query} $q$, '{flow}_t', '{{{key}}}',
           source_key => '{{{key}}}', aggregate => 'delta')"
    )
}

const SALES: &str = "
    create table sales (id int primary key, region text not null, amount numeric(12,2), n int, paid boolean,
                        at timestamptz not null default '2026-01-01', took interval, price money, rate numeric, note text);
    insert into sales
    select i, (array['north', 'south', 'west'])[1 + i % 3], i * 1.5, i, i % 2 = 0,
           timestamptz '2026-01-01' + i * interval '1 hour', i * interval '1 day 1 minute', i::money,
           round(i / 7.0, i % 4), 'note ' || i
      from generate_series(1, 30) i";

const CHANGES: [&str; 18] = [
    "update sales set amount = amount + 1 where id = 1",
    "update sales set region = 'south' where id in (1, 2, 3)",
    "insert into sales (id, region, amount, n) values (100, 'east', 5, 5), (101, 'north', null, null)",
    "delete from sales where id = 30",
    "delete from sales where region = 'east'",
    "update sales set id = 1000 where id = 7",
    "update sales set id = id + 5000 where id < 5",
    "update sales set amount = null, n = null, paid = null, took = null, price = null, rate = null where region = 'west'",
    "update sales set n = -3, rate = 1.23456 where id = 10",
    "update sales set rate = 2 where id = 10",
    "update sales set note = 'other' where id % 2 = 0",
    "update sales set amount = 'NaN', rate = 'Infinity' where id in (11, 14)",
    "update sales set rate = '-Infinity' where id = 11",
    "update sales set rate = 0.5, amount = 1 where id in (11, 14)",
    "delete from sales where n = (select max(n) from sales)",
    "insert into sales select 2000 + i, 'big', i, i from generate_series(1, 3000) i",
    "truncate sales",
    "insert into sales (id, region, amount, n, paid, took, price, rate) values (1, 'north', 1, 1, true, '1 mon', '2', 3.5)",
];

const QUERIES: [&str; 10] = [
    "select region, count(*) as all_rows, count(amount) as known, sum(amount) as total, avg(amount) as mean
       from sales group by region",
    "select region, sum(n) as total, avg(n) as mean, sum(n::smallint) as small, sum(n::bigint) as big, avg(n::bigint) as mean_big
       from sales group by region",
    "select region, sum(rate) as total, avg(rate) as mean, count(rate) as known from sales group by region",
    "select region, min(n) as least, max(n) as most, min(at) as first, max(note) as last, max(amount) as dearest
       from sales group by region",
    "select region, bool_and(paid) as all_paid, bool_or(paid) as any_paid, every(n > 3) as large from sales group by region",
    "select region, sum(took) as took, avg(took) as mean, sum(price) as price from sales group by region",
    "select upper(region) as name, region, sum(amount) / nullif(count(*), 0) as each, count(*) filter (where paid) as paid,
            sum(amount) filter (where n > 5) as of_large, case when max(n) > 10 then 'much' else 'little' end as word
       from sales where n is distinct from 4 group by region having count(*) > 1 and sum(n) is not null order by 3",
    "select region, sum(amount * n + 1) as products, count(nullif(n, 3)) as not_three from sales where paid group by region",
    "select region from sales group by region",
    "select region, count(distinct n) as numbers, count(distinct lower(note)) filter (where paid) as notes,
            count(distinct rate) as rates, count(distinct n % 4) + count(*) as more, count(distinct price) as prices
       from sales group by region having count(distinct n) > 0 or min(n) is null",
];

#[test]
fn each_aggregate_equals_the_query_after_each_change() {
    let mut db = TestDb::new("delta_groups_each");
    db.run(SALES);
    for (n, query) in QUERIES.iter().enumerate() {
        let flow = format!("f{n}");
        db.run(&create(&flow, "sales", query, "region"));
        db.update(&flow, "normal");
        is_the_query(&mut db, &flow, &format!("{flow}_t"), query, "the first update");
        assert_eq!(db.update(&flow, "normal")[0].evaluated, 0);
    }
    for change in CHANGES {
        db.run(change);
        for (n, query) in QUERIES.iter().enumerate() {
            let flow = format!("f{n}");
            db.update(&flow, "normal");
            is_the_query(&mut db, &flow, &format!("{flow}_t"), query, change);
            states_are_whole(&mut db, &flow);
        }
    }
    for (n, query) in QUERIES.iter().enumerate() {
        let flow = format!("f{n}");
        db.update(&flow, "full_reprocess");
        is_the_query(&mut db, &flow, &format!("{flow}_t"), query, "full_reprocess");
    }
}

#[test]
fn a_change_evaluates_its_groups_alone_and_an_unused_column_none() {
    let mut db = TestDb::new("delta_groups_alone");
    db.run(SALES);
    let query = "select region, sum(amount) as total from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    assert_eq!(db.update("f", "normal")[0].evaluated, 3);
    db.run("update sales set amount = amount + 1 where id = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    db.run("update sales set note = 'other'");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (0, 0), "{c:?}");
    // Two rows exchange their amounts: the state is the same.
    db.run("update sales set amount = case id when 3 then 9 else 4.5 end where id in (3, 6)");
    db.update("f", "normal");
    db.run("update sales set amount = case id when 3 then 4.5 else 9 end where id in (3, 6)");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (0, 0), "{c:?}");
    is_the_query(&mut db, "f", "f_t", query, "an exchange");
}

/// Another row of the group would raise an error if coco looked at it again.
#[test]
fn other_rows_of_a_group_are_not_looked_at() {
    let mut db = TestDb::new("delta_groups_others");
    db.run(
        "create table t (id int primary key, k int not null, v int not null);
         insert into t select i, i % 2, i from generate_series(1, 10) i;
         create function looked(id int, v int) returns int language plpgsql stable as $$
           begin
             if coalesce(current_setting('test.single', true), '') <> '' and id <> current_setting('test.single')::int then
               raise exception 'row % is looked at', id;
             end if;
             return v;
           end $$",
    );
    let query =
        "select k, sum(looked(id, v)) as total, min(looked(id, v)) as least from t group by k";
    db.run(&create("f", "t", query, "k"));
    db.update("f", "normal");
    db.run("set test.single = '4'; update t set v = 100 where id = 4");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (1, 0), "{c:?}");
    db.run("reset test.single");
    is_the_query(&mut db, "f", "f_t", query, "a change of one row");
}

#[test]
fn null_is_a_group() {
    let mut db = TestDb::new("delta_groups_null");
    db.run(
        "create table sales (id int primary key, city text, kind int, amount int not null, at date);
         insert into sales values (1, 'Rome', 1, 10), (2, null, 1, 20), (3, null, null, 30), (4, 'Oslo', 2, 40),
                                  (5, '', 1, 50), (6, 'Rome', null, 60)",
    );
    let query = "select city, kind, count(*) as n, sum(amount) as total, min(amount) as least, max(at) as last
                   from sales group by kind, city";
    db.run(&create("f", "sales", query, "city,kind"));
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "the first update");
    for change in [
        "update sales set amount = amount + 1 where id = 2",
        "update sales set city = null where id = 1",
        "update sales set city = 'Rome' where id = 2",
        "update sales set kind = null, at = '2026-01-01' where id = 4",
        "insert into sales values (7, null, 2, 70), (8, 'Bern', 2, 80)",
        "update sales set amount = 5 where id = 3",
        "delete from sales where city is null and kind is null",
        "insert into sales values (9, null, null, 90), (10, null, null, 1)",
        "update sales set amount = 100 where id = 10",
        "delete from sales where city is null",
        "update sales set city = coalesce(city, 'none'), kind = null",
        "truncate sales; insert into sales values (1, null, 3, 1), (2, null, 3, 2)",
    ] {
        db.run(change);
        db.update("f", "normal");
        is_the_query(&mut db, "f", "f_t", query, change);
    }
}

#[test]
fn keys_of_several_types_make_groups() {
    let mut db = TestDb::new("delta_groups_keys");
    db.run(
        "create type mood as enum ('sad', 'glad'); create domain code as text check (value <> '');
         create table s (id uuid default gen_random_uuid(), part int, m mood, c code, v varchar(10), h char(4), d date,
                         n numeric(6,2), x int not null, primary key (part, id));
         insert into s (part, m, c, v, h, d, n, x)
         select i, (array['sad', 'glad'])[1 + i % 2]::mood, 'c' || i % 2, 'v' || i % 3, 'h' || i % 2, date '2026-01-01' + i % 2,
                i % 2 + 0.5, i from generate_series(1, 24) i",
    );
    for (n, key) in ["m", "c", "v", "h", "d", "n", "m,c,d"].into_iter().enumerate() {
        let flow = format!("f{n}");
        let query = format!(
            "select {key}, count(*) as all_rows, sum(x) as total, max(m) as mood, min(h) as least from s group by {key}"
        );
        db.run(&create(&flow, "s", &query, key));
        db.update(&flow, "normal");
        is_the_query(&mut db, &flow, &format!("{flow}_t"), &query, "the first update");
        for change in [
            "update s set x = x + 1 where part < 3",
            "update s set m = null, c = null, v = null, h = null, d = null, n = null where part = 5",
            "update s set m = 'sad', c = 'c1', v = 'v1', h = 'h1', d = '2026-01-01', n = 1.5 where part in (5, 6)",
            "delete from s where part > 20",
            "insert into s (part, m, c, v, h, d, n, x) values (30, 'glad', 'new', 'new', 'new', '2027-01-01', 9, 9)",
        ] {
            db.run(change);
            db.update(&flow, "normal");
            is_the_query(&mut db, &flow, &format!("{flow}_t"), &query, change);
        }
    }
}

#[test]
fn a_partitioned_source_and_a_key_over_two_columns_work() {
    let mut db = TestDb::new("delta_groups_partitions");
    db.run(
        "create table s (id int, day date, k int not null, v int, primary key (day, id)) partition by range (day);
         create table s1 partition of s for values from ('2026-01-01') to ('2026-02-01');
         create table s2 partition of s for values from ('2026-02-01') to ('2026-03-01');
         insert into s select i, date '2026-01-20' + i, i % 4, i from generate_series(1, 30) i",
    );
    let query = "select k, sum(v) as total, max(v) as most from s group by k";
    db.run(&create("f", "s", query, "k"));
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "the first update");
    for change in [
        "update s set day = '2026-01-02' where id = 29",
        "update s1 set v = 1000 where id = 2",
        "delete from s where id = 2",
        "truncate s2",
        "insert into s2 values (7, '2026-02-02', 3, 70)",
        "drop table s1",
    ] {
        db.run(change);
        db.update("f", "normal");
        is_the_query(&mut db, "f", "f_t", query, change);
    }
}

#[test]
fn what_is_rolled_back_leaves_no_trace() {
    let mut db = TestDb::new("delta_groups_rolled_back");
    db.run(SALES);
    let query = "select region, sum(amount) as total, max(n) as most, count(*) as n from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    db.run("begin");
    db.update("f", "normal");
    db.run("rollback");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "a first update that was rolled back");
    db.run("begin; update sales set amount = 1000 where id = 3; savepoint a");
    db.update("f", "normal");
    db.run("rollback to savepoint a; update sales set region = 'moved' where id = 4");
    db.update("f", "normal");
    db.run("delete from sales where id = 5");
    db.update("f", "normal");
    db.run("commit");
    is_the_query(&mut db, "f", "f_t", query, "a savepoint");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.run("begin; update sales set amount = 1 where region = 'south'");
    db.update("f", "normal");
    db.run("rollback; update sales set amount = 2 where id = 9");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "a transaction that was rolled back");
    states_are_whole(&mut db, "f");
}

#[test]
fn changes_that_pass_the_triggers_by_build_the_groups_again() {
    let mut db = TestDb::new("delta_groups_passed");
    db.run(SALES);
    let query = "select region, sum(amount) as total, max(n) as most from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    db.update("f", "normal");
    db.run(
        "alter table sales disable trigger user;
         update sales set amount = 7, region = 'moved' where id < 5; delete from sales where id = 6;
         alter table sales enable trigger user",
    );
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "disabled triggers");
    states_are_whole(&mut db, "f");
    db.run("alter table sales alter column note type varchar(100)");
    db.run("vacuum full sales");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "a rewritten table");
    db.run("update sales set n = 10000 where id = 8");
    let c = &db.update("f", "normal")[0];
    assert_eq!(c.evaluated, 1, "{c:?}");
    is_the_query(&mut db, "f", "f_t", query, "a change after that");
}

#[test]
fn verify_repairs_states_and_rows() {
    let mut db = TestDb::new("delta_groups_verify");
    db.run(SALES);
    let query = "select region, sum(amount) as total, min(n) as least from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    db.update("f", "normal");
    let id = text(&mut db, "select id from coco_internal.source where flow = 'f'");
    db.run("update f_t set total = 0 where region = 'north'");
    let found = support::verify(&mut db.client, "f", true).expect("verify");
    assert_eq!(found.len(), 1, "{found:?}");
    is_the_query(&mut db, "f", "f_t", query, "a row that was changed");
    db.run(&format!(
        "update coco_internal.groups_{id} set rows = 7; delete from coco_internal.contributions_{id} where r1 < 9;
         update sales set amount = amount + 1 where id in (2, 20)"
    ));
    db.update("f", "normal");
    let found = support::verify(&mut db.client, "f", true).expect("verify");
    assert!(!found.is_empty());
    is_the_query(&mut db, "f", "f_t", query, "states that were changed");
    states_are_whole(&mut db, "f");
}

#[test]
fn expectations_previews_and_estimates_know_the_states() {
    let mut db = TestDb::new("delta_groups_around");
    db.run(SALES);
    let query = "select region, sum(amount) as total from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    db.run("select coco.expect('f', 'total > 0', 'park', name => 'positive')");
    db.update("f", "normal");
    db.run("update sales set amount = -100000 where id = 3");
    // Neither changes anything.
    let previewed = rows(&mut db, "select count(*) from coco.preview('f')");
    assert_ne!(previewed, ["0"]);
    db.run("select * from coco.estimate('f')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.deleted), (1, 1), "{c:?}");
    db.run("update sales set amount = 1 where id = 3");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "an expectation");
    let lineage = rows(
        &mut db,
        "select source_key::text from coco.lineage('f_t', '{\"region\": \"north\"}')",
    );
    assert_eq!(lineage, ["{\"region\": \"north\"}"]);
}

#[test]
fn several_flows_and_a_chain_keep_their_own_groups() {
    let mut db = TestDb::new("delta_groups_chain");
    db.run(SALES);
    let totals = "select region, sum(n) as total from sales group by region";
    let flags = "select paid, count(*) as n, max(n) as most from sales group by paid";
    db.run(&create("totals", "sales", totals, "region"));
    db.run(&create("flags", "sales", flags, "paid"));
    let above = "select region, total * 2 as twice from totals_t";
    db.run(&format!(
        "select coco.create_flow('above', 'totals_t', '{above}', 'above_t', '{{region}}')"
    ));
    db.run("select * from coco.update_all()");
    db.run(
        "update sales set n = n + 1, paid = not paid where id < 8; delete from sales where id = 20",
    );
    db.run("select * from coco.update_all()");
    is_the_query(&mut db, "totals", "totals_t", totals, "a change");
    is_the_query(&mut db, "flags", "flags_t", flags, "a change");
    is_the_query(&mut db, "above", "above_t", above, "a change");
}
