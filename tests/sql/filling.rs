//! The first fill: an update that finds nothing tracked, and all its targets empty, writes as one that
//! goes batch by batch would have.

use crate::support;

use postgres::Client;
use support::server::{Server, Stop, kill, until};
use support::{Counts, TestDb, explain, update};

/// More rows than indexes are filled with one by one.
const ITEMS: i64 = 2500;

const SOURCE: &str = "
    create extension amcheck;
    create table src (id int primary key, n int not null, body text, stamp timestamptz not null, unused text);
    insert into src
    select i, i % 40, case when i % 50 = 0 then null
                           -- too long for a page, and for compression
                           when i % 500 = 1 then (select string_agg(md5(random()::text), '') from generate_series(1, 400) g where i > 0)
                           else md5(i::text) end,
           timestamptz '2020-01-01' + i * interval '1 hour', 'u'
      from generate_series(1, 2500) i;
    create table names (n int primary key, name text not null);
    insert into names select n, 'name ' || n from generate_series(0, 30) n;
    analyze src";

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn number(client: &mut Client, sql: &str) -> i64 {
    let row = client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn once(client: &mut Client, flow: &str) -> Counts {
    let counts = update(client, flow, "normal").unwrap_or_else(|e| panic!("{}", explain(&e)));
    counts.into_iter().next().expect("a source")
}

fn tracking(client: &mut Client, flow: &str) -> String {
    text(
        client,
        &format!(
            "select tracking::text from coco.source where flow = '{flow}' and lookup_of is null"
        ),
    )
}

/// Whether the items were written by a fill: as of one moment. Of batches each item has its own.
fn is_filled(client: &mut Client, flow: &str) -> bool {
    let table = tracking(client, flow);
    number(client, &format!("select count(distinct process_ordinal) from {table}")) == 1
}

/// Looks whether each index of a flow's tables has an entry for each row.
fn check_indexes(client: &mut Client, flow: &str) {
    let sql = format!(
        "select bt_index_check(i.indexrelid, true)
           from pg_index i join pg_class c on c.oid = i.indexrelid
           join pg_am a on a.oid = c.relam and a.amname = 'btree'
          where i.indrelid in (select tracking from coco.source where flow = '{flow}' and lookup_of is null
                               union all select relation from coco.targets where flow = '{flow}')"
    );
    let checked = client.query(&sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert!(checked.len() >= 3, "of tracking table and target: {}", checked.len());
}

fn files(client: &mut Client, table: &str) -> String {
    let sql = format!(
        "select string_agg(pg_relation_filenode(indexrelid)::text, ',' order by indexrelid)
           from pg_index where indrelid = '{table}'::regclass"
    );
    text(client, &sql)
}

#[test]
fn a_fill_writes_what_batches_write() {
    let mut db = TestDb::new("fill_same");
    db.run(SOURCE);
    db.run("create function quiet() returns trigger language plpgsql as 'begin return new; end'");
    let more = "select coco.add_target('%', '%_more', 'select id, n, length(body) as long from src', '{id,n}')";
    let named = "select coco.add_lookup('%', 'names', affects => 'select s.id from src s join names using (n)')";
    for (shape, query, key, options, then) in [
        ("rows", "select id, upper(body) as body, n from src", "{id}", "", ""),
        ("two", "select id, body from src", "{id}", "", more),
        ("ordered", "select id, body from src", "{id}", ", ordinal => 'stamp'", ""),
        ("named", "select s.id, m.name from src s left join names m using (n)", "{id}", "", named),
        ("none", "select id, body from src where id < 0", "{id}", "", ""),
        (
            "pieces",
            "select id, k, substr(body, 1, 40) || k as piece from src, generate_series(1, n % 4) as k",
            "{id,k}",
            "",
            "",
        ),
        (
            "groups",
            "select n, count(*) as many, string_agg(body, ',' order by id) as bodies from src group by n",
            "{n}",
            ", source_key => '{n}'",
            "",
        ),
        (
            "own",
            "select id, body from src",
            "{id}",
            ", fingerprint => 'coco.normalize_text(body)'",
            "",
        ),
        // Planned over all of the source, with these joins and this subquery.
        ("rightly", "select s.id, m.name from names m right join src s using (n)", "{id}", "", ""),
        (
            "joined",
            "select x.id, x.up, m.name from names m
               join (select id, n, upper(body) as up from src) x using (n) where x.up is not null",
            "{id}",
            "",
            "",
        ),
        // Over all of it these would be something else than over each item.
        (
            "kept",
            "select s.id, m.name from names m left join src s using (n) where s.id is not null",
            "{id}",
            "",
            "",
        ),
        ("counted", "select id, (select count(*) from src) as many from src", "{id}", "", ""),
        ("twice", "select a.id, b.id as other from src a join src b on a.n = b.n", "{id}", "", ""),
        ("numbered", "select id, row_number() over (order by id) as no from src", "{id}", "", ""),
        ("limited", "select id, body from src limit 1", "{id}", "", ""),
        ("firsts", "select distinct on (n) id, n from src order by n, id", "{id}", "", ""),
        ("sums", "select id, sum(n) over () as n from src group by id, src.n", "{id}", "", ""),
    ] {
        let declare = |flow: &str| {
            format!(
                "select coco.create_flow('{flow}', 'src', $q${query}$q$, '{flow}', '{key}'{options}); {}",
                then.replace('%', flow)
            )
        };
        let batched = format!("{shape}_batched");
        db.run(&declare(shape));
        // A trigger wants more than rows and index entries: batch by batch.
        let tables: Vec<String> = match then == more {
            true => vec![shape.to_owned(), format!("{shape}_more")],
            false => vec![shape.to_owned()],
        };
        for table in &tables {
            let other = table.replacen(shape, &batched, 1);
            db.run(&format!(
                "create table {other} (like {table} including all);
                 create trigger quiet before insert on {other} for each row execute function quiet()"
            ));
        }
        db.run(&declare(&batched));
        let (filled, beside) = (once(&mut db.client, shape), once(&mut db.client, &batched));
        assert_eq!(filled, beside, "{shape}");
        assert!(filled.evaluated >= 40, "{shape}: {filled:?}");
        assert!(is_filled(&mut db.client, shape), "{shape}");
        assert!(!is_filled(&mut db.client, &batched), "{shape}");
        for table in &tables {
            let other = table.replacen(shape, &batched, 1);
            let differ = format!(
                "select count(*) from ((select * from {table} except all select * from {other})
                  union all (select * from {other} except all select * from {table})) x"
            );
            assert_eq!(number(&mut db.client, &differ), 0, "{table}");
        }
        let tracked = [shape, &batched].map(|flow| {
            let table = tracking(&mut db.client, flow);
            let sql = format!(
                "select string_agg(concat_ws('|', k1, source_ordinal, content_fingerprint, target_keys,
                                             memo_refs, failure), ' ' order by k1) from {table}"
            );
            text(&mut db.client, &sql)
        });
        assert_eq!(tracked[0], tracked[1], "{shape}");
        check_indexes(&mut db.client, shape);
        db.verify_clean(shape);
        // From there on it is one as any other.
        db.run("update src set body = 'new', stamp = '2030-01-01' where id in (3, 7); delete from src where id = 5");
        assert_eq!(once(&mut db.client, shape), once(&mut db.client, &batched), "{shape}");
        db.verify_clean(shape);
        db.run("insert into src values (5, 5, 'back', '2030-01-01')");
        db.run(&format!(
            "select coco.drop_flow('{shape}', keep_targets => false); select coco.drop_flow('{batched}', keep_targets => false)"
        ));
    }
}

#[test]
fn of_a_fill_that_fails_the_items_at_fault_are_found() {
    let mut db = TestDb::new("fill_fails");
    db.run(SOURCE);
    for (flow, query, key, code) in [
        // Items that raise an error, and one that produces a key twice.
        ("raises", "select id, 1 / nullif(n, 0) / (id - 1203) as x from src", "{id}", "22012"),
        (
            "twice",
            "select id, k % 3 as k from src, generate_series(1, case when id = 1203 then 4 else 2 end) k",
            "{id,k}",
            "21000",
        ),
    ] {
        db.run(&format!("select coco.create_flow('{flow}', 'src', '{query}', '{flow}', '{key}')"));
        let counts = once(&mut db.client, flow);
        assert_eq!(
            (counts.seen, counts.evaluated, counts.failed),
            (ITEMS, ITEMS, 1),
            "{flow}: {counts:?}"
        );
        let errors =
            format!("select sqlstate || ' ' || source_key from coco.errors where flow = '{flow}'");
        assert_eq!(text(&mut db.client, &errors), format!("{code} {{\"id\": 1203}}"));
        check_indexes(&mut db.client, flow);
        db.verify_clean(flow);
    }
    // A table that refuses a row, and one that does not refuse a key twice any more.
    db.run(
        "select coco.create_flow('checked', 'src', 'select id, n from src', 'checked', '{id}');
         alter table checked add check (id <> 1203);
         select coco.create_flow('open', 'src',
           'select id, k % 3 as k from src, generate_series(1, case when id = 1203 then 4 else 2 end) k', 'open', '{id,k}');
         alter table open drop constraint open_pkey",
    );
    for (flow, code) in [("checked", "23514"), ("open", "21000")] {
        let counts = once(&mut db.client, flow);
        assert_eq!((counts.evaluated, counts.failed), (ITEMS, 1), "{flow}: {counts:?}");
        let errors = format!("select sqlstate from coco.errors where flow = '{flow}'");
        assert_eq!(text(&mut db.client, &errors), code, "{flow}");
        db.verify_clean(flow);
    }
}

#[test]
fn indexes_of_the_users_are_filled_too() {
    let mut db = TestDb::new("fill_indexes");
    db.run(SOURCE);
    db.run(
        "select coco.create_flow('f', 'src', 'select id, n, body from src', 't', '{id}');
         create index on t (upper(left(body, 40))) where n > 3; create unique index on t (n, id) where length(body) < 100;
         create index on t using hash (body); create index on t using gin (to_tsvector('simple', body)); create index on t using brin (id)",
    );
    let (before, tracked) = (files(&mut db.client, "t"), tracking(&mut db.client, "f"));
    let tracked_before = files(&mut db.client, &tracked);
    assert_eq!(once(&mut db.client, "f").upserted, ITEMS);
    assert!(is_filled(&mut db.client, "f"));
    // Built anew, each of them.
    let (after, tracked_after) = (files(&mut db.client, "t"), files(&mut db.client, &tracked));
    assert!(before.split(',').zip(after.split(',')).all(|(a, b)| a != b), "{before} {after}");
    assert_ne!(tracked_before, tracked_after);
    check_indexes(&mut db.client, "f");
    db.run("set enable_seqscan = off");
    for (condition, index) in [
        ("upper(left(body, 40)) = upper(md5('77')) and n > 3", "upper"),
        ("body = md5('77')", "body"),
        ("to_tsvector('simple', body) @@ to_tsquery('simple', md5('77'))", "tsvector"),
        ("id = 77", "id"),
    ] {
        let sql = format!("select count(*) from t where {condition}");
        let plan = db.client.query(&format!("explain {sql}"), &[]).expect("a plan");
        let plan: Vec<String> = plan.iter().map(|r| r.get(0)).collect();
        assert!(plan.iter().any(|l| l.contains("Index")), "{index}: {}", plan.join("\n"));
        assert_eq!(number(&mut db.client, &sql), 1, "{index}");
    }
    db.verify_clean("f");
}

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
fn a_fill_goes_with_its_transaction() {
    let mut db = TestDb::new("fill_transaction");
    db.run(SOURCE);
    db.run("select coco.create_flow('f', 'src', 'select id, n, body from src', 't', '{id}')");
    let mut reader = db.connect();
    let mut session = db.connect();
    let before = files(&mut session, "t");
    for (begin, end) in [("begin", "rollback"), ("begin; savepoint s", "rollback to s; commit")] {
        session.batch_execute(begin).expect("a transaction begins");
        assert_eq!(once(&mut session, "f").upserted, ITEMS);
        // Nobody is kept from reading by a transaction that stays open.
        reader.batch_execute("set statement_timeout = '60s'").expect("it is set");
        assert_eq!(number(&mut reader, "select count(*) from t"), 0);
        assert_eq!(number(&mut reader, "select count(*) from coco.tracking"), 0);
        session.batch_execute(end).expect("it ends");
        assert_eq!(number(&mut session, "select count(*) from t"), 0);
        check_indexes(&mut session, "f");
    }
    assert_eq!(files(&mut session, "t"), before);
    // Of a statement that fails after it, nothing stays either.
    let fails = "select count(*) / 0 from coco.update('f')";
    assert!(session.query(fails, &[]).is_err());
    assert_eq!(files(&mut session, "t"), before);
    check_indexes(&mut session, "f");
    // What nobody else sees yet is built at once.
    session
        .batch_execute(
            "begin; select coco.create_flow('g', 'src', 'select id, n from src', 'u', '{id}')",
        )
        .expect("a flow");
    let new = files(&mut session, "u");
    assert_eq!(once(&mut session, "g").upserted, ITEMS);
    assert_ne!(files(&mut session, "u"), new);
    session.batch_execute("commit").expect("it commits");
    assert_eq!(once(&mut session, "f").upserted, ITEMS);
    for flow in ["f", "g"] {
        assert!(is_filled(&mut session, flow));
        check_indexes(&mut session, flow);
        db.verify_clean(flow);
    }
}

#[test]
fn a_fill_waits_for_no_reader() {
    let mut db = TestDb::new("fill_readers");
    db.run(SOURCE);
    db.run("select coco.create_flow('f', 'src', 'select id, n, body from src', 't', '{id}')");
    let before = files(&mut db.client, "t");
    let mut reader = db.connect();
    reader.batch_execute("begin; set transaction isolation level repeatable read").expect("begins");
    assert_eq!(number(&mut reader, "select count(*) from t where id = 77"), 0);
    // The reader keeps its locks: entries are written one by one.
    assert_eq!(once(&mut db.client, "f").upserted, ITEMS);
    assert!(is_filled(&mut db.client, "f"));
    assert_eq!(files(&mut db.client, "t"), before);
    assert_eq!(number(&mut reader, "select count(*) from t where id = 77"), 0);
    reader.batch_execute("commit").expect("it commits");
    assert_eq!(number(&mut reader, "select count(*) from t where id = 77"), 1);
    check_indexes(&mut db.client, "f");
    // So they are where the statement itself has the index open.
    db.run("select coco.create_flow('g', 'src', 'select id, n from src', 'u', '{id}'); set enable_seqscan = off");
    let before = files(&mut db.client, "u");
    let beside = "select count(u.id) from coco.update('g') as x left join u on u.id = x.seen";
    number(&mut db.client, beside);
    assert!(is_filled(&mut db.client, "g"));
    assert_eq!(files(&mut db.client, "u"), before);
    check_indexes(&mut db.client, "g");
    db.verify_clean("g");
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

#[test]
fn a_row_that_another_has_written_meanwhile_is_taken_over() {
    let mut db = TestDb::new("fill_meanwhile");
    db.run(SOURCE);
    // It lets the other in between the look at the target and the end of the fill.
    db.run(
        "create extension dblink;
         create function other(id int) returns int language plpgsql as $$
         begin
           if id = 1203 then
             perform public.dblink_exec('dbname=' || current_database() || ' host=' || split_part(current_setting('unix_socket_directories'), ',', 1)
               || ' port=' || current_setting('port') || ' user=postgres', 'insert into public.t values (77, -1) on conflict do nothing');
           end if;
           return id;
         end $$;
         select coco.create_flow('f', 'src', 'select id, other(id) as n from src', 't', '{id}')",
    );
    let counts = once(&mut db.client, "f");
    // No item has it: where all are looked at, it is the item's that produces its key.
    assert_eq!((counts.evaluated, counts.failed), (ITEMS, 0), "{counts:?}");
    assert_eq!(number(&mut db.client, "select n::bigint from t where id = 77"), 77);
    check_indexes(&mut db.client, "f");
}

#[test]
fn a_fill_can_be_canceled_and_killed() {
    let server = Server::start(&[]);
    let mut session = server.database("filled");
    session.run(SOURCE);
    session.run(
        "create function slow(id int) returns int language plpgsql as $$
         begin
           if id = 2400 and coalesce(current_setting('x.slow', true), '') = 'on' then perform pg_sleep(3600); end if;
           return id;
         end $$;
         select coco.create_flow('f', 'src', 'select id, slow(id) as n, body from src', 't', '{id}')",
    );
    for end in ["cancel", "kill"] {
        let mut other = server.connect("filled").0;
        let pid: i32 = other.query_one("select pg_backend_pid()", &[]).expect("a pid").get(0);
        let thread = std::thread::spawn(move || {
            other.batch_execute("set x.slow = 'on'").expect("it is set");
            update(&mut other, "f", "normal").map_err(|e| explain(&e))
        });
        session.until(&format!(
            "select exists (select from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep')"
        ));
        match end {
            "cancel" => {
                assert_eq!(session.text(&format!("select pg_cancel_backend({pid})")), "true")
            }
            _ => kill("KILL", pid),
        }
        let ended = thread.join().expect("the session ends");
        let said = ended.expect_err("it was ended");
        if end == "cancel" {
            assert!(said.contains("57014"), "{said}");
        } else {
            until("all sessions end", || session.0.simple_query("select 1").is_err());
            until("the server recovers", || server.try_connect("filled").is_ok());
            session = server.connect("filled");
        }
        assert_eq!(session.number("select count(*) from t"), 0, "{end}");
        check_indexes(&mut session.0, "f");
    }
    assert_eq!(once(&mut session.0, "f").upserted, ITEMS);
    // What was committed is there after the next end, too.
    server.restart(Stop::Immediate);
    let mut session = server.connect("filled");
    assert!(is_filled(&mut session.0, "f"));
    check_indexes(&mut session.0, "f");
    session.verify("f");
    assert_eq!(once(&mut session.0, "f").evaluated, 0);
}
