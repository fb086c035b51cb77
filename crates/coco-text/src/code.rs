//! The structure of source code, from its syntax tree.

use coco_core::text::Language;
use coco_core::text::marks::{Mark, Marks};
use tree_sitter::{Node, Parser};

use crate::chunks::{Structure, Symbol};
use crate::language::TextLanguage;

/// How deep the tree is looked at. Deeper nodes are split as text.
const DEPTH: u32 = 200;

/// The level of line breaks, below that of all nodes.
const LINE_BREAK: u32 = 1;

/// Longest name of a symbol, in characters.
const NAME: usize = 200;

fn grammar(language: TextLanguage) -> Option<tree_sitter::Language> {
    Some(match language {
        TextLanguage::Plain | TextLanguage::Markdown => return None,
        TextLanguage::Bash => tree_sitter_bash::LANGUAGE.into(),
        TextLanguage::C => tree_sitter_c::LANGUAGE.into(),
        TextLanguage::Cpp => tree_sitter_cpp::LANGUAGE.into(),
        TextLanguage::CSharp => tree_sitter_c_sharp::LANGUAGE.into(),
        TextLanguage::Css => tree_sitter_css::LANGUAGE.into(),
        TextLanguage::Go => tree_sitter_go::LANGUAGE.into(),
        TextLanguage::Html => tree_sitter_html::LANGUAGE.into(),
        TextLanguage::Java => tree_sitter_java::LANGUAGE.into(),
        TextLanguage::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
        TextLanguage::Json => tree_sitter_json::LANGUAGE.into(),
        TextLanguage::Kotlin => tree_sitter_kotlin_ng::LANGUAGE.into(),
        TextLanguage::Php => tree_sitter_php::LANGUAGE_PHP.into(),
        TextLanguage::Python => tree_sitter_python::LANGUAGE.into(),
        TextLanguage::Ruby => tree_sitter_ruby::LANGUAGE.into(),
        TextLanguage::Rust => tree_sitter_rust::LANGUAGE.into(),
        TextLanguage::Sql => tree_sitter_sequel::LANGUAGE.into(),
        TextLanguage::Swift => tree_sitter_swift::LANGUAGE.into(),
        TextLanguage::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
        TextLanguage::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
        TextLanguage::Yaml => tree_sitter_yaml::LANGUAGE.into(),
    })
}

/// Returns the structure of a text. A text with errors of syntax has the structure of what the
/// parser could read.
pub(crate) fn structure(text: &str, language: TextLanguage) -> Structure {
    let mut parser = Parser::new();
    let tree = grammar(language)
        .filter(|grammar| parser.set_language(grammar).is_ok())
        .and_then(|_| parser.parse(text, None));
    let Some(tree) = tree else {
        return Structure { marks: Marks::new(text, Language::Plain), symbols: Vec::new() };
    };
    let (mut marks, mut symbols) = (line_breaks(text), Vec::new());
    let mut cursor = tree.walk();
    let mut depth = 0;
    'tree: loop {
        let node = cursor.node();
        let (start, end) = (node.start_byte(), node.end_byte());
        if start < end && text.is_char_boundary(start) && text.is_char_boundary(end) {
            let level = LINE_BREAK + 1 + DEPTH - depth;
            marks.push(Mark { level, start: with_indentation(text, start), end });
            if let Some(name) = symbol_name(node, text) {
                symbols.push(Symbol { start, end, name });
            }
        }
        if depth < DEPTH && cursor.goto_first_child() {
            depth += 1;
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                break 'tree;
            }
            depth -= 1;
        }
    }
    Structure { marks: Marks::from_nodes(marks), symbols }
}

/// Returns the start of a line if only its indentation comes before a place, otherwise the place.
fn with_indentation(text: &str, at: usize) -> usize {
    let before = text[..at].trim_end_matches([' ', '\t']);
    if before.is_empty() || before.ends_with('\n') { before.len() } else { at }
}

fn line_breaks(text: &str) -> Vec<Mark> {
    let breaks = text.match_indices('\n');
    breaks.map(|(at, _)| Mark { level: LINE_BREAK, start: at, end: at + 1 }).collect()
}

/// Words in the names of nodes that declare something, in all grammars.
const DECLARED: [&str; 16] = [
    "function",
    "method",
    "class",
    "struct",
    "enum",
    "trait",
    "interface",
    "module",
    "mod_",
    "namespace",
    "record",
    "object",
    "constructor",
    "protocol",
    "type_spec",
    "union",
];

/// Ends of the names of such nodes.
const ENDS: [&str; 6] =
    ["_declaration", "_definition", "_item", "_specifier", "_spec", "_signature"];

/// Returns the name of what a node declares.
fn symbol_name(node: Node<'_>, text: &str) -> Option<String> {
    if !node.is_named() {
        return None;
    }
    let field = |name: &str| node.child_by_field_name(name);
    let named = match node.kind() {
        "pair" | "block_mapping_pair" | "flow_pair" => field("key")?,
        "impl_item" => field("type")?,
        "rule_set" => node.named_child(0)?,
        "class" | "module" | "method" | "singleton_method" | "internal_module" => field("name")?,
        "variable_declarator" => {
            let value = field("value")?;
            let kinds = ["arrow_function", "function_expression", "class"];
            kinds.contains(&value.kind()).then(|| field("name"))??
        }
        // SQL: the first name after CREATE.
        kind if kind.starts_with("create_") => {
            let mut cursor = node.walk();
            node.named_children(&mut cursor).find(|child| child.kind() == "object_reference")?
        }
        kind if DECLARED.iter().any(|word| kind.contains(word))
            && ENDS.iter().any(|end| kind.ends_with(end)) =>
        {
            field("name").or_else(|| declared_by(node))?
        }
        _ => return None,
    };
    let name = text.get(named.byte_range())?.trim_matches(['"', '\'']);
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let name: String = name.chars().take(NAME).collect();
    (!name.is_empty()).then_some(name)
}

/// Returns the name in a declarator of C or C++, which may be within others.
fn declared_by(node: Node<'_>) -> Option<Node<'_>> {
    let mut inner = node.child_by_field_name("declarator")?;
    for _ in 0..DEPTH {
        match inner.child_by_field_name("declarator") {
            Some(next) => inner = next,
            None => break,
        }
    }
    Some(inner)
}

#[cfg(test)]
mod tests {
    use crate::chunks::split_by_structure;
    use crate::language::TextLanguage;

    fn rows(text: &str, size: usize, language: TextLanguage) -> Vec<String> {
        split_by_structure(text, size, 0, language, || {})
            .into_iter()
            .map(|c| {
                let path = c.path.join(" > ");
                format!("{}-{} {path}: {}", c.first_line, c.last_line, &text[c.start..c.end])
            })
            .collect()
    }

    #[test]
    fn functions_stay_whole_and_methods_have_a_path() {
        let text = "import os\n\nclass Sea:\n    def pull(self):\n        return 1\n\n    def follow(self):\n        return 2\n\ndef stone():\n    pass\n";
        assert_eq!(
            rows(text, 50, TextLanguage::Python),
            [
                "1-1 : import os",
                "3-3 Sea: class Sea:",
                "4-5 Sea > pull:     def pull(self):\n        return 1",
                "7-8 Sea > follow:     def follow(self):\n        return 2",
                "10-11 stone: def stone():\n    pass",
            ]
        );
    }

    /// Each language has a grammar that works with this version of the parser, and its symbols are found.
    #[test]
    fn all_languages_have_symbols() {
        use TextLanguage::*;
        for (language, text, symbol) in [
            (Bash, "f() {\n  echo 1\n}\n", "f"),
            (C, "int f(int x) {\n  return x;\n}\n", "f"),
            (Cpp, "namespace n {\nclass A {\n};\n}\n", "n"),
            (CSharp, "class A {\n  void F() { }\n}\n", "A"),
            (Css, "p a {\n  color: red;\n}\n", "p a"),
            (Go, "func f() {\n}\n", "f"),
            (Java, "class A {\n  void f() { }\n}\n", "A"),
            (JavaScript, "function f() {\n  return 1;\n}\n", "f"),
            (Kotlin, "class A {\n  fun f() { }\n}\n", "A"),
            (Php, "<?php\nfunction f() {\n}\n", ""),
            (Python, "def f():\n    pass\n", "f"),
            (Ruby, "class A\n  def f\n  end\nend\n", "A"),
            (Rust, "impl A {\n    fn f() {}\n}\n", "A"),
            (Sql, "CREATE TABLE t (\n  id int\n);\n", ""),
            (Swift, "class A {\n  func f() { }\n}\n", "A"),
            (TypeScript, "interface A {\n  x: number;\n}\n", "A"),
            (Tsx, "const A = () => <p>x</p>;\n", ""),
            (Html, "<p>one</p>\n<p>two</p>\n", ""),
            (Json, "{\"a\": {\"b\": 1}}\n", ""),
            (Yaml, "a:\n  b: 1\n", "a"),
        ] {
            assert!(
                super::grammar(language)
                    .is_some_and(|g| { tree_sitter::Parser::new().set_language(&g).is_ok() }),
                "{language:?}"
            );
            let found = rows(text, 1000, language);
            assert_eq!(found.len(), 1, "{language:?} {found:?}");
            let path = found[0].split(": ").next().and_then(|p| p.split_once(' ')).map(|p| p.1);
            assert_eq!(path, Some(symbol), "{language:?} {found:?}");
        }
    }

    #[test]
    fn broken_and_nested_code_is_split() {
        for text in
            ["{".repeat(50_000), "a+".repeat(20_000), "((((]]]]}}}}".repeat(500), "x".repeat(9_000)]
        {
            for language in [
                TextLanguage::Rust,
                TextLanguage::Json,
                TextLanguage::JavaScript,
                TextLanguage::Python,
            ] {
                let chunks = split_by_structure(&text, 1000, 100, language, || {});
                assert!(chunks.iter().all(|c| c.end - c.start <= 1000), "{language:?}");
                assert_eq!(chunks.last().map(|c| c.end), Some(text.len()), "{language:?}");
            }
        }
    }
}
