//! What `coco.lineage` says of the inputs of a row: columns of the source, and rows of lookups.

use crate::support;

use support::TestDb;

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    let sql = format!("select q::text from ({sql}) as q(q)");
    let rows = db.client.query(&sql, &[]);
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

fn books(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table authors (id int primary key, name text not null);
         create table books (id int primary key, author int not null, title text not null, pages int);
         insert into authors values (1, 'Woolf'), (2, 'Kafka');
         insert into books values (1, 1, 'The Waves'), (2, 2, 'The Trial'), (3, 2, 'The Castle')",
    );
    db
}

/// Declares the flow over books with this `affects` of the authors, and updates it.
fn cards(db: &mut TestDb, affects: &str) {
    db.run(&format!(
        "select coco.create_flow('cards');
         select coco.add_source('cards', 'books');
         select coco.add_lookup('cards', 'authors'{affects});
         select coco.add_target('cards', 'cards',
           'select b.id, b.title || '', by '' || a.name as card from books b join authors a on a.id = b.author',
           '{{id}}')"
    ));
    db.update("cards", "normal");
}

#[test]
fn a_row_tells_the_columns_and_the_lookup_rows_that_feed_it() {
    let mut db = books("inputs_join");
    cards(&mut db, ", affects => 'select b.id from authors a join books b on b.author = a.id'");
    let inputs =
        "select concat_ws(' ', source_columns, lookups) from coco.lineage('cards', '{\"id\": 3}')";
    assert_eq!(
        rows(&mut db, inputs),
        [
            r#"{id,author,title} [{"rows": [{"id": 2}], "lookup": "authors", "relation": "public.authors"}]"#
        ]
    );
    db.run("update books set author = 1 where id = 3");
    db.update("cards", "normal");
    let lookups = "select lookups->0->'rows' from coco.lineage('cards', '{\"id\": 3}')";
    assert_eq!(rows(&mut db, lookups), [r#"[{"id": 1}]"#]);
    db.run("begin read only");
    assert_eq!(rows(&mut db, lookups), [r#"[{"id": 1}]"#]);
    db.run("commit");
}

#[test]
fn a_lookup_without_affects_is_named_without_rows() {
    let mut db = books("inputs_all");
    cards(&mut db, "");
    let lookups = "select lookups from coco.lineage('cards', '{\"id\": 1}')";
    assert_eq!(
        rows(&mut db, lookups),
        [r#"[{"rows": null, "lookup": "authors", "relation": "public.authors"}]"#]
    );
}

#[test]
fn a_flow_without_lookups_has_an_empty_list() {
    let mut db = books("inputs_none");
    db.run("select coco.create_flow('f', 'books', 'select id, title from books', 't', '{id}')");
    db.update("f", "normal");
    let inputs =
        "select concat_ws(' ', source_columns, lookups) from coco.lineage('t', '{\"id\": 1}')";
    assert_eq!(rows(&mut db, inputs), ["{id,title} []"]);
}

#[test]
fn the_rows_of_a_lookup_are_groups_if_its_key_is_shared() {
    let mut db = books("inputs_groups");
    db.run(
        "create table tags (id int primary key, book int not null, tag text not null);
         insert into tags values (1, 3, 'long'), (2, 3, 'dark');
         select coco.create_flow('tagged');
         select coco.add_source('tagged', 'books');
         select coco.add_lookup('tagged', 'tags', key => '{book}', affects => 'select book from tags');
         select coco.add_target('tagged', 'tagged',
           'select b.id, (select string_agg(t.tag, '' '' order by t.tag) from tags t where t.book = b.id) as tags from books b',
           '{id}')",
    );
    db.update("tagged", "normal");
    let of = |id: i32| {
        format!("select lookups->0->'rows' from coco.lineage('tagged', '{{\"id\": {id}}}')")
    };
    assert_eq!(rows(&mut db, &of(3)), [r#"[{"book": 3}]"#]);
    assert_eq!(rows(&mut db, &of(1)), ["[]"]);
}

#[test]
fn rows_that_no_index_finds_are_not_looked_for() {
    let mut db = books("inputs_index");
    db.run(
        "create table pairs (author int not null, book int not null);
         insert into pairs select i % 2 + 1, i from generate_series(1, 20000) i;
         analyze pairs;
         select coco.create_flow('f');
         select coco.add_source('f', 'books');
         select coco.add_lookup('f', 'authors',
           affects => 'select p.book from authors a join pairs p on p.author = a.id');
         select coco.add_target('f', 't',
           'select b.id, (select a.name from authors a join pairs p on p.author = a.id where p.book = b.id) as name from books b',
           '{id}')",
    );
    db.update("f", "normal");
    let found = "select lookups->0->'rows' from coco.lineage('t', '{\"id\": 1}')";
    assert_eq!(rows(&mut db, found), ["null"]);
    db.run("create index on pairs (book); analyze pairs");
    assert_eq!(rows(&mut db, found), [r#"[{"id": 2}]"#]);
}
