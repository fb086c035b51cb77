//! Who may memoize what.

use super::{counting, fails};
use crate::support::explain;

#[test]
fn who_may_memoize_what() {
    let mut db = counting("rights");
    db.run(
        "do $$ begin if exists (select from pg_roles where rolname = 'memo_user') then
           drop owned by memo_user; drop role memo_user; end if; end $$;
         create role memo_user login; grant usage on schema coco to memo_user;
         grant create on schema public to memo_user;
         create function rows_of(int) returns setof int language sql as 'select 1';
         create procedure proc() language sql as 'select 1';
         create function odd_batch(text) returns text[] language sql as 'select null::text[]';
         create function secret(t text) returns text language sql as 'select t';
         revoke execute on function secret from public;
         select coco.memoize('secret(text)');
         insert into d values (1, 'x'); grant select, trigger on d to memo_user",
    );
    for (sql, expected) in [
        ("select coco.memoize('rows_of(int)')", "cannot be memoized (42809)"),
        ("select coco.memoize('proc()')", "cannot be memoized (42809)"),
        ("select coco.memoize('max(int)')", "cannot be memoized (42809)"),
        (
            "select coco.memoize('plain(text)', batch => 'odd_batch(text)')",
            "is not a batch function",
        ),
        (
            "select coco.memoize('plain(text)', batch => 'many_of(text[])', batch_size => 0)",
            "must be greater than 0",
        ),
        ("select coco.memoize(null)", "argument \"function\" must not be NULL"),
        ("select coco.unmemoize('upper(text)')", "is not memoized"),
        ("select coco_internal.memo_call(null::internal, 1)", "cannot cast"),
        ("select coco_internal.memo_call(null)", "does not exist"),
    ] {
        let said = fails(&mut db, sql);
        assert!(said.contains(expected), "{sql}: {said}");
    }
    let mut theirs = db.connect_as("memo_user");
    let said = theirs.batch_execute("select coco.memoize('plain(text)')").expect_err("not theirs");
    assert!(explain(&said).contains("must be owner of function"), "{}", explain(&said));
    // What a flow's owner may not execute is not executed by way of the memo either.
    theirs
        .batch_execute("select coco.create_flow('g', 'd', 'select id, secret(body) as u from d', 'tg', '{id}')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    let said = theirs.batch_execute("select coco.update('g')").expect_err("no right to execute");
    let said = explain(&said);
    assert!(said.contains("42501") && said.contains("secret(text)"), "{said}");
    db.run("grant execute on function secret to memo_user");
    theirs.batch_execute("select coco.update('g')").unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.run("revoke execute on function secret from memo_user; update d set body = 'y'");
    let said = theirs.batch_execute("select coco.update('g')").expect_err("no right any more");
    assert!(explain(&said).contains("42501"), "{}", explain(&said));
    drop(theirs);
    db.run("select coco.drop_flow('g'); drop owned by memo_user; drop role memo_user");
}
