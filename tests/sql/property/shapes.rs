//! The shapes: tables, functions over them, and flows with the queries their targets may get.
//! Names stand as SQL writes them, quoted where they must be.

use fastrand::Rng;

pub struct Shape {
    pub name: &'static str,
    pub setup: &'static str,
    pub tables: &'static [Table],
    /// Each a list of statements that make it; the first is how it begins.
    pub functions: &'static [&'static [&'static str]],
    pub flows: &'static [Flow],
}

pub struct Table {
    pub name: &'static str,
    /// The primary key.
    pub key: &'static [&'static str],
    pub columns: &'static [(&'static str, Value)],
    /// A column that may come and go while no query uses it.
    pub spare: Option<&'static str>,
    /// Further statements; `{a}` and `{b}` are numbers of the key space.
    pub more: &'static [&'static str],
}

/// A random value, as SQL.
pub type Value = fn(&mut Rng) -> String;

pub struct Flow {
    pub name: &'static str,
    pub sources: &'static [Source],
    pub targets: &'static [Target],
    /// Items may claim the same target key. Queries then give the item's `id`, an int.
    pub contested: bool,
}

pub struct Source {
    pub name: &'static str,
    pub table: usize,
    pub key: &'static [&'static str],
    pub grouped: bool,
}

pub struct Target {
    pub name: &'static str,
    pub key: &'static [&'static str],
    pub queries: &'static [Query],
}

pub struct Query {
    pub sql: &'static str,
    /// The columns it uses of each source.
    pub used: &'static [&'static [&'static str]],
    /// Functions it reaches, by their numbers.
    pub calls: &'static [usize],
    pub whole_row: bool,
}

const fn query(sql: &'static str, used: &'static [&'static [&'static str]]) -> Query {
    Query { sql, used, calls: &[], whole_row: false }
}

const fn calling(
    calls: &'static [usize],
    sql: &'static str,
    used: &'static [&'static [&'static str]],
) -> Query {
    Query { sql, used, calls, whole_row: false }
}

fn null_or(rng: &mut Rng, value: impl FnOnce(&mut Rng) -> String) -> String {
    if rng.usize(0..6) == 0 { "null".to_owned() } else { value(rng) }
}

fn pick(rng: &mut Rng, values: &[&str]) -> String {
    values[rng.usize(0..values.len())].to_owned()
}

fn int_key(rng: &mut Rng) -> String {
    rng.usize(1..=40).to_string()
}

/// Quotes, blanks, capitals, letters of several bytes, and what JSON escapes.
fn text_key(rng: &mut Rng) -> String {
    let base = pick(rng, &["a", "A", "é", "", "x y", "q''", "\"", "\\"]);
    format!("'{base}{}'", rng.usize(1..=5))
}

fn word(rng: &mut Rng) -> String {
    null_or(rng, |r| format!("'{}'", pick(r, &["", "red", "Red", "blue", "grün", "a,b", "it''s"])))
}

fn sentence(rng: &mut Rng) -> String {
    null_or(rng, |r| {
        let words: Vec<String> =
            (0..r.usize(0..6)).map(|_| pick(r, &["a", "b", "c,d", "É", "", "x"])).collect();
        format!("'{}'", words.join(" "))
    })
}

/// Some are long enough to be stored compressed or out of line.
fn long_sentence(rng: &mut Rng) -> String {
    match rng.usize(0..8) {
        0 => format!("repeat('word {} ', 3000)", rng.usize(1..3)),
        _ => sentence(rng),
    }
}

/// Equal numbers that look different are different contents.
fn number(rng: &mut Rng) -> String {
    null_or(rng, |r| pick(r, &["1", "1.0", "1.00", "2", "-3.5", "10000000000.01", "'NaN'"]))
}

fn amount(rng: &mut Rng) -> String {
    null_or(rng, |r| pick(r, &["1", "1.0", "1.00", "2", "-3.5", "0"]))
}

fn json(rng: &mut Rng) -> String {
    let values = ["{}", "[1,2]", "null", "{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", "1.0", "1.00"];
    null_or(rng, |r| format!("'{}'", pick(r, &values)))
}

fn ints(rng: &mut Rng) -> String {
    let values = ["{}", "{1,2}", "{2,1}", "{1,NULL}", "[2:3]={1,2}", "{{1},{2}}"];
    null_or(rng, |r| format!("'{}'", pick(r, &values)))
}

fn customer(rng: &mut Rng) -> String {
    format!("'c{}'", rng.usize(1..=12))
}

/// A whole number, in one of its spellings.
fn spelled(rng: &mut Rng) -> String {
    format!("{}{}", rng.usize(1..=15), pick(rng, &["", ".0", ".00"]))
}

fn any_case(rng: &mut Rng) -> String {
    format!("'{}{}'", pick(rng, &["k", "K"]), pick(rng, &["a", "A", "b", "B", "é", "É"]))
}

fn alias(rng: &mut Rng) -> String {
    format!("'{}'", rng.usize(1..=12))
}

pub const SHAPES: &[Shape] = &[
    // An int key that the target key covers; two flows on one source.
    Shape {
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
    },
    // A composite key, names that want quotes, a function that returns rows; two targets.
    Shape {
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
    },
    // Rows that share a customer are one item; the rows themselves feed another flow.
    Shape {
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
    },
    // Target keys name no source's key: they are listed in the tracking tables.
    Shape {
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
    },
    Shape {
        name: "computed_keys",
        setup: "create table notes (id text primary key, body text, junk text)",
        tables: &[Table {
            name: "notes",
            key: &["id"],
            columns: &[("id", text_key), ("body", sentence), ("junk", word)],
            spare: Some("junk"),
            more: &[
                "update notes set id = id || '+' where length(id) < 3
                   and not exists (select from notes u where u.id = notes.id || '+')",
                "update notes set id = '~' where id = 'a1'; update notes set id = 'a1' where id = 'A1';
                 update notes set id = 'A1' where id = '~'",
            ],
        }],
        functions: &[&[
            "create or replace function mark(t text) returns text language sql immutable
               as $$ select t || '1' $$",
            "create or replace function mark(t text) returns text language sql immutable
               as $$ select t || '2' $$",
        ]],
        flows: &[Flow {
            name: "words",
            sources: &[Source { name: "notes", table: 0, key: &["id"], grouped: false }],
            targets: &[Target {
                name: "note_words",
                key: &["k"],
                queries: &[
                    query(
                        "select md5(d.id || '/' || s.n) as k, s.w
                           from notes d, string_to_table(d.body, ' ') with ordinality as s(w, n)",
                        &[&["id", "body"]],
                    ),
                    query(
                        "select d.id || '/' || s.n as k, s.w, s.n
                           from notes d, string_to_table(d.body, ' ') with ordinality as s(w, n)",
                        &[&["id", "body"]],
                    ),
                    query("select id as k, body as w from notes", &[&["id", "body"]]),
                    calling(
                        &[0],
                        "select mark(s.w) as w, d.id || '/' || s.n as k
                           from notes d, string_to_table(d.body, ' ') with ordinality as s(w, n)",
                        &[&["id", "body"]],
                    ),
                    query(
                        "select (d.id || '/' || s.n)::varchar(80) as k, s.w
                           from notes d, string_to_table(d.body, ' ') with ordinality as s(w, n)",
                        &[&["id", "body"]],
                    ),
                ],
            }],
            contested: false,
        }],
    },
    Shape {
        name: "keys_that_look_different",
        setup: "create extension citext;
                create table numbers (n numeric primary key, v text);
                create table names (k citext primary key, v text)",
        tables: &[
            Table {
                name: "numbers",
                key: &["n"],
                columns: &[("n", spelled), ("v", word)],
                spare: None,
                more: &[
                    "update numbers set n = round(n, {a} % 3)",
                    "update numbers set n = round(n, {a} % 3) where n <= {b}",
                ],
            },
            Table {
                name: "names",
                key: &["k"],
                columns: &[("k", any_case), ("v", word)],
                spare: None,
                more: &["update names set k = upper(k::text)", "update names set k = lower(k::text)"],
            },
        ],
        functions: &[],
        flows: &[
            Flow {
                name: "numbers",
                sources: &[Source { name: "numbers", table: 0, key: &["n"], grouped: false }],
                targets: &[Target {
                    name: "numbers_out",
                    key: &["n"],
                    queries: &[
                        query("select n, v from numbers", &[&["n", "v"]]),
                        query("select n + 0 as n, v from numbers", &[&["n", "v"]]),
                        query("select n, n::text as v from numbers", &[&["n"]]),
                    ],
                }],
                contested: false,
            },
            Flow {
                name: "names",
                sources: &[Source { name: "names", table: 1, key: &["k"], grouped: false }],
                targets: &[Target {
                    name: "names_out",
                    key: &["k"],
                    queries: &[
                        query("select k, v from names", &[&["k", "v"]]),
                        query("select k::text::citext as k, v from names", &[&["k", "v"]]),
                        query("select k::text as k, v from names", &[&["k", "v"]]),
                    ],
                }],
                contested: false,
            },
        ],
    },
    Shape {
        name: "contested_keys",
        setup: "create table aliases (id int primary key, a text not null, b text not null)",
        tables: &[Table {
            name: "aliases",
            key: &["id"],
            columns: &[("id", |r| r.usize(1..=10).to_string()), ("a", alias), ("b", alias)],
            spare: None,
            more: &["update aliases set a = b, b = a where id % 2 = {a} % 2"],
        }],
        functions: &[],
        flows: &[Flow {
            name: "aliases",
            sources: &[Source { name: "aliases", table: 0, key: &["id"], grouped: false }],
            targets: &[Target {
                name: "aliases_out",
                key: &["alias"],
                queries: &[
                    query(
                        "select u.w as alias, s.id
                           from aliases s, lateral (select s.a union select s.b) as u(w)",
                        &[&["id", "a", "b"]],
                    ),
                    query("select a as alias, id from aliases", &[&["id", "a"]]),
                ],
            }],
            contested: true,
        }],
    },
];
