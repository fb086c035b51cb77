//! Results that coco keeps of dropped flows: until they expire, are cleared, or are dumped.

use super::{computed_by, counting, fails, flow, number, number_of};
use crate::support::TestDb;
use crate::support::server::{Server, until};

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
    db.run("update coco_internal.kept_memo set kept_until = now() - interval '1 second'");
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 0);
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    // A table that somebody uses, as a vacuum does, stays until the next time.
    let mut next = 0;
    until("the expired table is dropped", || {
        next += 1;
        db.run(&format!("select coco.create_flow('x{next}')"));
        number(&mut db, "select count(*) from coco_internal.kept_memo") == 0
    });
    assert_eq!(number(&mut db, "select count(*) from coco_internal.kept_memo_function"), 0);
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
    db.run("update coco_internal.kept_memo set kept_until = now() - interval '1 second'");
    db.until("select not exists (select from coco_internal.kept_memo) and to_regclass('coco_internal.memo_1') is null");
    db.settle("g");
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
