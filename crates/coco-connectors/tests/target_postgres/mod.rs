//! Tests of the connector to another PostgreSQL server.

mod proxy;
mod remote_db;

mod access;
mod faults;
mod rows;
mod tables;
mod types;
mod verify;

use coco_connectors::targets::options::Access;
use coco_core::change::{DeliveryError, TargetSchema};
use remote_db::{RemoteDb, access, schema};

const DOCS: [(&str, &str); 3] = [("id", "bigint"), ("title", "text"), ("price", "numeric(10,2)")];

fn docs() -> TargetSchema {
    schema("docs", &DOCS, &["id"])
}

const ALL_DOCS: &str = "select d::text from docs d order by id";

fn delivery_error<T>(result: Result<T, DeliveryError>) -> DeliveryError {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

/// Returns all texts of an error.
fn said(error: &DeliveryError) -> String {
    format!("{error:?}")
}

const SECRET: &str = "s3cret pass/word'@";

/// How to reach the server through another address.
fn over(remote: &RemoteDb, address: std::net::SocketAddr, more: &[(&str, &str)]) -> Access {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut all = vec![("host", host.as_str()), ("port", &port), ("dbname", &remote.name)];
    all.extend(more);
    access(&all, &[("user", "postgres"), ("password", SECRET)], true)
}

fn has(remote: &mut RemoteDb, extension: &str) -> bool {
    let sql =
        format!("select exists (select from pg_available_extensions where name = '{extension}')");
    remote.sql.holds(&sql)
}
