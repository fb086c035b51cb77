//! Expressions in the key of a source: the checks, and the view that keeps them as coco evaluates
//! them.

use pgrx::prelude::*;
use std::collections::BTreeSet;

use crate::catalog::{object_comments, object_names, objects};
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg, ident};
use crate::query::bound_query::{self, Bound};
use crate::query::key_rules::{self, ExpressionRules};
use crate::query::named_source::Shadow;
use crate::query::{analyze, never_null, same_query, syntax, used_columns};

/// The beginning of the view's name.
const VIEW: &str = "key";

/// The argument that contains the key, in messages.
const ARGUMENT: &str = "source_key";

/// Stands for the id of the source until the catalog assigns one.
const SOURCE: i32 = -1;

/// The source that a key is declared for.
#[derive(Clone, Copy)]
pub struct KeySource<'a> {
    pub relation: pg_sys::Oid,
    pub kind: &'a str,
    /// The relation's name, quoted and schema-qualified.
    pub shown: &'a str,
    /// The source's name in the flow.
    pub name: &'a str,
    pub owner: pg_sys::Oid,
    pub settings: &'a SavedGucs,
}

/// The expressions of a key, bound.
pub struct BoundKey {
    /// The text of each by its place in the key; `None` for a column.
    pub texts: Vec<Option<String>>,
    pub bound: Bound,
    /// The expressions as columns, in their order.
    pub columns: Vec<Column>,
    /// For each expression: whether it is never NULL.
    pub never_null: Vec<bool>,
    /// The columns that the expressions use.
    pub used: Vec<Column>,
}

/// Binds the expressions of a key, by their places in it.
pub fn bind_key(source: &KeySource, texts: &[Option<String>]) -> Result<BoundKey> {
    for text in texts.iter().flatten() {
        syntax::one_named_expression(ARGUMENT, text)?;
    }
    let _as = RoleGuard::flow_owner(source.owner, source.settings)?;
    let shadow = Shadow {
        named: used_columns::named(SOURCE, source.name, source.relation)?,
        columns: columns::numbers(source.relation)?,
        key: vec![],
        key_expressions: vec![],
    };
    let items: Vec<&str> = texts.iter().flatten().map(String::as_str).collect();
    let text = format!("select\n{}\nfrom {}", items.join("\n,"), ident(source.name));
    let named = std::slice::from_ref(&shadow.named);
    let bound = bound_query::bind_query(ARGUMENT, &text, named, None)?;
    let shadows = [shadow];
    let found = analyze::analyze(ARGUMENT, &bound, &shadows)?;
    if found.columns.len() != items.len() {
        return Err(
            Error::invalid(format!("argument \"{ARGUMENT}\" contains *")).hint("Name the columns.")
        );
    }
    // SAFETY: the tree was just created, and no other code refers to it.
    let (never_null, rules) = unsafe {
        (never_null::columns_never_null(bound.tree)?, key_rules::rules_of_columns(bound.tree))
    };
    for (text, rule) in items.iter().zip(rules) {
        check_rules(text, &rule)?;
    }
    if bound.places.len() != 1 {
        return Err(not_over_one_row(&items.join(", ")));
    }
    let used = found.used.into_iter().next().flatten().unwrap_or_default();
    let of_relation = columns::of_relation(source.relation)?;
    let taken = of_relation.iter().map(|a| a.column.name.clone()).collect();
    let columns = with_own_names(found.columns, taken);
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    same_query::name_columns(&bound, &names)?;
    Ok(BoundKey {
        texts: texts.to_vec(),
        columns,
        never_null,
        used: of_relation
            .into_iter()
            .map(|a| a.column)
            .filter(|column| used.contains(&column.name))
            .collect(),
        bound,
    })
}

/// Checks what a key needs of an expression.
fn check_rules(text: &str, rule: &ExpressionRules) -> Result<()> {
    if rule.is_mutable {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
            format!("the expression {text} in the source key is not immutable"),
        )
        .detail("The key of a row must not change without a change of the row.")
        .hint("Call only functions that are marked IMMUTABLE. The day of a timestamptz depends on the time zone: write (at AT TIME ZONE 'UTC')::date."));
    }
    match rule.is_over_one_row {
        true => Ok(()),
        false => Err(not_over_one_row(text)),
    }
}

fn not_over_one_row(text: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("the expression {text} in the source key is not computed from the columns of one row"),
    )
    .detail("It has no column, or an aggregate, a window function, a subquery, or a function that returns a set.")
}

/// Gives each expression a name that no column of the relation has, and no other expression.
fn with_own_names(found: Vec<Column>, mut taken: BTreeSet<String>) -> Vec<Column> {
    let mut named = Vec::with_capacity(found.len());
    for column in found {
        let stem = if column.name == "?column?" { "expr" } else { &column.name };
        let mut name = stem.to_owned();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            name = format!("{stem}{number}");
            number += 1;
        }
        named.push(Column { name, ..column });
    }
    named
}

/// Creates the view that keeps the expressions of a key, and stores it in the source's catalog row.
pub fn store_view(
    flow: &str,
    owner: pg_sys::Oid,
    source: &str,
    id: i32,
    key: &BoundKey,
) -> Result<()> {
    let view = objects::create_bound_view(
        &object_names::object_name(VIEW, id, flow),
        owner,
        &key.columns,
        key.bound.tree,
        &object_comments::key_comment(flow, source),
    )?;
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.source set key_expressions = $2, key_view = $3::oid::regclass where id = $1",
        &[arg(id), arg(key.texts.clone()), arg(view)],
    )?;
    Ok(())
}
