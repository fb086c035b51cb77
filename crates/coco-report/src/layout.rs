//! Places the nodes of a graph in columns, from inputs to targets.

use std::collections::BTreeSet;

use super::graph::Graph;

/// The column of a node, and its row in the column, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub column: usize,
    pub row: usize,
}

/// Number of sweeps through the columns, in alternating directions, to reduce crossings of edges.
const SWEEPS: usize = 8;

/// Returns a place for each node. Every edge leads to a later column, except edges that close a
/// cycle.
pub fn place_nodes(graph: &Graph) -> Vec<Place> {
    let count = graph.nodes.len();
    let edges = acyclic(graph);
    let column = columns(count, &edges);
    let last = column.iter().copied().max().unwrap_or(0);
    let mut order: Vec<Vec<usize>> = vec![vec![]; last + 1];
    for (node, column) in column.iter().enumerate() {
        order[*column].push(node);
    }
    // A node is placed at the mean height of its neighbors, in the columns before it and then after
    // it.
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for step in 1..=last {
            let at = if forth { step } else { last - step };
            let height = heights(&order, count);
            let middle = |node: &usize| {
                let beside: Vec<f64> = edges
                    .iter()
                    .filter_map(|(from, to)| match forth {
                        true => (to == node).then_some(height[*from]),
                        false => (from == node).then_some(height[*to]),
                    })
                    .collect();
                match beside.len() {
                    0 => height[*node],
                    n => beside.iter().sum::<f64>() / n as f64,
                }
            };
            let mut column: Vec<(f64, usize)> =
                order[at].iter().map(|node| (middle(node), *node)).collect();
            column.sort_by(|a, b| a.0.total_cmp(&b.0));
            order[at] = column.into_iter().map(|(_, node)| node).collect();
        }
    }
    let mut place_nodes = vec![Place { column: 0, row: 0 }; count];
    for (column, nodes) in order.iter().enumerate() {
        for (row, node) in nodes.iter().enumerate() {
            place_nodes[*node] = Place { column, row };
        }
    }
    place_nodes
}

/// Returns the vertical position of each node, as a fraction of its column.
fn heights(order: &[Vec<usize>], count: usize) -> Vec<f64> {
    let mut heights = vec![0.0; count];
    for column in order {
        for (row, node) in column.iter().enumerate() {
            heights[*node] = (row as f64 + 0.5) / column.len() as f64;
        }
    }
    heights
}

/// Returns the edges except self-loops and edges that close a cycle.
fn acyclic(graph: &Graph) -> Vec<(usize, usize)> {
    let count = graph.nodes.len();
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
    for edge in graph.edges.iter().filter(|e| e.from < count && e.to < count && e.from != e.to) {
        after[edge.from].insert(edge.to);
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        New,
        Open,
        Done,
    }
    let mut seen = vec![Seen::New; count];
    let mut kept = Vec::new();
    for start in 0..count {
        if seen[start] != Seen::New {
            continue;
        }
        seen[start] = Seen::Open;
        // Each node with its unvisited successors.
        let mut path = vec![(start, after[start].iter())];
        while let Some((node, rest)) = path.last_mut() {
            let node = *node;
            match rest.next() {
                None => {
                    seen[node] = Seen::Done;
                    path.pop();
                }
                Some(next) if seen[*next] == Seen::Open => {}
                Some(next) => {
                    kept.push((node, *next));
                    if seen[*next] == Seen::New {
                        seen[*next] = Seen::Open;
                        path.push((*next, after[*next].iter()));
                    }
                }
            }
        }
    }
    kept
}

/// Returns the column of each node: the one after its last predecessor. A node without predecessors
/// is placed directly before its first successor.
fn columns(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut column = vec![0; count];
    // Without cycles, the longest path has fewer edges than there are nodes.
    for _ in 0..count {
        let mut moved = false;
        for (from, to) in edges {
            if column[*to] <= column[*from] {
                column[*to] = column[*from] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    for node in 0..count {
        let first = edges.iter().filter(|(from, _)| *from == node).map(|(_, to)| column[*to]).min();
        let is_start = !edges.iter().any(|(_, to)| *to == node);
        if let Some(first) = first.filter(|_| is_start) {
            column[node] = first - 1;
        }
    }
    column
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{EdgeKind, NodeKind};

    fn graph(nodes: usize, edges: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::default();
        for n in 0..nodes {
            graph.node_index(NodeKind::Table, &n.to_string(), None);
        }
        for (from, to) in edges {
            graph.add_edge(*from, *to, EdgeKind::Source, None);
        }
        graph
    }

    fn column_of(graph: &Graph) -> Vec<usize> {
        place_nodes(graph).iter().map(|p| p.column).collect()
    }

    fn crossings(graph: &Graph) -> usize {
        let at = place_nodes(graph);
        let edges: Vec<(Place, Place)> =
            graph.edges.iter().map(|e| (at[e.from], at[e.to])).collect();
        let cross = |a: &(Place, Place), b: &(Place, Place)| {
            a.0.column == b.0.column && (a.0.row < b.0.row) && (a.1.row > b.1.row)
        };
        edges.iter().map(|a| edges.iter().filter(|b| cross(a, b)).count()).sum()
    }

    #[test]
    fn edges_lead_onwards() {
        assert_eq!(column_of(&graph(4, &[(0, 1), (1, 2), (0, 2), (2, 3)])), [0, 1, 2, 3]);
        // A lookup of the last flow is placed before that flow.
        assert_eq!(column_of(&graph(4, &[(0, 1), (1, 2), (3, 2)])), [0, 1, 2, 1]);
        assert_eq!(column_of(&graph(2, &[])), [0, 0]);
        assert!(place_nodes(&graph(0, &[])).is_empty());
    }

    #[test]
    fn circles_and_loops_end() {
        let place_nodes = place_nodes(&graph(3, &[(0, 1), (1, 2), (2, 0), (1, 1)]));
        assert_eq!(place_nodes.len(), 3);
        assert!(place_nodes.iter().all(|p| p.column < 3));
    }

    #[test]
    fn every_place_is_taken_once() {
        let edges: Vec<(usize, usize)> =
            (0..40).flat_map(|n| [(n, (n * 7 + 3) % 40), (n, (n * 3 + 1) % 40)]).collect();
        let mut place_nodes = place_nodes(&graph(40, &edges));
        place_nodes.sort_by_key(|p| (p.column, p.row));
        place_nodes.dedup();
        assert_eq!(place_nodes.len(), 40);
    }

    #[test]
    fn what_can_be_drawn_without_crossings_is() {
        // Two chains, declared crosswise.
        assert_eq!(crossings(&graph(6, &[(0, 3), (1, 2), (3, 4), (2, 5)])), 0);
        assert_eq!(crossings(&graph(7, &[(0, 6), (1, 5), (2, 4), (3, 4), (4, 5), (5, 6)])), 0);
    }

    #[test]
    fn a_thousand_nodes_take_no_time_to_speak_of() {
        let edges: Vec<(usize, usize)> = (0..999).map(|n| (n, n + 1)).collect();
        assert_eq!(column_of(&graph(1000, &edges))[999], 999);
    }
}
