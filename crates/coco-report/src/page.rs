//! The HTML page of the report.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::graph::Health;
use crate::picture::draw_graph;
use crate::timeline::draw_timeline;
use crate::{
    FailedRow, Flow, Function, Report, Run, Target, Worker, format_count, format_duration,
};

const STYLE: &str = include_str!("style.css");

/// Runs per flow in its table.
const RUNS: usize = 20;

/// With more flows than this, the page shows the flows that need attention, and collapses the rest.
const MANY: usize = 30;

/// Returns the report as one HTML page. The page loads nothing: its policy forbids everything but
/// its own style.
pub fn render_page(report: &Report) -> String {
    let is_long = report.flows.len() > MANY;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy);
                // Otherwise a browser would request an icon.
                link rel="icon" href="data:,";
                title { "coco: " (report.database) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Flows of " (report.database) }
                    p.soft { (report.made) }
                }
                main {
                    (tiles(report))
                    @if report.flows.is_empty() {
                        p { "There is no flow that you may see. " code { "coco.create_flow" } " declares one." }
                    } @else {
                        (flows(&report.flows))
                        @if !report.errors.is_empty() { (errors(&report.errors)) }
                        h2 { "Graph" }
                        (collapsed(is_long, "Graph of all flows", drawing(report)))
                        h2 { "Runs" }
                        (collapsed(is_long, "Runs of all flows", runs(report)))
                        h2 { "Targets" }
                        (collapsed(is_long, "Targets of all flows", targets(&report.targets)))
                        h2 { "Declarations" }
                        (collapsed(is_long, "Declarations of all flows", declarations(report)))
                        @if !report.functions.is_empty() { (functions(&report.functions)) }
                        (workers(&report.workers))
                    }
                }
                footer { (report.versions) }
            }
        }
    }
    .into_string()
}

/// Returns a part of the page, in a closed `<details>` if it is to be collapsed.
fn collapsed(is_collapsed: bool, summary: &str, part: Markup) -> Markup {
    html! {
        @if is_collapsed { details { summary { (summary) } (part) } } @else { (part) }
    }
}

/// Returns the sum of what is known, or `None` if nothing is known.
fn sum_of_known(numbers: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    numbers.flatten().reduce(|a, b| a.saturating_add(b))
}

fn tiles(report: &Report) -> Markup {
    let flows = &report.flows;
    let failed_items = sum_of_known(flows.iter().map(|f| f.failed_items));
    let count = |health: Health| flows.iter().filter(|f| f.health() == health).count();
    let (broken, stale) = (count(Health::Broken), count(Health::Stale));
    let pending = sum_of_known(flows.iter().map(|f| f.pending));
    let lag = flows.iter().filter_map(|f| f.lag).reduce(f64::max);
    let shown = |n: Option<i64>| n.map_or("–".to_owned(), format_count);
    html! {
        dl.tiles {
            div { dt { "Flows" } dd { (flows.len()) } }
            div { dt { "Live" } dd { (flows.iter().filter(|f| f.live).count()) } }
            div { dt { "Broken" } dd.broken[broken > 0] { (broken) } }
            div { dt { "Stale" } dd.stale[stale > 0] { (stale) } }
            div { dt { "Failed items" } dd.failing[failed_items > Some(0)] { (shown(failed_items)) } }
            div { dt { "Pending" } dd { (shown(pending)) } }
            div { dt { "Longest lag" } dd { (lag.map_or("–".to_owned(), format_duration)) } }
            div { dt { "Workers" } dd { (report.workers.len()) } }
        }
    }
}

fn drawing(report: &Report) -> Markup {
    html! {
        div.card.drawing tabindex="0" role="region" aria-label="The graph of flows" {
            (draw_graph(&report.graph))
        }
        (legend(&[
            ("live", "live"), ("ready", "up to date"), ("stale", "stale"), ("failing", "failing"),
            ("broken", "broken"),
            ("table", "table"), ("function", "memoized function"), ("external", "external target"),
        ]))
    }
}

fn legend(entries: &[(&str, &str)]) -> Markup {
    html! { ul.legend aria-label="Legend" { @for (class, what) in entries { li { i class=(class) {} (what) } } } }
}

/// Returns a table in a card that scrolls if it is wider than the page.
fn table(caption: &str, heads: &[(&str, &str)], rows: &[Markup]) -> Markup {
    html! {
        div.card tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for (class, head) in heads { th scope="col" class=(class) { (head) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

fn optional_text(text: Option<&String>) -> Markup {
    html! { @match text { Some(text) => (text), None => span.soft { "–" } } }
}

fn count_cell(n: Option<i64>) -> Markup {
    html! { td.number { @match n { Some(n) => (format_count(n)), None => span.soft { "–" } } } }
}

fn error_cell(error: Option<&String>, hint: Option<&String>, retry: Option<&String>) -> Markup {
    html! {
        td.message {
            @if let Some(error) = error { (error) }
            @if let Some(hint) = hint { p.hint { (hint) } }
            @if let Some(retry) = retry { p.soft { "next retry at " (retry) } }
        }
    }
}

/// Returns the state of each flow. Broken flows come first. If there are many flows, those that are
/// well are collapsed.
fn flows(flows: &[Flow]) -> Markup {
    let mut sorted: Vec<&Flow> = flows.iter().collect();
    sorted.sort_by(|a, b| (a.health(), &a.name).cmp(&(b.health(), &b.name)));
    let (well, others): (Vec<&Flow>, Vec<&Flow>) =
        sorted.iter().copied().partition(|f| f.health().is_well());
    html! {
        h2 { "Flows" }
        @if flows.len() <= MANY {
            (states("State of each flow", &sorted))
        } @else {
            @if !others.is_empty() { (states("Flows that need attention", &others)) }
            @if !well.is_empty() {
                details {
                    summary { (well.len()) " flows are well" }
                    (states("Flows that are well", &well))
                }
            }
        }
    }
}

fn states(caption: &str, flows: &[&Flow]) -> Markup {
    let heads = [
        ("", "Flow"),
        ("", "State"),
        ("number", "Pending"),
        ("number", "Lag"),
        ("number", "Items (estimate)"),
        ("number", "Failed items"),
        ("", "Followed at"),
        ("", "Last error"),
    ];
    let rows: Vec<Markup> = flows
        .iter()
        .map(|f| {
            html! {
                th scope="row" { (f.name) br; span.soft { (f.owner) } }
                td { span class={ "state " (f.health().name()) } { (f.state) } }
                (count_cell(f.pending))
                td.number { @match f.lag { Some(lag) => (format_duration(lag)), None => span.soft { "–" } } }
                (count_cell(f.items))
                (count_cell(f.failed_items))
                td.time { (optional_text(f.followed.as_ref())) }
                (error_cell(f.error.as_ref(), f.hint.as_ref(), f.next_retry.as_ref()))
            }
        })
        .collect();
    table(caption, &heads, &rows)
}

fn errors(errors: &[FailedRow]) -> Markup {
    let heads = [
        ("", "Flow"),
        ("", "Source or target"),
        ("", "Key"),
        ("", "Error"),
        ("number", "Attempts"),
        ("", "Next retry"),
    ];
    let rows: Vec<Markup> = errors
        .iter()
        .map(|e| {
            html! {
                th scope="row" { (e.flow) }
                td { (e.object) }
                td { code { (e.key) } }
                td.message {
                    code { (e.sqlstate) } " " (e.message)
                    @if let Some(detail) = &e.detail { p.soft { (detail) } }
                    @if let Some(hint) = &e.hint { p.hint { (hint) } }
                }
                td.number { (e.attempts) }
                td.time { (optional_text(e.next_retry.as_ref())) }
            }
        })
        .collect();
    html! {
        h2 { "Errors" }
        (table("Failed items and rejected rows, newest first; coco.errors shows all", &heads, &rows))
    }
}

fn runs(report: &Report) -> Markup {
    let Some(drawing) = draw_timeline(report) else {
        return html! { p.soft { "No run has been recorded yet." } };
    };
    html! {
        div.card.drawing tabindex="0" role="region" aria-label="The timeline of runs" { (drawing) }
        (legend(&[
            ("worked", "changes"), ("idle", "no changes"), ("failed", "items failed"), ("error", "failed as a whole"),
        ]))
        @for flow in &report.flows {
            @let runs: Vec<&Run> = report.runs.iter().filter(|r| r.flow == flow.name).take(RUNS).collect();
            @if !runs.is_empty() {
                details {
                    summary { "Runs of " strong { (flow.name) } }
                    (runs_of(&flow.name, &runs))
                }
            }
        }
    }
}

fn runs_of(flow: &str, runs: &[&Run]) -> Markup {
    let heads = [
        ("", "Started"),
        ("number", "Time"),
        ("", "Reason"),
        ("number", "Seen"),
        ("number", "Unchanged"),
        ("number", "Evaluated"),
        ("number", "Upserted"),
        ("number", "Deleted"),
        ("number", "Failed"),
        ("", ""),
    ];
    let rows: Vec<Markup> = runs
        .iter()
        .map(|r| {
            html! {
                td.time { (r.started) }
                td.number { (format_duration(r.elapsed)) }
                td { (r.reason) " " span.soft { (r.initiator) } }
                @for n in [r.seen, r.unchanged, r.evaluated, r.upserted, r.deleted, r.failed] { (count_cell(Some(n))) }
                td {
                    @if let Some(label) = &r.label { span.soft { (label) } " " }
                    @if let Some(error) = &r.error { (error) }
                }
            }
        })
        .collect();
    table(&format!("Last runs of {flow}, newest first"), &heads, &rows)
}

fn targets(targets: &[Target]) -> Markup {
    let heads = [
        ("", "Target"),
        ("", "Flow"),
        ("", "Key"),
        ("", "Server"),
        ("number", "Queued"),
        ("number", "Rejected"),
        ("", "Last delivered"),
        ("", "Error"),
    ];
    let rows: Vec<Markup> = targets
        .iter()
        .map(|t| {
            html! {
                th scope="row" { (t.name) }
                td { (t.flow) }
                td { code { (t.key) } }
                td { @match &t.server { Some(server) => (server), None => span.soft { "this database" } } }
                (count_cell(t.queued))
                (count_cell(t.rejected))
                td.time { (optional_text(t.sent.as_ref())) }
                (error_cell(t.error.as_ref(), t.hint.as_ref(), t.next_retry.as_ref()))
            }
        })
        .collect();
    table("Targets of all flows", &heads, &rows)
}

/// Returns the queries of each flow, as declared, each flow in a closed `<details>`.
fn declarations(report: &Report) -> Markup {
    html! {
        @for flow in &report.flows {
            @let targets: Vec<&Target> = report.targets.iter().filter(|t| t.flow == flow.name).collect();
            @if !targets.is_empty() {
                details {
                    summary { "Declaration of " strong { (flow.name) } }
                    @for target in targets {
                        p.soft { "Query of target " (target.name) ", key " code { (target.key) } }
                        pre.card tabindex="0" role="region" aria-label={ "Query of target " (target.name) } {
                            code { (target.query) }
                        }
                    }
                }
            }
        }
    }
}

fn functions(functions: &[Function]) -> Markup {
    let heads = [
        ("", "Function"),
        ("", "Flow"),
        ("", "Hit rate"),
        ("number", "Calls"),
        ("number", "Computed"),
        ("number", "Errors"),
        ("number", "Requests"),
        ("number", "Tokens"),
        ("number", "Cost"),
        ("number", "Time"),
    ];
    let rows: Vec<Markup> = functions
        .iter()
        .map(|f| {
            let rate = if f.calls > 0.0 { ((f.calls - f.misses) / f.calls).clamp(0.0, 1.0) } else { 0.0 };
            let percent = format!("{:.0}%", rate * 100.0);
            html! {
                th scope="row" { code { (f.name) } }
                td { (f.flow) }
                td.time { meter min="0" max="1" value=(format!("{rate:.3}")) { (percent) } " " (percent) }
                @for n in [f.calls, f.misses, f.errors, f.requests, f.tokens] { (count_cell(Some(n as i64))) }
                td.number { (format!("{:.4}", f.cost).trim_end_matches('0').trim_end_matches('.')) }
                td.number { (format_duration(f.seconds)) }
            }
        })
        .collect();
    html! {
        h2 { "Memoized functions" }
        (table("Results that items use, and the share of them that was stored already", &heads, &rows))
    }
}

fn workers(workers: &[Worker]) -> Markup {
    let heads = [
        ("number", "Worker"),
        ("number", "Process"),
        ("", "State"),
        ("", "Flow"),
        ("", "Since"),
        ("number", "Transactions"),
        ("number", "Evaluated"),
        ("number", "Upserted"),
        ("number", "Deleted"),
        ("number", "Failed"),
    ];
    let rows: Vec<Markup> = workers
        .iter()
        .map(|w| {
            html! {
                th.number scope="row" { (w.worker_no) }
                td.number { (w.pid) }
                td { (w.state) }
                td { (optional_text(w.flow.as_ref())) }
                td.time { (w.since) }
                @for n in [w.transactions, w.evaluated, w.upserted, w.deleted, w.failed] { (count_cell(Some(n))) }
            }
        })
        .collect();
    html! {
        h2 { "Workers" }
        @if workers.is_empty() {
            p.soft {
                "No workers: none is needed, or coco is not in " code { "shared_preload_libraries" } "."
            }
        } @else {
            (table("Workers of this database, with counts since each started", &heads, &rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &str = "</style><script>alert(1)</script>\"'&";

    fn full() -> Report {
        let bad = || BAD.to_owned();
        let mut report = Report {
            database: bad(),
            made: bad(),
            versions: bad(),
            now: 100.0,
            ..Report::default()
        };
        let flow = report.graph.node_index(crate::graph::NodeKind::Flow, BAD, None);
        report.graph.add_edge(flow, flow, crate::graph::EdgeKind::Source, Some(bad()));
        report.flows.push(Flow {
            name: bad(),
            owner: bad(),
            state: bad(),
            live: true,
            pending: Some(1),
            lag: Some(1.0),
            followed: Some(bad()),
            items: None,
            failed_items: Some(1),
            next_retry: Some(bad()),
            error: Some(bad()),
            hint: Some(bad()),
        });
        report.targets.push(Target {
            flow: bad(),
            name: bad(),
            query: bad(),
            server: Some(bad()),
            key: bad(),
            queued: None,
            rejected: None,
            sent: None,
            next_retry: None,
            error: Some(bad()),
            hint: Some(bad()),
        });
        report.errors.push(FailedRow {
            flow: bad(),
            object: bad(),
            key: bad(),
            sqlstate: bad(),
            message: bad(),
            detail: Some(bad()),
            hint: Some(bad()),
            attempts: 1,
            next_retry: None,
        });
        report.runs.push(Run {
            flow: bad(),
            run: 1,
            started: bad(),
            at: 1.0,
            elapsed: 3.0,
            reason: bad(),
            initiator: bad(),
            seen: 1,
            unchanged: 1,
            evaluated: 1,
            upserted: 1,
            deleted: 1,
            failed: 0,
            error: Some(bad()),
            label: Some(bad()),
        });
        report.workers.push(Worker {
            worker_no: 1,
            pid: 1,
            state: bad(),
            flow: Some(bad()),
            since: bad(),
            transactions: 1,
            evaluated: 1,
            upserted: 1,
            deleted: 1,
            failed: 1,
        });
        report.functions.push(Function {
            flow: bad(),
            name: bad(),
            calls: 3.0,
            misses: 1.0,
            ..Function::default()
        });
        report
    }

    #[test]
    fn no_text_becomes_markup() {
        let page = render_page(&full());
        assert!(!page.contains("<script") && page.matches("</style>").count() == 1, "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 20);
        assert!(
            !page.contains("http://")
                || page.matches("http://").count() == page.matches("http://www.w3.org/").count()
        );
    }

    fn flow(name: &str, state: &str) -> Flow {
        Flow {
            name: name.to_owned(),
            owner: "owner".to_owned(),
            state: state.to_owned(),
            live: false,
            pending: None,
            lag: None,
            followed: None,
            items: None,
            failed_items: None,
            next_retry: None,
            error: None,
            hint: None,
        }
    }

    /// Where a flow's row begins in a page.
    fn row(page: &str, name: &str) -> usize {
        let row = page.find(&format!("<th scope=\"row\">{name}<br>"));
        row.unwrap_or_else(|| panic!("no row of {name} in {page}"))
    }

    #[test]
    fn flows_that_need_attention_come_first() {
        let mut report = Report::default();
        let states = [
            ("a", "live"),
            ("b", "up to date"),
            ("c", "behind"),
            ("d", "failed"),
            ("e", "degraded"),
            ("f", "no worker"),
            ("g", "a state of a later version"),
        ];
        report.flows.extend(states.map(|(name, state)| flow(name, state)));
        let page = render_page(&report);
        let mut found = states.map(|(name, _)| (row(&page, name), name));
        found.sort_unstable();
        assert_eq!(found.map(|(_, name)| name), ["d", "g", "e", "c", "f", "b", "a"]);
        assert!(page.contains("<span class=\"state stale\">behind</span>"), "{page}");
        // What is not known is not 0.
        assert!(page.contains("<dt>Pending</dt><dd>–</dd>"), "{page}");
        assert!(!page.contains("<details"), "{page}");
    }

    #[test]
    fn many_flows_are_collapsed_except_those_that_need_attention() {
        let mut report = Report::default();
        for n in 0..=MANY {
            report.flows.push(flow(&format!("well{n}"), "live"));
        }
        report.flows.push(flow("ill", "failed"));
        let page = render_page(&report);
        let closed = page.find("<details").expect("a part is collapsed");
        assert!(row(&page, "ill") < closed && closed < row(&page, "well0"), "{page}");
        assert!(page.contains(&format!("<summary>{} flows are well</summary>", MANY + 1)));
        assert!(page.find("svg class=\"flows\"").expect("a graph") > closed);
        assert_eq!(page.matches("<details").count(), page.matches("</details>").count());
        report.flows.truncate(MANY);
        assert!(!render_page(&report).contains("<details"));
    }

    #[test]
    fn the_declaration_is_in_a_details() {
        let page = render_page(&full());
        let (_, declarations) = page.split_once("<h2>Declarations</h2>").expect("a section");
        let (_, details) = declarations.split_once("<details>").expect("a details");
        let (details, _) = details.split_once("</details>").expect("its end");
        assert!(details.contains("<code>&lt;/style&gt;&lt;script&gt;"), "{details}");
    }

    #[test]
    fn a_page_without_flows_says_so() {
        assert!(render_page(&Report::default()).contains("There is no flow that you may see."));
    }

    #[test]
    fn rates_and_costs() {
        let page = render_page(&full());
        assert!(page.contains("> 67%</td>"), "{page}");
    }
}
