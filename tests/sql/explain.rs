//! What coco.explain says of a flow: it is what is planned and what happens, and it executes nothing.

use crate::support;

use support::{TestDb, explain as error_text};

/// A line for each finding: section, name, detail and hint, its line breaks as spaces.
fn findings(db: &mut TestDb, flow: &str) -> Vec<[String; 4]> {
    let rows =
        db.client.query("select section, name, detail, hint from coco.explain($1)", &[&flow]);
    let rows = rows.unwrap_or_else(|e| panic!("explain: {}", error_text(&e)));
    let flat = |text: Option<String>| text.unwrap_or_default().replace('\n', " ");
    rows.iter().map(|r| [0, 1, 2, 3].map(|n| flat(r.get(n)))).collect()
}

fn of<'a>(all: &'a [[String; 4]], section: &str) -> Vec<&'a [String; 4]> {
    let found: Vec<_> = all.iter().filter(|f| f[0] == section).collect();
    assert!(!found.is_empty(), "nothing of section {section} in {all:#?}");
    found
}

fn has(all: &[[String; 4]], section: &str, text: &str) {
    let found = of(all, section);
    assert!(found.iter().any(|f| f.join(" | ").contains(text)), "{text} is not in {found:#?}");
}

/// Orders with customers (20,000 rows, 1 to 2 MB each).
const ORDERS: &str = "
create table cust (id int primary key, region text, name text);
insert into cust select i, 'r' || i % 10, repeat(md5(i::text), 2) from generate_series(1, 20000) i;
create table orders (id int primary key, cust int not null, amount numeric, note text);
insert into orders select i, 1 + i % 20000, i, repeat('x', 50) from generate_series(1, 20000) i;
analyze cust, orders";

#[test]
fn a_batch_is_joined_as_a_whole() {
    let mut db = TestDb::new("explain_joined");
    db.run(ORDERS);
    // No index is of use: for each item by itself all customers would be read.
    db.run(
        "alter table cust drop constraint cust_pkey;
         select coco.create_flow('f', 'orders', 'select o.id, o.amount, c.name from orders o, cust c where c.id = o.cust', 't', '{id}')",
    );
    let all = findings(&mut db, "f");
    has(&all, "plan for a batch", "Hash Join");
    has(&all, "set-based", "yes");
    assert_eq!(db.update("f", "normal")[0].upserted, 20_000);
    db.verify_clean("f");
}

#[test]
fn it_says_what_is_covered_and_what_leads_to_what() {
    let mut db = TestDb::new("explain_covered");
    db.run(ORDERS);
    db.run(
        "create function tax(n numeric) returns numeric language sql immutable as 'select n * 1.19';
         select coco.create_flow('f');
         select coco.add_source('f', 'orders', fingerprint => 'amount || note');
         select coco.add_lookup('f', 'cust', affects => 'select o.id from cust c join orders o on o.cust = c.id');
         select coco.add_target('f', 't', 'select o.id, tax(o.amount) as total, c.name from orders o join cust c on c.id = o.cust', '{id}')",
    );
    let all = findings(&mut db, "f");
    has(&all, "source", "public.orders: an item is a row, identified by (id); capture: trigger");
    has(&all, "lookup", "public.cust");
    has(
        &all,
        "target",
        "owned by key: an item's rows are those with the item's key in (id); managed",
    );
    has(&all, "content fingerprint", "the value of amount || note, and nothing else");
    has(&all, "logic fingerprint", "function public.tax(numeric)");
    has(&all, "logic fingerprint", "query, columns and key of target public.t");
    has(&all, "logic fingerprint", "not run yet");
    has(
        &all,
        "change",
        "a row is inserted, deleted or changed in id, region, name: the items of orders that the query \"affects\" returns",
    );
    has(&all, "change", "triggers do not fire");
    assert!(!all.iter().any(|f| f[0] == "warning"), "{all:#?}");
    db.update("f", "normal");
    let logic = of(&findings(&mut db, "f"), "logic fingerprint")[0][2].clone();
    assert!(!logic.contains("not run yet"), "{logic}");
    db.run("create or replace function tax(n numeric) returns numeric language sql immutable as 'select n * 1.2'");
    has(&findings(&mut db, "f"), "logic fingerprint", "not run yet");

    db.run(
        "create table s (id int primary key, g int not null, v int, w int);
         select coco.create_flow('g', 's', source_key => '{g}', query => 'select g, sum(v) as v from s group by g', target => 'tg', key => '{g}');
         create table l (id int primary key, v int, w int);
         select coco.create_flow('l', 'l', 'select v, id from l', 'tl', '{v}', capture => 'scan')",
    );
    let all = findings(&mut db, "g");
    has(&all, "source", "an item is the group of the rows with the same (g)");
    has(&all, "content fingerprint", "of all rows of the group: g, v;");
    let all = findings(&mut db, "l");
    has(&all, "target", "owned by list: the keys of an item's rows are stored in coco.tracking_");
    has(&all, "content fingerprint", "the columns that the queries use: id, v;");
    has(&all, "source", "was never analyzed");
    has(&all, "change", "by the next coco.update, which reads the whole relation");
}

#[test]
fn it_tells_set_based_from_what_is_done_again_for_each_item() {
    let mut db = TestDb::new("explain_set_based");
    db.run(ORDERS);
    db.run(
        "create table few (code text primary key, label text);
         insert into few select 'r' || i, 'x' from generate_series(0, 9) i; analyze few;
         select coco.create_flow('join', 'orders', 'select o.id, c.name, f.label from orders o join cust c on c.id = o.cust join few f on f.code = c.region', 'a', '{id}');
         select coco.create_flow('sub', 'orders', 'select o.id, (select count(*) from cust c where c.region = o.note) as n from orders o', 'b', '{id}')",
    );
    let all = findings(&mut db, "join");
    assert!(of(&all, "set-based").iter().all(|f| f[2].starts_with("yes")), "{all:#?}");
    has(&all, "plan for one item", "Named Tuplestore Scan");
    has(&all, "plan for one item", "Index Scan using orders_pkey");
    has(&all, "index", "none is missing");
    let all = findings(&mut db, "sub");
    has(&all, "set-based", "no: read as a whole for each item: public.cust (");
    has(&all, "index", "CREATE INDEX ON public.cust (region);");
    // What it asks for is what helps.
    db.run("create index on public.cust (region); analyze cust");
    let all = findings(&mut db, "sub");
    has(&all, "set-based", "yes");
    has(&all, "index", "none is missing");
}

#[test]
fn statements_and_plans_stand_as_they_are() {
    let mut db = TestDb::new("explain_verbatim");
    db.run(ORDERS);
    let query = "select o.id, c.name as a_name_that_is_long, c.region as another_name_that_is_long, o.note as and_yet_another_one from orders o join cust c on c.id = o.cust";
    db.run(&format!("select coco.create_flow('f', 'orders', '{query}', 'a', '{{id}}')"));
    let rows = db.client.query("select section, detail from coco.explain('f')", &[]).unwrap();
    let details: Vec<(String, String)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let of = |section: &'static str| {
        details.iter().filter(move |(s, _)| s == section).map(|(_, detail)| detail)
    };
    assert!(of("query").all(|d| d.contains(query)));
    for plan in of("plan for one item").chain(of("plan for a batch")) {
        let nodes = plan.lines().filter(|l| l.contains("->"));
        let whole = |l: &str| l.contains("(cost=") && l.ends_with(')');
        assert!(nodes.clone().count() > 1 && nodes.clone().all(whole), "{plan}");
    }
    // All else is broken into lines, to stand in a terminal.
    assert!(of("change").all(|d| d.lines().all(|l| l.chars().count() <= 80)));
}

#[test]
fn the_plan_for_a_batch_is_that_of_many_items() {
    let mut db = TestDb::new("explain_batch");
    db.run(ORDERS);
    db.run("select coco.create_flow('f', 'orders', 'select id, note from orders', 'a', '{id}')");
    let rows = |db: &mut TestDb, size: i32| {
        db.run(&format!("set coco.batch_size = {size}"));
        let all = findings(db, "f");
        has(&all, "plan for a batch", &format!("For {size} items"));
        let plan = of(&all, "plan for a batch")[0][2].clone();
        let scan = plan.split("Named Tuplestore Scan").nth(1).unwrap_or_default();
        let cost =
            scan.split("..").nth(1).unwrap_or_default().split(' ').next().unwrap_or_default();
        cost.parse::<f64>().unwrap_or_else(|e| panic!("{e}: {plan}"))
    };
    let (few, many) = (rows(&mut db, 10), rows(&mut db, 100_000));
    assert!(many > 1000.0 * few, "{few} {many}");
    db.run("select coco.alter_flow('f', batch_size => 77)");
    has(&findings(&mut db, "f"), "plan for a batch", "For 77 items, the flow's batch_size.");
}

#[test]
fn indexes_that_an_update_would_want() {
    let mut db = TestDb::new("explain_indexes");
    db.run(ORDERS);
    db.run(
        r#"create table "Odd ""table" (id int primary key, "the ""code" int, pad text);
         insert into "Odd ""table" select i, i, repeat('x', 80) from generate_series(1, 20000) i;
         analyze "Odd ""table";
         select coco.create_flow('g', 'orders', source_key => '{cust}', query => 'select cust, sum(amount) as s from orders group by cust', target => 'tg', key => '{cust}');
         create table tk (n int, id int, note text, primary key (n, id));
         select coco.create_flow('k', 'orders', $$ select n, id, note from orders, generate_series(1, 2) n $$, 'tk', '{n,id}');
         select coco.create_flow('q', 'orders', $$ select o.id, x.id as x from orders o join "Odd ""table" x on x."the ""code" = o.cust $$, 'tq', '{id,x}')"#,
    );
    has(&findings(&mut db, "g"), "index", "CREATE INDEX ON public.orders (cust);");
    let all = findings(&mut db, "k");
    has(&all, "index", "CREATE INDEX ON public.tk (id);");
    let wanted: Vec<String> = [of(&all, "index"), of(&findings(&mut db, "q"), "index")]
        .concat()
        .iter()
        .map(|f| f[3].clone())
        .collect();
    assert_eq!(wanted[1], r#"CREATE INDEX ON public."Odd ""table" ("the ""code");"#, "{wanted:?}");
    for create in &wanted {
        db.run(create);
    }
    db.run("analyze");
    for flow in ["k", "q"] {
        has(&findings(&mut db, flow), "index", "none is missing");
    }
}

#[test]
fn nothing_of_the_flow_is_executed() {
    let mut db = TestDb::new("explain_nothing");
    db.run(
        "create sequence called;
         create function call(i int) returns int language plpgsql as $$ begin perform nextval('called'); return i; end $$;
         create function dear(i int) returns int language plpgsql immutable as $$ begin perform nextval('called'); return i; end $$;
         select coco.memoize('dear(int)');
         create table d (id int primary key, v int); insert into d values (1, 1), (2, 2);
         select coco.create_flow('f', 'd', 'select id, call(v) as v, dear(v) as w from d where call(id) > 0', 't', '{id}')",
    );
    let all = findings(&mut db, "f");
    has(&all, "memoized function", "public.dear(integer)");
    has(&all, "memoized function", "computed by the query");
    has(&all, "warning", "the query calls the volatile function call");
    // Also where it may not write.
    db.run("begin read only; select * from coco.explain('f'); rollback");
    let called: bool = db.client.query_one("select is_called from called", &[]).unwrap().get(0);
    assert!(!called);
    let tracked: i64 =
        db.client.query_one("select count(*) from coco.tracking", &[]).unwrap().get(0);
    assert_eq!(tracked, 0);
}

#[test]
fn what_is_wrong_is_said() {
    let mut db = TestDb::new("explain_wrong");
    db.run(
        "create table d (id int primary key, v int); create table other (id int primary key);
         select coco.create_flow('f', 'd', 'select d.id, o.id as o from d, other o', 't', '{id,o}');
         select coco.create_flow('empty'); select coco.add_source('empty', 'd')",
    );
    has(&findings(&mut db, "f"), "warning", "the query reads public.other, which is not a source");
    has(&findings(&mut db, "empty"), "warning", "the flow has no target yet");
    db.run("select coco.alter_flow('f', paused => true)");
    has(&findings(&mut db, "f"), "warning", "the flow is paused");
    db.run("select coco.alter_flow('f', paused => false)");
    db.run("alter table d disable trigger all");
    has(
        &findings(&mut db, "f"),
        "warning",
        "not every change of the table is captured: each update reads the whole table",
    );
    db.run("alter table d enable trigger all; drop table t");
    let all = findings(&mut db, "f");
    has(&all, "warning", "the target was dropped");
    assert!(!all.iter().any(|f| f[2].contains("not every change")), "{all:#?}");
    let e =
        db.client.execute("select * from coco.explain('no such')", &[]).expect_err("no such flow");
    assert_eq!(e.code().map(|c| c.code()), Some("42704"), "{}", error_text(&e));
}

#[test]
fn it_plans_as_the_owner_and_for_the_owner_alone() {
    let mut db = TestDb::new("explain_rights");
    db.run(
        "do $$ begin create role coco_explain_owner login; exception when duplicate_object or unique_violation then null; end $$;
         do $$ begin create role coco_explain_other login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_explain_owner, coco_explain_other;
         create schema mine authorization coco_explain_owner; create table public.secret (id int primary key)",
    );
    let mut owner = db.connect_as("coco_explain_owner");
    owner
        .batch_execute(
            "set search_path = mine; create table d (id int primary key);
             select coco.create_flow('mine', 'd', 'select id from d', 't', '{id}');
             select coco.create_flow('reads', 'd', 'select id, (select count(*) from public.secret) as n from d', 'u', '{id}')",
        )
        .unwrap_or_else(|e| panic!("{}", error_text(&e)));
    // Under another search path than the flow's.
    owner
        .batch_execute("reset search_path; select * from coco.explain('mine')")
        .unwrap_or_else(|e| panic!("{}", error_text(&e)));
    // A superuser who asks sees what the owner may not.
    for client in [&mut owner, &mut db.client] {
        let e = client.execute("select * from coco.explain('reads')", &[]).expect_err("secret");
        assert_eq!(e.code().map(|c| c.code()), Some("42501"), "{}", error_text(&e));
    }
    let mut other = db.connect_as("coco_explain_other");
    let e = other.execute("select * from coco.explain('mine')", &[]).expect_err("not the owner");
    assert!(error_text(&e).contains("must be owner of flow \"mine\""), "{}", error_text(&e));
}
