//! Statements that are planned once and run again: a live flow runs the same few many times a second.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::pg::error::{Error, Result};

/// Statements kept, at most.
const KEPT: usize = 500;

/// After this a statement is planned again: the tables it was planned for may be of another size by
/// now, long before they are analysed again.
const FRESH: Duration = Duration::from_secs(1);

struct CachedPlan {
    plan: pg_sys::SPIPlanPtr,
    made: Instant,
}

thread_local! {
    static PLANS: RefCell<HashMap<String, CachedPlan>> = RefCell::new(HashMap::new());
    /// Kept plans that are being run, one inside the other.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// Marks a plan as being run, until it is dropped.
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

/// The plan of a statement: one that was kept under this name, or a new one. Without a name none is
/// kept.
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
        return Err(Error::internal("a statement could not be prepared"));
    }
    let Some(name) = name else {
        return Ok(plan);
    };
    // One that is being run cannot be freed: nothing is, meanwhile.
    if RUNNING.get() == 0 {
        let old = PLANS.with(|p| {
            let mut plans = p.borrow_mut();
            let mut old: Vec<CachedPlan> = plans.remove(&name).into_iter().collect();
            if plans.len() >= KEPT {
                old.extend(plans.drain().map(|(_, plan)| plan));
            }
            old
        });
        // SAFETY: plans that were kept, and that nobody runs.
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
