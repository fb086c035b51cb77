//! Expectations: what becomes of rows that do not satisfy a condition, and what is counted and shown.

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let code = e.code().map(|c| c.code().to_owned());
    assert_eq!(code.as_deref(), Some(sqlstate), "{sql}: {}", explain(&e));
    explain(&e)
}

/// The rows of the target `t`, as `id:v`.
fn target(db: &mut TestDb) -> String {
    text(&mut db.client, "select string_agg(concat(id, ':', v), ' ' order by id) from t")
}

/// The source keys in `coco.errors`, with the SQLSTATE, and the target key of a parked row.
fn errors(db: &mut TestDb) -> String {
    text(
        &mut db.client,
        "select string_agg(concat_ws(' ', source_key->>'id', sqlstate, target_key), ', '
                           order by source_key, target_key)
           from coco.errors",
    )
}

/// The expectations, with the numbers of rows checked, failed and parked.
fn counted(db: &mut TestDb) -> String {
    text(
        &mut db.client,
        "select string_agg(concat_ws(' ', name, action, checked, failed, parked), ', ' order by name)
           from coco.expectations",
    )
}

/// A database with a flow `f` from table `s` (id, v) with rows (1, 10), (2, -1) and (3, NULL) to table `t`.
fn with_flow(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("expect_{name}"));
    db.run(
        "create table s (id int primary key, v int);
         insert into s values (1, 10), (2, -1), (3, null);
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}')",
    );
    db
}

#[test]
fn a_parked_row_is_not_in_the_target_until_it_satisfies_the_condition() {
    let mut db = with_flow("park");
    db.run("select coco.expect('f', 'v > 0', name => 'positive')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated, c.upserted, c.failed), (3, 3, 2, 0), "{c:?}");
    assert_eq!(target(&mut db), "1:10 3:");
    assert_eq!(errors(&mut db), "2 23514 {\"id\": 2}");
    assert_eq!(
        text(
            &mut db.client,
            "select concat_ws(' | ', source, target, message, detail, next_retry) from coco.errors"
        ),
        "s | public.t | row of public.t does not satisfy expectation \"positive\" | The condition is v > 0."
    );
    assert_eq!(
        text(&mut db.client, "select concat_ws(' ', state, failed_items) from coco.status"),
        "degraded 1"
    );
    assert_eq!(counted(&mut db), "positive park 3 1 1");
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(concat_ws(' ', metric, name, value), ', ' order by metric)
               from coco.metrics where scope = 'expectation'"
        ),
        "coco_expectation_rows_checked_total public.t: positive 3, \
         coco_expectation_rows_failed_total public.t: positive 1"
    );
    db.verify_clean("f");

    // Nothing changed, so nothing is checked again.
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted, c.failed), (0, 0, 0, 0), "{c:?}");

    // From bad to good, and from good to bad: the earlier version goes.
    db.run("update s set v = 5 where id = 2; update s set v = -7 where id = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted, c.failed), (2, 1, 1, 0), "{c:?}");
    assert_eq!(target(&mut db), "2:5 3:");
    assert_eq!(errors(&mut db), "1 23514 {\"id\": 1}");
    assert_eq!(counted(&mut db), "positive park 5 2 1");
    db.verify_clean("f");

    // An item that is gone has no parked rows.
    db.run("delete from s where id = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.deleted, c.failed), (0, 0), "{c:?}");
    assert_eq!(errors(&mut db), "");
    db.verify_clean("f");
}

#[test]
fn a_target_is_filled_at_once_if_all_rows_satisfy_the_condition() {
    let mut db = TestDb::new("expect_fill");
    db.run(
        "create table s (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 5000) i;
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'a');
         select coco.expect('f', 't.v < 10000', name => 'b')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (5000, 5000, 0), "{c:?}");
    assert_eq!(counted(&mut db), "a park 5000 0 0, b park 5000 0 0");
    db.run("update s set v = 20000 where id <= 10; update s set v = -1 where id = 11");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (11, 0, 11), "{c:?}");
    assert_eq!(counted(&mut db), "a park 5011 1 1, b park 5011 10 10");
    db.verify_clean("f");
}

#[test]
fn a_warning_writes_the_row_and_counts_it() {
    let mut db = with_flow("warn");
    db.run("select coco.expect('f', 'v > 0', action => 'warn', name => 'positive')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (3, 0), "{c:?}");
    assert_eq!(errors(&mut db), "");
    assert_eq!(counted(&mut db), "positive warn 3 1 0");
    // A further warning is no reason to evaluate anything.
    db.run("select coco.expect('f', 'v > 100', action => 'warn', name => 'large')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (0, 0), "{c:?}");
    db.update("f", "full_reprocess");
    assert_eq!(counted(&mut db), "large warn 3 2 0, positive warn 6 2 0");
    db.verify_clean("f");
}

#[test]
fn an_item_fails_and_keeps_its_rows() {
    let mut db = with_flow("fail");
    db.run("select coco.expect('f', 'v > 0', action => 'fail', name => 'positive')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (2, 1), "{c:?}");
    assert_eq!(errors(&mut db), "2 23514");
    assert_eq!(
        text(&mut db.client, "select message || ' ' || detail from coco.errors"),
        "row of public.t does not satisfy expectation \"positive\" \
         The condition is v > 0. The key of the row is [\"2\"]."
    );
    assert_eq!(counted(&mut db), "positive fail 3 1 0");
    db.run("update s set v = -5 where id = 1");
    db.update("f", "normal");
    assert_eq!(target(&mut db), "1:10 3:");
    assert_eq!(errors(&mut db), "1 23514, 2 23514");
    db.run("update s set v = abs(v)");
    let c = &db.update("f", "normal")[0];
    assert_eq!(c.failed, 0, "{c:?}");
    assert_eq!(target(&mut db), "1:5 2:1 3:");
    assert_eq!(errors(&mut db), "");
    db.verify_clean("f");
}

#[test]
fn a_condition_that_raises_an_error_fails_its_item_alone() {
    for action in ["park", "warn", "fail"] {
        let mut db = with_flow(&format!("error_{action}"));
        db.run(&format!(
            "update s set v = 0 where id = 2;
             select coco.expect('f', '100 / v > 0', action => '{action}')"
        ));
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.upserted, c.failed), (2, 1), "{action}: {c:?}");
        assert_eq!(errors(&mut db), "2 22012", "{action}");
        assert_eq!(target(&mut db), "1:10 3:", "{action}");
        db.run("update s set v = 1 where id = 2");
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.upserted, c.failed), (1, 0), "{action}: {c:?}");
    }
}

#[test]
fn an_update_in_which_too_many_rows_fail_writes_nothing() {
    let mut db = TestDb::new("expect_share");
    db.run(
        "create table s (id int primary key, v int);
         insert into s select i, 1 from generate_series(1, 200) i;
         update s set v = -1 where id <= 3;
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive', max_share => 0.01)",
    );
    let e = support::update(&mut db.client, "f", "normal").expect_err("three of two hundred");
    assert_eq!(e.code().map(|c| c.code()), Some("23514"), "{}", explain(&e));
    let said = explain(&e);
    assert!(
        said.contains("too many rows of target public.t do not satisfy expectation \"positive\""),
        "{said}"
    );
    assert!(
        said.contains("3 of 200 rows of this update do not satisfy it, and max_share allows 2."),
        "{said}"
    );
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "0");
    assert_eq!(counted(&mut db), "positive park 0 0 0");

    db.run("update s set v = 1 where id = 3");
    assert_eq!(db.update("f", "normal")[0].upserted, 198);
    assert_eq!(counted(&mut db), "positive park 200 2 2");
    // One row is half of this update, and one percent of a hundred.
    db.run("update s set v = -1 where id = 50; update s set v = 2 where id = 51");
    assert_eq!(db.update("f", "normal")[0].deleted, 1);
    db.run("update s set v = -1 where id in (60, 61)");
    fails(&mut db.client, "select * from coco.update('f')", "23514");
    // None may fail, and this concerns items that fail, too.
    db.run(
        "update s set v = 1;
         select coco.expect('f', 'v > 0', name => 'positive', action => 'fail', max_share => 0)",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 0);
    db.run("update s set v = -1 where id = 7");
    fails(&mut db.client, "select * from coco.update('f')", "23514");
    db.run("select coco.expect('f', 'v > 0', name => 'positive', action => 'fail')");
    assert_eq!(db.update("f", "normal")[0].failed, 1);
}

#[test]
fn existing_rows_are_checked_when_an_expectation_comes_changes_and_goes() {
    let mut db = with_flow("existing");
    assert_eq!(db.update("f", "normal")[0].upserted, 3);
    db.run("select coco.expect('f', 'v > 0', name => 'limit')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (3, 0, 1), "{c:?}");
    assert_eq!(target(&mut db), "1:10 3:");
    db.run("select coco.expect('f', 'v > 20', name => 'limit')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (3, 0, 1), "{c:?}");
    assert_eq!(errors(&mut db), "1 23514 {\"id\": 1}, 2 23514 {\"id\": 2}");
    // The counts are those of the present condition.
    assert_eq!(counted(&mut db), "limit park 3 2 2");
    // Another share changes no row.
    db.run("select coco.expect('f', 'v > 20', name => 'limit', max_share => 0.9)");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.run("select coco.drop_expectation('f', 'limit')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (3, 2, 0), "{c:?}");
    assert_eq!(target(&mut db), "1:10 2:-1 3:");
    assert_eq!(errors(&mut db), "");
    db.verify_clean("f");
}

#[test]
fn a_retry_checks_parked_rows_again() {
    for capture in ["trigger", "scan"] {
        let mut db = TestDb::new(&format!("expect_retry_{capture}"));
        db.run(&format!(
            "create table s (id int primary key, v int); insert into s values (1, 10), (2, 1);
             create table lowest (v int); insert into lowest values (5);
             create function is_enough(v int) returns boolean language plpgsql stable as
               'begin return v >= (select min(l.v) from lowest l); end';
             select coco.create_flow('f', 's', 'select id, v from s', 't', '{{id}}', capture => '{capture}');
             select coco.expect('f', 'is_enough(v)')"
        ));
        db.update("f", "normal");
        assert_eq!(target(&mut db), "1:10", "{capture}");
        db.run("update lowest set v = 1");
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.evaluated, c.upserted), (0, 0), "{capture}: {c:?}");
        db.run("select * from coco.retry('f')");
        assert_eq!(target(&mut db), "1:10 2:1", "{capture}");
        assert_eq!(errors(&mut db), "", "{capture}");
        db.verify_clean("f");
    }
}

#[test]
fn the_other_rows_of_an_item_are_written() {
    let mut db = TestDb::new("expect_rows");
    db.run(
        "create table s (id int primary key, v int); insert into s values (1, -1), (2, 5);
         select coco.create_flow('f', 's',
           'select s.id * 10 + n as id, s.v + n as v from s, generate_series(0, 2) n', 't', '{id}');
         select coco.expect('f', 'v >= 0', name => 'a');
         select coco.expect('f', 'v <> 6', name => 'b');
         select coco.expect('f', 'v <> 1', action => 'warn', name => 'c')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (2, 4, 0), "{c:?}");
    assert_eq!(target(&mut db), "11:0 12:1 20:5 22:7");
    assert_eq!(errors(&mut db), "1 23514 {\"id\": 10}, 2 23514 {\"id\": 21}");
    assert_eq!(counted(&mut db), "a park 6 1 1, b park 6 1 1, c warn 6 1 0");
    // With a row that makes the item fail, none of its rows is written.
    db.run(
        "select coco.expect('f', 'v <> 0', action => 'fail', name => 'd');
         update s set v = v + 1",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.deleted, c.failed), (2, 1, 1), "{c:?}");
    assert_eq!(target(&mut db), "11:0 12:1 21:7 22:8");
    db.run("update s set v = 5 where id = 1");
    assert_eq!(db.update("f", "normal")[0].failed, 0);
    assert_eq!(target(&mut db), "10:5 12:7 21:7 22:8");
    db.verify_clean("f");
}

#[test]
fn a_condition_is_bound_as_a_query_is() {
    let mut db = with_flow("bound");
    db.run(
        "create function is_good(v int) returns boolean language plpgsql immutable as
           'begin return v > 0; end';
         select coco.expect('f', 'is_good(v)', name => 'good')",
    );
    db.update("f", "normal");
    assert_eq!(target(&mut db), "1:10 3:");
    fails(&mut db.client, "drop function is_good(int)", "2BP01");
    // A renamed function stays the same, and another one under its name is none of the flow's.
    db.run(
        "alter function is_good(int) rename to is_fine;
         create function is_good(v int) returns boolean language sql immutable return true",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.deleted), (0, 0), "{c:?}");
    db.run(
        "create or replace function is_fine(v int) returns boolean language plpgsql immutable as
           'begin return v < 0; end'",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (3, 1, 1), "{c:?}");
    assert_eq!(target(&mut db), "2:-1 3:");
    // The definition declares the same.
    let definition = text(&mut db.client, "select coco.flow_definition('f')");
    assert!(definition.contains("is_fine(v)"), "{definition}");
    db.run("select coco.drop_flow('f')");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco_internal.expectation"), "0");
    db.run(&definition);
    db.update("f", "normal");
    assert_eq!(target(&mut db), "2:-1 3:");
    db.run("select coco.rename_flow('f', 'g')");
    assert_eq!(db.update("g", "normal")[0].evaluated, 0);
    assert_eq!(
        text(&mut db.client, "select concat_ws(' ', flow, target, name) from coco.expectations"),
        "g public.t good"
    );
    let explained = text(
        &mut db.client,
        "select string_agg(name, ' ') from coco.explain('g') where section = 'expectation'",
    );
    assert_eq!(explained, "good");
}

#[test]
fn a_new_query_keeps_the_expectations_that_it_fits() {
    let mut db = with_flow("query");
    db.run("select coco.expect('f', 'v > 0', name => 'positive')");
    db.update("f", "normal");
    db.run("select coco.set_query('f', null, 'select id, v, v - 20 as w from s')");
    db.update("f", "normal");
    assert_eq!(target(&mut db), "1:10 3:");
    db.run("select coco.set_query('f', null, 'select id, v - 20 as v from s')");
    db.update("f", "normal");
    assert_eq!(target(&mut db), "3:");
    let said = fails(
        &mut db.client,
        "select coco.set_query('f', null, 'select id, v as w from s')",
        "42703",
    );
    assert!(
        said.contains("expectation \"positive\" of target public.t does not fit the query"),
        "{said}"
    );
    // A declaration as code leaves expectations alone.
    db.run(
        "select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}', or_replace => true)",
    );
    db.update("f", "normal");
    assert_eq!(target(&mut db), "1:10 3:");
    assert_eq!(errors(&mut db), "2 23514 {\"id\": 2}");
}

#[test]
fn a_new_version_of_a_flow_has_its_expectations() {
    let mut db = with_flow("version");
    db.run("select coco.expect('f', 'v > 0', name => 'positive', max_share => 0.5)");
    db.update("f", "normal");
    db.run("select coco.set_query('f', null, 'select id, v, -v as w from s', gapless => true)");
    fails(&mut db.client, "select coco.expect('f', 'v > 1')", "55000");
    db.run("select coco.swap('f')");
    assert_eq!(target(&mut db), "1:10 3:");
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(concat_ws(' ', flow, target, name, action, max_share), ', ')
               from coco.expectations"
        ),
        "f public.t positive park 0.5"
    );
    db.run("update s set v = -10 where id = 1");
    db.update("f", "normal");
    assert_eq!(target(&mut db), "3:");
    db.verify_clean("f");
}

#[test]
fn a_flow_with_memoized_functions_has_expectations() {
    let mut db = TestDb::new("expect_memo");
    db.run(
        "create table s (id int primary key, v int); insert into s values (1, 2), (2, -3), (3, null);
         create function twice(v int) returns int language plpgsql immutable as
           'begin return v * 2; end';
         select coco.memoize('twice(int)');
         select coco.create_flow('f', 's', 'select id, twice(v) as v from s', 't', '{id}');
         select coco.expect('f', 'v > 0');
         select coco.expect('f', 'twice(v) < 100', action => 'fail', name => 'small')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (3, 2, 0), "{c:?}");
    assert_eq!(target(&mut db), "1:4 3:");
    assert_eq!(errors(&mut db), "2 23514 {\"id\": 2}");
    db.run("update s set v = 50 where id = 2");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (0, 1), "{c:?}");
    db.run("update s set v = 3 where id = 2");
    db.update("f", "normal");
    assert_eq!(target(&mut db), "1:4 2:6 3:");
    db.verify_clean("f");
}

#[test]
fn what_is_no_condition_is_refused() {
    let mut db = with_flow("refused");
    let refused = [
        ("'v'", "42804", "argument \"condition\" has type integer, not boolean"),
        ("'nothing > 0'", "42703", "argument \"condition\": column \"nothing\" does not exist"),
        ("'v > 0, true'", "42804", "argument \"condition\" has type record, not boolean"),
        ("'v >'", "42601", "must be one expression over the target's columns"),
        ("'v > random()'", "22023", "argument \"condition\" calls a volatile function"),
        ("'v > (select 1)'", "0A000", "argument \"condition\" contains a subquery"),
        ("'v > max(v)'", "42803", "argument \"condition\": "),
        ("'count(*) > 0'", "0A000", "argument \"condition\" contains an aggregate"),
        ("'v > 0', 'drop'", "22023", "unrecognized value for argument \"action\": \"drop\""),
        ("'v > 0', max_share => 2", "22023", "argument \"max_share\" (2) must be between 0 and 1"),
        ("'v > 0', name => ' '", "22023", "argument \"name\" is empty"),
        ("'v > 0', target => 'none'", "42704", "flow \"f\" has no target none"),
    ];
    for (arguments, sqlstate, message) in refused {
        let sql = format!("select coco.expect('f', {arguments})");
        let said = fails(&mut db.client, &sql, sqlstate);
        assert!(said.contains(message), "{sql}: {said}");
    }
    let said = fails(&mut db.client, "select coco.drop_expectation('f', 'none')", "42704");
    assert!(said.contains("flow \"f\" has no expectation \"none\""), "{said}");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco_internal.expectation"), "0");
    // Without a name, the condition is the name.
    db.run("select coco.expect('f', ' v > 0 ')");
    assert_eq!(text(&mut db.client, "select name from coco.expectations"), "v > 0");
}

#[test]
fn an_expectation_that_has_lost_an_object_is_declared_again() {
    let mut db = with_flow("lost");
    db.run(
        "create function is_good(v int) returns boolean language plpgsql immutable as
           'begin return v > 0; end';
         select coco.expect('f', 'is_good(v)', name => 'good')",
    );
    db.update("f", "normal");
    db.run("drop function is_good(int) cascade");
    let said = fails(&mut db.client, "select * from coco.update('f')", "55000");
    assert!(
        said.contains(
            "expectation \"good\" of target public.t of flow \"f\" uses an object that was dropped"
        ),
        "{said}"
    );
    assert_eq!(text(&mut db.client, "select state from coco.status"), "query broken");
    db.run("select coco.expect('f', 'v > 0', name => 'good')");
    db.update("f", "normal");
    assert_eq!(target(&mut db), "1:10 3:");
    db.verify_clean("f");
}

#[test]
fn a_condition_runs_as_the_owner_of_the_flow_and_is_seen_by_no_other_role() {
    let mut db = TestDb::new("expect_rights");
    // Roles are the cluster's, not the database's: other tests may have made them.
    for role in ["coco_alice", "coco_bob"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
        ));
    }
    db.run(
        "grant usage on schema coco to coco_alice, coco_bob;
         create schema alice authorization coco_alice",
    );
    let mut alice = db.connect_as("coco_alice");
    let mut bob = db.connect_as("coco_bob");
    alice
        .batch_execute(
            "set search_path = alice;
             create table s (id int primary key, v int); insert into s values (1, 10), (2, -1);
             create function is_good(v int) returns boolean language plpgsql stable as $$
               begin
                 if current_user <> 'coco_alice' then raise 'runs as %', current_user; end if;
                 return v > 0;
               end $$;
             select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
             select coco.expect('f', 'is_good(v)', name => 'good')",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    for sql in ["select coco.expect('f', 'v > 0')", "select coco.drop_expectation('f', 'good')"] {
        assert!(fails(&mut bob, sql, "42501").contains("must be owner of flow \"f\""), "{sql}");
    }
    // A superuser updates the flow; the condition runs as its owner all the same.
    db.update("f", "normal");
    assert_eq!(errors(&mut db), "2 23514 {\"id\": 2}");
    db.verify_clean("f");
    for (client, count) in [(&mut alice, "1"), (&mut bob, "0")] {
        assert_eq!(text(client, "select count(*)::text from coco.expectations"), count);
        fails(client, "select * from coco_internal.expectation", "42501");
        fails(client, "update coco_internal.expectation set condition = 'true'", "42501");
    }
    let view = text(&mut db.client, "select condition_view::text from coco_internal.expectation");
    fails(&mut bob, &format!("select * from {view}"), "42501");
}
