//! What tests of groups compare: a target with its query, and what PostgreSQL says of a statement that
//! it refuses.

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

/// The first column of all rows, as text.
pub fn rows_of(client: &mut Client, sql: &str) -> Vec<String> {
    let sql = format!("select q::text from ({sql}) as q(q)");
    let rows = client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

/// The same, in the session of a test.
pub fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    rows_of(&mut db.client, sql)
}

/// The value that a query returns, as text.
pub fn text(db: &mut TestDb, sql: &str) -> String {
    rows(db, sql).concat()
}

/// SQLSTATE, message, detail and hint of a statement that fails.
pub fn refused(db: &mut TestDb, sql: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().unwrap_or_else(|| panic!("{sql}"));
    [e.code().code(), e.message(), e.detail().unwrap_or(""), e.hint().unwrap_or("")].join(" | ")
}

/// The target has the rows of the query, byte for byte, and no item fails.
pub fn is_the_query(db: &mut TestDb, flow: &str, target: &str, query: &str, after: &str) {
    let differ = format!(
        "(select 'missing ' || x from (select (q.*)::text as x from ({query}) q
           except all select (t.*)::text from {target} t) a)
         union all
         (select 'extra ' || x from (select (t.*)::text as x from {target} t
           except all select (q.*)::text from ({query}) q) b)"
    );
    let found = rows(db, &differ);
    let errors = rows(
        db,
        &format!(
            "select concat_ws(' ', source_key, sqlstate, message) from coco.errors where flow = '{flow}'"
        ),
    );
    assert!(found.is_empty() && errors.is_empty(), "{flow} after {after}: {found:?} {errors:?}");
    db.verify_clean(flow);
}
