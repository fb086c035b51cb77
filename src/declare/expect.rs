//! `coco.expect` and `coco.drop_expectation`: conditions that the rows of a target should satisfy.

use pgrx::prelude::*;

use crate::catalog::expectation_rows::{self, NewExpectation};
use crate::catalog::model::Flow;
use crate::catalog::version_rows;
use crate::declare::add_target::find_target;
use crate::declare::condition_views::{bind_condition, create_condition_view, drop_condition_view};
use crate::declare::names::check_name;
use crate::flows::load;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use coco_core::expectation::UnmetAction;

/// The largest number of bytes of a name.
const LONGEST: usize = 63;

/// The arguments of `coco.expect` except the flow.
pub struct DeclaredExpectation<'a> {
    pub condition: &'a str,
    /// The name of an [`UnmetAction`].
    pub action: &'a str,
    pub max_share: Option<f64>,
    /// `None` stands for the beginning of the condition.
    pub name: Option<&'a str>,
    /// `None` stands for the flow's only target.
    pub target: Option<&'a str>,
}

/// Declares an expectation of a target, or replaces the target's expectation of this name.
pub fn expect(flow: &str, declared: &DeclaredExpectation) -> Result<()> {
    let action = UnmetAction::from_name(declared.action).ok_or_else(|| {
        Error::invalid(format!(
            "unrecognized value for argument \"action\": \"{}\"",
            declared.action
        ))
        .hint("Valid values are park, warn and fail.")
    })?;
    if let Some(share) = declared.max_share
        && !(0.0..=1.0).contains(&share)
    {
        return Err(Error::invalid(format!(
            "argument \"max_share\" ({share}) must be between 0 and 1"
        ))
        .hint("Write 0.01 for one percent of the rows of an update."));
    }
    let default_name = beginning_of(declared.condition);
    let name = declared.name.unwrap_or(&default_name);
    check_name("name", name)?;
    let flow = lock_to_change(flow)?;
    let target = &flow.targets[find_target(&flow, declared.target)?];
    let bound = bind_condition(&flow, target, declared.condition)?;
    invalidation::note_change()?;
    if let Some(replaced) = target.expectations.iter().find(|e| e.name == name) {
        drop_condition_view(replaced)?;
    }
    let id = expectation_rows::store_expectation(&NewExpectation {
        target: target.id,
        name,
        condition: declared.condition,
        action,
        max_share: declared.max_share,
    })?;
    create_condition_view(&flow, id, name, &bound)
}

/// Drops an expectation of a target. Without a target, the flow must have one expectation of this
/// name.
pub fn drop_expectation(flow: &str, name: &str, target: Option<&str>) -> Result<()> {
    let flow = lock_to_change(flow)?;
    let targets = match target {
        Some(_) => &flow.targets[find_target(&flow, target)?..][..1],
        None => &flow.targets[..],
    };
    let mut found = targets.iter().flat_map(|t| &t.expectations).filter(|e| e.name == name);
    let Some(expectation) = found.next() else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("flow \"{}\" has no expectation \"{name}\"", flow.name),
        )
        .hint("SELECT * FROM coco.expectations shows the expectations of your flows."));
    };
    if found.next().is_some() {
        return Err(Error::invalid(format!(
            "flow \"{}\" has several expectations \"{name}\"",
            flow.name
        ))
        .hint("Specify one of their targets with the argument \"target\"."));
    }
    invalidation::note_change()?;
    drop_condition_view(expectation)?;
    expectation_rows::delete_expectation(expectation.id)
}

/// Locks a flow whose expectations the caller changes. Its queries may be broken.
fn lock_to_change(flow: &str) -> Result<Flow> {
    let flow = load::lock_for_update(flow)?;
    version_rows::check_no_new_version(flow.id, &flow.name)?;
    Ok(flow)
}

/// Returns as much of a condition as a name can have.
fn beginning_of(condition: &str) -> String {
    let condition = condition.trim();
    let mut end = condition.len().min(LONGEST);
    while !condition.is_char_boundary(end) {
        end -= 1;
    }
    condition[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_names_its_expectation() {
        assert_eq!(beginning_of(" price > 0\n"), "price > 0");
        assert_eq!(beginning_of(&"ä".repeat(40)), "ä".repeat(31));
    }
}
