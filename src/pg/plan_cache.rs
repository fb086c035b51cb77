//! Caches plans of statements, because a live flow runs the same few statements many times a
//! second.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::pg::error::{Error, Result};

/// The largest number of cached plans.
const KEPT: usize = 500;

/// The age after which a statement is planned again, because its tables may have another size long
/// before they are analyzed again.
const FRESH: Duration = Duration::from_secs(1);

struct CachedPlan {
    plan: pg_sys::SPIPlanPtr,
    made: Instant,
}

thread_local! {
    static PLANS: RefCell<HashMap<String, CachedPlan>> = RefCell::new(HashMap::new());
    /// The number of cached plans in use, nested in each other.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// Marks a plan as in use until dropped.
pub struct PlanInUse(());

impl PlanInUse {
    pub fn begin() -> PlanInUse {
        RUNNING.set(RUNNING.get() + 1);
        PlanInUse(())
    }
}

impl Drop for PlanInUse {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

/// Returns the plan of a statement: the one cached under this name, or a new one. Without a name,
/// the plan is not cached.
///
/// # Safety
/// Called while connected to SPI; the plan is valid until the connection ends.
pub unsafe fn plan(
    name: Option<String>,
    prepare: impl FnOnce() -> pg_sys::SPIPlanPtr,
) -> Result<pg_sys::SPIPlanPtr> {
    let known = name.as_ref().and_then(|name| {
        PLANS.with(|p| p.borrow().get(name).map(|p| (p.plan, p.made.elapsed() < FRESH)))
    });
    if let Some((plan, true)) = known {
        return Ok(plan);
    }
    let plan = prepare();
    if plan.is_null() {
        return Err(Error::internal("could not prepare a statement"));
    }
    let Some(name) = name else {
        return Ok(plan);
    };
    // A plan in use cannot be freed, so nothing is freed while any plan is in use.
    if RUNNING.get() == 0 {
        let old = PLANS.with(|p| {
            let mut plans = p.borrow_mut();
            let mut old: Vec<CachedPlan> = plans.remove(&name).into_iter().collect();
            if plans.len() >= KEPT {
                old.extend(plans.drain().map(|(_, plan)| plan));
            }
            old
        });
        // SAFETY: the plans were cached, and none of them is in use.
        unsafe {
            for plan in old {
                pg_sys::SPI_freeplan(plan.plan);
            }
            if pg_sys::SPI_keepplan(plan) == 0 {
                PLANS.with(|p| {
                    p.borrow_mut().insert(name, CachedPlan { plan, made: Instant::now() })
                });
            }
        }
    }
    Ok(plan)
}
