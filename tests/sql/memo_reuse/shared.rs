//! Results of other flows: what is reused, when, and without locks that others wait for.

use super::{calls, computed_by, counting, flow, number, taken};
use crate::support::explain;

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
fn looking_reuses_and_writes_nothing() {
    let mut db = counting("look");
    db.run(&flow("f"));
    assert_eq!(computed_by(&mut db, "f", "normal"), 5);
    db.run(&flow("g"));
    assert_eq!(number(&mut db, "select count(*) from coco.preview('g')"), 10);
    db.run("begin read only; select count(*) from coco.preview('g'); commit");
    db.run("select * from coco.explain('g')");
    assert_eq!(calls(&mut db), 0);
    assert_eq!(
        number(&mut db, "select count(*) from coco_internal.memo_stats where flow = 'g'"),
        0
    );
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
