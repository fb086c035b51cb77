//! Changes the connector's options of an external target. [`crate::declare::alter_flow`] calls it.

use pgrx::PgSqlErrorCode;
use serde_json::{Map, Value};

use crate::catalog::model::{Flow, Target};
use crate::declare::add_target::find_target;
use crate::outbox::{delivery_state, foreign_server};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg};
use coco_core::change::{Encoding, TargetSchema};

/// Checks that a connector accepts a target with other options. The arguments are the name of the
/// connector's foreign data wrapper, and the target before and after the change.
pub type OptionsCheck<'a> = &'a dyn Fn(&str, &TargetSchema, &TargetSchema) -> Result<Encoding>;

/// Replaces the options of an external target. The caller holds the flow's lock. The options apply
/// to deliveries that begin after the commit.
pub fn alter_options(
    flow: &Flow,
    target: Option<&str>,
    options: Map<String, Value>,
    check: OptionsCheck,
) -> Result<()> {
    let mut changed = find_external(flow, target)?.clone();
    if changed.bound.is_none() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the query of target {} of flow \"{}\" reads an object that was dropped",
                changed.shown(),
                flow.name
            ),
        )
        .hint("Give the target a matching query with coco.set_query first."));
    }
    let before = foreign_server::target_schema(&flow.name, &changed)?;
    let Some(external) = changed.external.as_mut().filter(|e| e.options != options) else {
        return Ok(());
    };
    external.options = options.clone();
    let connector = foreign_server::connector_for(&external.server, flow.owner)?;
    check(&connector, &before, &foreign_server::target_schema(&flow.name, &changed)?)?;
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.target set options = $2 where id = $1",
        &[arg(changed.id), arg(Json::from(Value::Object(options)))],
    )?;
    drop(acting);
    // The previous options may be the cause of a delivery error.
    delivery_state::retry_at_once(&flow.name)
}

/// Finds an external target by the given name, or the flow's only external target if no name is
/// given.
fn find_external<'a>(flow: &'a Flow, given: Option<&str>) -> Result<&'a Target> {
    if given.is_some() {
        let found = &flow.targets[find_target(flow, given)?];
        return match found.external {
            Some(_) => Ok(found),
            None => Err(Error::invalid(format!("target {} has no options", found.shown()))
                .detail("Only targets outside this database have options.")),
        };
    }
    let external: Vec<&Target> = flow.targets.iter().filter(|t| t.external.is_some()).collect();
    match external.as_slice() {
        [one] => Ok(one),
        all => Err(Error::invalid(format!(
            "flow \"{}\" has {} targets outside this database",
            flow.name,
            all.len()
        ))
        .hint("Only such targets have options. Specify one of them with the argument \"target\".")),
    }
}
