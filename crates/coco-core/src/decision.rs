//! Decides what an update does with one item: skip, advance, evaluate, remove, or wait.

use super::version::{CommittedVersion, Failure, LogicId, SourceVersion};

/// How far an update trusts the results of earlier updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Skips items by ordinal and logic, or by content fingerprint. Carries unchanged rows over.
    Normal,
    /// Like `Normal`, but failed items do not wait for their next retry.
    Retry,
    /// Evaluates every item, and writes the rows that differ.
    FullReprocess,
    /// Like `FullReprocess`, but uses the stored results of memoized functions that have not
    /// expired.
    Refresh,
    /// Evaluates every item, and writes every row.
    Reexport,
}

impl Mode {
    pub const ALL: [Mode; 5] =
        [Mode::Normal, Mode::Retry, Mode::FullReprocess, Mode::Refresh, Mode::Reexport];

    /// Returns the name that a user writes.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Normal => "normal",
            Mode::Retry => "retry",
            Mode::FullReprocess => "full_reprocess",
            Mode::Refresh => "refresh",
            Mode::Reexport => "reexport",
        }
    }

    /// Returns the mode of this name, or `None` if there is none.
    pub fn from_name(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Reports whether the update evaluates every item, whatever is stored.
    pub fn evaluates_all(self) -> bool {
        matches!(self, Mode::FullReprocess | Mode::Refresh | Mode::Reexport)
    }

    /// Returns the mode that evaluates every item, and writes at least what this mode writes.
    pub fn evaluating_all(self) -> Mode {
        match self {
            Mode::Reexport => Mode::Reexport,
            Mode::Refresh => Mode::Refresh,
            _ => Mode::FullReprocess,
        }
    }

    /// Reports whether the update leaves unchanged target rows unwritten.
    pub fn carries_over(self) -> bool {
        self != Mode::Reexport
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This version or a newer one is committed with the current logic.
    Skip,
    /// The content and the logic are the same. Only the stored ordinal advances.
    Advance,
    Evaluate,
    /// The source no longer contains the item. coco deletes its target rows and its tracking row.
    Remove,
    /// This version failed before, and its next retry is not due.
    Wait,
}

/// Decides what to do with one item. `incoming` is `None` if the source no longer contains the
/// item. `stored` is `None` if no version of the item was ever committed.
pub fn decide(
    stored: Option<&CommittedVersion>,
    incoming: Option<&SourceVersion>,
    failure: Option<&Failure>,
    logic: LogicId,
    mode: Mode,
) -> Decision {
    let Some(incoming) = incoming else {
        return match stored {
            Some(_) => Decision::Remove,
            None => Decision::Skip,
        };
    };
    if mode.evaluates_all() {
        return Decision::Evaluate;
    }
    // An older version never replaces a newer one, whatever the logic, and whatever failed since.
    let versions = stored.and_then(|s| s.ordinal).zip(incoming.ordinal);
    if versions.is_some_and(|(have, comes)| have > comes) {
        return Decision::Skip;
    }
    if let Some(failure) = failure {
        let same = failure.content == incoming.content && failure.logic == Some(logic);
        return match same && !failure.is_due && mode == Mode::Normal {
            true => Decision::Wait,
            false => Decision::Evaluate,
        };
    }
    let Some(stored) = stored else { return Decision::Evaluate };
    let same_logic = stored.logic == Some(logic);
    if same_logic && versions.is_some_and(|(have, comes)| have == comes) {
        return Decision::Skip;
    }
    let same_content = stored.content.is_some() && stored.content == incoming.content;
    match same_logic && same_content {
        true if stored.ordinal == incoming.ordinal => Decision::Skip,
        true => Decision::Advance,
        false => Decision::Evaluate,
    }
}

#[cfg(test)]
mod tests {
    use super::super::version::{Fingerprint, Ordinal};
    use super::*;

    const NOW: LogicId = LogicId(2);
    const BEFORE: LogicId = LogicId(1);

    fn content(n: u8) -> Option<Fingerprint> {
        Some(Fingerprint([n; 16]))
    }
    fn stored(ordinal: Option<i64>, c: u8, logic: LogicId) -> CommittedVersion {
        CommittedVersion { ordinal: ordinal.map(Ordinal), content: content(c), logic: Some(logic) }
    }
    fn incoming(ordinal: Option<i64>, c: u8) -> SourceVersion {
        SourceVersion { ordinal: ordinal.map(Ordinal), content: content(c) }
    }
    fn normal(s: Option<CommittedVersion>, i: Option<SourceVersion>) -> Decision {
        decide(s.as_ref(), i.as_ref(), None, NOW, Mode::Normal)
    }

    #[test]
    fn an_item_never_seen_is_evaluated() {
        assert_eq!(normal(None, Some(incoming(Some(1), 1))), Decision::Evaluate);
        assert_eq!(normal(None, Some(incoming(None, 1))), Decision::Evaluate);
    }

    #[test]
    fn if_the_stored_ordinal_is_strictly_greater_we_skip() {
        assert_eq!(
            normal(Some(stored(Some(5), 1, NOW)), Some(incoming(Some(4), 2))),
            Decision::Skip
        );
        // Also if the logic differs: coco never goes back to an older version.
        assert_eq!(
            normal(Some(stored(Some(5), 1, BEFORE)), Some(incoming(Some(4), 2))),
            Decision::Skip
        );
    }

    #[test]
    fn if_they_are_equal_and_the_logic_is_the_same_we_skip() {
        assert_eq!(
            normal(Some(stored(Some(5), 1, NOW)), Some(incoming(Some(5), 1))),
            Decision::Skip
        );
    }

    #[test]
    fn if_they_are_equal_and_the_logic_is_another_we_evaluate() {
        assert_eq!(
            normal(Some(stored(Some(5), 1, BEFORE)), Some(incoming(Some(5), 1))),
            Decision::Evaluate
        );
    }

    #[test]
    fn the_content_fingerprint_is_not_used_in_the_skip_by_ordinal() {
        assert_eq!(
            normal(Some(stored(Some(5), 1, NOW)), Some(incoming(Some(5), 2))),
            Decision::Skip
        );
    }

    #[test]
    fn when_content_and_logic_match_only_the_ordinal_advances() {
        assert_eq!(
            normal(Some(stored(Some(5), 1, NOW)), Some(incoming(Some(6), 1))),
            Decision::Advance
        );
        assert_eq!(
            normal(Some(stored(Some(5), 1, BEFORE)), Some(incoming(Some(6), 1))),
            Decision::Evaluate
        );
        assert_eq!(
            normal(Some(stored(Some(5), 1, NOW)), Some(incoming(Some(6), 2))),
            Decision::Evaluate
        );
    }

    #[test]
    fn without_ordinals_the_content_alone_decides() {
        assert_eq!(normal(Some(stored(None, 1, NOW)), Some(incoming(None, 1))), Decision::Skip);
        assert_eq!(normal(Some(stored(None, 1, NOW)), Some(incoming(None, 2))), Decision::Evaluate);
        assert_eq!(
            normal(Some(stored(None, 1, BEFORE)), Some(incoming(None, 1))),
            Decision::Evaluate
        );
    }

    #[test]
    fn skip_wants_both_ordinals_known() {
        assert_eq!(
            normal(Some(stored(None, 1, NOW)), Some(incoming(Some(1), 2))),
            Decision::Evaluate
        );
        assert_eq!(
            normal(Some(stored(Some(9), 1, NOW)), Some(incoming(None, 2))),
            Decision::Evaluate
        );
    }

    #[test]
    fn an_item_that_is_gone_is_removed_whatever_its_ordinal() {
        assert_eq!(normal(Some(stored(Some(5), 1, NOW)), None), Decision::Remove);
        assert_eq!(normal(None, None), Decision::Skip);
    }

    #[test]
    fn the_modes_that_evaluate_every_item_ignore_what_is_stored() {
        for mode in [Mode::FullReprocess, Mode::Refresh, Mode::Reexport] {
            let (s, i) = (stored(Some(5), 1, NOW), incoming(Some(5), 1));
            assert_eq!(decide(Some(&s), Some(&i), None, NOW, mode), Decision::Evaluate);
            assert_eq!(decide(Some(&s), None, None, NOW, mode), Decision::Remove);
        }
        assert!(Mode::FullReprocess.carries_over() && Mode::Refresh.carries_over());
        assert!(!Mode::Reexport.carries_over());
    }

    #[test]
    fn a_failed_item_waits_for_its_retry_unless_it_or_the_logic_changed() {
        let i = incoming(None, 1);
        let failed = |c, logic, is_due| Failure { content: content(c), logic: Some(logic), is_due };
        let with = |f: Failure, mode| decide(None, Some(&i), Some(&f), NOW, mode);
        assert_eq!(with(failed(1, NOW, false), Mode::Normal), Decision::Wait);
        assert_eq!(with(failed(1, NOW, true), Mode::Normal), Decision::Evaluate);
        assert_eq!(with(failed(2, NOW, false), Mode::Normal), Decision::Evaluate);
        assert_eq!(with(failed(1, BEFORE, false), Mode::Normal), Decision::Evaluate);
        assert_eq!(with(failed(1, NOW, false), Mode::Retry), Decision::Evaluate);
        // An older version does not replace the version that was committed before the failure.
        let (s, f) = (stored(Some(5), 1, NOW), failed(2, NOW, true));
        let comes = |ordinal| {
            decide(Some(&s), Some(&incoming(Some(ordinal), 3)), Some(&f), NOW, Mode::Normal)
        };
        assert_eq!(comes(4), Decision::Skip);
        assert_eq!(comes(5), Decision::Evaluate);
    }
}
