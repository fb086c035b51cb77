//! Servers that go, are slow or silent, and others in the way.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::remote_db::{RemoteDb, access};
use super::{ALL_DOCS, delivery_error, docs, said};
use super::{SECRET, over, proxy};
use crate::support::server::{Server, Stop};
use coco_connectors::targets::options::Access;
use coco_core::change::ErrorScope;

#[test]
fn who_cannot_be_reached_is_the_servers_trouble() {
    let remote = RemoteDb::new("unreached");
    let prepared = |access: Access| remote.open_with(access, &docs()).and_then(|mut t| t.prepare());
    // A port that was just free, a host that does not exist, and a server that sends nothing.
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("it");
    let silent = proxy::silent(&remote);
    let unknown =
        access(&[("host", "no-such-host.invalid")], &[("user", "x"), ("password", SECRET)], true);
    let no_socket =
        access(&[("host", "/nowhere at all")], &[("user", "x"), ("password", SECRET)], true);
    for access in [
        over(&remote, free, &[]),
        over(&remote, silent, &[("connect_timeout", "1")]),
        unknown,
        no_socket,
    ] {
        let found = delivery_error(prepared(access));
        assert_eq!(
            (found.scope, found.sqlstate.as_str()),
            (ErrorScope::Server, "08001"),
            "{found:?}"
        );
        assert!(found.hint.is_some() && !said(&found).contains(SECRET), "{found:?}");
    }
}

#[test]
fn a_server_that_goes_and_comes_back() {
    let server = Arc::new(Server::start(&[]));
    let remote = RemoteDb::on(server.clone(), "comes_back");
    let mut docs = remote.ready(&docs());
    let one = remote.rows(&docs.schema, "values (1, 'one', 1)");
    let two = remote.rows(&docs.schema, "values (1, 'eins', 1), (2, 'two', 2)");
    docs.applied(&one);
    server.stop(Stop::Immediate);
    let lost = delivery_error(docs.apply(&two));
    assert_eq!(lost.scope, ErrorScope::Server);
    assert!(["08006", "57P01", "57P02"].contains(&lost.sqlstate.as_str()), "{lost:?}");
    let gone = delivery_error(remote.open(&docs.schema).prepare());
    assert_eq!((gone.scope, gone.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    server.start_again();
    let mut docs = remote.ready(&docs.schema);
    docs.applied(&two);
    assert_eq!(server.connect("comes_back").rows(ALL_DOCS), ["(1,eins,1.00)", "(2,two,2.00)"]);
}

#[test]
fn a_standby_takes_nothing() {
    let server = Arc::new(Server::start(&["max_wal_senders = 4", "wal_level = replica"]));
    let mut remote = RemoteDb::on(server.clone(), "standby_there");
    remote.sql.run("create table docs (id bigint primary key, title text, price numeric(10,2))");
    let standby = server.standby();
    let mut access = remote.access();
    access.server.0.insert("host".to_owned(), standby.directory().display().to_string());
    let mut docs = remote.open_with(access, &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    let found = delivery_error(docs.apply(&remote.rows(&docs.schema, "values (1, 'x', 1)")));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, "25006"), "{found:?}");
    assert!(found.hint.is_some_and(|h| h.contains("primary")));
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_not_for_ever() {
    let mut remote = RemoteDb::new("slow");
    let delay = Arc::new(AtomicU64::new(150));
    let address = proxy::slow(&remote, delay.clone());
    let access = over(&remote, address, &[("statement_timeout", "1"), ("connect_timeout", "30")]);
    let mut docs = remote.open_with(access.clone(), &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    let rows = remote.rows(&docs.schema, "values (1, 'one', 1)");
    docs.applied(&rows);
    docs.applied(&rows);
    delay.store(3_600_000, Ordering::Relaxed);
    let newer = remote.rows(&docs.schema, "values (1, 'newer', 1)");
    let found = delivery_error(docs.apply(&newer));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, "08006"), "{found:?}");
    assert!(found.hint.is_some_and(|h| h.contains("statement_timeout")));
    drop(docs);
    // Another session succeeds when the first has released its lock.
    remote.ready(&self::docs()).applied(&newer);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,newer,1.00)"]);
}

#[test]
fn a_lock_is_waited_for_until_the_statements_time_is_over() {
    let mut remote = RemoteDb::new("locked");
    let mut access = remote.access();
    access.server.0.insert("statement_timeout".to_owned(), "1".to_owned());
    let mut docs = remote.open_with(access.clone(), &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    let rows = remote.rows(&docs.schema, "values (1, 'one', 1)");
    remote.sql.run("begin; lock table docs in exclusive mode");
    let found = delivery_error(docs.apply(&rows));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "57014"), "{found:?}");
    assert!(found.hint.is_some_and(|h| h.contains("pg_locks")));
    // Released in time.
    let mut docs = remote.open(&docs.schema);
    std::thread::scope(|scope| {
        remote.sql.run("commit");
        docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
        remote.sql.run("begin; lock table docs in exclusive mode");
        let applied = scope.spawn(|| docs.applied(&rows));
        let mut watch = remote.server.connect(&remote.name);
        watch.until("select exists (select from pg_locks where not granted and relation = 'docs'::regclass)");
        remote.sql.run("commit");
        applied.join().expect("it arrives");
    });
    assert_eq!(remote.sql.number("select count(*) from docs"), 1);
}

#[test]
fn a_batch_that_is_cut_off_in_the_middle_is_applied_again() {
    let mut remote = RemoteDb::new("cut_off");
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "values (1, 'old', 1), (2, 'old', 1)"));
    // The third row ends the session, after this many other rows.
    remote.sql.run(
        "create function cut() returns trigger language plpgsql as $$
           begin
             if new.id = 3 then perform pg_terminate_backend(pg_backend_pid()); end if;
             return new;
           end $$;
         create trigger cut before insert on docs for each row execute function cut()",
    );
    let mut all = remote.rows(&docs.schema, "select n, 'new', n from generate_series(2, 50) n");
    all.extend(remote.deletions(&docs.schema, "values (1)"));
    let fresh = remote.rows(&docs.schema, "select n, 'new', n from generate_series(3, 50) n");
    for changes in [&all, &fresh] {
        let mut docs = remote.ready(&docs.schema);
        let cut = delivery_error(docs.apply(changes));
        assert_eq!((cut.scope, cut.sqlstate.as_str()), (ErrorScope::Server, "57P01"), "{cut:?}");
        assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,old,1.00)", "(2,old,1.00)"]);
    }
    remote.sql.run("drop trigger cut on docs");
    let mut docs = remote.ready(&docs.schema);
    docs.applied(&all);
    assert_eq!(remote.sql.number("select count(*) from docs where title = 'new'"), 49);
    assert_eq!(remote.sql.number("select count(*) from docs"), 49);
}

#[test]
fn what_others_are_in_the_way_of_is_tried_again() {
    let mut remote = RemoteDb::new("contended");
    // A sequence also counts rolled-back rows.
    remote.sql.run(
        "create table docs (id bigint primary key, title text, price numeric(10,2));
         create sequence attempt;
         create function contend() returns trigger language plpgsql as $$
           begin
             if nextval('public.attempt') <= new.price then
               raise exception 'in the way' using errcode = 'serialization_failure';
             end if;
             return null;
           end $$;
         create trigger contend after insert on docs for each row execute function contend()",
    );
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "values (1, 'x', 2)"));
    assert_eq!(remote.sql.number("select last_value from attempt"), 3);
    let found = delivery_error(docs.apply(&remote.rows(&docs.schema, "values (2, 'x', 99)")));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "40001"));
    assert_eq!(remote.sql.rows("select id from docs"), ["1"]);
}
