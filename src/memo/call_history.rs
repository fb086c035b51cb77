//! What the results of a flow's memoized functions have cost so far, on average.

use crate::catalog::model::Flow;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// The average cost of a computed result.
#[derive(Clone, Copy, Debug)]
pub struct AverageCall {
    pub tokens_in: f64,
    pub tokens_out: f64,
    pub seconds: f64,
    /// The bytes of a stored input; `None` if no result is stored.
    pub input_bytes: Option<f64>,
}

/// The number of stored inputs that the average covers, at most.
const INPUTS: i64 = 1000;

/// Returns the average cost of the results of a function that the flow has computed; `None` if there
/// are none. `function` is the name under which coco stores the results.
pub fn average_call(flow: &Flow, function: &str) -> Result<Option<AverageCall>> {
    let _as = RoleGuard::extension_owner()?;
    let known = &[arg(flow.name.as_str()), arg(function)];
    let found = spi::select(
        "select sum(tokens_in)::float8 / sum(misses), sum(tokens_out)::float8 / sum(misses),
                extract(epoch from sum(elapsed))::float8 / sum(misses)
           from coco_internal.memo_stats where flow = $1 and function = $2 having sum(misses) > 0",
        known,
        |r| {
            Ok(AverageCall {
                tokens_in: spi::required(r, 1)?,
                tokens_out: spi::required(r, 2)?,
                seconds: spi::required(r, 3)?,
                input_bytes: None,
            })
        },
    )?;
    let Some(mut average) = found.into_iter().next() else { return Ok(None) };
    if let Some(table) = &flow.memo {
        average.input_bytes = spi::scalar::<f64>(
            &format!(
                "select avg(octet_length(m.input))::float8
                   from (select m.input from {table} as m
                          where m.function = any (select s.id from coco_internal.memo_stats as s
                                                   where s.flow = $1 and s.function = $2)
                          limit {INPUTS}) as m"
            ),
            known,
        )?;
    }
    Ok(Some(average))
}
