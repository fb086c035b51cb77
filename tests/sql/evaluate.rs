//! One item, evaluated without a trace: `coco.evaluate`.

use std::sync::{Arc, Mutex};

use crate::support;

use support::TestDb;

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    let sql = format!("select q::text from ({sql}) as q(q)");
    let rows = db.client.query(&sql, &[]);
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

/// The SQLSTATE and the message of a statement that fails.
fn fails(db: &mut TestDb, sql: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().unwrap_or_else(|| panic!("{sql}: {e}"));
    format!("{} {}", e.code().code(), e.message())
}

/// A flow over documents, with a row for each word.
fn words(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table docs (id int primary key, body text not null);
         insert into docs values (1, 'one two'), (2, 'three');
         select coco.create_flow('f', 'docs',
           'select d.id, w.n, w.word from docs d, string_to_table(d.body, '' '') with ordinality as w(word, n)',
           'words', '{id,n}')",
    );
    db
}

#[test]
fn an_item_gives_its_rows_and_nothing_stays() {
    let mut db = words("evaluate_rows");
    let item = "select concat_ws('|', source, target, key, output, plan is null)
                  from coco.evaluate('f', '{\"id\": 1}') order by key";
    let expected = [
        r#"docs|public.words|{"n": 1, "id": 1}|{"n": 1, "id": 1, "word": "one"}|t"#,
        r#"docs|public.words|{"n": 2, "id": 1}|{"n": 2, "id": 1, "word": "two"}|t"#,
    ];
    assert_eq!(rows(&mut db, item), expected);
    assert_eq!(rows(&mut db, "select count(*) from words"), ["0"]);
    assert_eq!(rows(&mut db, "select count(*) from coco.tracking"), ["0"]);
    assert_eq!(rows(&mut db, "select count(*) from coco.history('f')"), ["0"]);
    db.update("f", "normal");
    // It is what the item gives now, whatever the target has.
    db.run("update docs set body = 'four' where id = 1");
    let word = "select output->>'word' from coco.evaluate('f', '{\"id\": 1}')";
    assert_eq!(rows(&mut db, word), ["four"]);
    assert_eq!(rows(&mut db, "select word from words where id = 1 order by n"), ["one", "two"]);
    db.run("begin read only");
    assert_eq!(rows(&mut db, word), ["four"]);
    db.run("commit");
    assert!(rows(&mut db, "select 1 from coco.evaluate('f', '{\"id\": 9}')").is_empty());
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn an_item_need_not_exist() {
    let mut db = words("evaluate_item");
    let given = |key: &str, item: &str| {
        format!(
            "select concat_ws(' ', output->>'id', output->>'word')
               from coco.evaluate('f', '{key}', item => '{item}') order by key"
        )
    };
    let new = given("{\"id\": 7}", "{\"body\": \"a b\"}");
    assert_eq!(rows(&mut db, &new), ["7 a", "7 b"]);
    // The key of the item wins, and other columns of the source are not read.
    let other = given("{\"id\": 1}", "{\"body\": \"c\", \"id\": 2}");
    assert_eq!(rows(&mut db, &other), ["1 c"]);
    assert!(rows(&mut db, &given("{\"id\": 1}", "{}")).is_empty(), "the body is NULL");
    assert_eq!(rows(&mut db, "select count(*) from docs"), ["2"]);
}

#[test]
fn a_wrong_key_and_a_wrong_item_are_named() {
    let mut db = words("evaluate_wrong");
    for (arguments, error) in [
        (
            "'{\"x\": 1}'",
            "42703 argument \"source_key\": the key of source \"docs\" has no column \"x\"",
        ),
        (
            "'{}'",
            "22023 argument \"source_key\" has no value for key column \"id\" of source \"docs\"",
        ),
        ("'[1]'", "22023 argument \"source_key\" is not a JSON object"),
        ("'{\"id\": 1}', 'x'", "42704 flow \"f\" has no source \"x\""),
        ("'{\"id\": 1}', item => '3'", "22023 argument \"item\" is not a JSON object"),
        ("'{\"id\": 1}', item => '[{}]'", "22023 argument \"item\" is not a JSON object"),
        (
            "'{\"id\": 1}', item => '{\"z\": 1}'",
            "42703 argument \"item\": source \"docs\" has no column \"z\"",
        ),
        ("NULL", "22004 argument \"source_key\" must not be NULL"),
    ] {
        let sql = format!("select * from coco.evaluate('f', {arguments})");
        assert_eq!(fails(&mut db, &sql), error, "{sql}");
    }
    let sql = "select * from coco.evaluate('none', '{\"id\": 1}')";
    assert!(fails(&mut db, sql).starts_with("42704 flow \"none\" does not exist"));
}

#[test]
fn a_group_is_evaluated_as_a_whole() {
    let mut db = TestDb::new("evaluate_group");
    db.run(
        "create table sales (id int primary key, cust int not null, amount int not null);
         insert into sales select i, i % 2, i from generate_series(1, 4) i;
         select coco.create_flow('f', 'sales', source_key => '{cust}',
           query => 'select cust, count(*) as n, sum(amount) as total from sales group by cust',
           target => 'totals', key => '{cust}')",
    );
    let output = |arguments: &str| {
        format!("select output from coco.evaluate('f', '{{\"cust\": 1}}'{arguments})")
    };
    assert_eq!(rows(&mut db, &output("")), [r#"{"n": 2, "cust": 1, "total": 4}"#]);
    let two = ", item => '[{\"amount\": 20}, {\"amount\": 30, \"cust\": 5}]'";
    assert_eq!(rows(&mut db, &output(two)), [r#"{"n": 2, "cust": 1, "total": 50}"#]);
    assert!(rows(&mut db, &output(", item => '[]'")).is_empty());
    for item in ["{\"amount\": 1}", "[1]", "[[{}]]"] {
        let sql = output(&format!(", item => '{item}'"));
        let error = "22023 argument \"item\" is not a JSON array of objects";
        assert_eq!(fails(&mut db, &sql), error, "{sql}");
    }
}

#[test]
fn each_source_with_such_a_key_is_evaluated() {
    let mut db = TestDb::new("evaluate_sources");
    db.run(
        "create table books (id int primary key, title text);
         create table films (id int primary key, title text);
         create table notes (no int primary key, title text);
         insert into books values (1, 'a book'); insert into films values (1, 'a film');
         select coco.create_flow('f');
         select coco.add_source('f', 'books'); select coco.add_source('f', 'films');
         select coco.add_source('f', 'notes');
         select coco.add_target('f', 'titles',
           'select ''b'' as kind, id, title from books union all select ''f'', id, title from films
            union all select ''n'', no, title from notes', '{kind,id}')",
    );
    let titles = |arguments: &str| {
        format!(
            "select concat_ws(' ', source, output->>'title')
               from coco.evaluate('f', {arguments}) order by 1"
        )
    };
    assert_eq!(rows(&mut db, &titles("'{\"id\": 1}'")), ["books a book", "films a film"]);
    assert_eq!(rows(&mut db, &titles("'{\"id\": 1}', 'films'")), ["films a film"]);
    assert!(rows(&mut db, &titles("'{\"no\": 1}'")).is_empty());
    let error = "42703 argument \"source_key\": the key of source \"notes\" has no column \"id\"";
    assert_eq!(fails(&mut db, &titles("'{\"id\": 1}', 'notes'")), error);
}

#[test]
fn what_a_function_of_the_query_writes_is_rolled_back_and_its_notices_are_passed_on() {
    let mut db = TestDb::new("evaluate_notices");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 10), (2, 0);
         create table log (id int);
         create function seen(i int) returns int language plpgsql as
           $$ begin insert into public.log values (i); raise notice 'item % was read', i; return i; end $$;
         select coco.create_flow('f', 'd', 'select seen(id) as id, 100 / v as v from d', 't', '{id}')",
    );
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notices = heard.clone();
    let mut other = db.connect_hearing(move |message| notices.lock().unwrap().push(message));
    let found = other.query("select output::text from coco.evaluate('f', '{\"id\": 1}')", &[]);
    let found = found.unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    assert_eq!(found[0].get::<_, String>(0), r#"{"v": 10, "id": 1}"#);
    drop(other);
    assert!(heard.lock().unwrap().iter().any(|message| message == "item 1 was read"));
    assert_eq!(rows(&mut db, "select count(*) from log"), ["0"]);
    // An error of the query is an error of the call.
    let sql = "select * from coco.evaluate('f', '{\"id\": 2}')";
    assert_eq!(fails(&mut db, sql), "22012 division by zero");
    assert_eq!(rows(&mut db, "select count(*) from log"), ["0"]);
    assert_eq!(rows(&mut db, "select count(*) from coco.errors"), ["0"]);
}

#[test]
fn the_plan_is_returned_on_request() {
    let mut db = words("evaluate_plan");
    let plan =
        "select (source = 'docs' and target = 'public.words' and key is null and output is null
                        and plan like '%actual time=%' and plan like '%Execution Time: %')
                  from coco.evaluate('f', '{\"id\": 1}', explain => true)";
    assert_eq!(rows(&mut db, plan), ["true"]);
    assert_eq!(rows(&mut db, "select count(*) from words"), ["0"]);
}

#[test]
fn stored_results_are_read_and_none_is_stored() {
    let mut db = TestDb::new("evaluate_memo");
    db.run(
        "create sequence calls;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         select coco.memoize('plain(text)');
         create table d (id int primary key, body text);
         insert into d values (1, 'a'), (2, 'b');
         select coco.create_flow('f', 'd', 'select id, plain(body) as u from d', 't', '{id}')",
    );
    let calls = "select case when is_called then last_value else 0 end from calls";
    let entries = "select sum(entries) from coco.functions";
    let output = |arguments: &str| {
        format!("select output->>'u' from coco.evaluate('f', '{{\"id\": 1}}'{arguments})")
    };
    // Before the first update, the flow has no results.
    assert_eq!(rows(&mut db, &output("")), ["A"]);
    assert_eq!(rows(&mut db, calls), ["1"]);
    db.update("f", "normal");
    assert_eq!(
        (rows(&mut db, calls), rows(&mut db, entries)),
        (vec!["3".to_owned()], vec!["2".to_owned()])
    );
    assert_eq!(rows(&mut db, &output("")), ["A"]);
    assert_eq!(rows(&mut db, calls), ["3"], "the result was stored");
    assert_eq!(rows(&mut db, &output(", item => '{\"body\": \"c\"}'")), ["C"]);
    assert_eq!(rows(&mut db, calls), ["4"]);
    assert_eq!(rows(&mut db, &output(", memo => false")), ["A"]);
    assert_eq!(rows(&mut db, calls), ["5"]);
    assert_eq!(rows(&mut db, entries), ["2"]);
    // An update afterwards uses the memo as before.
    db.run("insert into d values (3, 'a')");
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
    assert_eq!(rows(&mut db, calls), ["5"]);
}

#[test]
fn a_target_outside_this_database_needs_no_connection() {
    let mut db = TestDb::new("evaluate_external");
    db.run(
        "create table documents (id int primary key, title text);
         insert into documents values (1, 'Tides');
         create server graph foreign data wrapper coco_neo4j options (url 'bolt://127.0.0.1:9');
         select coco.create_flow('nodes', 'documents', 'select id, title from documents', 'Nodes', '{id}',
           server => 'graph', options => '{\"label\": \"Doc\"}')",
    );
    let sql =
        "select concat_ws('|', target, key, output) from coco.evaluate('nodes', '{\"id\": 1}')";
    assert_eq!(rows(&mut db, sql), [r#"Nodes|{"id": 1}|{"id": 1, "title": "Tides"}"#]);
}
