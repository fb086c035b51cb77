//! Flows as a graph: their inputs and their targets.

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// A relation of this database: a source, a lookup, a target, or several of these.
    Table,
    Flow,
    /// A memoized function.
    Function,
    /// An external target.
    External,
}

/// The health of a flow, as the diagrams show it.
///
/// Ordered by how much a flow needs attention: the flows that need it most come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// The flow is stopped until a user fixes the problem.
    Broken,
    /// Some items or targets fail; the rest continues.
    Failing,
    /// The target lags behind until a user, or the end of a restore, lets the flow continue.
    Stale,
    /// The flow is updated on request, and no change is known to be pending.
    Ready,
    /// Workers keep the flow up to date.
    Live,
}

impl Health {
    /// Returns the health for a state in `coco.status`.
    pub fn of_state(state: &str) -> Health {
        match state {
            "live" => Health::Live,
            "up to date" | "unknown" => Health::Ready,
            "behind" | "never updated" | "incomplete" | "paused" | "no worker" | "restoring" => {
                Health::Stale
            }
            "degraded" => Health::Failing,
            _ => Health::Broken,
        }
    }

    /// Reports whether nobody needs to look at the flow.
    pub fn is_well(self) -> bool {
        matches!(self, Health::Live | Health::Ready)
    }

    pub fn name(self) -> &'static str {
        match self {
            Health::Live => "live",
            Health::Ready => "ready",
            Health::Stale => "stale",
            Health::Failing => "failing",
            Health::Broken => "broken",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: NodeKind,
    pub name: String,
    /// Lines below the name.
    pub notes: Vec<String>,
    /// The health of a flow.
    pub health: Option<Health>,
    /// The server of an external target.
    pub server: Option<String>,
}

/// The kind of an edge. An edge leads from the object that is read to the one that reads it, or
/// from a flow to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    Source,
    Lookup,
    Call,
    Target,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Indexes in [`Graph::nodes`].
    pub from: usize,
    pub to: usize,
    pub link: EdgeKind,
    pub label: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

impl Graph {
    /// Returns the index of the node with this kind, name and server. Adds the node if it is
    /// missing.
    pub fn node_index(&mut self, kind: NodeKind, name: &str, server: Option<&str>) -> usize {
        let same = |n: &Node| n.kind == kind && n.name == name && n.server.as_deref() == server;
        self.nodes.iter().position(same).unwrap_or_else(|| {
            self.nodes.push(Node {
                kind,
                name: name.to_owned(),
                notes: vec![],
                health: None,
                server: server.map(str::to_owned),
            });
            self.nodes.len() - 1
        })
    }

    pub fn add_edge(&mut self, from: usize, to: usize, link: EdgeKind, label: Option<String>) {
        self.edges.push(Edge { from, to, link, label });
    }
}
