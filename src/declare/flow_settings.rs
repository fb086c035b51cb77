//! The settings that a flow runs under: its search path, and those that affect the results of
//! queries.

use pgrx::pg_sys;
use serde_json::Value;

use crate::pg::acting_role::{DECLARED, RoleGuard, SEARCH_PATH, SavedGucs, declared_setting};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction::subtransaction;

/// Returns settings with another search path, and with the settings in a JSON object, if they are
/// given. `owner` is the flow's owner.
pub fn changed_settings(
    settings: &SavedGucs,
    owner: pg_sys::Oid,
    search_path: Option<&str>,
    given: Option<&Value>,
) -> Result<SavedGucs> {
    let mut changed = settings.clone();
    if let Some(path) = search_path {
        check_valid(owner, &SavedGucs::qualifying(), SEARCH_PATH, path)?;
        changed.replace(SEARCH_PATH, path);
    }
    let path = SavedGucs::of_path(changed.search_path());
    for (name, value) in given.map(pairs).transpose()?.unwrap_or_default() {
        let name = declared_setting(&name).ok_or_else(|| unknown(&name))?;
        let shown = check_valid(owner, &path, name, &value)?;
        changed.replace(name, &shown);
    }
    Ok(changed)
}

/// Returns the names and values in a JSON object of texts.
fn pairs(settings: &Value) -> Result<Vec<(String, String)>> {
    let form = || {
        Error::invalid("argument \"settings\" is not a JSON object of texts")
            .hint("Use, for example, settings => '{\"TimeZone\": \"UTC\"}'.")
    };
    if settings.is_null() {
        return Ok(vec![]);
    }
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
        DECLARED.join(", ")
    ))
}
