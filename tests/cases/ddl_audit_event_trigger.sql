-- Seen at: cstore_fdw#170, pgMemento/pgMemento#18, every shop that audits DDL by an event trigger with unqualified names (Supabase, PostgREST reload triggers, AWS samples).
-- Here: an event trigger function without SET search_path that writes to ddl_log (in public), and one that refuses tables without a comment or of a bad name in public. Expected: coco's own DDL acts as the extension's owner, so that no name in it is found on a path that a user may choose: a function without a path is refused with a hint that says how to mend it. With a path of its own, the audit sees what happened, also where a worker makes a target again.
create table ddl_log (at timestamptz default now(), who text default current_user, tag text, what text);
create function audit() returns event_trigger language plpgsql as $$ declare r record; begin for r in select * from pg_event_trigger_ddl_commands() loop insert into ddl_log (tag, what) values (r.command_tag, r.object_identity); end loop; end $$;
create function audit_drop() returns event_trigger language plpgsql as $$ declare r record; begin for r in select * from pg_event_trigger_dropped_objects() loop insert into ddl_log (tag, what) values ('drop', r.object_identity); end loop; end $$;
create event trigger audit on ddl_command_end execute function audit();
create event trigger audit_drop on sql_drop execute function audit_drop();
create table t (id int primary key, v text);
insert into t values (1, 'a');
select lab.refused($$select coco.create_flow('f', 't', 'select id, v from t', 'tt', '{id}')$$, 'relation "ddl_log" does not exist%HINT: If the CONTEXT names a function of an event trigger, qualify the names in that function, or run ALTER FUNCTION');
alter function audit() set search_path = public;
alter function audit_drop() set search_path = public;
select coco.create_flow('f', 't', 'select id, v from t', 'tt', '{id}');
select lab.update('f');
select coco.start('f');
select lab.settled('f');
drop table tt;
insert into t values (2, 'b');
select lab.settled('f');
select coco.set_query('f', null, 'select id, v, 1 as one from t');
select coco.alter_flow('f', lineage_index => true);
select coco.stop('f');
select coco.drop_flow('f');
select lab.is((select count(distinct tag) > 5 from ddl_log)::text, 'true');
