//! Rights, passwords and TLS.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::remote_db::{DrivenTarget, RemoteDb, access, connector};
use super::{SECRET, over, proxy};
use super::{delivery_error, docs, said};
use crate::support::server::Server;
use coco_connectors::targets::Prepared;
use coco_connectors::targets::options::Access;
use coco_core::change::{DeliveryError, ErrorScope};

#[test]
fn row_level_security_is_obeyed() {
    let mut remote = RemoteDb::new("security");
    remote.sql.run(
        "create role guarded login;
         create table docs (id bigint primary key, title text, price numeric(10,2));
         alter table docs enable row level security;
         create policy mine on docs to guarded using (id < 100) with check (id < 100);
         grant all on docs to guarded",
    );
    let mut access = remote.access();
    access.user.0.insert("user".to_owned(), "guarded".to_owned());
    let mut docs = remote.open_with(access, &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    docs.applied(&remote.rows(&docs.schema, "values (1, 'x', 1)"));
    docs.applied(&remote.rows(&docs.schema, "values (1, 'y', 1), (2, 'z', 2)"));
    assert_eq!(remote.sql.rows("select title from docs order by id"), ["y", "z"]);
    let outside = delivery_error(docs.apply(&remote.rows(&docs.schema, "values (100, 'x', 1)")));
    assert_eq!((outside.scope, outside.sqlstate.as_str()), (ErrorScope::Target, "42501"));
    drop(docs);
    remote.sql.run("drop owned by guarded; drop role guarded");
}

#[test]
fn rights_that_are_missing_are_named() {
    let mut remote = RemoteDb::new("rights_there");
    remote.sql.run(
        "create role \"Poor one\" login;
         revoke all on schema public from public;
         revoke temporary on database rights_there from public",
    );
    let mut access = remote.access();
    access.user.0.insert("user".to_owned(), "Poor one".to_owned());
    let prepare = || remote.open_with(access.clone(), &docs()).and_then(|mut docs| docs.prepare());
    let mut sql = remote.server.connect(&remote.name);
    let mut lacks = |grant: &str, scope: ErrorScope, sqlstate: &str, says: &str| {
        sql.run(grant);
        let found = delivery_error(prepare());
        assert_eq!((found.scope, found.sqlstate.as_str()), (scope, sqlstate), "{found:?}");
        assert!(said(&found).contains(says), "{found:?}");
    };
    lacks("select", ErrorScope::Target, "3F000", "no schema");
    lacks("grant usage on schema public to \"Poor one\"", ErrorScope::Target, "42501", "GRANT");
    lacks(
        "create table docs (id bigint primary key, title text, price numeric(10,2))",
        ErrorScope::Target,
        "42501",
        "GRANT SELECT, INSERT, UPDATE, DELETE",
    );
    lacks(
        "grant all on docs to \"Poor one\"",
        ErrorScope::Server,
        "42501",
        "GRANT TEMPORARY ON DATABASE rights_there TO \\\"Poor one\\\"",
    );
    sql.run("grant temporary on database rights_there to \"Poor one\"");
    assert_eq!(prepare(), Ok(Prepared::Found));
    sql.run("drop owned by \"Poor one\"; drop role \"Poor one\"");
}

/// A server that requires a password from all roles except `postgres` and `open_door`.
fn asking(settings: &[&str]) -> (Arc<Server>, RemoteDb) {
    let server = Arc::new(Server::start(settings));
    let rules =
        "local all postgres trust\nlocal all open_door trust\nlocal all all scram-sha-256\n";
    fs::write(server.directory().join("data/pg_hba.conf"), rules).expect("pg_hba.conf is written");
    server.reload(&[]);
    let mut remote = RemoteDb::on(server.clone(), "asking");
    remote.sql.run(&format!(
        "create role ada login password '{}'; create role open_door login;
         grant all on schema public to ada, open_door",
        SECRET.replace('\'', "''")
    ));
    (server, remote)
}

fn as_user(
    remote: &RemoteDb,
    user: &[(&str, &str)],
    trusted: bool,
) -> Result<DrivenTarget, DeliveryError> {
    let server = remote.access().server;
    let Access { user, .. } = access(&[], user, trusted);
    remote.open_with(Access { server, user, trusted }, &docs())
}

#[test]
fn who_is_no_superuser_must_prove_who_they_are() {
    let (_server, remote) = asking(&[]);
    let prepared = |user: &[(&str, &str)], trusted| as_user(&remote, user, trusted)?.prepare();
    // Authenticated by the password.
    let ada = [("user", "ada"), ("password", SECRET)];
    assert_eq!(prepared(&ada, false), Ok(Prepared::Made));
    assert_eq!(prepared(&ada, true), Ok(Prepared::Found));
    // Without a password, there is no attempt; with one that the server does not ask for, the login
    // is rejected.
    let without = delivery_error(as_user(&remote, &[("user", "open_door")], false));
    assert_eq!((without.scope, without.sqlstate.as_str()), (ErrorScope::Server, "2F003"));
    for user in ["open_door", "postgres"] {
        let unasked = delivery_error(prepared(&[("user", user), ("password", SECRET)], false));
        assert_eq!((unasked.scope, unasked.sqlstate.as_str()), (ErrorScope::Server, "2F003"));
        assert!(unasked.hint.as_ref().is_some_and(|h| h.contains("password_required")));
        assert!(!said(&unasked).contains(SECRET));
    }
    // Except for roles that a superuser has exempted, and superusers.
    assert_eq!(
        prepared(&[("user", "postgres"), ("password_required", "false")], false),
        Ok(Prepared::Found)
    );
    assert_eq!(prepared(&[("user", "postgres")], true), Ok(Prepared::Found));
    let required = connector().options.iter().find(|s| s.name == "password_required");
    assert!(required.is_some_and(|s| s.superuser && (s.check)("maybe").is_err()));
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let (server, mut remote) = asking(&[]);
    let prepared = |user: &[(&str, &str)]| as_user(&remote, user, true)?.prepare();
    for (user, sqlstate) in [
        (&[("user", "ada"), ("password", "wr0ng secret")][..], "28P01"),
        (&[("user", "nobody there"), ("password", "wr0ng secret")], "28P01"),
        (&[("user", "ada")], "28000"),
    ] {
        let found = delivery_error(prepared(user));
        assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, sqlstate));
        assert!(found.hint.is_some() && !said(&found).contains("wr0ng"), "{found:?}");
        let untrusted = delivery_error(as_user(&remote, user, false).and_then(|mut t| t.prepare()));
        assert!(!said(&untrusted).contains("wr0ng"), "{untrusted:?}");
    }
    let mut elsewhere = remote.access();
    elsewhere.server.0.insert("dbname".to_owned(), "no such database".to_owned());
    let found = delivery_error(remote.open_with(elsewhere, &docs()).and_then(|mut t| t.prepare()));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, "3D000"));
    let full = as_user(&remote, &[("user", "ada"), ("password", SECRET)], true);
    remote.sql.run("alter role ada connection limit 0");
    let full = delivery_error(full.and_then(|mut t| t.prepare()));
    assert_eq!((full.scope, full.sqlstate.as_str()), (ErrorScope::Server, "53300"));
    // The password is not in the server's log either, as far as coco can influence it.
    assert!(!server.log().contains(SECRET) || server.log().matches(SECRET).count() == 0);
}

#[test]
fn a_session_says_who_it_is_and_leaves_durability_alone() {
    let mut remote = RemoteDb::new("sessions");
    remote.sql.run(
        "alter database sessions set synchronous_commit = remote_write;
         alter database sessions set default_transaction_read_only = on;
         alter database sessions set standard_conforming_strings = off;
         set default_transaction_read_only = off;
         create table docs (id bigint primary key, title text, price numeric(10,2));
         create function note() returns trigger language plpgsql as $$
           begin
             new.title = concat_ws('|', current_setting('application_name'), current_setting('search_path'),
               current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
               current_setting('synchronous_commit'));
             return new;
           end $$;
         create trigger note before insert on docs for each row execute function note()",
    );
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "values (1, 'x', 1)"));
    assert_eq!(
        remote.sql.rows("select title from docs"),
        ["coco|pg_catalog, pg_temp|20s|20s|remote_write"]
    );
    // Dropping a target closes its session.
    let sessions = "select count(*) from pg_stat_activity where application_name = 'coco' and datname = 'sessions'";
    assert_eq!(remote.sql.number(sessions), 1);
    drop(docs);
    remote.sql.until(&format!("select ({sessions}) = 0"));
}

#[test]
fn tls_is_as_sslmode_says() {
    let remote = RemoteDb::new("tls");
    let authority = proxy::Authority::new();
    let (pem, other) = (authority.pem(), proxy::Authority::new().pem());
    let here = proxy::tls(&remote, &authority, "127.0.0.1");
    let elsewhere = proxy::tls(&remote, &authority, "db.example.com");
    let plain = proxy::slow(&remote, Arc::new(AtomicU64::new(0)));
    let prepared = |address, options: &[(&str, &str)]| {
        remote
            .open_with(over(&remote, address, options), &docs())
            .and_then(|mut t| t.prepare())
            .map(|_| ())
    };
    let pem = pem.as_str();
    for (address, options) in [
        (here, &[("sslmode", "prefer")][..]),
        (here, &[("sslmode", "require")]),
        (here, &[("sslmode", "require"), ("sslrootcert", pem)]),
        (here, &[("sslmode", "verify-ca"), ("sslrootcert", pem)]),
        (here, &[("sslmode", "verify-full"), ("sslrootcert", pem)]),
        (elsewhere, &[("sslmode", "verify-ca"), ("sslrootcert", pem)]),
        (plain, &[("sslmode", "prefer")]),
        (plain, &[("sslmode", "disable")]),
    ] {
        assert_eq!(prepared(address, options), Ok(()), "{options:?}");
    }
    for (address, options, says) in [
        (elsewhere, &[("sslmode", "verify-full"), ("sslrootcert", pem)][..], "not valid for name"),
        (here, &[("sslmode", "verify-full"), ("sslrootcert", &other)], "certificate"),
        (here, &[("sslmode", "verify-ca"), ("sslrootcert", &other)], "certificate"),
        (here, &[("sslmode", "require"), ("sslrootcert", &other)], "certificate"),
        // Without sslrootcert, only the system's certificates are trusted.
        (here, &[("sslmode", "verify-full")], "certificate"),
        (plain, &[("sslmode", "require")], "does not support TLS"),
        (plain, &[("sslmode", "verify-full"), ("sslrootcert", pem)], "does not support TLS"),
    ] {
        let found = delivery_error(prepared(address, options));
        assert_eq!(
            (found.scope, found.sqlstate.as_str()),
            (ErrorScope::Server, "08001"),
            "{found:?}"
        );
        assert!(said(&found).contains(says) && !said(&found).contains(SECRET), "{found:?}");
    }
    let useless = delivery_error(prepared(here, &[("sslmode", "prefer"), ("sslrootcert", pem)]));
    assert_eq!(useless.sqlstate, "HV024");
}

#[test]
fn options_show_no_secrets() {
    let secret: Vec<&str> =
        connector().options.iter().filter(|s| s.secret).map(|s| s.name).collect();
    assert_eq!(secret, ["password"]);
    let access = access(&[("host", "db")], &[("user", "ada"), ("password", SECRET)], false);
    assert!(!format!("{access:?}").contains(SECRET));
    for spec in connector().options {
        assert!(spec.description.ends_with('.'), "{}", spec.name);
        // The text of a check contains no value.
        if let Err(said) = (spec.check)("x\0@SECRET") {
            assert!(!said.contains("SECRET"), "{}", spec.name);
        }
    }
}
