//! Items and calls that fail, and queries that never end.

use super::{counting, entries, fails, inputs, number};

#[test]
fn an_error_while_something_is_missing_is_none() {
    let mut db = counting("missing");
    db.run(
        "insert into d select i, repeat('x', i) from generate_series(1, 5) i;
         create function strictly(t text) returns int language plpgsql as
           $$ begin if t is null then raise exception 'nothing'; end if; return length(t); end $$;
         select coco.create_flow('f', 'd', 'select id, strictly(many(body)) as n, plain(body) as p from d', 't', '{id}')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (5, 0), "{c:?}");
    assert_eq!(inputs(&mut db), 5);
    db.run("create or replace function strictly(t text) returns int language sql as 'select 1 / (length(t) - 3)'");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.failed, inputs(&mut db)), (1, 0), "{c:?}");
}

#[test]
fn what_was_computed_for_an_item_that_fails_is_kept() {
    let mut db = counting("kept");
    db.run(
        "insert into d values (1, 'one'), (2, 'two');
         create table lid (closed bool); insert into lid values (true);
         create function pass(t text) returns text language plpgsql as
           $$ begin
                if t = 'TWO' and (select closed from public.lid) then raise exception 'closed'; end if;
                return t;
              end $$;
         select coco.create_flow('f', 'd', 'select id, pass(many(body)) as u from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    assert_eq!((inputs(&mut db), entries(&mut db)), (2, 2));
    db.run("update lid set closed = false");
    assert_eq!(db.update("f", "retry")[0].upserted, 1);
    assert_eq!((inputs(&mut db), entries(&mut db)), (0, 2));
    assert_eq!(
        number(&mut db, "select count(*) from coco.memo_1_f where kept_until is not null"),
        0
    );
    db.verify_clean("f");
}

#[test]
fn a_query_that_never_ends_is_told_so() {
    let mut db = counting("endless");
    db.run(
        "insert into d values (1, 'x');
         select coco.create_flow('f', 'd', $$
           select id, (with recursive r as (
                         select many(d.body || n) as x, n from (select 0 as n) as z
                         union all
                         select many(coalesce(x, '') || n), n + 1 from r where n < 300)
                       select max(x) from r where n = 300) as u from d $$, 't', '{id}')",
    );
    let said = fails(&mut db, "select * from coco.update('f')");
    assert!(said.contains("memoized functions are nested more than"), "{said}");
}
