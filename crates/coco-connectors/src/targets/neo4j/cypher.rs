//! The statements, and names in them. Values are always parameters: `$rows` is a list of rows, each
//! a list of the values of all columns; `$keys` one of keys, each a list of the key columns' values.

use super::mapping::{ENDPOINT, Endpoint, Field, GraphElement, Mapping};

/// How many nodes or relationships are removed at once when a target goes.
const REMOVED_AT_ONCE: usize = 1000;

/// A constraint, and the statement that makes it where it is missing.
#[derive(Debug, PartialEq)]
pub struct Constraint {
    pub name: String,
    pub create: String,
    /// The label of nodes that it is of.
    pub label: Option<String>,
}

/// A name in backticks. Cypher reads `\uXXXX` as a character wherever it stands, so that a name
/// could end its own quotes: a backslash is written as such an escape itself.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\u005C").replace('`', "``"))
}

/// Writes `$rows`, in this order: where that is more than one statement, in one transaction.
pub fn upsert(mapping: &Mapping) -> Vec<String> {
    let marker = quote(ENDPOINT);
    match &mapping.element {
        GraphElement::Node { label } => vec![format!(
            "UNWIND $rows AS row\nMERGE {}\nREMOVE n:{marker}{}",
            node("n", label, &mapping.key),
            set("n", &mapping.others),
        )],
        GraphElement::Relationship { kind, from, to } => {
            // A relationship cannot change its ends: the one that has others now goes first.
            let moved = format!(
                "UNWIND $rows AS row\nMATCH (x)-{}->(y)\nWHERE NOT coalesce({} AND {}, false)\n{}",
                relationship(kind, &mapping.key),
                is_end("x", from),
                is_end("y", to),
                take("r", "collect(x) + collect(y)"),
            );
            let written = format!(
                "UNWIND $rows AS row\n\
                 MERGE {} ON CREATE SET x:{marker}\nMERGE {} ON CREATE SET y:{marker}\n\
                 MERGE (x)-{}->(y){}",
                node("x", &from.label, &from.key),
                node("y", &to.label, &to.key),
                relationship(kind, &mapping.key),
                set("r", &mapping.others),
            );
            vec![moved, written]
        }
    }
}

/// Takes away what `$keys` name.
pub fn delete(mapping: &Mapping) -> String {
    // In a key the columns stand in the key's own order.
    let by_key = |(place, field): (usize, &Field)| Field { column: place, ..field.clone() };
    let key: Vec<Field> = mapping.key.iter().enumerate().map(by_key).collect();
    let found = match &mapping.element {
        GraphElement::Node { label } => {
            format!("MATCH {}\n{}", node("n", label, &key), take_nodes(""))
        }
        GraphElement::Relationship { kind, .. } => format!(
            "MATCH (x)-{}->(y)\n{}",
            relationship(kind, &key),
            take("r", "collect(x) + collect(y)")
        ),
    };
    format!("UNWIND $keys AS row\n{found}")
}

/// Takes away some of all that is in the target, and returns how many as `number`.
pub fn clear(mapping: &Mapping) -> String {
    match &mapping.element {
        GraphElement::Node { label } => format!(
            "MATCH (n:{})\n{}",
            quote(label),
            take_nodes(&format!("WITH n LIMIT {REMOVED_AT_ONCE}\n"))
        ),
        GraphElement::Relationship { .. } => format!(
            "{}\nWITH x, r, y LIMIT {REMOVED_AT_ONCE}\n{}",
            all_relationships(mapping),
            take("r", "collect(x) + collect(y)")
        ),
    }
}

/// Returns as `number` whether anything is in the target: 0 or 1.
pub fn any(mapping: &Mapping) -> String {
    match &mapping.element {
        GraphElement::Node { label } => format!(
            "MATCH (n:{}) WHERE NOT n:{} WITH n LIMIT 1 RETURN count(n) AS number",
            quote(label),
            quote(ENDPOINT)
        ),
        GraphElement::Relationship { .. } => {
            format!("{} WITH r LIMIT 1 RETURN count(r) AS number", all_relationships(mapping))
        }
    }
}

/// Returns as `number` whether any node has this label, if only as an end: 0 or 1.
pub fn any_labelled(label: &str) -> String {
    format!("MATCH (n:{}) WITH n LIMIT 1 RETURN count(n) AS number", quote(label))
}

/// What makes keys unique, and finds rows by them.
pub fn constraints(mapping: &Mapping) -> Vec<Constraint> {
    match &mapping.element {
        GraphElement::Node { label } => vec![of_nodes(label, &mapping.key)],
        GraphElement::Relationship { kind, from, to } => {
            let pattern = format!("()-[e:{}]-()", quote(kind));
            let mut all = vec![constraint(&format!("-{kind}-"), &pattern, &mapping.key, None)];
            for end in [from, to] {
                let one = of_nodes(&end.label, &end.key);
                if !all.contains(&one) {
                    all.push(one);
                }
            }
            all
        }
    }
}

pub fn drop(constraint: &Constraint) -> String {
    format!("DROP CONSTRAINT {} IF EXISTS", quote(&constraint.name))
}

fn of_nodes(label: &str, key: &[Field]) -> Constraint {
    constraint(label, &format!("(e:{})", quote(label)), key, Some(label.to_owned()))
}

/// The same for the same properties in whatever order: nodes and relationships share them.
fn constraint(of: &str, pattern: &str, key: &[Field], label: Option<String>) -> Constraint {
    let mut names: Vec<&str> = key.iter().map(|f| f.property.as_str()).collect();
    names.sort_unstable();
    let properties: Vec<String> = names.iter().map(|p| format!("e.{}", quote(p))).collect();
    let name = format!("coco: {of} ({})", names.join(", "));
    let create = format!(
        "CREATE CONSTRAINT {} IF NOT EXISTS FOR {pattern} REQUIRE ({}) IS UNIQUE",
        quote(&name),
        properties.join(", ")
    );
    Constraint { name, create, label }
}

/// `(n:Label {id: row[0]})`
fn node(variable: &str, label: &str, key: &[Field]) -> String {
    format!("({variable}:{} {})", quote(label), properties(key))
}

/// `[r:TYPE {id: row[0]}]`
fn relationship(kind: &str, key: &[Field]) -> String {
    format!("[r:{} {}]", quote(kind), properties(key))
}

fn properties(fields: &[Field]) -> String {
    let each = |f: &Field| format!("{}: row[{}]", quote(&f.property), f.column);
    format!("{{{}}}", fields.iter().map(each).collect::<Vec<_>>().join(", "))
}

/// A value that is null takes the property away.
fn set(variable: &str, fields: &[Field]) -> String {
    let each = |f: &Field| format!("{variable}.{} = row[{}]", quote(&f.property), f.column);
    match fields {
        [] => String::new(),
        _ => format!("\nSET {}", fields.iter().map(each).collect::<Vec<_>>().join(", ")),
    }
}

fn is_end(variable: &str, end: &Endpoint) -> String {
    let mut all = vec![format!("{variable}:{}", quote(&end.label))];
    let each = |f: &Field| format!("{variable}.{} = row[{}]", quote(&f.property), f.column);
    all.extend(end.key.iter().map(each));
    all.join(" AND ")
}

/// Those that have the target's key: others of the type and between such nodes are not its own.
fn all_relationships(mapping: &Mapping) -> String {
    let GraphElement::Relationship { kind, from, to } = &mapping.element else {
        return String::new();
    };
    let keyed: Vec<String> =
        mapping.key.iter().map(|f| format!("r.{} IS NOT NULL", quote(&f.property))).collect();
    format!(
        "MATCH (x:{})-[r:{}]->(y:{})\nWHERE {}",
        quote(&from.label),
        quote(kind),
        quote(&to.label),
        keyed.join(" AND ")
    )
}

/// Deletes nodes `n` with their relationships. A node that is an end alone is no row's.
fn take_nodes(limit: &str) -> String {
    let marker = quote(ENDPOINT);
    format!(
        "WHERE NOT n:{marker}\n{limit}OPTIONAL MATCH (n)--(far:{marker})\n{}",
        take("DISTINCT n", "collect(DISTINCT far)")
    )
}

/// Deletes what is matched, and of the nodes it touched those that are ends of nothing any more.
/// All is collected first: a node is looked at when the last of its relationships has gone.
fn take(what: &str, touched: &str) -> String {
    format!(
        "WITH collect({what}) AS gone, {touched} AS touched\n\
         WITH gone, size(gone) AS removed, [n IN touched WHERE n:{marker}] AS ends\n\
         FOREACH (e IN gone | DETACH DELETE e)\n\
         FOREACH (n IN [e IN ends WHERE NOT EXISTS {{ (e)--() }}] | DELETE n)\n\
         RETURN removed AS number",
        marker = quote(ENDPOINT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_its_quotes() {
        assert_eq!(quote("plain"), "`plain`");
        assert_eq!(quote("a`b"), "`a``b`");
        assert_eq!(quote("``"), "``````");
        assert_eq!(quote(r"a\u0060b"), r"`a\u005Cu0060b`");
        assert_eq!(quote(r"\\u0060"), r"`\u005C\u005Cu0060`");
        assert_eq!(quote(r"a\b"), r"`a\u005Cb`");
    }

    #[test]
    fn a_constraint_is_the_same_in_whatever_order_its_properties_are_named() {
        let field = |property: &str| Field { column: 0, property: property.to_owned() };
        let (a, b) = (field("a"), field("b"));
        assert_eq!(of_nodes("L", &[a.clone(), b.clone()]), of_nodes("L", &[b, a]));
    }
}
