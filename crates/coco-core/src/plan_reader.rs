//! Reads plans in the form of EXPLAIN: which tables a plan reads completely, and whether it repeats
//! that.

use std::collections::BTreeSet;

use serde_json::Value;

/// A plan may scan a materialized inner side with at most this many rows again for each outer row.
const FEW_ROWS: f64 = 1000.0;

/// The reason why a plan repeats one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rescan {
    /// The part is a subplan of an expression; the name of the subplan.
    SubPlan(String),
    /// The part is the inner side of a nested loop.
    NestedLoop,
}

/// A table that a plan reads completely, without a condition that an index serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullRead {
    pub schema: String,
    pub name: String,
    /// Columns of the table that are compared with a value that is not constant: an index on them
    /// could help.
    pub compared_columns: Vec<String>,
    /// The reason if the plan reads the table once per row of another part.
    pub rescan: Option<Rescan>,
}

/// Returns the tables that a plan reads completely. `explained` is the result of `EXPLAIN (VERBOSE,
/// FORMAT JSON)`.
pub fn find_full_reads(explained: &Value) -> Vec<FullRead> {
    let plan = explained.get(0).unwrap_or(explained).get("Plan");
    let mut reads = Vec::new();
    if let Some(plan) = plan {
        let text = plan.to_string();
        let mut aliases = BTreeSet::new();
        aliases_in(plan, &mut aliases);
        let walk = Walk { whole: &text, aliases };
        walk.node(plan, &[], None, &mut reads);
    }
    reads
}

struct Walk<'a> {
    /// The text of the whole plan. Expressions in it show which subplans are hashed.
    whole: &'a str,
    /// The aliases of all relations of the plan.
    aliases: BTreeSet<&'a str>,
}

impl Walk<'_> {
    fn node(
        &self,
        node: &Value,
        conditions: &[String],
        rescan: Option<&Rescan>,
        reads: &mut Vec<FullRead>,
    ) {
        let of = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut conditions = conditions.to_vec();
        for name in ["Filter", "Join Filter", "Hash Cond", "Merge Cond", "Recheck Cond"] {
            conditions.extend(node.get(name).and_then(Value::as_str).map(str::to_owned));
        }
        let kind = of("Node Type");
        let whole = match kind {
            "Seq Scan" | "Sample Scan" | "Foreign Scan" => true,
            "Index Scan" | "Index Only Scan" => node.get("Index Cond").is_none(),
            _ => false,
        };
        if whole && !of("Relation Name").is_empty() {
            reads.push(FullRead {
                schema: of("Schema").to_owned(),
                name: of("Relation Name").to_owned(),
                compared_columns: columns_compared(&conditions, of("Alias")),
                rescan: rescan.cloned(),
            });
        }
        let children = node.get("Plans").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let relation = |child: &Value| {
            child.get("Parent Relationship").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let rows = |child: &Value| child.get("Plan Rows").and_then(Value::as_f64).unwrap_or(0.0);
        let outer = children.iter().find(|c| relation(c) == "Outer").map_or(0.0, rows);
        for child in children {
            let name = child.get("Subplan Name").and_then(Value::as_str).unwrap_or_default();
            let inner = match relation(child).as_str() {
                "SubPlan" if !self.is_hashed(name) => Some(Rescan::SubPlan(name.to_owned())),
                // A hashed subplan runs once. An InitPlan also runs once, unless it depends on a
                // row of another part.
                "SubPlan" => None,
                "InitPlan" => rescan.filter(|_| self.is_correlated(child)).cloned(),
                "Inner" if kind == "Nested Loop" && outer > 1.0 => {
                    let kept =
                        child.get("Node Type").and_then(Value::as_str) == Some("Materialize");
                    match kept && rows(child) <= FEW_ROWS {
                        true => rescan.cloned(),
                        false => Some(Rescan::NestedLoop),
                    }
                }
                _ => rescan.cloned(),
            };
            self.node(child, &conditions, inner.as_ref(), reads);
        }
    }

    /// Reports whether a part of the plan refers to a relation outside of it. Servers before 17
    /// show such a reference as a parameter.
    fn is_correlated(&self, node: &Value) -> bool {
        let mut own = BTreeSet::new();
        aliases_in(node, &mut own);
        let text = node.to_string();
        if parameters(&text).any(|p| !self.is_returned(p)) {
            return true;
        }
        let part = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
        self.aliases.difference(&own).any(|alias| {
            let name = format!("{alias}.");
            text.match_indices(&name).any(|(at, _)| !text[..at].ends_with(part))
        })
    }

    /// Reports whether an InitPlan of this plan returns the parameter.
    fn is_returned(&self, parameter: &str) -> bool {
        let returned = self.whole.split("(returns ").skip(1);
        returned
            .filter_map(|rest| rest.split(')').next())
            .any(|names| names.split(',').any(|name| name == parameter))
    }

    fn is_hashed(&self, subplan: &str) -> bool {
        let name = format!("hashed {subplan}");
        let mut rest = self.whole;
        while let Some(at) = rest.find(&name) {
            rest = &rest[at + name.len()..];
            // "SubPlan 1" must not match "SubPlan 12".
            if !rest.starts_with(|c: char| c.is_ascii_digit()) {
                return true;
            }
        }
        false
    }
}

/// Returns the parameters in a text, such as `$0`.
fn parameters(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('$').filter_map(|(at, _)| {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then(|| &text[at..=at + digits])
    })
}

fn aliases_in<'a>(node: &'a Value, aliases: &mut BTreeSet<&'a str>) {
    aliases.extend(node.get("Alias").and_then(Value::as_str));
    for child in node.get("Plans").and_then(Value::as_array).into_iter().flatten() {
        aliases_in(child, aliases);
    }
}

/// Returns the columns of an alias that conditions compare for equality with another relation's
/// value.
fn columns_compared(conditions: &[String], alias: &str) -> Vec<String> {
    let mut columns = Vec::new();
    for clause in conditions.iter().flat_map(|c| c.split(" AND ")) {
        let Some((left, right)) = clause.split_once(" = ") else { continue };
        for (ours, theirs) in [(left, right), (right, left)] {
            let outside = theirs.contains('.') || parameters(theirs).next().is_some();
            let foreign = outside && column_of(theirs, alias).is_none();
            let column = column_of(ours, alias).filter(|c| foreign && !columns.contains(c));
            columns.extend(column);
        }
    }
    columns
}

/// Returns the column if a side of a comparison is exactly one column of the alias. A cast around
/// it does not matter.
fn column_of(side: &str, alias: &str) -> Option<String> {
    let side = side.trim().trim_start_matches('(');
    let quoted = format!("\"{}\"", alias.replace('"', "\"\""));
    let rest =
        [alias, &quoted].into_iter().find_map(|a| side.strip_prefix(a)?.strip_prefix('.'))?;
    let (column, rest) = match rest.strip_prefix('"') {
        Some(quoted) => {
            // The name ends at a quote that is not doubled.
            let mut end = 0;
            while let Some(at) = quoted[end..].find('"') {
                end += at + 1;
                if !quoted[end..].starts_with('"') {
                    break;
                }
                end += 1;
            }
            let name = quoted.get(..end.checked_sub(1)?)?;
            (name.replace("\"\"", "\""), &quoted[end..])
        }
        None => {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
            let end = end.unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        }
    };
    let only = rest.trim_start_matches(')');
    (!column.is_empty() && (only.is_empty() || only.starts_with("::"))).then_some(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scan(name: &str, relation: &str) -> Value {
        json!({"Node Type": "Seq Scan", "Parent Relationship": relation, "Schema": "public",
               "Relation Name": name, "Alias": name, "Plan Rows": 10000})
    }

    fn nested(outer_rows: i64, inner: Value) -> Value {
        json!([{"Plan": {"Node Type": "Nested Loop", "Join Filter": "(big.code = (item.code)::text)",
            "Plans": [
                {"Node Type": "Named Tuplestore Scan", "Parent Relationship": "Outer", "Plan Rows": outer_rows},
                inner]}}])
    }

    #[test]
    fn the_inner_side_of_a_nested_loop_is_read_again() {
        let found = find_full_reads(&nested(1000, scan("big", "Inner")));
        assert_eq!(found[0].rescan, Some(Rescan::NestedLoop));
        assert_eq!(found[0].compared_columns, ["code"]);
        assert_eq!(find_full_reads(&nested(1, scan("big", "Inner")))[0].rescan, None);
    }

    #[test]
    fn a_small_materialized_side_is_read_once() {
        let materialized = |rows: i64| {
            json!({"Node Type": "Materialize", "Parent Relationship": "Inner", "Plan Rows": rows,
                   "Plans": [scan("big", "Outer")]})
        };
        assert_eq!(find_full_reads(&nested(1000, materialized(10)))[0].rescan, None);
        let rescan = Some(Rescan::NestedLoop);
        assert_eq!(find_full_reads(&nested(1000, materialized(10_000)))[0].rescan, rescan);
    }

    #[test]
    fn subplans_are_done_again_unless_hashed() {
        let of = |filter: &str| {
            let mut subplan = scan("big", "SubPlan");
            subplan["Subplan Name"] = json!("SubPlan 1");
            json!([{"Plan": {"Node Type": "Seq Scan", "Schema": "s", "Relation Name": "d", "Alias": "d",
                             "Filter": filter, "Plans": [subplan]}}])
        };
        let rescan = |plan: &Value| find_full_reads(plan)[1].rescan.clone();
        assert_eq!(rescan(&of("(SubPlan 1)")), Some(Rescan::SubPlan("SubPlan 1".into())));
        assert_eq!(rescan(&of("(NOT (hashed SubPlan 1))")), None);
        assert_eq!(rescan(&of("(hashed SubPlan 12)")), Some(Rescan::SubPlan("SubPlan 1".into())));
    }

    #[test]
    fn what_is_inside_a_repeated_part_is_repeated() {
        let inner = json!({"Node Type": "Aggregate", "Parent Relationship": "Inner", "Plan Rows": 1,
                           "Plans": [scan("big", "Outer")]});
        assert_eq!(find_full_reads(&nested(5, inner))[0].rescan, Some(Rescan::NestedLoop));
    }

    #[test]
    fn an_initplan_is_done_again_where_it_is_about_another_row() {
        let of = |filter: &str| {
            let mut initplan = scan("big", "InitPlan");
            initplan["Subplan Name"] = json!("InitPlan 1 (returns $1)");
            initplan["Filter"] = json!(filter);
            let inner = json!({"Node Type": "Index Scan", "Parent Relationship": "Inner", "Alias": "s",
                               "Relation Name": "s", "Schema": "public", "Index Cond": "(s.id = 1)",
                               "Plan Rows": 1, "Plans": [initplan]});
            find_full_reads(&nested(9, inner))[0].rescan.clone()
        };
        assert_eq!(of("(big.code = s.code)"), Some(Rescan::NestedLoop));
        assert_eq!(of("(big.code = 's'::text)"), None);
        // Before PostgreSQL 17, such a row is a parameter, like the result of an InitPlan.
        assert_eq!(of("(big.code = $0)"), Some(Rescan::NestedLoop));
        assert_eq!(of("(big.code = $1)"), None);
    }

    #[test]
    fn an_index_that_serves_a_condition_reads_no_whole() {
        let index = |cond: Option<&str>| {
            let mut node = json!({"Node Type": "Index Scan", "Parent Relationship": "Inner",
                "Schema": "public", "Relation Name": "big", "Alias": "big", "Plan Rows": 1});
            if let Some(cond) = cond {
                node["Index Cond"] = json!(cond);
            }
            find_full_reads(&nested(9, node)).len()
        };
        assert_eq!(index(Some("(big.code = item.code)")), 0);
        assert_eq!(index(None), 1);
    }

    #[test]
    fn columns_that_an_index_could_be_on() {
        let of = |c: &str, alias: &str| columns_compared(&[c.to_owned()], alias);
        assert_eq!(of("((l.a = s.b) AND (s.c = l.d))", "l"), ["a", "d"]);
        assert_eq!(of("((l.a)::text = s.b)", "l"), ["a"]);
        assert_eq!(of("(l.\"or\"\"der\" = s.b)", "l"), ["or\"der"]);
        assert_eq!(of("(\"L 1\".a = s.b)", "L 1"), ["a"]);
        for none in ["(l.a = 3)", "(l.a > s.b)", "(l.a = l.b)", "(lower(l.a) = s.b)", "(x.l = s.b)"]
        {
            assert!(of(none, "l").is_empty(), "{none}");
        }
    }
}
