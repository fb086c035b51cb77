//! First fills that fail, are canceled, or meet rows of others.

use super::{ITEMS, SOURCE, check_indexes, is_filled, number, once, text};
use crate::support::server::{Server, Stop, kill, until};
use crate::support::{TestDb, explain, update};

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
