//! The limits `max_rows` and `max_cost` of a flow: an update that would pass them stops before it writes or spends.

#[cfg(feature = "functions")]
use crate::provider::Provider;
use crate::support;

use support::{TestDb, explain};

fn number(db: &mut TestDb, sql: &str) -> i64 {
    let row = db.client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn fails(db: &mut TestDb, sql: &str, sqlstate: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {}", explain(&e));
    explain(&e)
}

/// A flow over 50 rows, of which one update may write 20.
fn limited(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("limits_{name}"));
    db.run(
        "create table d (id int primary key, v int);
         insert into d select i, i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.alter_flow('f', max_rows => 20)",
    );
    db
}

#[test]
fn an_update_that_writes_too_much_stops_before_it_writes() {
    let mut db = limited("rows");
    let said = fails(&mut db, "select * from coco.update('f')", "54000");
    assert!(said.contains("an update of flow \"f\" would pass its limit max_rows"), "{said}");
    assert!(said.contains("would write 50 rows and delete 0 rows; max_rows is 20."), "{said}");
    assert!(said.contains("coco.allow"), "{said}");
    assert_eq!(number(&mut db, "select count(*) from t"), 0);
    assert_eq!(number(&mut db, "select count(*) from coco.tracking"), 0);
    // An update that is allowed passes the limit once.
    db.run("select coco.allow('f')");
    assert_eq!(db.update("f", "normal")[0].upserted, 50);
    db.run("update d set v = 0");
    fails(&mut db, "select * from coco.update('f')", "54000");
    // Small updates pass without a permission, and rows that are deleted count.
    db.run("update d set v = id; update d set v = 0 where id <= 20");
    assert_eq!(db.update("f", "normal")[0].upserted, 20);
    db.run("delete from d where id <= 21");
    let said = fails(&mut db, "select * from coco.update('f')", "54000");
    assert!(said.contains("would write 0 rows and delete 21 rows"), "{said}");
    db.run("select coco.alter_flow('f', max_rows => 0)");
    assert_eq!(db.update("f", "normal")[0].deleted, 21);
    db.verify_clean("f");
}

#[test]
fn a_function_that_is_replaced_counts() {
    let mut db = TestDb::new("limits_function");
    db.run(
        "create table d (id int primary key, v int);
         insert into d select i, i from generate_series(1, 50) i;
         create function shown(i int) returns int language sql immutable as 'select i';
         select coco.create_flow('f', 'd', 'select id, shown(v) as v from d', 't', '{id}');
         select coco.update('f');
         select coco.alter_flow('f', max_rows => 20);
         create or replace function shown(i int) returns int language sql immutable as 'select case when i <= 20 then -i else i end'",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 20);
    db.run("create or replace function shown(i int) returns int language sql immutable as 'select -i - 1'");
    fails(&mut db, "select * from coco.update('f')", "54000");
    fails(&mut db, "select * from coco.update_all()", "54000");
    db.run("select coco.allow('f'); select * from coco.update_all()");
    db.verify_clean("f");
}

#[test]
fn limits_are_checked_and_kept() {
    let mut db = limited("kept");
    let said = fails(&mut db, "select coco.alter_flow('f', max_rows => -1)", "22023");
    assert!(said.contains("argument \"max_rows\" (-1) must not be negative"), "{said}");
    let said = fails(&mut db, "select coco.alter_flow('f', max_cost => 'NaN')", "22023");
    assert!(said.contains("argument \"max_cost\" (NaN) must not be negative"), "{said}");
    db.run("select coco.alter_flow('f', max_cost => 2.5)");
    let definition: String =
        db.client.query_one("select coco.flow_definition('f')", &[]).expect("a definition").get(0);
    assert!(definition.contains("max_rows => 20"), "{definition}");
    assert!(definition.contains("max_cost => 2.5"), "{definition}");
    let limits = "select max_rows = 20 and max_cost = 2.5 from coco.flows where flow = 'f'";
    assert!(db.client.query_one(limits, &[]).expect("a flow").get::<_, bool>(0));
    // A flow that is declared again keeps them.
    db.run("alter table d alter column v set not null;
            select coco.create_flow('f', 'd', 'select v, count(*) as n from d group by v', 't', '{v}', source_key => '{v}', or_replace => true)");
    assert!(db.client.query_one(limits, &[]).expect("a flow").get::<_, bool>(0));
}

#[cfg(feature = "functions")]
#[test]
fn an_update_that_costs_too_much_asks_no_provider() {
    let mut db = TestDb::new("limits_cost");
    let provider = Provider::start();
    // Each text has 8 bytes: two tokens, which cost 2.
    db.run(&format!(
        "create server models foreign data wrapper coco_openai
           options (url '{}', batch_size '16', price_per_million_input_tokens '1000000');
         create table docs (id int primary key, body text);
         insert into docs select i, 'text ' || to_char(i, 'FM000') from generate_series(1, 40) i;
         select coco.create_flow('f', 'docs', $$select id, coco.embed(body, 'models', 'm') as e from docs$$, 't', '{{id}}');
         select coco.alter_flow('f', max_cost => 50)",
        provider.url()
    ));
    let estimated = "select estimate from coco.estimate('f') where measure = ";
    assert_eq!(number(&mut db, &format!("{estimated}'memo_misses'")), 40);
    assert_eq!(number(&mut db, &format!("{estimated}'requests'")), 3);
    assert_eq!(number(&mut db, &format!("{estimated}'tokens_in'")), 80);
    assert_eq!(number(&mut db, &format!("{estimated}'cost'")), 80);
    let said = fails(&mut db, "select * from coco.update('f')", "54000");
    assert!(said.contains("would pass its limit max_cost"), "{said}");
    assert!(said.contains("would cost about 80.000000"), "{said}");
    assert_eq!(provider.counts().requests, 0, "nothing is asked");
    db.run("select coco.allow('f')");
    assert_eq!(db.update("f", "normal")[0].upserted, 40);
    assert_eq!(provider.counts().inputs, 40);
    // What is stored costs nothing.
    db.run("update docs set body = 'text 001' where id = 40");
    assert_eq!(number(&mut db, &format!("{estimated}'memo_hits'")), 1);
    assert_eq!(number(&mut db, &format!("{estimated}'requests'")), 0);
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
    db.verify_clean("f");
}
