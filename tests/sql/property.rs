//! After any history of changes a target equals its query over everything, and an update has
//! evaluated and written exactly what that history changed.
//!
//! Each shape is a set of tables, functions and flows; random operations run over it, and what
//! coco says and does is held against plain SQL and a model that knows what each item's used
//! columns held at the last update. `COCO_TEST_SEED` repeats a run, `COCO_TEST_ROUNDS` makes it
//! longer or shorter.

mod checks;
mod shapes;
mod statements;

use crate::support;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fastrand::Rng;
use postgres::Error;

use shapes::{Flow, SHAPES, Shape};
use statements::{change_key, insert, literal, one, set, some, upsert};
use support::{Counts, TestDb, explain};

/// Rounds a shape; each has up to ten operations and a look at every flow.
const ROUNDS: usize = 120;

/// Statements shown when a run fails.
const SHOWN: usize = 60;

/// Each shape, with sources that are scanned and with sources that are captured.
macro_rules! shapes {
    ($($test:ident: $shape:literal,)*) => {
        mod scanned {
            $(#[test] fn $test() { super::run($shape, false) })*
        }
        mod captured {
            $(#[test] fn $test() { super::run($shape, true) })*
        }
    };
}

shapes! {
    one_row_an_item: "one_row_an_item",
    many_rows_an_item_through_functions_and_odd_names: "many_rows_an_item",
    one_item_a_group: "one_item_a_group",
    two_sources_in_one_target: "two_sources",
    target_keys_that_are_computed: "computed_keys",
    keys_that_are_equal_and_look_different: "keys_that_look_different",
    items_that_claim_the_same_target_key: "contested_keys",
}

fn run(name: &str, captured: bool) {
    let shape = SHAPES.iter().find(|s| s.name == name).expect("a shape of that name");
    let seed = match std::env::var("COCO_TEST_SEED") {
        Ok(seed) => seed.parse().expect("COCO_TEST_SEED is a number"),
        Err(_) => fastrand::u64(1..1_000_000),
    };
    let rounds = std::env::var("COCO_TEST_ROUNDS").ok().and_then(|r| r.parse().ok());
    println!("{name}: COCO_TEST_SEED={seed}");
    let mut run = Run::new(shape, seed, captured);
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        run.round();
    }
    println!("{name}: {} operations, {} updates", run.operations, run.updates);
}

/// What decides an item's result besides its content: which query each target has and which body
/// each function, by their numbers in the shape.
#[derive(Clone)]
struct Logic {
    queries: Vec<Vec<usize>>,
    bodies: Vec<usize>,
    /// A flow's target was given another query since its last update, if only for a while: its
    /// table may have been altered, and have lost values.
    reset: Vec<bool>,
}

/// What a flow knew at its last update.
#[derive(Clone, Default)]
struct Known {
    logic: Option<Vec<(usize, Vec<usize>)>>,
    /// For each source: the used content of each item.
    items: Vec<HashMap<String, String>>,
}

/// Rows by key, as text.
type Rows = BTreeMap<String, String>;

struct Run {
    shape: &'static Shape,
    seed: u64,
    captured: bool,
    /// In a transaction that has written, and which may go on to.
    open: bool,
    db: TestDb,
    rng: Rng,
    logic: Logic,
    known: Vec<Known>,
    log: Vec<String>,
    round: usize,
    operations: usize,
    updates: usize,
}

impl Run {
    fn new(shape: &'static Shape, seed: u64, captured: bool) -> Run {
        let logic = Logic {
            queries: shape.flows.iter().map(|f| vec![0; f.targets.len()]).collect(),
            bodies: vec![0; shape.functions.len()],
            reset: vec![false; shape.flows.len()],
        };
        let mut run = Run {
            shape,
            seed,
            captured,
            open: false,
            db: TestDb::new(&format!("property_{}_{captured}", shape.name)),
            rng: Rng::with_seed(seed),
            logic,
            known: vec![Known::default(); shape.flows.len()],
            log: vec![],
            round: 0,
            operations: 0,
            updates: 0,
        };
        run.execute(shape.setup);
        for function in shape.functions {
            run.execute(function[0]);
        }
        for flow in shape.flows {
            run.execute(&declaration(flow, captured));
        }
        run
    }

    fn round(&mut self) {
        self.round += 1;
        for _ in 0..self.rng.usize(1..=4) {
            match self.rng.usize(0..20) {
                0 => self.transaction("commit"),
                1 | 2 => self.transaction("rollback"),
                _ => self.change(),
            }
        }
        if self.rng.usize(0..5) == 0 {
            for _ in 0..self.rng.usize(1..=2) {
                self.change_logic();
            }
        }
        let batch = [1, 3, 10_000][self.rng.usize(0..3)];
        self.execute(&format!("set coco.batch_size = {batch}"));
        if self.rng.usize(0..8) == 0 {
            self.update_and_roll_back();
        }
        for flow in 0..self.shape.flows.len() {
            // A flow may fall behind another on the same tables.
            if self.rng.usize(0..5) > 0 {
                self.check(flow);
            }
        }
    }

    // Operations

    /// One statement that changes data.
    fn change(&mut self) {
        self.operations += 1;
        let table = &self.shape.tables[self.rng.usize(0..self.shape.tables.len())];
        let spare = table.spare.filter(|_| !self.spare_is_used());
        let rng = &mut self.rng;
        let sql = match rng.usize(0..100) {
            0..26 => insert(table, rng, 1),
            26..36 => {
                let rows = rng.usize(2..9);
                insert(table, rng, rows)
            }
            36..42 => upsert(table, rng),
            42..58 => set(table, rng, false, &one(table)),
            58..64 => set(table, rng, false, &some(table)),
            64..70 => set(table, rng, true, &some(table)),
            70..78 => change_key(table, rng),
            78..82 if !table.more.is_empty() => {
                let (a, b) = (rng.usize(1..=40), rng.usize(1..=40));
                let sql = table.more[rng.usize(0..table.more.len())];
                sql.replace("{a}", &a.to_string()).replace("{b}", &b.to_string())
            }
            82..84 if spare.is_some() => {
                let (t, c) = (table.name, spare.unwrap_or_default());
                format!("alter table {t} drop column {c}; alter table {t} add column {c} text")
            }
            84..94 => format!("delete from {} where {}", table.name, one(table)),
            94..98 => format!("delete from {} where {}", table.name, some(table)),
            98 => format!("truncate {}", table.name),
            _ => insert(table, rng, 1),
        };
        let salt = self.rng.u32(..).to_string();
        self.execute(&sql.replace("{salt}", &salt));
    }

    /// Several statements in a transaction, some of them rolled back to a savepoint.
    fn transaction(&mut self, end: &str) {
        let before = self.logic.clone();
        self.execute("begin");
        for _ in 0..self.rng.usize(1..=3) {
            self.change();
        }
        if self.rng.bool() {
            self.execute("savepoint s");
            self.change();
            self.execute("rollback to savepoint s");
        }
        if end == "rollback" && self.rng.usize(0..3) == 0 {
            self.change_logic();
        }
        self.execute(end);
        if end == "rollback" {
            self.logic = before;
        }
    }

    /// Another query of a target or another body of a function; now and then the one it has.
    fn change_logic(&mut self) {
        self.operations += 1;
        let functions = self.shape.functions;
        if !functions.is_empty() && self.rng.bool() {
            let function = self.rng.usize(0..functions.len());
            let body = self.rng.usize(0..functions[function].len());
            self.logic.bodies[function] = body;
            return self.execute(functions[function][body]);
        }
        let flow = self.rng.usize(0..self.shape.flows.len());
        let at = self.rng.usize(0..self.shape.flows[flow].targets.len());
        let target = &self.shape.flows[flow].targets[at];
        let query = self.rng.usize(0..target.queries.len());
        self.logic.reset[flow] |= self.logic.queries[flow][at] != query;
        self.logic.queries[flow][at] = query;
        self.execute(&format!(
            "select coco.set_query({}, {}, {})",
            literal(self.shape.flows[flow].name),
            literal(target.name),
            literal(target.queries[query].sql)
        ));
    }

    fn spare_is_used(&self) -> bool {
        let flows = self.shape.flows.iter().zip(&self.logic.queries);
        let mut queries =
            flows.flat_map(|(f, qs)| f.targets.iter().zip(qs).map(|(t, q)| &t.queries[*q]));
        queries.any(|q| q.whole_row)
    }

    /// An update in a transaction that does not stay: right while it lasts, and without a trace.
    fn update_and_roll_back(&mut self) {
        let flow = self.rng.usize(0..self.shape.flows.len());
        let before = self.targets(flow);
        let (logic, known) = (self.logic.clone(), self.known.clone());
        self.execute("begin");
        self.change();
        if self.rng.usize(0..4) == 0 {
            self.change_logic();
        }
        self.open = true;
        self.check(flow);
        self.open = false;
        self.execute("rollback");
        (self.logic, self.known) = (logic, known);
        let after = self.targets(flow);
        self.hold(before == after, || "an update that was rolled back left a trace".to_owned());
    }

    // Failing

    fn hold(&self, right: bool, message: impl FnOnce() -> String) {
        if !right {
            self.fail(&message());
        }
    }

    fn fail(&self, message: &str) -> ! {
        let from = self.log.len().saturating_sub(SHOWN);
        panic!(
            "{}\nshape {}, captured {}, COCO_TEST_SEED={}, round {}; the latest statements:\n{}",
            message,
            self.shape.name,
            self.captured,
            self.seed,
            self.round,
            self.log[from..].join("\n")
        );
    }

    fn must<T>(&self, result: Result<T, Error>) -> T {
        result.unwrap_or_else(|e| self.fail(&explain(&e)))
    }

    // Reading

    /// For each source of a flow: its items' keys and the content its queries use.
    fn items(&mut self, at: usize) -> Vec<HashMap<String, String>> {
        let flow = &self.shape.flows[at];
        let queries = self.logic.queries[at].clone();
        let mut all = Vec::new();
        for (n, source) in flow.sources.iter().enumerate() {
            let table = &self.shape.tables[source.table];
            let mut used = BTreeSet::new();
            for (target, query) in flow.targets.iter().zip(&queries) {
                used.extend(target.queries[*query].used[n]);
            }
            let used: Vec<&str> = used.into_iter().copied().collect();
            let (key, content) = (source.key.join(", "), format!("row({})::text", used.join(", ")));
            let name = table.name;
            let sql = match source.grouped {
                true => format!(
                    "select row({key})::text, string_agg({content}, '' order by {content})
                       from {name} group by {key}"
                ),
                // A key is what equals it, however it is written.
                false => format!(
                    "select hash_record_extended(row({key}), 0)::text, {content} from {name}"
                ),
            };
            all.push(self.pairs(&sql).into_iter().collect());
        }
        all
    }

    /// The rows of each of a flow's targets.
    fn targets(&mut self, at: usize) -> Vec<Rows> {
        let mut all = Vec::new();
        for target in self.shape.flows[at].targets {
            let key = target.key.join(", ");
            let sql = format!(
                "select hash_record_extended(row({key}), 0)::text, t::text from {} t",
                target.name
            );
            all.push(self.pairs(&sql).into_iter().collect());
        }
        all
    }

    /// Each target's query and the bodies of the functions it calls.
    fn logic_of(&self, at: usize) -> Vec<(usize, Vec<usize>)> {
        let targets = self.shape.flows[at].targets.iter().zip(&self.logic.queries[at]);
        targets
            .map(|(target, query)| {
                let calls = target.queries[*query].calls.iter();
                (*query, calls.map(|f| self.logic.bodies[*f]).collect())
            })
            .collect()
    }

    fn update(&mut self, flow: &str, mode: &str) -> Vec<Counts> {
        self.updates += 1;
        self.log.push(format!("select * from coco.update({}, '{mode}');", literal(flow)));
        let counts = support::update(&mut self.db.client, flow, mode);
        self.must(counts)
    }

    /// How many rows a preview says would be put and deleted.
    fn preview(&mut self, flow: &str, mode: &str) -> (i64, i64) {
        let sql =
            format!("select change, '' from coco.preview({}, '{mode}', 100000)", literal(flow));
        self.log.push(format!("{sql};"));
        let changes = self.pairs(&sql);
        let count = |what: &str| changes.iter().filter(|(c, _)| c == what).count() as i64;
        (count("insert") + count("update"), count("delete"))
    }

    fn execute(&mut self, sql: &str) {
        self.log.push(format!("{};", sql.trim().trim_end_matches(';')));
        let done = self.db.client.batch_execute(sql);
        self.must(done);
    }

    fn texts(&mut self, sql: &str) -> Vec<String> {
        let rows = self.db.client.query(sql, &[]);
        self.must(rows).iter().map(|r| r.get(0)).collect()
    }

    fn pairs(&mut self, sql: &str) -> Vec<(String, String)> {
        let rows = self.db.client.query(sql, &[]);
        self.must(rows).iter().map(|r| (r.get(0), r.get(1))).collect()
    }
}

fn declaration(flow: &Flow, captured: bool) -> String {
    let capture = if captured { "trigger" } else { "scan" };
    let mut sql = format!("select coco.create_flow({});", literal(flow.name));
    let list = |names: &[&str]| literal(&format!("{{{}}}", names.join(",")));
    for source in flow.sources {
        sql.push_str(&format!(
            "select coco.add_source({}, {}, key => {}, capture => '{capture}');",
            literal(flow.name),
            literal(source.name),
            list(source.key)
        ));
    }
    for target in flow.targets {
        sql.push_str(&format!(
            "select coco.add_target({}, {}, {}, {});",
            literal(flow.name),
            literal(target.name),
            literal(target.queries[0].sql),
            list(target.key)
        ));
    }
    sql
}
