//! Memoized functions of this database: what is computed, and how often.

mod batches;
mod computed;
mod declared;
mod failing;
mod types;

use crate::support::{TestDb, explain};

/// A database with functions that count their calls: `plain`, and `many`, whose batch function also
/// counts the inputs that it was given.
fn counting(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("memo_{name}"));
    db.run(
        "create sequence calls; create sequence inputs;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         select coco.memoize('plain(text)');
         create function many(t text) returns text language plpgsql as
           $$ begin raise exception 'called by itself'; end $$;
         create function many_of(t text[]) returns text[] language plpgsql as
           $$ begin
                perform nextval('public.calls');
                if '' = any (t) then raise exception 'an empty text' using errcode = '22023'; end if;
                return (select array_agg(upper(x)) from
                          (select x, nextval('public.inputs') from unnest(t) with ordinality as u(x, n) order by n) as y);
              end $$;
         select coco.memoize('many(text)', batch => 'many_of(text[])', batch_size => 10);
         create table d (id int primary key, body text)",
    );
    db
}

fn number(db: &mut TestDb, sql: &str) -> i64 {
    let row = db.client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

/// Calls since the last look.
fn calls(db: &mut TestDb) -> i64 {
    taken(db, "calls")
}

fn inputs(db: &mut TestDb) -> i64 {
    taken(db, "inputs")
}

fn taken(db: &mut TestDb, sequence: &str) -> i64 {
    let taken = number(
        db,
        &format!("select case when is_called then last_value else 0 end from {sequence}"),
    );
    db.run(&format!("select setval('{sequence}', 1, false)"));
    taken
}

fn entries(db: &mut TestDb) -> i64 {
    number(db, "select coalesce(sum(entries), 0) from coco.functions")
}

fn fails(db: &mut TestDb, sql: &str) -> String {
    match db.client.batch_execute(sql) {
        Ok(()) => panic!("{sql} does not fail"),
        Err(e) => explain(&e),
    }
}
