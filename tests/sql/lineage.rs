//! Where target rows come from, and what comes of source items.

#[cfg(feature = "http")]
use crate::http;
use crate::support;

use std::sync::{Arc, Mutex};

use postgres::Client;
use support::TestDb;

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    texts(&mut db.client, sql)
}

fn fails(db: &mut TestDb, sql: &str, sqlstate: &str) -> String {
    let e = db.client.query(sql, &[]).expect_err(sql);
    let explained = support::explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {explained}");
    explained
}

#[test]
fn a_row_tells_its_item_the_code_and_the_bytes() {
    let mut db = TestDb::new("lineage_row");
    db.run(
        "create table docs (id int primary key, body text, modified timestamptz default '2025-01-01');
         insert into docs (id, body) values (1, E'One paragraph.\n\nAnd a second one.'), (2, 'Short.');
         create function inner_one(t text) returns text language sql immutable as 'select upper(t)';
         create function large(t text) returns text language sql immutable as 'select public.inner_one(t)';
         comment on function large(text) is 'Makes it large.';
         select coco.memoize('large(text)', 'v3');
         select coco.create_flow('f', 'docs',
           'select d.id as doc, c.n, large(c.chunk) as chunk, c.byte_start, c.byte_end from docs d, coco.split_text(d.body, 20) c',
           'chunks', '{doc,n}', ordinal => 'modified');
         select coco.alter_flow('f', label => 'a1b2c3')",
    );
    db.update("f", "normal");
    assert_eq!(
        rows(
            &mut db,
            "select concat_ws(' ', l.flow, l.source, l.source_relation, l.source_key, l.state, l.label, l.byte_range,
                              l.query like 'select d.id as doc%', l.failure is null)
               from coco.lineage('public.chunks', '{\"doc\": 1, \"n\": 2}') l"
        ),
        ["f docs docs {\"id\": 1} produced a1b2c3 [16,33) t t"]
    );
    // What is committed of the item is in coco.tracking.
    assert_eq!(
        rows(
            &mut db,
            "select (l.ordinal = t.source_ordinal and l.content_fingerprint = t.content_fingerprint
                     and l.logic_fingerprint = t.logic_fingerprint and l.process_ordinal = t.process_ordinal
                     and l.process_time = t.process_time)::text
               from coco.lineage('chunks', '{\"doc\": 1, \"n\": 2}') l
               join coco.tracking t using (flow, source_key)"
        ),
        ["true"]
    );
    // The bytes are those of the chunk.
    assert_eq!(
        rows(
            &mut db,
            "select distinct (upper(convert_from(substring(convert_to(d.body, 'UTF8') from lower(l.byte_range)::int + 1
                     for (upper(l.byte_range) - lower(l.byte_range))::int), 'UTF8')) = c.chunk)::text
               from chunks c join docs d on d.id = c.doc
               cross join lateral coco.lineage('chunks', jsonb_build_object('doc', c.doc, 'n', c.n)) l"
        ),
        ["true"]
    );
    let functions = "select concat_ws('|', f->>'function', f->>'comment', f->>'version', f->>'fingerprint' ~ '^[0-9a-f]{32}$', f->>'memoized' is not null)
        from coco.lineage('chunks', '{\"doc\": 2, \"n\": 1}') l, jsonb_array_elements(l.functions) f
       where f->>'function' like 'public.%' order by 1";
    assert_eq!(
        rows(&mut db, functions),
        ["public.inner_one(text)|t|f", "public.large(text)|Makes it large.|v3|t|t"]
    );
    assert_eq!(
        rows(
            &mut db,
            "select concat_ws(' ', m->>'function', m->>'input' ~ '^[0-9a-f]{16}$', (m->>'made')::timestamptz <= now())
               from coco.lineage('chunks', '{\"doc\": 1, \"n\": 1}') l, jsonb_array_elements(l.memo) m"
        ),
        ["public.large(text) t t", "public.large(text) t t"]
    );

    // Each item keeps the code, the label and the version it was evaluated with.
    db.run(
        "select coco.alter_flow('f', label => 'd4e5f6'); update docs set body = 'Longer.', modified = '2025-02-01' where id = 2",
    );
    let label =
        |n: i32| format!("select label from coco.lineage('chunks', '{{\"doc\": {n}, \"n\": 1}}')");
    assert_eq!(rows(&mut db, &label(2)), ["a1b2c3"]);
    db.update("f", "normal");
    assert_eq!(rows(&mut db, &label(1)), ["a1b2c3"]);
    assert_eq!(rows(&mut db, &label(2)), ["d4e5f6"]);
    db.run("create or replace function inner_one(t text) returns text language sql immutable as 'select lower(t)'; comment on function large(text) is 'Not large at all.'");
    let code = "select concat_ws('|', l.logic_fingerprint, f->>'comment', f->>'fingerprint')
        from coco.lineage('chunks', '{\"doc\": 2, \"n\": 1}') l, jsonb_array_elements(l.functions) f
       where f->>'function' in ('public.large(text)', 'public.inner_one(text)') order by 1";
    let before = rows(&mut db, code);
    db.update("f", "normal");
    let after = rows(&mut db, code);
    assert_eq!(before.len(), after.len());
    assert_ne!(before[0], after[0]);
    assert!(before.iter().any(|r| r.contains("|Makes it large.|")), "{before:?}");
    assert!(after.iter().any(|r| r.contains("|Not large at all.|")), "{after:?}");
    // A row that is not there comes from nothing.
    assert!(rows(&mut db, &label(3)).is_empty());
    assert!(
        rows(&mut db, "select label from coco.lineage('chunks', '{\"doc\": 2, \"n\": 9}')")
            .is_empty()
    );
}

#[test]
fn a_group_is_one_item() {
    let mut db = TestDb::new("lineage_group");
    db.run(
        "create table sales (id int primary key, cust text not null, amount numeric);
         insert into sales select i, 'c' || i % 5, i from generate_series(1, 100) i;
         select coco.create_flow('sums', 'sales', 'select cust, sum(amount) as total from sales group by cust',
           'totals', '{cust}', source_key => '{cust}')",
    );
    db.update("sums", "normal");
    assert_eq!(
        rows(
            &mut db,
            "select source_key::text || ' ' || state from coco.lineage('totals', '{\"cust\": \"c3\"}')"
        ),
        ["{\"cust\": \"c3\"} produced"]
    );
    assert_eq!(
        rows(
            &mut db,
            "select concat_ws(' ', source, target, key, owned_by_list) from coco.outputs('sums', '{\"cust\": \"c3\"}')"
        ),
        ["sales public.totals {\"cust\": \"c3\"} f"]
    );
    assert!(
        rows(&mut db, "select key::text from coco.outputs('sums', '{\"cust\": \"nobody\"}')")
            .is_empty()
    );
}

#[test]
fn failing_items_and_those_that_claim_a_key_are_told() {
    let mut db = TestDb::new("lineage_failing");
    db.run(
        "create table people (id int primary key, email text, age text);
         insert into people values (1, 'a@x', '30'), (2, 'b@x', 'old'), (3, 'a@x', '40');
         select coco.create_flow('f', 'people', 'select id, age::int as age from people', 'ages', '{id}');
         select coco.create_flow('g', 'people', 'select email, id, age::int as age from people', 'by_email', '{email}')",
    );
    db.update("f", "normal");
    db.update("g", "normal");
    let of = |target: &str, key: &str| {
        format!(
            "select concat_ws(' ', source_key->>'id', state, failure->>'sqlstate', failure->>'message', query is not null)
               from coco.lineage('{target}', '{key}') order by 1"
        )
    };
    // It has never produced its row, and says why.
    assert_eq!(
        rows(&mut db, &of("ages", "{\"id\": 2}")),
        ["2 failing 22P02 invalid input syntax for type integer: \"old\" t"]
    );
    assert_eq!(
        rows(&mut db, &of("by_email", "{\"email\": \"a@x\"}")),
        [
            "1 produced t",
            "3 waiting_for_key 23505 target key of public.by_email already belongs to another item t"
        ]
    );
    // With an index, and with the row of before.
    db.run("select coco.alter_flow('g', lineage_index => true); update people set age = 'x' where id = 1");
    db.update("g", "normal");
    assert_eq!(
        rows(&mut db, &of("by_email", "{\"email\": \"a@x\"}")),
        [
            "1 failing 22P02 invalid input syntax for type integer: \"x\" t",
            "3 waiting_for_key 23505 target key of public.by_email already belongs to another item t"
        ]
    );
    assert_eq!(
        rows(
            &mut db,
            "select concat_ws(' ', key, owned_by_list) from coco.outputs('g', '{\"id\": 1}')"
        ),
        ["{\"email\": \"a@x\"} t"]
    );
    assert!(rows(&mut db, "select key::text from coco.outputs('g', '{\"id\": 3}')").is_empty());
}

#[test]
fn several_sources_and_targets() {
    let mut db = TestDb::new("lineage_several");
    db.run(
        "create table a (id int primary key, v text); create table b (id int primary key, at date, v text);
         create table c (x int, y int, v text, primary key (x, y));
         insert into a values (1, 'one'), (2, 'two'); insert into b values (1, '2025-01-01', 'three'); insert into c values (1, 1, 'four');
         select coco.create_flow('f');
         select coco.add_source('f', 'a'); select coco.alter_flow('f', lineage_index => true); select coco.add_source('f', 'b'); select coco.add_source('f', 'c');
         select coco.add_target('f', 't', 'select v, 1 as n from a union all select v, 2 from b union all select v, 3 from c', '{v}');
         select coco.add_target('f', '\"T 2\"', 'select v as w, n from a, generate_series(1, 2) n union all select v, 1 from b union all select v, 1 from c', '{w,n}')",
    );
    db.update("f", "normal");
    let item = |target: &str, key: &str| {
        format!("select source || source_key::text from coco.lineage('{target}', '{key}')")
    };
    assert_eq!(rows(&mut db, &item("t", "{\"v\": \"three\"}")), ["b{\"id\": 1}"]);
    assert_eq!(
        rows(&mut db, &item("public.\"T 2\"", "{\"w\": \"four\", \"n\": 1}")),
        ["c{\"x\": 1, \"y\": 1}"]
    );
    let out = |key: &str, of: &str| {
        format!(
            "select concat_ws(' ', source, target, key) from coco.outputs('f', '{key}'{of}) order by 1"
        )
    };
    assert_eq!(
        rows(&mut db, &out("{\"id\": 1}", "")),
        [
            "a public.\"T 2\" {\"n\": 1, \"w\": \"one\"}",
            "a public.\"T 2\" {\"n\": 2, \"w\": \"one\"}",
            "a public.t {\"v\": \"one\"}",
            "b public.\"T 2\" {\"n\": 1, \"w\": \"three\"}",
            "b public.t {\"v\": \"three\"}",
        ]
    );
    assert_eq!(rows(&mut db, &out("{\"id\": 1}", ", source_name => 'b'")).len(), 2);
    assert_eq!(rows(&mut db, &out("{\"x\": 1, \"y\": 1}", "")).len(), 2);
    let e = fails(&mut db, &out("{\"id\": 1}", ", source_name => 'c'"), "42703");
    assert!(e.contains("\"c\" has no column \"id\"") && e.contains("x, y"), "{e}");
    fails(&mut db, &out("{\"id\": 1}", ", source_name => 'd'"), "42704");
    // Sources that are declared later have their index too.
    assert_eq!(
        rows(
            &mut db,
            "select count(*)::text from pg_class where relname ~ '^lineage_' and relkind = 'i'"
        ),
        ["3"]
    );
    db.run("select coco.alter_flow('f', lineage_index => false)");
    assert_eq!(
        rows(
            &mut db,
            "select count(*)::text from pg_class where relname ~ '^lineage_' and relkind = 'i'"
        ),
        ["0"]
    );
    assert_eq!(rows(&mut db, &item("t", "{\"v\": \"three\"}")), ["b{\"id\": 1}"]);
}

#[test]
fn keys_are_checked_and_names_that_are_several_targets() {
    let mut db = TestDb::new("lineage_keys");
    db.run(
        "create table d (id int primary key, at timestamptz, tags text[]); insert into d values (1, '2025-01-01 12:00+02', '{a,b}');
         select coco.create_flow('f', 'd', 'select id, at, tags from d', 't', '{at,tags}');
         create schema s; select coco.create_flow('g', 'd', 'select id from d', 's.t', '{id}')",
    );
    db.update("f", "normal");
    let e = fails(&mut db, "select * from coco.lineage('t', '{}')", "22023");
    assert!(e.contains("target name \"t\" is ambiguous") && e.contains("f, g"), "{e}");
    for (key, code, says) in [
        ("{\"id\": 1}", "42703", "no column \"id\""),
        ("{\"at\": \"2025-01-01\"}", "22023", "key column \"tags\""),
        ("{\"at\": null, \"tags\": []}", "22023", "key column \"at\""),
        ("[1]", "22023", "not a JSON object"),
        ("{\"at\": \"no time\", \"tags\": []}", "22007", "no time"),
    ] {
        let e = fails(&mut db, &format!("select * from coco.lineage('public.t', '{key}')"), code);
        assert!(e.contains(says), "{key}: {e}");
    }
    fails(&mut db, "select * from coco.lineage('nowhere', '{}')", "42704");
    fails(&mut db, "select * from coco.outputs('nowhere', '{}')", "42704");
    // A key is found whatever it is written as, by its value as JSON too.
    for at in ["2025-01-01 10:00Z", "2025-01-01T19:00:00+09:00"] {
        assert_eq!(
            rows(
                &mut db,
                &format!(
                    "select source_key::text from coco.lineage('t', '{{\"at\": \"{at}\", \"tags\": [\"a\", \"b\"]}}', flow_name => 'f')"
                )
            ),
            ["{\"id\": 1}"],
            "{at}"
        );
    }
    assert_eq!(
        rows(
            &mut db,
            "select l.source_key::text from coco.outputs('f', '{\"id\": 1}') o, coco.lineage(o.target, o.key) l"
        ),
        ["{\"id\": 1}"]
    );
}

/// What Postgres allows in a jsonb and a tree of serde_json does not hold: all digits of a number, more than 128
/// levels. As keys they are values like others.
#[test]
fn a_key_may_be_any_json() {
    let mut db = TestDb::new("lineage_any_json");
    db.run(
        "create table d (id numeric primary key, body text);
         insert into d values (1e400, 'huge'), (12345678901234567890.123456789, 'a'), (12345678901234567890.123456788, 'b');
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}')",
    );
    db.update("f", "normal");
    for (id, body) in [
        ("1e400", "huge"),
        ("12345678901234567890.123456789", "a"),
        ("12345678901234567890.123456788", "b"),
    ] {
        assert_eq!(
            rows(
                &mut db,
                &format!(
                    "select t.body from coco.outputs('f', '{{\"id\": {id}}}') o, coco.lineage(o.target, o.key) l, t
                      where t.id = (o.key->>'id')::numeric and t.id = (l.source_key->>'id')::numeric"
                )
            ),
            [body],
            "{id}"
        );
    }
    // Verified as well, which shows keys.
    db.run("delete from t");
    assert_eq!(
        rows(&mut db, "select key->>'id' from coco.verify('f') order by (key->>'id')::numeric"),
        [
            "12345678901234567890.123456788".to_owned(),
            "12345678901234567890.123456789".to_owned(),
            format!("1{}", "0".repeat(400)),
        ]
    );
    for call in ["coco.outputs('f', ", "coco.lineage('t', "] {
        let deep = "repeat('[', 2000) || repeat(']', 2000)";
        let key = format!("('{{\"id\": ' || {deep} || '}}')::jsonb");
        let e = fails(&mut db, &format!("select * from {call}{key})"), "22P02");
        assert!(e.contains("numeric"), "{e}");
        let e = fails(&mut db, &format!("select * from {call}({deep})::jsonb)"), "22023");
        assert!(e.contains("not a JSON object"), "{e}");
    }
}

/// Options are looked into: what cannot be is an error that says so.
#[test]
fn options_that_cannot_be_read_are_refused() {
    let mut db = TestDb::new("lineage_options");
    db.run("create table d (id int primary key)");
    for options in ["'{\"batch_rows\": 1e400}'", "(repeat('[', 200) || repeat(']', 200))::jsonb"] {
        let call = format!(
            "select coco.create_flow('f', 'd', 'select id from d', 't', '{{id}}', server => 's', options => {options})"
        );
        let e = fails(&mut db, &call, "22023");
        assert!(e.contains("argument \"options\" contains JSON that coco cannot read"), "{e}");
    }
}

#[test]
fn lineage_is_the_owners() {
    let mut db = TestDb::new("lineage_rights");
    db.run(
        "do $$ begin create role coco_bob login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_bob; create table d (id int primary key); insert into d values (1);
         select coco.create_flow('f', 'd', 'select id from d', 't', '{id}'); select coco.update('f')",
    );
    let mut bob = db.connect_as("coco_bob");
    for (sql, code) in [
        ("select * from coco.lineage('t', '{\"id\": 1}')", "42704"),
        ("select * from coco.outputs('f', '{\"id\": 1}')", "42501"),
        ("select * from coco_internal.flow_label", "42501"),
    ] {
        let e = bob.query(sql, &[]).expect_err(sql);
        assert_eq!(e.code().map(|c| c.code()), Some(code), "{sql}: {}", support::explain(&e));
    }
}

/// Neither reads a tracking table, a target or a ledger as a whole: what EXPLAIN says of the statements
/// that they run.
#[test]
fn lineage_and_outputs_go_by_indexes() {
    let mut db = TestDb::new("lineage_plans");
    db.run(
        "create table d (id int primary key, v text);
         insert into d select i, 'v' || i from generate_series(1, 20000) i;
         select coco.create_flow('covered', 'd', 'select id, n, v from d, generate_series(1, 2) n', 'c', '{id,n}');
         select coco.create_flow('listed', 'd', 'select v, id from d', 'l', '{v}');
         select coco.alter_flow('listed', lineage_index => true);
         select coco.update('covered'); select coco.update('listed');
         update d set v = 'v1' where id = 7; select coco.update('listed')",
    );
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |line| hear.lock().expect("lines").push(line));
    client
        .batch_execute(
            "load 'auto_explain'; set auto_explain.log_min_duration = 0;
             set auto_explain.log_nested_statements = on; set auto_explain.log_level = 'notice'",
        )
        .unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    for (analyzed, sql, count) in [
        (false, "select source_key::text from coco.lineage('c', '{\"id\": 500, \"n\": 1}')", 1),
        (false, "select source_key::text from coco.lineage('l', '{\"v\": \"v1\"}')", 2),
        (false, "select key::text from coco.outputs('covered', '{\"id\": 500}')", 2),
        (false, "select key::text from coco.outputs('listed', '{\"id\": 500}')", 1),
        (true, "select source_key::text from coco.lineage('c', '{\"id\": 501, \"n\": 1}')", 1),
        (true, "select source_key::text from coco.lineage('l', '{\"v\": \"v1\"}')", 2),
        (true, "select key::text from coco.outputs('covered', '{\"id\": 501}')", 2),
        (true, "select key::text from coco.outputs('listed', '{\"id\": 501}')", 1),
    ] {
        if analyzed {
            db.run("analyze");
        }
        heard.lock().expect("lines").clear();
        assert_eq!(texts(&mut client, sql).len(), count, "{sql}");
        let plans = heard.lock().expect("lines").join("\n");
        let whole = |line: &&str| {
            line.contains("Seq Scan on")
                && ["tracking_", " c x", " l x"].iter().any(|t| line.contains(t))
        };
        assert_eq!(plans.lines().find(whole), None, "{sql}\n{plans}");
        let by_index =
            ["Index Scan using", "Index Only Scan using"].iter().any(|scan| plans.contains(scan));
        assert!(by_index && plans.contains("tracking_"), "{sql}\n{plans}");
    }
}

/// Of a target elsewhere the ledger has the keys.
#[cfg(feature = "http")]
#[test]
fn targets_outside_this_database() {
    let receiver = http::Receiver::start();
    let mut db = TestDb::new("lineage_external");
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}');
         create user mapping for postgres server hook;
         create table d (id int primary key, v text); insert into d values (1, 'a'), (2, 'b');
         select coco.create_flow('f', 'd', 'select id, n, v from d, generate_series(1, 2) n', 'out', '{{id,n}}', server => 'hook');
         select coco.create_flow('g', 'd', 'select v, id from d', 'listed', '{{v}}', server => 'hook')",
        receiver.url()
    ));
    db.update("f", "normal");
    db.update("g", "normal");
    for (target, key) in [("out", "{\"id\": 2, \"n\": 1}"), ("listed", "{\"v\": \"b\"}")] {
        assert_eq!(
            rows(
                &mut db,
                &format!(
                    "select concat_ws(' ', source_key, state) from coco.lineage('{target}', '{key}')"
                )
            ),
            ["{\"id\": 2} produced"]
        );
    }
    assert!(
        rows(&mut db, "select flow from coco.lineage('out', '{\"id\": 2, \"n\": 3}')").is_empty()
    );
    let outputs = |flow: &str| {
        format!(
            "select concat_ws(' ', target, key, owned_by_list) from coco.outputs('{flow}', '{{\"id\": 2}}') order by 1"
        )
    };
    assert_eq!(
        rows(&mut db, &outputs("f")),
        ["out {\"n\": 1, \"id\": 2} f", "out {\"n\": 2, \"id\": 2} f"]
    );
    assert_eq!(rows(&mut db, &outputs("g")), ["listed {\"v\": \"b\"} t"]);
}
