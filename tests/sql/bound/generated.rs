//! Queries as dbt, ORMs and users of psql send them: with comments, semicolons and three-part names, and with the source
//! several times under aliases that nobody chose.

use std::sync::{Arc, Mutex};

use super::support::TestDb;
use super::{differences, follows, quoted, refused, text};

/// Orders with a column that refers to another order.
fn shop(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create schema shop; set search_path = shop, public;
         create table shop.orders (id int primary key, customer_id int not null, parent_id int, total numeric not null);
         insert into shop.orders values (1, 1, null, 10), (2, 2, 1, 20.5), (3, 1, 1, 0), (4, 1, null, 7)",
    );
    db
}

const CHANGE: &str = "update shop.orders set customer_id = 2, total = 8 where id = 4;
    insert into shop.orders values (5, 2, 4, 1), (6, 1, 2, 3); delete from shop.orders where id = 3";

#[test]
fn a_query_may_end_with_semicolons_and_comments() {
    let mut db = shop("bound_endings");
    let query = "select id, total from shop.orders";
    let all = [
        "@;",
        "@;\n",
        "@ ; ",
        "@;;",
        "@; -- the end",
        "@;\n-- the end\n",
        "@ /* the end */ ; /* a comment; with a semicolon */",
        "@ -- no line break after this",
        "-- the start; of it\n@",
        "/* {\"app\": \"dbt\"} */\n\n@\n;\n\n",
        "(@)",
        "  (\n@\n)  ;",
        "; @",
    ];
    for (n, form) in all.iter().enumerate() {
        let written = quoted(&form.replace('@', query));
        db.run(&format!(
            "select coco.create_flow('f{n}', 'orders', {written}, 'shop.t{n}', '{{id}}')"
        ));
        follows(&mut db, &format!("f{n}"), &format!("shop.t{n}"), query);
        db.run(&format!("select coco.set_query('f{n}', null, {written})"));
    }
    db.run(CHANGE);
    for n in 0..all.len() {
        follows(&mut db, &format!("f{n}"), &format!("shop.t{n}"), query);
    }
    for (form, reason) in [
        ("@; @;", "2 statements"),
        (";", "empty"),
        ("-- only this", "empty"),
        ("@; -- a\n@", "2 statements"),
    ] {
        let written = quoted(&form.replace('@', query));
        let sql = format!("select coco.create_flow('x', 'orders', {written}, 'x', '{{id}}')");
        let (code, said) = refused(&mut db, &sql);
        assert!(code == "42601" && said.contains(reason), "{form}: {said}");
    }
}

#[test]
fn the_name_of_this_database_may_begin_each_name() {
    let mut db = shop("bound_three_parts");
    let here = text(&mut db, "select quote_ident(current_database())");
    let query = format!(r#"select "id", "total" from {here}."shop"."orders""#);
    db.run(&format!(
        "select coco.create_flow('f', '{here}.shop.orders', {}, '{here}.\"shop\".\"The Target\"', '{{id}}')",
        quoted(&query)
    ));
    follows(&mut db, "f", "shop.\"The Target\"", &query);
    let doubled = query.replace("\"total\"", "\"total\" * 2 as total");
    db.run(&format!(
        "select coco.set_query('f', '{here}.shop.\"The Target\"', {})",
        quoted(&doubled)
    ));
    db.run(CHANGE);
    follows(&mut db, "f", "shop.\"The Target\"", &doubled);

    for (source, read, target) in [
        ("elsewhere.shop.orders", "shop.orders", "shop.t"),
        ("shop.orders", "elsewhere.shop.orders", "shop.t"),
        ("shop.orders", "shop.orders", "elsewhere.shop.t"),
    ] {
        let sql = format!(
            "select coco.create_flow('x', '{source}', 'select id from {read}', '{target}', '{{id}}')"
        );
        let (code, said) = refused(&mut db, &sql);
        assert!(code == "0A000" && said.contains("cross-database references"), "{sql}: {said}");
    }
    assert_eq!(text(&mut db, "select string_agg(flow, ',') from coco.flows"), "f");
}

#[test]
fn each_branch_of_a_union_all_may_name_the_source_with_its_schema() {
    let mut db = shop("bound_branches");
    let all = [
        // SQLAlchemy
        "SELECT shop.orders.id, 'a' AS part \nFROM shop.orders UNION ALL SELECT shop.orders.id, 'b' AS part \nFROM shop.orders \nWHERE shop.orders.total > 5",
        r#"select id, 'a' as part from "shop"."orders" union all (select x.id, 'b' from shop.orders x union all select o.id, 'c' from (select * from shop.orders) o)"#,
        "select id, 'a' as part from shop.orders where total > 5 union all select id, 'b' from (values (-1)) v (id) where false",
    ];
    for (n, query) in all.iter().enumerate() {
        db.run(&format!(
            "select coco.create_flow('f{n}', 'orders', {}, 'shop.t{n}', '{{id,part}}')",
            quoted(query)
        ));
        follows(&mut db, &format!("f{n}"), &format!("shop.t{n}"), query);
    }
    db.run(&format!(
        "select coco.create_flow('item', 'orders', {}, 'shop.item', '{{id,part}}', item => 'orders')",
        quoted(all[0])
    ));
    db.run(CHANGE);
    for (n, query) in all.iter().enumerate() {
        follows(&mut db, &format!("f{n}"), &format!("shop.t{n}"), query);
    }
    follows(&mut db, "item", "shop.item", all[0]);
    // Which of two sources over one relation does a branch mean?
    db.run(
        "select coco.create_flow('y'); select coco.add_source('y', 'orders', name => 'one');
         select coco.add_source('y', 'orders', name => 'two')",
    );
    let two = "select 1 as k, id from shop.orders union all select 2, id from shop.orders";
    let sql = format!("select coco.add_target('y', 'y', {}, '{{k,id}}')", quoted(two));
    let (code, said) = refused(&mut db, &sql);
    assert!(code == "42P09" && said.contains("several places"), "{said}");
    for ambiguous in [
        "select id from shop.orders union select id from shop.orders",
        "select id from shop.orders union all select a.id from shop.orders a, shop.orders b where a.id = b.id",
        "select id from (select id from shop.orders union all select id from shop.orders where false) o",
    ] {
        let sql =
            format!("select coco.create_flow('x', 'orders', {}, 'x', '{{id}}')", quoted(ambiguous));
        let (code, said) = refused(&mut db, &sql);
        assert!(code == "42P09" && said.contains("several places"), "{ambiguous}: {said}");
    }
}

/// Queries that read the source several times, each with the alias of the item and the key of the target.
const SEVERAL: [(&str, &str, &str); 8] = [
    // Django: a filter over a relation to itself, an annotation, a subquery, an exclusion.
    (
        r#"SELECT "orders"."id", T2."total" AS "parent_total" FROM "orders" LEFT OUTER JOIN "orders" T2 ON ("orders"."parent_id" = T2."id")"#,
        "orders",
        "id",
    ),
    (
        r#"SELECT "orders"."id", (SELECT COUNT(*) AS "c" FROM "orders" U0 WHERE U0."customer_id" = ("orders"."customer_id")) AS "n" FROM "orders""#,
        "orders",
        "id",
    ),
    (
        r#"SELECT "orders"."id", "orders"."total" FROM "orders" WHERE "orders"."customer_id" IN (SELECT U0."customer_id" FROM "orders" U0 WHERE U0."total" > 5)"#,
        "orders",
        "id",
    ),
    (
        r#"SELECT "orders"."id", "orders"."total" FROM "orders" WHERE NOT (EXISTS(SELECT 1 AS "a" FROM "orders" U1 WHERE (U1."parent_id" = ("orders"."id")) LIMIT 1))"#,
        "orders",
        "id",
    ),
    // SQLAlchemy: an aliased table, and with the schema in the metadata.
    (
        "SELECT orders.id AS id, orders_1.id AS other \nFROM orders JOIN orders AS orders_1 ON orders.customer_id = orders_1.customer_id",
        "orders",
        "id,other",
    ),
    (
        "SELECT orders_1.id, orders_2.total AS parent_total \nFROM shop.orders AS orders_1 JOIN shop.orders AS orders_2 ON orders_1.parent_id = orders_2.id",
        "orders_1",
        "id",
    ),
    // dbt, which names the same ref twice; and one place with the schema, one without.
    (
        r#"with orders_here as (select * from "@db@"."shop"."orders" src), everything as (select * from "@db@"."shop"."orders")
           select o.id, max(e.total) as most from orders_here o join everything e on e.customer_id = o.customer_id group by o.id"#,
        "src",
        "id",
    ),
    (
        "select o.id, (select count(*) from orders x where x.total < o.total) as smaller from shop.orders o",
        "o",
        "id",
    ),
];

#[test]
fn the_argument_item_names_the_item_among_places_that_have_no_schema() {
    let mut db = shop("bound_several");
    let all = SEVERAL
        .map(|(query, item, key)| (query.replace("@db@", "coco_test_bound_several"), item, key));
    for (n, (query, item, key)) in all.iter().enumerate() {
        db.run(&format!(
            "select coco.create_flow('f{n}', 'orders', {}, 'shop.t{n}', '{{{key}}}', item => '{item}')",
            quoted(query)
        ));
        follows(&mut db, &format!("f{n}"), &format!("shop.t{n}"), query);
    }
    db.run(CHANGE);
    for (n, (query, ..)) in all.iter().enumerate() {
        // Nobody declared a lookup, so the other rows count only for items that are evaluated.
        db.update(&format!("f{n}"), "full_reprocess");
        let found = differences(&mut db, &format!("shop.t{n}"), query);
        assert!(found.is_empty(), "{query}\n{}", found.join("\n"));
        db.verify_clean(&format!("f{n}"));
    }
    // Both places have this alias.
    let twice = "select id from orders where exists (select from orders where total > 5)";
    let sql = format!(
        "select coco.create_flow('x', 'orders', {}, 'x', '{{id}}', item => 'orders')",
        quoted(twice)
    );
    let (code, said) = refused(&mut db, &sql);
    assert!(code == "42P09" && said.contains("several places"), "{said}");
    // With several sources, the alias says nothing about the others.
    db.run(
        "create table returns (id int primary key);
         select coco.create_flow('y'); select coco.add_source('y', 'orders'); select coco.add_source('y', 'returns')",
    );
    let (code, said) = refused(
        &mut db,
        "select coco.add_target('y', 'y', 'select id from orders union all select id from returns', '{id}', item => 'orders')",
    );
    assert!(code == "22023" && said.contains("is not needed"), "{said}");
}

#[test]
fn a_query_that_joins_the_item_with_itself_causes_a_warning() {
    let db = shop("bound_itself");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut client = {
        let heard = Arc::clone(&heard);
        db.connect_hearing(move |message| heard.lock().unwrap().push(message))
    };
    client.batch_execute("set search_path = shop, public").unwrap();
    let mut declared = 0;
    let mut warns = |query: &str, rest: &str| {
        declared += 1;
        heard.lock().unwrap().clear();
        let sql = format!(
            "select coco.create_flow('f{declared}', 'orders', {}, 't{declared}', {rest})",
            quoted(query)
        );
        client.batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        // Notices come with the answer to the next statement at the latest.
        client.batch_execute("select 1").unwrap();
        let message = "the query reads the item of source \"orders\" in several places";
        heard.lock().unwrap().iter().any(|heard| heard == message)
    };
    for query in [
        "select a.id, b.id as other from orders a join orders b on b.customer_id = a.customer_id",
        "select a.id, b.id as other from orders a, lateral (select id from orders where total > 5) b",
        "select id, (select p.id from orders p where p.id = o.parent_id) as other from orders o",
        "with p as (select id from orders) select o.id, p.id as other from orders o join p on p.id = o.parent_id",
        "with o as (select * from orders) select a.id, b.id as other from o a join o b on b.customer_id = a.customer_id",
    ] {
        assert!(warns(query, "'{id}'"), "{query}");
    }
    for (query, rest) in [
        ("select id, 'a' as part from orders union all select id, 'b' from orders", "'{id,part}'"),
        ("with o as (select * from orders), p as (select * from o) select id from p", "'{id}'"),
        ("with o as (select * from orders), p as (select * from o) select id from o", "'{id}'"),
        ("select o.id, l.t from orders o, lateral (select o.total as t) l", "'{id}'"),
        (
            "select a.id, (select count(*) from shop.orders b where b.total < a.total) as n from orders a",
            "'{id}'",
        ),
        (
            "select a.id, b.id as other from orders a join orders b on b.customer_id = a.customer_id",
            "'{id,other}', item => 'a'",
        ),
        // The rows of a group.
        (
            "select a.customer_id, a.id, count(b.id) as before from orders a left join orders b on b.id < a.id
              group by a.customer_id, a.id",
            "'{customer_id,id}', source_key => '{customer_id}'",
        ),
    ] {
        assert!(!warns(query, rest), "{query}");
    }
}

#[test]
fn a_source_that_is_also_a_lookup_is_followed_and_causes_no_warning() {
    let mut db = shop("bound_own_lookup");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut client = {
        let heard = Arc::clone(&heard);
        db.connect_hearing(move |message| heard.lock().unwrap().push(message))
    };
    let query = "select o.id, p.total as parent_total from orders o left join shop.orders p on p.id = o.parent_id";
    client.batch_execute("set search_path = shop, public").unwrap();
    // Without `affects`, each change affects all items.
    client
        .batch_execute(&format!(
            "select coco.create_flow('f'); select coco.add_source('f', 'orders');
             select coco.add_lookup('f', 'orders', name => 'parents');
             select coco.add_target('f', 't', {}, '{{id}}')",
            quoted(query)
        ))
        .unwrap();
    client.batch_execute("select 1").unwrap();
    let messages = heard.lock().unwrap().clone();
    assert!(!messages.iter().any(|heard| heard.contains("in full")), "{messages:?}");
    follows(&mut db, "f", "shop.t", query);
    db.run(CHANGE);
    follows(&mut db, "f", "shop.t", query);
}

/// Columns are found through the common table expressions that dbt's models consist of.
#[test]
fn a_key_is_found_through_common_table_expressions() {
    let mut db = shop("bound_ctes");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut client = {
        let heard = Arc::clone(&heard);
        db.connect_hearing(move |message| heard.lock().unwrap().push(message))
    };
    client.batch_execute("set search_path = shop, public").unwrap();
    for (flow, query, rest) in [
        (
            "rows",
            "with source as (select * from shop.orders), renamed as (select id as order_id, total from source)
             select * from renamed",
            "'{order_id}'",
        ),
        (
            "groups",
            "with source as materialized (select * from shop.orders),
                  totals as (select customer_id, sum(total) as total from source group by customer_id)
             select customer_id, total from (select * from totals) t",
            "'{customer_id}', source_key => '{customer_id}'",
        ),
        (
            "nested",
            "with source as (select * from shop.orders)
             select n.order_id, n.total from (with inner_one as (select id as order_id, total from source) select * from inner_one) n",
            "'{order_id}'",
        ),
    ] {
        client
            .batch_execute(&format!(
                "select coco.create_flow('{flow}', 'orders', {}, '{flow}', {rest})",
                quoted(query)
            ))
            .unwrap();
        client.batch_execute("select 1").unwrap();
        let covered = text(
            &mut db,
            &format!("select (item_key_columns is not null)::text from coco_internal.target where flow = '{flow}'"),
        );
        assert_eq!(covered, "true", "{query}");
        follows(&mut db, flow, &format!("shop.{flow}"), query);
    }
    assert!(heard.lock().unwrap().is_empty(), "{heard:?}");
    // These columns are computed, or belong to several queries.
    for (flow, query) in [
        (
            "computed",
            "with source as (select id + 0 as id, total from shop.orders) select id, total from source",
        ),
        (
            "united",
            "with source as (select id, total from orders union all select id, total from orders where false) select * from source",
        ),
    ] {
        db.run(&format!(
            "select coco.create_flow('{flow}', 'orders', {}, '{flow}', '{{id}}')",
            quoted(query)
        ));
        let covered = text(
            &mut db,
            &format!(
                "select (item_key_columns is not null)::text from coco_internal.target where flow = '{flow}'"
            ),
        );
        assert_eq!(covered, "false", "{query}");
        follows(&mut db, flow, &format!("shop.{flow}"), query);
    }
    db.run(CHANGE);
    client.batch_execute("reset search_path").unwrap();
    for flow in ["rows", "groups", "nested", "computed", "united"] {
        db.update(flow, "normal");
        db.verify_clean(flow);
    }
}

#[test]
fn sources_are_found_through_common_table_expressions() {
    let mut db = TestDb::new("bound_cte_sources");
    db.run(
        "create table a (id int primary key, g int not null); create table b (id int primary key, g int not null);
         insert into a values (1, 1), (2, 1); insert into b values (1, 2)",
    );
    let two = "select coco.create_flow('f'); select coco.add_source('f', 'a'); select coco.add_source('f', 'b')";
    let union = "with x as (select * from a), y as (select * from b),
        z as (select 'a' as part, id from x union all select 'b', id from y) select part, id from z";
    db.run(&format!("{two}; select coco.add_target('f', 't', {}, '{{part,id}}')", quoted(union)));
    follows(&mut db, "f", "t", union);
    db.run("select coco.drop_flow('f', keep_targets => false)");
    db.run(two);
    for join in [
        "with x as (select * from a), y as (select * from b) select x.id from x join y using (id)",
        "with x as (select * from a), y as (select * from b), z as (select x.id from x, y) select id from z",
        "with x as (select * from a) select x.id from x where exists (select from b)",
    ] {
        let sql = format!("select coco.add_target('f', 't', {}, '{{id}}')", quoted(join));
        let (code, said) = refused(&mut db, &sql);
        assert!(code == "0A000" && said.contains("joins two sources"), "{join}: {said}");
    }
    // An aggregate over several items inside an expression.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut client = {
        let heard = Arc::clone(&heard);
        db.connect_hearing(move |message| heard.lock().unwrap().push(message))
    };
    client
        .batch_execute(
            "select coco.create_flow('g', 'a', 'with x as (select * from a), t as (select g, count(*) as n from x group by g)
                                               select g, n from t', 'g', '{g}'); select 1",
        )
        .unwrap();
    let heard = heard.lock().unwrap().join(", ");
    assert!(heard.contains("GROUP BY or an aggregate"), "{heard}");
}
