//! Batch functions: many inputs in one call, and results that do not fit into memory.

use super::{calls, counting, entries, inputs, number};

#[test]
fn a_batch_function_is_called_once_for_many() {
    let mut db = counting("batch");
    db.run(
        "insert into d select i, 'text ' || i % 25 from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, many(body) as u from d', 't', '{id}')",
    );
    db.update("f", "normal");
    assert_eq!((calls(&mut db), inputs(&mut db)), (3, 25));
    assert_eq!(
        number(&mut db, "select count(*) from t join d using (id) where u = upper(body)"),
        50
    );
    let memo: serde_json::Value = {
        db.run("insert into d values (51, 'text 1'), (52, 'new')");
        let row = db.client.query_one("select memo from coco.update('f')", &[]).expect("an update");
        row.get(0)
    };
    let memo = &memo["public.many(text)"];
    assert_eq!((memo["calls"].as_i64(), memo["hits"].as_i64()), (Some(2), Some(1)), "{memo}");
    assert_eq!((memo["misses"].as_i64(), memo["requests"].as_i64()), (Some(1), Some(1)), "{memo}");
    db.verify_clean("f");
}

#[test]
fn an_input_that_a_batch_function_refuses_fails_the_items_that_ask_for_it_alone() {
    let mut db = counting("refused");
    db.run(
        "insert into d select i, case when i in (4, 9) then '' else 'text ' || i end
           from generate_series(1, 20) i;
         select coco.create_flow('f', 'd', 'select id, many(body) as u from d', 't', '{id}')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (20, 18, 2), "{c:?}");
    assert_eq!(inputs(&mut db), 18);
    let errors =
        "select count(*) from coco.errors where sqlstate = '22023' and message = 'an empty text'";
    assert_eq!(number(&mut db, errors), 2);
    db.run("update d set body = 'text 1' where body = ''");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed, inputs(&mut db)), (2, 0, 0), "{c:?}");
    db.verify_clean("f");
}

#[test]
fn a_batch_of_results_too_large_to_be_held_is_done_in_parts() {
    let mut db = counting("large");
    db.run(
        "insert into d select i, i || repeat(' x', 100000) from generate_series(1, 500) i;
         create function big(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return md5(t); end $$;
         create function big_of(t text[]) returns text[] language plpgsql as
           $$ begin perform nextval('public.calls'); return (select array_agg(md5(x) order by n) from unnest(t) with ordinality as u(x, n)); end $$;
         select coco.memoize('big(text)', batch => 'big_of(text[])', batch_size => 100000);
         select coco.create_flow('f', 'd', 'select id, big(body) as u from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 500);
    // 100 MB in one batch of items: two halves of it, at least.
    let parts = calls(&mut db);
    assert!((2..20).contains(&parts), "{parts}");
    assert_eq!(
        number(&mut db, "select count(*) from t join d using (id) where u = md5(body)"),
        500
    );
    assert_eq!(entries(&mut db), 500);
    assert_eq!(db.update("f", "reexport")[0].upserted, 500);
    assert_eq!(calls(&mut db), 0);
}
