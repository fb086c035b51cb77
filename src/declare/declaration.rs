//! A flow as `coco.create_flow` declares it: the flow alone, or with one source and one target.

use pgrx::pg_sys;
use serde_json::Value;

use crate::declare::add_source::{self, SourceOptions};
use crate::declare::add_target::{self, ExternalLocation, QueryCheck};
use crate::declare::alter_target::OptionsCheck;
use crate::declare::derive_lookups::{self, LookupMode};
use crate::declare::keep_groups::{self, AggregateMode};
use crate::declare::when_exists::WhenExists;
use crate::declare::{fill_order, insert_flow};
use crate::flows::schedules;
use crate::pg::acting_role::SavedGucs;
use crate::pg::error::Result;

/// The declaration of a flow.
pub struct Declaration<'a> {
    pub flow: String,
    pub search_path: String,
    /// A JSON object of the settings that the declaration contains.
    pub settings: Option<Value>,
    /// Whether coco derives lookups; `None` if the declaration does not say so.
    pub lookups: Option<LookupMode>,
    /// When workers update the flow: see [`schedules::parse_refresh`]; `None` if the declaration does
    /// not say so.
    pub refresh: Option<String>,
    /// How coco computes groups; `None` if the declaration does not say so.
    pub aggregate: Option<AggregateMode>,
    /// See [`fill_order::parse_fill_order`]; `None` if the declaration does not say so.
    pub fill_order: Option<String>,
    /// The source and the target; `None` if the flow is declared alone.
    pub parts: Option<FlowParts<'a>>,
    pub check: QueryCheck<'a>,
    pub check_altered: OptionsCheck<'a>,
}

/// The only source and the only target of a declaration.
pub struct FlowParts<'a> {
    pub relation: pg_sys::Oid,
    pub source: SourceOptions,
    pub query: String,
    pub target: String,
    pub key: Vec<String>,
    pub item: Option<String>,
    pub elsewhere: Option<ExternalLocation<'a>>,
}

/// Creates a flow, with its source and target if the declaration contains them. Returns `false`, and
/// changes nothing, if a flow has the name already. For `target_exists`, see
/// [`add_target`](add_target::add_target).
pub fn declare_flow(
    new: &Declaration,
    owner: pg_sys::Oid,
    settings: &SavedGucs,
    target_exists: WhenExists,
) -> Result<bool> {
    if !insert_flow(&new.flow, owner, settings)? {
        return Ok(false);
    }
    if let Some(mode) = new.lookups {
        derive_lookups::store_mode(&new.flow, mode)?;
    }
    if let Some(mode) = new.aggregate {
        keep_groups::store_aggregate(&new.flow, mode)?;
    }
    if let Some(refresh) = &new.refresh {
        schedules::store_refresh(&new.flow, refresh)?;
    }
    if let Some(parts) = &new.parts {
        add_source::add_source(&new.flow, parts.relation, parts.source.clone(), WhenExists::Fail)?;
    }
    if let Some(order) = &new.fill_order {
        fill_order::store_fill_order(&new.flow, order)?;
    }
    let Some(parts) = &new.parts else { return Ok(true) };
    add_target::add_target(
        &new.flow,
        &parts.target,
        &parts.query,
        &parts.key,
        parts.item.as_deref(),
        parts.elsewhere.clone(),
        target_exists,
    )?;
    Ok(true)
}
