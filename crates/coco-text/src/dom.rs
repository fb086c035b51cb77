//! The tree of an HTML document: a list of nodes, so that no depth of nesting needs recursion.

use html5ever::interface::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::{StrTendril, TendrilSink};
use html5ever::{Attribute, ParseOpts, QualName, parse_document};
use std::borrow::Cow;
use std::cell::{Ref, RefCell};

/// The number of a node.
pub type NodeId = usize;

const DOCUMENT: NodeId = 0;

/// What a node is.
#[derive(Debug)]
pub enum NodeKind {
    Text(String),
    Element(Element),
    /// The document, a comment, or the content of a template.
    Other,
}

#[derive(Debug)]
pub struct Element {
    name: QualName,
    attributes: Vec<Attribute>,
    /// The root of a template's content, which is no part of the document.
    template: Option<NodeId>,
}

impl Element {
    pub fn name(&self) -> &str {
        &self.name.local
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|a| &*a.name.local == name)?;
        Some(&found.value)
    }
}

#[derive(Debug)]
struct Node {
    kind: NodeKind,
    parent: Option<NodeId>,
    children: Vec<NodeId>,
}

/// A step of a walk through the tree.
#[derive(Clone, Copy, Debug)]
pub enum Edge {
    Open(NodeId),
    Close(NodeId),
}

#[derive(Debug)]
pub struct Dom {
    nodes: Vec<Node>,
    /// Of an element that is no longer in the list.
    no_name: QualName,
}

impl Dom {
    pub fn parse(document: &str) -> Dom {
        let no_name = QualName::new(None, html5ever::ns!(), html5ever::local_name!(""));
        let mut dom = Dom { nodes: Vec::new(), no_name };
        dom.create(NodeKind::Other);
        parse_document(Sink(RefCell::new(dom)), ParseOpts::default()).one(document)
    }

    pub fn root(&self) -> NodeId {
        DOCUMENT
    }

    pub fn kind(&self, id: NodeId) -> &NodeKind {
        self.nodes.get(id).map_or(&NodeKind::Other, |node| &node.kind)
    }

    pub fn element(&self, id: NodeId) -> Option<&Element> {
        match self.kind(id) {
            NodeKind::Element(element) => Some(element),
            _ => None,
        }
    }

    /// Returns the nodes below a node and the node itself, each when it begins and when it ends.
    pub fn walk(&self, root: NodeId) -> impl Iterator<Item = Edge> {
        let mut left = vec![Edge::Open(root)];
        std::iter::from_fn(move || {
            let edge = left.pop()?;
            if let Edge::Open(id) = edge {
                left.push(Edge::Close(id));
                let children = self.nodes.get(id).map_or(&[][..], |node| &node.children);
                left.extend(children.iter().rev().map(|child| Edge::Open(*child)));
            }
            Some(edge)
        })
    }

    /// Returns the elements of the document for which `is_wanted` holds, in their order.
    pub fn elements(&self, is_wanted: impl Fn(&Element) -> bool) -> impl Iterator<Item = NodeId> {
        self.walk(DOCUMENT).filter_map(move |edge| match edge {
            Edge::Open(id) => self.element(id).filter(|e| is_wanted(e)).map(|_| id),
            Edge::Close(_) => None,
        })
    }

    fn create(&mut self, kind: NodeKind) -> NodeId {
        self.nodes.push(Node { kind, parent: None, children: Vec::new() });
        self.nodes.len() - 1
    }

    fn detach(&mut self, id: NodeId) {
        let Some(parent) = self.nodes[id].parent.take() else { return };
        let children = &mut self.nodes[parent].children;
        // Nodes that are moved are mostly the last ones.
        if let Some(place) = children.iter().rposition(|child| *child == id) {
            children.remove(place);
        }
    }

    /// Inserts a node or a text as the child of a node at a place.
    fn insert(&mut self, parent: NodeId, place: usize, child: NodeOrText<NodeId>) {
        let id = match child {
            NodeOrText::AppendNode(id) => id,
            NodeOrText::AppendText(text) => {
                let before = place.checked_sub(1).map(|n| self.nodes[parent].children[n]);
                if let Some(NodeKind::Text(known)) = before.map(|id| &mut self.nodes[id].kind) {
                    known.push_str(&text);
                    return;
                }
                self.create(NodeKind::Text(text.to_string()))
            }
        };
        self.nodes[id].parent = Some(parent);
        self.nodes[parent].children.insert(place, id);
    }
}

/// Builds the tree for the parser.
struct Sink(RefCell<Dom>);

impl TreeSink for Sink {
    type Handle = NodeId;
    type Output = Dom;
    type ElemName<'a> = Ref<'a, QualName>;

    fn finish(self) -> Dom {
        self.0.into_inner()
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> NodeId {
        DOCUMENT
    }

    fn elem_name<'a>(&'a self, target: &'a NodeId) -> Ref<'a, QualName> {
        Ref::map(self.0.borrow(), |dom| dom.element(*target).map_or(&dom.no_name, |e| &e.name))
    }

    fn create_element(
        &self,
        name: QualName,
        attributes: Vec<Attribute>,
        flags: ElementFlags,
    ) -> NodeId {
        let mut dom = self.0.borrow_mut();
        let template = flags.template.then(|| dom.create(NodeKind::Other));
        dom.create(NodeKind::Element(Element { name, attributes, template }))
    }

    fn create_comment(&self, _: StrTendril) -> NodeId {
        self.0.borrow_mut().create(NodeKind::Other)
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> NodeId {
        self.0.borrow_mut().create(NodeKind::Other)
    }

    fn append(&self, parent: &NodeId, child: NodeOrText<NodeId>) {
        let mut dom = self.0.borrow_mut();
        if let NodeOrText::AppendNode(id) = &child {
            dom.detach(*id);
        }
        let place = dom.nodes[*parent].children.len();
        dom.insert(*parent, place, child);
    }

    fn append_based_on_parent_node(
        &self,
        element: &NodeId,
        previous: &NodeId,
        child: NodeOrText<NodeId>,
    ) {
        let has_parent = self.0.borrow().nodes[*element].parent.is_some();
        match has_parent {
            true => self.append_before_sibling(element, child),
            false => self.append(previous, child),
        }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    fn get_template_contents(&self, target: &NodeId) -> NodeId {
        let dom = self.0.borrow();
        dom.element(*target).and_then(|e| e.template).unwrap_or(*target)
    }

    fn same_node(&self, x: &NodeId, y: &NodeId) -> bool {
        x == y
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &NodeId, child: NodeOrText<NodeId>) {
        let mut dom = self.0.borrow_mut();
        if let NodeOrText::AppendNode(id) = &child {
            dom.detach(*id);
        }
        let Some(parent) = dom.nodes[*sibling].parent else { return };
        let siblings = &dom.nodes[parent].children;
        let place = siblings.iter().rposition(|id| id == sibling).unwrap_or(siblings.len());
        dom.insert(parent, place, child);
    }

    fn add_attrs_if_missing(&self, target: &NodeId, attributes: Vec<Attribute>) {
        let mut dom = self.0.borrow_mut();
        let NodeKind::Element(element) = &mut dom.nodes[*target].kind else { return };
        for attribute in attributes {
            if element.attributes.iter().all(|known| known.name != attribute.name) {
                element.attributes.push(attribute);
            }
        }
    }

    fn remove_from_parent(&self, target: &NodeId) {
        self.0.borrow_mut().detach(*target);
    }

    fn reparent_children(&self, node: &NodeId, new_parent: &NodeId) {
        let mut dom = self.0.borrow_mut();
        let children = std::mem::take(&mut dom.nodes[*node].children);
        for child in &children {
            dom.nodes[*child].parent = Some(*new_parent);
        }
        dom.nodes[*new_parent].children.extend(children);
    }
}
