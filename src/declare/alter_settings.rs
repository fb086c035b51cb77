//! Changes the search path and the settings under which a flow runs. [`crate::declare::alter_flow`]
//! calls it.
//!
//! The flow's queries are bound already, so no name in them is resolved again. The settings are part
//! of the logic, so the next update evaluates every item.

use pgrx::pg_sys;
use serde_json::Value;

use crate::catalog::model::Flow;
use crate::declare::alter_source;
use crate::pg::acting_role::{self, RoleGuard, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction::subtransaction;

/// Changes the search path, if it is given, and the settings that are in a JSON object. The caller
/// holds the flow's lock.
pub fn alter_settings(
    flow: &Flow,
    search_path: Option<&str>,
    settings: Option<&Value>,
) -> Result<()> {
    let mut changed = flow.settings.clone();
    if let Some(path) = search_path {
        check_valid(flow.owner, &SavedGucs::qualifying(), acting_role::SEARCH_PATH, path)?;
        changed.replace(acting_role::SEARCH_PATH, path);
    }
    let path = changed.search_path().unwrap_or_default().to_owned();
    for (given, value) in settings.map(pairs).transpose()?.unwrap_or_default() {
        let name = acting_role::declared_setting(&given).ok_or_else(|| unknown(&given))?;
        let shown = check_valid(flow.owner, &SavedGucs::of_path(&path), name, &value)?;
        changed.replace(name, &shown);
    }
    if changed == flow.settings {
        return Ok(());
    }
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco.flow set search_path = $2, settings = $3 where id = $1",
        &[arg(flow.id), arg(path), arg(changed.to_json())],
    )?;
    drop(acting);
    // An ordinal may have another value under other settings, and a smaller one would hide a change.
    flow.sources.iter().filter(|s| s.ordinal.is_some()).try_for_each(alter_source::compare_all)
}

/// Returns the names and values in a JSON object of texts.
fn pairs(settings: &Value) -> Result<Vec<(String, String)>> {
    let form = || {
        Error::invalid("argument \"settings\" is not a JSON object of texts")
            .hint("Use, for example, settings => '{\"TimeZone\": \"UTC\"}'.")
    };
    let object = settings.as_object().ok_or_else(form)?;
    let text = |(name, value): (&String, &Value)| match value {
        Value::String(value) => Ok((name.clone(), value.clone())),
        _ => Err(form()),
    };
    object.iter().map(text).collect()
}

/// Checks the value of a setting, and returns it in the form in which Postgres shows it. Acts as the
/// flow's owner, because the check of a name reads catalogs.
fn check_valid(owner: pg_sys::Oid, under: &SavedGucs, name: &str, value: &str) -> Result<String> {
    let acting = RoleGuard::flow_owner(owner, under)?;
    let shown = subtransaction(
        || match acting.try_set(name, value) {
            Ok(true) => {
                spi::scalar::<String>("select pg_catalog.current_setting($1)", &[arg(name)])
                    .map_err(drop)
            }
            _ => Ok(None),
        },
        // Some checks raise an error instead of reporting that a value is not valid.
        |_| (),
    );
    shown.ok().flatten().ok_or_else(|| {
        Error::invalid(format!("invalid value for setting \"{name}\": \"{value}\""))
            .hint(format!("Use a value that SET {name} accepts."))
    })
}

fn unknown(name: &str) -> Error {
    Error::invalid(format!("setting \"{name}\" is not a setting of flows")).hint(format!(
        "Valid settings are {}. For the search path, use the argument \"search_path\".",
        acting_role::DECLARED.join(", ")
    ))
}
