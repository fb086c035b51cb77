//! Draws the graph of flows as SVG.

use maud::{Markup, html};

use crate::graph::{EdgeKind, Graph, Health, Node, NodeKind};
use crate::layout::{self, Place};

/// Pixels.
const LINE: f64 = 16.0;
const PADDING: f64 = 9.0;
const GAP: f64 = 18.0;
const BETWEEN: f64 = 56.0;
const MARGIN: f64 = 8.0;
/// Approximate width of a letter.
const LETTER: f64 = 7.1;

/// Maximum letters of a line.
const LETTERS: usize = 30;

struct Box {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// Returns the drawing of a graph, with inputs on the left and targets on the right.
pub fn draw_graph(graph: &Graph) -> Markup {
    let places = layout::place_nodes(graph);
    let (boxes, width, height) = place_boxes(graph, &places);
    let around = view_box(graph, &boxes, width, height);
    let flows = graph.nodes.iter().filter(|n| n.kind == NodeKind::Flow).count();
    html! {
        svg.flows role="img" aria-labelledby="flows-title flows-desc" xmlns="http://www.w3.org/2000/svg"
            width=(px(around.width)) height=(px(around.height))
            viewBox={ (px(around.x)) " " (px(around.y)) " " (px(around.width)) " " (px(around.height)) } {
            title id="flows-title" { "Flows, what they read and what they write" }
            desc id="flows-desc" { (description(graph, flows)) }
            @for edge in &graph.edges {
                path.edge.lookup[edge.link == EdgeKind::Lookup].call[edge.link == EdgeKind::Call]
                    d=(curve(&boxes[edge.from], &boxes[edge.to])) {
                    title {
                        (graph.nodes[edge.from].name) " → " (graph.nodes[edge.to].name)
                        @if let Some(label) = &edge.label { " (" (label) ")" }
                    }
                }
            }
            @for (node, at) in graph.nodes.iter().zip(&boxes) { (draw_node(node, at)) }
        }
    }
}

/// Returns a description of the drawing for screen readers.
fn description(graph: &Graph, flows: usize) -> String {
    let name = |place: usize| graph.nodes[place].name.as_str();
    let edges: Vec<String> =
        graph.edges.iter().map(|e| format!("{} to {}", name(e.from), name(e.to))).collect();
    format!("{flows} flows. {}.", edges.join("; "))
}

fn px(n: f64) -> String {
    format!("{}", (n * 10.0).round() / 10.0)
}

/// Returns the lines of a node: its name, its notes, its server.
fn lines(node: &Node) -> Vec<String> {
    let server = node.server.as_ref().map(|s| format!("on {s}"));
    let all = std::iter::once(&node.name).chain(&node.notes).chain(&server);
    all.map(|line| shorten(line)).collect()
}

fn shorten(line: &str) -> String {
    match line.chars().count() > LETTERS {
        true => line.chars().take(LETTERS - 1).chain(['…']).collect(),
        false => line.to_owned(),
    }
}

/// Returns the width of a line in letters. Letters of some scripts count as two.
fn count_letters(line: &str) -> f64 {
    line.chars().map(|c| if u32::from(c) >= 0x1100 { 2.0 } else { 1.0 }).sum()
}

fn place_boxes(graph: &Graph, places: &[Place]) -> (Vec<Box>, f64, f64) {
    let columns = places.iter().map(|p| p.column + 1).max().unwrap_or(0);
    let mut sizes = Vec::new();
    for node in &graph.nodes {
        let lines = lines(node);
        let widest = lines.iter().map(|l| count_letters(l)).fold(6.0, f64::max);
        sizes.push((widest * LETTER + 4.0 * PADDING, lines.len() as f64 * LINE + 2.0 * PADDING));
    }
    let in_column = |column: usize| {
        let mut nodes: Vec<usize> =
            (0..places.len()).filter(|n| places[*n].column == column).collect();
        nodes.sort_by_key(|n| places[*n].row);
        nodes
    };
    let height_of = |nodes: &[usize]| {
        nodes.iter().map(|n| sizes[*n].1).sum::<f64>() + GAP * nodes.len().saturating_sub(1) as f64
    };
    let height = (0..columns).map(|c| height_of(&in_column(c))).fold(0.0, f64::max);
    let mut boxes: Vec<Box> = sizes
        .iter()
        .map(|(width, height)| Box { x: 0.0, y: 0.0, width: *width, height: *height })
        .collect();
    let mut x = MARGIN;
    for column in 0..columns {
        let nodes = in_column(column);
        let width = nodes.iter().map(|n| sizes[*n].0).fold(0.0, f64::max);
        let mut y = MARGIN + (height - height_of(&nodes)) / 2.0;
        for node in nodes {
            boxes[node] = Box { x, y, width, height: sizes[node].1 };
            y += sizes[node].1 + GAP;
        }
        x += width + BETWEEN;
    }
    (boxes, (x - BETWEEN + MARGIN).max(2.0 * MARGIN), height + 2.0 * MARGIN)
}

/// Returns the part of the plane that the drawing shows: all boxes, and the curves that leave the
/// boxes' columns, as those of a cycle do.
fn view_box(graph: &Graph, boxes: &[Box], width: f64, height: f64) -> Box {
    let (mut left, mut right) = (0.0, width);
    for edge in &graph.edges {
        // A curve lies within its control points.
        let points = control_points(&boxes[edge.from], &boxes[edge.to]);
        for x in [points[0], points[2], points[4], points[6]] {
            left = f64::min(left, x - MARGIN);
            right = f64::max(right, x + MARGIN);
        }
    }
    Box { x: left, y: 0.0, width: right - left, height }
}

/// Returns the four control points of the curve from the right side of one box to the left side of
/// another: x and y of each.
fn control_points(from: &Box, to: &Box) -> [f64; 8] {
    let (x1, y1) = (from.x + from.width, from.y + from.height / 2.0);
    let (x2, y2) = (to.x, to.y + to.height / 2.0);
    let reach = ((x2 - x1) / 2.0).abs().clamp(24.0, 90.0);
    [x1, y1, x1 + reach, y1, x2 - reach, y2, x2, y2]
}

/// Returns a curve from the right side of one box to the left side of another.
fn curve(from: &Box, to: &Box) -> String {
    let points = control_points(from, to).map(px);
    format!(
        "M{} {}C{} {} {} {} {} {}",
        points[0], points[1], points[2], points[3], points[4], points[5], points[6], points[7]
    )
}

fn draw_node(node: &Node, at: &Box) -> Markup {
    let class = match node.kind {
        NodeKind::Table => "table",
        NodeKind::Flow => "flow",
        NodeKind::Function => "function",
        NodeKind::External => "external",
    };
    let health = node.health.map_or("", Health::name);
    let round = if node.kind == NodeKind::Flow { 14.0 } else { 4.0 };
    html! {
        g class={ "node " (class) " " (health) } {
            title { (node.name) @for note in &node.notes { ", " (note) } }
            rect x=(px(at.x)) y=(px(at.y)) width=(px(at.width)) height=(px(at.height)) rx=(px(round)) {}
            @for (n, line) in lines(node).iter().enumerate() {
                text.note[n > 0] x=(px(at.x + at.width / 2.0))
                    y=(px(at.y + PADDING + LINE * (n as f64 + 0.75))) { (line) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_do_not_overlap_and_lie_inside() {
        let mut graph = Graph::default();
        for n in 0..30 {
            graph.node_index(NodeKind::Table, &"x".repeat(n + 1), None);
            graph.add_edge(n, (n * 5 + 1) % 30, EdgeKind::Source, None);
        }
        let (boxes, width, height) = place_boxes(&graph, &layout::place_nodes(&graph));
        for (n, a) in boxes.iter().enumerate() {
            assert!(a.x >= 0.0 && a.y >= 0.0 && a.x + a.width <= width && a.y + a.height <= height);
            for b in &boxes[n + 1..] {
                let apart = a.x + a.width <= b.x
                    || b.x + b.width <= a.x
                    || a.y + a.height <= b.y
                    || b.y + b.height <= a.y;
                assert!(apart);
            }
        }
    }

    /// The numbers of an attribute in each place where it occurs.
    fn numbers(text: &str, attribute: &str) -> Vec<Vec<f64>> {
        let start = format!(" {attribute}=\"");
        let values = text.split(&start).skip(1).filter_map(|rest| rest.split('"').next());
        values
            .map(|value| {
                let parts = value.split(|c: char| !c.is_ascii_digit() && c != '.' && c != '-');
                parts.filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect()
            })
            .collect()
    }

    /// Everything that is drawn lies inside of the view box, which has the drawing's size.
    fn nothing_is_cut_off(graph: &Graph) {
        let text = draw_graph(graph).into_string();
        let view = &numbers(&text, "viewBox")[0];
        let (left, top, right, bottom) = (view[0], view[1], view[0] + view[2], view[1] + view[3]);
        assert_eq!(
            (numbers(&text, "width")[0][0], numbers(&text, "height")[0][0]),
            (view[2], view[3])
        );
        let inside = |x: f64, y: f64| {
            let slack = 0.2; // coordinates are rounded
            assert!(x >= left - slack && x <= right + slack, "{x} {view:?}");
            assert!(y >= top - slack && y <= bottom + slack, "{y} {view:?}");
        };
        let rectangles: Vec<&str> = text.split("<rect").skip(1).collect();
        assert_eq!(rectangles.len(), graph.nodes.len());
        for rectangle in rectangles {
            let one = |name: &str| numbers(rectangle, name)[0][0];
            inside(one("x"), one("y"));
            inside(one("x") + one("width"), one("y") + one("height"));
        }
        let curves = numbers(&text, "d");
        assert_eq!(curves.len(), graph.edges.len());
        for curve in curves {
            curve.chunks(2).for_each(|point| inside(point[0], point[1]));
        }
    }

    fn flow_over(graph: &mut Graph, source: &str, flow: &str, target: &str) {
        let source = graph.node_index(NodeKind::Table, source, None);
        let flow = graph.node_index(NodeKind::Flow, flow, None);
        let target = graph.node_index(NodeKind::Table, target, None);
        graph.add_edge(source, flow, EdgeKind::Source, None);
        graph.add_edge(flow, target, EdgeKind::Target, None);
    }

    #[test]
    fn a_long_chain_is_drawn_to_its_end() {
        let mut graph = Graph::default();
        for n in 0..40 {
            let (source, target) = (format!("public.t{n}"), format!("public.t{}", n + 1));
            flow_over(&mut graph, &source, &format!("flow {n} of a long chain"), &target);
        }
        assert_eq!(layout::place_nodes(&graph).iter().map(|p| p.column).max(), Some(80));
        nothing_is_cut_off(&graph);
    }

    #[test]
    fn a_wide_fan_is_drawn_to_its_end() {
        let mut graph = Graph::default();
        for n in 0..40 {
            flow_over(&mut graph, "public.one", &format!("f{n}"), &format!("public.t{n}"));
        }
        for n in 0..40 {
            flow_over(&mut graph, &format!("public.t{n}"), "all", "public.all");
        }
        assert!(layout::place_nodes(&graph).iter().any(|p| p.row == 39));
        nothing_is_cut_off(&graph);
    }

    #[test]
    fn the_edges_of_a_cycle_are_drawn_whole() {
        let mut graph = Graph::default();
        flow_over(&mut graph, "a", "there", "b");
        flow_over(&mut graph, "b", "back", "a");
        flow_over(&mut graph, "self", "self", "self");
        nothing_is_cut_off(&graph);
    }

    #[test]
    fn names_are_escaped_and_long_ones_shortened() {
        let mut graph = Graph::default();
        graph.node_index(NodeKind::Flow, "<b>&\"'", None);
        graph.node_index(NodeKind::Table, &"é".repeat(90), None);
        let text = draw_graph(&graph).into_string();
        assert!(text.contains("&lt;b&gt;&amp;&quot;'") && !text.contains("<b>"), "{text}");
        assert!(text.contains(&format!("{}…", "é".repeat(LETTERS - 1))));
    }
}
