//! Checks of a user's text by the server's parser alone: exactly one SELECT, or one expression.
//!
//! Nothing here looks up a name. Callers: `declare`.

use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;
use pgrx::{PgList, is_a};

use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::subtransaction;
use crate::query::parse_analysis::c_string;

/// Returns the text of the only SELECT in `query`, without what follows it. Does not look up any
/// name.
pub fn one_select(query: &str) -> Result<String> {
    let not_one = |why: &str| {
        Error::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            "argument \"query\" must be exactly one SELECT",
        )
        .detail(why.to_owned())
        .hint("Write the query as you would run it once over all rows, for example: SELECT id, body FROM documents")
    };
    let text = c_string(query)?;
    // SAFETY: only raw parsing; the trees live in the current memory context.
    let statements = subtransaction(
        || Ok(unsafe { PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(text.as_ptr())) }),
        |raised| not_one(&format!("The query cannot be parsed: {}.", raised.message)),
    )?;
    let Some(first) = statements.get_ptr(0) else {
        return Err(not_one("The query is empty."));
    };
    if statements.len() > 1 {
        return Err(not_one(&format!("The query contains {} statements.", statements.len())));
    }
    // SAFETY: the `stmt` of a RawStmt is a valid node.
    unsafe {
        if !is_a((*first).stmt, NodeTag::T_SelectStmt) {
            return Err(not_one("The statement is not a SELECT."));
        }
        let select = (*first).stmt.cast::<pg_sys::SelectStmt>();
        if !(*select).intoClause.is_null() {
            return Err(not_one("The SELECT has an INTO clause."));
        }
        if !(*select).lockingClause.is_null() {
            return Err(not_one("The SELECT locks rows (FOR UPDATE, FOR SHARE)."));
        }
        let start = (*first).stmt_location.max(0) as usize;
        let length = (*first).stmt_len.max(0) as usize;
        let whole = query.as_bytes();
        let end = if length == 0 { whole.len() } else { (start + length).min(whole.len()) };
        let text = String::from_utf8_lossy(&whole[start.min(end)..end]).trim().to_owned();
        Ok(text)
    }
}

/// Checks that `text` is a single expression, and cannot close the parentheses that surround it.
pub fn one_expression(argument: &str, text: &str) -> Result<()> {
    let bad = |why: String| {
        Error::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            format!("argument \"{argument}\" must be one expression over the source's columns"),
        )
        .detail(why)
        .hint("Write, for example, modified or coco.normalize_text(body).")
    };
    let sql = c_string(&format!("select (\n{text}\n)"))?;
    // SAFETY: only raw parsing.
    let list = subtransaction(
        || Ok(unsafe { PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(sql.as_ptr())) }),
        |raised| bad(format!("The expression cannot be parsed: {}.", raised.message)),
    )?;
    match is_one_target(&list) {
        true => Ok(()),
        false => Err(bad(format!("\"{text}\" is not a single expression."))),
    }
}

/// Checks that `text` is a single expression, which may have a name: `expression AS name`.
pub fn one_named_expression(argument: &str, text: &str) -> Result<()> {
    let bad = |why: String| {
        Error::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            format!("argument \"{argument}\" must consist of columns and expressions over the source's columns"),
        )
        .detail(why)
        .hint("Write, for example, (at AT TIME ZONE 'UTC')::date AS day.")
    };
    let sql = c_string(&format!("select\n{text}\n"))?;
    // SAFETY: only raw parsing.
    let list = subtransaction(
        || Ok(unsafe { PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(sql.as_ptr())) }),
        |raised| bad(format!("\"{text}\" cannot be parsed: {}.", raised.message)),
    )?;
    match is_one_target(&list) {
        true => Ok(()),
        false => Err(bad(format!("\"{text}\" is not a single expression."))),
    }
}

/// Reports whether parsed statements are one SELECT that consists of one column and nothing else.
fn is_one_target(list: &PgList<pg_sys::RawStmt>) -> bool {
    // SAFETY: raw parsing returned these nodes, and they are valid as long as `list`. The code
    // reads each node as the type that its tag names.
    list.len() == 1
        && list.get_ptr(0).is_some_and(|raw| unsafe {
            if !is_a((*raw).stmt, NodeTag::T_SelectStmt) {
                return false;
            }
            let s = &*(*raw).stmt.cast::<pg_sys::SelectStmt>();
            let lists = [
                s.distinctClause,
                s.fromClause,
                s.groupClause,
                s.windowClause,
                s.valuesLists,
                s.sortClause,
                s.lockingClause,
            ];
            let nodes = [s.whereClause, s.havingClause, s.limitCount, s.limitOffset];
            s.op == pg_sys::SetOperation::SETOP_NONE
                && PgList::<pg_sys::Node>::from_pg(s.targetList).len() == 1
                && lists.iter().all(|list| list.is_null())
                && nodes.iter().all(|node| node.is_null())
                && s.intoClause.is_null()
                && s.withClause.is_null()
        })
}
