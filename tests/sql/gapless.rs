//! Changes without a gap: `coco.set_query(…, gapless => true)`, swap, rollback, discard and diff.

mod beside;
mod moves;
mod partitioned;
mod partitioned_readers;
mod readers;
mod refused;

use crate::support;

use postgres::Client;
use support::TestDb;

fn text(client: &mut Client, sql: &str) -> String {
    let sql = format!("select q::text from ({sql}) as q(q)");
    let row =
        client.query_one(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let explained = support::explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {explained}");
    explained
}

/// A database with a filled flow `f` from table `d` (id, v) with 10 rows to table `t`.
fn with_flow(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("gapless_{name}"));
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}')",
    );
    db.update("f", "normal");
    db
}

/// The flows of a database, with their targets.
const FLOWS: &str =
    "select string_agg(flow || ' ' || target, ', ' order by flow, target desc) from coco.targets";

/// The columns of a table.
fn columns(db: &mut TestDb, table: &str) -> String {
    text(
        &mut db.client,
        &format!(
            "select string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' order by attname)
               from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
        ),
    )
}

#[test]
fn an_update_fills_the_new_version_and_swaps_it_in() {
    let mut db = with_flow("type");
    db.run(
        "select coco.set_query('f', null, 'select id, v::bigint * 1000000000 as v, -v as w from d', gapless => true)",
    );
    assert_eq!(columns(&mut db, "t"), "id integer, v integer");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "55");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t, f@new public.\"t@new\"");
    assert_eq!(
        text(
            &mut db.client,
            "select row(flow, version, role, swap, keep_until) from coco.versions"
        ),
        "(f,f@new,new,auto,)"
    );
    db.run("update d set v = 11 where id = 1");
    // The counts are those of the flow itself.
    let counts = db.update("f", "normal");
    assert_eq!((counts[0].seen, counts[0].evaluated), (1, 1));
    assert_eq!(columns(&mut db, "t"), "id integer, v bigint, w integer");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "65000000000");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    assert_eq!(text(&mut db.client, "select count(*) from coco.versions"), "0");
    let relations = "select string_agg(relname::text, ', ' order by relname) from pg_class
                      where relnamespace = 'public'::regnamespace";
    assert_eq!(text(&mut db.client, relations), "d, d_pkey, t, t_pkey");
    assert_eq!(
        text(&mut db.client, "select reltuples from pg_class where oid = 't'::regclass"),
        "10",
        "readers have statistics from the first moment"
    );
    // It is the same flow as before: nothing is evaluated again, and changes are followed.
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.run("update d set v = 1 where id = 1; delete from d where id = 2");
    let counts = db.update("f", "normal");
    assert_eq!((counts[0].evaluated, counts[0].upserted, counts[0].deleted), (1, 1, 1));
    db.verify_clean("f");
    assert_eq!(text(&mut db.client, "select managed from coco.targets"), "true");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut db.client, relations), "d, d_pkey");
}

#[test]
fn the_key_may_change() {
    let mut db = with_flow("key");
    let query = "select id, g as n, v * g as v from d, generate_series(1, 2) g";
    db.run(&format!(
        "select coco.set_query('f', null, '{query}', key => '{{id,n}}', gapless => true)"
    ));
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select count(*) from t"), "20");
    assert_eq!(text(&mut db.client, "select key from coco.targets"), "{id,n}");
    assert_eq!(
        text(
            &mut db.client,
            "select pg_get_constraintdef(oid) from pg_constraint where conname = 't_pkey'"
        ),
        "PRIMARY KEY (id, n)"
    );
    db.run("delete from d where id = 3");
    assert_eq!(db.update("f", "normal")[0].deleted, 2);
    db.verify_clean("f");
    // To a key without the source's, whose rows are found by list.
    db.run("select coco.set_query('f', null, 'select v, id + 0 as who from d', key => '{v}', gapless => true)");
    db.update("f", "normal");
    db.run("update d set v = 100 where id = 1");
    let counts = db.update("f", "normal");
    assert_eq!((counts[0].upserted, counts[0].deleted), (1, 1));
    db.verify_clean("f");
    // The type of a key column, too.
    db.run("select coco.set_query('f', null, 'select v::text as v, id from d', gapless => true)");
    db.update("f", "normal");
    assert_eq!(columns(&mut db, "t"), "id integer, v text");
    db.verify_clean("f");
}

#[test]
fn what_was_declared_with_the_sources_is_copied_as_it_was_bound() {
    let mut db = TestDb::new("gapless_copied");
    db.run(
        "create schema first;
         create table d (id int primary key, body text, a int, at int not null default 1);
         create table l (a int primary key, name text);
         create table u (id int primary key, n int);
         insert into d select i, 'Body ' || i, i % 2 from generate_series(1, 4) i;
         insert into l values (0, 'zero'), (1, 'one'); insert into u values (1, 1);
         create function shown(text) returns text language sql immutable as 'select upper($1)';
         select coco.create_flow('f', search_path => 'first, public');
         select coco.add_source('f', 'd', ordinal => 'at', fingerprint => 'shown(body) || a');
         select coco.add_source('f', 'u');
         select coco.add_lookup('f', 'l', source => 'd', affects => 'select d.id from l join d on d.a = l.a');
         select coco.add_target('f', 'public.t', 'select d.id, d.body, l.name from d join l on l.a = d.a', '{id}');
         select coco.add_target('f', 'public.other', 'select id, n from u', '{id}');
         select coco.update('f')",
    );
    // A name that would be found first today.
    db.run(
        "create function first.shown(text) returns text language sql immutable as $$select 'x'$$;
         select coco.set_query('f', 'public.t', 'select d.id, d.body, l.name || ''!'' as name from d join l on l.a = d.a',
                               gapless => true, swap => 'manual')",
    );
    let bound = "select pg_get_viewdef(expressions) like '%first.%' from coco_internal.source
                  where flow = 'f@new' and expressions is not null";
    assert_eq!(text(&mut db.client, bound), "false");
    db.update("f", "normal");
    db.verify_clean("f@new");
    // A lookup's change reaches both, and only the items that it affects.
    db.run("update l set name = 'uno' where a = 1");
    assert_eq!(db.update("f", "normal")[0].evaluated, 2);
    let names = |table: &str| format!("select string_agg(name, ' ' order by id) from {table}");
    assert_eq!(text(&mut db.client, &names("\"t@new\"")), "uno! zero! uno! zero!");
    db.run("select coco.swap('f')");
    assert_eq!(text(&mut db.client, &names("t")), "uno! zero! uno! zero!");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t, f public.other");
    assert_eq!(
        text(
            &mut db.client,
            "select row(ordinal, fingerprint) from coco.sources where flow = 'f' and source = 'd'"
        ),
        "(at,\"shown(body) || a\")"
    );
    // The ordinal holds: what does not grow is not looked at.
    db.run(
        "update d set body = 'later' where id = 1; update d set body = 'newer', at = 2 where id = 2;
         insert into u values (2, 2)",
    );
    db.update("f", "normal");
    assert_eq!(
        text(&mut db.client, "select string_agg(body, ', ' order by id) from t where id < 3"),
        "Body 1, newer"
    );
    assert_eq!(text(&mut db.client, "select count(*) from other"), "2");
}

#[test]
fn the_old_version_is_kept_and_comes_back() {
    let mut db = with_flow("rollback");
    db.run("select coco.alter_flow('f', label => 'one'); update d set v = v + 1; select coco.update('f')");
    let history = text(&mut db.client, "select count(*) from coco.history('f')");
    db.run(
        "select coco.set_query('f', null, 'select id, v * 2 as v from d', gapless => true, keep_old => '1 day');
         select coco.update('f')",
    );
    assert_eq!(text(&mut db.client, FLOWS), "f public.t, f@old public.\"t@old\"");
    assert_eq!(
        text(
            &mut db.client,
            "select row(version, role, keep_until > now() + '23 hours') from coco.versions"
        ),
        "(f@old,old,t)"
    );
    // The past of the name is still there.
    assert_ne!(history, "0");
    let runs = text(&mut db.client, "select count(*) >= 2 from coco.history('f')");
    assert_eq!(runs, "true");
    assert_eq!(text(&mut db.client, "select label from coco.flows where flow = 'f'"), "one");
    // Both are kept up to date.
    db.run("update d set v = 100 where id = 1; select coco.update('f')");
    let both =
        "select (select v from t where id = 1) || ' ' || (select v from \"t@old\" where id = 1)";
    assert_eq!(text(&mut db.client, both), "200 100");
    // After the swap, differences are those from the old version.
    let diff =
        "select string_agg(distinct difference, ', ') || ' ' || count(*) from coco.diff('f')";
    assert_eq!(text(&mut db.client, diff), "different 10");
    db.run("select coco.rollback('f')");
    assert_eq!(text(&mut db.client, both), "100 200");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t, f@old public.\"t@old\"");
    db.verify_clean("f");
    db.run("select coco.rollback('f')");
    assert_eq!(text(&mut db.client, both), "200 100");
    // The next version replaces the kept one.
    db.run(
        "select coco.set_query('f', null, 'select id, v * 3 as v from d', gapless => true, keep_old => '1 day');
         select coco.update('f')",
    );
    assert_eq!(text(&mut db.client, both), "300 200");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t, f@old public.\"t@old\"");
    // An update drops what is no longer kept.
    db.run("update coco_internal.version set keep_until = now() - interval '1 s'; select coco.update('f')");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    let e = fails(&mut db.client, "select coco.rollback('f')", "55000");
    assert!(e.contains("flow \"f\" has no old version") && e.contains("keep_old"), "{e}");
}

#[test]
fn a_swap_by_hand_and_the_differences_before() {
    let mut db = with_flow("manual");
    db.run(
        "select coco.set_query('f', null, 'select id, case id when 2 then -v else v end as v from d where id > 1',
                               gapless => true, swap => 'manual')",
    );
    let diff = "select string_agg(concat_ws(' ', difference, key, old, new), '; ' order by (key ->> 'id')::int) from coco.diff('f')";
    // Nothing is filled yet.
    assert_eq!(text(&mut db.client, "select count(*) from coco.diff('f', 3)"), "3");
    db.update("f", "normal");
    assert_eq!(
        text(&mut db.client, diff),
        "missing {\"id\": 1} {\"v\": 1, \"id\": 1}; different {\"id\": 2} {\"v\": 2, \"id\": 2} {\"v\": -2, \"id\": 2}"
    );
    // No update swaps it in.
    assert_eq!(text(&mut db.client, FLOWS), "f public.t, f@new public.\"t@new\"");
    // A swap brings it up to date first.
    db.run("update d set v = 50 where id = 5; select coco.swap('f')");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "95");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    let e = fails(&mut db.client, "select coco.swap('f')", "55000");
    assert!(e.contains("flow \"f\" has no new version"), "{e}");
    let e = fails(&mut db.client, "select coco.diff('f')", "55000");
    assert!(e.contains("flow \"f\" has no other version"), "{e}");
    let e = fails(&mut db.client, "select coco.diff('f', 0)", "22023");
    assert!(e.contains("max_rows"), "{e}");
}

#[test]
fn a_new_version_is_given_up_and_goes_with_its_flow() {
    let mut db = with_flow("discard");
    let declare = "select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true, swap => 'manual')";
    db.run(declare);
    db.update("f", "normal");
    db.run("select coco.discard('f')");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    assert_eq!(text(&mut db.client, "select to_regclass('\"t@new\"')"), "NULL");
    let e = fails(&mut db.client, "select coco.discard('f')", "55000");
    assert!(e.contains("has no new version"), "{e}");
    // Dropped with the flow, also if the flow's own target is kept.
    db.run(declare);
    db.run("select coco.drop_flow('f')");
    assert_eq!(text(&mut db.client, "select count(*) from coco.flows"), "0");
    assert_eq!(text(&mut db.client, "select count(*) from coco_internal.version"), "0");
    assert_eq!(
        text(&mut db.client, "select concat(to_regclass('t'), ' ', to_regclass('\"t@new\"'))"),
        "t "
    );
}

#[test]
fn failing_items_keep_a_new_version_from_being_swapped_in() {
    let mut db = with_flow("failing");
    db.run(
        "select coco.set_query('f', null, 'select id, 10 / (v - 3) as v from d', gapless => true)",
    );
    let counts = db.update("f", "normal");
    assert_eq!(counts[0].failed, 0);
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "55");
    let why = "select waits_for || ' ' || hint from coco.versions";
    let found = text(&mut db.client, why);
    assert!(found.starts_with("the new version of flow \"f\" has failed items (1) "), "{found}");
    assert_eq!(text(&mut db.client, "select flow from coco.errors"), "f@new");
    // The query can be corrected in place.
    db.run("select coco.set_query('f@new', null, 'select id, 10 / nullif(v - 3, 0) as v from d')");
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    assert_eq!(text(&mut db.client, "select v from t where id = 4"), "10");
    // By hand, a version is swapped in with its failed items.
    db.run(
        "select coco.set_query('f', null, 'select id, 10 / (v - 3) as v from d', gapless => true)",
    );
    db.update("f", "normal");
    db.run("select coco.swap('f')");
    assert_eq!(text(&mut db.client, "select flow || ' ' || sqlstate from coco.errors"), "f 22012");
    assert_eq!(text(&mut db.client, "select count(*) from t"), "9");
}

#[test]
fn a_version_that_cannot_run_does_not_stop_its_flow() {
    let mut db = with_flow("broken");
    db.run(
        "create function twice(int) returns int language sql immutable as 'select $1 * 2';
         select coco.set_query('f', null, 'select id, twice(v) as v from d', gapless => true);
         drop function twice cascade;
         update d set v = 20 where id = 2",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
    let found = text(&mut db.client, "select waits_for from coco.versions");
    assert!(found.contains("reads an object that was dropped"), "{found}");
    assert_eq!(text(&mut db.client, "select v from t where id = 2"), "20");
    db.run("select coco.discard('f')");
}

#[test]
fn an_adopted_table_stays_its_owners() {
    let mut db = TestDb::new("gapless_adopted");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1), (2, 2);
         create table t (id int primary key, v numeric(20, 2), twice numeric generated always as (v * 2) stored);
         insert into t values (77, 7);
         select coco.create_flow('f', 'd', 'select id, v::numeric(20, 2) as v from d', 't', '{id}');
         select coco.update('f');
         select coco.set_query('f', null, 'select id, (v + 1)::numeric(20, 2) as v from d', gapless => true);
         select coco.update('f')",
    );
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(concat(id, ' ', v, ' ', twice), ', ' order by id) from t"
        ),
        "1 2.00 4.00, 2 3.00 6.00"
    );
    assert_eq!(text(&mut db.client, "select managed from coco.targets"), "false");
    // The table with the row that no item has produced is still there, and in the way of the next change.
    assert_eq!(text(&mut db.client, "select count(*) from \"t@old\""), "3");
    let again = "select coco.set_query('f', null, 'select id, v::numeric(20, 2) as v from d', gapless => true)";
    let e = fails(&mut db.client, again, "42P07");
    assert!(e.contains("t@old"), "{e}");
    db.run("drop table \"t@old\"");
    db.run(again);
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn memoized_results_and_settings_of_a_flow_go_on() {
    let mut db = with_flow("settings");
    db.run(
        "create table calls (n int); create function counted(int) returns int language plpgsql volatile as
           $$ begin insert into calls values ($1); return $1 * 2; end $$;
         select coco.memoize('counted(int)');
         select coco.alter_flow('f', batch_size => 3, lineage_index => true);
         select coco.set_query('f', null, 'select id, counted(v) as v from d', gapless => true);
         select coco.update('f')",
    );
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "110");
    assert_eq!(
        text(
            &mut db.client,
            "select row(batch_size, lineage_index, owner::text, live) from coco.flows"
        ),
        "(3,t,postgres,f)"
    );
    // The results of the version are the flow's now.
    let called = text(&mut db.client, "select count(*) from calls");
    db.run("select coco.update('f', 'normal'); update d set v = v where id = 1; select coco.update('f')");
    assert_eq!(text(&mut db.client, "select count(*) from calls"), called);
    assert_eq!(text(&mut db.client, "select distinct flow from coco.functions"), "f");
    db.verify_clean("f");
}
