//! The ordinal and the fingerprint of a source: the checks of both expressions, and the view that
//! keeps them as coco evaluates them.

use pgrx::prelude::*;

use crate::catalog::model::Flow;
use crate::catalog::{object_comments, object_names, objects};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::relations;
use crate::pg::spi::{self, arg, ident};
use crate::query::bound_query::{self, Bound};
use crate::query::named_source::Shadow;
use crate::query::{analyze, expression_type, kept_columns, syntax, used_columns};

/// The name of the ordinal in the view, and of the argument.
pub const ORDINAL: &str = "ordinal";

/// The name of the fingerprint in the view, and of the argument.
pub const FINGERPRINT: &str = "fingerprint";

/// The beginning of the view's name.
const VIEW: &str = "source";

/// Expressions to bind.
#[derive(Default)]
pub struct DeclaredExpressions {
    /// The ordinal, converted to a bigint: see [`ExpressionSource::check_ordinal`].
    pub ordinal: Option<String>,
    pub fingerprint: Option<String>,
}

impl DeclaredExpressions {
    /// Returns the expressions with their names.
    fn named(&self) -> Vec<(&'static str, &String)> {
        let all = [(ORDINAL, &self.ordinal), (FINGERPRINT, &self.fingerprint)];
        all.into_iter().filter_map(|(name, e)| Some((name, e.as_ref()?))).collect()
    }
}

/// A column of the view of earlier expressions that stays as it was bound.
pub struct KeptExpression {
    pub view: pg_sys::Oid,
    pub name: &'static str,
}

/// The source that expressions are declared for.
pub struct ExpressionSource<'a> {
    pub flow: &'a Flow,
    pub relation: pg_sys::Oid,
    /// The source's name in the flow.
    pub name: &'a str,
    /// The relation's name, quoted and schema-qualified.
    pub shown: &'a str,
}

/// Stands for the id of the source until the catalog assigns one.
const SOURCE: i32 = -1;

impl ExpressionSource<'_> {
    /// Checks an ordinal, and returns SQL that converts it to a bigint. Groups have none.
    pub fn check_ordinal(&self, text: &str, grouped: bool) -> Result<String> {
        if grouped {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "argument \"ordinal\" is not supported for groups",
            )
            .detail("Several rows share the source key. When a row leaves its group, the ordinals of the remaining rows do not change, so coco would miss the change.")
            .hint("Omit \"ordinal\": coco compares groups by their content."));
        }
        let _as = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
        ordinal_sql(text, self.name, self.shown)
    }

    /// Checks that coco can evaluate each of these expressions over a row of the source.
    pub fn check_expressions(&self, expressions: &DeclaredExpressions) -> Result<()> {
        let _as = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
        if let Some(text) = &expressions.fingerprint {
            syntax::one_expression(FINGERPRINT, text)?;
            let (_, volatile) =
                expression_type::expression_type(FINGERPRINT, text, self.name, self.shown)?;
            if volatile {
                return Err(Error::invalid("argument \"fingerprint\" calls a volatile function")
                    .detail("The fingerprint of unchanged content could change."));
            }
        }
        for (argument, expression) in expressions.named() {
            self.bind(argument, &[(argument, expression)])?;
        }
        Ok(())
    }

    /// Replaces the view of the source's expressions by one of checked expressions and a `kept` one, if
    /// there are any. Stores the view in the source's catalog row.
    pub fn store_view(
        &self,
        id: i32,
        expressions: &DeclaredExpressions,
        kept: Option<KeptExpression>,
    ) -> Result<()> {
        let declared = expressions.named();
        let view = match declared.is_empty() && kept.is_none() {
            true => {
                self.drop_view(id)?;
                None
            }
            false => {
                let acting = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
                let (bound, mut columns) = self.bind(FINGERPRINT, &declared)?;
                drop(acting);
                if let Some(kept) = &kept {
                    let of_view = columns::of_relation(kept.view)?.into_iter().map(|a| a.column);
                    columns.extend(of_view.filter(|c| c.name == kept.name));
                    kept_columns::carry_column(bound.tree, kept.view, self.relation, kept.name)?;
                }
                self.drop_view(id)?;
                Some(self.create_view(id, &bound, &columns)?)
            }
        };
        let _as = RoleGuard::extension_owner()?;
        spi::execute(
            "update coco_internal.source set expressions = $2::oid::regclass where id = $1",
            &[arg(id), arg(view)],
        )?;
        Ok(())
    }

    fn create_view(&self, id: i32, bound: &Bound, columns: &[Column]) -> Result<pg_sys::Oid> {
        objects::create_bound_view(
            &object_names::object_name(VIEW, id, &self.flow.name),
            self.flow.owner,
            columns,
            bound.tree,
            &object_comments::expressions_comment(&self.flow.name, self.name),
        )
    }

    /// Drops the view of earlier expressions, if there is one.
    fn drop_view(&self, id: i32) -> Result<()> {
        let name = object_names::object_name(VIEW, id, &self.flow.name);
        if relations::find_relation("coco", &name)?.is_some() {
            let _as = RoleGuard::extension_owner()?;
            spi::execute(&format!("drop view coco.{}", ident(&name)), &[])?;
        }
        Ok(())
    }

    /// Binds expressions over the columns of one row of the source. The caller must act as the
    /// flow's owner.
    fn bind(
        &self,
        argument: &str,
        expressions: &[(&str, &String)],
    ) -> Result<(Bound, Vec<Column>)> {
        bind_expressions(self.relation, self.name, argument, expressions)
    }
}

/// Checks an ordinal or a fingerprint, and binds it alone: as the column `argument` of a query over
/// one row of the source. The caller must act as the flow's owner.
pub fn bind_expression(
    argument: &str,
    text: &str,
    name: &str,
    relation: pg_sys::Oid,
) -> Result<Bound> {
    let sql = match argument {
        ORDINAL => {
            let named = used_columns::named(SOURCE, name, relation)?;
            ordinal_sql(text, name, &spi::qualified(&named.schema, &named.table))?
        }
        _ => {
            syntax::one_expression(argument, text)?;
            text.to_owned()
        }
    };
    Ok(bind_expressions(relation, name, argument, &[(argument, &sql)])?.0)
}

/// Binds expressions over the columns of one row of a source. The caller must act as the flow's
/// owner.
fn bind_expressions(
    relation: pg_sys::Oid,
    name: &str,
    argument: &str,
    expressions: &[(&str, &String)],
) -> Result<(Bound, Vec<Column>)> {
    let shadow = Shadow {
        named: used_columns::named(SOURCE, name, relation)?,
        columns: columns::numbers(relation)?,
        key: vec![],
        key_expressions: vec![],
    };
    let columns: Vec<String> =
        expressions.iter().map(|(name, text)| format!("(\n{text}\n) as {name}")).collect();
    let text = format!("select {} from {}", columns.join(", "), ident(&shadow.named.name));
    let bound =
        bound_query::bind_query(argument, &text, std::slice::from_ref(&shadow.named), None)?;
    let found = analyze::analyze(argument, &bound, &[shadow])?;
    if bound.places.len() != 1 {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"{argument}\" reads the source in a subquery"),
        )
        .detail("coco evaluates the expression over the columns of one row.")
        .hint("Declare the flow over a view that computes the value."));
    }
    Ok((bound, found.columns))
}

/// Returns SQL that converts the given ordinal to a bigint: a number unchanged, a time in
/// microseconds. Infinite times become values outside the range of all other times.
fn ordinal_sql(text: &str, name: &str, relation: &str) -> Result<String> {
    syntax::one_expression("ordinal", text)?;
    let (column, volatile) = expression_type::expression_type("ordinal", text, name, relation)?;
    if volatile {
        return Err(Error::invalid("argument \"ordinal\" calls a volatile function"));
    }
    match column.type_oid {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => {
            Ok(format!("(\n{text}\n)::pg_catalog.int8"))
        }
        pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID | pg_sys::DATEOID => Ok(format!(
            "greatest(-9.2e18, least(9.2e18, extract(epoch from (\n{text}\n)) operator(pg_catalog.*) 1000000::pg_catalog.numeric))::pg_catalog.int8"
        )),
        _ => Err(Error::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("argument \"ordinal\" has unsupported type {}", column.type_name),
        )
        .hint("Use a smallint, integer, bigint, date, timestamp or timestamptz that grows with each version.")),
    }
}
