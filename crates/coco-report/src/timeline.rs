//! Draws the runs of flows on a timeline.

use maud::{Markup, html};

use crate::{Report, Run, format_count, format_duration};

/// Pixels.
const WIDTH: f64 = 960.0;
const NAMES: f64 = 150.0;
const LANE: f64 = 26.0;
const HEAD: f64 = 22.0;
const BAR: f64 = 16.0;
const THINNEST: f64 = 3.0;

/// Maximum letters of a flow's name.
const LETTERS: usize = 20;

/// Returns the drawing of all runs, or `None` if there are none.
pub fn draw_timeline(report: &Report) -> Option<Markup> {
    let begin = report.runs.iter().map(|r| r.at).min_by(f64::total_cmp)?;
    let ended = report.runs.iter().map(|r| r.at + r.elapsed).fold(report.now, f64::max);
    let length = (ended - begin).max(1.0);
    let flows: Vec<&str> = {
        let with_runs = |name: &&str| report.runs.iter().any(|r| r.flow == *name);
        report.flows.iter().map(|f| f.name.as_str()).filter(with_runs).collect()
    };
    let height = HEAD + LANE * flows.len() as f64;
    let x = |at: f64| NAMES + (at - begin) / length * (WIDTH - NAMES - 4.0);
    let lane = |n: usize| HEAD + LANE * n as f64;
    Some(html! {
        svg.runs role="img" aria-labelledby="runs-title runs-desc" xmlns="http://www.w3.org/2000/svg"
            width=(WIDTH) height=(height) viewBox={ "0 0 " (WIDTH) " " (height) } {
            title id="runs-title" { "Runs of each flow over the last " (format_duration(length)) }
            desc id="runs-desc" { "The tables below contain the same runs as text." }
            @for step in 0..=4 {
                @let at = f64::from(step) / 4.0;
                @let left = NAMES + at * (WIDTH - NAMES - 4.0);
                line.grid x1=(px(left)) x2=(px(left)) y1=(HEAD - 4.0) y2=(height) {}
                text.axis x=(px(left)) y="12"
                    text-anchor=(match step { 0 => "start", 4 => "end", _ => "middle" }) {
                    @if step == 4 { "now" } @else { (format_duration(length * (1.0 - at))) " ago" }
                }
            }
            @for (n, flow) in flows.iter().enumerate() {
                text.lane x="0" y=(px(lane(n) + LANE / 2.0 + 4.0)) {
                    title { (flow) }
                    (shorten(flow))
                }
                // Older runs come first, so that newer errors are on top.
                @for run in report.runs.iter().rev().filter(|r| r.flow == *flow) {
                    @let left = x(run.at);
                    @let wide = (run.elapsed / length * (WIDTH - NAMES - 4.0)).max(THINNEST);
                    rect class={ "run " (run.outcome()) } x=(px(left.min(WIDTH - wide)))
                        y=(px(lane(n) + (LANE - BAR) / 2.0)) width=(px(wide)) height=(BAR) rx="1.5" {
                        title { (describe_run(run)) }
                    }
                }
            }
        }
    })
}

fn describe_run(run: &Run) -> String {
    let mut text = format!(
        "run {} at {}: {} ({}), {}; {} evaluated, {} upserted, {} deleted, {} failed",
        run.run,
        run.started,
        run.reason,
        run.initiator,
        format_duration(run.elapsed),
        format_count(run.evaluated),
        format_count(run.upserted),
        format_count(run.deleted),
        format_count(run.failed),
    );
    if let Some(error) = &run.error {
        text.push_str(&format!("; {error}"));
    }
    text
}

fn shorten(name: &str) -> String {
    match name.chars().count() > LETTERS {
        true => name.chars().take(LETTERS - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

fn px(n: f64) -> String {
    format!("{}", (n * 10.0).round() / 10.0)
}
