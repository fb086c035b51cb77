//! What coco says in the server's log.

#[cfg(feature = "functions")]
use crate::provider;
use crate::support;

use support::server::{Server, Session, until};

/// What the log has of coco's runs.
fn runs(server: &Server) -> Vec<String> {
    let log = server.log();
    log.lines().filter_map(|l| Some(l.split_once("coco: run ")?.1.to_owned())).collect()
}

fn declare(db: &mut Session) {
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, 100 / v as v from d', 't', '{id}')",
    );
}

#[test]
fn a_line_for_each_run_where_that_is_wanted() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("runs");
    declare(&mut db);
    db.run("select coco.update('f')");
    assert_eq!(runs(&server), Vec::<String>::new(), "quiet by default");
    db.run("set coco.log_min_duration = '1h'; select coco.update('f')");
    assert_eq!(runs(&server), Vec::<String>::new(), "it did not take an hour");
    db.run(
        "set coco.log_min_duration = 0; update d set v = 0 where id = 1; select coco.update('f')",
    );
    let lines = runs(&server);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let begin = r#"flow="f" reason="data_change" initiator="session" seen=1 skipped=0 unchanged=0 evaluated=1 upserted=0 deleted=0 failed=1 elapsed_ms="#;
    assert!(lines[0].starts_with(begin), "{lines:?}");
    assert!(server.log().contains("LOG:  coco: run flow=\"f\""));

    // A live flow's turns are taken together, and what ends them is a warning with all that is known.
    server.reload(&["coco.log_min_duration = 0"]);
    db.run("update d set v = 1 where id = 1; select coco.start('f')");
    db.settle("f");
    db.run("update d set v = 7; select coco.stop('f')");
    until("the worker's run is logged", || {
        runs(&server).iter().any(|l| l.contains(r#"initiator="worker""#))
    });
    db.run("select coco.start('f'); alter table d drop v cascade");
    until("the flow's failure is logged", || {
        server.log().contains(
            "WARNING:  coco: flow \"f\" failed: the query of target public.t of flow \"f\" reads an object that was dropped",
        )
    });
    assert!(server.log().contains("HINT:  Give the target a matching query with coco.set_query"));
}

/// What is said on a thread that is not Postgres' is reported by the process.
#[cfg(feature = "functions")]
#[test]
fn what_other_threads_say_is_reported_by_the_process() {
    use std::sync::{Arc, Mutex};

    use provider::{Fault, Provider};
    use support::TestDb;

    let mut db = TestDb::new("log_threads");
    let provider = Provider::start();
    db.run(&format!(
        "create server models foreign data wrapper coco_openai options (url '{}')",
        provider.url()
    ));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |line| hear.lock().expect("lines").push(line));
    let ask = "select coco.embed('hello', 'models', 'm')";
    provider.next(Fault::retry_after(429, "retry-after", "0"));
    client.batch_execute(ask).unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    assert_eq!(*heard.lock().expect("lines"), Vec::<String>::new(), "quiet by default");
    client.batch_execute("set client_min_messages = debug1").expect("a setting");
    provider.next(Fault::retry_after(429, "retry-after", "0"));
    client.batch_execute(ask).unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    let lines = heard.lock().expect("lines").clone();
    let ours: Vec<&String> = lines.iter().filter(|l| l.starts_with("coco: ")).collect();
    assert_eq!(ours.len(), 1, "{lines:?}");
    assert!(ours[0].starts_with("coco: retrying a request to a provider: "), "{ours:?}");
    assert!(ours[0].contains(" inputs=1 attempts=1"), "{ours:?}");
}

/// What a connector or a provider says, in a crate of its own, is in the server's log.
#[cfg(feature = "functions")]
#[test]
fn what_connectors_and_providers_say_reaches_the_servers_log() {
    use provider::{Fault, Provider};

    let server = Server::preloaded(&["log_min_messages = debug1"]);
    let mut db = server.database("connectors");
    let provider = Provider::start();
    db.run(&format!(
        "create server models foreign data wrapper coco_openai options (url '{}')",
        provider.url()
    ));
    provider.next(Fault::retry_after(429, "retry-after", "0"));
    db.run("select coco.embed('hello', 'models', 'm')");
    assert!(server.log().contains("DEBUG:  coco: retrying a request to a provider: "));
}
