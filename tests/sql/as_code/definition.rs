//! `coco.flow_definition` and `coco.definitions`: what is declared from them is the same flow.

use super::{fails, rows, run, text};
use crate::support::{TestDb, explain};

const TABLES: &str = r#"
    create schema app;
    create table app.documents (id int primary key, title text not null, body text, version int not null default 1,
      modified timestamptz not null default '2025-01-01', grp int not null default 0, tags text[]);
    insert into app.documents (id, title, body, grp) select i, 't' || i, 'b' || i, i % 3 from generate_series(1, 12) i;
    create table app.authors (id int primary key, name text not null);
    insert into app.authors select i, 'a' || i from generate_series(0, 2) i;
    create table app.letters (id int primary key, title text not null);
    insert into app.letters values (1, 'l1'), (2, 'l2');
    create schema "Odd $chema";
    create table "Odd $chema"."Odd ""Table""" ("Key Col" int, "null" int, "v'x" text, primary key ("Key Col", "null"));
    insert into "Odd $chema"."Odd ""Table""" values (1, 1, 'x'), (2, 2, 'y\');
    create view app.recent as select id, title, modified from app.documents;
    create function app.short(text) returns text language sql immutable as 'select left($1, 3)';
    set search_path = app, public"#;

/// Flows of every shape, each with its declaration.
const SHAPES: &[(&str, &str)] = &[
    ("plain", "select coco.create_flow('plain', 'documents', 'select id, title from documents', 'plain', '{id}')"),
    ("grouped", "select coco.create_flow('grouped', 'documents', 'select grp, count(*) as n from documents group by grp', 'grouped', '{grp}', source_key => '{grp}')"),
    ("versions", "select coco.create_flow('versions', 'documents', 'select id, title from documents', 'versions', '{id}', ordinal => 'version', fingerprint => 'short(title) || coalesce(body, $$-$$)')"),
    ("times", "select coco.create_flow('times', 'documents', 'select id, title from documents', 'times', '{id}', ordinal => 'modified', capture => 'scan', refresh_interval => '90 minutes')"),
    ("always", "select coco.create_flow('always', 'documents', 'select id, title from documents', 'always', '{id}', capture => 'always')"),
    ("view", "select coco.create_flow('view', 'recent', 'select id, title from recent', 'view', '{id}', source_key => '{id}', ordinal => 'modified', refresh_interval => '0')"),
    ("named", "select coco.create_flow('named', 'documents', 'select d.id, (select count(*) from documents) as n from d', 'named', '{id}', name => 'd')"),
    ("chosen", "select coco.create_flow('chosen', 'documents', 'select a.id, b.title from app.documents a join app.documents b on b.id = a.grp + 1', 'chosen', '{id}', item => 'a')"),
    ("looks", "select coco.create_flow('looks'); select coco.add_source('looks', 'documents');
       select coco.add_lookup('looks', 'authors', affects => 'select d.id from documents d join authors a on a.id = d.grp', capture => 'scan', refresh_interval => '1 hour');
       select coco.add_lookup('looks', 'letters', name => 'l');
       select coco.add_target('looks', 'looks', 'select d.id, a.name from documents d join authors a on a.id = d.grp', '{id}')"),
    ("several", "select coco.create_flow('several'); select coco.add_source('several', 'documents', fingerprint => 'title'); select coco.add_source('several', 'letters', name => 'l');
       select coco.add_lookup('several', 'authors', source => 'documents', key => '{id}');
       select coco.add_target('several', 'several1', 'select 1 as k, id, title from documents union all select 2, id, title from l', '{k,id}');
       select coco.add_target('several', 'several2', 'select 1 as k, id from documents union all select 2, id from l', '{k,id}')"),
    ("two targets", "select coco.create_flow('two targets', 'documents', 'select id, title from documents', 'two1', '{id}'); select coco.add_target('two targets', 'two2', 'select id, body from documents', '{id}')"),
    ("alone", "select coco.create_flow('alone', settings => '{\"TimeZone\": \"Asia/Tokyo\", \"lc_time\": \"C\"}')"),
    ("begun", "select coco.create_flow('begun'); select coco.add_source('begun', 'documents', key => '{grp}')"),
    ("Odd 'name'", r#"select coco.create_flow('Odd ''name''', '"Odd $chema"."Odd ""Table"""', $q$ select "Key Col", "null", "v'x" as "a,b" from "Odd ""Table""" $q$,
       '"Odd $chema"."Odd Target"', array['null', 'Key Col'], search_path => '"Odd $chema", "it''s", public')"#),
    ("dollars", r"select coco.create_flow('dollars', 'documents', $outer$ select id, '$$' || title || '$q1$' || E'\\' as t from documents -- in $$outer$, 'dollars', '{id}')"),
    ("tuned", "select coco.create_flow('tuned', 'documents', 'select id, title from documents', 'tuned', '{id}'); select coco.alter_flow('tuned', label => 'it''s v1', batch_size => 7, paused => true, lineage_index => true)"),
    ("zoned", "select coco.create_flow('zoned', 'documents', 'select id, modified::text as m from documents', 'zoned', '{id}', settings => '{\"TimeZone\": \"Asia/Tokyo\"}')"),
    ("record", "select coco.create_flow('record', 'documents', 'select id, to_jsonb(s) as j from documents d, lateral (select title as a, body as b) s', 'record', '{id}')"),
    ("recursive", "select coco.create_flow('recursive', 'documents', 'with recursive r(id, n) as (select id, 0 from documents union all select id, n + 1 from r where n < 2) select id, n from r', 'recursive', '{id,n}')"),
];

/// Flows whose tables and columns get other names after the declaration.
const RENAMED: &[(&str, &str)] = &[
    ("moved", "select coco.create_flow('moved', 'documents', 'select id, title from documents d where exists (select from authors a where a.id = d.grp)', 'moved', '{id}')"),
    ("expressions", "select coco.create_flow('expressions', 'documents', 'select id, title from documents', 'expressions', '{id}', ordinal => 'version', fingerprint => 'lower(title) || documents.grp')"),
    ("timed", "select coco.create_flow('timed', 'documents', 'select documents.id, documents.title as t from documents', 'timed', '{id}', ordinal => 'modified')"),
    ("joined", "select coco.create_flow('joined', 'documents', 'select id, x.t, name from (select id, title as t, grp from documents) x left join lateral (select name from authors a where a.id = x.grp) y on true', 'joined', '{id}')"),
    ("mapped", "select coco.create_flow('mapped'); select coco.add_source('mapped', 'documents');
       select coco.add_lookup('mapped', 'authors', affects => 'select d.id from app.documents d join authors a on a.id = d.grp where d.title <> $$x$$');
       select coco.add_target('mapped', 'mapped', 'select d.id, d.title, a.name from documents d left join authors a on a.id = d.grp', '{id}')"),
    ("grouped", "select coco.create_flow('grouped', 'documents', 'select grp, max(title) as last, count(*) filter (where title > $$t1$$) as n from documents group by grp having count(*) > 0 order by 1', 'grouped', '{grp}', source_key => '{grp}')"),
    ("unions", "select coco.create_flow('unions', 'documents', 'select id, title from documents where id < 5 union all select id, title from documents where id > 7', 'unions', '{id}')"),
];

/// What the views show of a flow, except for names of objects that coco makes.
fn shown(db: &mut TestDb, flow: &str) -> Vec<String> {
    let flow = flow.replace('\'', "''");
    let row = |view: &str, without: &str| {
        format!(
            "select '{view} ' || (to_jsonb(v) - '{{{without}}}'::text[])::text from coco.{view} v where flow = '{flow}'"
        )
    };
    let all = [
        row("flows", "created"),
        row("sources", "tracking_table,tracking_view"),
        row("lookups", "tracking_table,tracking_view"),
        row("targets", "query_view,ledger,outbox,ledger_view,outbox_view"),
    ];
    rows(&mut db.client, &format!("select * from ({}) q order by 1", all.join(" union all ")))
}

fn definition(db: &mut TestDb, flow: &str) -> String {
    text(&mut db.client, &format!("select coco.flow_definition('{}')", flow.replace('\'', "''")))
}

/// Drops a flow, and declares it from its definition in a session with another search path.
fn declared_again(db: &mut TestDb, flow: &str, definition: &str) {
    db.run(&format!("select coco.drop_flow('{}')", flow.replace('\'', "''")));
    let mut other = db.connect();
    run(&mut other, "set search_path = pg_catalog");
    other.batch_execute(definition).unwrap_or_else(|e| panic!("{definition}\n{}", explain(&e)));
}

fn has_targets(db: &mut TestDb, flow: &str) -> bool {
    let flow = flow.replace('\'', "''");
    let paused = format!("select (exists (select from coco.targets where flow = '{flow}')
                          and not exists (select from coco.flows where flow = '{flow}' and paused))");
    text(&mut db.client, &paused) == "true"
}

#[test]
fn a_flow_declared_from_its_definition_is_the_same() {
    let mut db = TestDb::new("defined");
    db.run(TABLES);
    for (flow, declare) in SHAPES {
        db.run(declare);
        let (before, was) = (definition(&mut db, flow), shown(&mut db, flow));
        assert!(!before.contains("-- coco"), "{flow} is not written exactly:\n{before}");
        if has_targets(&mut db, flow) {
            db.update(flow, "normal");
        }
        declared_again(&mut db, flow, &before);
        assert_eq!(definition(&mut db, flow), before);
        assert_eq!(shown(&mut db, flow), was, "{before}");
        if has_targets(&mut db, flow) {
            let counts = db.update(flow, "normal");
            assert!(counts.iter().all(|c| c.upserted == 0 && c.failed == 0), "{flow}: {counts:?}");
            db.verify_clean(flow);
        }
    }
}

#[test]
fn renamed_tables_and_columns_are_written_by_their_new_names() {
    let mut db = TestDb::new("defined_renamed");
    db.run(TABLES);
    for (flow, declare) in RENAMED {
        db.run(declare);
        db.update(flow, "normal");
    }
    db.run(
        "alter table documents rename to papers; alter table papers rename title to heading; alter table papers rename version to v;
         alter table authors rename to writers; alter table writers rename name to \"full name\";
         alter schema app rename to library; set search_path = library, public",
    );
    for (flow, _) in RENAMED {
        let before = definition(&mut db, flow);
        assert!(before.contains("source => 'library.papers'"), "{before}");
        assert!(!before.contains("-- coco"), "{flow} is not written exactly:\n{before}");
        declared_again(&mut db, flow, &before);
        // The text is the flow's now.
        let again = definition(&mut db, flow);
        assert_eq!(again, before);
        let was = shown(&mut db, flow);
        declared_again(&mut db, flow, &again);
        assert_eq!(shown(&mut db, flow), was);
        let counts = db.update(flow, "normal");
        assert!(counts.iter().all(|c| c.upserted == 0 && c.failed == 0), "{flow}: {counts:?}");
        db.verify_clean(flow);
    }
}

#[test]
#[cfg(feature = "neo4j")]
fn a_target_outside_the_database_is_written_with_its_options() {
    let mut db = TestDb::new("defined_external");
    db.run(TABLES);
    db.run(
        "create server \"a graph\" foreign data wrapper coco_neo4j options (url 'bolt://127.0.0.1:9');
         select coco.create_flow('nodes', 'documents', 'select id, title from documents', 'Nodes', '{id}',
           server => 'a graph', options => '{\"label\": \"Doc\"}')",
    );
    let (before, was) = (definition(&mut db, "nodes"), shown(&mut db, "nodes"));
    assert!(
        before.contains("server => 'a graph',\n  options => '{\"label\":\"Doc\"}'"),
        "{before}"
    );
    declared_again(&mut db, "nodes", &before);
    assert_eq!(definition(&mut db, "nodes"), before);
    assert_eq!(shown(&mut db, "nodes"), was);
}

#[test]
fn a_definition_has_only_what_differs() {
    let mut db = TestDb::new("defined_text");
    db.run(TABLES);
    db.run("set search_path = \"$user\", public;
            select coco.create_flow('f', 'app.documents', '  select id from app.documents;  ', 'f', '{id}')");
    assert_eq!(
        definition(&mut db, "f"),
        "SELECT coco.create_flow(flow => 'f',\n  source => 'app.documents',\n  query => $$select id from app.documents$$,\n  target => 'public.f',\n  key => '{id}',\n  search_path => '\"$user\", public');\n"
    );
    db.run("select coco.alter_flow('f', label => 'v', paused => true)");
    assert!(
        definition(&mut db, "f").ends_with(
            "SELECT coco.alter_flow(flow => 'f',\n  label => 'v',\n  paused => true);\n"
        )
    );
    // Another session's settings are not taken for those of all.
    let mut other = db.connect();
    run(&mut other, "set timezone = 'Asia/Tokyo'");
    let said = text(&mut other, "select coco.flow_definition('f')");
    assert!(said.contains("settings => '{\"TimeZone\":"), "{said}");
}

#[test]
fn definitions_come_in_an_order_in_which_they_can_be_declared() {
    let mut db = TestDb::new("defined_all");
    db.run(
        "create table d (id int primary key, v int); create table target_of_c (id int primary key, v int);
         select coco.create_flow('a', 'target_of_c', 'select id, v from target_of_c', 'ta', '{id}');
         select coco.create_flow('b', 'd', 'select d.id, x.v from d left join ta x using (id)', 'tb', '{id}');
         select coco.create_flow('c', 'd', 'select id, v from d', 'target_of_c', '{id}');
         select coco.create_flow('x', 'd', 'select id, v from d', 'tx', '{id}')",
    );
    let order = "select string_agg(flow, '') from coco.definitions()";
    assert_eq!(text(&mut db.client, order), "cabx");
    let all = text(&mut db.client, "select string_agg(definition, '') from coco.definitions()");
    for flow in ["b", "a", "c", "x"] {
        db.run(&format!("select coco.drop_flow('{flow}', keep_targets => false)"));
    }
    db.run("drop table target_of_c");
    run(&mut db.client, &all);
    assert_eq!(text(&mut db.client, order), "cabx");
    // A flow that lost a part does not hide the others.
    db.run("drop table d cascade");
    let broken = rows(&mut db.client, "select definition from coco.definitions() where flow = 'x'");
    let said = "-- flow x: source \"d\" of flow \"x\"";
    assert!(broken[0].starts_with(said), "{broken:?}");
    assert_eq!(
        text(
            &mut db.client,
            "select count(*) from coco.definitions() where definition like 'SELECT%'"
        ),
        "1"
    );
    fails(&mut db.client, "select coco.flow_definition('x')", "42P01");
    fails(&mut db.client, "select coco.flow_definition('nowhere')", "42704");
}

#[test]
fn definitions_are_those_of_ones_own_flows() {
    let mut db = TestDb::new("defined_own");
    db.run(
        "do $$ begin create role coco_defining login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_defining; create table d (id int primary key);
         select coco.create_flow('f', 'd', 'select id from d', 't', '{id}')",
    );
    let mut other = db.connect_as("coco_defining");
    assert_eq!(text(&mut other, "select count(*) from coco.definitions()"), "0");
    fails(&mut other, "select coco.flow_definition('f')", "42501");
    fails(&mut other, "select * from coco.plan('f')", "42501");
    // The name is taken, as an error of coco.create_flow says to everybody; nothing else is told.
    assert_eq!(text(&mut other, "select object || change from coco.plan('g')"), "flowis created");
}
