//! The views of all flows answer whatever becomes of one of them; and they show nobody what is somebody else's.

use crate::ground::{Ground, VIEWS, attempt_in};

/// A flow of mallory's with each kind of table that coco makes for it.
fn full(ground: &mut Ground) {
    ground.admin.run(
        "create server hook foreign data wrapper coco_http options (url 'http://127.0.0.1:9/'); grant usage on foreign server hook to mallory",
    );
    ground.role("mallory").run(
        "create user mapping for mallory server hook options (bearer_token 'x');
         create table t (id int primary key, k text not null); insert into t select i, 'k' || i from generate_series(1, 10) i;
         create table l (id int primary key, n int); insert into l values (1, 1);
         create function f(text) returns text language sql immutable as 'select $1';
         select coco.memoize('mal.f(text)');
         select coco.create_flow('m', 'mal.t', 'select id, f(k) as k from t', 'mal.m', '{id}');
         select coco.create_flow('o', 'mal.t', 'select id, k from t', 'o', '{id}', server => 'hook');
         select coco.create_flow('v'); select coco.add_source('v', 't'); select coco.add_lookup('v', 'l', affects => 'select id from l');
         select coco.add_target('v', 'mal.v', 'select t.id, n from t left join l using (id)', '{id}');
         select * from coco.update('m'); select * from coco.update('v')",
    );
}

/// Every relation of schemas `coco` and `coco_internal` that is no member of the extension.
const MADE: &str = "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname in ('coco', 'coco_internal') and c.relkind in ('r', 'v', 'p', 'm')
    and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') order by 1";

#[test]
fn what_a_flows_owner_does_to_its_tables_blinds_nobody() {
    let mut ground = Ground::new();
    full(&mut ground);
    let made = ground.admin.rows(MADE);
    assert!(made.len() >= 5, "{made:?}");
    for relation in &made {
        for sql in [
            "alter table @ rename to other",
            "revoke all on @ from postgres, mallory, public",
            "alter table @ enable row level security, force row level security",
            "alter table @ add column extra int",
            "alter table @ set schema mal",
            "create rule r as on select to @ do instead select 1",
            "create rule r as on insert to @ do instead nothing",
            "create trigger g before insert or update or delete on @ for each row execute function pg_catalog.suppress_redundant_updates_trigger()",
            "alter table @ set (fillfactor = 10)",
            "create or replace view @ as select 1 as x",
            "alter view @ set (security_invoker = true)",
            "delete from @",
            "truncate @",
            "drop table @",
            "drop view @",
            "drop table @ cascade",
            "drop view @ cascade",
        ] {
            ground.attempt("mallory", &[&sql.replace('@', relation)]);
        }
        ground.views_answer(&["app", "postgres"]);
    }
    ground.attempt(
        "mallory",
        &[
            "select * from coco.update('m')",
            "select coco.drop_flow('m')",
            "select coco.drop_flow('o')",
        ],
    );
    ground.unharmed();
}

#[test]
fn a_lock_on_a_flows_tables_makes_nobody_wait() {
    let mut ground = Ground::new();
    full(&mut ground);
    let mut mallory = ground.role("mallory");
    mallory.run("begin");
    for relation in ground
        .admin
        .rows(MADE)
        .into_iter()
        .chain(["mal.t", "mal.l", "mal.m", "mal.v"].map(str::to_owned))
    {
        mallory.run("savepoint s");
        if !attempt_in(&mut mallory, &[&format!("lock table {relation} in access exclusive mode")])
            .is_empty()
        {
            mallory.run("rollback to s");
        }
    }
    mallory.run("lock table mal.t, mal.l, mal.m, mal.v in access exclusive mode");
    ground.views_answer(&["app", "postgres", "bob"]);
    mallory.run("rollback");
    ground.unharmed();
}

#[test]
fn an_owner_that_changes_or_goes_blinds_nobody() {
    let mut ground = Ground::new();
    full(&mut ground);
    ground.admin.run("reassign owned by mallory to bob");
    ground.views_answer(&["app", "postgres", "bob", "mallory"]);
    // The flow goes on as its new owner's, or its own row says what to do.
    ground.attempt("bob", &["select * from coco.update('m')", "select coco.stop('m')"]);
    ground.admin.run("reassign owned by bob to mallory");
    ground.views_answer(&["app", "postgres", "bob", "mallory"]);
    ground.admin.run("drop table mal.t cascade");
    ground.views_answer(&["app", "postgres", "bob", "mallory"]);
    ground.admin.run("drop owned by mallory cascade; grant usage on schema coco to mallory");
    ground.views_answer(&["app", "postgres", "bob", "mallory"]);
    ground.admin.run("create schema mal authorization mallory");
    ground.unharmed();
}

#[test]
fn an_owner_that_is_dropped_blinds_nobody() {
    let mut ground = Ground::new();
    full(&mut ground);
    ground.admin.run("drop owned by mallory cascade");
    ground.attempt("postgres", &["drop role mallory"]);
    ground.views_answer(&["app", "postgres", "bob"]);
    ground.admin.run("do $$ begin create role mallory login; exception when duplicate_object then null; end $$; grant usage on schema coco to mallory");
    ground.unharmed();
}

/// Rights on a flow, and what its owner may read, are not shown to others.
#[test]
fn nothing_of_a_flow_is_shown_to_other_roles() {
    let mut ground = Ground::new();
    let mut app = ground.role("app");
    app.run(
        "create table secrets (id int primary key, s text not null); insert into secrets values (1, 'the secret of app');
         grant usage on schema app to public;
         select coco.create_flow('hidden', 'secrets', 'select id, s, 1 / (id - 2) as x from secrets', 'app.shown', '{id}');
         insert into secrets values (2, 'the secret of app'); select * from coco.update('hidden')",
    );
    let mut bob = ground.role("bob");
    for view in VIEWS {
        let all = bob.rows(&format!(
            "select v::text from coco.{view} v where v::text ~ 'hidden|secret|shown'"
        ));
        assert!(all.is_empty(), "coco.{view} shows {all:?}");
    }
    assert!(bob.holds("select coco.report() !~ 'hidden|secret of app'"));
    assert!(bob.holds("select coco.diagram() !~ 'hidden|secret of app'"));
    let made = ground.admin.rows(MADE);
    for relation in made {
        let refused = ground.attempt(
            "bob",
            &[&format!("select * from {relation}"), &format!("delete from {relation}")],
        );
        assert_eq!(refused.len(), 2, "{relation}: {refused:?}");
    }
    // A name that is taken is all that can be learned.
    for sql in [
        "select coco.create_flow('other', 'pg_catalog.pg_class', 'select oid, relname from pg_class', 'app.shown', '{oid}', source_key => '{oid}')",
        "select * from coco.update('hidden')",
        "select coco.lineage('app.shown', '{\"id\": 1}')",
        "select coco.outputs('hidden', '{\"id\": 1}')",
        "select * from coco.history('hidden')",
        "select * from coco.explain('hidden')",
        "select * from coco.preview('hidden')",
        "select * from coco.verify('hidden')",
        "select coco.clear_memo('hidden')",
        "select coco.start('hidden')",
        "select coco.stop('hidden')",
        "select coco.wait('hidden')",
        "select coco.alter_flow('hidden', owner => 'bob')",
        "select coco.drop_flow('hidden')",
    ] {
        for said in ground.attempt("bob", &[sql]) {
            assert!(!said.contains("secret") && !said.contains("select id"), "{sql}: {said}");
        }
    }
    // A target that belongs to a flow of another role does not name that flow.
    ground.admin.run("grant all on app.shown to bob; grant create on schema app to bob");
    ground.role("bob").run("create table mine (id int primary key, s text not null)");
    for said in ground.attempt("bob", &["select coco.create_flow('other', 'bob.mine', 'select id, s, 1 as x from mine', 'app.shown', '{id}')"]) {
        assert!(!said.contains("hidden"), "{said}");
    }
    assert_eq!(ground.admin.number("select count(*) from app.shown"), 1);
    ground.admin.run("revoke all on schema app from bob; revoke all on app.shown from bob; select coco.drop_flow('hidden')");
    ground.unharmed();
}

#[test]
fn internal_tables_are_open_to_their_owner_alone() {
    let mut ground = Ground::new();
    full(&mut ground);
    let owners = "select string_agg(c.oid::regclass || ' of ' || c.relowner::regrole, ', ') from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname in ('coco', 'coco_internal') and c.relkind in ('r', 'p') and c.relowner <> 'postgres'::regrole";
    assert_eq!(ground.admin.text(owners), "NULL", "tables of coco's belong to somebody else");
    assert!(
        ground
            .admin
            .holds("select not has_schema_privilege('mallory', 'coco_internal', 'usage, create')")
    );
    let open = "select string_agg(c.oid::regclass || ' to ' || r.rolname, ', ') from pg_class c join pg_namespace n on n.oid = c.relnamespace, pg_roles r
      where n.nspname = 'coco_internal' and r.rolname in ('mallory', 'app', 'bob')
        and has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate, references, trigger')";
    assert_eq!(ground.admin.text(open), "NULL", "somebody has a right on an internal table");
    // The column of an internal table runs nothing of a user's: no domain, no composite, no range of a user's.
    let types = "select string_agg(c.oid::regclass || '.' || a.attname || ' ' || format_type(t.oid, null), ', ')
      from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      join pg_type t on t.oid = a.atttypid left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
      where n.nspname = 'coco_internal' and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
        and (t.typtype in ('d', 'c') or e.typtype in ('d', 'c') or t.oid >= 16384 and t.typtype in ('r', 'm'))";
    assert_eq!(ground.admin.text(types), "NULL");
    ground.unharmed();
}
