//! Writes a graph as Mermaid text, a flowchart format that documents and code hosts display.

use super::graph::{EdgeKind, Graph, Health, Node, NodeKind};

/// Returns the flowchart of a graph. It is valid Mermaid for any names.
pub fn flowchart(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    let mut servers: Vec<&str> = graph.nodes.iter().filter_map(|n| n.server.as_deref()).collect();
    servers.sort_unstable();
    servers.dedup();
    for (id, node) in graph.nodes.iter().enumerate().filter(|(_, n)| n.server.is_none()) {
        out.push_str(&format!("  {}\n", declared(id, node)));
    }
    for (number, server) in servers.iter().enumerate() {
        out.push_str(&format!("  subgraph s{number}[\"{}\"]\n", label(server)));
        let there = graph.nodes.iter().enumerate();
        for (id, node) in there.filter(|(_, n)| n.server.as_deref() == Some(server)) {
            out.push_str(&format!("    {}\n", declared(id, node)));
        }
        out.push_str("  end\n");
    }
    for edge in &graph.edges {
        let arrow = match edge.link {
            EdgeKind::Source | EdgeKind::Target => "-->",
            EdgeKind::Lookup => "-.->",
            EdgeKind::Call => "-.-",
        };
        let text = edge.label.as_ref().map_or(String::new(), |l| format!("|\"{}\"|", label(l)));
        out.push_str(&format!("  n{} {arrow}{text} n{}\n", edge.from, edge.to));
    }
    for (class, style) in CLASSES {
        let uses = |n: &Node| class_of(n) == class;
        if graph.nodes.iter().any(uses) {
            out.push_str(&format!("  classDef {class} {style}\n"));
        }
    }
    out
}

const CLASSES: [(&str, &str); 8] = [
    ("table", "fill:#e8edf3,stroke:#7a8ca3,color:#1d2733"),
    ("external", "fill:#efe8f7,stroke:#8f6bb8,color:#2b1b3d"),
    ("function", "fill:#fdf3d8,stroke:#b8913a,color:#3d2f0b"),
    ("live", "fill:#d8f0de,stroke:#2e8b4f,color:#0c2f18"),
    ("ready", "fill:#dcebfa,stroke:#3b78b5,color:#0d2844"),
    ("stale", "fill:#fff0b8,stroke:#b8860b,color:#3b2a00"),
    ("failing", "fill:#fddcc4,stroke:#c2560c,color:#3f1c03"),
    ("broken", "fill:#fadadd,stroke:#bf2f3b,color:#45090f"),
];

fn class_of(node: &Node) -> &'static str {
    match (node.kind, node.health) {
        (NodeKind::Flow, health) => health.unwrap_or(Health::Ready).name(),
        (NodeKind::Table, _) => "table",
        (NodeKind::External, _) => "external",
        (NodeKind::Function, _) => "function",
    }
}

/// Returns a node with its form, label and class.
fn declared(id: usize, node: &Node) -> String {
    let (open, close) = match node.kind {
        NodeKind::Table => ("[(", ")]"),
        NodeKind::Flow => ("([", "])"),
        NodeKind::Function => ("{{", "}}"),
        NodeKind::External => ("[/", "/]"),
    };
    let lines: Vec<String> =
        std::iter::once(&node.name).chain(&node.notes).map(|line| label(line)).collect();
    format!("n{id}{open}\"{}\"{close}:::{}", lines.join("<br/>"), class_of(node))
}

/// Returns a text for a quoted label. Characters other than letters, digits and a few harmless ones
/// become entities. So a name can neither end the quotes, nor be read as markup or a keyword.
fn label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => out.push(' '),
            ' ' | '_' | '.' | ',' | '-' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => out.push_str(&format!("#{};", u32::from(c))),
        }
    }
    // Mermaid requires a label.
    if out.trim().is_empty() { "#160;".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_its_quotes() {
        let mut graph = Graph::default();
        let table = graph.node_index(NodeKind::Table, "a\"] --> x\nend `b` <i>&#1;ü", None);
        let flow = graph.node_index(NodeKind::Flow, "end", None);
        graph.nodes[flow].health = Some(Health::Live);
        graph.add_edge(table, flow, EdgeKind::Source, Some("|".to_owned()));
        let text = flowchart(&graph);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "  n0[(\"a#34;#93; --#62; x end #96;b#96; #60;i#62;#38;#35;1#59;ü\")]:::table"
        );
        assert_eq!(lines[2], "  n1([\"end\"]):::live");
        assert_eq!(lines[3], "  n0 -->|\"#124;\"| n1");
        assert_eq!(lines.len(), 6, "{text}");
    }

    #[test]
    fn targets_on_a_server_stand_together() {
        let mut graph = Graph::default();
        let flow = graph.node_index(NodeKind::Flow, "f", None);
        for name in ["a", "b"] {
            let target = graph.node_index(NodeKind::External, name, Some("away"));
            graph.add_edge(flow, target, EdgeKind::Target, None);
        }
        let again = graph.node_index(NodeKind::External, "a", Some("away"));
        assert_eq!(again, 1);
        let text = flowchart(&graph);
        let inside =
            text.split("subgraph s0[\"away\"]").nth(1).and_then(|t| t.split("  end\n").next());
        assert_eq!(inside.map(|t| t.matches("external").count()), Some(2), "{text}");
    }
}
