//! What a live flow follows: commits, rows under subtransactions, lookups, and sources that are scanned.

use std::time::Instant;

use super::{declare, evaluated, noise, shared, started, state};

#[test]
fn a_live_flow_follows_each_commit_until_it_is_stopped() {
    let server = shared();
    let mut db = server.database("follows");
    declare(&mut db, "f");
    assert_eq!(state(&mut db, "f"), "never updated");
    let e = db.fails("select coco.wait('f')");
    assert!(e.starts_with("55000 flow \"f\" is not live"), "{e}");
    db.run("select coco.start('f')");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 100);
    db.until("select state = 'live' and pending = 0 and last_error is null from coco.status");
    db.run("update f_s set v = v + 1 where id <= 10; delete from f_s where id > 90");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 90);
    // To start again what is live changes nothing.
    db.run("select coco.start('f'); update f_s set id = 1000 where id = 1");
    db.settle("f");
    db.run("truncate f_s");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 0);

    db.run("select coco.stop('f'); insert into f_s values (1, 1)");
    assert_eq!(state(&mut db, "f"), "behind");
    // Another flow is followed, while this one is left alone.
    started(&mut db, "g");
    assert_eq!(db.number("select count(*) from f_t"), 0);
    assert_eq!(db.number("select pending from coco.status where flow = 'f'"), 1);
    let before = evaluated(&mut db);
    db.run("select coco.start('f')");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 1);
    assert_eq!(db.text("select row(id, v) from f_t"), "(1,2)");
}

#[test]
fn writers_wake_the_worker() {
    let server = shared();
    let mut db = server.database("wakes");
    started(&mut db, "f");
    let (turns, began) = (db.number("select transactions from coco.workers"), Instant::now());
    for n in 0..50 {
        db.run(&format!("update f_s set v = {n} where id = 7"));
        db.until(&format!("select v = {n} * 2 from f_t where id = 7"));
    }
    let turns = db.number("select transactions from coco.workers") - turns;
    // By itself it looks once a second.
    let alone = began.elapsed().as_secs() as i64 + 1;
    assert!(turns >= 50 && turns > 2 * alone, "{turns} turns in {alone} s");
    // What is rolled back is not followed.
    let before = evaluated(&mut db);
    db.run("begin; update f_s set v = 77777; rollback");
    db.run("begin; savepoint a; update f_s set v = 88888; rollback to a; update f_s set v = 55 where id = 5; commit");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 1);
}

#[test]
fn subtransactions_and_a_transaction_that_stays_open() {
    let server = shared();
    let mut db = server.database("open_transaction");
    started(&mut db, "f");
    let mut other = server.connect("open_transaction");
    other.run(
        "begin; update f_s set v = 1000 where id = 1;
         savepoint a; update f_s set v = 1000 where id = 2;
         savepoint b; delete from f_s where id = 3; rollback to b;
         savepoint c; insert into f_s values (1001, 7); release c",
    );
    // Others are followed meanwhile, also past a rotation of the log.
    db.run("set coco.log_segment_size = '64kB'; alter database open_transaction set coco.log_segment_size = '64kB'");
    for n in 0..20 {
        db.run(&format!("update f_s set v = {n} where id > 10"));
        db.settle("f");
    }
    assert_eq!(db.text("select v from f_t where id = 1"), "2");
    other.run("commit");
    db.settle("f");
    assert_eq!(
        db.rows("select row(id, v) from f_t where id in (1, 2, 3, 1001) order by id"),
        ["(1,2000)", "(2,2000)", "(3,6)", "(1001,14)"]
    );
    // One that was begun before the flow was made live, and wrote after.
    other.run("begin isolation level repeatable read; select count(*) from f_s");
    declare(&mut db, "g");
    db.run("select coco.start('g')");
    other.run("insert into g_s values (500, 1); commit");
    db.settle("g");
    assert_eq!(db.text("select v from g_t where id = 500"), "2");
}

#[test]
fn by_hand_and_by_worker_at_a_time() {
    let server = shared();
    let mut db = server.database("by_hand");
    started(&mut db, "f");
    let writing = server.connect("by_hand");
    let writer = std::thread::spawn(move || {
        let mut writing = writing;
        for n in 0..150 {
            writing.run(&format!("update f_s set v = {n} where id % 7 = {n} % 7"));
            writing.run(&format!(
                "delete from f_s where id = 10 + {n}; insert into f_s values (5000 + {n}, {n})"
            ));
        }
    });
    let mut modes = ["normal", "retry", "full_reprocess"].iter().cycle();
    while !writer.is_finished() {
        db.run(&format!("select * from coco.update('f', '{}')", modes.next().expect("another")));
    }
    writer.join().expect("the writer ends well");
    db.settle("f");
    assert!(noise(&server).iter().all(|l| !l.contains("deadlock")), "nobody waits for each other");
}

#[test]
fn lookups_live() {
    let server = shared();
    let mut db = server.database("lookups");
    db.run("create table a (id int primary key, name text, unused int); insert into a values (1, 'x'), (2, 'y');
            create table d (id int primary key, a int, body text);
            insert into d select i, i % 2 + 1, 'b' || i from generate_series(1, 20) i;
            select coco.create_flow('f', 'd', 'select d.id, d.body || coalesce(a.name, ''-'') as body from d left join a on a.id = d.a', 't', '{id}');
            select coco.add_lookup('f', 'a', affects => 'select d.id from d join a on a.id = d.a');
            select coco.start('f')");
    db.settle("f");
    let before = evaluated(&mut db);
    db.run("update a set name = 'z' where id = 2");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 10);
    assert_eq!(db.number("select count(*) from t where body like '%z'"), 10);
    // A row and what it is looked up by, in one transaction and in two.
    db.run("begin; insert into a values (3, 'n'); update d set a = 3 where id <= 5; commit");
    db.settle("f");
    db.run("update d set a = 4 where id = 1");
    db.run("insert into a values (4, 'm')");
    db.settle("f");
    assert_eq!(db.text("select body from t where id = 1"), "b1m");
    db.run("delete from a where id = 4");
    db.settle("f");
    assert_eq!(db.text("select body from t where id = 1"), "b1-");
    db.run("truncate a");
    db.settle("f");
    assert_eq!(db.number("select count(*) from t where body like '%-'"), 20);
    // The lookup goes.
    db.run("drop table a cascade");
    db.until("select count(*) = 1 from coco_internal.flow_error where hint is not null");
    assert!(["source dropped", "query broken", "failed"].contains(&state(&mut db, "f").as_str()));
}

#[test]
fn what_cannot_be_captured_is_read_now_and_then() {
    let server = shared();
    let mut db = server.database("scans");
    let files = server.directory().join("files");
    std::fs::create_dir(&files).expect("a directory is made");
    std::fs::write(files.join("a.txt"), "one").expect("a file is written");
    db.run(&format!(
        "create table s (id int primary key, v int); insert into s values (1, 1), (2, 2);
         create view w as select id, v from s;
         create view files as select path, modified, convert_from(content, 'UTF8') as body from coco.local_files('{}');
         select coco.create_flow('seldom', 'w', 'select id, v from w', 'seldom_t', '{{id}}', source_key => '{{id}}', refresh_interval => '1 hour');
         select coco.create_flow('often', 'w', 'select id, v from w', 'often_t', '{{id}}', source_key => '{{id}}', refresh_interval => '100 ms');
         select coco.create_flow('files', 'files', 'select path, body from files', 'files_t', '{{path}}', source_key => '{{path}}', ordinal => 'modified', refresh_interval => '100 ms');
         select coco.start(f) from unnest('{{seldom,often,files}}'::text[]) f",
        files.display()
    ));
    db.settle("often");
    db.settle("files");
    db.until("select count(*) = 2 from seldom_t");
    let before = evaluated(&mut db);
    db.run("update s set v = 3 where id = 1");
    db.settle("often");
    assert_eq!(db.text("select v from often_t where id = 1"), "3");
    assert_eq!(evaluated(&mut db), before + 1);
    assert_eq!(db.text("select v from seldom_t where id = 1"), "1");
    assert!(!db.holds("select coco.wait('seldom', '100 ms')"), "it is not read for an hour");
    // Another query is reason to read it.
    db.run("select coco.set_query('seldom', null, 'select id, v + 10 as v from w')");
    db.until("select sum(v) = 25 from seldom_t");
    // Files.
    std::fs::write(files.join("b.txt"), "two").expect("a file is written");
    std::fs::remove_file(files.join("a.txt")).expect("a file is removed");
    db.caught_up("files");
    assert_eq!(db.rows("select row(path, body) from files_t"), ["(b.txt,two)"]);
    for f in ["often", "files"] {
        db.verify(f);
    }
}
