//! The state of a table's capture, cached until the catalog changes. Caller: `update`.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;

use crate::capture::{Capture, cursor, find_capture};
use crate::pg::backend;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::tuplestore::statements::SpiSession;

/// A capture, as the active snapshot sees it.
#[derive(Clone)]
pub struct CaptureState {
    pub capture: Capture,
    pub signature: [u8; 16],
    /// Whether the table's triggers record every possible change.
    pub adequate: bool,
}

thread_local! {
    static STATES: RefCell<HashMap<u32, (u64, CaptureState)>> = RefCell::new(HashMap::new());
}

/// Returns the capture of a table, if it has one, and its signature.
///
/// The cache is valid while the invalidation count (`generation`) is the same as before the active
/// snapshot was taken. The cached state then contains nothing that this snapshot does not see. What
/// this snapshot sees is missing for at most one update.
pub fn capture_state(
    statements: &SpiSession,
    relation: pg_sys::Oid,
    generation: u64,
) -> Result<Option<CaptureState>> {
    let moves = !backend::keeps_its_snapshot();
    let unchanged = || moves && invalidation::invalidation_count() == generation;
    let known = STATES.with(|s| s.borrow().get(&relation.to_u32()).cloned());
    if let Some((_, state)) = known.filter(|(g, _)| *g == generation && unchanged()) {
        return Ok(Some(state));
    }
    let Some(capture) = find_capture(relation)? else {
        return Ok(None);
    };
    let (signature, adequate) = cursor::signature(statements, relation, &capture)?;
    let state = CaptureState { capture, signature, adequate };
    let settled = state.capture.is_whole() && state.capture.since.is_some() && !state.capture.ours;
    if adequate && settled && unchanged() {
        let kept = (generation, state.clone());
        STATES.with(|s| s.borrow_mut().insert(relation.to_u32(), kept));
    }
    Ok(Some(state))
}
