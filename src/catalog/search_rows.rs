//! The rows of `coco_internal.search`: the flows that `coco.create_search` has declared, with what a
//! search needs to know of each.

use pgrx::pg_sys;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// The model whose vectors a search compares.
pub struct SearchModel {
    /// The name of the foreign server.
    pub server: String,
    pub model: String,
    /// The number of elements that coco asks the model for; `None`: as many as it gives.
    pub requested: Option<i32>,
    /// The number of elements of the vectors.
    pub dimensions: i32,
    /// What the model reads before a query.
    pub query_prefix: Option<String>,
}

/// A search.
pub struct Search {
    pub flow: i32,
    pub owner: pg_sys::Oid,
    /// The table of chunks; `None` if it no longer exists.
    pub target: Option<pg_sys::Oid>,
    /// The key columns of the source.
    pub key: Vec<String>,
    /// The text search configuration, schema-qualified.
    pub configuration: String,
    /// `None`: the search finds words alone.
    pub model: Option<SearchModel>,
}

/// Stores that a flow serves a search of the same name.
pub fn insert(
    flow: &str,
    function: &str,
    key: &[String],
    configuration: &str,
    model: Option<&SearchModel>,
) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco_internal.search (flow, name, function, key, configuration, server, model, requested, dimensions, query_prefix)
         select f.id, $1, $2, $3, $4, $5, $6, $7, $8, $9 from coco_internal.flow f where f.flow = $1",
        &[
            arg(flow),
            arg(function),
            arg(key.to_vec()),
            arg(configuration),
            arg(model.map(|m| m.server.as_str())),
            arg(model.map(|m| m.model.as_str())),
            arg(model.and_then(|m| m.requested)),
            arg(model.map(|m| m.dimensions)),
            arg(model.and_then(|m| m.query_prefix.as_deref())),
        ],
    )?;
    Ok(())
}

/// Returns the function of the search that a flow serves, if it still exists and has not been
/// replaced by another one.
pub fn function_of(flow: i32) -> Result<Option<pg_sys::Oid>> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar(
        "select p.oid
           from coco_internal.search s
           join coco_internal.flow f on f.id = s.flow
           join pg_catalog.pg_proc p on p.oid = pg_catalog.to_regprocedure(s.function)
          where s.flow = $1 and p.proowner = f.owner and p.prosrc like '%coco.search(%'",
        &[arg(flow)],
    )
}

/// Returns the search of this name. The caller checks who may use it.
pub fn find(name: &str) -> Result<Search> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select f.id, f.owner::oid, c.oid, s.key, s.configuration, s.server, s.model, s.requested, s.dimensions, s.query_prefix
           from coco_internal.search s
           join coco_internal.flow f on f.id = s.flow
           left join coco_internal.target t on t.flow = f.flow
           left join pg_catalog.pg_class c on c.oid = t.relation
          where s.name = $1
          order by t.id limit 1",
        &[arg(name)],
        |r| {
            let model = match (r.get::<String>(6)?, r.get::<String>(7)?, r.get::<i32>(9)?) {
                (Some(server), Some(model), Some(dimensions)) => {
                    Some(SearchModel {
                        server,
                        model,
                        requested: r.get(8)?,
                        dimensions,
                        query_prefix: r.get(10)?,
                    })
                }
                _ => None,
            };
            Ok(Search {
                flow: spi::required(r, 1)?,
                owner: spi::required(r, 2)?,
                target: r.get(3)?,
                key: spi::required(r, 4)?,
                configuration: spi::required(r, 5)?,
                model,
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| {
        Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("search \"{name}\" does not exist"),
        )
        .hint("Create a search with coco.create_search.")
    })
}

/// Returns the table that a flow with one target fills.
pub fn target_of(flow: &str) -> Result<pg_sys::Oid> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar(
        "select c.oid from coco_internal.target t join pg_catalog.pg_class c on c.oid = t.relation
          where t.flow = $1",
        &[arg(flow)],
    )?
    .ok_or_else(|| Error::internal("a flow has no target table"))
}

/// Drops the function of a search, with the rights of the current role.
pub fn drop_function(function: pg_sys::Oid) -> Result<()> {
    let sql = "select pg_catalog.format('%s', $1::pg_catalog.regprocedure)";
    if let Some(name) = spi::scalar::<String>(sql, &[arg(function)])? {
        spi::execute(&format!("drop function {name}"), &[])?;
    }
    Ok(())
}
