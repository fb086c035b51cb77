//! pg_upgrade: flows of every shape go along, live ones are followed again, and nothing is evaluated
//! again. The server is upgraded to its own version, which passes through the same steps as to another.

use crate::support;

use support::server::{Server, Session};

/// The last attempts of all items: an evaluation changes that of its item.
const ATTEMPTS: &str = "select md5(string_agg(concat_ws(' ', flow, source_key, process_ordinal), ',' order by flow, source_key::text))
                          from coco.tracking";

/// The calls of the memoized function.
const CALLS: &str = "select sum(calls) from coco.functions";

/// Waits until the live flows have followed all changes.
fn wait_for_live(session: &mut Session) {
    let waited = session.rows("select coco.wait(flow, '60 s') from coco.flows where live");
    assert!(!waited.is_empty() && waited.iter().all(|followed| followed == "true"), "{waited:?}");
}

/// Checks that the target of each flow has the rows of its query.
fn verify_all(session: &mut Session) {
    let differing = "select v::text from coco.flows f cross join lateral coco.verify(f.flow) v";
    assert_eq!(session.rows(differing), [""; 0]);
}

#[test]
fn flows_are_followed_after_an_upgrade_of_the_server() {
    let old = Server::preloaded(&[]);
    let mut session = old.database("upgraded");
    session.run(
        "create role upgraded_owner login; grant usage on schema coco to upgraded_owner;
         create schema o authorization upgraded_owner",
    );
    let mut owner = old.connect_as("upgraded", "upgraded_owner");
    owner.run(
        "set search_path = o;
         create table d (id int primary key, g int, v int not null, at timestamptz default now());
         insert into d select i, nullif(i % 7, 3), i from generate_series(1, 300) i;
         create table l (g int primary key, name text not null);
         insert into l select i, 'name ' || i from generate_series(0, 6) i;
         create domain amount as numeric(10, 2) check (value >= 0);
         create table s (id int primary key, k int not null, x amount);
         insert into s select i, i % 5, i from generate_series(1, 300) i;
         create function shout(t text) returns text language sql immutable as $$ select upper(t) $$;
         select coco.memoize('shout(text)');
         select coco.create_flow('plain', 'd', 'select id, v * 2 as v from d', 'plain', '{id}');
         select coco.create_flow('chain', 'plain', 'select id, v + 1 as v from plain', 'chain', '{id}');
         select coco.create_flow('joined', 'd', 'select d.id, l.name from d left join l using (g)', 'joined', '{id}', lookups => 'derive');
         select coco.create_flow('memo', 'd', 'select id, shout(v::text) as t from d', 'memo', '{id}');
         select coco.create_flow('groups', 'd', 'select g, count(*) as n from d group by g', 'groups', '{g}',
                                 source_key => '{g}');
         select coco.create_flow('deltas', 's', 'select k, sum(x) as x, min(id) as least from s group by k', 'deltas', '{k}',
                                 source_key => '{k}', aggregate => 'delta');
         select coco.create_flow('by_hand', 'd', 'select id, g from d', 'by_hand', '{id}', capture => 'trigger');
         select coco.update('by_hand');
         select coco.start(flow) from coco.flows where flow <> 'by_hand'",
    );
    wait_for_live(&mut owner);
    verify_all(&mut owner);
    let (attempts, calls) = (owner.text(ATTEMPTS), owner.text(CALLS));
    let state = "select string_agg(flow || ' ' || state, ', ' order by flow) from coco.status";
    let states = owner.text(state);
    // The live flows follow this change, and the last flow does not.
    owner.run("update d set g = 1 where id = 10");
    wait_for_live(&mut owner);
    let (after_change, calls_after) = (owner.text(ATTEMPTS), owner.text(CALLS));
    assert_ne!(after_change, attempts);
    assert_eq!(calls_after, calls);
    drop((session, owner));

    let new = Server::preloaded(&[]);
    new.upgrade_from(&old);
    let mut owner = new.connect_as("upgraded", "upgraded_owner");
    owner.run("set search_path = o");
    wait_for_live(&mut owner);
    assert_eq!(owner.text(ATTEMPTS), after_change);
    assert_eq!(owner.text(CALLS), calls);
    assert_eq!(owner.text("select sum(evaluated) from coco.update('by_hand')"), "1");
    verify_all(&mut owner);
    assert_eq!(owner.text(state), states);
    // Changes are captured and followed as before.
    owner.run(
        "update d set v = v + 1, g = 2 where id <= 10; delete from d where id = 20; insert into d values (1000, null, 1);
         update l set name = 'other' where g = 2; update s set x = x + 1 where id <= 10; delete from s where id = 11;
         select coco.update('by_hand')",
    );
    wait_for_live(&mut owner);
    verify_all(&mut owner);
    owner.run("select coco.drop_flow('chain', keep_targets => false)");
    owner.run("select coco.drop_flow(flow, keep_targets => false) from coco.flows");
    assert_eq!(owner.rows("select relname from pg_class where relnamespace = 'o'::regnamespace and relkind = 'r' order by 1"), ["d", "l", "s"]);
}
