//! The comments on the objects that coco creates for a flow. They contain the flow's name, so
//! `coco.rename_flow` writes them again.

use crate::pg::spi::ident;

/// Returns the comment on a tracking table and on its view.
pub fn tracking_comment(flow: &str, source: &str, key: &[String]) -> String {
    let key: Vec<String> = key.iter().map(|name| ident(name)).collect();
    format!(
        "Tracking table of flow {flow}, source {source}, key ({}): a row per source item",
        key.join(", ")
    )
}

/// Returns the comment on a table of groups and on its view.
pub fn groups_comment(flow: &str, source: &str) -> String {
    format!("The states of the groups of flow {flow}, source {source}: a row per group")
}

/// Returns the comment on a table of contributions.
pub fn contributions_comment(flow: &str, source: &str) -> String {
    format!(
        "What the rows of source {source} contribute to the groups of flow {flow}: a row per source row"
    )
}

/// Returns the comment on the view that keeps the row part of a query.
pub fn rows_comment(flow: &str, source: &str) -> String {
    format!("The part of the query of flow {flow} that concerns one row of source {source}")
}

/// Returns the comment on the view that keeps a target's query.
pub fn query_comment(flow: &str, target: &str) -> String {
    // PostgreSQL names this view when it refuses to alter a column that the query uses.
    format!(
        "The query of target {target} of flow {flow}. To alter a column that it uses, first give the target a query without the column: coco.set_query."
    )
}

/// Returns the comment on the view that keeps a lookup's query.
pub fn affects_comment(flow: &str, lookup: &str) -> String {
    format!("The items of flow {flow} that changes of {lookup} affect")
}

/// Returns the comment on the view that keeps a source's expressions.
pub fn expressions_comment(flow: &str, source: &str) -> String {
    format!("The ordinal and the fingerprint of source {source} of flow {flow}")
}

/// Returns the comment on the view that keeps the expressions of a source key.
pub fn key_comment(flow: &str, source: &str) -> String {
    format!("The expressions in the key of source {source} of flow {flow}")
}

/// Returns the comment on the view that keeps the condition of an expectation.
pub fn condition_comment(flow: &str, expectation: &str) -> String {
    format!("The condition of expectation {expectation} of flow {flow}")
}

/// Returns the comment on a ledger and on its view.
pub fn ledger_comment(flow: &str, target: &str) -> String {
    format!("Ledger: the keys that target {target} of flow {flow} should hold")
}

/// Returns the comment on an outbox and on its view.
pub fn outbox_comment(flow: &str, target: &str) -> String {
    format!("Outbox: queued changes for target {target} of flow {flow}")
}

/// Returns the comment on the table of a flow's memoized results and on its view.
pub fn memo_comment(flow: &str) -> String {
    format!("Results of the memoized functions of flow {flow}")
}
