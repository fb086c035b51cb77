//! Flows as a graph: what feeds them, what they write to.

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// A relation of this database: a source, a lookup, a target, or several of these.
    Table,
    Flow,
    /// A memoised function.
    Function,
    /// A target outside this database.
    External,
}

/// How a flow is, for the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Kept up to date by workers.
    Live,
    /// Brought up to date when it is asked for.
    Ready,
    /// Something of it fails; the rest goes on.
    Failing,
    /// Nothing goes on until something is mended.
    Broken,
}

impl Health {
    /// That of a state of `coco.status`.
    pub fn of_state(state: &str) -> Health {
        match state {
            "live" => Health::Live,
            "idle" | "incomplete" | "paused" => Health::Ready,
            "degraded" => Health::Failing,
            _ => Health::Broken,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Health::Live => "live",
            Health::Ready => "ready",
            Health::Failing => "failing",
            Health::Broken => "broken",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: NodeKind,
    pub name: String,
    /// Lines below its name.
    pub notes: Vec<String>,
    /// Of a flow.
    pub health: Option<Health>,
    /// The server, of a target outside this database.
    pub server: Option<String>,
}

/// What an edge stands for. All lead from what is read to what reads or is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    Source,
    Lookup,
    Call,
    Target,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Places in [`Graph::nodes`].
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
    /// The node of this kind and name on this server, which is made where there is none.
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
