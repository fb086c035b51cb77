//! Deletes the rows that no item has from the external targets of a flow, after a `reexport` has
//! sent all others. Called by `update_worker`.

use serde_json::{Value, json};

use crate::workers::delivery::resolved_target::external_targets;
use crate::workers::transaction::TransactionError;
use crate::workers::verify_worker::{VerifiedTarget, WantedRows, compare_target, mend};

/// What a session tells its user about extra rows that may be left in a target.
#[derive(Debug, PartialEq, Eq)]
pub struct ExtraRowsNote {
    pub message: String,
    pub detail: String,
}

/// The result of deleting the extra rows of all targets.
#[derive(Default)]
pub struct DeletedExtras {
    pub deleted: i64,
    pub notes: Vec<ExtraRowsNote>,
}

/// Deletes the extra rows of the targets that coco created. `deliver` delivers the queued deletes.
///
/// The rows of an update are sent by now. A target that cannot be compared is therefore no error of
/// the update, and gets a note.
pub fn delete_extra_rows(
    flow: &str,
    mut deliver: impl FnMut() -> Result<(), TransactionError>,
) -> Result<DeletedExtras, TransactionError> {
    let mut all = DeletedExtras::default();
    for target in external_targets(flow)? {
        loop {
            let found = match compare_target(flow, target, WantedRows::Extra, None) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(failed) => {
                    all.notes.push(not_compared(&failed.error.message));
                    break;
                }
            };
            if let Some(note) = note_of(&found) {
                all.notes.push(note);
                break;
            }
            let is_cut = found.differences.is_cut;
            let queued = mend(flow, target, found.differences.rows)?;
            if queued > 0 {
                deliver()?;
                all.deleted += queued;
            }
            // A comparison returns a limited number of rows.
            if !is_cut || queued == 0 {
                break;
            }
        }
    }
    Ok(all)
}

/// Returns a note about a target whose extra rows stay; `None` if coco may delete them.
fn note_of(found: &VerifiedTarget) -> Option<ExtraRowsNote> {
    let VerifiedTarget { shown, made, differences, unreadable } = found;
    if let Some(error) = unreadable {
        return Some(ExtraRowsNote {
            message: format!("target {shown} may hold rows that no item has"),
            detail: error.detail.clone().unwrap_or_default(),
        });
    }
    let count = differences.rows.len();
    (!made && count > 0).then(|| ExtraRowsNote {
        message: format!("target {shown} holds rows that no item has"),
        detail: format!(
            "coco found {}{count} of them. It deletes such rows only from a target that it has created, because other programs may have written them. coco.verify with outside => true and repair => true deletes them.",
            if differences.is_cut { "more than " } else { "" },
        ),
    })
}

fn not_compared(message: &str) -> ExtraRowsNote {
    ExtraRowsNote {
        message: "could not look for rows that no item has".to_owned(),
        detail: format!(
            "{message}. All other rows are sent. coco.verify with outside => true and repair => true deletes such rows."
        ),
    }
}

/// Returns notes in the form in which they pass to the session.
pub fn notes_to_json(notes: &[ExtraRowsNote]) -> Value {
    notes.iter().map(|note| json!({ "message": note.message, "detail": note.detail })).collect()
}

/// Returns the notes that [`notes_to_json`] wrote.
pub fn notes_from_json(all: &Value) -> Vec<ExtraRowsNote> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let note =
        |v: &Value| ExtraRowsNote { message: text(&v["message"]), detail: text(&v["detail"]) };
    all.as_array().into_iter().flatten().map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::error::Error;
    use crate::workers::verify_worker::TargetDifferences;
    use coco_core::range_search::RowDifference;

    fn found(made: bool, extra: usize) -> VerifiedTarget {
        let rows = vec![(RowDifference::Extra, "{}".to_owned()); extra];
        let differences = TargetDifferences { rows, ..TargetDifferences::default() };
        VerifiedTarget { shown: "x".to_owned(), made, differences, unreadable: None }
    }

    #[test]
    fn extra_rows_stay_only_where_coco_may_not_delete_them() {
        assert_eq!(note_of(&found(true, 3)), None);
        assert_eq!(note_of(&found(false, 0)), None);
        let note = note_of(&found(false, 3)).expect("a note");
        assert_eq!(note.message, "target x holds rows that no item has");
        assert!(note.detail.starts_with("coco found 3 of them."), "{}", note.detail);
        let unreadable = Some(Error::invalid("no".to_owned()).detail("It cannot read.".to_owned()));
        let note = note_of(&VerifiedTarget { unreadable, ..found(true, 0) }).expect("a note");
        assert_eq!(note.message, "target x may hold rows that no item has");
        assert_eq!(note.detail, "It cannot read.");
    }

    #[test]
    fn notes_pass_to_the_session() {
        let notes = vec![not_compared("the server is gone")];
        assert_eq!(notes_from_json(&notes_to_json(&notes)), notes);
        assert_eq!(notes_from_json(&Value::Null), vec![]);
    }
}
