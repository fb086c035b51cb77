//! `fill_order`: the order in which an update that looks at all items of a source evaluates them.

use crate::catalog::model::FillOrder;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// The value of the argument `fill_order` that stands for no order.
pub const ANY: &str = "any";

/// Reads the argument `fill_order`; `None` means any order.
pub fn parse_fill_order(text: &str) -> Result<Option<FillOrder>> {
    match FillOrder::from_name(text) {
        None if text == ANY => Ok(None),
        None => Err(Error::invalid(format!(
            "unrecognized value for argument \"fill_order\": \"{text}\""
        ))
        .hint("Valid values are newest, oldest and any.")),
        order => Ok(order),
    }
}

/// Stores the order of a flow. Fails if the flow has sources, and none of them has an ordinal. The
/// caller holds the flow's lock, or has just created the flow.
pub fn store_fill_order(flow: &str, text: &str) -> Result<()> {
    let order = parse_fill_order(text)?;
    let _as = RoleGuard::extension_owner()?;
    let lacks_ordinal = spi::scalar::<bool>(
        "select not bool_or(s.ordinal is not null) from coco_internal.source s
          where s.flow = $1 and s.lookup_of is null",
        &[arg(flow)],
    )?;
    if order.is_some() && lacks_ordinal == Some(true) {
        return Err(Error::invalid("argument \"fill_order\" requires a source with an ordinal")
            .hint("Specify the argument \"ordinal\", too."));
    }
    spi::execute(
        "update coco_internal.flow set fill_order = $2 where flow = $1",
        &[arg(flow), arg(order.map(FillOrder::name))],
    )?;
    Ok(())
}
