//! How a query may spell its source, and what is refused of it.

use super::support::{TestDb, explain};
use super::{follows, quoted, refused, text};

/// A schema on the search path with a source, another schema, and a table with names that need quotes.
fn shop(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        r#"create schema shop; set search_path = shop, public;
           create table shop.customers (id int primary key, name text not null);
           insert into shop.customers values (1, 'Ada'), (2, 'Bo');
           create table shop.orders (id int primary key, customer_id int not null, state text not null, total numeric(10, 2) not null);
           insert into shop.orders values (1, 1, 'paid', 10), (2, 2, 'open', 20.50), (3, 1, 'paid', 0);
           create schema "Odd ""Schema"; create table "Odd ""Schema"."Odd.Table" ("Id" int primary key, "select" text);
           insert into "Odd ""Schema"."Odd.Table" values (1, 'a'), (2, null);"#,
    );
    db
}

const CHANGE: &str = "update shop.orders set total = total + 1, state = 'paid' where id = 2;
    delete from shop.orders where id = 3; insert into shop.orders values (4, 2, 'paid', 4), (5, 1, 'void', -1);
    update shop.orders set id = 10 where id = 1";

/// Queries over `shop.orders` as people, dbt and ORMs write them, with the key of their target.
fn spellings(database: &str) -> Vec<(String, &'static str)> {
    [
        ("select id, total from orders", "id"),
        ("select orders.id, orders.total from orders", "id"),
        ("select id, total from shop.orders", "id"),
        ("select orders.id, orders.total from shop.orders", "id"),
        ("select shop.orders.id, shop.orders.total from shop.orders", "id"),
        (r#"select "shop"."orders"."id", "shop"."orders"."total"::text from "shop"."orders" where 1=1"#, "id"),
        (r#"select "id" from "orders""#, "id"),
        ("select o.id, o.total from orders o", "id"),
        ("select o.id, o.total from shop.orders as o", "id"),
        ("select o.a as id, o.d as total from shop.orders as o (a, b, c, d)", "id"),
        ("select a as id, total from shop.orders o (a)", "id"),
        ("table shop.orders", "id"),
        ("select * from shop.orders", "id"),
        ("select shop.orders.* from shop.orders", "id"),
        ("SELECT ID, Total FROM Shop.Orders", "id"),
        ("select id, total from ( select * from shop.orders ) as q where total > 0", "id"),
        ("select q.id, q.t from shop.orders o, lateral (select o.id, o.total * 2 as t) q", "id"),
        ("with o as (select * from shop.orders) select id, total from o", "id"),
        ("with orders as (select * from shop.orders) select id, total from orders", "id"),
        ("with orders as (select * from orders) select id, total from orders", "id"),
        ("with o as materialized (select * from shop.orders) select id, total from o where state = 'paid'", "id"),
        ("select id, 'a' as part from orders union all select id, 'b' from orders where false", "id"),
        ("select o.id, c.name from shop.orders o join shop.customers c on c.id = o.customer_id", "id"),
        ("select o.id, c.name from (shop.orders o left join shop.customers c on c.id = o.customer_id)", "id"),
        ("select o.id, (select name from shop.customers where id = o.customer_id) as name from shop.orders o", "id"),
        ("select o.id, c.name from shop.customers c right join shop.orders o on c.id = o.customer_id and exists (select 1 where o.total > 0)", "id"),
        // dbt, a staging model over a source and a model over that
        (
            r#"with source as (
                 select * from "@db@"."shop"."orders"
               ), renamed as (
                 select id as order_id, customer_id, state as status, total as amount from source
               )
               select * from renamed"#,
            "order_id",
        ),
        (
            r#"/* {"app": "dbt", "node_id": "model.shop.orders"} */
               with __dbt__cte__stg_orders as (select id as order_id, total from "@db@"."shop"."orders"), -- staged
               final as (select stg.order_id, coalesce(stg.total, 0) as total from __dbt__cte__stg_orders as stg)
               select * from final"#,
            "order_id",
        ),
        // Django
        (r#"SELECT "orders"."id", "orders"."total" FROM "orders" WHERE "orders"."state" = 'paid'"#, "id"),
        (r#"SELECT "orders"."id", "shop"."customers"."name" FROM "orders" INNER JOIN "shop"."customers" ON ("orders"."customer_id" = "shop"."customers"."id")"#, "id"),
        // SQLAlchemy
        ("SELECT orders_1.id AS orders_1_id, orders_1.total AS orders_1_total \nFROM shop.orders AS orders_1", "orders_1_id"),
        ("SELECT shop.orders.id AS shop_orders_id, shop.orders.state AS shop_orders_state \nFROM shop.orders \nWHERE shop.orders.total > 0", "shop_orders_id"),
        ("SELECT anon_1.id, anon_1.t FROM (SELECT shop.orders.id AS id, shop.orders.total AS t FROM shop.orders) AS anon_1", "id"),
        // ActiveRecord, Ecto, Hibernate, Prisma, Sequelize, TypeORM
        (r#"SELECT "orders".* FROM "orders" WHERE "orders"."state" IN ('paid', 'open')"#, "id"),
        (r#"SELECT o0."id", o0."total" FROM "shop"."orders" AS o0 WHERE (NOT (o0."state" = 'void'))"#, "id"),
        ("select o1_0.id,o1_0.customer_id,o1_0.total from shop.orders o1_0 where o1_0.total>=0", "id"),
        (r#"SELECT "t0"."id", "t0"."total" FROM "shop"."orders" AS "t0" LEFT JOIN "shop"."customers" AS "j1" ON ("j1"."id") = ("t0"."customer_id") WHERE ("t0"."state" = 'paid' AND ("j1"."id" IS NOT NULL))"#, "id"),
        (r#"SELECT "id", "customer_id" AS "customerId", "total" FROM "shop"."orders" AS "Order";"#, "id"),
        (r#"SELECT "Order"."id" AS "Order_id", "Order"."state" AS "Order_state" FROM "shop"."orders" "Order""#, "Order_id"),
    ]
    .iter()
    .map(|(query, key)| (query.replace("@db@", database), *key))
    .collect()
}

#[test]
fn a_query_is_followed_however_it_spells_its_source() {
    let mut db = shop("bound_spellings");
    let all = spellings("coco_test_bound_spellings");
    let mut wrong = Vec::new();
    for (n, (query, key)) in all.iter().enumerate() {
        db.run(query);
        let declared = db.client.batch_execute(&format!(
            "select coco.create_flow('f{n}', 'shop.orders', {}, 'shop.t{n}', array[{}])",
            quoted(query),
            quoted(key)
        ));
        if let Err(e) = declared {
            wrong.push(format!("{query}\n  {}", explain(&e)));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} are refused:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
    let compare = |db: &mut TestDb| {
        for (n, (query, _)) in all.iter().enumerate() {
            follows(db, &format!("f{n}"), &format!("shop.t{n}"), query.trim_end_matches(';'));
        }
    };
    compare(&mut db);
    db.run(CHANGE);
    // Whatever the session's path is by then, the flow does not depend on it.
    db.run("set search_path = pg_catalog");
    for n in 0..all.len() {
        db.update(&format!("f{n}"), "normal");
    }
    db.run("set search_path = shop, public");
    compare(&mut db);
}

#[test]
fn names_that_need_quotes_are_followed() {
    let mut db = shop("bound_quoted");
    let source = r#""Odd ""Schema"."Odd.Table""#;
    let all = [
        format!(r#"select "Id", "select" from {source}"#),
        format!(r#"select x."Id", x."select" from {source} x"#),
        format!(r#"select {source}."Id", {source}."select" from {source}"#),
        format!(r#"select "Odd.Table"."Id", "Odd.Table"."select" from {source}"#),
        format!(r#"with "Odd.Table" as (select * from {source}) select * from "Odd.Table""#),
    ];
    for (n, query) in all.iter().enumerate() {
        db.run(&format!(
            "select coco.create_flow('f {n}', {}, {}, 'shop.t{n}', '{{Id}}')",
            quoted(source),
            quoted(query)
        ));
        follows(&mut db, &format!("f {n}"), &format!("shop.t{n}"), query);
    }
    db.run(&format!(
        r#"update {source} set "select" = 'b'; insert into {source} values (3, 'c''"')"#
    ));
    for (n, query) in all.iter().enumerate() {
        follows(&mut db, &format!("f {n}"), &format!("shop.t{n}"), query);
    }
}

#[test]
fn groups_and_lookups_are_followed_however_they_spell_their_source() {
    let mut db = shop("bound_groups");
    let all = [
        "select customer_id, count(*) as n, sum(total) as total from shop.orders group by customer_id",
        "select o.customer_id, string_agg(o.state, ',' order by o.id) as states from shop.orders as o group by 1",
        r#"select "shop"."orders"."customer_id", max("shop"."orders"."total") as most from "shop"."orders" group by "shop"."orders"."customer_id""#,
        "with o as (select * from shop.orders where total > 0) select customer_id, count(*) as n from o group by 1",
    ];
    for (n, query) in all.iter().enumerate() {
        db.run(&format!(
            "select coco.create_flow('g{n}', 'shop.orders', {}, 'shop.g{n}', '{{customer_id}}', source_key => '{{customer_id}}')",
            quoted(query)
        ));
    }
    let looked_up =
        "select o.id, c.name from shop.orders o join shop.customers c on c.id = o.customer_id";
    db.run(&format!(
        "select coco.create_flow('l'); select coco.add_source('l', 'shop.orders');
         select coco.add_lookup('l', 'shop.customers', affects => 'select o.id from shop.customers c join shop.orders o on o.customer_id = c.id');
         select coco.add_target('l', 'shop.l', {}, '{{id}}')",
        quoted(looked_up)
    ));
    for change in ["select 1", CHANGE, "update shop.customers set name = upper(name) where id = 1"]
    {
        db.run(change);
        for (n, query) in all.iter().enumerate() {
            follows(&mut db, &format!("g{n}"), &format!("shop.g{n}"), query);
        }
        follows(&mut db, "l", "shop.l", looked_up);
    }
}

#[test]
fn an_unqualified_name_is_the_item_and_a_qualified_one_the_whole_table() {
    let mut db = shop("bound_self_lookup");
    let query = "select id, (select count(*) from shop.orders o where o.customer_id = orders.customer_id) as n from orders";
    db.run(&format!(
        "select coco.create_flow('f', 'shop.orders', {}, 'shop.t', '{{id}}')",
        quoted(query)
    ));
    follows(&mut db, "f", "shop.t", query);
    assert_eq!(text(&mut db, "select string_agg(n::text, ',' order by id) from shop.t"), "2,1,2");
}

#[test]
fn of_several_qualified_occurrences_the_argument_item_names_the_alias() {
    let mut db = shop("bound_item");
    let query = "select a.id, (select count(*) from shop.orders b where b.customer_id = a.customer_id) as n from shop.orders a";
    let declare = |item: &str| {
        format!(
            "select coco.create_flow('f', 'shop.orders', {}, 'shop.t', '{{id}}'{item})",
            quoted(query)
        )
    };
    let (_, said) = refused(&mut db, &declare(""));
    assert!(said.contains("item"), "{said}");
    let (_, said) = refused(&mut db, &declare(", item => 'c'"));
    assert!(said.contains("\"c\""), "{said}");
    db.run(&declare(", item => 'a'"));
    follows(&mut db, "f", "shop.t", query);
    assert_eq!(text(&mut db, "select string_agg(n::text, ',' order by id) from shop.t"), "2,1,2");
    // The other one is the item: for each of its rows the whole table is on the left.
    let other = "select b.id, (select count(*) from shop.orders) as n from shop.orders b";
    db.run(&format!(
        "select coco.create_flow('g', 'shop.orders', {}, 'shop.u', '{{id}}', item => 'b')",
        quoted(other)
    ));
    follows(&mut db, "g", "shop.u", other);
}

#[test]
fn what_a_batch_cannot_show_of_its_source_is_refused_with_the_reason() {
    let mut db = shop("bound_refused");
    db.run(
        "create table shop.old_orders () inherits (shop.orders);
         create table shop.ev (id int, region text, primary key (id, region)) partition by list (region);
         create table shop.ev_eu partition of shop.ev for values in ('eu');",
    );
    for (source, query, key, word) in [
        ("shop.orders", "select id, total from only orders", "{id}", "only"),
        ("shop.orders", "select id, total from only shop.orders", "{id}", "only"),
        ("shop.orders", "select o.id from only (shop.orders) o", "{id}", "only"),
        (
            "shop.orders",
            "with o as (select * from only shop.orders) select id from o",
            "{id}",
            "only",
        ),
        ("shop.ev", "select id, region from only ev", "{id,region}", "only"),
        ("shop.orders", "select id from orders tablesample system (100)", "{id}", "tablesample"),
        (
            "shop.orders",
            "select id from shop.orders o tablesample bernoulli (50) repeatable (1)",
            "{id}",
            "tablesample",
        ),
        (
            "shop.ev",
            "select id, region, tableoid::regclass::text as part from ev",
            "{id,region}",
            "tableoid",
        ),
        (
            "shop.ev",
            "select id, region, e.tableoid::int8 as part from shop.ev e",
            "{id,region}",
            "tableoid",
        ),
        ("shop.orders", "select id, xmin::text as version from orders", "{id}", "xmin"),
        ("shop.orders", "select id, ctid::text as at from shop.orders", "{id}", "ctid"),
        (
            "shop.orders",
            "select o.id, (select o.ctid)::text as at from shop.orders o",
            "{id}",
            "ctid",
        ),
        ("shop.orders", "select id from orders where cmin::text = '0'", "{id}", "cmin"),
        ("shop.orders", "select id from orders for update", "{id}", "for update"),
    ] {
        let sql = format!(
            "select coco.create_flow('f', '{source}', {}, 'shop.t', '{key}')",
            quoted(query)
        );
        let (code, said) = refused(&mut db, &sql);
        assert!(
            said.to_lowercase().contains(word),
            "{query}: the message does not say {word}: {said}"
        );
        assert!(!said.contains("hint: -"), "{query}: no hint: {said}");
        assert!(!code.starts_with("XX"), "{query}: {said}");
    }
    for (argument, expression, word) in
        [("ordinal", "xmin::text::bigint", "xmin"), ("fingerprint", "tableoid", "tableoid")]
    {
        let sql = format!(
            "select coco.create_flow('f', 'shop.orders', 'select id from orders', 'shop.t', '{{id}}', {argument} => '{expression}')"
        );
        let (_, said) = refused(&mut db, &sql);
        assert!(said.contains(word) && said.contains(argument), "{said}");
    }
    // Nothing is left behind by what was refused.
    assert_eq!(text(&mut db, "select count(*)::text from coco.flows"), "0");
}

#[test]
fn the_children_of_a_table_are_part_of_it() {
    let mut db = shop("bound_children");
    db.run(
        "create table cities (name text primary key, pop int not null);
         create table capitals (state text, primary key (name)) inherits (cities);
         insert into cities values ('A', 1), ('B', 2); insert into capitals values ('C', 3, 'X');",
    );
    let query = "select name, pop from shop.cities";
    db.run(&format!(
        "select coco.create_flow('f', 'cities', {}, 'shop.t', '{{name}}')",
        quoted(query)
    ));
    follows(&mut db, "f", "shop.t", query);
    db.run("update capitals set pop = 4; delete from only cities where name = 'A'");
    follows(&mut db, "f", "shop.t", query);
}

#[test]
fn functions_over_a_row_of_the_source_are_called_in_each_notation() {
    let mut db = TestDb::new("bound_computed");
    db.run(
        "create table people (id int primary key, first text, last text); insert into people values (1, 'A', 'B'), (2, null, 'C');
         create function full_name(people) returns text language sql immutable as $$ select concat_ws(' ', $1.first, $1.last) $$;
         create function initials(p people, n int) returns setof text language sql stable as $$ select left(p.first, n) union all select left(p.last, n) $$",
    );
    let all = [
        "select id, full_name(people) as n from people",
        "select id, people.full_name as n from people",
        "select id, full_name(p) as n from people p",
        "select p.id, p.full_name as n from people p",
        "select id, full_name(p::people) as n from people p",
        "select p.id, full_name(row(p.*)::people) as n from people p",
        "select p.id, p.full_name as n from public.people p",
        "select id, public.full_name(people) as n from public.people",
        "select id, to_jsonb(people) as n from people",
        "select id, row_to_json(p)::text as n from people p",
        "select id, people::text as n from people",
        "select id, (p is null)::text || (p.*)::text as n from people p",
        "select p.id, (select string_agg(i, '.') from initials(p, 1) i) as n from people p",
    ];
    for query in all {
        db.run(query);
    }
    for (n, query) in all.iter().enumerate() {
        db.run(&format!(
            "select coco.create_flow('f{n}', 'people', {}, 't{n}', '{{id}}')",
            quoted(query)
        ));
        follows(&mut db, &format!("f{n}"), &format!("t{n}"), query);
    }
    db.run("update people set first = 'Ada' where id = 2; insert into people values (3, 'x', 'y')");
    for (n, query) in all.iter().enumerate() {
        follows(&mut db, &format!("f{n}"), &format!("t{n}"), query);
    }
}
