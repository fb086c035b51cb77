//! Ten live flows of every kind, and what their targets must hold.

use std::collections::BTreeMap;

use crate::http::Receiver;
use crate::sides::expected;
use crate::support::explain;
use crate::support::server::{Server, Session, comes};

pub const DATABASE: &str = "chaos";
/// The database that holds the target of flow `abroad`.
pub const ABROAD: &str = "abroad";

/// Where a flow's rows go.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Here,
    Abroad,
    Webhook,
}

struct Flow {
    name: &'static str,
    source: &'static str,
    query: &'static str,
    key: &'static str,
    /// The columns that the rows of a group have in common; empty where an item is a row.
    group: &'static str,
    /// Each with its key (empty: the primary key), and its query for the items that it affects.
    lookups: &'static [(&'static str, &'static str, &'static str)],
    /// A second source of the flow.
    also: Option<&'static str>,
    place: Place,
    batch: u32,
}

const PLAIN: Flow = Flow {
    name: "",
    source: "docs",
    query: "",
    key: "{id}",
    group: "",
    lookups: &[],
    also: None,
    place: Place::Here,
    batch: 10,
};

const BY_AUTHOR: (&str, &str, &str) =
    ("authors", "", "select d.id from docs d join authors a on a.id = d.author");
const BY_PART: (&str, &str, &str) =
    ("parts", "{doc}", "select d.id from docs d join parts p on p.doc = d.id");

/// A flow whose source is another's target comes after that.
const FLOWS: [Flow; 10] = [
    Flow { name: "plain", query: "select id, upper(body) as body, n, author from docs", ..PLAIN },
    Flow {
        name: "pieces",
        query: "select id, no, md5(body || no) as piece from docs, generate_series(1, n % 4) as no",
        key: "{id,no}",
        batch: 10_000,
        ..PLAIN
    },
    Flow {
        name: "grouped",
        source: "parts",
        query: "select doc, count(*) as parts, sum(amount) as amount from parts group by doc",
        key: "{doc}",
        group: "{doc}",
        ..PLAIN
    },
    Flow {
        name: "cards",
        query:
            "select d.id, a.name, d.n, (select count(*) from parts p where p.doc = d.id) as parts
                  from docs d left join authors a on a.id = d.author",
        lookups: &[BY_AUTHOR, BY_PART],
        ..PLAIN
    },
    Flow {
        name: "named",
        query: "select d.id, a.name, d.body from docs d left join authors a on a.id = d.author",
        lookups: &[BY_AUTHOR],
        batch: 10_000,
        ..PLAIN
    },
    Flow {
        name: "united",
        query: "select 'd' as kind, id, body from docs union all select 'a', id, name from authors",
        key: "{kind,id}",
        also: Some("authors"),
        ..PLAIN
    },
    Flow {
        name: "slots",
        source: "holders",
        query: "select slot, id, note from holders",
        key: "{slot}",
        ..PLAIN
    },
    Flow {
        name: "chained",
        source: "pieces_t",
        query: "select id, no, left(piece, 8) as piece from pieces_t",
        key: "{id,no}",
        ..PLAIN
    },
    Flow {
        name: "abroad",
        query: "select d.id, d.body, a.name from docs d left join authors a on a.id = d.author",
        lookups: &[BY_AUTHOR],
        place: Place::Abroad,
        ..PLAIN
    },
    Flow {
        name: "posted",
        source: "pieces_t",
        query: "select id, count(*) as pieces, string_agg(piece, ',' order by no) as pieces_of from pieces_t group by id",
        group: "{id}",
        place: Place::Webhook,
        batch: 10_000,
        ..PLAIN
    },
];

const TABLES: &str = "
create table docs (id int primary key, author int not null, body text not null, n int not null default 0, spare int default 7);
create table authors (id int primary key, name text not null);
create table parts (id int generated always as identity primary key, doc int not null, amount int not null);
create table holders (id int primary key, slot int not null, note text not null default '', unique (slot) deferrable);
insert into authors select i, 'a' || i from generate_series(1, 20) i;
insert into docs select i, i % 25, 'b' || i, i from generate_series(1, 200) i;
insert into parts (doc, amount) select i % 40, i from generate_series(1, 400) i;
insert into holders (id, slot) select i, i from generate_series(1, 40) i;
";

/// Makes the tables and the flows, and starts these.
pub fn declare(server: &Server, receiver: &Receiver) {
    server.connect("postgres").run(&format!("create database {ABROAD} template template0"));
    let mut db = server.database(DATABASE);
    db.run(TABLES);
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}', request_timeout '20', connect_timeout '5');
         create user mapping for postgres server hook;
         create server pg foreign data wrapper coco_postgres
           options (host '{}', port '5432', dbname '{ABROAD}', sslmode 'disable');
         create user mapping for postgres server pg options (user 'postgres')",
        receiver.url(),
        server.directory().display(),
    ));
    for flow in &FLOWS {
        db.run(&flow.declaration());
        db.run(&format!("select count(*) from coco.update('{}')", flow.name));
    }
    for flow in &FLOWS {
        db.run(&format!("select coco.start('{}')", flow.name));
    }
}

/// Waits until every flow has followed its sources, and compares each target with its query.
pub fn compare(server: &Server, receiver: &Receiver) {
    let mut db = server.connect(DATABASE);
    for flow in &FLOWS {
        db.caught_up(flow.name);
    }
    // An item that met another's key is evaluated again within seconds.
    let failing = "select e::text from coco.errors e";
    if !comes(std::time::Duration::from_secs(30), || db.rows(failing).is_empty()) {
        panic!("no item fails for long:\n{}\n{}", db.rows(failing).join("\n"), db.state());
    }
    for flow in &FLOWS {
        flow.compare(server, &mut db, receiver);
        db.verify(flow.name);
    }
    let others = "select s::text from coco.status s where s.state <> 'live' or s.pending <> 0";
    if !comes(std::time::Duration::from_secs(30), || db.rows(others).is_empty()) {
        panic!("every flow is live:\n{}", db.state());
    }
    let late = "select d::text from coco.delivery_status d where d.queued > 0 or d.rejected > 0";
    let late = db.rows(late);
    assert!(late.is_empty(), "nothing waits to be sent: {late:?}");
}

impl Flow {
    fn target(&self) -> String {
        format!("{}_t", self.name)
    }

    fn declaration(&self) -> String {
        let Flow { name, source, query, key, .. } = self;
        let group = key_argument(self.group);
        let mut sql = format!(
            "select coco.create_flow('{name}'); select coco.add_source('{name}', '{source}'{group});"
        );
        if let Some(also) = self.also {
            sql.push_str(&format!("select coco.add_source('{name}', '{also}');"));
        }
        for (lookup, key, affects) in self.lookups {
            let key = key_argument(key);
            sql.push_str(&format!(
                "select coco.add_lookup('{name}', '{lookup}', affects => '{affects}'{key});"
            ));
        }
        let server = match self.place {
            Place::Here => "",
            Place::Abroad => ", server => 'pg'",
            Place::Webhook => ", server => 'hook'",
        };
        sql.push_str(&format!(
            "select coco.add_target('{name}', '{}', $q${query}$q$, '{key}'{server});
             select coco.alter_flow('{name}', batch_size => {});",
            self.target(),
            self.batch
        ));
        sql
    }

    fn compare(&self, server: &Server, db: &mut Session, receiver: &Receiver) {
        let (target, query) = (self.target(), self.query);
        let (has, wants) = match self.place {
            Place::Here => {
                let rows = |db: &mut Session, of: &str| counted(db, of);
                (rows(db, &format!("select * from {target}")), rows(db, query))
            }
            Place::Abroad => {
                let mut there = server.connect(ABROAD);
                (counted(&mut there, &format!("select * from {target}")), counted(db, query))
            }
            Place::Webhook => {
                let all = expected(&mut db.0, query, "q.id");
                (receiver.rows(self.name, &target), all)
            }
        };
        let difference = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
            let rows: Vec<String> = a
                .iter()
                .filter(|(k, v)| b.get(*k) != Some(v))
                .take(20)
                .map(|(k, v)| format!("{k} {v}"))
                .collect();
            rows.join("\n")
        };
        assert!(
            has == wants,
            "flow {}\nlacks:\n{}\nhas:\n{}\n{}",
            self.name,
            difference(&wants, &has),
            difference(&has, &wants),
            db.state()
        );
    }
}

fn key_argument(key: &str) -> String {
    match key {
        "" => String::new(),
        key => format!(", key => '{key}'"),
    }
}

/// Rows as text, each with how often it is there.
fn counted(session: &mut Session, query: &str) -> BTreeMap<String, String> {
    let sql = format!("select q::text, count(*)::text from ({query}) as q group by 1");
    let rows = session.0.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| (r.get(0), r.get(1))).collect()
}
