//! Targets that are partitioned tables: the new table gets the same partitions, and each partition is
//! exchanged with its partner.

use super::{FLOWS, fails, text};
use crate::support::{TestDb, explain};

const CHANGE: &str =
    "select coco.set_query('f', null, 'select id, v * 2 as v from d', gapless => true)";

/// A role, with a schema of its name.
fn role(db: &mut TestDb, role: &str) {
    // Roles are the cluster's: a test that ran before may have left them.
    db.run(&format!(
        "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to {role}; create schema {role} authorization {role}"
    ));
}

/// A filled flow `f` to table `t`, partitioned by range, with a partition that is partitioned by list
/// and with default partitions, and with everything that tables and partitions can have.
fn with_partitions(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("gapless_part_{name}"));
    role(&mut db, "gapless_part_reader");
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 30) i;
         create table ref (v int primary key); insert into ref select i from generate_series(0, 2000) i;
         create table noted (what text);
         create function note() returns trigger language plpgsql as
           $$ begin insert into public.noted values (tg_op || ' ' || tg_table_name); return null; end $$;
         create table t (id int primary key, v int not null, constraint small check (v < 100000)) partition by range (id);
         create table low partition of t for values from (0) to (11) with (fillfactor = 70);
         create table high partition of t for values from (11) to (21) partition by list (id);
         create table high_12 partition of high for values in (12);
         create table high_rest partition of high default;
         create table rest partition of t default;
         create index by_v on t (v);
         alter table t add constraint known foreign key (v) references ref;
         create index low_only on low (v, id); alter table low add constraint low_check check (v >= 0);
         alter table rest alter column v set default 7;
         create statistics both_columns on id, v from low;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.update('f');
         create view over_t as select id, v from t; create view over_low as select id, v from low;
         grant select on t to gapless_part_reader; grant select (id) on high_12 to gapless_part_reader;
         comment on table t is 'the table'; comment on table low is 'the low ones';
         comment on column rest.v is 'the others'' value'; comment on index by_v is 'the index';
         alter table high_rest enable row level security;
         create policy own on high_rest for select to gapless_part_reader using (v > 3);
         create trigger noting after insert or update or delete on t for each row execute function note();
         create trigger emptied after truncate on low execute function note();
         create publication pub for table low; alter table rest replica identity full",
    );
    db
}

/// What the catalog says of `t` and its partitions, each by its name.
const PARTS: [&str; 10] = [
    "select string_agg(concat_ws(' ', c.relname, pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), c.relowner::regrole,
                                 c.reloptions, coalesce(c.relacl, acldefault('r', c.relowner)), c.relrowsecurity, c.relreplident, obj_description(c.oid, 'pg_class')),
                       '; ' order by c.relname)
       from pg_partition_tree('t') p join pg_class c on c.oid = p.relid",
    "select string_agg(concat_ws(' ', p.relid, p.parentrelid), '; ' order by p.relid::regclass::text) from pg_partition_tree('t') p",
    "select string_agg(concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, obj_description(i.indexrelid, 'pg_class')),
                       '; ' order by i.indexrelid::regclass::text)
       from pg_partition_tree('t') p join pg_index i on i.indrelid = p.relid",
    "select string_agg(concat_ws(' ', p.relid, c.conname, pg_get_constraintdef(c.oid)), '; ' order by p.relid::regclass::text, c.conname)
       from pg_partition_tree('t') p join pg_constraint c on c.conrelid = p.relid where c.contype <> 'n'",
    "select string_agg(concat_ws(' ', p.relid, t.tgname, t.tgenabled), '; ' order by p.relid::regclass::text, t.tgname)
       from pg_partition_tree('t') p join pg_trigger t on t.tgrelid = p.relid where t.tgname in ('noting', 'emptied')",
    "select string_agg(concat_ws(' ', p.relid, a.attname, a.attacl, col_description(p.relid, a.attnum), pg_get_expr(d.adbin, d.adrelid)),
                       '; ' order by p.relid::regclass::text, a.attname)
       from pg_partition_tree('t') p join pg_attribute a on a.attrelid = p.relid and a.attnum > 0 and not a.attisdropped
       left join pg_attrdef d on d.adrelid = p.relid and d.adnum = a.attnum",
    "select string_agg(concat_ws(' ', polrelid::regclass, polname, pg_get_expr(polqual, polrelid)), '; ' order by polname)
       from pg_partition_tree('t') p join pg_policy on polrelid = p.relid",
    "select string_agg(prrelid::regclass::text, '; ' order by prrelid::regclass::text)
       from pg_partition_tree('t') p join pg_publication_rel on prrelid = p.relid",
    "select string_agg(pg_get_statisticsobjdef(oid), '; ' order by stxname)
       from pg_partition_tree('t') p join pg_statistic_ext on stxrelid = p.relid",
    "select string_agg(concat_ws(' ', relname, pg_get_viewdef(oid)), '; ' order by relname)
       from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace",
];

fn parts(db: &mut TestDb) -> Vec<String> {
    PARTS.iter().map(|sql| text(&mut db.client, sql)).collect()
}

/// The number of rows of each partition, and the sum of their values.
const ROWS: &str = "select string_agg(concat_ws(' ', relation, n, total), ', ' order by relation)
  from (select tableoid::regclass::text as relation, count(*) as n, sum(v) as total from t group by 1) as x";

const ROWS_BEFORE: &str = "high_12 1 12, high_rest 9 143, low 10 55, rest 10 255";
const ROWS_AFTER: &str = "high_12 1 24, high_rest 9 286, low 10 110, rest 10 510";

#[test]
fn a_table_and_its_partitions_are_exchanged() {
    let mut db = with_partitions("moves");
    let before = parts(&mut db);
    assert!(before.iter().all(|part| part != "NULL"), "{before:?}");
    assert_eq!(text(&mut db.client, ROWS), ROWS_BEFORE);
    db.run("truncate noted");
    db.run(
        &CHANGE
            .replace("gapless => true", "gapless => true, swap => 'manual', keep_old => '1 day'"),
    );
    let new = "select string_agg(relid::regclass::text, ' ' order by relid::regclass::text collate \"C\") from pg_partition_tree('\"t@new\"')";
    assert_eq!(
        text(&mut db.client, new),
        "\"high@new\" \"high_12@new\" \"high_rest@new\" \"low@new\" \"rest@new\" \"t@new\""
    );
    assert_eq!(parts(&mut db), before);
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select count(*) from \"rest@new\""), "10");
    assert_eq!(text(&mut db.client, ROWS), ROWS_BEFORE);
    assert_eq!(text(&mut db.client, "select count(*) from coco.diff('f', 100)"), "30");
    db.run("select coco.swap('f')");
    assert_eq!(text(&mut db.client, ROWS), ROWS_AFTER);
    assert_eq!(parts(&mut db), before);
    assert_eq!(text(&mut db.client, "select sum(v) from over_t"), "930");
    assert_eq!(text(&mut db.client, "select sum(v) from over_low"), "110");
    // The filling of a version fires no trigger of a user.
    assert_eq!(text(&mut db.client, "select count(*) from noted"), "0");
    assert_eq!(
        text(&mut db.client, "select reltuples from pg_class where oid = 'low'::regclass"),
        "10",
        "readers have statistics from the first moment"
    );
    // Both are kept up to date, each with its own partitions.
    db.run(
        "update d set v = 100 where id = 12; delete from d where id = 30; select coco.update('f')",
    );
    assert_eq!(text(&mut db.client, "select v from high_12"), "200");
    assert_eq!(text(&mut db.client, "select v from \"high_12@old\""), "100");
    assert_eq!(
        text(&mut db.client, "select string_agg(what, ', ' order by what) from noted"),
        "DELETE rest, UPDATE high_12"
    );
    db.verify_clean("f");
    // And back, and forth.
    db.run("select coco.rollback('f')");
    assert_eq!(parts(&mut db), before);
    assert_eq!(text(&mut db.client, "select v from high_12"), "100");
    assert_eq!(text(&mut db.client, "select v from \"high_12@old\""), "200");
    db.verify_clean("f");
    db.run("select coco.rollback('f')");
    assert_eq!(parts(&mut db), before);
    assert_eq!(text(&mut db.client, "select v from high_12"), "200");
    let mut reader = db.connect_as("gapless_part_reader");
    assert_eq!(text(&mut reader, "select count(*) from t"), "29");
}

#[test]
fn the_old_table_stays_and_a_version_is_given_up() {
    let mut db = with_partitions("stays");
    db.run(CHANGE);
    db.run("select coco.discard('f')");
    let left = "select count(*) from pg_class where relname like '%@new%'";
    assert_eq!(text(&mut db.client, left), "0");
    db.run(CHANGE);
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, ROWS), ROWS_AFTER);
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    assert_eq!(text(&mut db.client, left), "0");
    // An adopted table is not dropped, and neither are its partitions.
    assert_eq!(text(&mut db.client, "select sum(v) from \"t@old\""), "465");
    assert_eq!(text(&mut db.client, "select sum(v) from \"low@old\""), "55");
    let e = fails(&mut db.client, CHANGE, "42P07");
    assert!(e.contains("relation public.\"t@old\" already exists"), "{e}");
    db.run("alter table \"t@old\" rename to before");
    let e = fails(&mut db.client, CHANGE, "42P07");
    assert!(e.contains("@old\" already exists"), "{e}");
    db.run("drop table before");
    db.run(CHANGE);
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn the_key_and_the_columns_may_change() {
    let mut db = TestDb::new("gapless_part_key");
    db.run(
        "create table d (tenant text, id int, v int not null, primary key (tenant, id));
         insert into d select case i % 3 when 0 then 'a' when 1 then 'b' else 'c' end, i, i from generate_series(1, 9) i;
         create table t (tenant text, id int, v int, primary key (tenant, id)) partition by list (tenant);
         create table t_a partition of t for values in ('a', 'z'); create table t_rest partition of t default;
         create index by_v on t (v); create index a_by_v on t_a (v) where v > 2;
         select coco.create_flow('f', 'd', 'select tenant, id, v from d', 't', '{tenant,id}');
         select coco.update('f')",
    );
    for (query, key) in [
        ("select id, tenant, v from d", "'{id}'"),
        ("select upper(tenant)::varchar as tenant, id, v from d", "'{tenant,id}'"),
    ] {
        let e = fails(
            &mut db.client,
            &format!("select coco.set_query('f', null, '{query}', key => {key}, gapless => true)"),
            "0A000",
        );
        assert!(
            e.contains("the new key of target public.t lacks a column of its partition key"),
            "{e}"
        );
    }
    db.run(
        "select coco.set_query('f', null,
           'select tenant, id, g as n, v::bigint * g as v, -v as w from d, generate_series(1, 2) g',
           key => '{tenant,id,n}', gapless => true)",
    );
    db.update("f", "normal");
    let count = "select string_agg(concat_ws(' ', relation, n, total), ', ' order by relation)
      from (select tableoid::regclass::text as relation, count(*) as n, sum(v) as total from t group by 1) as x";
    assert_eq!(text(&mut db.client, count), "t_a 6 54, t_rest 12 81");
    for (index, definition) in [
        ("by_v", "CREATE INDEX by_v ON ONLY public.t USING btree (v)"),
        ("t_a_v_idx", "CREATE INDEX t_a_v_idx ON public.t_a USING btree (v)"),
        ("a_by_v", "CREATE INDEX a_by_v ON public.t_a USING btree (v) WHERE (v > 2)"),
        ("t_a_pkey", "CREATE UNIQUE INDEX t_a_pkey ON public.t_a USING btree (tenant, id, n)"),
    ] {
        let found = format!("select pg_get_indexdef('{index}'::regclass)");
        assert_eq!(text(&mut db.client, &found), definition);
    }
    db.run("delete from d where tenant = 'a' and id = 3; insert into d values ('z', 10, 10); select coco.update('f')");
    assert_eq!(text(&mut db.client, "select count(*) from t_a"), "6");
    db.verify_clean("f");
}

#[test]
fn partitions_that_are_added_later_are_added_to_the_version() {
    let mut db = TestDb::new("gapless_part_added");
    db.run(
        "create table d (id int primary key, v int not null); insert into d select i, i from generate_series(1, 10) i;
         create table t (id int primary key, v int not null) partition by range (id);
         create table p1 partition of t for values from (0) to (100);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f')",
    );
    db.run(
        &CHANGE
            .replace("gapless => true", "gapless => true, swap => 'manual', keep_old => '1 day'"),
    );
    db.run(
        "create table p2 partition of t for values from (100) to (200);
         insert into d values (150, 150)",
    );
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select v from \"p2@new\""), "300");
    db.run("create table p3 partition of t for values from (200) to (300); select coco.swap('f')");
    assert_eq!(text(&mut db.client, "select v from p2"), "300");
    assert_eq!(text(&mut db.client, "select count(*) from p3"), "0");
    // Also to the version that is kept.
    db.run(
        "create table p4 partition of t for values from (300) to (400);
         insert into d values (350, 350)",
    );
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select v from p4"), "700");
    assert_eq!(text(&mut db.client, "select v from \"p4@old\""), "350");
    db.run("select coco.rollback('f')");
    assert_eq!(text(&mut db.client, "select v from p4"), "350");
    db.verify_clean("f");
}

#[test]
fn a_swap_waits_for_partitions_that_coco_cannot_add_or_drop() {
    let mut db = TestDb::new("gapless_part_waits");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1), (150, 150);
         create table t (id int primary key, v int not null) partition by range (id);
         create table p1 partition of t for values from (0) to (100);
         create table p9 partition of t for values from (900) to (1000);
         create table rest partition of t default;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f')",
    );
    db.run(CHANGE);
    db.run("drop table p9");
    db.update("f", "normal");
    let waits = "select waits_for || ' ' || hint from coco.versions";
    let found = text(&mut db.client, waits);
    assert!(
        found.starts_with("table public.\"t@new\" is not partitioned like its target "),
        "{found}"
    );
    assert!(found.contains("coco.discard"), "{found}");
    let e = fails(&mut db.client, "select coco.swap('f')", "55000");
    assert!(e.contains("The table also has partition public.\"p9@new\"."), "{e}");
    // Rows of the version are in its default partition, and belong to a partition that the target has now.
    db.run(
        "drop table \"p9@new\";
         create table p2 (like t including all);
         with moved as (delete from rest where id between 100 and 199 returning *) insert into p2 select * from moved;
         alter table t attach partition p2 for values from (100) to (200)",
    );
    db.update("f", "normal");
    let found = text(&mut db.client, waits);
    assert!(found.starts_with("could not add a partition to table public.\"t@new\" "), "{found}");
    let e = fails(&mut db.client, "select coco.swap('f')", "23514");
    assert!(e.contains("rest@new"), "{e}");
    assert_eq!(text(&mut db.client, "select v from p2"), "150");
    // By hand, under any name.
    db.run(
        "create table mine (like \"t@new\" including all);
         with moved as (delete from \"rest@new\" where id between 100 and 199 returning *) insert into mine select * from moved;
         alter table \"t@new\" attach partition mine for values from (100) to (200)",
    );
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select v from p2"), "300");
    assert_eq!(text(&mut db.client, "select to_regclass('mine')"), "NULL");
    assert_eq!(text(&mut db.client, "select v from \"p2@old\""), "150");
    db.verify_clean("f");
}

#[test]
fn long_names_of_partitions_stay_different() {
    let mut db = TestDb::new("gapless_part_long");
    let (one, other) = (format!("{}1", "p".repeat(62)), format!("{}2", "p".repeat(62)));
    db.run(&format!(
        "create table d (id int primary key, v int not null); insert into d select i, i from generate_series(1, 20) i;
         create table t (id int primary key, v int not null) partition by hash (id);
         create table {one} partition of t for values with (modulus 2, remainder 0);
         create table {other} partition of t for values with (modulus 2, remainder 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{{id}}'); select coco.update('f')"
    ));
    let bounds = "select string_agg(concat_ws(' ', c.relname, pg_get_expr(c.relpartbound, c.oid)), ', ' order by c.relname)
                    from pg_partition_tree('t') p join pg_class c on c.oid = p.relid";
    let before = text(&mut db.client, bounds);
    db.run(CHANGE);
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, bounds), before);
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "420");
    assert_eq!(text(&mut db.client, "select sum(v) from \"t@old\""), "210");
    db.verify_clean("f");
}

#[test]
fn a_transaction_that_has_read_a_partition_keeps_the_table() {
    let mut db = with_partitions("open");
    db.run(CHANGE);
    let mut reader = db.connect();
    reader.batch_execute("begin; select * from high_12").expect("a reader");
    db.update("f", "normal");
    let found = text(&mut db.client, "select waits_for from coco.versions");
    assert_eq!(found, "could not obtain lock on relation public.t");
    let mut other = db.connect();
    assert_eq!(text(&mut other, ROWS), ROWS_BEFORE);
    reader.batch_execute("commit").expect("a reader");
    db.update("f", "normal");
    assert_eq!(text(&mut other, ROWS), ROWS_AFTER);
}

#[test]
fn objects_over_a_partition_are_found() {
    let mut db = with_partitions("dependents");
    for (create, drop, named) in [
        (
            "create materialized view m as select id from low",
            "drop materialized view m",
            "materialized view public.m",
        ),
        (
            "create table child (id int references t)",
            "drop table child",
            "constraint child_id_fkey on table public.child",
        ),
        ("create view w as select x from rest as x", "drop view w", "view public.w"),
        (
            "select coco.create_flow('g', 'low', 'select id, v from low', 'g_t', '{id}')",
            "select coco.drop_flow('g', false)",
            "view coco.query_",
        ),
    ] {
        db.run(create);
        let e = fails(&mut db.client, CHANGE, "2BP01");
        assert!(e.contains("cannot replace target public.t") && e.contains(named), "{create}: {e}");
        assert!(!e.contains("partition of") && !e.contains("high_12"), "{create}: {e}");
        db.run(drop);
    }
    // A view over a partition is moved only if its columns stay as they are.
    let e = fails(
        &mut db.client,
        "select coco.set_query('f', null, 'select id, v::text as v from d', gapless => true)",
        "2BP01",
    );
    assert!(e.contains("view public.over_low, which uses a column that changes"), "{e}");
    db.run("create table \"low@old\" ()");
    let e = fails(&mut db.client, CHANGE, "42P07");
    assert!(e.contains("relation public.\"low@old\" already exists"), "{e}");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
}

#[test]
fn partitions_that_cannot_be_replaced_are_refused() {
    let mut db = TestDb::new("gapless_part_refused");
    for name in ["gapless_part_a", "gapless_part_b"] {
        role(&mut db, name);
    }
    let mut a = db.connect_as("gapless_part_a");
    let run = |client: &mut postgres::Client, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    };
    run(
        &mut a,
        "set search_path = gapless_part_a;
         create table d (id int primary key, v int not null); insert into d values (1, 1);
         create table t (id int primary key, v int not null) partition by range (id);
         create table p1 partition of t for values from (0) to (100);
         create table p2 partition of t for values from (100) to (200);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f')",
    );
    db.run("alter table gapless_part_a.p2 owner to gapless_part_b");
    let e = fails(&mut a, CHANGE, "42501");
    assert!(e.contains("owner of flow \"f\" must be owner of partition gapless_part_a.p2"), "{e}");
    db.run(
        "alter table gapless_part_a.p2 owner to gapless_part_a;
         create schema other; grant usage on schema other to gapless_part_a;
         alter table gapless_part_a.p2 set schema other",
    );
    let e = fails(&mut a, CHANGE, "42501");
    assert!(e.contains("permission denied for schema other"), "{e}");
    assert_eq!(text(&mut a, "select to_regclass('gapless_part_a.\"t@new\"')"), "NULL");
    // With the right to create tables there, the partner of a partition is in its schema.
    db.run("grant create on schema other to gapless_part_a");
    run(&mut a, CHANGE);
    assert_eq!(text(&mut a, "select count(*) from other.\"p2@new\""), "0");
    run(&mut a, "select coco.update('f')");
    assert_eq!(text(&mut a, "select v from t"), "2");
    assert_eq!(text(&mut a, "select count(*) from other.\"p2@old\""), "0");
    run(&mut a, "drop table \"t@old\"");
    // No foreign table can be a partition of a table with a unique index.
    db.run(
        "alter table gapless_part_a.t drop constraint t_pkey;
         create foreign data wrapper gapless_part_wrapper;
         create server gapless_part_server foreign data wrapper gapless_part_wrapper;
         create foreign table gapless_part_a.p3 partition of gapless_part_a.t for values from (200) to (300)
           server gapless_part_server",
    );
    let e = fails(&mut a, CHANGE, "0A000");
    assert!(e.contains("has a partition that cannot be replaced"), "{e}");
    assert!(e.contains("Partition gapless_part_a.p3 is a foreign table."), "{e}");
}
