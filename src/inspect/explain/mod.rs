//! `coco.explain`: how coco evaluates a flow, what its fingerprints cover, and which change causes
//! which work. It executes no part of the flow.

pub mod derived;
pub mod finding;
pub mod plans;
pub mod triggers_of_work;

use crate::catalog::logic_rows;
use crate::catalog::memo_function;
use crate::catalog::model::{Expectation, Flow, Source, Target};
use crate::declare::{check_query, keep_groups};
use crate::flows::{load, paused};
use crate::inspect::explain::finding::{Finding, between, finding, names};
use crate::memo::called_functions;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg, ident};
use crate::query::compose::{self, Items};
use crate::query::logic_fingerprint;
use crate::update::limits::Limits;
use coco_core::expectation::UnmetAction;
use coco_core::version::LogicId;

/// Describes one of the caller's flows, for batches of this size unless the flow has its own.
pub fn explain(name: &str, limits: Limits) -> Result<Vec<Finding>> {
    let flow = load::load_flow(name)?;
    let limits = limits.of(&flow);
    let mut all = Vec::new();
    for source in &flow.sources {
        all.push(described(source)?);
    }
    for lookup in &flow.lookups {
        let found = described(&lookup.relation)?;
        all.push(Finding { section: "lookup", ..found });
    }
    all.extend(derived::derivations(&flow)?);
    for source in flow.sources.iter().filter(|source| source.grouped) {
        all.push(kept_groups(&flow, source)?);
    }
    all.extend(flow.targets.iter().map(|target| rows_of(&flow, target)));
    all.extend(flow.targets.iter().flat_map(expected_of));
    all.extend(flow.sources.iter().map(content));
    all.extend(logic(&flow)?);
    all.extend(flow.memoized.iter().map(|f| {
        let fingerprint = f.fingerprint.to_string();
        let how = match f.kind {
            memo_function::MemoFunctionKind::Plain => "computed by the query".to_owned(),
            memo_function::MemoFunctionKind::Batch { size, .. } => {
                format!("computed {size} inputs at a time")
            }
            _ => "requested from a server, many inputs at a time".to_owned(),
        };
        finding(
            "memoized function",
            &f.name,
            match &f.ttl {
                None => format!("{how}; results are stored under {fingerprint}"),
                Some(ttl) => format!(
                    "{how}; results are stored under {fingerprint}, and used for {}",
                    ttl.shown
                ),
            },
        )
    }));
    let views: Vec<_> = flow.targets.iter().filter_map(|t| t.query_view()).collect();
    for name in called_functions::of_another_owner(&views)? {
        let what = "the function is not memoized, because its owner has changed since coco.memoize was called";
        let therefore = format!("Memoize it again as its owner: SELECT coco.memoize('{name}').");
        all.push(finding("warning", &name, what).hint(therefore));
    }
    all.extend(triggers_of_work::changes(&flow)?);
    let by_states = flow.by_states();
    for source in &by_states.sources {
        for target in &flow.targets {
            let sql = compose::evaluate(&by_states, source, target, Items::Batch)?;
            let sql = format!(
                "-- the query, bound when it was declared\n{}\n-- over a batch of items\n{sql}",
                target.query
            );
            all.push(finding("query", between(&source.name, &target.shown()), sql).verbatim());
        }
    }
    all.extend(plans::plans(&by_states, limits)?);
    if flow.paused {
        all.push(
            finding("warning", &flow.name, "the flow is paused")
                .hint(paused::unpause_hint(&flow.name)),
        );
    }
    if flow.targets.is_empty() {
        let warning = finding("warning", &flow.name, "the flow has no target yet");
        all.push(warning.hint("Add one with coco.add_target."));
    }
    for target in &flow.targets {
        if target.relation.is_none() {
            let warning = finding("warning", target.shown(), "the target was dropped");
            all.push(warning.hint("The next update creates and fills it again."));
        }
        for concern in check_query::concerns_of(&flow, target)? {
            let warning = finding("warning", target.shown(), concern.what);
            all.push(warning.hint(concern.therefore));
        }
    }
    Ok(all)
}

/// Describes a source or lookup: its items, and how coco finds its changes.
fn described(source: &Source) -> Result<Finding> {
    let item = match source.grouped {
        true => "an item is the group of the rows with the same",
        false => "an item is a row, identified by",
    };
    let mut detail = format!(
        "{}: {item} ({}); capture: {}",
        source.relation_name,
        names(&source.key),
        source.capture.name()
    );
    if let Some(ordinal) = &source.ordinal {
        detail.push_str(&format!("; ordinal: {ordinal}"));
    }
    let found = finding("source", &source.name, detail);
    let unknown = spi::scalar::<bool>(
        "select reltuples < 0 from pg_catalog.pg_class where oid = $1 and relkind in ('r', 'm', 'p')",
        &[arg(source.relation)],
    )?;
    Ok(match unknown {
        Some(true) => found.hint(format!(
            "Run ANALYZE {}: the relation was never analyzed, so plans are made without statistics.",
            source.relation_name
        )),
        _ => found,
    })
}

/// Describes how coco computes the groups of a source, and why.
fn kept_groups(flow: &Flow, source: &Source) -> Result<Finding> {
    if let Some(groups) = &source.groups {
        let detail = format!(
            "coco keeps the groups by deltas, as declared: {} has what each row contributes, and {} the state of each group; a changed row costs no look at the other rows of its group",
            groups.contributions, groups.groups
        );
        return Ok(finding("groups", &source.name, detail));
    }
    let whole = "coco evaluates a changed group as a whole";
    if flow.targets.is_empty() {
        return Ok(finding("groups", &source.name, whole));
    }
    Ok(match keep_groups::reason_against(flow)? {
        None => finding(
            "groups",
            &source.name,
            format!("{whole}, because the flow was declared without aggregate => 'delta'"),
        )
        .hint("Declare the flow with aggregate => 'delta' if its groups are large: a change then costs only what it changes."),
        Some(reason) => {
            finding("groups", &source.name, format!("{whole}; it could not keep them by deltas: {reason}"))
        }
    })
}

/// Describes a target, and how coco finds the rows of an item.
fn rows_of(flow: &Flow, target: &Target) -> Finding {
    let key = names(&target.key);
    let known = match &target.covered {
        Some(covered) => {
            let columns: Vec<String> = covered.iter().map(|c| ident(c)).collect();
            let columns = columns.join(", ");
            format!("owned by key: an item's rows are those with the item's key in ({columns})")
        }
        None => {
            let tables: Vec<&str> = flow.sources.iter().map(|s| s.tracking_view.as_str()).collect();
            let tables = tables.join(", ");
            format!("owned by list: the keys of an item's rows are stored in {tables}")
        }
    };
    let made = if target.made { "managed" } else { "adopted" };
    finding("target", target.shown(), format!("key ({key}); {known}; {made}"))
}

/// Describes the expectations of a target.
fn expected_of(target: &Target) -> Vec<Finding> {
    let described = |expectation: &Expectation| {
        let action = match expectation.action {
            UnmetAction::Park => "coco parks other rows",
            UnmetAction::Warn => "coco writes other rows, and counts them",
            UnmetAction::Fail => "the item of another row fails",
        };
        let share = expectation.max_share.map_or(String::new(), |share| {
            format!("; an update stops if more than {share} of its rows fail")
        });
        let detail = format!(
            "rows of {} satisfy {}; {action}{share}",
            target.shown(),
            expectation.condition
        );
        finding("expectation", &expectation.name, detail)
    };
    target.expectations.iter().map(described).collect()
}

/// Describes what the content fingerprint of a source covers, and what it does not.
fn content(source: &Source) -> Finding {
    let of = if source.grouped { " of all rows of the group" } else { "" };
    let detail = match (&source.fingerprint, source.used.as_slice()) {
        (Some(expression), _) => format!(
            "the value of {expression}{of}, and nothing else: a change that leaves it unchanged evaluates nothing"
        ),
        (None, []) => format!("only the key{of}: the queries use no other column"),
        (None, used) => format!(
            "the columns that the queries use{of}: {}; any other column may be changed, added or dropped",
            names(used)
        ),
    };
    let found = finding("content fingerprint", &source.name, detail);
    match &source.ordinal {
        None => found,
        Some(ordinal) => found.hint(format!(
            "coco reads the content only if the ordinal ({ordinal}) has increased, and does not notice a change that leaves it unchanged."
        )),
    }
}

/// Describes what the logic fingerprint covers.
fn logic(flow: &Flow) -> Result<Vec<Finding>> {
    let (fingerprint, parts) = logic_fingerprint::covers(flow)?;
    let committed = match logic_fingerprint::known_logic(flow)? {
        LogicId(0) => "; not run yet: the next update evaluates every item".to_owned(),
        known => match logic_rows::logic_label(known.0)? {
            Some(label) => format!("; label: {label}"),
            None => String::new(),
        },
    };
    let named = parts.into_iter().map(|part| {
        let target = part.strip_prefix("query of target ").and_then(|id| id.parse::<i32>().ok());
        let target = target.and_then(|id| flow.targets.iter().find(|t| t.id == id));
        target.map_or(part, |t| format!("query, columns and key of target {}", t.shown()))
    });
    let named: Vec<String> = named.collect();
    let detail = format!("{fingerprint}, of: {}{committed}", named.join("; "));
    Ok(vec![
        finding("logic fingerprint", &flow.name, detail)
            .hint("It does not cover rows of tables, other settings, objects that belong to Postgres itself, and dynamic SQL."),
    ])
}
