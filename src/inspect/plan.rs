//! `coco.plan`: what a changed declaration would change.

use crate::declare::compare;
use crate::declare::declaration::Declaration;
use crate::declare::difference::FlowDifference;
use crate::declare::names::check_name;
use crate::pg::error::Result;
use crate::pg::subtransaction;

/// Returns the differences between a flow and a declaration. Changes nothing, and keeps no locks.
pub fn plan(new: &Declaration) -> Result<Vec<FlowDifference>> {
    check_name("flow", &new.flow)?;
    // Binding a query locks the relations in it.
    subtransaction::look(|| compare::find_differences(new))
}
