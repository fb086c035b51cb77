//! The settings that a flow is declared with: its search path, and those that affect the results of
//! queries.

use serde_json::Value;

use crate::pg::acting_role::{DECLARED, RoleGuard, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// Returns the settings of a declaration with this search path. `given` is a JSON object of other
/// settings; settings that it does not contain are those in `kept`, or those of the session.
pub fn declared_settings(
    search_path: &str,
    given: Option<&Value>,
    kept: Option<&SavedGucs>,
) -> Result<SavedGucs> {
    let mut settings = match kept {
        Some(kept) => kept.with("search_path", search_path),
        None => SavedGucs::of_caller(search_path)?,
    };
    let given = match given {
        None | Some(Value::Null) => return Ok(settings),
        Some(Value::Object(given)) => given,
        Some(_) => {
            return Err(Error::invalid("argument \"settings\" is not a JSON object")
                .hint("Use, for example, settings => '{\"TimeZone\": \"UTC\"}'."));
        }
    };
    for (name, value) in given {
        let Some(name) = DECLARED.iter().find(|known| known.eq_ignore_ascii_case(name)) else {
            return Err(Error::invalid(format!(
                "unrecognized setting \"{name}\" in argument \"settings\""
            ))
            .hint(format!("Valid settings are {}.", DECLARED.join(", "))));
        };
        let Value::String(value) = value else {
            return Err(Error::invalid(format!(
                "setting \"{name}\" in argument \"settings\" is not a string"
            ))
            .hint("Use, for example, settings => '{\"TimeZone\": \"UTC\"}'."));
        };
        settings = settings.with(name, &as_shown(search_path, name, value)?);
    }
    Ok(settings)
}

/// Returns the value of a setting as PostgreSQL shows it. PostgreSQL raises an error if the value is
/// not valid.
fn as_shown(search_path: &str, name: &str, value: &str) -> Result<String> {
    let acting = RoleGuard::same();
    acting.set("search_path", search_path)?;
    acting.set(name, value)?;
    let shown = spi::scalar::<String>("select pg_catalog.current_setting($1)", &[arg(name)])?;
    Ok(shown.unwrap_or_default())
}
