//! `coco.alter_flow`: who owns a flow, its label, its batches, and whether it is paused.

use crate::support;

use postgres::Client;
use support::TestDb;
use support::server::{Server, Stop};

fn text(client: &mut Client, sql: &str) -> String {
    let row =
        client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let explained = support::explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {explained}");
    explained
}

fn declare(db: &mut TestDb) {
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, v, current_user::text as who from d', 't', '{id}')",
    );
}

#[test]
fn a_flow_has_a_batch_size_of_its_own() {
    let mut db = TestDb::new("alter_batch");
    declare(&mut db);
    // Each batch writes its rows by one statement.
    db.run(
        "create table log (n int);
         create function note() returns trigger language plpgsql as $$ begin insert into log values (1); return null; end $$;
         select coco.update('f');
         create trigger batches after update on t for each statement execute function note()",
    );
    let mut batches = |size: &str| -> String {
        db.run(&format!("select coco.alter_flow('f', batch_size => {size}); truncate log; update d set v = v + 1; select coco.update('f')"));
        text(&mut db.client, "select count(*)::text from log")
    };
    assert_eq!(batches("3"), "4");
    assert_eq!(batches("10"), "1");
    assert_eq!(batches("null"), "1");
    assert_eq!(batches("1"), "10");
    assert_eq!(batches("0"), "1");
    assert_eq!(text(&mut db.client, "select batch_size::text from coco.flows"), "NULL");
    for size in ["-1", "1000001"] {
        let e = fails(
            &mut db.client,
            &format!("select coco.alter_flow('f', batch_size => {size})"),
            "22023",
        );
        assert!(e.contains(size) && e.contains("coco.batch_size"), "{e}");
    }
}

#[test]
fn a_paused_flow_is_left_alone_until_it_goes_on() {
    let mut db = TestDb::new("alter_paused");
    declare(&mut db);
    db.update("f", "normal");
    db.run("select coco.alter_flow('f', paused => true); update d set v = 0");
    for sql in [
        "select coco.update('f')",
        "select coco.retry('f')",
        "select coco.verify('f', repair => true)",
    ] {
        let e = fails(&mut db.client, sql, "55000");
        assert!(e.contains("flow \"f\" is paused") && e.contains("paused => false"), "{sql}: {e}");
    }
    assert_eq!(text(&mut db.client, "select state from coco.status"), "paused");
    assert_eq!(text(&mut db.client, "select pending::text from coco.status"), "10");
    db.run("select coco.alter_flow('f', label => 'x')");
    assert_eq!(text(&mut db.client, "select paused::text from coco.flows"), "true");
    db.run("select coco.alter_flow('f', paused => false)");
    assert_eq!(db.update("f", "normal")[0].evaluated, 10);
    db.verify_clean("f");
}

#[test]
fn workers_leave_a_paused_flow_alone_also_after_a_restart() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("paused");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.create_flow('g', 'd', 'select id, v from d', 'u', '{id}');
         select coco.start('f'); select coco.start('g')",
    );
    db.settle("f");
    db.run("select coco.alter_flow('f', paused => true); update d set v = 2");
    db.settle("g");
    assert_eq!(db.text("select v from t"), "1");
    assert_eq!(db.text("select state from coco.status where flow = 'f'"), "paused");
    let e = db.fails("select coco.wait('f')");
    assert!(e.starts_with("55000 flow \"f\" is paused"), "{e}");
    server.restart(Stop::Fast);
    let mut db = server.connect("paused");
    db.run("update d set v = 3");
    db.settle("g");
    assert_eq!(db.text("select v from t"), "1");
    db.run("select coco.alter_flow('f', paused => false)");
    db.settle("f");
    assert_eq!(db.text("select v from t"), "3");
}

#[test]
fn the_label_of_the_time_is_in_the_history() {
    let mut db = TestDb::new("alter_label");
    declare(&mut db);
    db.update("f", "normal");
    for label in ["v1", "v2", ""] {
        db.run(&format!("select coco.alter_flow('f', label => '{label}')"));
        db.update("f", "normal");
    }
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(coalesce(label, '-'), ' ' order by run_id) from coco.history('f')"
        ),
        "- v1 v2 -"
    );
}

/// The recipe of docs/troubleshooting.md, "a view of coco depends on a column".
#[test]
fn the_type_of_a_used_column_changes_by_way_of_a_query_without_it() {
    let mut db = TestDb::new("alter_used_column");
    declare(&mut db);
    db.update("f", "normal");
    let e = fails(&mut db.client, "alter table d alter column v type numeric", "0A000");
    assert!(e.contains("cannot alter type of a column used by a view or rule"), "{e}");
    assert!(e.contains("coco.query_1_f"), "{e}");
    let comment =
        text(&mut db.client, "select obj_description('coco.query_1_f'::regclass, 'pg_class')");
    assert!(comment.contains("of flow f.") && comment.contains("coco.set_query"), "{comment}");
    db.run(
        "begin;
         select coco.set_query('f', null, 'select id, null::numeric as v, current_user::text as who from d');
         alter table d alter column v type numeric;
         select coco.set_query('f', null, 'select id, v, current_user::text as who from d');
         commit",
    );
    assert_eq!(db.update("f", "normal")[0].evaluated, 10);
    db.verify_clean("f");
    let kind = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attname = 'v'";
    assert_eq!(text(&mut db.client, kind), "numeric");
    // A column is dropped in the same way; a column of the key needs another flow.
    let e = fails(&mut db.client, "alter table d drop column v", "2BP01");
    assert!(e.contains("cannot drop column v of table d"), "{e}");
    db.run(
        "select coco.set_query('f', null, 'select id, current_user::text as who from d');
         alter table d drop column v",
    );
    db.update("f", "normal");
    db.verify_clean("f");
    fails(&mut db.client, "alter table d alter column id type bigint", "0A000");
    db.run(
        "select coco.drop_flow('f');
         alter table d alter column id type bigint; alter table t alter column id type bigint;
         select coco.create_flow('f', 'd', 'select id, current_user::text as who from d', 't', '{id}')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (10, 0, 0), "{c:?}");
    db.verify_clean("f");
}

fn roles(db: &mut TestDb) {
    // Roles are the cluster's, not the database's: other tests of this suite may have made them.
    for role in ["coco_altering_alice", "coco_altering_bob", "coco_altering_carol"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
        ));
    }
    db.run(
        "grant usage on schema coco to coco_altering_alice, coco_altering_bob, coco_altering_carol;
         do $$ begin revoke coco_altering_bob from coco_altering_alice; exception when others then null; end $$;
         create schema s; grant usage, create on schema s to coco_altering_alice;
         create table s.d (id int primary key, v int not null);
         create table s.adopted (id int primary key, who text);
         insert into s.d select i, i from generate_series(1, 10) i;
         grant select, trigger on s.d to coco_altering_alice, coco_altering_bob; grant all on s.adopted to coco_altering_alice",
    );
}

#[test]
fn a_flow_is_given_to_another_role_with_all_that_was_made_for_it() {
    let mut db = TestDb::new("alter_owner");
    roles(&mut db);
    let mut alice = db.connect_as("coco_altering_alice");
    alice
        .batch_execute(
            "set search_path = s;
             create function s.twice(int) returns int language sql immutable as 'select $1 * 2';
             select coco.memoize('s.twice(int)');
             select coco.create_flow('f', 'd', 'select id, s.twice(v) as v, current_user::text as who from d', 't', '{id}');
             select coco.add_target('f', 'adopted', 'select id, current_user::text as who from d', '{id}');
             create table s.l (id int primary key); select coco.add_lookup('f', 's.l', affects => 'select id from l');
             select coco.update('f')",
        )
        .unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    let give = "select coco.alter_flow('f', owner => 'coco_altering_bob')";
    // Not to whom she cannot be, nor to whom may not make tables where the target is.
    let mut bob = db.connect_as("coco_altering_bob");
    assert!(fails(&mut bob, give, "42501").contains("must be owner of flow \"f\""));
    fails(&mut alice, give, "42501");
    db.run("grant coco_altering_bob to coco_altering_alice");
    assert!(fails(&mut alice, give, "42501").contains("permission denied for schema s"));
    db.run("grant usage, create on schema s to coco_altering_bob; grant all on s.adopted, s.l to coco_altering_bob");
    alice.batch_execute(give).unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    let owners = "select string_agg(distinct pg_get_userbyid(relowner)::text, ',')
                    from pg_class where relnamespace = 'coco'::regnamespace and relname ~ '_f$' and relkind = 'r'
                      or oid = 's.t'::regclass";
    assert_eq!(text(&mut db.client, owners), "coco_altering_bob");
    // The views that keep what was bound are nobody's but the extension's owner's; the flow's owner reads them.
    let readers = "select string_agg(distinct a.grantee::regrole::text, ',')
                     from pg_class c, aclexplode(c.relacl) a
                    where relnamespace = 'coco'::regnamespace and relname ~ '^(query|affects|tracking)_.*_f$' and relkind = 'v'
                      and a.grantee <> c.relowner";
    assert_eq!(text(&mut db.client, readers), "coco_altering_bob");
    assert_eq!(
        text(
            &mut db.client,
            "select relowner::regrole::text from pg_class where oid = 's.adopted'::regclass"
        ),
        "postgres"
    );
    assert_eq!(text(&mut db.client, "select owner::text from coco.flows"), "coco_altering_bob");
    // It runs as its new owner now.
    db.run("grant execute on function s.twice(int) to coco_altering_bob");
    db.update("f", "full_reprocess");
    assert_eq!(
        text(&mut db.client, "select string_agg(distinct who, ',') from s.t"),
        "coco_altering_bob"
    );
    db.verify_clean("f");
    // She is a member of it still: it can come back.
    alice.batch_execute("select coco.alter_flow('f', owner => 'coco_altering_alice')").unwrap();
    assert_eq!(text(&mut db.client, owners), "coco_altering_alice");
    assert_eq!(text(&mut db.client, readers), "coco_altering_alice");
    db.run("revoke coco_altering_bob from coco_altering_alice");
    assert!(fails(&mut bob, "select * from coco.update('f')", "42501").contains("must be owner"));
    assert!(
        fails(&mut bob, "select coco.alter_flow('nowhere', label => 'x')", "42704")
            .contains("nowhere")
    );
    fails(&mut alice, "select coco.alter_flow('f', owner => 'coco_nobody')", "42704");
    db.run("select coco.drop_flow('f', false)");
}

#[test]
fn a_flow_whose_owner_is_gone_gets_another() {
    let mut db = TestDb::new("alter_lost_owner");
    db.run(
        "do $$ begin create role coco_gone login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_gone; create table d (id int primary key); insert into d values (1);
         grant select on d to coco_gone; create schema g authorization coco_gone",
    );
    db.connect_as("coco_gone")
        .batch_execute("select coco.create_flow('f', 'd', 'select id from d', 'g.t', '{id}', capture => 'scan')")
        .unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    db.run("reassign owned by coco_gone to postgres; drop owned by coco_gone; drop role coco_gone");
    let e = fails(&mut db.client, "select coco.update('f')", "42704");
    assert!(e.contains("coco.alter_flow"), "{e}");
    db.run("select coco.alter_flow('f', owner => 'postgres')");
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
}
