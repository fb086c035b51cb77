//! The Cypher statements, and the quoting of names. Values are always parameters: `$rows` is a list
//! of rows, each a list of the values of all columns. `$keys` is a list of keys, each a list of the
//! key columns' values.

use super::mapping::{ENDPOINT, Endpoint, Field, GraphElement, Mapping};

/// Number of nodes or relationships that one transaction removes when a target is removed.
const REMOVED_AT_ONCE: usize = 1000;

/// A constraint, and the statement that creates it if it is missing.
#[derive(Debug, PartialEq)]
pub struct Constraint {
    pub name: String,
    pub create: String,
    /// The label of its nodes.
    pub label: Option<String>,
}

/// Returns a name in backticks. Cypher reads `\uXXXX` as a character everywhere, so a name could
/// end its own quotes. A backslash is therefore written as such an escape.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\u005C").replace('`', "``"))
}

/// Returns the statements that write `$rows`. They must run in this order, in one transaction.
pub fn upsert(mapping: &Mapping) -> Vec<String> {
    let marker = quote(ENDPOINT);
    match &mapping.element {
        GraphElement::Node { label } => vec![format!(
            "UNWIND $rows AS row\nMERGE {}\nREMOVE n:{marker}{}",
            node("n", label, &mapping.key),
            set("n", &mapping.others),
        )],
        GraphElement::Relationship { kind, from, to } => {
            // A relationship cannot change its endpoints, so a relationship with other endpoints is
            // deleted first.
            let moved = format!(
                "UNWIND $rows AS row\nMATCH (x)-{}->(y)\nWHERE NOT coalesce({} AND {}, false)\n{}",
                relationship(kind, &mapping.key),
                is_end("x", from),
                is_end("y", to),
                take("r", "collect(x) + collect(y)"),
            );
            let written = format!(
                "UNWIND $rows AS row\nMERGE {} ON CREATE SET x:{marker}\nMERGE {} ON CREATE SET \
                 y:{marker}\nMERGE (x)-{}->(y){}",
                node("x", &from.label, &from.key),
                node("y", &to.label, &to.key),
                relationship(kind, &mapping.key),
                set("r", &mapping.others),
            );
            vec![moved, written]
        }
    }
}

/// Returns the statement that deletes the rows of `$keys`.
pub fn delete(mapping: &Mapping) -> String {
    // In a key, the columns have the key's own order.
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

/// Returns a statement that deletes a part of the target's content, and returns its size as
/// `number`.
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

/// Returns a statement whose `number` is 1 if the target has any content, or else 0.
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

/// Returns a statement whose `number` is 1 if any node has this label, including endpoints, or else
/// 0.
pub fn any_labeled(label: &str) -> String {
    format!("MATCH (n:{}) WITH n LIMIT 1 RETURN count(n) AS number", quote(label))
}

/// Returns the constraints that make keys unique. Their indexes find rows by key.
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

/// Returns a constraint. It is equal for equal properties in any order: nodes and relationships
/// share it.
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

/// Returns a SET clause. A null value removes the property.
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

/// Matches the relationships with the target's key. Others of the type between such nodes do not
/// belong to the target.
pub fn all_relationships(mapping: &Mapping) -> String {
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

/// Deletes nodes `n` with their relationships. A node that is only an endpoint is not a row.
fn take_nodes(limit: &str) -> String {
    let marker = quote(ENDPOINT);
    format!(
        "WHERE NOT n:{marker}\n{limit}OPTIONAL MATCH (n)--(far:{marker})\n{}",
        take("DISTINCT n", "collect(DISTINCT far)")
    )
}

/// Deletes the matched elements, and those of the touched endpoint nodes that have no relationship
/// left. All are collected first: a node is checked after the last of its relationships is deleted.
fn take(what: &str, touched: &str) -> String {
    format!(
        "WITH collect({what}) AS gone, {touched} AS touched\nWITH gone, size(gone) AS removed, [n \
         IN touched WHERE n:{marker}] AS ends\nFOREACH (e IN gone | DETACH DELETE e)\nFOREACH (n \
         IN [e IN ends WHERE NOT EXISTS {{ (e)--() }}] | DELETE n)\nRETURN removed AS number",
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
