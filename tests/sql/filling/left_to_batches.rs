//! Flows whose first update goes by batches, or by several processes.

use super::{ITEMS, SOURCE, check_indexes, files, is_filled, number, once, text};
use crate::support::{TestDb, explain};

#[test]
fn a_query_that_takes_each_row_by_itself_is_left_to_several_processes() {
    let mut db = TestDb::new("fill_parallel");
    db.run(SOURCE);
    db.run(
        "create function who() returns int language plpgsql stable parallel safe
           as 'begin return pg_backend_pid(); end';
         do $$ begin
           perform set_config(name, 'on', false) from pg_settings
             where name in ('debug_parallel_query', 'force_parallel_mode');
         end $$",
    );
    for (flow, query, by_others) in [
        ("alone", "select id, who() as pid from src", true),
        (
            "with_others",
            "select s.id, k, who() as pid from src s left join names m using (n), generate_series(1, 2) as k",
            true,
        ),
        ("nested", "select id, pid from (select id, who() as pid from src) x", true),
        // By itself it is not what it is among others.
        ("numbered", "select id, who() as pid, row_number() over () as no from src", false),
        (
            "kept",
            "select s.id, who() as pid from names m left join src s using (n) where s.id > 0",
            false,
        ),
        // Both are the item, whoever joins them.
        ("twice", "select a.id, who() as pid from src a join src b using (id)", true),
        ("looked_up", "select id, who() as pid, (select max(id) from src) as most from src", false),
        // A constraint of the user's runs with each row.
        ("checked", "select id, who() as pid from src", false),
    ] {
        let key = if flow == "with_others" { "{id,k}" } else { "{id}" };
        db.run(&format!(
            "select coco.create_flow('{flow}', 'src', $q${query}$q$, '{flow}', '{key}')"
        ));
        if flow == "checked" {
            db.run("alter table checked add check (id > 0)");
        }
        once(&mut db.client, flow);
        assert!(is_filled(&mut db.client, flow), "{flow}");
        let sql =
            format!("select count(*) filter (where pid = pg_backend_pid()), count(*) from {flow}");
        let row = db.client.query_one(&sql, &[]).expect("counts");
        let (ours, all): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(ours == 0, by_others, "{flow}: {ours} of {all}");
        assert!(all > 0, "{flow}");
    }
}

#[test]
fn sources_that_are_not_stored_are_left_to_batches() {
    let mut db = TestDb::new("fill_sources");
    db.run(SOURCE);
    db.run(
        "create view of_view as select id, n, body from src;
         create materialized view of_matview as select id, n, body from src; create unique index on of_matview (id);
         create table of_parts (id int, n int, body text, primary key (id, n)) partition by list (n);
         create table of_parts_0 partition of of_parts for values in (0); create table of_parts_1 partition of of_parts default;
         insert into of_parts select id, n, body from src;
         create extension file_fdw; create server files foreign data wrapper file_fdw;
         create table of_children (id int primary key, n int, body text); insert into of_children select id, n, body from src;
         create foreign table of_child () inherits (of_children) server files options (program 'true', format 'csv')",
    );
    for (source, key, stored) in [
        ("of_view", "{id}", false),
        ("of_matview", "{id}", true),
        ("of_parts", "{id,n}", true),
        ("of_children", "{id}", false),
    ] {
        db.run(&format!(
            "select coco.create_flow('{source}', '{source}', 'select id, n, body from {source}', 't_{source}', '{key}',
                                     source_key => '{key}', capture => 'scan')"
        ));
        let counts = once(&mut db.client, source);
        assert_eq!((counts.seen, counts.upserted), (ITEMS, ITEMS), "{source}: {counts:?}");
        assert_eq!(is_filled(&mut db.client, source), stored, "{source}");
        check_indexes(&mut db.client, source);
        db.verify_clean(source);
    }
}

#[test]
fn a_fill_is_its_owners() {
    let mut db = TestDb::new("fill_owner");
    db.run(SOURCE);
    db.run(
        "do $$ begin create role coco_filler login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_filler; create schema filler authorization coco_filler;
         alter table src enable row level security; create policy few on src using (id <= 2000);
         grant select on src to coco_filler;
         create function filler.who(t text) returns text language plpgsql immutable as $$
         begin
           if current_user <> 'coco_filler' then raise 'run as %', current_user; end if;
           return t;
         end $$;
         alter function filler.who owner to coco_filler",
    );
    let mut owner = db.connect_as("coco_filler");
    owner
        .batch_execute(
            "set search_path = filler, public;
             select coco.create_flow('f', 'src', 'select id, n, who(body) as body, current_user::text as by from src', 't', '{id}', capture => 'scan');
             create index on t (filler.who(left(body, 40)))",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    // Asked for by another, who may see all rows.
    let before = files(&mut db.client, "filler.t");
    assert_eq!(once(&mut db.client, "f").upserted, 2000);
    assert!(is_filled(&mut db.client, "f"));
    assert_ne!(files(&mut db.client, "filler.t"), before);
    check_indexes(&mut db.client, "f");
    let by = "select string_agg(distinct by, ',') from filler.t";
    assert_eq!(text(&mut db.client, by), "coco_filler");
    assert_eq!(text(&mut db.client, "select current_user::text"), "postgres");
    db.verify_clean("f");
    // A target that was given to another is not locked.
    db.run("select coco.drop_flow('f', keep_targets => false)");
    owner
        .batch_execute("select coco.create_flow('g', 'src', 'select id, n from src', 'u', '{id}', capture => 'scan')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.run("alter table filler.u owner to postgres; grant all on filler.u to coco_filler");
    let before = files(&mut db.client, "filler.u");
    assert_eq!(once(&mut db.client, "g").upserted, 2000);
    assert!(is_filled(&mut db.client, "g"));
    assert_eq!(files(&mut db.client, "filler.u"), before);
    check_indexes(&mut db.client, "g");
}

#[test]
fn a_query_that_writes_to_its_own_target_is_left_to_batches() {
    let mut db = TestDb::new("fill_own");
    db.run(SOURCE);
    db.run(
        "create function writes(id int) returns int language plpgsql as $$
         begin
           if id = 1203 then insert into public.t values (-1, 0) on conflict do nothing; end if;
           return id;
         end $$;
         select coco.create_flow('f', 'src', 'select id, writes(id) as n from src', 't', '{id}');
         create index on t (n)",
    );
    // Where its indexes would be filled row by row, that row has its entries already.
    db.run("begin");
    let counts = once(&mut db.client, "f");
    assert_eq!((counts.evaluated, counts.upserted, counts.failed), (ITEMS, ITEMS, 0), "{counts:?}");
    db.run("commit");
    assert!(!is_filled(&mut db.client, "f"));
    check_indexes(&mut db.client, "f");
    assert_eq!(number(&mut db.client, "select count(*) from t"), ITEMS + 1);
}
