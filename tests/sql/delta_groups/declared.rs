//! Which flows can keep their groups by deltas, and how declarations, `coco.explain` and rights treat them.

use crate::support;

use super::{SALES, create};
use crate::compared::{is_the_query, refused, rows, text};
use support::{TestDb, explain, update};

#[test]
fn a_changed_query_a_new_name_and_a_new_owner_keep_the_flow_whole() {
    let mut db = TestDb::new("delta_groups_changed");
    db.run(SALES);
    let first = "select region, sum(amount) as total from sales group by region";
    db.run(&create("f", "sales", first, "region"));
    db.update("f", "normal");
    let second = "select region, count(*) filter (where paid) as total, max(n) as most from sales group by region";
    db.run(&format!("select coco.set_query('f', null, $q$ {second} $q$)"));
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", second, "another query");
    db.run("update sales set n = 500 where id = 5");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", second, "a change");
    let message = refused(
        &mut db,
        "select coco.set_query('f', null, 'select region, array_agg(n) as all_n from sales group by region')",
    );
    assert!(
        message.starts_with("0A000 | cannot keep groups by deltas: the query calls array_agg"),
        "{message}"
    );
    db.run("select coco.rename_flow('f', 'g'); update sales set n = 600 where id = 6");
    db.update("g", "normal");
    is_the_query(&mut db, "g", "f_t", second, "another name");
    let names = rows(
        &mut db,
        "select relname from pg_class where relname ~ '^(rows|groups)_[0-9]+_' and relkind = 'v' order by 1",
    );
    assert!(names.len() == 2 && names.iter().all(|name| name.ends_with("_g")), "{names:?}");
    db.run("alter table sales rename column amount to worth; alter table sales rename to sold; update sold set n = 700 where id = 7");
    db.update("g", "normal");
    is_the_query(&mut db, "g", "f_t", &second.replace("sales", "sold"), "other names of the table");
    db.run("select coco.drop_flow('g', keep_targets => false)");
    let left = rows(
        &mut db,
        "select relname from pg_class where relname ~ '^(rows|groups|contributions)_[0-9]' and relkind in ('r', 'v')",
    );
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_declaration_says_how_groups_are_kept() {
    let mut db = TestDb::new("delta_groups_declared");
    db.run(SALES);
    let query = "select region, sum(amount) as total from sales group by region";
    let create = |aggregate: &str| {
        format!(
            "select coco.create_flow('f', 'sales', '{query}', 't', '{{region}}', source_key => '{{region}}',
               or_replace => true{aggregate})"
        )
    };
    db.run(&create(""));
    db.update("f", "normal");
    assert_eq!(text(&mut db, "select aggregate from coco.flows"), "group");
    db.run(&create(", aggregate => 'delta'"));
    assert_eq!(text(&mut db, "select aggregate from coco.flows"), "delta");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "another declaration");
    // The same declaration changes nothing.
    db.run(&create(", aggregate => 'delta'"));
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    let definition = text(&mut db, "select coco.flow_definition('f')");
    assert!(definition.contains("aggregate => 'delta'"), "{definition}");
    db.run("select coco.drop_flow('f')");
    db.run(&definition);
    assert_eq!(text(&mut db, "select aggregate from coco.flows"), "delta");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "the definition");
    db.run(&create(", aggregate => 'group'"));
    assert_eq!(text(&mut db, "select aggregate from coco.flows"), "group");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "t", query, "as groups again");
}

#[test]
fn the_query_alone_declares_groups_too() {
    let mut db = TestDb::new("delta_groups_query_alone");
    db.run(SALES);
    let query = "select region, sum(amount) as total from sales group by region";
    db.run(&format!("select coco.create_flow('totals', '{query}', aggregate => 'delta')"));
    db.update("totals", "normal");
    db.run("update sales set amount = 1 where id = 1");
    assert_eq!(db.update("totals", "normal")[0].evaluated, 1);
    is_the_query(&mut db, "totals", "totals", query, "a change");
}

#[test]
fn what_has_no_rule_is_refused() {
    let mut db = TestDb::new("delta_groups_refused");
    db.run(SALES);
    db.run(
        "create table other (region text primary key, x int);
         create table bare (region text not null, n int);
         create view seen as select * from sales;
         create aggregate product(numeric) (sfunc = numeric_mul, stype = numeric, initcond = '1')",
    );
    let grouped = |what: &str| format!("select region, {what} as x from sales group by region");
    for (query, why) in [
        (grouped("sum(n::float8)"), "calls sum, and sums of floating-point numbers depend on their order"),
        (grouped("avg(n::real)"), "calls avg, and sums of floating-point numbers depend on their order"),
        (grouped("sum(distinct n)"), "calls sum, with DISTINCT"),
        (grouped("count(distinct n order by n)"), "whose result depends on an order of rows"),
        (grouped("array_agg(n)"), "calls array_agg, for which there is no rule"),
        (grouped("string_agg(note, ',')"), "calls string_agg, for which there is no rule"),
        (grouped("sum(n order by n)"), "calls sum, whose result depends on an order of rows"),
        (grouped("percentile_cont(0.5) within group (order by n)"), "whose result depends on an order of rows"),
        (grouped("variance(n)"), "calls variance, for which there is no rule"),
        (grouped("product(amount)"), "which is not an aggregate of PostgreSQL itself"),
        (grouped("min(rate)"), "calls min, and equal values of type numeric can differ"),
        (grouped("max(n::float8)"), "equal values of type double precision can differ"),
        (grouped("sum(n + (random() * 0)::int)"), "calls sum, over a volatile function"),
        (grouped("(select max(x) from other)"), "has a subquery"),
        (grouped("sum(sum(n)) over ()"), "has a window function"),
        (grouped("generate_series(1, 2)"), "has a function that returns a set"),
        ("select region, n, count(*) as x from sales group by region, n".to_owned(), "does not group by exactly the columns"),
        ("select min(region) as region, count(*) as x from sales".to_owned(), "has no GROUP BY"),
        ("select lower(region) as region, count(*) as x from sales group by lower(region)".to_owned(), "does not group by exactly the columns of the source key"),
        ("select s.region, count(*) as x from sales s join other o on o.region = s.region group by s.region".to_owned(), "reads more in FROM"),
        ("select region, count(*) as x from (select * from sales) s group by region".to_owned(), "reads more in FROM"),
        ("select region, count(*) as x from sales group by region limit 1".to_owned(), "has LIMIT or OFFSET"),
        ("select distinct region, count(*) as x from sales group by region".to_owned(), "has DISTINCT"),
        ("select region, count(*) as x from sales group by rollup (region)".to_owned(), "has grouping sets"),
        ("with a as (select 1) select region, count(*) as x from sales group by region".to_owned(), "has WITH"),
    ] {
        let message = refused(&mut db, &create("f", "sales", &query, "region"));
        let whole = message.starts_with("0A000 | cannot keep groups by deltas: ")
            && message.contains(why)
            && message.ends_with("| Declare the flow without aggregate => 'delta'. coco then evaluates a changed item as a whole.");
        assert!(whole, "{query}: {message}");
        assert_eq!(text(&mut db, "select count(*) from coco.flows"), "0", "{query}");
    }
    let query = "select region, count(*) as x from bare group by region";
    let message = refused(&mut db, &create("f", "bare", query, "region"));
    assert!(message.contains("public.bare has no primary key"), "{message}");
    assert!(message.contains("| Run ALTER TABLE public.bare ADD PRIMARY KEY"), "{message}");
    let query = "select region, count(*) as x from seen group by region";
    let message = refused(&mut db, &create("f", "seen", query, "region"));
    assert!(message.contains("changes of public.seen are not captured"), "{message}");
    let query = "select rate, count(*) as x from sales group by rate";
    let message = refused(&mut db, &create("f", "sales", query, "rate"));
    assert!(
        message.contains("groups by rate, and equal values of type numeric can differ"),
        "{message}"
    );
    let message = refused(
        &mut db,
        "select coco.create_flow('f', 'sales', 'select region, count(*) as x from sales group by region', 't', '{region}',
           source_key => '{region}', fingerprint => 'n', aggregate => 'delta')",
    );
    assert!(message.contains("the source has a fingerprint"), "{message}");
    let message = refused(&mut db, "select coco.create_flow('f', aggregate => 'much')");
    assert_eq!(
        message,
        "22023 | unrecognized value for argument \"aggregate\": \"much\" |  | Valid values are delta and group."
    );
    let query = "select region, count(*) as x from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    for (call, what) in [
        ("select coco.add_lookup('f', 'other')", "a lookup"),
        (
            "select coco.add_target('f', 'u', 'select region, count(*) as x from sales group by region', '{region}')",
            "several targets",
        ),
        ("select coco.alter_flow('f', fingerprint => 'n')", "an ordinal or a fingerprint"),
        (
            "select coco.alter_flow('f', capture => 'scan')",
            "a source whose changes are not captured",
        ),
        (
            "select coco.set_query('f', null, 'select region, count(n) as x from sales group by region', gapless => true)",
            "a second version",
        ),
    ] {
        let message = refused(&mut db, call);
        assert!(
            message.starts_with("0A000 | cannot keep groups by deltas: flow \"f\" would have "),
            "{call}: {message}"
        );
        assert!(message.contains(what), "{call}: {message}");
    }
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "what was refused");
}

#[test]
fn the_owner_needs_no_right_on_the_states() {
    let mut db = TestDb::new("delta_groups_rights");
    db.run(SALES);
    db.run(
        "do $$ begin create role coco_delta_owner login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage, create on schema public to coco_delta_owner;
         grant select, trigger on sales to coco_delta_owner;
         grant usage on schema coco to coco_delta_owner",
    );
    let query = "select region, sum(amount) as total, max(n) as most from sales group by region";
    let mut owner = db.connect_as("coco_delta_owner");
    owner.batch_execute(&create("f", "sales", query, "region")).expect("the owner declares");
    update(&mut owner, "f", "normal").unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.run("update sales set amount = 1, n = 100 where id = 1");
    update(&mut owner, "f", "normal").unwrap_or_else(|e| panic!("{}", explain(&e)));
    is_the_query(&mut db, "f", "f_t", query, "a change");
    let id = text(&mut db, "select id from coco_internal.source where flow = 'f'");
    for statement in [
        format!("select * from coco_internal.contributions_{id}"),
        format!("select * from coco_internal.groups_{id}"),
        format!("update coco.groups_{id}_f set rows = 0"),
        format!("drop view coco.rows_{id}_f"),
    ] {
        let e = owner.batch_execute(&statement).expect_err(&statement);
        assert_eq!(e.code().map(|c| c.code().to_owned()).as_deref(), Some("42501"), "{statement}");
    }
    // The right to read the source is that of the moment.
    db.run(
        "revoke select on sales from coco_delta_owner; update sales set amount = 2 where id = 2",
    );
    let e = update(&mut owner, "f", "normal").expect_err("no right");
    assert_eq!(e.code().map(|c| c.code().to_owned()).as_deref(), Some("42501"), "{e}");
    db.run("grant select on sales to coco_delta_owner");
    update(&mut owner, "f", "normal").unwrap_or_else(|e| panic!("{}", explain(&e)));
    is_the_query(&mut db, "f", "f_t", query, "the right again");
    drop(owner);
    db.run("select coco.drop_flow('f', keep_targets => false)");
}

#[test]
fn explain_says_which_way_and_why() {
    let mut db = TestDb::new("delta_groups_explain");
    db.run(SALES);
    let said = "select translate(detail || coalesce(' ' || hint, ''), E'\\n', ' ') from coco.explain('f') where section = 'groups'";
    let query = "select region, sum(amount) as total from sales group by region";
    db.run(&create("f", "sales", query, "region"));
    let found = text(&mut db, said);
    assert!(found.contains("coco keeps the groups by deltas"), "{found}");
    let plan = text(
        &mut db,
        "select string_agg(detail, ' ') from coco.explain('f') where section = 'plan for one item'",
    );
    assert!(plan.contains("groups_") && !plan.contains(" on sales"), "{plan}");
    db.run("select coco.drop_flow('f')");
    db.run(&format!("select coco.create_flow('f', 'sales', '{query}', 'f_t', '{{region}}', source_key => '{{region}}')"));
    let found = text(&mut db, said);
    assert!(found.contains("declared without aggregate => 'delta'"), "{found}");
    db.run("select coco.drop_flow('f')");
    db.run(
        "select coco.create_flow('f', 'sales', 'select region, array_agg(n) as x from sales group by region', 'g_t', '{region}',
           source_key => '{region}')",
    );
    let found = text(&mut db, said);
    assert!(found.contains("could not keep them by deltas: the query calls array_agg"), "{found}");
}
