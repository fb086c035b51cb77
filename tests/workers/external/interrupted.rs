//! Updates that are canceled, flows that are dropped meanwhile, and servers that fail.

use postgres::Client;

use crate::http::{Fault, Receiver};
use crate::sides::{UPPER, counted, declare, expected, server_for, text, with_hook};
use crate::support::server::until;
use crate::support::{self, TestDb};

#[test]
fn an_update_that_is_canceled_ends_its_worker_and_loses_nothing() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_cancel", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 10) i");
    declare(&mut db, "f");
    // What a fill sends only its process has: it is evaluated and sent once more.
    is_canceled(&mut db, &receiver);
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "10");
    assert_eq!(counted(&mut db, "f"), (10, 10, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    // The rest waits in the outbox.
    db.run("update docs set body = 'c' || id where id < 5; delete from docs where id = 9");
    is_canceled(&mut db, &receiver);
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "5");
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "0");
}

/// An update that is canceled while what it sends is on its way.
fn is_canceled(db: &mut TestDb, receiver: &Receiver) {
    receiver.forget_requests();
    receiver.next(Fault::Hold);
    let mut session = db.connect();
    let cancel = session.cancel_token();
    let waiting = std::thread::spawn(move || {
        let result = session.batch_execute("select * from coco.update('f')");
        result.expect_err("it is canceled").code().map(|c| c.code().to_owned())
    });
    until("it is sent", || !receiver.requests().is_empty());
    cancel.cancel_query(postgres::NoTls).expect("it can be canceled");
    assert_eq!(waiting.join().expect("a session").as_deref(), Some("57014"));
    receiver.release();
    until("its worker has ended", || {
        text(
            &mut db.client,
            "select count(*)::text from pg_stat_activity
              where backend_type = 'coco update' and datname = current_database()",
        ) == "0"
    });
}

#[test]
fn a_flow_is_dropped_while_an_update_is_between_two_parts() {
    let mut db = TestDb::new("external_drop_between");
    let mut other = TestDb::new("external_drop_between_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key);
         create function gate(id int) returns text language plpgsql as
         'begin
            if id = 130 then perform pg_advisory_lock_shared(77); perform pg_advisory_unlock_shared(77); end if;
            return id::text;
          end';
         insert into docs values (0);
         select coco.create_flow('f', 'docs', 'select id, gate(id) as body from docs', 'there', '{id}', server => 'pg')",
    );
    counted(&mut db, "f");
    // Parts of at least 40 changes: the first is on its way, the second is evaluated.
    for first in [1, 41, 81, 121, 161] {
        db.run(&format!("insert into docs select i from generate_series({first}, {first} + 39) i"));
    }
    db.run("select pg_advisory_lock(77)");
    let mut in_the_way = other.connect();
    in_the_way.batch_execute("begin; lock table there in share mode").expect("a lock");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        session.batch_execute("set coco.batch_size = 10").expect("a setting");
        let result = session.batch_execute("select * from coco.update('f')");
        result.err().and_then(|e| e.code().map(|c| c.code().to_owned()))
    });
    let waits = |what: &str, client: &mut Client| {
        let sql = format!(
            "select count(*)::text from pg_locks l join pg_stat_activity a using (pid)
              where not l.granted and l.locktype = '{what}' and a.datname = current_database()"
        );
        text(client, &sql) == "1"
    };
    until("the first part is on its way", || waits("relation", &mut other.client));
    until("the second part waits", || waits("advisory", &mut db.client));
    let mut session = db.connect();
    let dropping = std::thread::spawn(move || {
        session.batch_execute("select coco.drop_flow('f', keep_targets => false)")
    });
    until("who drops waits for that", || waits("object", &mut db.client));
    db.run("select pg_advisory_unlock(77)");
    until("who drops has the flow", || !waits("object", &mut db.client));
    in_the_way.batch_execute("commit").expect("a commit");
    dropping.join().expect("a session").expect("it is dropped");
    // Its turn is canceled, or finds no flow any more.
    let ended = waiting.join().expect("a session");
    assert!(matches!(ended.as_deref(), Some("57014" | "42704")), "{ended:?}");
    assert_eq!(text(&mut other.client, "select to_regclass('there')::text"), "");
}

/// Random changes, while the other side fails in every way it can.
#[test]
fn whatever_goes_wrong_the_target_ends_up_right() {
    let seed = match std::env::var("COCO_TEST_SEED") {
        Ok(seed) => seed.parse().expect("COCO_TEST_SEED is a number"),
        Err(_) => fastrand::u64(1..1_000_000),
    };
    println!("COCO_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let receiver = Receiver::start();
    let mut db = with_hook("external_random", &receiver);
    let query = "select id, n, md5(body || n) as piece from docs, generate_series(1, length(body) % 4) as n";
    db.run(&format!(
        "select coco.create_flow('f', 'docs', $$ {query} $$, 'out', '{{id,n}}', server => 'hook');
         alter server hook options (add batch_size '7', set request_timeout '1')"
    ));
    for _ in 0..25 {
        for _ in 0..rng.usize(1..6) {
            let (id, to) = (rng.i32(1..60), rng.i32(1..60));
            let body: String = (0..rng.usize(0..9)).map(|_| rng.alphanumeric()).collect();
            db.run(&match rng.u8(0..6) {
                0 => format!("delete from docs where id between {id} and {to}"),
                1 => format!("update docs set id = id + 100 where id = {id} and not exists (select from docs where id = {id} + 100)"),
                2 => "truncate docs".to_owned(),
                _ => format!(
                    "insert into docs select i, '{body}' || i from generate_series({id}, {id} + 15) i
                     on conflict (id) do update set body = excluded.body"
                ),
            });
        }
        for _ in 0..rng.usize(0..3) {
            receiver.next(match rng.u8(0..6) {
                0 => Fault::status(500),
                1 => Fault::CutRequest,
                2 => Fault::KeepHalf,
                3 => Fault::CutAnswer,
                4 => Fault::answer(429, ("Retry-After", "1"), ""),
                _ => Fault::Late(std::time::Duration::from_millis(1500)),
            });
        }
        // It may end with an error, and goes on from there.
        support::update(&mut db.client, "f", "normal").ok();
    }
    until("nothing goes wrong any more", || support::update(&mut db.client, "f", "normal").is_ok());
    assert_eq!(
        receiver.rows("f", "out"),
        expected(&mut db.client, query, "q.id, q.n"),
        "seed {seed}"
    );
    db.verify_clean("f");
    assert_eq!(
        text(&mut db.client, "select queued + rejected || '' from coco.delivery_status"),
        "0"
    );
}
