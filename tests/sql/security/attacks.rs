//! The attacks by which the first release was broken, one a test.

use crate::ground::{Ground, attempt_in};
use crate::support::explain;
use crate::support::server::{BOUND, comes};

/// A function that makes its caller a superuser, if somebody with that right runs it.
const CLIMB: &str = "create or replace function mal.climb() returns boolean language plpgsql volatile as $$
  begin
    if (select rolsuper from pg_catalog.pg_roles where rolname operator(pg_catalog.=) current_user) then
      execute 'alter role mallory superuser';
    end if;
    return true;
  end $$";

#[test]
fn a_domains_check_on_a_key_never_runs_as_the_extensions_owner() {
    let mut ground = Ground::new();
    ground.attempt(
        "mallory",
        &[
            CLIMB,
            "create domain d as int check (mal.climb())",
            "create table t (id int primary key, k d not null)",
            "select coco.create_flow('x1', 'mal.t', 'select id, 1 as one from t', 'mal.x1', '{id}')",
            "insert into t values (1, 1), (2, 2)",
            "select coco.create_flow('x2', 'mal.t', 'select k, count(*) as n from t group by k', 'mal.x2', '{k}', source_key => '{k}')",
            "update t set k = k + 1",
            "select * from coco.update('x1')",
            "select * from coco.update('x2')",
            "alter domain d drop constraint d_check",
            "alter domain d add constraint later check (mal.climb())",
            "insert into t values (3, 3)",
            "select * from coco.update('x2')",
            "select coco.drop_flow('x2')",
        ],
    );
    ground.admin.run("select * from coco.update('x1')");
    ground.unharmed();
}

#[test]
fn an_assignment_cast_never_runs_as_the_extensions_owner() {
    let mut ground = Ground::new();
    ground.admin.run(
        "create server hook foreign data wrapper coco_http options (url 'http://127.0.0.1:9/'); grant usage on foreign server hook to mallory",
    );
    ground.attempt(
        "mallory",
        &[
            CLIMB,
            "create user mapping for mallory server hook options (bearer_token 'x')",
            "create type mood as enum ('a', 'b')",
            "create function as_text(mood) returns text language plpgsql as $$ begin perform mal.climb(); return 'x'; end $$",
            "create function as_int(mood) returns int language plpgsql as $$ begin perform mal.climb(); return 1; end $$",
            "create cast (mood as text) with function as_text(mood) as assignment",
            "create cast (mood as int) with function as_int(mood) as implicit",
            "create table t (id int primary key, m mood, n int)",
            "insert into t values (1, 'a', 1)",
            "select coco.create_flow('c', 'mal.t', 'select id, n::text as v, n from t', 'c', '{id}', server => 'hook')",
            "do $$ declare o text := (select outbox::text from coco.targets where flow = 'c');
              begin execute 'alter table ' || o || ' alter column c1 type mal.mood using ''a''';
                    execute 'insert into ' || o || ' (version, upsert, c1) values (1, false, ''a'')'; end $$",
            "select coco.set_query('c', null, 'select id, m as v, n from t')",
            "select coco.set_query('c', null, 'select id, n as v, n from t')",
            "select coco.set_query('c', null, 'select id, m as v, m as n from t')",
            "select coco.set_query('c', null, 'select id, n::text as v, n::bigint as n from t')",
        ],
    );
    ground.unharmed();
}

#[test]
fn a_memoized_result_that_was_forged_is_never_believed() {
    let mut ground = Ground::new();
    let mut mallory = ground.role("mallory");
    mallory.run(
        "create table t (id int primary key, k int not null); insert into t values (1, 1);
         create function f(k int) returns bigint[] language sql immutable as 'select array[k]::bigint[]';
         select coco.memoize('mal.f(int)');
         select coco.create_flow('x4', 'mal.t', $q$select id, array(select (mal.f(k))[i] from generate_series(1, 3000) i) as v from t$q$, 'mal.x4', '{id}');
         select * from coco.update('x4')",
    );
    // 100 million elements, in some four hundred bytes; and lengths that are none.
    for bytes in [
        "0100000000000000140000000060f50501000000",
        "ff",
        "",
        "03000000ffffffff00000000",
        "80000000000000",
    ] {
        let forge = format!(
            "do $$ declare m text;
              begin for m in select c.oid::regclass::text from pg_class c where relname ~ '^memo_.*' and relkind in ('r', 'v') loop
                begin execute 'update ' || m || ' set result = ''\\x{bytes}'''; exception when others then raise notice '%', sqlerrm; end;
              end loop; end $$"
        );
        attempt_in(
            &mut mallory,
            &[&forge, "update t set k = k", "select * from coco.update('x4', 'reexport')"],
        );
        assert_eq!(mallory.text("select array_length(v, 1) from mal.x4"), "3000", "{bytes}");
        assert!(mallory.holds("select v[1] = 1 and v[2] is null from mal.x4"), "{bytes}");
    }
    ground.unharmed();
}

/// As a superuser, who may write the table itself.
#[test]
fn a_memoized_result_that_a_superuser_forged_harms_nobody() {
    let mut ground = Ground::new();
    ground.role("mallory").run(
        "create table t (id int primary key, k int not null); insert into t values (1, 1), (2, 2);
         create function f(k int) returns bigint[] language sql immutable as 'select array[k]::bigint[]';
         create function g(k int) returns text language sql immutable as 'select repeat(''x'', k)';
         create function h(k int) returns jsonb language sql immutable as 'select jsonb_build_object(''k'', k)';
         create function i(k int) returns numrange[] language sql immutable as 'select array[numrange(k, k + 1)]';
         select coco.memoize('mal.f(int)'), coco.memoize('mal.g(int)'), coco.memoize('mal.h(int)'), coco.memoize('mal.i(int)');
         select coco.create_flow('x4', 'mal.t', $q$select id, f(k) as f, g(k) as g, h(k) as h, i(k) as i from t$q$, 'mal.x4', '{id}');
         select * from coco.update('x4')",
    );
    let memo = ground.admin.text("select c.oid::regclass::text from pg_class c where relname ~ '^memo_' and relkind = 'r' limit 1");
    let binary = "select attname from pg_attribute where attrelid = '@'::regclass and atttypid = 'bytea'::regtype and attnum > 0".replace('@', &memo);
    let columns = ground.admin.rows(&binary);
    assert!(!columns.is_empty(), "{memo} has no column of bytes");
    for column in columns {
        for bytes in [
            "0100000000000000140000000060f50501000000",
            "",
            "ff",
            "00000001000000000000001400000001ffffffff",
            "7fffffff",
        ] {
            ground
                .admin
                .0
                .batch_execute(&format!("update {memo} set {column} = '\\x{bytes}'"))
                .ok();
            attempt_in(
                &mut ground.admin,
                &["select * from coco.update('x4', 'reexport')", "select * from coco.verify('x4')"],
            );
        }
    }
    ground.admin.run(&format!("truncate {memo}; select * from coco.update('x4', 'reexport')"));
    let expected = "select count(*) from mal.x4 x join mal.t t using (id) where x.f = mal.f(k) and x.g = mal.g(k) and x.h = mal.h(k) and x.i = mal.i(k)";
    assert_eq!(ground.admin.number(expected), 2);
    ground.unharmed();
}

#[test]
fn a_function_that_is_planted_on_somebodys_path_is_not_called() {
    let mut ground = Ground::new();
    ground.admin.run("grant create on schema public to mallory");
    let mut app = ground.role("app");
    app.run(
        "select coco.create_flow('lowered', 'people', 'select id, lower(name) as n from people', 'app.lowered', '{id}');
         select * from coco.update('lowered')",
    );
    ground.role("mallory").run(
        "create table public.stolen (who name, what text); grant insert on public.stolen to public;
         create function public.lower(varchar) returns text language plpgsql as $$
           declare s text;
           begin
             begin execute 'select s from app.private' into s; insert into public.stolen values (current_user, s);
             exception when others then null; end;
             return 'planted';
           end $$;
         create function public.upper(varchar) returns text language sql as 'select ''planted''';
         create function public.same(int, int) returns boolean language sql as 'select true';
         create operator public.= (leftarg = int, rightarg = int, function = public.same)",
    );
    app.run("update people set name = 'Bo' where id = 1; select * from coco.update('lowered')");
    ground.admin.run("select * from coco.update('lowered', 'full_reprocess'); select * from coco.verify('lowered', true)");
    assert_eq!(ground.admin.text("select count(*) from public.stolen"), "0");
    assert_eq!(app.text("select n from lowered where id = 1"), "bo");
    ground.admin.run("drop operator public.= (int, int); drop function public.upper(varchar)");
    ground.unharmed();
}

#[test]
fn a_column_of_an_outbox_that_was_altered_kills_no_worker() {
    let mut ground = Ground::new();
    ground.admin.run(
        "create server far foreign data wrapper coco_postgres options (host '127.0.0.1', port '9', dbname 'x', sslmode 'disable'); grant usage on foreign server far to mallory",
    );
    let mut mallory = ground.role("mallory");
    mallory.run(
        "create user mapping for mallory server far options (user 'u', password 'p');
         create table t (id int primary key, a text);
         select coco.create_flow('x8', 'mal.t', 'select id, a from t', 'far_t', '{id}', server => 'far')",
    );
    attempt_in(
        &mut mallory,
        &[
            "do $$ declare o text := (select outbox::text from coco.targets where flow = 'x8');
               begin execute 'alter table ' || o || ' alter column c2 type bigint using 1';
                     execute 'insert into ' || o || ' (version, upsert, c1, c2) values (1, true, 1, x''4141414141414141''::bigint)'; end $$",
            "insert into t values (1, 'a')",
            "select coco.start('x8')",
            "select coco.wait('x8', '5 s')",
            "select coco.stop('x8')",
        ],
    );
    // A superuser, who may alter the table itself, kills none either.
    let outbox = ground.admin.rows(
        "select c.oid::regclass::text from pg_class c where relname ~ '^outbox_' and relkind = 'r'",
    );
    for outbox in &outbox {
        for kind in ["bigint", "bytea", "int[]", "uuid", "numeric", "record[]"] {
            ground
                .admin
                .0
                .batch_execute(&format!(
                    "alter table {outbox} alter column c2 type {kind} using null; truncate {outbox}"
                ))
                .ok();
            ground.admin.0.batch_execute(&format!(
                "insert into {outbox} (version, upsert, c1, c2) values (1, true, 1, case when '{kind}' = 'bigint' then '4702111234474983745' when '{kind}' in ('int[]') then '{{1}}' when '{kind}' = 'uuid' then '{{41414141-4141-4141-4141-414141414141}}' else '1' end::text::{kind})"
            )).ok();
            attempt_in(
                &mut ground.admin,
                &[
                    "select coco.start('x8')",
                    "select coco.wait('x8', '2 s')",
                    "select coco.stop('x8')",
                ],
            );
        }
    }
    ground.unharmed();
}

#[test]
fn deeply_nested_values_end_a_statement_and_not_the_server() {
    let mut ground = Ground::new();
    for call in [
        "coco.fingerprint(r)",
        "coco.stable_uuid(r)",
        "coco.fingerprint(1, r, r)",
        "coco.fingerprint(array[r])",
        "coco.fingerprint(row(r, r))",
    ] {
        let nested = format!(
            "do $$ declare r record := row(1);
               begin
                 for i in 1..20000 loop r := row(r); end loop;
                 perform {call};
               end $$"
        );
        ground.attempt("mallory", &[&nested]);
    }
    ground.alive();
    ground.unharmed();
}

#[test]
fn a_row_that_is_slow_to_split_can_be_interrupted() {
    let mut ground = Ground::new();
    for text in [
        "repeat('a', 3000000)",
        "repeat('ab ', 1000000)",
        "repeat(chr(1), 1000000)",
        "repeat(chr(769), 500000)",
        "repeat(chr(128512), 500000)",
    ] {
        for call in ["count(*) from coco.split_text(@, 24)", "length(coco.normalize_text(@))"] {
            let mut mallory = ground.role("mallory");
            mallory.run("set statement_timeout = '2s'");
            let sql = format!("select {}", call.replace('@', text));
            let running = std::thread::spawn({
                let sql = sql.clone();
                move || mallory.0.batch_execute(&sql).map_err(|e| explain(&e))
            });
            // Done, or ended by the statement's limit: not later than any process is waited for.
            assert!(comes(BOUND, || running.is_finished()), "nothing interrupts {sql}");
            if let Ok(Err(said)) = running.join() {
                assert!(said.contains("57014"), "{sql}: {said}");
            }
        }
    }
    ground.unharmed();
}

#[test]
fn a_batch_function_that_was_made_again_is_checked() {
    let mut ground = Ground::new();
    ground.attempt(
        "mallory",
        &[
            "create table t (id int primary key, k text not null); insert into t values (1, 'a')",
            "create function f(text) returns text language sql immutable as 'select $1'",
            "create function g(text[]) returns text[] language sql immutable as 'select $1'",
            "select coco.memoize('mal.f(text)', batch => 'mal.g(text[])')",
            "select coco.create_flow('x12', 'mal.t', $q$select id, octet_length(mal.f(k)) as l from t$q$, 'mal.x12', '{id}')",
            "select * from coco.update('x12')",
            "drop function g(text[])",
            "create function g(text[]) returns bigint[] language sql immutable as 'select array_agg(5000::bigint << 2) from unnest($1)'",
            "insert into t values (2, 'b')",
            "select * from coco.update('x12')",
            "drop function g(text[])",
            "create function g(text[]) returns setof text language sql immutable as 'select unnest($1)'",
            "select * from coco.update('x12', 'full_reprocess')",
            "drop function g(text[])",
            "create function g(text[]) returns text[] language sql immutable as $q$ select array[['x','y'],['z','w']] $q$",
            "insert into t values (3, 'c')",
            "select * from coco.update('x12')",
            "create or replace function g(text[]) returns text[] language sql immutable as $q$ select null::text[] $q$",
            "insert into t values (4, 'd')",
            "select * from coco.update('x12')",
            "create or replace function g(text[]) returns text[] language sql immutable as $q$ select '[5:6]={a,b}'::text[] $q$",
            "insert into t values (5, 'e')",
            "select * from coco.update('x12')",
        ],
    );
    // Nothing but what the function itself gives is in the target.
    let wrong = "select count(*) from mal.x12 where l is distinct from 1";
    assert_eq!(ground.role("mallory").number(wrong), 0);
    ground.unharmed();
}

#[test]
fn what_an_affects_query_or_a_view_reads_may_change_its_type() {
    let mut ground = Ground::new();
    ground.attempt(
        "mallory",
        &[
            "create table t (id int primary key, k text not null); insert into t values (1, 'a'), (2, 'b')",
            "create table l (id int primary key, n int not null); insert into l values (1, 1), (2, 2)",
            "create function ids() returns setof int language sql stable as 'select id from mal.l'",
            "select coco.create_flow('v')",
            "select coco.add_source('v', 't')",
            "select coco.add_lookup('v', 'l', affects => 'select i as id from ids() i')",
            "select coco.add_target('v', 'mal.v', 'select t.id, k, n from t join l using (id)', '{id}')",
            "select * from coco.update('v')",
            "drop function ids() cascade",
            "create function ids() returns setof text language sql stable as $q$ select repeat('A', 100) $q$",
            "update l set n = n + 1",
            "select * from coco.update('v')",
            "select coco.set_query('v', null, 'select t.id, k, n from t join l using (id) where n > 0')",
            "select * from coco.update('v')",
        ],
    );
    ground.unharmed();
}

#[test]
fn subqueries_that_look_like_coco_s_own_are_a_users() {
    let mut ground = Ground::new();
    ground.attempt(
        "mallory",
        &[
            "create table t (id int primary key, k text not null); insert into t values (1, 'a')",
            "create function f(text) returns text language sql immutable as 'select $1'",
            "select coco.memoize('mal.f(text)')",
            "select coco.create_flow('x15', 'mal.t', 'select id, mal.f(k) as v from t, (select 1 as coco_item offset 0) a, (select 2 as coco_item offset 0) b', 'mal.x15', '{id}')",
            "select * from coco.update('x15')",
            "select coco.create_flow('y15', 'mal.t', 'select id, mal.f(k) as v, q.coco_item from t, lateral (with item as (select t.k as coco_item) select coco_item from item offset 0) q', 'mal.y15', '{id}')",
            "select * from coco.update('y15')",
            "select coco.create_flow('z15', 'mal.t', 'with t as (select *, 1 as coco_item from t), q as (select * from t offset 0) select q.id, mal.f(q.k) as v from q, lateral (select q.coco_item offset 0) item', 'mal.z15', '{id}')",
            "select * from coco.update('z15')",
        ],
    );
    for sql in [
        "select count(*) from mal.x15 where v <> 'a'",
        "select count(*) from mal.y15 where v <> 'a' or coco_item <> 'a'",
    ] {
        if let Ok(row) = ground.admin.0.query_one(sql, &[]) {
            assert_eq!(row.get::<_, i64>(0), 0, "{sql}");
        }
    }
    ground.unharmed();
}

#[test]
fn a_statement_with_coco_s_marks_is_not_rewritten() {
    let mut ground = Ground::new();
    // Whatever a session writes into its own statements is its own.
    let mut mallory = ground.role("mallory");
    mallory.run("create table t (id int primary key, k int not null); insert into t select i, i from generate_series(1, 10) i;
                 select coco.create_flow('m', 'mal.t', 'select id, k from t', 'mal.m', '{id}'); select * from coco.update('m')");
    let volatile = "with r as materialized (select random() as x) select count(distinct x) from r a, generate_series(1, 5)";
    let shadowed = "select count(distinct q.x) from (select id as coco_item from mal.t) item cross join lateral (with r as materialized (select random() as x) select a.x from r a, r b) q";
    for text in ["", "/* coco */ ", "-- coco\n", "/* coco.update */ "] {
        assert_eq!(mallory.text(&format!("{text}{volatile}")), "1");
        attempt_in(&mut mallory, &[&format!("{text}{shadowed}")]);
    }
    ground.unharmed();
}

#[test]
fn a_memoized_function_is_its_owners() {
    let mut ground = Ground::new();
    ground.admin.run("create schema common; grant usage, create on schema common to mallory, app");
    let mut mallory = ground.role("mallory");
    mallory.run(
        "create table stolen (who name, what text); grant usage on schema mal to public; grant insert on stolen to public;
         create function common.clean(text) returns text language sql immutable as 'select $1';
         create function batch(text[]) returns text[] language plpgsql as $$
           begin insert into mal.stolen values (current_user, (select s from app.private)); return $1; exception when others then return $1; end $$;
         select coco.memoize('common.clean(text)', batch => 'mal.batch(text[])');
         drop function common.clean(text)",
    );
    let mut app = ground.role("app");
    app.run(
        "create function common.clean(text) returns text language sql immutable as 'select btrim($1)';
         select coco.create_flow('cleaned', 'people', 'select id, common.clean(name) as n from people', 'app.cleaned', '{id}');
         select * from coco.update('cleaned')",
    );
    assert_eq!(ground.admin.text("select count(*) from mal.stolen where who <> 'mallory'"), "0");
    // Nor may a role memoize what is somebody else's, or take another's function for the batch.
    for sql in [
        "select coco.memoize('common.clean(text)')",
        "select coco.memoize('pg_catalog.lower(text)')",
    ] {
        let refused = ground.attempt("mallory", &[sql]);
        assert!(refused.len() == 1 && refused[0].starts_with("42501"), "{sql}: {refused:?}");
    }
    // A function that changes hands is its new owner's, with what was said of it by the old one.
    app.run("select coco.memoize('common.clean(text)')");
    ground.admin.run("alter function common.clean(text) owner to bob");
    app.run("update people set name = ' c ' where id = 1; select * from coco.update('cleaned')");
    assert_eq!(app.text("select n from app.cleaned where id = 1"), "c");
    ground.unharmed();
}
