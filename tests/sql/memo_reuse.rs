//! Results of memoized functions that other flows have, and those that are kept of dropped flows: the flows of one owner
//! compute and ask for nothing twice, and nobody has the results of somebody else.

mod kept;
mod owners;
#[cfg(feature = "functions")]
mod provided;
mod shared;

use postgres::Client;

use crate::support::{TestDb, explain};

/// A database with two functions that count their calls, and ten items of five texts.
fn counting(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("memo_reuse_{name}"));
    db.run(
        "create sequence calls; create sequence inputs;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         create function many(t text) returns text language plpgsql as
           $$ begin raise exception 'called by itself'; end $$;
         create function many_of(t text[]) returns text[] language plpgsql as
           $$ begin
                return (select array_agg(upper(x)) from
                          (select x, nextval('public.inputs') from unnest(t) with ordinality as u(x, n) order by n) as y);
              end $$;
         select coco.memoize('plain(text)'), coco.memoize('many(text)', batch => 'many_of(text[])');
         create table d (id int primary key, body text);
         insert into d select i, 'text ' || i % 5 from generate_series(1, 10) i",
    );
    db
}

/// A flow that calls `plain`.
fn flow(name: &str) -> String {
    format!(
        "select coco.create_flow('{name}', 'public.d', 'select id, public.plain(body) as u from d', 'public.t_{name}', '{{id}}')"
    )
}

fn number_of(client: &mut Client, sql: &str) -> i64 {
    let row = client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn number(db: &mut TestDb, sql: &str) -> i64 {
    number_of(&mut db.client, sql)
}

fn fails(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => panic!("{sql} does not fail"),
        Err(e) => explain(&e),
    }
}

/// Calls since the last look.
fn calls(db: &mut TestDb) -> i64 {
    taken(db, "calls")
}

fn taken(db: &mut TestDb, sequence: &str) -> i64 {
    let sql = format!("select case when is_called then last_value else 0 end from {sequence}");
    let taken = number(db, &sql);
    db.run(&format!("select setval('{sequence}', 1, false)"));
    taken
}

/// Updates a flow whose rows are right afterwards, and returns how many results it computed.
fn computed_by(db: &mut TestDb, name: &str, mode: &str) -> i64 {
    let counts = db.update(name, mode);
    assert_eq!(counts[0].failed, 0, "{name}: {counts:?}");
    let computed = calls(db);
    let wrong = format!(
        "select count(*) from d full join t_{name} t using (id) where t.u is distinct from upper(d.body)"
    );
    assert_eq!(number(db, &wrong), 0, "{name}");
    computed
}
