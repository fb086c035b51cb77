//! The section `change` of `coco.explain`: which change causes which work.

use crate::capture::{self, cursor};
use crate::catalog::model::{CaptureMode, Flow, Lookup, Source};
use crate::inspect::explain::finding::{Finding, finding, names};
use crate::pg::columns::Column;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::statements::SpiSession;

/// Describes the changes that lead to work for a flow.
pub fn changes(flow: &Flow) -> Result<Vec<Finding>> {
    let change = |leads: String| finding("change", &flow.name, leads);
    let mut all = Vec::new();
    for source in &flow.sources {
        all.extend(of_source(flow, source)?);
    }
    for lookup in &flow.lookups {
        all.extend(of_lookup(flow, lookup)?);
    }
    all.push(change(
        "a function that the queries call, directly or indirectly, is replaced, or coco.set_query is called: the logic fingerprint changes; the next update evaluates every item, and writes the rows that differ".to_owned(),
    ));
    for function in &flow.memoized {
        all.push(change(format!(
            "the code or version of the memoized function {} changes: every item is evaluated, and the results of the function are computed again",
            function.name
        )));
    }
    Ok(all)
}

/// Describes when coco notices a change of a source or lookup.
fn when(flow: &Flow, source: &Source) -> String {
    match (source.capture, flow.live) {
        (CaptureMode::Scan, true) => match source.refresh {
            Some(every) => {
                format!("when a worker reads the whole relation, every {} s", every.as_secs())
            }
            None => "when a worker reads the whole relation, once a minute".to_owned(),
        },
        (CaptureMode::Scan, false) => {
            "by the next coco.update, which reads the whole relation".to_owned()
        }
        (_, true) => "at once".to_owned(),
        (_, false) => "by the next coco.update".to_owned(),
    }
}

fn of_source(flow: &Flow, source: &Source) -> Result<Vec<Finding>> {
    let change = |leads: String| finding("change", &source.name, leads);
    let item = if source.grouped { "group" } else { "item" };
    let when = when(flow, source);
    let other: Vec<Column> =
        source.used.iter().filter(|u| !source.key.contains(u)).cloned().collect();
    let decides = match &source.fingerprint {
        Some(expression) => format!("it is new or the value of {expression} has changed"),
        None if source.grouped => {
            "its rows have changed in columns that the queries use".to_owned()
        }
        None if other.is_empty() => "it is new".to_owned(),
        None => format!("it is new or one of {} has changed", names(&other)),
    };
    let mut all = vec![
        change(format!(
            "a row is inserted or updated: its {item} is checked {when}, and evaluated if {decides}"
        )),
        change(match source.grouped {
            true => format!(
                "a row is deleted: its group is evaluated without it {when}; with the last row of a group, the group's target rows are deleted"
            ),
            false => format!("a row is deleted: its target rows are deleted {when}"),
        }),
    ];
    all.push(change(match source.capture {
        CaptureMode::Scan => format!(
            "TRUNCATE, or a partition is added or removed: noticed {when}; the target rows of items that no longer exist are deleted"
        ),
        _ => "TRUNCATE, a partition is added or removed, or a trigger is disabled: the next update reads the whole table, deletes the target rows of items that no longer exist, and evaluates only items that changed".to_owned(),
    }));
    if source.capture != CaptureMode::Scan {
        all.extend(watch(source)?);
    }
    if source.capture == CaptureMode::Trigger {
        let passed = change(
            "rows are applied by logical replication, or written with session_replication_role = replica: not followed, because triggers do not fire".to_owned(),
        );
        all.push(passed.hint("Use capture => 'always' to follow them."));
    }
    Ok(all)
}

fn of_lookup(flow: &Flow, lookup: &Lookup) -> Result<Vec<Finding>> {
    let source = flow.sources.iter().find(|s| s.id == lookup.of);
    let source = source.map_or("?", |s| s.name.as_str());
    let relation = &lookup.relation;
    let when = when(flow, relation);
    let affected = match &lookup.affects {
        Some(_) => {
            format!("the items of {source} that the query \"affects\" returns are evaluated")
        }
        None => format!("every item of {source} is evaluated"),
    };
    let change = finding(
        "change",
        &relation.name,
        format!(
            "a row is inserted, deleted or changed in {}: {affected} {when}; changes of other columns evaluate nothing",
            names(&relation.used)
        ),
    );
    let mut all = vec![match lookup.affects {
        Some(_) => change,
        None => {
            change.hint("Pass \"affects\" to coco.add_lookup to evaluate only the affected items.")
        }
    }];
    if relation.capture != CaptureMode::Scan {
        all.extend(watch(relation)?);
    }
    Ok(all)
}

/// Returns a warning if triggers do not record every change of a captured table.
fn watch(source: &Source) -> Result<Option<Finding>> {
    let missing = |why: &str| {
        let all = format!("{why}: each update reads the whole table");
        let warning = finding("warning", &source.name, all);
        Some(warning.hint("Call coco.start, or declare a source or lookup over the table, to restore the triggers."))
    };
    let _now = PinnedSnapshot::latest();
    let Some(found) = capture::find_capture(source.relation)?.filter(|c| c.is_whole()) else {
        return Ok(missing("the change log of the table is missing"));
    };
    let (_, adequate) = cursor::signature(&SpiSession::connect()?, source.relation, &found)?;
    Ok(if adequate { None } else { missing("not every change of the table is captured") })
}
