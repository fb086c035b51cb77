//! Whoever calls coco, and in a worker: a user's code runs as the flow's owner, in a security-restricted operation, and
//! in what a role does to its own tables as that role. Every kind of code is tried at every place.

use super::kinds::{CODE, CodeKind, MAKE_CODE, MAKE_TYPES, PLACES, Place, TYPES, TypeKind};
use crate::ground::{DATABASE, Ground, attempt_in};
use crate::http::Receiver;
use crate::support::explain;
use crate::support::server::Session;

/// Tells the server's log, which no rollback takes back, what runs as whom, and whether restricted. `mal.own` is set
/// where mallory works on her own tables.
const NOTE: &str = "create function mal.note(what text) returns void language plpgsql volatile set search_path = pg_catalog as $$
  declare restricted boolean := false; super boolean;
  begin
    super := (select rolsuper from pg_roles where rolname = current_user);
    begin
      create temp table probe (x int);
      drop table pg_temp.probe;
    exception when insufficient_privilege then restricted := true;
      when others then restricted := null;
    end;
    raise log 'ran|%|%|%|%|%|%', coalesce(current_setting('mal.flow', true), ''), coalesce(current_setting('mal.own', true), ''), what, current_user, super, coalesce(restricted::text, 'unknown');
  end $$";

fn ground(receiver: &Receiver) -> Ground {
    let mut ground = Ground::new();
    ground.admin.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}', request_timeout '5', connect_timeout '5'); grant usage on foreign server hook to mallory",
        receiver.url()
    ));
    let mut mallory = ground.role("mallory");
    mallory.run("create user mapping for mallory server hook options (bearer_token 'x'); set mal.own = 'yes'");
    for sql in [NOTE, MAKE_TYPES, MAKE_CODE] {
        mallory.run(sql);
    }
    ground
}

struct Sessions {
    /// Mallory, at her own tables.
    own: Session,
    mallory: Session,
    admin: Session,
}

/// All that can be done with a flow. Returns what updates that fail say; what else is refused is no matter here: who runs
/// what is.
fn exercise(s: &mut Sessions, flow: &str, key: &str, changes: &str) -> Vec<String> {
    let mut refused = Vec::new();
    let mut each = |session: &mut Session, all: &[String]| {
        for sql in all {
            let said = attempt_in(session, &[sql]);
            if sql.contains("coco.update(") {
                refused.extend(said);
            }
        }
    };
    let all = |list: &[&str]| list.iter().map(|sql| sql.replace('@', flow)).collect::<Vec<_>>();
    each(&mut s.admin, &all(&["set mal.flow = '@'"]));
    each(&mut s.mallory, &all(&["set mal.flow = '@'"]));
    each(&mut s.own, &all(&["set mal.flow = '@'"]));
    let update = "select * from coco.update('@')";
    each(&mut s.mallory, &all(&[update]));
    each(
        &mut s.own,
        &changes
            .split(';')
            .map(|c| c.trim().to_owned())
            .filter(|c| !c.is_empty())
            .collect::<Vec<_>>(),
    );
    each(
        &mut s.admin,
        &all(&[
            "select * from coco.preview('@')",
            update,
            "select * from coco.preview('@', 'full_reprocess')",
            "select * from coco.verify('@')",
            "select * from coco.explain('@')",
            "select * from coco.status_detail",
            "select * from coco_internal.session_error_rows()",
            "select * from coco.errors",
            "select * from coco.tracking",
            "select * from coco.metrics",
            "select * from coco.delivery_status",
            "select coco.report()",
            "select * from coco.history('@')",
        ]),
    );
    each(&mut s.own, &all(&["delete from @_t"]));
    each(
        &mut s.admin,
        &all(&[
            "select * from coco.verify('@', true)",
            "select * from coco.update('@', 'full_reprocess')",
        ]),
    );
    if !key.is_empty() {
        // The row is read as its owner, who writes its JSON by herself.
        let keys = s.own.0.query(
            &format!("select json_build_object('{key}', {key})::text from {flow}_t limit 1"),
            &[],
        );
        let found =
            keys.ok().and_then(|rows| rows.first().and_then(|r| r.get::<_, Option<String>>(0)));
        for shown in found
            .iter()
            .map(String::as_str)
            .chain([&*format!("{{\"{key}\": \"a\"}}"), &*format!("{{\"{key}\": 4}}")])
        {
            let shown = shown.replace('\'', "''");
            each(
                &mut s.admin,
                &[
                    format!("select * from coco.lineage('mal.{flow}_t', '{shown}')"),
                    format!("select * from coco.outputs('{flow}', '{shown}')"),
                    format!("select * from coco.evaluate('{flow}', '{shown}')"),
                ],
            );
        }
    }
    each(&mut s.own, &all(&["update @_s set v = v + 1"]));
    each(
        &mut s.admin,
        &all(&[
            "select coco.alter_flow('@', lineage_index => true, batch_size => 2)",
            "select coco.alter_flow('@', capture => 'scan', settings => '{\"TimeZone\": \"UTC\"}')",
            "select coco.rename_flow('@', '@_r')",
            "select coco.rename_flow('@_r', '@')",
            "select coco.alter_flow('@', capture => 'auto')",
            "select * from coco.update('@', 'reexport')",
            "select coco.retry('@')",
        ]),
    );
    each(&mut s.own, &all(&["update @_s set v = v + 1"]));
    each(
        &mut s.admin,
        &all(&["select coco.start('@')", "select coco.wait('@', '2 s')", "select coco.stop('@')"]),
    );
    // The worker alone reads what its log is told of no flow.
    refused
}

fn finish(s: &mut Sessions, flow: &str, query: &str) {
    for sql in [
        format!("select coco.set_query('{flow}', null, {query})"),
        format!("select * from coco.update('{flow}')"),
        format!("select coco.alter_flow('{flow}', owner => 'postgres')"),
        format!("select coco.alter_flow('{flow}', owner => 'mallory')"),
        format!("select coco.drop_flow('{flow}', false)"),
    ] {
        if sql.contains("'postgres'") {
            // To give a flow to a superuser takes a superuser, for whom it then runs: not tried.
            continue;
        }
        attempt_in(&mut s.admin, &[&sql]);
    }
}

/// What ran as somebody else than the flow's owner, or without a restriction.
fn wrong(ground: &Ground) -> (Vec<String>, usize) {
    let log = ground.server.log();
    let mut found = Vec::new();
    let mut ran = 0;
    for line in log.lines() {
        let Some(at) = line.find("ran|") else { continue };
        let parts: Vec<&str> = line[at..].split('|').collect();
        let &[_, flow, own, what, who, is_super, restricted] = parts.as_slice() else { continue };
        ran += 1;
        let right = who == "mallory" && is_super == "f" && (own == "yes" || restricted == "true");
        let said = format!(
            "{flow}: {what} runs as {who}{}",
            if restricted == "true" { "" } else { ", unrestricted" }
        );
        if !right && !found.contains(&said) {
            found.push(said);
        }
    }
    (found, ran)
}

fn sessions(ground: &Ground) -> Sessions {
    let mut own = ground.role("mallory");
    own.run("set mal.own = 'yes'");
    let admin = ground.server.connect_as(DATABASE, "postgres");
    Sessions { own, mallory: ground.role("mallory"), admin }
}

fn values(sql: &str, kind: &TypeKind, flow: &str) -> String {
    let mut sql = sql.replace('@', flow).replace("$T", kind.sql);
    while let Some(at) = sql.find("$V(") {
        let end = at + sql[at..].find(')').expect("an end");
        let number = sql[at + 3..end].to_owned();
        sql.replace_range(at..=end, &format!("({})", kind.value.replace('@', &number)));
    }
    sql
}

fn types(chosen: impl Fn(&TypeKind) -> bool) {
    let receiver = Receiver::start();
    let mut ground = ground(&receiver);
    let mut s = sessions(&ground);
    let mut lacking = Vec::new();
    let mut tried = 0;
    for kind in TYPES.iter().filter(|k| chosen(k)) {
        for Place { name, setup, declare, key, changes } in &PLACES {
            let flow = format!("{}_{name}", kind.name);
            s.own.run(&values(setup, kind, &flow));
            tried += 1;
            let mut refused = Vec::new();
            s.mallory.run(&format!("set mal.flow = '{flow}'"));
            for part in values(declare, kind, &flow).split(';') {
                refused.extend(attempt_in(&mut s.mallory, &[part]));
            }
            if refused.is_empty() {
                let failed = exercise(&mut s, &flow, key, &values(changes, kind, &flow));
                if kind.accepted && !failed.is_empty() {
                    lacking.push(format!("{flow}: {}", failed.join("\n  ")));
                }
                finish(&mut s, &flow, "'select 1 as id'");
            } else {
                if kind.accepted {
                    lacking.push(format!("{flow}: {}", refused.join("\n  ")));
                }
                attempt_in(&mut s.mallory, &[&format!("select coco.drop_flow('{flow}')")]);
            }
            ground.alive();
        }
    }
    let (found, ran) = wrong(&ground);
    println!("{tried} combinations, {ran} pieces of code ran");
    assert!(ran > tried, "the code did not run: {ran} of {tried}");
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    drop(s);
    ground.admin.run("reassign owned by mallory to mallory");
    ground.unharmed();
}

fn code(range: std::ops::Range<usize>) {
    let receiver = Receiver::start();
    let mut ground = ground(&receiver);
    let mut s = sessions(&ground);
    for CodeKind { name, setup, declare, changes } in &CODE[range] {
        let flow = (*name).to_owned();
        s.own.run(&format!("create table {flow}_s (id int primary key, v int); insert into {flow}_s values (1, 1), (2, 2), (3, 3)"));
        if let Err(e) = s.own.0.batch_execute(&setup.replace('@', &flow)) {
            panic!("{flow}: {}", explain(&e));
        }
        s.mallory.run(&format!("set mal.flow = '{flow}'"));
        let refused = attempt_in(
            &mut s.mallory,
            &declare
                .split(';')
                .map(|d| d.replace('@', &flow))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        if refused.is_empty() {
            exercise(&mut s, &flow, "id", &changes.replace('@', &flow));
            finish(&mut s, &flow, &format!("'select id, nint(v) + 1 as v from {flow}_s'"));
        } else {
            println!("{flow} is refused: {}", refused.join("; "));
        }
        if *name == "operator_on_the_path" {
            s.own.run("drop operator mal.= (int, int), mal.= (text, text), mal.= (bigint, bigint)");
        }
        ground.alive();
    }
    let (found, ran) = wrong(&ground);
    println!("{ran} pieces of code ran");
    assert!(ran > 0, "no code ran");
    assert!(found.is_empty(), "{}", found.join("\n"));
    drop(s);
    ground.unharmed();
}

#[test]
fn domains_at_every_place() {
    types(|k| k.accepted);
}

#[test]
fn enums_with_casts_at_every_place() {
    types(|k| k.name.contains("enum"));
}

#[test]
fn arrays_composites_and_ranges_at_every_place() {
    types(|k| !k.accepted && !k.name.contains("enum"));
}

#[test]
fn code_in_queries_sources_and_lookups() {
    code(0..20);
}

#[test]
fn code_on_targets_and_in_functions() {
    code(20..CODE.len());
}
