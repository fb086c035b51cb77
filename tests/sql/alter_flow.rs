//! `coco.rename_flow`, and what `coco.alter_flow` changes of sources, settings and targets: without
//! declaring the flow again, without missing a change, and without computing memoized results again.
//! Also what follows when users rename tables and columns.

mod renamed;
mod settings;
mod sources;

use postgres::Client;

use crate::support::{TestDb, explain};

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())
}

fn number(db: &mut TestDb, sql: &str) -> i64 {
    let row = db.client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let explained = explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {explained}");
    explained
}

/// What one update of a flow with one source evaluates and writes.
fn evaluated(db: &mut TestDb, flow: &str) -> (i64, i64) {
    let counts = db.update(flow, "normal").remove(0);
    assert_eq!(counts.failed, 0, "{counts:?}");
    (counts.evaluated, counts.upserted)
}

/// A memoized function `plain` that returns its text in capitals, and counts its calls.
const PLAIN: &str = "create sequence calls;
    create function plain(t text) returns text language plpgsql as
      $$ begin perform nextval('public.calls'); return upper(t); end $$;
    select coco.memoize('plain(text)')";

fn calls(db: &mut TestDb) -> i64 {
    number(db, "select case when is_called then last_value else 0 end from calls")
}

/// Makes roles, which are the cluster's: other tests of this suite may have made them.
fn roles(db: &mut TestDb) {
    for role in ["coco_renaming_alice", "coco_renaming_bob"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}; create schema {role} authorization {role}"
        ));
    }
}
