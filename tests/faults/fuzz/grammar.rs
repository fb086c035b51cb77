//! Random declarations, half of them sensible.

use fastrand::Rng;

pub struct Declaration {
    pub sql: String,
    /// The flow's name as a literal.
    pub flow: String,
    pub target: String,
    pub source: &'static str,
    /// The query, where each item's rows come from that item alone.
    pub plain: Option<String>,
    pub in_database: bool,
}

pub struct Grammar<'r> {
    rng: &'r mut Rng,
}

/// Tables, with their key, a column of text and a column of numbers.
const SOURCES: [(&str, &str, &str, &str, &str); 4] = [
    ("mal.a", "a", "id", "t", "n"),
    ("mal.\"B \"\"x\"\"\"", "\"B \"\"x\"\"\"", "\"Id\"", "\"select\"", "grp"),
    ("mal.parts", "parts", "id, k", "k", "v"),
    ("mal.typed", "typed", "id", "m::text", "d"),
];

const NAMES: [&str; 14] = [
    "f",
    "",
    " ",
    "F\"x",
    "it''s",
    "select",
    "a.b",
    "coco_internal.flow",
    "é\u{301}",
    "\u{1f600}",
    "x\ny",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
    "tracking_1_f",
];

impl<'r> Grammar<'r> {
    pub fn new(rng: &'r mut Rng) -> Grammar<'r> {
        Grammar { rng }
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.usize(..of.len())]
    }

    fn often(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    pub fn declaration(&mut self, n: usize) -> Declaration {
        let (relation, name, key, text, number) = SOURCES[self.rng.usize(..SOURCES.len())];
        let flow =
            if self.often(80) { format!("'f{n}'") } else { format!("'{}'", self.one(&NAMES)) };
        let target = if self.often(85) {
            format!("mal.t{n}")
        } else {
            self.one(&[
                "mal.a",
                "coco_internal.flow",
                "pg_catalog.x",
                "public.x",
                "no.such",
                "t",
                "mal.\"T \"\"q\"\"\"",
                "a.b.c.d",
                "",
            ])
            .to_owned()
        };
        let item_local = self.often(60);
        let shown = if self.often(50) { name } else { relation };
        let query = if item_local {
            self.plain(shown, key, text, number)
        } else {
            self.wild(shown, text, number)
        };
        let keys = if self.often(85) {
            key.replace('"', "")
        } else {
            self.one(&["", "x", "id,id", "id, v", "NULL", "n,t", "ctid", "{id}"]).to_owned()
        };
        let mut more = String::new();
        for (argument, values, percent) in [
            ("source_key", ["'{id}'", "'{t}'", "'{n,b}'", "'{}'", "'{nope}'", "null"], 8),
            (
                "ordinal",
                ["'id::bigint'", "'xmin'", "'now()'", "'1/0'", "'random()::bigint'", "''"],
                8,
            ),
            (
                "fingerprint",
                ["'md5(t)'", "'id'", "'(select 1)'", "'a.*'", "'pg_sleep(0)'", "'1)) --'"],
                8,
            ),
            ("capture", ["'scan'", "'trigger'", "'always'", "'never'", "''", "null"], 20),
            ("refresh_interval", ["'1 s'", "'-1 s'", "'1 mon'", "'infinity'", "'0'", "null"], 5),
            ("refresh", ["'1 s'", "'*/5 * * * *'", "'@daily'", "'1 mon'", "'commit'", "''"], 5),
            ("fill_order", ["'newest'", "'oldest'", "'any'", "'id desc'", "''", "null"], 5),
            ("name", ["'a'", "'x'", "''", "'B \"x\"'", "'select'", "'coco_item'"], 8),
            (
                "search_path",
                ["'mal'", "'pg_temp, mal'", "''", "'coco, mal'", "'\"$user\", public'", "'nope'"],
                8,
            ),
            ("item", ["'s'", "'a'", "'nope'", "''", "null", "'parts'"], 5),
        ] {
            if self.often(percent) {
                more.push_str(&format!(
                    ", {argument} => {}",
                    values[self.rng.usize(..values.len())]
                ));
            }
        }
        let plain = (item_local
            && !more.contains("source_key")
            && !more.contains("ordinal")
            && !more.contains("fingerprint")
            && !more.contains(" name =>"))
        .then(|| query.clone());
        let sql = format!(
            "select coco.create_flow({flow}, '{}', {}, '{target}', '{{{}}}'{more})",
            relation.replace('\'', "''"),
            literal(&query),
            keys.replace('"', "\\\"")
        );
        Declaration { sql, flow, target, source: relation, plain, in_database: true }
    }

    fn expression(&mut self, text: &str, number: &str, depth: usize) -> String {
        if depth == 0 {
            return self
                .one(&[text, number, "1", "null", "'x'", "true", "current_user", "'{}'::jsonb"])
                .to_owned();
        }
        let one = self.expression(text, number, depth - 1);
        let two = self.expression(text, number, depth - 1);
        match self.rng.u32(..14) {
            0 => format!("coalesce(({one})::text, ({two})::text)"),
            1 => format!("upper(({one})::text)"),
            2 => format!("case when ({one}) is null then ({two})::text else 'z' end"),
            3 => format!("(({one})::text = ({two})::text)"),
            4 => format!("row({one}, {two})::text"),
            5 => format!("array[({one})::text, ({two})::text]"),
            6 => format!("to_jsonb(({one}))"),
            7 => format!("mal.twice(length(({one})::text))"),
            8 => format!("(select string_agg(w, ',' order by w) from mal.words(({one})::text) w)"),
            9 => format!("(select max(x) from (values (({one})::text), (({two})::text)) v(x))"),
            10 => format!("(({one})::text || ({two})::text)"),
            11 => format!("length(({one})::text)"),
            12 => format!("exists (select from mal.seen where t = ({one})::text)"),
            _ => format!("nullif(({one})::text, ({two})::text)"),
        }
    }

    fn plain(&mut self, shown: &str, key: &str, text: &str, number: &str) -> String {
        let depth = self.rng.usize(1..4);
        // What else is read would need a lookup to be followed.
        let mut made = self.expression(text, number, depth);
        while made.contains("mal.seen") {
            made = self.expression(text, number, depth);
        }
        match self.rng.u32(..7) {
            0 => format!("select {key}, {made} as x from {shown}"),
            1 => format!("select {key}, q.x from {shown} as s, lateral (select {made} as x) q"),
            2 => format!("with s as (select * from {shown}) select {key}, {made} as x from s"),
            3 => format!(
                "with s as materialized (select * from {shown} where true) select {key}, {made} as x from s where ({number}) is not null"
            ),
            4 => format!("select {key}, {made} as x from (select * from {shown} offset 0) s"),
            5 => format!(
                "select {key}, {made} as x from {shown} where ({text})::text is distinct from 'gone' order by 1"
            ),
            _ => format!("(select {key}, {made} as x from {shown})"),
        }
    }

    fn wild(&mut self, shown: &str, text: &str, number: &str) -> String {
        let depth = self.rng.usize(1..4);
        let made = self.expression(text, number, depth);
        match self.rng.u32(..24) {
            0 => format!("select count(*) as id, {made} as x from {shown} group by 2"),
            1 => format!("select row_number() over () as id, {made} as x from {shown}"),
            2 => format!("select distinct on (1) 1 as id, {made} as x from {shown}"),
            3 => format!("select * from {shown} limit 1"),
            4 => format!("select a.* from {shown} a join {shown} b using (id)"),
            5 => format!("select * from {shown} union all select * from {shown}"),
            6 => format!(
                "with recursive r as (select 1 as id union all select id + 1 from r where id < 9) select r.id, s.* from r, {shown} s"
            ),
            7 => format!("select 1 as id; select 2 from {shown}"),
            8 => "select".to_owned(),
            9 => format!("select id, id from {shown}"),
            10 => format!("select s as id from {shown} s"),
            11 => format!("select s.*, s from {shown} s"),
            12 => format!("select id, 1/0 as x from {shown}"),
            13 => format!(
                "select id, (select 1 as coco_item offset 0) as x from {shown}, lateral (select 2 as coco_item offset 0) b"
            ),
            14 => format!("values (1, (select {made} from {shown} limit 1))"),
            15 => format!("delete from {shown} returning id"),
            16 => format!("with d as (delete from {shown} returning *) select * from d"),
            17 => format!("select id, {made} as x from {shown} for update"),
            18 => format!("select id, {made} as x from only {shown}"),
            19 => format!("select id, ctid, tableoid, {made} as x from {shown}"),
            20 => format!("select id, {made} as x from {shown} tablesample system (50)"),
            21 => format!("select id, {} as x from {shown}", "(".repeat(self.rng.usize(..3000))),
            22 => format!(
                "select id, {made} as x from {shown} group by grouping sets ((id), ()) having true"
            ),
            _ => format!("select id, $1 as x, {made} from {shown}, pg_catalog.pg_class"),
        }
    }

    /// Something that is done with a flow, or to its source.
    pub fn step(&mut self, d: &Declaration) -> String {
        let flow = &d.flow;
        match self.rng.u32(..14) {
            0..=3 => format!("select * from coco.update({flow})"),
            4 => format!("select * from coco.update({flow}, '{}')", self.one(&["full_reprocess", "reexport", "normal", "x"])),
            5 => format!("select * from coco.verify({flow}, {})", self.one(&["true", "false"])),
            6 => format!("select * from coco.preview({flow}, 'full_reprocess', {})", self.one(&["0", "5", "-1", "1000000000"])),
            7 => format!("select * from coco.explain({flow})"),
            8 => format!("select * from coco.outputs({flow}, '{}')", self.one(&["{\"id\": 1}", "{}", "null", "[1]", "{\"Id\": \"x\"}", "{\"id\": 1e400}"])),
            9 => format!("select * from coco.lineage({}, '{}')", literal(&d.target), self.one(&["{\"id\": 1}", "{}", "null", "\"x\"", "{\"id\": null}"])),
            10 => match self.rng.u32(..4) {
                0 => "insert into mal.a select max(id) + 1, 'new words', 1.0, true from mal.a".to_owned(),
                1 => "insert into mal.parts values (1, 'x', 1), (1, 'y', 2) on conflict (id, k) do update set v = parts.v + 1".to_owned(),
                2 => "insert into mal.\"B \"\"x\"\"\" values (1), (2) on conflict do nothing".to_owned(),
                _ => "insert into mal.typed values (1, 'sad', 'empty', '{}', now(), '{NULL}', 5) on conflict (id) do update set d = typed.d + 1".to_owned(),
            },
            11 => format!("delete from {}", d.source),
            12 => "insert into mal.a values (1, 'a', 'NaN', null), (2, '', -0.0, false) on conflict (id) do update set t = a.t || 'x'".to_owned(),
            _ => format!("select coco.alter_flow({flow}, label => {}, batch_size => {})", self.one(&["'x'", "''", "null"]), self.one(&["1", "0", "-5", "1000000", "null"])),
        }
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
