//! A description of what a logic consists of. coco records it together with the logic.

use serde_json::{Map, Value, json};

use crate::catalog::model::Flow;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::spi::{self, arg};

/// The prefix of a function's name among the parts in `coco_internal.logic`.
const FUNCTION: &str = "function ";

const MEMOIZED: &str = "memoized function ";

/// Returns the flow's queries by target, and the comments and versions of the functions that these
/// queries reach.
pub fn describe(flow: &Flow, parts: &Value) -> Result<Value> {
    let queries: Map<String, Value> =
        flow.targets.iter().map(|t| (t.id.to_string(), json!(t.query))).collect();
    let names: Vec<String> = parts.as_object().into_iter().flatten().filter_map(name).collect();
    let _as = RoleGuard::extension_owner()?;
    let functions = spi::select(
        "select n.name, obj_description(to_regprocedure(n.name), 'pg_proc'), m.version
           from unnest($1) as n(name) left join coco_internal.memo_function m on m.function = n.name",
        &[arg(names)],
        |r| {
            let about = json!({
                "comment": r.get::<String>(2)?, "version": r.get::<String>(3)?
            });
            Ok((spi::required::<String>(r, 1)?, about))
        },
    )?;
    let functions: Map<String, Value> = functions.into_iter().collect();
    Ok(json!({ "queries": queries, "functions": functions }))
}

fn name((part, _): (&String, &Value)) -> Option<String> {
    part.strip_prefix(FUNCTION).or_else(|| part.strip_prefix(MEMOIZED)).map(str::to_owned)
}

/// The logic that coco evaluated items with.
pub struct Described {
    pub fingerprint: pgrx::Uuid,
    pub queries: Map<String, Value>,
    pub functions: Json,
    /// The label of the code with which a session first declared or updated a flow with this logic.
    pub label: Option<String>,
}

/// Returns the logic with this id.
pub fn logic(id: i32) -> Result<Option<Described>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select fingerprint, parts, described, label from coco_internal.logic where id = $1",
        &[arg(id)],
        |r| {
            let parts = spi::required::<Json>(r, 2)?.value("coco_internal.logic")?;
            let described = spi::required::<Json>(r, 3)?.value("coco_internal.logic")?;
            let queries = described["queries"].as_object().cloned().unwrap_or_default();
            Ok(Described {
                fingerprint: spi::required(r, 1)?,
                queries,
                functions: Json::from(functions(&parts, &described)),
                label: r.get(4)?,
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// Returns a list of the functions among the parts of a logic.
fn functions(parts: &Value, described: &Value) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for (part, fingerprint) in parts.as_object().into_iter().flatten() {
        let (name, what) = match (part.strip_prefix(FUNCTION), part.strip_prefix(MEMOIZED)) {
            (Some(name), _) => (name, "fingerprint"),
            (_, Some(name)) => (name, "memoized"),
            _ => continue,
        };
        let about = &described["functions"][name];
        let function = all.entry(name).or_insert_with(|| {
            json!({
                "function": name, "comment": about["comment"], "version": about["version"],
                "fingerprint": null, "memoized": null,
            })
        });
        function[what] = fingerprint.clone();
    }
    all.into_iter().map(|(_, function)| function).collect()
}
