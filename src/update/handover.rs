//! Handover of target keys: evaluates failed items that wait for a target key which has become
//! free.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::catalog::model::Source;
use crate::pg::columns::all_equal;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::{key_values, keys_are_valid};
use crate::update::candidate_rows::Candidate;
use crate::update::decide_items::PassCounts;
use crate::update::run::{SourceCounts, UpdateRun};
use crate::update::target_writer::{TargetWriter, WriteOptions};
use crate::update::{detect, lookups};
use coco_core::counts::Counts;
use coco_core::decision::Mode;

impl UpdateRun<'_> {
    /// Evaluates the items that wait for a target key that is free now, until there are none.
    pub fn hand_over_keys(&self, sources: &mut [SourceCounts]) -> Result<()> {
        let Some(is_free) = has_free_claim_sql(&self.writers) else {
            return Ok(());
        };
        loop {
            let mut found = false;
            for (source, result) in self.flow.sources.iter().zip(sources.iter_mut()) {
                found |= self.hand_over_keys_of(source, &is_free, &mut result.counts)?;
            }
            if !found {
                return Ok(());
            }
        }
    }

    /// Evaluates the waiting items of one source once. Returns whether there were any.
    fn hand_over_keys_of(
        &self,
        source: &Source,
        is_free: &str,
        counts: &mut Counts,
    ) -> Result<bool> {
        let _snapshot = match self.snapshot.is_shared() || lookups::has_any(self.flow, source) {
            true => PinnedSnapshot::again(),
            false => PinnedSnapshot::take(),
        };
        let statements = SpiSession::connect()?;
        if !detect::has_waiting(&statements, source, is_free)? {
            return Ok(false);
        }
        let mut candidates = detect::waiting_candidates(&statements, source, is_free)?;
        // If several items claim one key, the first gets it; the others continue to wait.
        let mut claimed = BTreeSet::new();
        let is_first = |c: &Candidate| claimed.insert(c.claims.clone());
        let mut pass = PassCounts::default();
        let retry = UpdateRun {
            writing: WriteOptions { mode: Mode::Retry, ..self.writing },
            writers: self.writers.clone(),
            recalling: self.recalling.clone(),
            lost_keys: Rc::clone(&self.lost_keys),
            expected: Rc::clone(&self.expected),
            ..*self
        };
        retry.process_candidates(source, &mut candidates, is_first, &mut pass)?;
        let retried = pass.counts;
        counts.evaluated += retried.evaluated;
        counts.upserted += retried.upserted;
        counts.deleted += retried.deleted;
        // These items are already counted as failed.
        counts.failed += retried.failed + retried.skipped - claimed.len() as i64;
        Ok(retried.evaluated > 0)
    }
}

/// Returns an SQL condition on tracking rows `t`: the item waits for a target key that is free now.
/// Returns `None` if no target is owned by list.
fn has_free_claim_sql(writers: &[TargetWriter]) -> Option<String> {
    let conditions: Vec<String> = writers
        .iter()
        .filter(|w| w.target.covered.is_none())
        .map(|w| {
            let claims = "t.failure operator(pg_catalog.->>) 'claims'";
            let typed = key_values(w.target, claims);
            let keys: Vec<String> =
                w.target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
            format!(
                "((t.failure operator(pg_catalog.->>) 'target') operator(pg_catalog.=) '{}'
                  and {}not exists (select from {} as x where {}))",
                w.target.id,
                // If the text is no longer a key, coco does not know whether the key is free. The
                // item then waits for its retry.
                keys_are_valid(w.target, claims),
                w.target.relation_name(),
                all_equal(&w.target.key, &keys, &typed),
            )
        })
        .collect();
    (!conditions.is_empty()).then(|| {
        format!(
            "(t.failure operator(pg_catalog.->>) 'claims') is not null and ({})",
            conditions.join(" or ")
        )
    })
}
