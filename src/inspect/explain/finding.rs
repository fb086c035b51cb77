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

pub fn finding(
    section: &'static str,
    name: impl Into<String>,
    detail: impl Into<String>,
) -> Finding {
    Finding { section, name: name.into(), detail: detail.into(), prose: true, hint: None }
}

impl Finding {
    pub fn verbatim(mut self) -> Finding {
        self.prose = false;
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

pub fn between(from: &str, to: &str) -> String {
    format!("{from} -> {to}")
}

pub fn names(columns: &[Column]) -> String {
    columns.iter().map(Column::quoted).collect::<Vec<_>>().join(", ")
}
