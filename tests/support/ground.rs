//! A server with an attacker, two other roles, and a flow of one of them that must go on whatever the attacker does.
#![allow(dead_code)] // each file of tests uses a part

use crate::support::explain;
use crate::support::server::{Server, Session};

/// What a role sees of flows, and must see in spite of anybody's broken flow.
pub const VIEWS: [&str; 13] = [
    "flows",
    "sources",
    "lookups",
    "targets",
    "tracking",
    "errors",
    "functions",
    "kept_results",
    "workers",
    "progress",
    "delivery_status",
    "status",
    "metrics",
];

pub const DATABASE: &str = "ground";

pub struct Ground {
    pub server: Server,
    /// The superuser that has created the extension.
    pub admin: Session,
    changes: usize,
}

impl Ground {
    /// Each role has a schema of its own and may use schema `coco`, and has no other right.
    pub fn new() -> Ground {
        let server = Server::preloaded(&[]);
        let mut admin = server.database(DATABASE);
        admin.run(
            "create role mallory login; create role app login; create role bob login;
             grant usage on schema coco to mallory, app, bob;
             create schema mal authorization mallory; create schema app authorization app; create schema bob authorization bob;
             alter role mallory set search_path = mal, public; alter role app set search_path = app, public; alter role bob set search_path = bob, public",
        );
        let ground = Ground { server, admin, changes: 0 };
        ground.role("app").run(
            "create table people (id int primary key, name varchar not null); insert into people values (1, 'Ada');
             create table private (s text); insert into private values ('the secret of app');
             select coco.create_flow('bystander', 'people', 'select id, upper(name) as name from people', 'app.names', '{id}');
             select * from coco.update('bystander')",
        );
        ground
    }

    /// A session of a role, in which nothing takes for ever.
    pub fn role(&self, role: &str) -> Session {
        let mut session = self.server.connect_as(DATABASE, role);
        session.run("set statement_timeout = '30s'; set lock_timeout = '20s'");
        session
    }

    /// Runs statements of one session of a role, and returns what each that fails says. An internal error is never a refusal.
    pub fn attempt(&self, role: &str, statements: &[&str]) -> Vec<String> {
        let mut session = self.role(role);
        attempt_in(&mut session, statements)
    }

    /// Fails where somebody has gained a right, a process has ended by a signal, or another role's flow or views do not
    /// go on.
    pub fn unharmed(&mut self) {
        self.alive();
        let supers =
            "select count(*) from pg_roles where rolsuper or rolcreaterole or rolbypassrls";
        assert_eq!(self.admin.number(supers), 1, "somebody else is superuser");
        let members = "select count(*) from pg_auth_members where member::regrole::text in ('mallory', 'bob', 'app')";
        assert_eq!(self.admin.number(members), 0, "somebody has become a member of a role");
        self.views_answer(&["postgres", "app", "bob", "mallory"]);
        self.changes += 1;
        let mut app = self.role("app");
        app.run(&format!(
            "insert into people values ({}, 'new'); select * from coco.update('bystander')",
            self.changes + 100
        ));
        app.verify("bystander");
        assert_eq!(
            app.text("select (select count(*) from people) - (select count(*) from names)"),
            "0",
            "the flow of another role does not go on"
        );
        assert_eq!(
            app.text("select coalesce(string_agg(last_error, '; '), 'none') from coco.status"),
            "none"
        );
        self.alive();
    }

    /// Fails where a process has ended by a signal, or something has panicked.
    pub fn alive(&self) {
        let log = self.server.log();
        let bad = ["terminated by signal", "PANIC:", "panicked at", "reinitializing"];
        let found: Vec<&str> = log.lines().filter(|l| bad.iter().any(|b| l.contains(b))).collect();
        assert!(found.is_empty(), "the server's log says:\n{}", found.join("\n"));
    }

    /// Fails where a view of flows, or the report, raises an error or waits.
    pub fn views_answer(&self, roles: &[&str]) {
        for role in roles {
            let mut session = self.role(role);
            session.run("set lock_timeout = '3s'");
            for view in VIEWS {
                if let Err(e) = session.0.batch_execute(&format!("select * from coco.{view}")) {
                    panic!("coco.{view} does not answer {role}: {}", explain(&e));
                }
            }
            if let Err(e) = session.0.batch_execute("select coco.report(), coco.diagram()") {
                panic!("coco.report() does not answer {role}: {}", explain(&e));
            }
        }
    }
}

pub fn attempt_in(session: &mut Session, statements: &[&str]) -> Vec<String> {
    let mut refused = Vec::new();
    for sql in statements {
        match session.0.batch_execute(sql) {
            Ok(()) => {}
            Err(e) => {
                let said = explain(&e);
                let code = e.code().map(|c| c.code().to_owned()).unwrap_or_default();
                assert!(!code.is_empty(), "the connection has ended by: {sql}\n{said}");
                assert!(!code.starts_with("XX"), "an internal error of: {sql}\n{said}");
                refused.push(format!("{code} {said}"));
            }
        }
    }
    refused
}
