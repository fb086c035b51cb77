//! A worker that dies while it sends: at each step, to each kind of target, the target ends up right.
//!
//! The server is made to kill the worker at a named point (`coco.failpoint`), which ends all its
//! sessions and has it recover. Meanwhile the source changes, or does not.
#![cfg(all(feature = "http", feature = "postgres", feature = "kafka"))]

use crate::{http, server, support, topic};

use std::collections::BTreeMap;

use http::Receiver;
use support::server::{Server, Session, until};

/// As in `src/workers/crash_point.rs`.
const POINTS: [&str; 4] = ["read", "sending", "sent", "settled"];

/// Those of a first fill. To Postgres all is on its way before it is committed here: nothing is read.
const POINTS_OF_FILL: [&str; 6] = ["evaluated", "held", "read", "sending", "sent", "settled"];

const QUERY: &str =
    "select id, n, md5(body || n) as piece from docs, generate_series(1, length(body) % 4) as n";

/// The other side: what it is declared with, and what it has.
trait Side {
    fn server(&self) -> String;
    /// What is declared as the target.
    fn target(&self) -> &'static str {
        "out"
    }
    /// Whether a first fill is sent ahead.
    fn is_ahead(&self) -> bool {
        false
    }
    /// Rows as text by their keys, as JSON.
    fn rows(&mut self) -> BTreeMap<String, String>;
}

struct Hook(Receiver);

impl Side for Hook {
    fn server(&self) -> String {
        format!(
            "create server there foreign data wrapper coco_http options (url '{}', batch_size '20');
             create user mapping for postgres server there",
            self.0.url()
        )
    }

    fn rows(&mut self) -> BTreeMap<String, String> {
        self.0.rows("f", "out")
    }
}

struct Postgres {
    server: Server,
    session: Session,
}

impl Postgres {
    fn start() -> Postgres {
        let server = Server::start(&[]);
        let session = server.connect("postgres");
        Postgres { server, session }
    }
}

impl Side for Postgres {
    fn server(&self) -> String {
        let host = self.server.directory().display();
        format!(
            "create server there foreign data wrapper coco_postgres
               options (host '{host}', port '5432', dbname 'postgres', sslmode 'disable');
             create user mapping for postgres server there options (user 'postgres')"
        )
    }

    fn is_ahead(&self) -> bool {
        true
    }

    fn rows(&mut self) -> BTreeMap<String, String> {
        if self.session.holds("select to_regclass('out') is null") {
            return BTreeMap::new();
        }
        pairs(&mut self.session, "select id, n, piece from out", "q.id, q.n")
    }
}

/// Tests share the server: each has a topic of its own.
struct Kafka(server::Shared, &'static str);

impl Side for Kafka {
    fn server(&self) -> String {
        format!(
            "create server there foreign data wrapper coco_kafka options (bootstrap_servers '{}');
             create user mapping for postgres server there",
            self.0.plaintext
        )
    }

    fn target(&self) -> &'static str {
        self.1
    }

    /// The last record of each key, as compaction leaves it.
    fn rows(&mut self) -> BTreeMap<String, String> {
        let mut rows = BTreeMap::new();
        for record in topic::records(&self.0, self.1) {
            match record.value {
                Some(value) => rows.insert(record.key, value),
                None => rows.remove(&record.key),
            };
        }
        rows
    }
}

fn pairs(session: &mut Session, query: &str, key: &str) -> BTreeMap<String, String> {
    let sql = format!(
        "select (select row_to_json(k) from (select {key}) k)::text || chr(9) || row_to_json(q)::text from ({query}) q"
    );
    let rows = session.rows(&sql);
    rows.iter()
        .filter_map(|r| r.split_once('\t'))
        .map(|(k, r)| (k.to_owned(), r.to_owned()))
        .collect()
}

/// Each can be made twice: the server may die after it has committed one, and before it says so.
const CHANGES: [&str; 3] = [
    "insert into docs select i, repeat('a', i % 7) from generate_series(1, 60) i on conflict do nothing",
    "update docs set body = body || 'b' where id % 3 = 0; delete from docs where id % 5 = 0",
    "update docs set id = id + 100 where id % 7 = 0 and id < 100;
     insert into docs values (5, 'five') on conflict do nothing",
];

fn matrix(side: &mut dyn Side) {
    let server = Server::preloaded(&["coco.batch_size = 25", "restart_after_crash = on"]);
    let mut db = server.database("crashes");
    db.run(&side.server());
    db.run(&format!(
        "create table docs (id int primary key, body text not null);
         select coco.create_flow('f', 'docs', $$ {QUERY} $$, '{}', '{{id,n}}', server => 'there');
         select coco.start('f')",
        side.target()
    ));
    for point in POINTS {
        for changing in [false, true] {
            change(&server, "truncate docs");
            settled(&server);
            for (n, sql) in CHANGES.iter().enumerate() {
                dies_at(&server, point, sql);
                if changing {
                    change(
                        &server,
                        &format!("update docs set body = body || '{n}' where id % 2 = {}", n % 2),
                    );
                    change(&server, &format!("delete from docs where id = {}", 10 + n));
                }
            }
            compare(side, &mut settled(&server), &format!("after {point}, changing: {changing}"));
        }
    }
}

/// Everything that the query gives is there, and nothing else.
fn compare(side: &mut dyn Side, db: &mut Session, when: &str) {
    let expected = pairs(db, QUERY, "q.id, q.n");
    assert!(!expected.is_empty());
    let there = side.rows();
    let extra: Vec<_> = there.keys().filter(|k| !expected.contains_key(*k)).collect();
    let differ: Vec<_> = expected.iter().filter(|(k, row)| there.get(*k) != Some(row)).collect();
    assert!(
        extra.is_empty() && differ.is_empty(),
        "{when}: extra {extra:?}, missing or different {differ:?}"
    );
    db.verify("f");
}

/// The same of first fills, of which what is to be sent is with the process that dies: what goes on is another
/// update, or a worker.
fn fills(side: &mut dyn Side) {
    let server = Server::preloaded(&["restart_after_crash = on"]);
    let mut db = server.database("crashes");
    db.run(&side.server());
    db.run("create table docs (id int primary key, body text not null)");
    let is_ahead = side.is_ahead();
    for point in POINTS_OF_FILL.into_iter().filter(|point| *point != "read" || !is_ahead) {
        for live in [false, true] {
            change(
                &server,
                "insert into docs select i, repeat('a', i % 7) from generate_series(1, 6000) i
                 on conflict (id) do update set body = excluded.body",
            );
            let mut db = server.connect("crashes");
            db.run(&format!(
                "select coco.create_flow('f', 'docs', $$ {QUERY} $$, '{}', '{{id,n}}', server => 'there')",
                side.target()
            ));
            dies_at_update(&server, point);
            change(&server, "delete from docs where id % 5 = 0");
            change(&server, "update docs set body = body || 'b' where id % 3 = 0");
            let mut db = match live {
                true => {
                    change(&server, "select coco.start('f')");
                    settled(&server)
                }
                false => {
                    change(&server, "select * from coco.update('f')");
                    server.connect("crashes")
                }
            };
            compare(side, &mut db, &format!("a fill that ends at {point}, live: {live}"));
            let waits = db.text("select count(*)::text from coco.delivery_status where queued > 0");
            assert_eq!(waits, "0", "{point}, live: {live}");
            // Nothing of it is there for the next.
            if live {
                db.run("select coco.stop('f')");
            }
            db.run("truncate docs");
            db.run("select * from coco.update('f')");
            assert!(side.rows().is_empty());
            db.run("select coco.drop_flow('f', keep_targets => true)");
        }
    }
}

/// What is made there goes with the flow wherever the worker that makes it has died; what was found stays.
fn removals(side: &dyn Side, exists: &mut dyn FnMut() -> bool, make: &mut dyn FnMut()) {
    let server = Server::preloaded(&["restart_after_crash = on"]);
    let mut db = server.database("crashes");
    db.run(&side.server());
    db.run("create table docs (id int primary key); insert into docs values (1)");
    for (point, found) in
        [("making", false), ("opened", false), ("evaluated", false), ("opened", true)]
    {
        if found {
            make();
        }
        let mut db = server.connect("crashes");
        db.run(&format!(
            "select coco.create_flow('f', 'docs', 'select id from docs', '{}', '{{id}}', server => 'there')",
            side.target()
        ));
        dies_at_update(&server, point);
        assert!(exists() || point == "making", "{point}");
        change(&server, "select coco.drop_flow('f', keep_targets => false)");
        assert_eq!(exists(), found, "{point}");
    }
}

/// An update of which the worker dies at this point.
fn dies_at_update(server: &Server, point: &str) {
    let deaths = || server.log().matches(&format!("killing the process at \"{point}\"")).count();
    let before = deaths();
    server.reload(&[&format!("coco.failpoint = '{point}'")]);
    until("the worker dies", || {
        let dies = |mut c: postgres::Client| c.batch_execute("select * from coco.update('f')");
        server.try_connect("crashes").and_then(dies).ok();
        deaths() > before
    });
    server.reload(&["coco.failpoint = ''"]);
}

/// Makes a change, of which a worker dies at this point.
fn dies_at(server: &Server, point: &str, sql: &str) {
    let deaths = || server.log().matches(&format!("killing the process at \"{point}\"")).count();
    let before = deaths();
    server.reload(&[&format!("coco.failpoint = '{point}'")]);
    change(server, sql);
    until("the worker dies", || {
        // One that had not heard of the setting has sent the change already: here is another.
        if deaths() == before {
            std::thread::sleep(std::time::Duration::from_millis(100));
            change(
                server,
                "update docs set body = body || 'x' where id = (select min(id) from docs)",
            );
        }
        deaths() > before
    });
    server.reload(&["coco.failpoint = ''"]);
    // After three deaths in a row workers leave the flow alone until it is started again.
    change(server, "select coco.start('f')");
}

/// Commits a change; the server may be dying under it, and another worker once more.
fn change(server: &Server, sql: &str) {
    until("a change is committed", || {
        server.try_connect("crashes").is_ok_and(|mut c| c.batch_execute(sql).is_ok())
    });
}

/// Waits until everything has arrived; no worker dies any more.
fn settled(server: &Server) -> Session {
    until("everything has arrived", || {
        let arrived = |mut c: postgres::Client| c.query_one("select coco.wait('f', '20 s')", &[]);
        server.try_connect("crashes").and_then(arrived).is_ok_and(|r| r.get(0))
    });
    server.connect("crashes")
}

#[test]
fn a_webhook_ends_up_right_wherever_the_worker_dies() {
    matrix(&mut Hook(Receiver::start()));
}

#[test]
fn another_postgres_ends_up_right_wherever_the_worker_dies() {
    matrix(&mut Postgres::start());
}

#[test]
fn kafka_ends_up_right_wherever_the_worker_dies() {
    matrix(&mut Kafka(server::kafka(), "changed"));
}

#[test]
fn a_webhook_is_filled_wherever_the_first_update_dies() {
    fills(&mut Hook(Receiver::start()));
}

#[test]
fn another_postgres_is_filled_wherever_the_first_update_dies() {
    fills(&mut Postgres::start());
}

#[test]
fn kafka_is_filled_wherever_the_first_update_dies() {
    fills(&mut Kafka(server::kafka(), "filled"));
}

#[test]
fn a_table_goes_with_the_flow_wherever_the_worker_dies() {
    let there = Postgres::start();
    let mut session = there.server.connect("postgres");
    let mut another = there.server.connect("postgres");
    removals(&there, &mut || session.holds("select to_regclass('out') is not null"), &mut || {
        another.run("create table out (id int primary key)")
    });
}

#[test]
fn a_topic_goes_with_the_flow_wherever_the_worker_dies() {
    let there = Kafka(server::kafka(), "removed");
    removals(&there, &mut || topic::exists(&there.0, "removed"), &mut || {
        topic::make(&there.0, "removed")
    });
}
