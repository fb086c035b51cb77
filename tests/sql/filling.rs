//! The first fill: an update that finds nothing tracked, and all its targets empty, writes as one that
//! goes batch by batch would have.

mod failing;
mod left_to_batches;
mod written;

use postgres::Client;

use crate::support::{Counts, explain, update};

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
            "select tracking::text from coco_internal.source where flow = '{flow}' and lookup_of is null"
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
          where i.indrelid in (select tracking from coco_internal.source where flow = '{flow}' and lookup_of is null
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
