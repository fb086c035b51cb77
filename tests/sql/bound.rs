//! A flow evaluates the query that was bound at its declaration: nothing that happens to names later changes what an
//! update reads or calls. The truth is always the plain query, compared as text in both directions.

#[path = "bound/alias_names.rs"]
mod alias_names;
#[path = "bound/generated.rs"]
mod generated;
#[path = "bound/later.rs"]
mod later;
#[path = "bound/spelled.rs"]
mod spelled;

use crate::support;

use support::{TestDb, explain};

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)))
        .get::<_, Option<String>>(0)
        .unwrap_or_default()
}

/// The rows of a target that differ from the rows of its query.
fn differences(db: &mut TestDb, target: &str, query: &str) -> Vec<String> {
    let sql = format!(
        "select 'missing ' || m from (select (q.*)::text as m from ({query}) q except all select (t.*)::text from {target} t) m
         union all
         select 'extra ' || e from (select (t.*)::text as e from {target} t except all select (q.*)::text from ({query}) q) e
         order by 1"
    );
    let rows = db.client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| r.get(0)).collect()
}

/// Updates a flow in the test's session, and compares its target with the plain query.
fn follows(db: &mut TestDb, flow: &str, target: &str, query: &str) {
    let counts = db.update(flow, "normal");
    assert!(counts.iter().all(|c| c.failed == 0), "{query}: {counts:?}");
    let found = differences(db, target, query);
    assert!(found.is_empty(), "{query}\n{}", found.join("\n"));
    db.verify_clean(flow);
}

/// The SQLSTATE of a refused statement, and all that the server says about it.
fn refused(db: &mut TestDb, sql: &str) -> (String, String) {
    let e = match db.client.batch_execute(sql) {
        Err(e) => e,
        Ok(()) => panic!("accepted: {sql}"),
    };
    (e.code().map(|c| c.code().to_owned()).unwrap_or_default(), explain(&e))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
