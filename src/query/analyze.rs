//! Analyzes a query with PostgreSQL's parse analysis.
//!
//! The analysis finds the query's columns, the columns that the query uses of each source, and the
//! other relations and functions that the query reads. It also finds constructs whose result for
//! one item can differ from the result for all items.
//!
//! Callers: `used_columns`, `declare`.

use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;
use pgrx::{PgList, is_a};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_void};

use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::subtransaction;
use crate::query::bound_query::{self, Bound, Named};
use crate::query::parse_analysis::parse_analyzed;
use crate::query::union_all::only_union_all;
use crate::query::walker;

/// A source, as the query refers to it.
pub struct Shadow {
    pub named: Named,
    /// Numbers and names of all columns, in the relation's order.
    pub columns: Vec<(i16, String)>,
    pub key: Vec<String>,
}

impl Shadow {
    fn column(&self, number: i16) -> Option<&String> {
        self.columns.iter().find(|(n, _)| *n == number).map(|(_, name)| name)
    }
}

pub struct Analysis {
    pub columns: Vec<Column>,
    /// For each output column: the source, and the source column that the output column always
    /// equals, if known.
    pub origins: Vec<Option<(usize, String)>>,
    /// For each source: the used columns, in the relation's order; `None` if the query does not
    /// read the source.
    pub used: Vec<Option<Vec<String>>>,
    /// OIDs of the relations that the query reads in addition to the sources.
    pub relations: BTreeSet<u32>,
    /// The columns used of each of these relations, by number; 0 stands for the whole row.
    pub read_columns: BTreeMap<u32, BTreeSet<i16>>,
    /// Whether the query calls user-defined functions, which may read any relation.
    pub calls_own: bool,
    /// OIDs of the volatile functions that the query calls.
    pub volatile: BTreeSet<u32>,
    /// Constructs whose result for one item can differ from the result for all items.
    pub not_item_local: BTreeSet<&'static str>,
    /// Whether one query level joins two sources.
    pub joins_sources: bool,
    /// The sources whose item one query level reads in several places.
    pub joined_with_itself: BTreeSet<usize>,
}

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
    // SAFETY: raw parsing returned these nodes, and they are valid as long as `list`. The code
    // reads each node as the type that its tag names.
    let simple = list.len() == 1
        && list.get_ptr(0).is_some_and(|raw| unsafe {
            let s = (*raw).stmt.cast::<pg_sys::SelectStmt>();
            is_a((*raw).stmt, NodeTag::T_SelectStmt)
                && (*s).op == pg_sys::SetOperation::SETOP_NONE
                && PgList::<pg_sys::Node>::from_pg((*s).targetList).len() == 1
                && (*s).fromClause.is_null()
                && (*s).whereClause.is_null()
                && (*s).groupClause.is_null()
                && (*s).havingClause.is_null()
                && (*s).sortClause.is_null()
                && (*s).limitCount.is_null()
                && (*s).limitOffset.is_null()
        });
    if simple { Ok(()) } else { Err(bad(format!("\"{text}\" is not a single expression."))) }
}

/// Reports an error, with the name of the argument, if PostgreSQL cannot analyze `sql`.
fn check(argument: &str, sql: &str) -> Result<()> {
    subtransaction(
        || Ok(Spi::connect(|client| client.prepare(sql, &[]).map(|_| ()))?),
        |raised| Error {
            code: raised.code,
            message: format!("argument \"{argument}\": {}", raised.message),
            detail: raised.detail,
            hint: raised.hint,
        },
    )
}

/// Returns the analyzed tree of one statement without parameters.
fn analyzed_tree(sql: &str) -> Result<*mut pg_sys::Query> {
    let text = c_string(sql)?;
    // SAFETY: `sql` is one statement that coco composed around a checked expression.
    unsafe {
        let list = PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(text.as_ptr()));
        let raw = list.get_ptr(0).ok_or_else(|| Error::internal("nothing to analyze"))?;
        Ok(parse_analyzed(raw, &text))
    }
}

/// Analyzes a bound query whose items come from the sources in `shadows`.
pub fn analyze(argument: &str, bound: &Bound, shadows: &[Shadow]) -> Result<Analysis> {
    let tree = bound.tree;
    let relations: Vec<pg_sys::Oid> = shadows.iter().map(|s| s.named.relation).collect();
    // SAFETY: the tree was just created or copied, and no other code refers to it.
    let places = unsafe { bound_query::occurrences(tree, &relations) };
    if places.len() != bound.places.len() {
        return Err(Error::internal("query tree does not match its recorded places"));
    }
    let source_of = |id: i32| shadows.iter().position(|s| s.named.id == id);
    let items = places.iter().zip(bound.places.iter());
    let items = items.filter_map(|(o, id)| Some((o.entry as usize, source_of(*id)?))).collect();
    let mut walk = DependencyWalk {
        shadows,
        items,
        system: None,
        stack: vec![],
        children: vec![],
        ctes: vec![],
        used: vec![BTreeSet::new(); shadows.len()],
        read: BTreeSet::new(),
        relations: BTreeSet::new(),
        read_columns: BTreeMap::new(),
        calls_own: false,
        volatile: BTreeSet::new(),
        not_item_local: BTreeSet::new(),
        joins_sources: false,
        joined_with_itself: BTreeSet::new(),
    };
    // SAFETY: as above.
    unsafe {
        walk.query(tree);
        if let Some((source, column)) = walk.system {
            return Err(system_column(argument, &shadows[source].named.name, column));
        }
        let mut result = Vec::new();
        let mut origins = Vec::new();
        for entry in PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList).iter_ptr() {
            if (*entry).resjunk {
                continue;
            }
            let expr = (*entry).expr.cast::<pg_sys::Node>();
            let name = match (*entry).resname.is_null() {
                true => "?column?".to_owned(),
                false => CStr::from_ptr((*entry).resname).to_string_lossy().into_owned(),
            };
            result.push(columns::result_column(
                name,
                pg_sys::exprType(expr),
                pg_sys::exprTypmod(expr),
                pg_sys::exprCollation(expr),
            )?);
            let origin = walk.trace(expr, &[tree]);
            origins.push(origin.and_then(|(s, n)| Some((s, shadows[s].column(n)?.clone()))));
        }
        let used = walk.used.iter().enumerate().map(|(i, used)| {
            let whole = used.contains(&0);
            let names = shadows[i].columns.iter().filter(|(n, _)| whole || used.contains(n));
            walk.read.contains(&i).then(|| names.map(|(_, name)| name.clone()).collect())
        });
        Ok(Analysis {
            columns: result,
            origins,
            used: used.collect(),
            relations: walk.relations,
            read_columns: walk.read_columns,
            calls_own: walk.calls_own,
            volatile: walk.volatile,
            not_item_local: walk.not_item_local,
            joins_sources: walk.joins_sources,
            joined_with_itself: walk.joined_with_itself,
        })
    }
}

fn system_column(argument: &str, source: &str, number: i16) -> Error {
    // SAFETY: `number` is a system column's number; PostgreSQL describes it in static memory.
    let name = unsafe {
        let attribute = pg_sys::SystemAttributeDefinition(number);
        CStr::from_ptr((*attribute).attname.data.as_ptr()).to_string_lossy()
    };
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("argument \"{argument}\" reads the system column {name} of source \"{source}\""),
    )
    .detail("An item has only the columns of the table, because coco may evaluate it long after reading the row.")
    .hint(format!("Declare the flow over a view that returns {name} as a column."))
}

/// Returns the type of a checked expression over a relation's columns, and whether the expression
/// is volatile. The caller acts as the flow's owner.
pub fn expression_type(
    argument: &str,
    text: &str,
    name: &str,
    relation_name: &str,
) -> Result<(Column, bool)> {
    let sql =
        format!("select (\n{text}\n) as x from {relation_name} as {}", crate::pg::spi::ident(name));
    check(argument, &sql)?;
    let tree = analyzed_tree(&sql)?;
    // SAFETY: the composed statement has one target entry.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let entry = entries.get_ptr(0).ok_or_else(|| Error::internal("no target entry"))?;
        let expr = (*entry).expr.cast::<pg_sys::Node>();
        let column = columns::result_column(
            "x".to_owned(),
            pg_sys::exprType(expr),
            pg_sys::exprTypmod(expr),
            pg_sys::exprCollation(expr),
        )?;
        Ok((column, pg_sys::contain_volatile_functions(expr)))
    }
}

struct DependencyWalk<'a> {
    shadows: &'a [Shadow],
    /// The entries that are items, each with the number of its source.
    items: HashMap<usize, usize>,
    /// A system column of an item that the query reads.
    system: Option<(usize, i16)>,
    /// The queries around the current node, outermost first.
    stack: Vec<*mut pg_sys::Query>,
    /// For each query of `stack`: the sources that each of its parts reads.
    children: Vec<Vec<BTreeSet<usize>>>,
    /// The common table expressions that are visible at the current node.
    ctes: Vec<CteSources>,
    /// Column numbers used of each source; 0 stands for the whole row.
    used: Vec<BTreeSet<i16>>,
    read: BTreeSet<usize>,
    relations: BTreeSet<u32>,
    read_columns: BTreeMap<u32, BTreeSet<i16>>,
    calls_own: bool,
    volatile: BTreeSet<u32>,
    not_item_local: BTreeSet<&'static str>,
    joins_sources: bool,
    joined_with_itself: BTreeSet<usize>,
}

/// The sources that a common table expression reads.
struct CteSources {
    /// The number of queries around the expression.
    depth: usize,
    name: CString,
    sources: BTreeSet<usize>,
}

impl DependencyWalk<'_> {
    /// Walks a query, and returns the sources that it reads.
    unsafe fn query(&mut self, query: *mut pg_sys::Query) -> BTreeSet<usize> {
        // SAFETY: the caller passes a query that the server has analyzed and that nobody changes
        // during the walk. Its lists contain the node types that their names say, and no null
        // pointers.
        unsafe {
            self.stack.push(query);
            self.children.push(vec![]);
            for rte in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
                if (*rte).rtekind != pg_sys::RTEKind::RTE_RELATION {
                    continue;
                }
                match self.item(rte) {
                    Some(source) => {
                        self.read.insert(source);
                        self.part(BTreeSet::from([source]));
                    }
                    None => drop(self.relations.insert((*rte).relid.to_u32())),
                }
            }
            let visible = self.ctes.len();
            for cte in PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList).iter_ptr() {
                let sources = self.query((*cte).ctequery.cast());
                let name = CStr::from_ptr((*cte).ctename).to_owned();
                self.ctes.push(CteSources { depth: self.stack.len(), name, sources });
            }
            for rte in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
                if (*rte).rtekind == pg_sys::RTEKind::RTE_CTE {
                    let sources = self.cte_sources(rte);
                    self.part(sources);
                }
            }
            let flags = pg_sys::QTW_IGNORE_CTE_SUBQUERIES | pg_sys::QTW_IGNORE_JOINALIASES;
            let context = (self as *mut Self).cast::<c_void>();
            walker::walk_query(query, Some(visit), context, flags);

            let parts = self.children.pop().unwrap_or_default();
            let all: BTreeSet<usize> = parts.iter().flatten().copied().collect();
            let set_operation = !(*query).setOperations.is_null();
            if !set_operation && all.len() > 1 && !parts.contains(&all) {
                self.joins_sources = true;
            }
            let several = |s: &usize| parts.iter().filter(|part| part.contains(s)).count() > 1;
            if !set_operation {
                self.joined_with_itself.extend(all.iter().copied().filter(several));
            }
            if !all.is_empty() {
                self.look_for_not_item_local(query, &all);
            }
            self.stack.pop();
            self.ctes.truncate(visible);
            all
        }
    }

    /// Returns the sources that an entry reads through a common table expression. A recursive
    /// expression that reads itself is not known yet.
    unsafe fn cte_sources(&self, entry: *mut pg_sys::RangeTblEntry) -> BTreeSet<usize> {
        // SAFETY: as in `query`: the entry has the name of an expression.
        let (up, name) =
            unsafe { ((*entry).ctelevelsup as usize, CStr::from_ptr((*entry).ctename)) };
        let depth = self.stack.len().checked_sub(up);
        let found =
            self.ctes.iter().rfind(|cte| Some(cte.depth) == depth && cte.name.as_c_str() == name);
        found.map(|cte| cte.sources.clone()).unwrap_or_default()
    }

    fn part(&mut self, sources: BTreeSet<usize>) {
        if let Some(parts) = self.children.last_mut().filter(|_| !sources.is_empty()) {
            parts.push(sources);
        }
    }

    /// Returns the source whose item the entry is.
    fn item(&self, entry: *mut pg_sys::RangeTblEntry) -> Option<usize> {
        self.items.get(&(entry as usize)).copied()
    }

    unsafe fn var(&mut self, var: *mut pg_sys::Var) {
        // SAFETY: as in `query`. The number and level of a Var lead to an entry of a query on the
        // stack; otherwise nothing is read.
        unsafe {
            let Some(level) = self.stack.len().checked_sub(1 + (*var).varlevelsup as usize) else {
                return;
            };
            let Some(rte) = range_entry(self.stack[level], (*var).varno) else {
                return;
            };
            match (*rte).rtekind {
                pg_sys::RTEKind::RTE_RELATION if self.item(rte).is_some() => {
                    let number = (*var).varattno;
                    if let Some(source) = self.item(rte) {
                        self.used[source].insert(number);
                        if number < 0 {
                            self.system = Some((source, number));
                        }
                    }
                }
                pg_sys::RTEKind::RTE_RELATION => {
                    let columns = self.read_columns.entry((*rte).relid.to_u32()).or_default();
                    columns.insert((*var).varattno);
                }
                pg_sys::RTEKind::RTE_JOIN => {
                    let aliases = PgList::<pg_sys::Node>::from_pg((*rte).joinaliasvars);
                    let deeper = self.stack.split_off(level + 1);
                    for (n, alias) in aliases.iter_ptr().enumerate() {
                        if (*var).varattno == 0 || (*var).varattno as usize == n + 1 {
                            walker::visit(alias, Some(visit), (self as *mut Self).cast());
                        }
                    }
                    self.stack.extend(deeper);
                }
                _ => {}
            }
        }
    }

    /// Returns the source column that an expression of the innermost query of `stack` always
    /// equals.
    unsafe fn trace(
        &self,
        expr: *mut pg_sys::Node,
        stack: &[*mut pg_sys::Query],
    ) -> Option<(usize, i16)> {
        // SAFETY: as in `query`: the code reads each node as the type that its tag names, and
        // `stack` contains the queries around the node.
        unsafe {
            if expr.is_null() || !is_a(expr, NodeTag::T_Var) {
                return None;
            }
            let var = expr.cast::<pg_sys::Var>();
            let number = (*var).varattno;
            let level = stack.len().checked_sub(1 + (*var).varlevelsup as usize)?;
            if number <= 0 {
                return None;
            }
            let here = &stack[..=level];
            let rte = range_entry(stack[level], (*var).varno)?;
            match (*rte).rtekind {
                pg_sys::RTEKind::RTE_RELATION => self.item(rte).map(|source| (source, number)),
                pg_sys::RTEKind::RTE_SUBQUERY => self.trace_output((*rte).subquery, number, here),
                pg_sys::RTEKind::RTE_CTE => {
                    let outer = level.checked_sub((*rte).ctelevelsup as usize)?;
                    let ctes = PgList::<pg_sys::CommonTableExpr>::from_pg((*stack[outer]).cteList);
                    let name = CStr::from_ptr((*rte).ctename);
                    let cte = ctes.iter_ptr().find(|c| CStr::from_ptr((**c).ctename) == name)?;
                    if (*cte).cterecursive {
                        return None;
                    }
                    let inner = (*cte).ctequery.cast::<pg_sys::Query>();
                    self.trace_output(inner, number, &stack[..=outer])
                }
                pg_sys::RTEKind::RTE_JOIN => {
                    let aliases = PgList::<pg_sys::Node>::from_pg((*rte).joinaliasvars);
                    self.trace(aliases.get_ptr(number as usize - 1)?, here)
                }
                #[cfg(feature = "pg18")]
                pg_sys::RTEKind::RTE_GROUP => {
                    let exprs = PgList::<pg_sys::Node>::from_pg((*rte).groupexprs);
                    self.trace(exprs.get_ptr(number as usize - 1)?, here)
                }
                _ => None,
            }
        }
    }

    /// Returns the source column that an output column of a subquery always equals. `outer` are the
    /// queries around the subquery.
    unsafe fn trace_output(
        &self,
        inner: *mut pg_sys::Query,
        number: i16,
        outer: &[*mut pg_sys::Query],
    ) -> Option<(usize, i16)> {
        // SAFETY: as in `query`.
        unsafe {
            if !(*inner).setOperations.is_null() || !(*inner).groupingSets.is_null() {
                return None;
            }
            let entries = PgList::<pg_sys::TargetEntry>::from_pg((*inner).targetList);
            let entry = entries.get_ptr(number as usize - 1)?;
            self.trace((*entry).expr.cast(), &[outer, &[inner]].concat())
        }
    }

    /// Records the constructs of this query level that combine rows of several items.
    unsafe fn look_for_not_item_local(
        &mut self,
        query: *mut pg_sys::Query,
        sources: &BTreeSet<usize>,
    ) {
        // SAFETY: as in `query`, which calls this with the query it walks.
        unsafe {
            if !(*query).limitCount.is_null() || !(*query).limitOffset.is_null() {
                self.not_item_local.insert("LIMIT or OFFSET");
            }
            if !only_union_all((*query).setOperations) {
                self.not_item_local.insert("UNION, INTERSECT or EXCEPT");
            }
            let grouped = (*query).hasAggs || !(*query).groupClause.is_null();
            let by_sets = !(*query).groupingSets.is_null();
            if (grouped && !self.within_item(query, (*query).groupClause, sources)) || by_sets {
                self.not_item_local.insert("GROUP BY or an aggregate");
            }
            let distinct = (*query).distinctClause;
            if !distinct.is_null() && !self.within_item(query, distinct, sources) {
                self.not_item_local.insert("DISTINCT");
            }
            for window in PgList::<pg_sys::WindowClause>::from_pg((*query).windowClause).iter_ptr()
            {
                if !self.within_item(query, (*window).partitionClause, sources) {
                    self.not_item_local.insert("a window function");
                }
            }
        }
    }

    /// Reports whether a grouping clause contains the whole source key. A group then never spans
    /// two items.
    unsafe fn within_item(
        &self,
        query: *mut pg_sys::Query,
        clause: *mut pg_sys::List,
        sources: &BTreeSet<usize>,
    ) -> bool {
        // SAFETY: as in `query`: the entries and clauses belong to the query being walked.
        unsafe {
            let entries = PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList);
            let mut by = BTreeSet::new();
            for group in PgList::<pg_sys::SortGroupClause>::from_pg(clause).iter_ptr() {
                let entry =
                    entries.iter_ptr().find(|e| (**e).ressortgroupref == (*group).tleSortGroupRef);
                if let Some(entry) = entry {
                    by.extend(self.trace((*entry).expr.cast(), &self.stack));
                }
            }
            sources.iter().all(|s| {
                let shadow = &self.shadows[*s];
                shadow
                    .key
                    .iter()
                    .all(|k| by.iter().any(|(of, n)| of == s && shadow.column(*n) == Some(k)))
            })
        }
    }
}

/// Visits a node of the tree: the callback of PostgreSQL's tree walkers. Returning `true` would end
/// the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is the `DependencyWalk` that started this walk; no other code uses it
    // during the walk.
    unsafe {
        let walk = &mut *context.cast::<DependencyWalk>();
        match (*node).type_ {
            NodeTag::T_Query => {
                let sources = walk.query(node.cast());
                walk.part(sources);
                return false;
            }
            NodeTag::T_Var => walk.var(node.cast()),
            NodeTag::T_FuncExpr => {
                let function = (*node.cast::<pg_sys::FuncExpr>()).funcid;
                walk.calls_own |= function.to_u32() >= pg_sys::FirstNormalObjectId
                    && pg_sys::get_func_namespace(function)
                        != pg_sys::get_namespace_oid(c"coco".as_ptr(), true);
                if pg_sys::func_volatile(function) == b'v' as std::ffi::c_char {
                    walk.volatile.insert(function.to_u32());
                }
            }
            _ => {}
        }
        walker::walk_expression(node, Some(visit), context)
    }
}

/// Returns the range table entry that a Var refers to. The number is unsigned in PostgreSQL 14 and
/// signed in later versions.
unsafe fn range_entry(
    query: *mut pg_sys::Query,
    number: impl TryInto<usize>,
) -> Option<*mut pg_sys::RangeTblEntry> {
    let place = number.try_into().ok()?.checked_sub(1)?;
    // SAFETY: the caller passes a query that the server has analyzed; an entry that does not exist
    // is not read.
    unsafe { PgList::from_pg((*query).rtable).get_ptr(place) }
}

fn c_string(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::invalid("text contains a NUL byte"))
}
