//! Flows that follow what other flows write: their order, cycles, and columns that the next flow can have as its key.

use crate::support;

use std::sync::Arc;

use support::server::{Server, Session, SharedServer};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// Flows `a`, `b` and `c` from `s` over `t1` and `t2` to `t3`, declared from the last to the first.
fn chain(server: &Server, name: &str) -> Session {
    let mut db = server.database(name);
    db.run(
        "create table s (id int primary key, v int not null);
         create table t1 (id int primary key, v int not null);
         create table t2 (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 10) i;
         select coco.create_flow('c', 't2', 'select id, v from t2', 't3', '{id}');
         select coco.create_flow('b', 't1', 'select id, v from t1', 't2', '{id}');
         select coco.create_flow('a', 's', 'select id, v from s', 't1', '{id}')",
    );
    db
}

/// SQLSTATE, message and detail of a statement that fails.
fn told(db: &mut Session, sql: &str) -> (String, String) {
    let e = db.0.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().unwrap_or_else(|| panic!("{sql}: {e}"));
    (format!("{} {}", e.code().code(), e.message()), e.detail().unwrap_or_default().to_owned())
}

/// Flows and what they evaluated, in the order of an update's result.
fn evaluated(db: &mut Session, call: &str, flow: &str) -> String {
    db.text(&format!("select string_agg({flow} || ':' || evaluated, ' ') from {call}"))
}

#[test]
fn all_flows_are_updated_in_the_order_in_which_they_feed_each_other() {
    let server = shared();
    let mut db = chain(&server, "order_of_all");
    db.run("select coco.create_flow('empty')");
    assert_eq!(evaluated(&mut db, "coco.update_all()", "flow"), "a:10 b:10 c:10");
    assert_eq!(db.number("select count(*) from t3"), 10);
    assert_eq!(evaluated(&mut db, "coco.update_all()", "flow"), "a:0 b:0 c:0");
    db.run("update s set v = 100 where id = 1; insert into s values (11, 11)");
    assert_eq!(evaluated(&mut db, "coco.update_all(null)", "flow"), "a:2 b:2 c:2");
    assert_eq!(db.number("select sum(v) from t3"), db.number("select sum(v) from s"));
    // The given ones alone, each once; what is not given still orders them.
    db.run("insert into s values (12, 12)");
    assert_eq!(evaluated(&mut db, "coco.update_all('{c,a,c}')", "flow"), "a:1 c:0");
    assert_eq!(evaluated(&mut db, "coco.update_all('{c,b}')", "flow"), "b:1 c:1");
    for flow in ["a", "b", "c"] {
        db.verify(flow);
    }
    assert_eq!(db.number("select count(*) from coco.update_all('{}')"), 0);
}

#[test]
fn what_cannot_be_updated_is_left_out_or_named() {
    let server = shared();
    let mut db = chain(&server, "order_named");
    db.run("select coco.update_all()");
    db.run("insert into s values (11, 11); select coco.alter_flow('b', paused => true)");
    assert_eq!(evaluated(&mut db, "coco.update_all()", "flow"), "a:1 c:0");
    assert_eq!(db.fails("select coco.update_all('{a,b}')"), "55000 flow \"b\" is paused");
    assert_eq!(db.fails("select coco.update('c', upstream => true)"), "55000 flow \"b\" is paused");
    assert!(db.fails("select coco.update_all('{a,nosuch}')").starts_with("42704 flow \"nosuch\""));
    assert!(db.fails("select coco.update_all(array['a', null])").starts_with("22004 "));
    db.run("select coco.alter_flow('b', paused => false); insert into s values (12, 12)");
    // All or nothing.
    db.run("alter table t3 drop column v");
    let e = db.fails("select coco.update_all()");
    assert!(e.starts_with("42703 ") && e.contains("flow \"c\""), "{e}");
    assert_eq!(db.number("select max(id) from t1"), 11);
}

#[test]
fn what_postgres_raises_names_the_flow() {
    let server = shared();
    let mut db = chain(&server, "order_context");
    db.run(
        "select coco.update_all();
         create function no() returns trigger language plpgsql as $$ begin raise sqlstate '57000'; end $$;
         create trigger no before insert on t2 for each statement execute function no();
         insert into s values (11, 11)",
    );
    let e = db.0.batch_execute("select coco.update_all()").expect_err("a trigger refuses");
    let e = e.as_db_error().expect("an error of the server's");
    assert_eq!(e.code().code(), "57000");
    assert_eq!(e.detail(), Some("Flow \"b\" was being updated."));
}

#[test]
fn a_flow_is_updated_after_those_that_feed_it() {
    let server = shared();
    let mut db = chain(&server, "upstream");
    let of_c = "coco.update('c', upstream => true)";
    assert_eq!(evaluated(&mut db, of_c, "flow_name"), "a:10 b:10 c:10");
    db.run("insert into s values (11, 11)");
    assert_eq!(evaluated(&mut db, "coco.update('c')", "flow_name"), "c:0");
    assert_eq!(evaluated(&mut db, "coco.update('b', upstream => true)", "flow_name"), "a:1 b:1");
    assert_eq!(evaluated(&mut db, of_c, "flow_name"), "a:0 b:0 c:1");
    // The mode is that of the flow itself.
    let all = "coco.update('c', 'full_reprocess', true)";
    assert_eq!(evaluated(&mut db, all, "flow_name"), "a:0 b:0 c:11");
    assert_eq!(db.number("select count(*) from coco.retry('c')"), 1);
    // The update is part of the caller's transaction.
    db.run("begin; insert into s values (12, 12)");
    assert_eq!(evaluated(&mut db, of_c, "flow_name"), "a:1 b:1 c:1");
    assert_eq!(db.number("select count(*) from t3"), 12);
    db.run("rollback");
    assert_eq!(db.number("select count(*) from t3"), 11);
    db.run("begin isolation level repeatable read; insert into s values (12, 12)");
    assert_eq!(evaluated(&mut db, of_c, "flow_name"), "a:1 b:1 c:1");
    db.run("commit");
    db.verify("c");
}

#[test]
fn flows_are_updated_together_under_one_snapshot() {
    let server = shared();
    let mut db = server.database("one_snapshot");
    db.run(
        "create table s (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 10) i;
         create function hold() returns int language plpgsql as $$ begin perform pg_advisory_xact_lock(7); return 0; end $$;
         select coco.create_flow('l', 's', 'select id, v + hold() as v from s', 'l_t', '{id}');
         select coco.create_flow('r', 's', 'select id, v from s', 'r_t', '{id}');
         select coco.create_flow('both', 'l_t', 'select id, v from l_t', 'both_t', '{id}');
         select pg_advisory_lock(7)",
    );
    let mut other = server.connect("one_snapshot");
    let update = std::thread::spawn(move || other.run("select coco.update_all()"));
    // The first flow has its snapshot, and the other ones have not begun.
    db.until(
        "select exists (select from pg_locks where locktype = 'advisory' and not granted
           and database = (select oid from pg_database where datname = current_database()))",
    );
    db.run("update s set v = 1000; insert into s values (11, 11)");
    db.run("select pg_advisory_unlock(7)");
    update.join().expect("the update succeeds");
    let sums = "select (select sum(v) from l_t) || ' ' || (select sum(v) from r_t) || ' ' || (select sum(v) from both_t)";
    assert_eq!(db.text(sums), "55 55 55");
    db.run("select coco.update_all()");
    assert_eq!(db.text(sums), "10011 10011 10011");
}

#[test]
fn a_cycle_is_found_where_it_is_closed() {
    let server = shared();
    let mut db = chain(&server, "cycles");
    let itself = "42P17 flow \"z\" would feed itself";
    let (error, detail) =
        told(&mut db, "select coco.create_flow('z', 't3', 'select id, v from t3', 's', '{id}')");
    assert_eq!(error, itself);
    assert_eq!(
        detail,
        "Each of these flows writes what the next one follows: \"z\", \"a\", \"b\", \"c\", \"z\"."
    );
    // Through a view, and through the parent of a partition.
    db.run(
        "create view seen as select id, v from t3;
         create table parts (id int primary key, v int not null) partition by range (id);
         create table part partition of parts for values from (0) to (1000);
         select coco.create_flow('p', 't3', 'select id, v from t3', 'parts', '{id}')",
    );
    for source in ["seen", "part", "parts"] {
        let sql = format!(
            "select coco.create_flow('z', '{source}', 'select id, v from {source}', 's', '{{id}}', source_key => '{{id}}')"
        );
        assert_eq!(told(&mut db, &sql).0, itself, "{source}");
    }
    // By a lookup: of another flow's target, and of its own.
    db.run(
        "create table more (id int primary key);
         select coco.create_flow('m', 'more', 'select id from more', 'm_t', '{id}')",
    );
    let (error, detail) = told(&mut db, "select coco.add_lookup('m', 'm_t')");
    assert_eq!(error, "42P17 flow \"m\" would feed itself");
    assert_eq!(detail, "The flow would follow a table that it writes itself.");
    db.run("select coco.create_flow('n', 'm_t', 'select id from m_t', 'n_t', '{id}')");
    let (error, detail) = told(&mut db, "select coco.add_lookup('m', 'n_t')");
    assert_eq!(error, "42P17 flow \"m\" would feed itself");
    assert!(detail.ends_with("\"m\", \"n\", \"m\"."), "{detail}");
    // What is no cycle: two ways from one flow to another.
    db.run(
        "select coco.add_lookup('c', 't1');
         select coco.create_flow('d', 't1', 'select id, v from t1', 'd_t', '{id}');
         select coco.add_lookup('d', 't3')",
    );
    assert_eq!(
        db.text("select string_agg(flow, ' ' order by flow) from coco.flows"),
        "a b c d m n p"
    );
}

#[test]
fn what_is_pending_upstream_is_pending() {
    let server = shared();
    let mut db = chain(&server, "pending_upstream");
    db.run("select coco.update_all()");
    let pending = "select string_agg(flow || ':' || pending, ' ' order by flow) from coco.status";
    assert_eq!(db.text(pending), "a:0 b:0 c:0");
    assert!(db.holds("select bool_and(lag = '0') from coco.status"));
    db.run("insert into s values (11, 11), (12, 12)");
    assert_eq!(db.text(pending), "a:2 b:2 c:2");
    assert!(db.holds("select bool_and(lag > '0') from coco.status_detail"));
    db.run("select coco.update('a')");
    db.run("insert into s values (13, 13)");
    assert_eq!(db.text(pending), "a:1 b:3 c:3");
    db.run("select coco.update('b')");
    assert_eq!(db.text(pending), "a:1 b:1 c:3");
    db.run("select coco.update_all()");
    assert_eq!(db.text(pending), "a:0 b:0 c:0");
}

#[test]
fn flows_of_other_roles_are_neither_run_nor_named() {
    let server = shared();
    let mut db = server.database("foreign_upstream");
    for role in ["coco_chains_alice", "coco_chains_bob"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
        ));
    }
    db.run(
        "grant usage on schema coco to coco_chains_alice, coco_chains_bob;
         create schema alice authorization coco_chains_alice;
         create schema bob authorization coco_chains_bob",
    );
    let mut alice = server.connect_as("foreign_upstream", "coco_chains_alice");
    let mut bob = server.connect_as("foreign_upstream", "coco_chains_bob");
    alice.run(
        "set search_path = alice;
         create table s (id int primary key); insert into s values (1);
         select coco.create_flow('alices', 's', 'select id from s', 't', '{id}');
         grant usage on schema alice to coco_chains_bob;
         grant select, trigger on alice.t to coco_chains_bob",
    );
    alice.run("select coco.update('alices')");
    bob.run(
        "set search_path = bob;
         select coco.create_flow('bobs', 'alice.t', 'select id from alice.t', 't', '{id}');
         select coco.create_flow('last', 't', 'select id from t', 'u', '{id}')",
    );
    alice.run("insert into s values (2)");
    let of_last = "coco.update('last', upstream => true)";
    assert_eq!(evaluated(&mut bob, of_last, "flow_name"), "bobs:1 last:1");
    assert_eq!(evaluated(&mut bob, "coco.update_all()", "flow"), "bobs:0 last:0");
    assert!(bob.fails("select coco.update_all('{alices}')").starts_with("42501 "));
    // The changes that have yet to pass through a flow of another role are not counted.
    let pending = "select string_agg(flow || ':' || pending, ' ' order by flow) from coco.status";
    assert_eq!(bob.text(pending), "bobs:0 last:0");
    assert_eq!(db.text(pending), "alices:1 bobs:1 last:1");
    // Who has the rights of both runs both.
    assert_eq!(evaluated(&mut db, of_last, "flow_name"), "alices:1 bobs:1 last:1");
    // A cycle of two roles is found, and does not name the other's flow.
    bob.run("grant usage on schema bob to coco_chains_alice");
    bob.run("grant select, trigger on bob.u to coco_chains_alice");
    let (error, detail) = told(&mut alice, "select coco.add_lookup('alices', 'bob.u')");
    assert_eq!(error, "42P17 flow \"alices\" would feed itself");
    assert_eq!(
        detail,
        "Each of these flows writes what the next one follows: \"alices\", a flow of another role, a flow of another role, \"alices\"."
    );
}

/// The columns of a table that are NOT NULL.
fn not_null(db: &mut Session, table: &str) -> String {
    db.text(&format!(
        "select string_agg(attname, ' ' order by attnum) from pg_attribute
          where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped and attnotnull"
    ))
}

const NOT_NULLS: &str =
    "create table s (id int primary key, g int not null, n int, body text not null);
     create table o (id int primary key, v int not null);
     insert into s select i, i % 3, nullif(i % 2, 0), 'x' from generate_series(1, 9) i;
     insert into o select i, i from generate_series(1, 5) i;";

#[test]
fn columns_that_are_never_null_are_declared_so() {
    let server = shared();
    let mut db = server.database("never_null");
    db.run(NOT_NULLS);
    for (name, query, expected) in [
        ("plain", "select id, g, n, body, length(body) as len, upper(n::text) as u from s", "id g body len"),
        (
            "made",
            "select id, coalesce(n, g) as a, coalesce(n, n) as b, 'x'::text as c, null::int as d, n is null as e,
                    greatest(n, 1) as f, case when n = 1 then 1 else 2 end as h, case when n = 1 then 1 end as i from s",
            "id a c e f h",
        ),
        ("left_join", "select s.id, s.g, o.v, coalesce(o.v, 0) as w from s left join public.o on o.id = s.id", ""),
        ("inner_join", "select s.id, s.g, o.v from s join public.o on o.id = s.id", "id g v"),
        ("inner", "select q.id, q.g, q.k from (select id, g, n as k from s) as q", "id g"),
        ("both", "select id, g from s union all select id + 100, g from s", "id g"),
        ("one_of_both", "select id, g from s union all select id + 100, n from s", "id"),
    ] {
        db.run(&format!(
            "select coco.create_flow('{name}', 's', $q${query}$q$, '{name}_t', '{{id}}'); select coco.update('{name}')"
        ));
        let found = not_null(&mut db, &format!("{name}_t"));
        match name {
            // Before PostgreSQL 16, an outer join makes every column doubtful.
            "left_join" => assert!(["id g w", "id w"].contains(&found.as_str()), "{found}"),
            _ => assert_eq!(found, expected, "{name}"),
        }
        db.verify(name);
    }
    db.run(
        "select coco.create_flow('grouped', 's', 'select g, count(*) as c, count(n) as d, sum(n) as e from s group by g',
           'grouped_t', '{g}', source_key => '{g}');
         select coco.create_flow('next', 'grouped_t', 'select c, count(*) as n from grouped_t group by c', 'next_t', '{c}',
           source_key => '{c}');
         select coco.update_all()",
    );
    assert_eq!(not_null(&mut db, "grouped_t"), "g c d");
    assert_eq!(db.text("select row(c, n) from next_t"), "(3,3)");
    // A table that was there is left as it is.
    db.run(
        "create table adopted (id int primary key, g int);
         select coco.create_flow('adopts', 's', 'select id, g from s', 'adopted', '{id}')",
    );
    assert_eq!(not_null(&mut db, "adopted"), "id");
}

#[test]
fn another_query_can_return_null() {
    let server = shared();
    let mut db = server.database("null_by_query");
    db.run(NOT_NULLS);
    db.run("select coco.create_flow('f', 's', 'select id, g, body from s', 't', '{id}'); select coco.update('f')");
    assert_eq!(not_null(&mut db, "t"), "id g body");
    // One column can be NULL, one has another type, and a new one is not known to have a value in each row.
    db.run("select coco.set_query('f', null, 'select id, nullif(g, 1) as g, g as more, 1 as body from s')");
    assert_eq!(not_null(&mut db, "t"), "id");
    assert_eq!(db.text("select failed from coco.update('f')"), "0");
    assert_eq!(db.number("select count(*) from t where g is null"), 3);
    db.verify("f");
    // Of an empty table, each row will be written by the new query.
    db.run("delete from s");
    db.run(
        "select coco.update('f'); select coco.set_query('f', null, 'select id, g, body from s')",
    );
    assert_eq!(not_null(&mut db, "t"), "id g body");
    db.run("insert into s values (1, 1, 1, 'x')");
    assert_eq!(db.text("select failed from coco.update('f')"), "0");
    db.verify("f");
    // A table that was dropped is made again as it was.
    db.run("drop table t; select coco.update('f')");
    assert_eq!(not_null(&mut db, "t"), "id g body");
    db.verify("f");
}

#[test]
fn a_source_that_can_be_null_by_now_makes_no_item_fail() {
    let server = shared();
    let mut db = server.database("null_by_source");
    db.run(NOT_NULLS);
    db.run("select coco.create_flow('f', 's', 'select id, g, n, body from s', 't', '{id}'); select coco.update('f')");
    db.run(
        "alter table s alter g drop not null; insert into s (id, g, body) values (10, null, 'x')",
    );
    // Not while somebody reads the target: nobody waits, and nobody is kept waiting.
    let mut reader = server.connect("null_by_source");
    reader.run("begin; select from t");
    assert_eq!(db.text("select failed from coco.update('f')"), "1");
    assert_eq!(db.text("select sqlstate from coco.errors"), "23502");
    assert_eq!(not_null(&mut db, "t"), "id g body");
    reader.run("commit");
    assert_eq!(db.text("select failed from coco.retry('f')"), "0");
    assert_eq!(not_null(&mut db, "t"), "id body");
    assert_eq!(db.number("select count(*) from t where g is null"), 1);
    db.verify("f");
    // A NOT NULL of the user's own stays.
    db.run("update s set n = 0 where n is null");
    db.run("select coco.update('f')");
    db.run("alter table t alter n set not null");
    db.run("alter table s alter body drop not null; insert into s values (11, 1, 1, null), (12, 1, null, 'x')");
    assert_eq!(db.text("select failed from coco.update('f')"), "1");
    assert_eq!(not_null(&mut db, "t"), "id n");
    assert_eq!(db.number("select count(*) from t where id = 11 and body is null"), 1);
    db.run("alter table t alter n drop not null");
    assert_eq!(db.text("select failed from coco.retry('f')"), "0");
    db.verify("f");
}
