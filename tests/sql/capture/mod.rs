//! Capture: whatever changes a captured table, and however, the next update finds it, and looks at
//! nothing else; and no writer notices.

mod cost;
mod log;
mod partitions;
mod replication;
mod rights;
mod statements;
mod table_changes;
mod transactions;

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
}

fn refused(client: &mut Client, sql: &str, code: &str) {
    let e = client.batch_execute(sql).expect_err(sql);
    assert!(explain(&e).contains(&format!("({code})")), "{sql}: {}", explain(&e));
}

/// A table of ten rows, and the flow `f` that has been updated once.
fn ten_rows(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("capture_{name}"));
    db.run(
        "create table d (id int primary key, body text, unused int);
         insert into d select i, 'row ' || i, 0 from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [10, 10, 10, 0]);
    db
}

/// Updates a flow: seen, evaluated, upserted, deleted. The target is right then, and nothing is
/// left to look at.
fn looked_at(db: &mut TestDb, flow: &str) -> [i64; 4] {
    let c = db.update(flow, "normal").remove(0);
    assert_eq!(c.failed, 0, "{c:?}");
    db.verify_clean(flow);
    let again = db.update(flow, "normal").remove(0);
    assert_eq!((again.seen, again.evaluated), (0, 0), "an update right after another: {again:?}");
    [c.seen, c.evaluated, c.upserted, c.deleted]
}

/// As [`looked_at`], and what is found may take a scan or two.
fn comes_right(db: &mut TestDb, flow: &str) {
    let c = db.update(flow, "normal").remove(0);
    assert_eq!(c.failed, 0, "{c:?}");
    db.verify_clean(flow);
}

fn partitioned(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("capture_{name}"));
    db.run(
        "create table p (id int, part int, body text, primary key (id, part)) partition by list (part);
         create table p1 partition of p for values in (1);
         create table p2 (body text, part int not null, gone int, id int not null);
         alter table p2 drop column gone;
         alter table p attach partition p2 for values in (2);
         insert into p select i, 1 + i % 2, 'row ' || i from generate_series(1, 10) i;
         select coco.create_flow('f', 'p', 'select id, part, body from p', 't', '{id,part}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [10, 10, 10, 0]);
    db
}
