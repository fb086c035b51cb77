//! Shapes whose items are rows with a key of their own.

use super::values::{int_key, ints, json, long_sentence, number, text_key, word};
use super::{Flow, Query, Shape, Source, Table, Target, calling, query};

/// An int key that the target key covers; two flows on one source.
pub(super) const ONE_ROW_AN_ITEM: Shape = Shape {
    name: "one_row_an_item",
    setup: "create table items
              (id int primary key, label text, price numeric, doc jsonb, tags int[], junk text)",
    tables: &[Table {
        name: "items",
        key: &["id"],
        columns: &[
            ("id", int_key),
            ("label", long_sentence),
            ("price", number),
            ("doc", json),
            ("tags", ints),
            ("junk", word),
        ],
        spare: Some("junk"),
        more: &[
            "update items set id = id + 40 where id <= 40
               and not exists (select from items u where u.id = items.id + 40)",
            "update items set id = -1 where id = {a}; update items set id = {a} where id = {b};
             update items set id = {b} where id = -1",
            "delete from items where id = {a};
             insert into items (id, label) values ({a}, 'back') on conflict do nothing",
        ],
    }],
    functions: &[
        &[
            "create or replace function whisper(t text) returns text language sql immutable
               as $$ select lower(t) $$",
            "create or replace function whisper(t text) returns text language sql immutable
               as $$ select lower(t) || '.' $$",
            "create or replace function whisper(t text) returns text language sql immutable
               return left(t, 3)",
        ],
        &[
            "create or replace function shout(t text) returns text language sql stable
               as $$ select whisper(t) || '!' $$",
            "create or replace function shout(t text) returns text language plpgsql stable
               as $$ begin return upper(whisper(t)); end $$",
        ],
    ],
    flows: &[
        Flow {
            name: "items",
            sources: &[Source { name: "items", table: 0, key: &["id"], grouped: false }],
            targets: &[Target {
                name: "items_out",
                key: &["id"],
                queries: &[
                    query(
                        "select id, label, price, doc, tags from items",
                        &[&["id", "label", "price", "doc", "tags"]],
                    ),
                    query(
                        "select i.id, upper(i.label) as label, i.price * 2 as price, i.doc, i.tags
                           from items i",
                        &[&["id", "label", "price", "doc", "tags"]],
                    ),
                    calling(
                        &[0, 1],
                        "select id, label, price, doc, tags, label is null as bare,
                                shout(label) as loud from items",
                        &[&["id", "label", "price", "doc", "tags"]],
                    ),
                    query("select id, label from items -- nothing else", &[&["id", "label"]]),
                    query(
                        "select id, label::varchar(30) as label, price::text as price,
                                doc::text as doc, tags[1] as tags from items",
                        &[&["id", "label", "price", "doc", "tags"]],
                    ),
                    Query {
                        sql: "select id, to_jsonb(items) as whole from items",
                        used: &[&["id", "label", "price", "doc", "tags", "junk"]],
                        calls: &[],
                        whole_row: true,
                    },
                    query("select id::bigint as id, label from items", &[&["id", "label"]]),
                    calling(
                        &[0, 1],
                        "select shout(label) as label, id, price::numeric(14,3) as price
                           from items where price is not null order by id",
                        &[&["id", "label", "price"]],
                    ),
                ],
            }],
            contested: false,
        },
        Flow {
            name: "tags",
            sources: &[Source { name: "items", table: 0, key: &["id"], grouped: false }],
            targets: &[Target {
                name: "items_tags",
                key: &["id", "tag"],
                queries: &[
                    query(
                        "select i.id, t.tag, count(*) as n from items i, unnest(i.tags) as t(tag)
                          where t.tag is not null group by i.id, t.tag",
                        &[&["id", "tags"]],
                    ),
                    calling(
                        &[0],
                        "select i.id, n as tag, whisper(left(i.label, n)) as part
                           from items i, generate_series(1, least(length(i.label), 4)) as n",
                        &[&["id", "label"]],
                    ),
                ],
            }],
            contested: false,
        },
    ],
};

/// A composite key, names that want quotes, a function that returns rows; two targets.
pub(super) const MANY_ROWS_AN_ITEM: Shape = Shape {
    name: "many_rows_an_item",
    setup: r#"create table "My Docs" ("Key é" text, "group" int, body text, "un used" text,
                                      primary key ("Key é", "group"))"#,
    tables: &[Table {
        name: "\"My Docs\"",
        key: &["\"Key é\"", "\"group\""],
        columns: &[
            ("\"Key é\"", text_key),
            ("\"group\"", |r| r.usize(1..=3).to_string()),
            ("body", long_sentence),
            ("\"un used\"", word),
        ],
        spare: Some("\"un used\""),
        more: &[
            r#"update "My Docs" set "group" = "group" + 3 where "group" <= 3 and not exists
                 (select from "My Docs" u where u."Key é" = "My Docs"."Key é"
                                            and u."group" = "My Docs"."group" + 3)"#,
            r#"update "My Docs" set "group" = -1 where "group" = 1;
               update "My Docs" set "group" = 1 where "group" = 2;
               update "My Docs" set "group" = 2 where "group" = -1"#,
        ],
    }],
    functions: &[&[
        "create or replace function split_words(t text) returns table (n bigint, w text)
           language sql immutable as $$
             select s.n, s.x from string_to_table(t, ' ') with ordinality as s(x, n) limit 7 $$",
        "create or replace function split_words(t text) returns table (n bigint, w text)
           language sql immutable as $$
             select s.n, s.x from string_to_table(t, ',') with ordinality as s(x, n) limit 7 $$",
        "create or replace function split_words(t text) returns table (n bigint, w text)
           language plpgsql immutable as $$ begin
             return query select s.n, upper(s.x)
               from string_to_table(t, ' ') with ordinality as s(x, n) where s.x <> '' limit 5;
           end $$",
    ]],
    flows: &[Flow {
        name: "My docs' flow",
        sources: &[Source {
            name: "\"My Docs\"",
            table: 0,
            key: &["\"Key é\"", "\"group\""],
            grouped: false,
        }],
        targets: &[
            Target {
                name: "\"Doc Parts\"",
                key: &["\"Key é\"", "\"group\"", "n"],
                queries: &[
                    calling(
                        &[0],
                        r#"select d."Key é", d."group", s.n, s.w
                             from "My Docs" d, split_words(d.body) as s"#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    calling(
                        &[0],
                        r#"select d."group", s.n, s.w as "w ""x""", d."Key é", s.w = '' as "select"
                             from "My Docs" d cross join lateral split_words(d.body) as s"#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    query(
                        r#"select "Key é", "group", 0::bigint as n, body as w from "My Docs""#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    calling(
                        &[0],
                        r#"select d."Key é", d."group", s.n::int as n, s.w
                             from "My Docs" d left join split_words(d.body) as s on true
                            where s.n is not null"#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    query(
                        r#"select d."Key é", d."group", w,
                                  row_number() over (partition by d."Key é", d."group"
                                                     order by w) as n
                             from "My Docs" d, string_to_table(left(d.body, 20), ' ') as w"#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    query(
                        r#"select d."Key é" || '' as "Key é", d."group", 1::bigint as n
                             from "My Docs" d where body is not null"#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                ],
            },
            Target {
                name: "doc_sizes",
                key: &["\"group\"", "\"Key é\""],
                queries: &[
                    query(
                        r#"select "Key é", "group", length(body) as "len gth" from "My Docs""#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    query(
                        r#"select "Key é", "group", md5(body) as "len gth" from "My Docs""#,
                        &[&["\"Key é\"", "\"group\"", "body"]],
                    ),
                    query(
                        r#"select "Key é", "group" from "My Docs""#,
                        &[&["\"Key é\"", "\"group\""]],
                    ),
                ],
            },
        ],
        contested: false,
    }],
};
