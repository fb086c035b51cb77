//! Results of other owners, and those that somebody has forged.

use postgres::Client;

use super::{computed_by, counting, fails, flow, number, number_of};
use crate::support::explain;
use crate::support::server::until;

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
    assert!(fails(&mut bert, "table coco_internal.kept_memo").contains("(42501)"));
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
        number(&mut db, "select count(*) from coco_internal.kept_memo") == 0
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
