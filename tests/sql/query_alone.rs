//! A flow declared by its query alone: source, keys and target are found, and can all be named.

use crate::support;

use support::{TestDb, explain};

const TABLES: &str = "
    create table authors (id int primary key, name text not null);
    create table books (id int primary key, author int not null, title text not null, parent int);
    create table tags (id int primary key, book int not null, tag text not null);
    create table pairs (a int, b int, v int, primary key (a, b));
    create table sales (id int primary key, cust int not null, region text not null, amount int not null);
    insert into authors values (1, 'Woolf'), (2, 'Kafka');
    insert into books values (1, 1, 'The Waves', null), (2, 2, 'The Trial', 3), (3, 2, 'The Castle', null);
    insert into tags values (1, 1, 'sea'), (2, 2, 'law'), (3, 2, 'dark');
    insert into sales select i, i % 3, 'r' || i % 2, i from generate_series(1, 12) i";

fn new(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(TABLES);
    db
}

fn texts(db: &mut TestDb, sql: &str) -> Vec<String> {
    let rows = db.client.query(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| r.get(0)).collect()
}

/// The source, its key, the target and its key.
fn found(db: &mut TestDb, flow: &str) -> String {
    texts(
        db,
        &format!(
            "select concat_ws('|', s.source, s.key, s.item, t.target, t.key)
               from coco.sources s join coco.targets t using (flow) where flow = '{flow}'"
        ),
    )
    .concat()
}

/// SQLSTATE, message, detail and hint.
fn refused(db: &mut TestDb, sql: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().unwrap_or_else(|| panic!("{sql}"));
    [e.code().code(), e.message(), e.detail().unwrap_or(""), e.hint().unwrap_or("")].join(" | ")
}

#[test]
fn the_source_is_the_table_whose_key_the_query_returns() {
    let mut db = new("alone_found");
    let cases = [
        ("plain", "select id, title from books", "books|{id}|row|public.plain|{id}"),
        (
            "renamed",
            "select b.id as book, b.title from books as b",
            "books|{id}|row|public.renamed|{book}",
        ),
        (
            "joined",
            "select b.id, a.name from books b join authors a on a.id = b.author",
            "books|{id}|row|public.joined|{id}",
        ),
        (
            "two_keys",
            "select b.id, a.id as author, a.name from books b join authors a on a.id = b.author",
            "books|{id}|row|public.two_keys|{id}",
        ),
        (
            "many",
            "select b.id as book, t.id as tag, t.tag as word from books b join tags t on t.book = b.id",
            "tags|{id}|row|public.many|{tag}",
        ),
        (
            "outer_one",
            "select b.id, t.tag from books b left join (select book, max(tag) as tag from tags group by book) t on t.book = b.id where b.id > 0",
            "",
        ),
        ("pairs", "select b, a, v from pairs", "pairs|{a,b}|row|public.pairs_t|{a,b}"),
        (
            "grouped",
            "select cust, count(*) as n, sum(amount) as total from sales group by cust",
            "sales|{cust}|group|public.grouped|{cust}",
        ),
        (
            "grouped_twice",
            "select region, cust, count(*) as n from sales group by region, cust",
            "sales|{region,cust}|group|public.grouped_twice|{region,cust}",
        ),
        (
            "per_author",
            "select a.id, a.name, count(b.id) as books from authors a left join books b on b.author = a.id group by a.id, a.name",
            "authors|{id}|row|public.per_author|{id}",
        ),
    ];
    for (flow, query, expected) in cases {
        match (flow, expected) {
            ("pairs", _) => {
                db.run(&format!(
                    "select coco.create_flow('pairs', $$ {query} $$, target => 'pairs_t')"
                ));
            }
            (_, "") => {
                let said =
                    refused(&mut db, &format!("select coco.create_flow('{flow}', $$ {query} $$)"));
                assert!(
                    said.starts_with("22023 | argument \"key\" is missing | "),
                    "{flow}: {said}"
                );
                continue;
            }
            _ => db.run(&format!("select coco.create_flow('{flow}', $$ {query} $$)")),
        }
        assert_eq!(found(&mut db, flow), expected, "{flow}");
        assert!(db.update(flow, "normal").iter().all(|c| c.failed == 0), "{flow}");
        db.verify_clean(flow);
    }
}

#[test]
fn the_forms_of_the_call_are_the_same() {
    let mut db = new("alone_forms");
    let query = "select b.id, a.name from books b join authors a on a.id = b.author";
    db.run(&format!("select coco.create_flow('f', $$ {query} $$)"));
    let declared = found(&mut db, "f");
    for call in [
        format!("'f', query => $$ {query} $$"),
        format!("flow => 'f', query => $$ {query} $$"),
        format!("'f', $$ {query} $$, target => 'f'"),
        format!("'f', $$ {query} $$, key => '{{id}}'"),
        format!("'f', 'books', $$ {query} $$"),
        format!("'f', 'books'::regclass, $$ {query} $$"),
        format!("'f', source => 'public.books', query => $$ {query} $$"),
        format!(
            "'f', source => 'books', query => $$ {query} $$, target => 'f', key => '{{id}}', lookups => 'derive'"
        ),
        format!("'f', 'books'::regclass, $$ {query} $$, 'f', '{{id}}', lookups => 'derive'"),
        format!("'f', null, $$ {query} $$"),
        format!("'f', ($$ {query} $$)::text"),
    ] {
        let changes = texts(&mut db, &format!("select change from coco.plan({call})"));
        assert!(changes.is_empty(), "{call}: {changes:?}");
        db.run(&format!("select coco.create_flow({call}, or_replace => true)"));
        db.run(&format!("select coco.create_flow({call}, if_not_exists => true)"));
        assert_eq!(found(&mut db, "f"), declared, "{call}");
    }
    // Names are resolved under the search path of the call.
    db.run(
        "create schema other; create table other.books (id int primary key, title text);
         select coco.create_flow('o', 'books', 'select id, title from books', 'public.o', '{id}', search_path => 'other')",
    );
    assert_eq!(
        texts(&mut db, "select relation::text from coco.sources where flow = 'o'"),
        ["other.books"]
    );
}

#[test]
fn a_changed_query_is_a_difference() {
    let mut db = new("alone_replaced");
    db.run("select coco.create_flow('f', $$ select id, title from books $$)");
    db.update("f", "normal");
    let changed = "'f', $$ select id, upper(title) as title from books $$";
    assert_eq!(
        texts(&mut db, &format!("select change from coco.plan({changed})")),
        ["query changes"]
    );
    db.run(&format!("select coco.create_flow({changed}, or_replace => true)"));
    assert_eq!(db.update("f", "normal")[0].upserted, 3);
    db.verify_clean("f");
    // Another source: the flow is declared again.
    let other = "'f', $$ select id, name as title from authors $$";
    db.run(&format!("select coco.create_flow({other}, or_replace => true)"));
    assert_eq!(found(&mut db, "f"), "authors|{id}|row|public.f|{id}");
    db.update("f", "normal");
}

#[test]
fn a_query_that_reads_the_table_twice_has_one_item() {
    let mut db = new("alone_twice");
    db.run("select coco.create_flow('f', $$ select b.id, p.title as parent from books b left join books p on p.id = b.parent $$)");
    assert_eq!(found(&mut db, "f"), "books|{id}|row|public.f|{id}");
    db.update("f", "normal");
    db.verify_clean("f");
    db.run("update books set title = 'Das Schloss' where id = 3");
    db.update("f", "normal");
    db.verify_clean("f");
    assert_eq!(texts(&mut db, "select parent from f where id = 2"), ["Das Schloss"]);
}

#[test]
fn what_cannot_be_found_is_to_be_named() {
    let mut db = new("alone_refused");
    let several = refused(
        &mut db,
        "select coco.create_flow('f', $$ select a.id, b.id as book from authors a, books b $$)",
    );
    assert_eq!(
        several,
        "42P09 | the query of flow \"f\" has several possible sources | Its columns contain the keys of: public.authors AS a, public.books AS b. | Name the relation whose rows are the items with the argument \"source\"."
    );
    db.run("select coco.create_flow('f', source => 'books', query => $$ select a.id, b.id as book from authors a, books b $$)");
    assert_eq!(found(&mut db, "f"), "books|{id}|row|public.f|{book,id}");
    for (query, message) in [
        ("select title from books", "22023 | argument \"source\" is missing | "),
        ("select 1 as id", "22023 | argument \"source\" is missing | "),
        (
            "select id from books union all select id from authors",
            "22023 | argument \"source\" is missing | ",
        ),
        ("select count(*) as n from books", "22023 | argument \"source\" is missing | "),
        (
            "select upper(region) || clock_timestamp() as r, count(*) as n from sales group by 1",
            "22023 | argument \"source\" is missing | ",
        ),
        ("select count(*) as n from sales group by cust", "22023 | argument \"key\" is missing | "),
        (
            "select b.id, n from books b, generate_series(1, 2) n",
            "22023 | argument \"key\" is missing | ",
        ),
        ("select nosuch from books", "42703 | "),
    ] {
        let said = refused(&mut db, &format!("select coco.create_flow('g', $$ {query} $$)"));
        assert!(said.starts_with(message), "{query}: {said}");
    }
    let twice = refused(
        &mut db,
        "select coco.create_flow('g', 'select id from books', query => 'select id from books')",
    );
    assert!(
        twice.starts_with("22023 | argument \"source\" is a query, and so is argument \"query\""),
        "{twice}"
    );
    let nosuch = refused(&mut db, "select coco.create_flow('g', 'nosuch', 'select id from books')");
    assert!(nosuch.starts_with("42P01 | relation \"nosuch\" does not exist"), "{nosuch}");
}

#[test]
fn a_name_that_begins_like_a_query_is_a_name() {
    let mut db = new("alone_names");
    db.run(
        "create table selected (id int primary key); create table \"select 1\" (id int primary key);
         select coco.create_flow('a', 'selected', 'select id from selected');
         select coco.create_flow('b', '\"select 1\"', 'select id from \"select 1\"')",
    );
    assert_eq!(
        texts(&mut db, "select source from coco.sources order by 1"),
        ["select 1", "selected"]
    );
}
