//! First fills of targets outside this database: what they send, when, and what becomes of it when things go wrong.
#![cfg(all(feature = "http", feature = "postgres"))]

mod ahead;
mod outbox;
mod sent;

use postgres::Client;

use crate::sides::{server_for, text};
use crate::support::{TestDb, explain};

/// More rows than indexes are filled with one by one.
const MANY: i64 = 2500;

/// Two databases: a source of many items, and a server "pg" that is the other.
fn many(name: &str) -> (TestDb, TestDb) {
    let mut db = TestDb::new(name);
    let other = TestDb::new(&format!("{name}_there"));
    server_for(&mut db, &other);
    db.run(&format!(
        "create extension amcheck;
         create table src (id int primary key, n int not null, body text);
         insert into src
         select i, i % 40, case when i % 50 = 0 then null
                                -- too long for a page, and for compression
                                when i % 500 = 1 then (select string_agg(md5(random()::text), '') from generate_series(1, 400) g where i > 0)
                                else md5(i::text) end
           from generate_series(1, {MANY}) i;
         analyze src"
    ));
    (db, other)
}

/// Whether the items were written by a fill: as of one moment. Of batches each item has its own.
fn is_filled(db: &mut TestDb, flow: &str) -> bool {
    let table = text(
        &mut db.client,
        &format!(
            "select tracking::text from coco_internal.source where flow = '{flow}' and lookup_of is null"
        ),
    );
    let sql = format!("select count(distinct process_ordinal)::text from {table}");
    text(&mut db.client, &sql) == "1"
}

/// Looks whether each index of a flow's own tables has an entry for each row.
fn check_indexes(db: &mut TestDb, flow: &str) {
    let sql = format!(
        "select count(bt_index_check(i.indexrelid, true))::text from pg_index i
          where i.indrelid in (select tracking from coco_internal.source where flow = '{flow}' and lookup_of is null
                               union all select relation from coco_internal.target where flow = '{flow}'
                               union all select outbox from coco_internal.target where flow = '{flow}')"
    );
    let row = db.client.query_one(&sql, &[]);
    row.unwrap_or_else(|e| panic!("{}", explain(&e)));
}

/// A table as one text; nothing where it does not exist.
fn content(client: &mut Client, table: &str) -> String {
    let name = format!("select (to_regclass('{table}') is null)::text");
    if !table.starts_with('(') && text(client, &name) == "true" {
        return String::new();
    }
    text(client, &format!("select string_agg(t::text, E'\\n' order by t::text) from {table} as t"))
}
