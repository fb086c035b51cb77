//! Tables that are found there, and tables that change.

use super::remote_db::{RemoteDb, schema};
use super::{DOCS, delivery_error, docs, said};
use crate::support::server::comes;
use coco_connectors::targets::Prepared;
use coco_core::change::ErrorScope;

#[test]
fn a_table_that_does_not_fit_is_told_apart() {
    let mut remote = RemoteDb::new("not_fit");
    let mut refuses = |definition: &str, sqlstate: &str, says: &str| {
        remote.sql.run(&format!("drop table if exists docs cascade; {definition}"));
        let found = delivery_error(remote.open(&docs()).prepare());
        assert_eq!(
            (found.scope, found.sqlstate.as_str()),
            (ErrorScope::Target, sqlstate),
            "{definition}"
        );
        assert!(said(&found).contains(says), "{definition}: {}", said(&found));
        assert!(found.hint.is_some(), "{definition}");
    };
    refuses(
        "create table docs (id bigint primary key, title text)",
        "42804",
        "no column \\\"price\\\" numeric(10,2)",
    );
    refuses(
        "create table docs (id integer primary key, title text, price numeric(10,2))",
        "42804",
        "\\\"id\\\" is integer, the query gives bigint",
    );
    // Such a column would silently round.
    refuses(
        "create table docs (id bigint primary key, title text, price numeric(10,1))",
        "42804",
        "is numeric(10,1), the query gives",
    );
    refuses(
        "create table docs (id bigint unique, title text, price numeric(10,2))",
        "42804",
        "\\\"id\\\" is nullable",
    );
    refuses(
        "create table docs (id bigint primary key, title text, price numeric(10,2), x text not null)",
        "42804",
        "\\\"x\\\" is not null",
    );
    refuses(
        "create table docs (id bigint primary key, title text generated always as ('x') stored, price numeric(10,2))",
        "42804",
        "\\\"title\\\" is generated",
    );
    refuses(
        "create table docs (id bigint not null, title text not null, price numeric(10,2), primary key (id, title))",
        "42P16",
        "ADD PRIMARY KEY (\\\"id\\\")",
    );
    refuses(
        "create table docs (id bigint not null, title text, price numeric(10,2)); create unique index on docs (id) where id > 0",
        "42P16",
        "no unique index",
    );
    refuses(
        "create table docs (id bigint primary key deferrable, title text, price numeric(10,2))",
        "42P16",
        "deferrable",
    );
    refuses(
        "create view docs as select 1 as id, ''::text as title, 1::numeric(10,2) as price; create table x ()",
        "42809",
        "not a table",
    );
}

#[test]
fn a_table_that_fits_is_taken_as_it_is() {
    let mut remote = RemoteDb::new("adopted");
    remote.sql.run(
        "create table docs (extra text default 'x', price numeric, title text,
                            n integer generated always as identity, id bigint not null);
         create unique index on docs (id) include (title);
         insert into docs (id, title) values (1, 'theirs'), (7, 'stays')",
    );
    let mut docs = remote.open(&docs());
    assert_eq!(docs.prepare(), Ok(Prepared::Found));
    docs.applied(&remote.rows(&docs.schema, "values (1, 'ours', 1.25), (2, 'two', 2)"));
    assert_eq!(
        remote.sql.rows("select row(id, title, price, extra)::text from docs order by id"),
        ["(1,ours,1.25,x)", "(2,two,2.00,x)", "(7,stays,,x)"]
    );
}

#[test]
fn a_partitioned_table_takes_rows() {
    let mut remote = RemoteDb::new("partitioned");
    remote.sql.run(
        "create table docs (price numeric(10,2), title text, id bigint primary key) partition by range (id);
         create table low partition of docs for values from (0) to (10);
         create table high (id bigint not null, price numeric(10,2), title text);
         alter table docs attach partition high for values from (10) to (20)",
    );
    let mut docs = remote.ready(&docs());
    let query = "select n, 'a', n from generate_series(8, 12) n";
    docs.applied(&remote.rows(&docs.schema, query));
    docs.applied(&remote.rows(&docs.schema, &query.replace("'a'", "'b'")));
    docs.applied(&remote.deletions(&docs.schema, "values (9), (11)"));
    let rows = remote.rows(&docs.schema, "values (5, 'c', 1), (99, 'nowhere', 1), (15, 'c', 1)");
    let rejected = docs.apply(&rows).expect("the others arrive");
    assert_eq!(rejected.iter().map(|r| r.change).collect::<Vec<_>>(), [1]);
    assert_eq!(
        remote.sql.rows("select id || title from docs order by id"),
        ["5c", "8b", "10b", "12b", "15c"]
    );
}

#[test]
fn a_table_that_changes_meanwhile_is_looked_at_again() {
    let mut remote = RemoteDb::new("changes");
    let times = schema("times", &[("id", "bigint"), ("at", "bigint")], &["id"]);
    let mut target = remote.ready(&times);
    target.applied(&remote.rows(&times, "values (1, 1)"));
    // A type as long as bigint: a copy would accept one for the other.
    remote.sql.run("alter table times alter at type timestamptz using to_timestamp(at)");
    let rows = remote.rows(&times, "values (2, 2)");
    let altered = delivery_error(target.apply(&rows));
    assert_eq!((altered.scope, altered.sqlstate.as_str()), (ErrorScope::Target, "55000"));
    assert_eq!(delivery_error(remote.open(&times).prepare()).sqlstate, "42804");

    remote.sql.run("drop table times");
    let mut target = remote.ready(&times);
    target.applied(&rows);
    remote.sql.run("drop table times");
    let dropped = delivery_error(target.apply(&rows));
    assert_eq!((dropped.scope, dropped.sqlstate.as_str()), (ErrorScope::Target, "42P01"));
    let mut target = remote.open(&times);
    assert_eq!(target.prepare(), Ok(Prepared::Made));
    target.applied(&rows);
    remote.sql.run("alter table times rename to old; create table times (like old including all)");
    assert_eq!(delivery_error(target.apply(&rows)).sqlstate, "55000");
    assert_eq!(remote.sql.number("select count(*) from times"), 0);
}

#[test]
fn what_others_need_is_not_removed() {
    let mut remote = RemoteDb::new("needed");
    let mut docs = remote.ready(&docs());
    remote.sql.run("create view titles as select title from docs");
    let needed = delivery_error(docs.remove());
    assert_eq!((needed.scope, needed.sqlstate.as_str()), (ErrorScope::Target, "2BP01"));
    assert!(needed.detail.is_some_and(|d| d.contains("titles")));
    remote.sql.run("drop view titles");
    // By a session without `prepare`, and without the schema.
    remote.open(&docs.schema).remove().expect("it goes");
    remote.open(&schema("nowhere.docs", &DOCS, &["id"])).remove().expect("nothing there");
    assert!(remote.sql.holds("select to_regclass('docs') is null"));
}

#[test]
fn changes_come_only_after_it_is_prepared() {
    let remote = RemoteDb::new("unprepared");
    let early = delivery_error(remote.open(&docs()).apply(&[]));
    assert_eq!((early.scope, early.sqlstate.as_str()), (ErrorScope::Target, "55000"));
    assert!(comes(std::time::Duration::ZERO, || true));
}
