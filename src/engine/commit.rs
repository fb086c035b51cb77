//! Commit: what becomes of a tracking row once an attempt has reached its targets.

use super::version::ProcessOrdinal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Another attempt, at least as new, has committed: leave its result alone.
    Nothing,
    /// Write the commit fields of this attempt.
    Finalise,
    /// The item is gone and nothing is staged: the tracking row goes.
    Remove,
}

/// Decides the commit of the attempt `ours`. `committed` is the process ordinal of the stored
/// commit, `staged_since` whether others have staged after our precommit.
pub fn commit(
    committed: Option<ProcessOrdinal>,
    ours: ProcessOrdinal,
    item_is_gone: bool,
    staged_since: bool,
) -> Commit {
    if committed.is_some_and(|c| c >= ours) {
        Commit::Nothing
    } else if item_is_gone && !staged_since {
        Commit::Remove
    } else {
        Commit::Finalise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ProcessOrdinal = ProcessOrdinal(10);

    #[test]
    fn someone_else_committed_with_a_process_ordinal_at_least_as_high() {
        assert_eq!(commit(Some(ProcessOrdinal(10)), OURS, false, false), Commit::Nothing);
        assert_eq!(commit(Some(ProcessOrdinal(11)), OURS, true, false), Commit::Nothing);
    }

    #[test]
    fn otherwise_we_finalise_the_tracking_row() {
        assert_eq!(commit(None, OURS, false, false), Commit::Finalise);
        assert_eq!(commit(Some(ProcessOrdinal(9)), OURS, false, true), Commit::Finalise);
    }

    #[test]
    fn the_source_row_is_gone_and_there_are_no_staged_keys() {
        assert_eq!(commit(Some(ProcessOrdinal(9)), OURS, true, false), Commit::Remove);
        assert_eq!(commit(Some(ProcessOrdinal(9)), OURS, true, true), Commit::Finalise);
    }
}
