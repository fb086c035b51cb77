//! The remote server, its databases, and a target that is driven like coco drives it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use postgres::NoTls;
use serde_json::Map;
use tokio::runtime::Runtime;

use crate::support::server::{Server, Session};
use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::pre_commit_stream;
use coco_connectors::targets::{Connector, Prepared, Target};
use coco_core::change::{
    Change, Column, DeliveryError, RejectedChange, RowSink, TargetSchema, Values,
};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests};

pub fn connector() -> &'static Connector {
    coco_connectors::targets::connector("coco_postgres").expect("the connector is there")
}

/// Returns a server that concurrent tests share. Owners of flows need no password.
pub fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start(&["deadlock_timeout = 100ms"]));
    *shared = Arc::downgrade(&server);
    server
}

/// A database of one test on the remote server, with a superuser's session.
pub struct RemoteDb {
    pub server: Arc<Server>,
    pub name: String,
    pub sql: Session,
    pub runtime: Arc<Runtime>,
}

impl RemoteDb {
    pub fn new(name: &str) -> RemoteDb {
        RemoteDb::on(shared(), name)
    }

    pub fn on(server: Arc<Server>, name: &str) -> RemoteDb {
        server.connect("postgres").run(&format!("create database {name} template template0"));
        let sql = server.connect(name);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        RemoteDb { server, name: name.to_owned(), sql, runtime: Arc::new(runtime) }
    }

    /// Returns the access of a superuser's flow, with the role `postgres`.
    pub fn access(&self) -> Access {
        let directory = self.server.directory().display().to_string();
        access(
            &[("host", &directory), ("dbname", &self.name), ("statement_timeout", "20")],
            &[("user", "postgres")],
            true,
        )
    }

    pub fn open(&self, schema: &TargetSchema) -> DrivenTarget {
        self.open_with(self.access(), schema).unwrap_or_else(|t| panic!("{t:?}"))
    }

    pub fn open_with(
        &self,
        access: Access,
        schema: &TargetSchema,
    ) -> Result<DrivenTarget, DeliveryError> {
        let target = connector().connect(access)?;
        Ok(DrivenTarget { target, schema: schema.clone(), runtime: self.runtime.clone() })
    }

    /// Opens and prepares a target.
    pub fn ready(&self, schema: &TargetSchema) -> DrivenTarget {
        let mut driven = self.open(schema);
        driven.prepare().unwrap_or_else(|t| panic!("{t:?}"));
        driven
    }

    /// Returns upserts of a query's rows, cast to the types of the columns with built-in types.
    pub fn rows(&self, schema: &TargetSchema, query: &str) -> Vec<Change> {
        let session = self.server.config(&self.name).connect(NoTls);
        let mut session = session.unwrap_or_else(|e| panic!("no connection: {e}"));
        let names: Vec<String> = (1..=schema.columns.len()).map(|n| format!("c{n}")).collect();
        let cast = |(column, name): (&Column, &String)| match column.type_schema.as_str() {
            "pg_catalog" => format!("q.{name}::{}", column.type_name),
            _ => format!("q.{name}"),
        };
        let casts: Vec<String> = schema.columns.iter().zip(&names).map(cast).collect();
        let (casts, names) = (casts.join(", "), names.join(", "));
        let query = format!("select {casts} from ({query}) as q ({names})");
        let copy = format!("copy ({query}) to stdout (format binary)");
        let mut reader = session.copy_out(&copy).unwrap_or_else(|e| panic!("{query}: {e:?}"));
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut data).expect("a copy is read");
        let mut rest = &data[19..];
        let mut changes = Vec::new();
        while let Some(fields) = tuple(&mut rest) {
            let key: Vec<u8> = schema.key.iter().flat_map(|k| fields[*k].iter().copied()).collect();
            let row = Some(Values::Binary(fields.concat()));
            changes.push(Change { key: Values::Binary(key), row, version: 1 });
        }
        changes
    }

    /// Returns deletes of the keys that a query returns.
    pub fn deletions(&self, schema: &TargetSchema, query: &str) -> Vec<Change> {
        let mut keys = schema.clone();
        keys.columns = schema.key_columns().cloned().collect();
        keys.key = (0..keys.columns.len()).collect();
        let mut changes = self.rows(&keys, query);
        changes.iter_mut().for_each(|change| change.row = None);
        changes
    }
}

impl Drop for RemoteDb {
    fn drop(&mut self) {
        if let Ok(mut server) = self.server.try_connect("postgres") {
            server.batch_execute(&format!("drop database {} with (force)", self.name)).ok();
        }
    }
}

/// Returns the fields of the next tuple, each with its length before it, or `None` at the trailer.
fn tuple<'a>(rest: &mut &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let count = i16::from_be_bytes([rest[0], rest[1]]);
    *rest = &rest[2..];
    if count < 0 {
        return None;
    }
    let mut fields = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
        let (field, after) = rest.split_at(4 + length.max(0) as usize);
        fields.push(field);
        *rest = after;
    }
    Some(fields)
}

pub fn access(server: &[(&str, &str)], user: &[(&str, &str)], trusted: bool) -> Access {
    Access { server: options(server), user: options(user), trusted }
}

fn options(pairs: &[(&str, &str)]) -> Options {
    let all: BTreeMap<_, _> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let specs = connector().options;
    for (name, value) in &all {
        let spec = specs.iter().find(|s| s.name == name).expect("an option of the connector");
        (spec.check)(value).unwrap_or_else(|e| panic!("{name} {e}"));
    }
    Options(all)
}

/// Returns the schema of a target with these columns: `id bigint`, `"Odd name" text`, `v
/// public.vector(3)`. A type without a schema is built in.
pub fn schema(target: &str, columns: &[(&str, &str)], key: &[&str]) -> TargetSchema {
    let column = |(name, type_name): &(&str, &str)| {
        let (type_schema, bare) = type_name.split_once('.').unwrap_or(("pg_catalog", type_name));
        Column {
            name: name.to_string(),
            type_schema: type_schema.to_owned(),
            type_name: bare.to_owned(),
        }
    };
    let columns: Vec<Column> = columns.iter().map(column).collect();
    let place = |k: &&str| columns.iter().position(|c| c.name == *k).expect("a key column");
    TargetSchema {
        flow: "flow".to_owned(),
        target: target.to_owned(),
        key: key.iter().map(place).collect(),
        columns,
        options: Map::new(),
    }
}

/// A target that is driven like coco drives it.
pub struct DrivenTarget {
    pub target: Box<dyn Target>,
    pub schema: TargetSchema,
    runtime: Arc<Runtime>,
}

impl DrivenTarget {
    pub fn prepare(&mut self) -> Result<Prepared, DeliveryError> {
        self.runtime.block_on(self.target.prepare(&self.schema))
    }

    pub fn exists(&mut self) -> Result<bool, DeliveryError> {
        self.runtime.block_on(self.target.exists(&self.schema))
    }

    /// Streams rows in pieces of one, and then confirms the commit or not. Calls `look` after all
    /// rows are sent, before the end.
    pub fn load_stream(
        &mut self,
        changes: &[Change],
        noted: bool,
        look: impl FnOnce(),
    ) -> Result<bool, DeliveryError> {
        let (outlet, note, mut arriving) = pre_commit_stream::channel();
        let filling = self.target.load_stream(&self.schema, &mut arriving);
        let giving = async {
            for change in changes {
                let row = change.row.clone().expect("a row");
                while !outlet.has_capacity() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                assert!(outlet.try_push(vec![row]));
            }
            tokio::task::block_in_place(look);
            drop(outlet);
            match noted {
                true => note.confirm(),
                false => drop(note),
            }
        };
        self.runtime.block_on(async { tokio::join!(filling, giving).0 })
    }

    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<RejectedChange>, DeliveryError> {
        self.runtime.block_on(self.target.apply(&self.schema, changes))
    }

    /// Applies changes, and checks that none is rejected.
    pub fn applied(&mut self, changes: &[Change]) {
        let rejected = self.apply(changes).unwrap_or_else(|t| panic!("{t:?}"));
        assert_eq!(rejected, []);
    }

    pub fn part_digests(
        &mut self,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        self.runtime.block_on(self.target.part_digests(&self.schema, ranges, digits))
    }

    pub fn held_rows(
        &mut self,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        self.runtime.block_on(self.target.held_rows(&self.schema, ranges, most))
    }

    pub fn remove(&mut self) -> Result<(), DeliveryError> {
        self.runtime.block_on(self.target.remove(&self.schema))
    }
}

impl Drop for DrivenTarget {
    fn drop(&mut self) {
        // The connection closes on the runtime, which may be dropped next.
        let _in_runtime = self.runtime.enter();
    }
}
