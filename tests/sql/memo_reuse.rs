//! Results of memoised functions that other flows have, and those that are kept of dropped flows: the flows of one owner
//! compute and ask for nothing twice, and nobody has the results of somebody else.

use crate::support;

use postgres::Client;
use support::server::{Server, until};
use support::{TestDb, explain};

/// A database with two functions that count their calls, and ten items of five texts.
fn counting(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("memo_reuse_{name}"));
    db.run(
        "create sequence calls; create sequence inputs;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         create function many(t text) returns text language plpgsql as
           $$ begin raise exception 'called by itself'; end $$;
         create function many_of(t text[]) returns text[] language plpgsql as
           $$ begin
                return (select array_agg(upper(x)) from
                          (select x, nextval('public.inputs') from unnest(t) with ordinality as u(x, n) order by n) as y);
              end $$;
         select coco.memoize('plain(text)'), coco.memoize('many(text)', batch => 'many_of(text[])');
         create table d (id int primary key, body text);
         insert into d select i, 'text ' || i % 5 from generate_series(1, 10) i",
    );
    db
}

/// A flow that calls `plain`.
fn flow(name: &str) -> String {
    format!(
        "select coco.create_flow('{name}', 'public.d', 'select id, public.plain(body) as u from d', 'public.t_{name}', '{{id}}')"
    )
}

fn number_of(client: &mut Client, sql: &str) -> i64 {
    let row = client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn number(db: &mut TestDb, sql: &str) -> i64 {
    number_of(&mut db.client, sql)
}

fn fails(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => panic!("{sql} does not fail"),
        Err(e) => explain(&e),
    }
}

/// Calls since the last look.
fn calls(db: &mut TestDb) -> i64 {
    taken(db, "calls")
}

fn taken(db: &mut TestDb, sequence: &str) -> i64 {
    let sql = format!("select case when is_called then last_value else 0 end from {sequence}");
    let taken = number(db, &sql);
    db.run(&format!("select setval('{sequence}', 1, false)"));
    taken
}

/// Updates a flow whose rows are right afterwards, and returns how many results it computed.
fn computed_by(db: &mut TestDb, name: &str, mode: &str) -> i64 {
    let counts = db.update(name, mode);
    assert_eq!(counts[0].failed, 0, "{name}: {counts:?}");
    let computed = calls(db);
    let wrong = format!(
        "select count(*) from d full join t_{name} t using (id) where t.u is distinct from upper(d.body)"
    );
    assert_eq!(number(db, &wrong), 0, "{name}");
    computed
}

#[test]
fn a_second_flow_computes_nothing_again() {
    let mut db = counting("second");
    for (name, target) in [("f", "tf"), ("g", "tg")] {
        db.run(&format!(
            "select coco.create_flow('{name}', 'd', 'select id, plain(body) as p, many(body) as m from d', '{target}', '{{id}}')"
        ));
    }
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
    assert_eq!((calls(&mut db), taken(&mut db, "inputs")), (5, 5));
    let row = db.client.query_one("select upserted, memo from coco.update('g')", &[]);
    let row = row.unwrap_or_else(|e| panic!("{}", explain(&e)));
    let (upserted, memo): (i64, serde_json::Value) = (row.get(0), row.get(1));
    assert_eq!((calls(&mut db), taken(&mut db, "inputs")), (0, 0));
    for function in ["public.plain(text)", "public.many(text)"] {
        let of = |name: &str| memo[function][name].as_i64();
        assert_eq!((upserted, of("calls"), of("hits")), (10, Some(10), Some(10)), "{memo}");
        assert_eq!((of("reused"), of("misses"), of("requests")), (Some(5), Some(0), Some(0)));
    }
    let right =
        "select count(*) from tg join d using (id) where p = upper(body) and m = upper(body)";
    assert_eq!(number(&mut db, right), 10);
    db.verify_clean("g");
    let stored =
        "select sum(entries) from coco.functions where flow = 'g' and reused = 5 and misses = 0";
    assert_eq!(number(&mut db, stored), 10);
    // Whoever is first computes what is new.
    db.run("insert into d values (11, 'new'), (12, 'text 1')");
    db.update("g", "normal");
    assert_eq!((calls(&mut db), taken(&mut db, "inputs")), (1, 1));
    db.update("f", "normal");
    assert_eq!((calls(&mut db), taken(&mut db, "inputs")), (0, 0));
    // What it has is its own.
    db.run("set coco.memo_retention = 0; select coco.drop_flow('f')");
    db.update("g", "reexport");
    assert_eq!((calls(&mut db), taken(&mut db, "inputs")), (0, 0));
    let uses = "select sum(uses) from coco.memo_2_g";
    assert_eq!(number(&mut db, uses), 24);
    db.run("truncate d");
    db.update("g", "normal");
    assert_eq!(number(&mut db, "select sum(entries) from coco.functions"), 0);
}

#[test]
fn a_flow_that_is_declared_again_computes_nothing_again() {
    let mut db = counting("again");
    let drop = "select coco.drop_flow('f', keep_targets => false)";
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    // Without retention its results go with it.
    db.run(&format!("set coco.memo_retention = 0; {drop}; {}", flow("f")));
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 0);
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run(&format!("reset coco.memo_retention; {drop}"));
    let kept = "select count(*) from coco.kept_results
                 where flow = 'f' and owner = current_user::regrole and functions = '{public.plain(text)}'
                   and entries = 5 and bytes > 0
                   and kept_until - dropped between interval '7 days' and interval '7 days 1 min'";
    assert_eq!(number(&mut db, kept), 1);
    assert_eq!(number(&mut db, "select count(*) from coco.functions"), 0);
    let views = "select count(*) from pg_class where relname like 'memo\\_%\\_f' and relkind = 'v'";
    assert_eq!(number(&mut db, views), 0);
    // It is the first flow of the database again, for which what is left of others is dropped.
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 0);
    // A flow of another name as well.
    db.run(&format!("{drop}; {}", flow("other")));
    assert_eq!(computed_by(&mut db, "other", "normal"), 0);
    // A flow without results leaves nothing.
    db.run("truncate d");
    db.update("other", "normal");
    db.run("select coco.drop_flow('other', keep_targets => false)");
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results where flow = 'other'"), 0);
}

#[test]
fn a_flow_that_is_declared_again_and_again_is_kept_once() {
    let mut db = counting("once");
    let kept = "select count(*) from coco.kept_results where flow = 'f'";
    let drop = "select coco.drop_flow('f', keep_targets => false)";
    for round in 0..4 {
        db.run(&flow("f"));
        let expected = if round == 0 { 5 } else { 0 };
        assert_eq!(computed_by(&mut db, "f", "normal"), expected);
        db.run(drop);
        assert_eq!(number(&mut db, kept), 1);
    }
    // One that was never updated, or in part, supersedes nothing.
    db.run(&format!("{}; {drop}", flow("f")));
    assert_eq!(number(&mut db, kept), 1);
    db.run(&format!(
        "create table few as select * from d; delete from d where id > 2; {}",
        flow("f")
    ));
    assert_eq!(computed_by(&mut db, "f", "normal"), 0);
    db.run(&format!("{drop}; truncate d; insert into d select * from few"));
    assert_eq!(number(&mut db, kept), 2);
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 0);
    db.run(drop);
    assert_eq!(number(&mut db, kept), 1);
    // Nor does one of other code.
    db.run(
        "create or replace function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t) || ''; end $$",
    );
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run(drop);
    assert_eq!(number(&mut db, kept), 2);
}

#[test]
fn what_is_expired_is_not_reused_and_goes_with_the_next_declaration() {
    let mut db = counting("expired");
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run("select coco.drop_flow('f', keep_targets => false)");
    db.run("update coco.kept_memo set kept_until = now() - interval '1 second'");
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 0);
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    // A table that somebody uses, as a vacuum does, stays until the next time.
    let mut next = 0;
    until("the expired table is dropped", || {
        next += 1;
        db.run(&format!("select coco.create_flow('x{next}')"));
        number(&mut db, "select count(*) from coco.kept_memo") == 0
    });
    assert_eq!(number(&mut db, "select count(*) from coco.kept_memo_function"), 0);
    assert_eq!(number(&mut db, "select count(to_regclass('coco_internal.memo_1'))"), 0);
}

#[test]
fn a_table_in_use_holds_no_drop_up() {
    let mut db = counting("in_use");
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    let mut other = db.connect();
    other.batch_execute("begin; select count(*) from coco_internal.memo_1").expect("it is read");
    db.run(
        "set lock_timeout = '20 s'; set coco.memo_retention = 0;
         select coco.drop_flow('f', keep_targets => false)",
    );
    assert_eq!(number(&mut db, "select count(to_regclass('coco_internal.memo_1'))"), 1);
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5, "it is no flow's any more");
    other.batch_execute("rollback").expect("it ends");
    let mut next = 0;
    until("it is dropped", || {
        next += 1;
        db.run(&format!("select coco.create_flow('x{next}')"));
        number(&mut db, "select count(to_regclass('coco_internal.memo_1'))") == 0
    });
}

#[test]
fn what_is_cleared_is_computed_again() {
    let mut db = counting("cleared");
    db.run(&format!("{}; {}", flow("f"), flow("g")));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    assert_eq!(computed_by(&mut db, "g", "normal"), 0);
    assert_eq!(number(&mut db, "coco.clear_memo('f', 'plain(text)')"), 5);
    assert_eq!(computed_by(&mut db, "f", "reexport"), 5, "not from the other flow");
    assert_eq!(computed_by(&mut db, "g", "reexport"), 0);
    // The results of the other flow are older than this.
    assert_eq!(number(&mut db, "coco.clear_memo('g')"), 5);
    assert_eq!(computed_by(&mut db, "g", "reexport"), 5);
    assert_eq!(number(&mut db, "coco.clear_memo(function => 'plain(text)')"), 10);
    assert_eq!(number(&mut db, "select sum(entries) from coco.functions"), 0);
    assert_eq!(computed_by(&mut db, "f", "reexport"), 5);
    assert_eq!(computed_by(&mut db, "g", "reexport"), 0, "these are newer");
    // And those of dropped flows, by the name or by the function.
    db.run(
        "select coco.drop_flow('f', keep_targets => false); select coco.drop_flow('g', keep_targets => false)",
    );
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 2);
    assert_eq!(number(&mut db, "coco.clear_memo('f', 'many(text)')"), 0);
    assert_eq!(number(&mut db, "coco.clear_memo('f')"), 5);
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results where flow = 'g'"), 1);
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 1);
    assert_eq!(number(&mut db, "coco.clear_memo(function => 'plain(text)')"), 5);
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 0);
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    for sql in ["select coco.clear_memo()", "select coco.clear_memo(null)"] {
        let said = fails(&mut db.client, sql);
        assert!(said.contains("argument \"flow\" must not be NULL (22004)"), "{sql}: {said}");
    }
    let said = fails(&mut db.client, "select coco.clear_memo('nowhere')");
    assert!(said.contains("flow \"nowhere\" does not exist (42704)"), "{said}");
}

#[test]
fn a_copy_is_as_old_as_the_result() {
    let mut db = counting("copied");
    db.run(&format!("{}; {}; {}", flow("f"), flow("g"), flow("h")));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    assert_eq!(computed_by(&mut db, "g", "normal"), 0);
    db.run("select coco.clear_memo('g')");
    assert_eq!(computed_by(&mut db, "h", "normal"), 0, "a copy from the first flow");
    assert_eq!(computed_by(&mut db, "g", "reexport"), 5, "made before it was cleared");
}

#[test]
fn another_function_code_version_owner_or_setting_computes_again() {
    let mut db = counting("identity");
    db.run(
        "do $$ begin if exists (select from pg_roles where rolname = 'reuse_maker') then
           drop owned by reuse_maker; drop role reuse_maker; end if; end $$;
         create role reuse_maker; grant create on schema public to reuse_maker;
         grant usage on sequence calls to reuse_maker",
    );
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    // Another function that does the same.
    db.run(
        "create schema s;
         create function s.plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         select coco.memoize('s.plain(text)');
         select coco.create_flow('s', 'd', 'select id, s.plain(body) as u from d', 't_s', '{id}')",
    );
    assert_eq!(computed_by(&mut db, "s", "normal"), 5);
    // Under other settings, on which its result may depend.
    db.run(&format!("set timezone = 'Asia/Tokyo'; {}; reset timezone", flow("tokyo")));
    assert_eq!(computed_by(&mut db, "tokyo", "normal"), 5);
    db.run(&flow("as_the_first"));
    assert_eq!(computed_by(&mut db, "as_the_first", "normal"), 0);
    for (name, change) in [
        (
            "code",
            "create or replace function plain(t text) returns text language plpgsql as
               $$ begin perform nextval('public.calls'); return upper(t) || ''; end $$",
        ),
        ("version", "select coco.memoize('plain(text)', version => '2')"),
        (
            "owner",
            "alter function plain(text) owner to reuse_maker; select coco.memoize('plain(text)', version => '2')",
        ),
    ] {
        db.run(&format!("{change}; {}", flow(name)));
        assert_eq!(computed_by(&mut db, name, "normal"), 5, "{name}");
        let second = format!("{name}_2");
        db.run(&flow(&second));
        assert_eq!(computed_by(&mut db, &second, "normal"), 0, "{name}");
    }
    // A flow whose results may be of two owners gives none away.
    db.run("alter function plain(text) owner to postgres; select coco.memoize('plain(text)', version => '3')");
    db.run(&flow("mixed"));
    assert_eq!(computed_by(&mut db, "mixed", "normal"), 5);
    db.run(
        "alter function plain(text) owner to reuse_maker; select coco.memoize('plain(text)', version => '3')",
    );
    db.update("mixed", "reexport");
    calls(&mut db);
    db.run(
        "alter function plain(text) owner to postgres; select coco.memoize('plain(text)', version => '3')",
    );
    db.run(&flow("beside"));
    assert_eq!(computed_by(&mut db, "beside", "normal"), 5);
    db.run("drop owned by reuse_maker; drop role reuse_maker");
}

#[test]
fn results_of_another_owner_are_not_reused() {
    let mut db = counting("owners");
    db.run(
        "do $$ declare r text; begin
           foreach r in array '{reuse_anna,reuse_bert}'::text[] loop
             if exists (select from pg_roles where rolname = r) then
               execute format('drop owned by %I; drop role %1$I', r);
             end if;
           end loop; end $$;
         create role reuse_anna login; create role reuse_bert login in role reuse_anna;
         grant usage on schema coco to reuse_anna, reuse_bert;
         grant create on schema public to reuse_anna, reuse_bert;
         grant select, trigger on d to reuse_anna, reuse_bert;
         grant usage on sequence calls to public",
    );
    let mut anna = db.connect_as("reuse_anna");
    let mut bert = db.connect_as("reuse_bert");
    let run = |client: &mut Client, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    };
    run(&mut anna, &flow("a"));
    assert_eq!(computed_by(&mut db, "a", "normal"), 5);
    // Not of a role that he is a member of, and not as a superuser.
    run(&mut bert, &flow("b"));
    assert_eq!(computed_by(&mut db, "b", "normal"), 5);
    db.run(&flow("c"));
    assert_eq!(computed_by(&mut db, "c", "normal"), 5);
    run(
        &mut bert,
        "set coco.memo_retention = 0; select coco.drop_flow('b', keep_targets => false)",
    );
    // Not under the name either that the other's flow had.
    run(&mut anna, "select coco.drop_flow('a', keep_targets => false)");
    let kept = "select count(*) from coco.kept_results where owner = 'reuse_anna'::regrole";
    assert_eq!(number_of(&mut bert, kept), 1, "he has the rights of that role");
    run(&mut bert, &flow("a"));
    assert_eq!(computed_by(&mut db, "a", "normal"), 5);
    run(
        &mut bert,
        "set coco.memo_retention = 0; select coco.drop_flow('a', keep_targets => false)",
    );
    // Somebody else sees nothing of it, and clears nothing.
    db.run("revoke reuse_anna from reuse_bert");
    assert_eq!(number_of(&mut bert, "select count(*) from coco.kept_results"), 0);
    assert_eq!(number_of(&mut bert, "coco.clear_memo(function => 'public.plain(text)')"), 0);
    assert!(fails(&mut bert, "select coco.clear_memo('a')").contains("(42704)"));
    assert!(fails(&mut bert, "table coco.kept_memo").contains("(42501)"));
    assert!(fails(&mut bert, "table coco_internal.memo_1").contains("(42501)"));
    run(&mut anna, &flow("a"));
    assert_eq!(computed_by(&mut db, "a", "normal"), 0);
    // What is kept of a role goes with the role.
    run(&mut anna, "select coco.drop_flow('a', keep_targets => false)");
    drop((anna, bert));
    db.run("drop owned by reuse_anna, reuse_bert; drop role reuse_anna, reuse_bert");
    let mut next = 0;
    until("nothing is kept of a role that is dropped", || {
        next += 1;
        db.run(&format!("select coco.create_flow('x{next}')"));
        number(&mut db, "select count(*) from coco.kept_memo") == 0
    });
}

#[test]
fn a_right_to_execute_that_is_gone_is_missed_as_before() {
    let mut db = counting("rights");
    db.run(
        "do $$ begin if exists (select from pg_roles where rolname = 'reuse_user') then
           drop owned by reuse_user; drop role reuse_user; end if; end $$;
         create role reuse_user login; grant usage on schema coco to reuse_user;
         grant create on schema public to reuse_user; grant select, trigger on d to reuse_user;
         grant usage on sequence calls to public;
         revoke execute on function plain from public; grant execute on function plain to reuse_user",
    );
    let mut theirs = db.connect_as("reuse_user");
    for name in ["f", "g"] {
        theirs.batch_execute(&flow(name)).unwrap_or_else(|e| panic!("{}", explain(&e)));
    }
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run("revoke execute on function plain from reuse_user");
    let said = fails(&mut theirs, "select coco.update('g')");
    assert!(said.contains("(42501)") && said.contains("plain"), "{said}");
    db.run("grant execute on function plain to reuse_user");
    assert_eq!(computed_by(&mut db, "g", "normal"), 0);
    drop(theirs);
    db.run(
        "set coco.memo_retention = 0; select coco.drop_flow('f'); select coco.drop_flow('g');
         drop owned by reuse_user; drop role reuse_user",
    );
}

#[test]
fn looking_reuses_and_writes_nothing() {
    let mut db = counting("look");
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run(&flow("g"));
    assert_eq!(number(&mut db, "select count(*) from coco.preview('g')"), 10);
    db.run("begin read only; select count(*) from coco.preview('g'); commit");
    db.run("select * from coco.explain('g')");
    assert_eq!(calls(&mut db), 0);
    assert_eq!(number(&mut db, "select count(*) from coco.memo_stats where flow = 'g'"), 0);
    let tables = "select count(*) from pg_class where relnamespace = 'coco_internal'::regnamespace
                   and relkind = 'r' and relname ~ '^memo_[0-9]+$'";
    assert_eq!(number(&mut db, tables), 1);
    // What nobody has is computed.
    db.run("update d set body = 'new' where id = 1");
    assert_eq!(number(&mut db, "select count(*) from coco.preview('g')"), 10);
    assert!(calls(&mut db) > 0);
    db.update("f", "normal");
    assert_eq!(calls(&mut db), 1);
    assert_eq!(computed_by(&mut db, "g", "normal"), 0);
}

#[test]
fn a_full_reprocess_reuses_nothing() {
    let mut db = counting("reprocess");
    db.run(&format!("{}; {}", flow("f"), flow("g")));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    assert_eq!(computed_by(&mut db, "g", "full_reprocess"), 5);
    assert_eq!(computed_by(&mut db, "g", "reexport"), 0);
}

#[test]
fn nobody_waits_for_another_flow_and_no_lock_stays() {
    let mut db = counting("locks");
    db.run(&format!("{}; {}; {}", flow("f"), flow("g"), flow("h")));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    let mut other = db.connect();
    let lock = "begin; lock table coco_internal.memo_1 in access exclusive mode";
    other.batch_execute(lock).expect("it is locked");
    db.run("set lock_timeout = '20 s'");
    assert_eq!(computed_by(&mut db, "g", "normal"), 5);
    other.batch_execute("rollback").expect("it ends");
    db.run("select coco.drop_flow('g', keep_targets => false); select coco.clear_memo('g')");
    db.run("begin");
    assert_eq!(computed_by(&mut db, "h", "normal"), 0);
    let locks = "select count(*) from pg_locks
                  where pid = pg_backend_pid() and relation = 'coco_internal.memo_1'::regclass";
    assert_eq!(number(&mut db, locks), 0);
    db.run("commit");
}

#[test]
fn a_forged_result_of_another_flow_is_not_believed() {
    for (n, forge) in [
        "update coco_internal.memo_1 set result = convert_to('forged', 'UTF8')",
        "update coco_internal.memo_1 set seal = seal + 1",
        "update coco_internal.memo_1 set input = input || 'x'",
        "update coco_internal.memo_1 set made = 'infinity'",
        "drop view coco.memo_1_f; alter table coco_internal.memo_1 alter seal type numeric",
        "drop table coco_internal.memo_1 cascade",
        "drop view coco.memo_1_f; drop table coco_internal.memo_1; create view coco_internal.memo_1 as select 1 as entry",
    ]
    .iter()
    .enumerate()
    {
        let mut db = counting(&format!("forged_{n}"));
        db.run(&format!("{}; {}", flow("f"), flow("g")));
        assert_eq!(computed_by(&mut db, "f", "normal"), 5);
        db.run(forge);
        assert_eq!(computed_by(&mut db, "g", "normal"), 5, "{forge}");
        assert_eq!(number(&mut db, "select sum(reused) from coco.functions where flow = 'g'"), 0);
        db.verify_clean("g");
    }
}

#[test]
fn what_is_kept_is_in_a_dump() {
    let mut db = counting("dumped");
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run("select coco.drop_flow('f', keep_targets => false)");
    let mut restored = TestDb::new("memo_reuse_restored");
    restored.run("drop extension coco cascade");
    let bin = std::env::var("COCO_TEST_PG_BIN").expect("COCO_TEST_PG_BIN");
    let piped = format!(
        "{bin}/pg_dump '{}' | {bin}/psql -qX -v ON_ERROR_STOP=1 '{}' > /dev/null",
        db.url(),
        restored.url()
    );
    let status = std::process::Command::new("sh").args(["-c", &piped]).status().expect("sh");
    assert!(status.success());
    restored.run("select setval('calls', 1, false)");
    assert_eq!(number(&mut restored, "select count(*) from coco.kept_results"), 1);
    restored.run(&flow("f"));
    assert_eq!(computed_by(&mut restored, "f", "normal"), 0);
    // A row whose table is gone harms nothing.
    restored.run("select coco.drop_flow('f', keep_targets => false)");
    restored.run("drop table coco_internal.memo_2");
    restored.run(&format!("select coco.clear_memo(function => 'plain(text)'); {}", flow("f")));
    assert_eq!(computed_by(&mut restored, "f", "normal"), 5);
}

#[test]
fn a_worker_drops_what_is_expired() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("expired");
    db.run(
        "create function plain(t text) returns text language plpgsql as
           $$ begin return upper(t); end $$;
         select coco.memoize('plain(text)');
         create table d (id int primary key, body text); insert into d values (1, 'a');
         select coco.create_flow('f', 'd', 'select id, plain(body) as u from d', 't', '{id}');
         select coco.create_flow('g', 'd', 'select id from d', 'tg', '{id}');
         select coco.update('f'); select coco.start('g')",
    );
    db.settle("g");
    db.run("select coco.drop_flow('f')");
    assert_eq!(db.number("select count(*) from coco.kept_results"), 1);
    db.run("update coco.kept_memo set kept_until = now() - interval '1 second'");
    db.until("select not exists (select from coco.kept_memo) and to_regclass('coco_internal.memo_1') is null");
    db.settle("g");
}

#[cfg(feature = "functions")]
mod provided {
    use super::{fails, number};
    use crate::provider::{Provider, vector};
    use crate::support::TestDb;

    /// A flow that embeds the texts of `docs` with a model.
    fn flow(name: &str, model: &str) -> String {
        format!(
            "select coco.create_flow('{name}', 'docs', $q$ select id, body, coco.embed(body, 'models', '{model}') as e from docs $q$,
               't_{name}', '{{id}}')"
        )
    }

    /// Updates a flow whose rows are right afterwards, and returns how many texts it asked for.
    fn asked_by(db: &mut TestDb, provider: &Provider, name: &str, mode: &str) -> usize {
        provider.forget();
        db.update(name, mode);
        let rows = db.client.query(&format!("select body, e from t_{name}"), &[]).expect("rows");
        assert_eq!(rows.len() as i64, number(db, "select count(*) from docs"));
        for row in rows {
            let (text, e): (String, Vec<f32>) = (row.get(0), row.get(1));
            assert_eq!(e, vector(&text, e.len()), "{text}");
        }
        provider.counts().inputs
    }

    #[test]
    fn a_provider_is_asked_once_for_all_flows_of_an_owner() {
        let mut db = TestDb::new("memo_reuse_provided");
        let provider = Provider::start();
        db.run(&format!(
            "create server models foreign data wrapper coco_openai options (url '{}');
             create table docs (id int primary key, body text);
             insert into docs select i, 'text ' || i from generate_series(1, 30) i",
            provider.url()
        ));
        db.run(&flow("f", "m"));
        assert_eq!(asked_by(&mut db, &provider, "f", "normal"), 30);
        db.run(&flow("g", "m"));
        provider.forget();
        assert_eq!(number(&mut db, "select count(*) from coco.preview('g')"), 30);
        assert_eq!(provider.counts().inputs, 0, "looking asks for nothing");
        assert_eq!(asked_by(&mut db, &provider, "g", "normal"), 0);
        let stats = "select sum(reused) from coco.functions where flow = 'g' and misses = 0 and requests = 0 and cost = 0";
        assert_eq!(number(&mut db, stats), 30);
        // Settings are not the provider's; the model is.
        db.run(&format!("set timezone = 'Asia/Tokyo'; {}; reset timezone", flow("tokyo", "m")));
        assert_eq!(asked_by(&mut db, &provider, "tokyo", "normal"), 0);
        db.run(&flow("model", "n"));
        assert_eq!(asked_by(&mut db, &provider, "model", "normal"), 30);
        // One new text, for three flows.
        db.run("insert into docs values (31, 'another')");
        let asked: usize = ["f", "g", "tokyo"]
            .iter()
            .map(|name| asked_by(&mut db, &provider, name, "normal"))
            .sum();
        assert_eq!(asked, 1);
        for name in ["f", "g", "tokyo"] {
            db.run(&format!("select coco.drop_flow('{name}', keep_targets => false)"));
        }
        db.run(&flow("f", "m"));
        assert_eq!(asked_by(&mut db, &provider, "f", "normal"), 0, "declared again");
        db.run("select coco.clear_memo(function => 'coco.embed(text,text,text,int)')");
        assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 0);
        assert_eq!(asked_by(&mut db, &provider, "f", "reexport"), 31);
        assert!(fails(&mut db.client, "select coco.clear_memo('g')").contains("(42704)"));
    }
}

#[test]
fn kept_results_go_with_the_extension_and_stay_if_it_is_not_dropped() {
    let mut db = counting("dropped_extension");
    db.run(&flow("f"));
    db.run(&flow("g"));
    db.update("f", "normal");
    db.run("select coco.drop_flow('f')");
    let kept = "select count(*) from coco.kept_results";
    assert_eq!(number_of(&mut db.client, kept), 1);
    // A flow is left, whose objects need CASCADE.
    let said = fails(&mut db.client, "drop extension coco");
    assert!(said.contains("2BP01"), "{said}");
    assert_eq!(number_of(&mut db.client, kept), 1);
    db.run("select coco.drop_flow('g'); drop extension coco");
    let left = "select count(*) from pg_namespace where nspname like 'coco%'";
    assert_eq!(number_of(&mut db.client, left), 0);
}
