//! Helpers: processes that take care of portions of a turn, and what becomes of it when one of them ends.

use crate::support;

use support::server::{Server, Session};

/// A flow `f` from `d` to `t`, a row an item, which tells by whom it was evaluated. Items of `held` wait until nobody
/// has the advisory lock 42.
fn declare(db: &mut Session, held: &str, target: &str) {
    db.run(&format!(
        "create table d (id int primary key, v int not null, held bool not null default false);
         insert into d select i, i from generate_series(1, 1000) i;
         update d set held = true where {held};
         create function by_whom(held bool) returns int volatile language plpgsql as $$
         begin
           -- Not as one waits for a lock: a worker and its helpers do so for a moment only.
           while held and not pg_try_advisory_xact_lock_shared(42) loop perform pg_sleep(0.01); end loop;
           return pg_backend_pid();
         end $$;
         {target}
         select coco.create_flow('f', 'd', 'select id, v, by_whom(held) as pid from d', 't', '{{id}}');
         select coco.alter_flow('f', batch_size => 100)"
    ));
    db.run("select coco.start('f')");
    db.caught_up("f");
}

/// By how many processes the rows of the target were evaluated.
fn processes(db: &mut Session) -> i64 {
    db.number("select count(distinct pid) from t")
}

fn is_right(db: &mut Session) {
    db.caught_up("f");
    let wrong = "select count(*) from (select id, v from d) s full join t using (id) where s.v is distinct from t.v";
    assert_eq!(db.number(wrong), 0);
    assert_eq!(db.number("select count(*) from coco.errors where flow = 'f'"), 0);
    assert_eq!(db.number("select pending from coco.status where flow = 'f'"), 0);
}

const HELPERS: &str = "select pid from pg_stat_activity where backend_type = 'coco helper'";

fn helper(db: &mut Session) -> i64 {
    db.until(&format!("select count(*) = 1 from ({HELPERS} and wait_event = 'PgSleep') h"));
    db.number(HELPERS)
}

#[test]
fn many_changes_are_shared_by_processes_that_nobody_else_needs() {
    let server = Server::preloaded(&["coco.max_workers = 3"]);
    let mut db = server.database("shared");
    declare(&mut db, "false", "");
    let evaluated = "select sum(evaluated) from coco.workers";
    let before = db.number(evaluated);
    db.run("update d set v = v + 1 where id <= 900; delete from d where id > 900");
    is_right(&mut db);
    let shares = "select string_agg(n::text, ' ' order by n) from (select count(*) as n from t group by pid) c";
    assert_eq!(db.text(shares), "232 334 334");
    db.until("select bool_and(state = 'waiting') from coco.workers");
    assert_eq!(db.number(evaluated) - before, 900);
    // Few are not worth a process.
    db.run("update d set v = v + 1 where id <= 199");
    is_right(&mut db);
    assert_eq!(db.number("select count(distinct pid) from t where id <= 199"), 1);
    // Each flow has its worker, and one process is left.
    db.run(
        "create table e (id int primary key);
         select coco.create_flow('g', 'e', 'select id from e', 'g', '{id}'); select coco.start('g')",
    );
    db.until("select count(*) = 2 from coco.workers");
    db.run("update d set v = v + 1");
    is_right(&mut db);
    assert_eq!(processes(&mut db), 1);
}

#[test]
fn what_items_may_have_to_do_with_each_other_is_left_to_one_process() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let targets = [
        // A trigger may write where the other process writes.
        (
            "trigger",
            "create table t (id int primary key, v int, pid int);
          create function nothing() returns trigger language plpgsql as 'begin return new; end';
          create trigger t before insert or update on t for each row execute function nothing();",
        ),
        (
            "reference",
            "create table v (v int primary key); insert into v select generate_series(1, 2000);
          create table t (id int primary key, v int references v, pid int);",
        ),
    ];
    for (name, target) in targets {
        let mut db = server.database(name);
        declare(&mut db, "false", target);
        db.run("update d set v = v + 1");
        is_right(&mut db);
        assert_eq!(processes(&mut db), 1, "{name}");
    }
    // Keys that are another's.
    let mut db = server.database("listed");
    db.run(
        "create table d (id int primary key, rank int not null);
         insert into d select i, i from generate_series(1, 1000) i;
         select coco.create_flow('f', 'd', 'select rank, id, pg_backend_pid() as pid from d', 't', '{rank}');
         select coco.alter_flow('f', batch_size => 100);
         select coco.start('f')",
    );
    db.caught_up("f");
    db.run("update d set rank = 1001 - rank");
    db.caught_up("f");
    assert_eq!(db.number("select count(*) from t join d using (rank) where t.id = d.id"), 1000);
    assert_eq!(processes(&mut db), 1);
}

#[test]
fn a_portion_whose_process_ends_is_done_by_the_worker() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut db = server.database("ends");
    // Of the second half, of which a helper takes care, one batch is written before.
    declare(&mut db, "id = 700", "");
    let mut other = server.connect("ends");
    other.run("select pg_advisory_lock(42)");
    db.run("update d set v = v + 1");
    let pid = helper(&mut db);
    db.run(&format!("select pg_terminate_backend({pid})"));
    db.until("select count(*) = 0 from pg_stat_activity where backend_type = 'coco helper'");
    other.run("select pg_advisory_unlock(42)");
    is_right(&mut db);
    assert_eq!(processes(&mut db), 1);
    // The next one is shared again.
    db.run("update d set v = v + 1");
    is_right(&mut db);
    assert_eq!(processes(&mut db), 2);
}

#[test]
fn nobody_begins_with_a_flow_before_a_helper_has_ended_whose_worker_is_gone() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut db = server.database("orphan");
    declare(&mut db, "id = 700", "");
    let mut other = server.connect("orphan");
    other.run("select pg_advisory_lock(42)");
    db.run("update d set v = v + 1");
    let pid = helper(&mut db);
    db.until("select count(*) = 1 from pg_stat_activity where wait_event = 'CocoHelper' or wait_event = 'Extension'");
    // The helper does not hear of it.
    db.run("select pg_terminate_backend(pid) from coco.workers");
    let updating = server.connect("orphan");
    let session = std::thread::spawn(move || {
        let mut updating = updating;
        updating.run("select count(*) from coco.update('f')");
    });
    db.until(&format!(
        "select count(*) > 0 from pg_stat_activity
          where query like '%coco.update(%' and {pid} = any (pg_blocking_pids(pid)) and pid <> pg_backend_pid()"
    ));
    other.run("select pg_advisory_unlock(42)");
    session.join().expect("the update");
    is_right(&mut db);
}

#[test]
fn items_that_hand_on_what_is_unique_are_left_to_one_process() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut db = server.database("quarrel");
    declare(&mut db, "false", "create table t (id int primary key, v int unique, pid int);");
    // One lets go of a value that another takes.
    db.run(
        "delete from d where id = 1; update d set v = case id when 1000 then 1 else v + 10000 end",
    );
    is_right(&mut db);
    assert_eq!(db.text("select id::text from t where v = 1"), "1000");
    assert_eq!(processes(&mut db), 1);
}

#[test]
fn a_helper_behind_somebody_who_waits_for_its_worker_gives_way() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut db = server.database("queue");
    declare(&mut db, "id = 700", "");
    let mut other = server.connect("queue");
    other.run("select pg_advisory_lock(42)");
    db.run("update d set v = v + 1");
    helper(&mut db);
    db.until("select count(*) = 1 from pg_stat_activity where wait_event = 'CocoHelper' or wait_event = 'Extension'");
    // The worker has written to the target; the helper has not yet, and comes after this one.
    let mut locker = server.connect("queue");
    let locking = std::thread::spawn(move || {
        locker.run("begin; lock table t in access exclusive mode; commit")
    });
    db.until("select count(*) = 1 from pg_locks where not granted and relation = 't'::regclass");
    other.run("select pg_advisory_unlock(42)");
    locking.join().expect("the lock");
    is_right(&mut db);
}
