//! The other sides of a flow with targets outside its database: a webhook, which shows every request, and another
//! database.
#![allow(dead_code)] // each file of tests uses a part

use std::collections::BTreeMap;

use postgres::Client;

use crate::http::Receiver;
use crate::support::{TestDb, explain};

pub const UPPER: &str = "select id, upper(body) as body from docs";

pub fn declare(db: &mut TestDb, flow: &str) {
    db.run(&format!(
        "select coco.create_flow('{flow}', 'docs', '{UPPER}', 'out', '{{id}}', server => 'hook')"
    ));
}

/// A database with a server "hook" that is the receiver.
pub fn with_hook(name: &str, receiver: &Receiver) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(&format!(
        "create server hook foreign data wrapper coco_http
           options (url '{}', request_timeout '20', connect_timeout '5');
         create user mapping for postgres server hook;
         create table docs (id int primary key, body text, extra text);",
        receiver.url()
    ));
    db
}

pub fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let code = e.code().map(|c| c.code().to_owned());
    assert_eq!(code.as_deref(), Some(sqlstate), "{sql}: {}", explain(&e));
    explain(&e)
}

pub fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// What a flow's query gives, as the receiver has it.
pub fn expected(client: &mut Client, query: &str, key: &str) -> BTreeMap<String, String> {
    let sql = format!(
        "select (select row_to_json(k.*) from (select {key}) k)::text, row_to_json(q.*)::text from ({query}) q"
    );
    let rows = client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| (r.get(0), r.get(1))).collect()
}

pub fn counted(db: &mut TestDb, flow: &str) -> (i64, i64, i64, i64) {
    let counts = db.update(flow, "normal").remove(0);
    (counts.evaluated, counts.upserted, counts.deleted, counts.failed)
}

/// A server "pg" that is another database.
pub fn server_for(db: &mut TestDb, other: &TestDb) {
    let config: postgres::Config = other.url().parse().expect("a connection string");
    let host = match config.get_hosts().first() {
        Some(postgres::config::Host::Tcp(host)) => host.clone(),
        Some(postgres::config::Host::Unix(path)) => path.display().to_string(),
        None => panic!("no host"),
    };
    db.run(&format!(
        "create server pg foreign data wrapper coco_postgres
           options (host '{host}', port '{}', dbname '{}', sslmode 'disable');
         create user mapping for postgres server pg options (user 'postgres')",
        config.get_ports().first().copied().unwrap_or(5432),
        config.get_dbname().unwrap_or_default()
    ));
}
