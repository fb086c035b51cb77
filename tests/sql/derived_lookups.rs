//! Lookups that coco derives from the query: which relations, over which columns, and what a change evaluates.

use crate::support;

use std::sync::{Arc, Mutex};

use support::{TestDb, explain};

const BOOKS: &str = "
    create table authors (id int primary key, name text not null, bio text, country int);
    create table countries (id int primary key, name text not null);
    create table books (id int primary key, author int, title text not null, price int not null default 1);
    create table tags (id int primary key, book int not null, tag text not null);
    create table rates (id int primary key, at_least int not null, rate int not null);
    insert into countries values (1, 'UK'), (2, 'CZ');
    insert into authors values (1, 'Woolf', null, 1), (2, 'Kafka', null, 2);
    insert into books values (1, 1, 'The Waves'), (2, 2, 'The Trial'), (3, 2, 'The Castle'), (4, null, 'Beowulf');
    insert into rates values (1, 0, 1)";

fn declared(name: &str, query: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(BOOKS);
    db.run(&format!("select coco.create_flow('f', $q$ {query} $q$, key => '{{id}}')"));
    db.update("f", "normal");
    db
}

/// The derived and declared lookups: name, relation, key, whether derived, and `affects`.
fn lookups(db: &mut TestDb) -> Vec<String> {
    let sql = "select concat_ws('|', lookup, relation, key, derived, coalesce(affects, '-'))
                 from coco.lookups where flow = 'f' order by 1";
    let rows = db.client.query(sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
    rows.iter().map(|r| r.get(0)).collect()
}

fn evaluated(db: &mut TestDb, change: &str) -> i64 {
    db.run(change);
    let counts = db.update("f", "normal");
    db.verify_clean("f");
    counts.iter().map(|c| c.evaluated).sum()
}

/// Runs statements in another session, and returns the notices and warnings.
fn said(db: &TestDb, sql: &str) -> Vec<String> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = heard.clone();
    let mut client = db.connect_hearing(move |message| {
        into.lock().unwrap_or_else(|e| e.into_inner()).push(message);
    });
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    drop(client);
    heard.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

#[test]
fn a_join_by_a_primary_key_evaluates_the_items_of_the_row() {
    let mut db = declared(
        "derived_join",
        "select b.id, b.title || ', by ' || a.name as card from books b join authors a on a.id = b.author",
    );
    assert_eq!(
        lookups(&mut db),
        [
            "authors|authors|{id}|t|SELECT s.id FROM public.books AS s JOIN authors AS changed ON changed.id operator(pg_catalog.=) s.author"
        ]
    );
    assert_eq!(evaluated(&mut db, "update authors set name = 'Franz Kafka' where id = 2"), 2);
    assert_eq!(evaluated(&mut db, "update authors set bio = 'A bio.'"), 0);
    assert_eq!(evaluated(&mut db, "delete from authors where id = 1"), 1);
    assert_eq!(evaluated(&mut db, "insert into authors values (1, 'V. Woolf')"), 1);
}

#[test]
fn equalities_lead_over_several_relations() {
    let mut db = declared(
        "derived_hops",
        "select b.id, (select c.name from authors a join countries c on c.id = a.country where a.id = b.author) as country from books b",
    );
    assert_eq!(
        lookups(&mut db),
        [
            "authors|authors|{id}|t|SELECT s.id FROM public.books AS s JOIN authors AS changed ON changed.id operator(pg_catalog.=) s.author",
            "countries|countries|{id}|t|SELECT s.id FROM public.books AS s JOIN public.authors AS j1 ON j1.id operator(pg_catalog.=) s.author JOIN countries AS changed ON changed.id operator(pg_catalog.=) j1.country",
        ]
    );
    assert_eq!(evaluated(&mut db, "update countries set name = 'Czechia' where id = 2"), 2);
    assert_eq!(evaluated(&mut db, "update authors set country = 1 where id = 2"), 2);
    // Both ends change at once.
    let both = "begin; update countries set name = 'Albion' where id = 1; update authors set country = 2 where id = 1; commit";
    assert!(evaluated(&mut db, both) >= 1);
}

#[test]
fn the_old_and_the_new_value_of_a_column_count() {
    let mut db = declared(
        "derived_old_and_new",
        "select b.id, (select string_agg(t.tag, ' ' order by t.tag) from tags t where t.book = b.id) as tags from books b",
    );
    assert!(
        lookups(&mut db)[0].starts_with(
            "tags|tags|{book}|t|SELECT s.id FROM public.books AS s JOIN tags AS changed"
        )
    );
    assert_eq!(evaluated(&mut db, "insert into tags values (1, 3, 'long')"), 1);
    assert_eq!(evaluated(&mut db, "update tags set book = 1"), 2);
    assert_eq!(evaluated(&mut db, "delete from tags"), 1);
}

#[test]
fn rows_that_appear_and_disappear_on_a_nullable_side_count() {
    let mut db = declared(
        "derived_outer",
        "select b.id, a.name, not exists (select from tags t where t.book = b.id) as untagged
           from books b left join authors a on a.id = b.author",
    );
    assert_eq!(evaluated(&mut db, "delete from authors where id = 2"), 2);
    assert_eq!(evaluated(&mut db, "insert into authors values (2, 'Kafka')"), 2);
    assert_eq!(evaluated(&mut db, "insert into tags values (1, 4, 'old')"), 1);
    assert_eq!(evaluated(&mut db, "delete from tags"), 1);
}

#[test]
fn a_null_in_a_key_affects_nothing_and_stops_nothing() {
    let mut db = declared(
        "derived_null",
        "select a.id, (select count(*) from books b where b.author = a.id) as books from authors a",
    );
    assert!(lookups(&mut db)[0].starts_with("books|books|{author}|t|"));
    assert_eq!(evaluated(&mut db, "insert into books values (5, null, 'Edda')"), 0);
    assert_eq!(evaluated(&mut db, "update books set author = 1 where author is null"), 1);
    assert_eq!(evaluated(&mut db, "update books set author = null where id = 5"), 1);
    assert_eq!(evaluated(&mut db, "insert into books values (6, 2, 'Amerika')"), 1);
}

#[test]
fn what_cannot_be_derived_evaluates_every_item_and_is_said() {
    let db = {
        let mut db = TestDb::new("derived_every");
        db.run(BOOKS);
        db
    };
    let query = "select b.id, (select max(r.rate) from rates r where r.at_least <= b.price) as rate from books b";
    let notices = said(&db, &format!("select coco.create_flow('f', $q$ {query} $q$)"));
    assert_eq!(notices, ["each change of public.rates evaluates every item of flow \"f\""]);
    let mut db = db;
    db.update("f", "normal");
    assert_eq!(lookups(&mut db), ["rates|rates|{id}|t|-"]);
    assert_eq!(evaluated(&mut db, "update rates set rate = 2"), 4);
    // A declared lookup takes the place of the derived one, and stays.
    db.run("select coco.add_lookup('f', 'rates', affects => 'select b.id from rates r, books b where b.price >= 0 and r.id > 0')");
    let declared =
        "rates|rates|{id}|f|select b.id from rates r, books b where b.price >= 0 and r.id > 0";
    assert_eq!(lookups(&mut db), [declared]);
    db.run("select coco.set_query('f', null, 'select b.id, (select min(r.rate) from rates r where r.at_least <= b.price) as rate from books b')");
    assert_eq!(lookups(&mut db), [declared]);
}

#[test]
fn functions_over_columns_and_other_operators_are_not_relied_on() {
    for (name, condition) in [
        ("function", "lower(t.tag) = lower(b.title)"),
        ("inequality", "t.book < b.id"),
        ("either", "(t.book = b.id or t.tag = b.title)"),
        ("collated", "t.tag collate \"C\" = b.title"),
        ("computed", "t.book + 0 = b.id"),
    ] {
        let mut db = declared(
            &format!("derived_not_{name}"),
            &format!(
                "select b.id, (select count(*) from tags t where {condition}) as n from books b"
            ),
        );
        assert_eq!(lookups(&mut db), ["tags|tags|{id}|t|-"], "{condition}");
    }
}

#[test]
fn the_lookups_follow_the_query() {
    let mut db = declared(
        "derived_again",
        "select b.id, a.name from books b left join authors a on a.id = b.author",
    );
    assert!(lookups(&mut db)[0].starts_with("authors|"));
    db.run("select coco.set_query('f', null, 'select b.id, (select count(*) from tags t where t.book = b.id)::text as name from books b')");
    let found = lookups(&mut db);
    assert!(found.len() == 1 && found[0].starts_with("tags|tags|{book}|t|"), "{found:?}");
    db.update("f", "normal");
    assert_eq!(evaluated(&mut db, "insert into tags values (1, 2, 'dark')"), 1);
    assert_eq!(evaluated(&mut db, "update authors set name = 'X'"), 0);
    db.run("select coco.set_query('f', null, 'select b.id, b.title as name from books b')");
    assert!(lookups(&mut db).is_empty());
    let left: i64 = db
        .client
        .query_one("select count(*) from coco_internal.capture where relation in ('tags'::regclass, 'authors'::regclass)", &[])
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

#[test]
fn a_table_that_is_both_the_item_and_read_as_a_whole_is_a_lookup_too() {
    let mut db = declared(
        "derived_self",
        "select b.id, (select count(*) from books o where o.author = b.author) as by_author from books b",
    );
    let found = lookups(&mut db);
    assert!(found.len() == 1 && found[0].starts_with("books_2|books|{author}|t|SELECT s.id FROM public.books AS s JOIN books_2 AS changed ON"), "{found:?}");
    // The other book of the author is evaluated with the new one.
    assert_eq!(evaluated(&mut db, "insert into books values (7, 1, 'Orlando')"), 2);
    assert_eq!(evaluated(&mut db, "delete from books where id = 7"), 1);
}

#[test]
fn a_view_is_followed_by_reading_it() {
    let mut db = TestDb::new("derived_view");
    db.run(BOOKS);
    db.run("create view names as select id, name from authors");
    let query = "select b.id, n.name from books b left join names n on n.id = b.author";
    let notices =
        said(&db, &format!("select coco.create_flow('f', $q$ {query} $q$, key => '{{id}}')"));
    assert!(
        notices.contains(&"each update reads public.names as a whole".to_owned()),
        "{notices:?}"
    );
    db.update("f", "normal");
    assert_eq!(evaluated(&mut db, "update authors set name = 'Franz' where id = 2"), 2);
}

#[test]
fn a_call_that_names_everything_derives_only_on_request() {
    let mut db = TestDb::new("derived_request");
    db.run(BOOKS);
    let call = |more: &str| {
        format!(
            "select coco.create_flow('f', 'books', 'select b.id, a.name from books b join authors a on a.id = b.author', 'f', '{{id}}'{more})"
        )
    };
    let notices = said(&db, &call(""));
    assert_eq!(notices, ["the query reads public.authors, which is not a source of flow \"f\""]);
    assert!(lookups(&mut db).is_empty());
    let changes = |db: &mut TestDb| -> Vec<String> {
        let sql = call(", lookups => 'derive'")
            .replace("select coco.create_flow", "select object || ' ' || change from coco.plan");
        let rows = db.client.query(&sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
        rows.iter().map(|r| r.get(0)).collect()
    };
    assert_eq!(changes(&mut db), ["flow lookups none becomes derive"]);
    db.run(&call(", lookups => 'derive', or_replace => true"));
    assert!(lookups(&mut db)[0].starts_with("authors|"));
    assert!(changes(&mut db).is_empty());
    db.run(&call(", or_replace => true"));
    assert!(lookups(&mut db).is_empty());
    let e = db.client.batch_execute(&call(", lookups => 'all'")).unwrap_err();
    assert!(
        explain(&e).contains("unrecognized value for argument \"lookups\": \"all\""),
        "{}",
        explain(&e)
    );
}

#[test]
fn a_definition_declares_the_same_lookups() {
    let mut db = declared(
        "derived_defined",
        "select b.id, a.name, (select max(r.rate) from rates r where r.at_least <= b.price) as rate
           from books b left join authors a on a.id = b.author",
    );
    let definition = |db: &mut TestDb| -> String {
        db.client.query_one("select coco.flow_definition('f')", &[]).unwrap().get(0)
    };
    let (before, was) = (definition(&mut db), lookups(&mut db));
    assert!(before.contains("lookups => 'derive'") && !before.contains("add_lookup"), "{before}");
    db.run("select coco.drop_flow('f')");
    db.run(&before);
    assert_eq!((definition(&mut db), lookups(&mut db)), (before, was));
    // With a declared lookup, the parts are declared one by one.
    db.run("select coco.add_lookup('f', 'rates')");
    let (before, was) = (definition(&mut db), lookups(&mut db));
    assert!(before.contains("add_lookup") && before.contains("lookups => 'derive'"), "{before}");
    db.run("select coco.drop_flow('f')");
    db.run(&before);
    assert_eq!((definition(&mut db), lookups(&mut db)), (before, was));
}

#[test]
fn explain_says_what_was_derived() {
    let mut db = declared(
        "derived_explained",
        "select b.id, a.name, (select max(r.rate) from rates r where r.at_least <= b.price) as rate
           from books b left join authors a on a.id = b.author",
    );
    let sql = "select name || ': ' || replace(detail, E'\\n', ' ') from coco.explain('f') where section = 'derived'";
    let rows = db.client.query(sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
    let all: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    assert_eq!(all.len(), 3, "{all:#?}");
    assert_eq!(
        all[0],
        "books: public.books is the source: the columns (id) of the query are its key (id)"
    );
    assert!(
        all[1].starts_with(
            "authors: public.authors is a lookup: equalities of the query lead from (id)"
        ),
        "{all:#?}"
    );
    assert!(
        all[2]
            .starts_with("rates: public.rates is a lookup of which each change affects every item"),
        "{all:#?}"
    );
}

#[test]
fn a_flow_that_derives_lookups_has_one_source() {
    let mut db = TestDb::new("derived_sources");
    db.run(BOOKS);
    db.run(
        "select coco.create_flow('f', lookups => 'derive'); select coco.add_source('f', 'books')",
    );
    let e = db.client.batch_execute("select coco.add_source('f', 'authors')").unwrap_err();
    assert!(
        explain(&e).contains("cannot derive the lookups of flow \"f\", which has several sources"),
        "{}",
        explain(&e)
    );
}

#[test]
fn a_new_version_derives_lookups_of_its_own() {
    let mut db = declared(
        "derived_version",
        "select b.id, a.name from books b left join authors a on a.id = b.author",
    );
    db.run("select coco.set_query('f', null, 'select b.id, (select max(t.tag) from tags t where t.book = b.id) as name from books b', gapless => true, swap => 'manual')");
    let of_version =
        "select string_agg(relation::text, ',') from coco.lookups where flow = 'f@new'";
    let relations: String = db.client.query_one(of_version, &[]).unwrap().get(0);
    assert_eq!(relations, "tags");
    assert!(lookups(&mut db)[0].starts_with("authors|"));
    db.run("select coco.discard('f')");
    assert_eq!(evaluated(&mut db, "update authors set name = 'Franz' where id = 2"), 2);
}
