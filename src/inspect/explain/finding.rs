//! One row of `coco.explain`.

use crate::pg::columns::Column;

/// A statement about a flow.
pub struct Finding {
    pub section: &'static str,
    pub name: String,
    pub detail: String,
    /// Whether the detail is text to read, not a statement or a plan.
    pub prose: bool,
    pub hint: Option<String>,
}

/// Returns a finding whose detail is text to read, without a hint.
pub fn finding(
    section: &'static str,
    name: impl Into<String>,
    detail: impl Into<String>,
) -> Finding {
    Finding { section, name: name.into(), detail: detail.into(), prose: true, hint: None }
}

impl Finding {
    /// Marks the detail as a statement or plan, whose line breaks must stay.
    pub fn verbatim(mut self) -> Finding {
        self.prose = false;
        self
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

/// Returns the name of a finding about a pair: a source and its target, or a lookup and a source.
pub fn between(from: &str, to: &str) -> String {
    format!("{from} -> {to}")
}

/// Returns the quoted names of columns, separated by commas.
pub fn names(columns: &[Column]) -> String {
    columns.iter().map(Column::quoted).collect::<Vec<_>>().join(", ")
}
