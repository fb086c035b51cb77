//! Shapes whose items are groups of rows, or rows of several sources.

use super::values::{amount, customer, int_key, number, sentence, word};
use super::{Flow, Shape, Source, Table, Target, calling, query};

/// Rows that share a customer are one item; the rows themselves feed another flow.
pub(super) const ONE_ITEM_A_GROUP: Shape = Shape {
    name: "one_item_a_group",
    setup: "create table sales (id int primary key, customer text not null, amount numeric,
                                item text, note text)",
    tables: &[Table {
        name: "sales",
        key: &["id"],
        columns: &[
            ("id", int_key),
            ("customer", customer),
            ("amount", amount),
            ("item", word),
            ("note", word),
        ],
        spare: Some("note"),
        more: &[
            "update sales set customer = 'c{a}' where customer = 'c{b}'",
            "update sales set customer = 'c1' where id <= {a} and id % 4 = 0",
            "delete from sales where customer = (select customer from sales
                                                  order by md5(customer || '{salt}') limit 1)",
            "update sales set id = id + 40 where id <= 40
               and not exists (select from sales u where u.id = sales.id + 40)",
        ],
    }],
    functions: &[&[
        "create or replace function grade(n numeric) returns text language sql immutable
           as $$ select case when n > 3 then 'good' else 'poor' end $$",
        "create or replace function grade(n numeric) returns text language sql immutable
           as $$ select case when n > 2 then 'good' else 'poor' end $$",
    ]],
    flows: &[
        Flow {
            name: "totals",
            sources: &[Source { name: "sales", table: 0, key: &["customer"], grouped: true }],
            targets: &[
                Target {
                    name: "totals",
                    key: &["customer"],
                    queries: &[
                        query(
                            "select customer, sum(amount) as total, count(*) as n,
                                    count(distinct item) as items from sales group by customer",
                            &[&["customer", "amount", "item"]],
                        ),
                        query(
                            "select customer, count(*) as n from sales group by customer",
                            &[&["customer"]],
                        ),
                        query(
                            "select s.customer, count(*) as n, sum(s.amount)::text as total
                               from sales s group by s.customer having count(*) > 1",
                            &[&["customer", "amount"]],
                        ),
                        query(
                            "select customer, string_agg(item, ',' order by item) as items,
                                    array_agg(amount::text order by amount::text) as amounts
                               from sales group by customer",
                            &[&["customer", "amount", "item"]],
                        ),
                        query(
                            "select distinct on (customer) customer, item, id
                               from sales order by customer, item, id",
                            &[&["customer", "item", "id"]],
                        ),
                        calling(
                            &[0],
                            "select customer, grade(sum(amount)) as total from sales group by 1",
                            &[&["customer", "amount"]],
                        ),
                    ],
                },
                Target {
                    name: "sold",
                    key: &["item", "customer"],
                    queries: &[
                        query(
                            "select customer, coalesce(item, '-') as item, count(*) as n
                               from sales group by 1, 2",
                            &[&["customer", "item"]],
                        ),
                        query(
                            "select 'any' as item, customer, max(id) as n
                               from sales group by customer",
                            &[&["customer", "id"]],
                        ),
                    ],
                },
            ],
            contested: false,
        },
        Flow {
            name: "sales",
            sources: &[Source { name: "sales", table: 0, key: &["id"], grouped: false }],
            targets: &[Target {
                name: "large",
                key: &["id"],
                queries: &[
                    query(
                        "select id, customer from sales where amount > 1",
                        &[&["id", "customer", "amount"]],
                    ),
                    calling(
                        &[0],
                        "select id, grade(amount) as customer from sales",
                        &[&["id", "amount"]],
                    ),
                ],
            }],
            contested: false,
        },
    ],
};

/// Target keys name no source's key: they are listed in the tracking tables.
pub(super) const TWO_SOURCES: Shape = Shape {
    name: "two_sources",
    setup: "create table people (id int primary key, name text, junk text);
            create table firms (id int primary key, title text, size numeric)",
    tables: &[
        Table {
            name: "people",
            key: &["id"],
            columns: &[("id", int_key), ("name", word), ("junk", word)],
            spare: Some("junk"),
            more: &[
                "update people set id = -1 where id = {a}; update people set id = {a} where id = {b};
                 update people set id = {b} where id = -1",
                "truncate people, firms",
                "insert into people (id, name) select id, title from firms on conflict do nothing;
                 delete from firms where id in (select id from people)",
            ],
        },
        Table {
            name: "firms",
            key: &["id"],
            columns: &[("id", int_key), ("title", sentence), ("size", number)],
            spare: None,
            more: &["update firms set id = id + 40 where id <= 40
                       and not exists (select from firms u where u.id = firms.id + 40)"],
        },
    ],
    functions: &[],
    flows: &[Flow {
        name: "everyone",
        sources: &[
            Source { name: "people", table: 0, key: &["id"], grouped: false },
            Source { name: "firms", table: 1, key: &["id"], grouped: false },
        ],
        targets: &[
            Target {
                name: "everyone",
                key: &["kind", "id"],
                queries: &[
                    query(
                        "select 'p' as kind, id, name as label from people
                         union all select 'f', id, title from firms",
                        &[&["id", "name"], &["id", "title"]],
                    ),
                    query(
                        "select 'p' as kind, id, name as label, null::numeric as size from people
                         union all select 'f', id, title, size from firms",
                        &[&["id", "name"], &["id", "title", "size"]],
                    ),
                    query(
                        "select 'p' as kind, id, upper(name) as label from people",
                        &[&["id", "name"], &[]],
                    ),
                    query(
                        "select 'f' as kind, id::bigint as id, title as label from firms
                         union all select 'p', id::bigint, name from people",
                        &[&["id", "name"], &["id", "title"]],
                    ),
                    query(
                        "select kind, id, upper(label) as label
                           from (select 'p' as kind, id, name as label from people union all
                                 select 'f', id, title from firms) as e where id % 2 = 0",
                        &[&["id", "name"], &["id", "title"]],
                    ),
                ],
            },
            Target {
                name: "firm_sizes",
                key: &["firm"],
                queries: &[
                    query("select id as firm, size from firms", &[&[], &["id", "size"]]),
                    query(
                        "select id as firm, size::text as size from firms",
                        &[&[], &["id", "size"]],
                    ),
                    query(
                        "select f.id + n * 1000 as firm, title
                           from firms f, generate_series(1, f.id % 3) as n",
                        &[&[], &["id", "title"]],
                    ),
                ],
            },
        ],
        contested: false,
    }],
};
