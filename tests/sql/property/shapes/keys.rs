//! Shapes about target keys: computed, equal in different spellings, and contested.

use super::values::{alias, any_case, sentence, spelled, text_key, word};
use super::{Flow, Shape, Source, Table, Target, calling, query};

pub(super) const COMPUTED_KEYS: Shape = Shape {
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
};

pub(super) const KEYS_THAT_LOOK_DIFFERENT: Shape = Shape {
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
};

pub(super) const CONTESTED_KEYS: Shape = Shape {
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
};
