//! What belongs to the name of a target, and moves to the new table.

use super::{fails, text, with_flow};
use crate::support::{TestDb, explain};

/// What a catalog says of table `t`, without the columns that a swap changes by itself.
const PARTS: [(&str, &str); 11] = [
    (
        "indexes",
        "select string_agg(pg_get_indexdef(indexrelid), '; ' order by indexrelid::regclass::text) from pg_index where indrelid = 't'::regclass",
    ),
    (
        "constraints",
        "select string_agg(concat_ws(' ', conname, pg_get_constraintdef(oid)), '; ' order by conname) from pg_constraint where contype <> 'n' and conrelid = 't'::regclass",
    ),
    ("grants", "select array_to_string(relacl, ', ') from pg_class where oid = 't'::regclass"),
    (
        "grants on columns",
        "select string_agg(concat_ws(' ', attname, attacl), '; ' order by attname) from pg_attribute where attrelid = 't'::regclass and attacl is not null",
    ),
    (
        "comments",
        "select string_agg(description, '; ' order by description) from pg_description where objoid in ('t'::regclass, 'marked'::regclass)",
    ),
    (
        "policies",
        "select string_agg(concat_ws(' ', polname, polcmd, polpermissive, polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), '; ' order by polname) from pg_policy where polrelid = 't'::regclass",
    ),
    (
        "security",
        "select row(relrowsecurity, relforcerowsecurity, relreplident, relowner::regrole, reloptions) from pg_class where oid = 't'::regclass",
    ),
    (
        "triggers",
        "select string_agg(concat_ws(' ', pg_get_triggerdef(oid), tgenabled), '; ' order by tgname) from pg_trigger where tgrelid = 't'::regclass and not tgisinternal",
    ),
    (
        "publications",
        "select string_agg(p.pubname, '; ') from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where r.prrelid = 't'::regclass",
    ),
    (
        "statistics",
        "select string_agg(pg_get_statisticsobjdef(oid), '; ') from pg_statistic_ext where stxrelid = 't'::regclass",
    ),
    (
        "views",
        "select string_agg(concat_ws(' ', relname, reloptions, relacl, pg_get_viewdef(oid)), '; ' order by relname) from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace",
    ),
];

fn parts(db: &mut TestDb) -> Vec<(&'static str, String)> {
    PARTS.iter().map(|(name, sql)| (*name, text(&mut db.client, sql))).collect()
}

fn reader(db: &mut TestDb, role: &str) {
    // Roles are the cluster's: a test that ran before may have left them.
    db.run(&format!(
        "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
    ));
}

/// A flow whose target has everything that a table can have.
fn with_everything(name: &str) -> TestDb {
    let mut db = with_flow(name);
    reader(&mut db, "gapless_reader");
    db.run(
        "create table ref (v int primary key); insert into ref select i from generate_series(0, 100) i;
         create table noted (what text);
         create function note() returns trigger language plpgsql as
           $$ begin insert into public.noted values (tg_op || ' ' || tg_table_name); return null; end $$;
         create view early as select id, v from t where v > 5;
         create view marked with (security_barrier) as select t.id, e.v as e from t left join early e using (id);
         create view above as select count(*) from marked;
         create index by_v on t (v desc) where v > 2; create index by_sum on t ((id + v)) with (fillfactor = 70);
         create unique index one_v on t (v, id);
         alter table t add constraint positive check (v >= 0), add constraint known foreign key (v) references ref,
           add constraint lone exclude (id with =);
         alter table t set (fillfactor = 80, autovacuum_enabled = false);
         create statistics both_columns on id, v from t;
         grant select on t to gapless_reader with grant option; grant update (v) on t to public;
         grant select on marked, ref to gapless_reader;
         comment on table t is 'the table'; comment on column t.v is 'the value'; comment on view marked is 'the view';
         alter table t enable row level security;
         create policy few on t for select to gapless_reader using (exists (select from ref where ref.v = t.v and t.id < 6));
         create policy writes on t as restrictive for insert with check (v < 1000);
         create trigger noting after insert or update or delete on t for each row execute function note();
         create trigger quiet after truncate on t execute function note(); alter table t disable trigger quiet;
         create publication pub for table t; alter table t replica identity using index t_pkey",
    );
    db
}

#[test]
fn everything_that_belongs_to_the_target_moves_to_the_new_table() {
    let mut db = with_everything("moves");
    let before = parts(&mut db);
    for (name, part) in &before {
        assert_ne!(part, "NULL", "{name}");
    }
    db.run(
        "select coco.set_query('f', null, 'select id, v * 2 as v from d', gapless => true, keep_old => '1 day')",
    );
    // Changed while the version is built: the state at the swap counts.
    db.run("grant delete on t to gapless_reader; comment on table t is 'changed'; drop policy writes on t");
    let before_swap = parts(&mut db);
    assert_ne!(before, before_swap);
    db.run("truncate noted");
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "110");
    assert_eq!(parts(&mut db), before_swap);
    // The filling of a version fires no trigger of a user.
    assert_eq!(text(&mut db.client, "select count(*) from noted"), "0");
    assert_eq!(text(&mut db.client, "select sum(v) from early"), "104");
    assert_eq!(text(&mut db.client, "select * from above"), "10");
    // Triggers fire for the table of that name only.
    db.run("update d set v = 40 where id = 1; select coco.update('f')");
    assert_eq!(
        text(&mut db.client, "select string_agg(distinct what, ', ') from noted"),
        "UPDATE t"
    );
    let mut reader = db.connect_as("gapless_reader");
    assert_eq!(text(&mut reader, "select count(*) from t"), "5");
    assert_eq!(text(&mut reader, "select count(*) from marked"), "10");
    // And back.
    db.run("select coco.rollback('f')");
    assert_eq!(parts(&mut db), before_swap);
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "94");
    assert_eq!(text(&mut db.client, "select v from early where id = 1"), "40");
    db.verify_clean("f");
    // Nothing is left of a version when it is dropped.
    db.run("update coco_internal.version set keep_until = now() - interval '1 s'; select coco.update('f')");
    let left = "select string_agg(relname::text, ', ') from pg_class where relname ~ '@|coco_index|coco_swap'
                 and relnamespace <> 'coco'::regnamespace";
    assert_eq!(text(&mut db.client, left), "NULL");
    assert_eq!(parts(&mut db), before_swap);
}

#[test]
fn what_uses_a_column_that_goes_goes_with_it() {
    let mut db = with_flow("column");
    db.run(
        "create index by_v on t (v); alter table t add constraint positive check (v > 0);
         create index by_id on t (id, (id + 1));
         select coco.set_query('f', null, 'select id, v as w from d', gapless => true); select coco.update('f')",
    );
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(indexrelid::regclass::text, ', ' order by indexrelid::regclass::text) from pg_index where indrelid = 't'::regclass"
        ),
        "by_id, t_pkey"
    );
    assert_eq!(
        text(&mut db.client, "select count(*) from pg_constraint where conname = 'positive'"),
        "0"
    );
    // An index on a column whose type changes is built for the new type.
    db.run(
        "create index by_w on t (w);
         select coco.set_query('f', null, 'select id, v::text as w from d', gapless => true); select coco.update('f')",
    );
    assert_eq!(
        text(&mut db.client, "select pg_get_indexdef('by_w'::regclass)"),
        "CREATE INDEX by_w ON public.t USING btree (w)"
    );
    db.verify_clean("f");
}

#[test]
fn an_index_that_the_new_table_lacks_is_asked_for() {
    let mut db = with_flow("lacks");
    db.run(
        "select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true);
         create index late on t (v)",
    );
    db.update("f", "normal");
    let found = text(&mut db.client, "select waits_for from coco.versions");
    assert!(found.contains("lacks indexes or constraints"), "{found}");
    let e = fails(&mut db.client, "select coco.swap('f')", "55000");
    assert!(e.contains("index late"), "{e}");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "55");
    db.run("create index on \"t@new\" (v); select coco.update('f')");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "65");
    assert_eq!(
        text(&mut db.client, "select pg_get_indexdef('late'::regclass)"),
        "CREATE INDEX late ON public.t USING btree (v)"
    );
}

#[test]
fn a_table_of_a_group_of_owners_is_replaced_by_one_of_them() {
    let mut db = TestDb::new("gapless_member");
    for role in ["gapless_group", "gapless_member"] {
        reader(&mut db, role);
    }
    db.run(
        "grant gapless_group to gapless_member; grant usage on schema coco to gapless_member;
         create schema s; grant usage, create on schema s to gapless_group, gapless_member;
         create table s.d (id int primary key, v int not null); insert into s.d values (1, 1);
         grant select, trigger on s.d to gapless_member;
         create table s.t (id int primary key, v int); alter table s.t owner to gapless_group",
    );
    let mut member = db.connect_as("gapless_member");
    member
        .batch_execute(
            "select coco.create_flow('f', 's.d', 'select id, v from d', 's.t', '{id}');
             select coco.update('f');
             select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true);
             select coco.update('f')",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert_eq!(
        text(
            &mut db.client,
            "select row(relowner::regrole, (select v from s.t)) from pg_class where oid = 's.t'::regclass"
        ),
        "(gapless_group,2)"
    );
}
