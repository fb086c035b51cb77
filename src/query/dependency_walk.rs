//! A walk over a bound query that finds what the query reads: columns of its items, other relations
//! and functions. It also finds constructs that combine rows of several items, and traces output
//! columns back to source columns.
//!
//! Callers: `analyze`.

use pgrx::pg_sys::{self, NodeTag};
use pgrx::{PgList, is_a};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_void};

use crate::query::named_source::Shadow;
use crate::query::trace_column::range_entry;
use crate::query::union_all::only_union_all;
use crate::query::{key_rules, walker};

/// What a walk over a bound query finds.
pub struct DependencyWalk<'a> {
    shadows: &'a [Shadow],
    /// The entries that are items, each with the number of its source.
    items: HashMap<usize, usize>,
    /// A system column of an item that the query reads.
    pub system: Option<(usize, i16)>,
    /// The queries around the current node, outermost first.
    stack: Vec<*mut pg_sys::Query>,
    /// For each query of `stack`: the sources that each of its parts reads.
    children: Vec<Vec<BTreeSet<usize>>>,
    /// The common table expressions that are visible at the current node.
    ctes: Vec<CteSources>,
    /// Column numbers used of each source; 0 stands for the whole row.
    pub used: Vec<BTreeSet<i16>>,
    pub read: BTreeSet<usize>,
    pub relations: BTreeSet<u32>,
    pub read_columns: BTreeMap<u32, BTreeSet<i16>>,
    pub calls_own: bool,
    pub volatile: BTreeSet<u32>,
    pub not_item_local: BTreeSet<&'static str>,
    pub joins_sources: bool,
    pub joined_with_itself: BTreeSet<usize>,
}

/// The sources that a common table expression reads.
struct CteSources {
    /// The number of queries around the expression.
    depth: usize,
    name: CString,
    sources: BTreeSet<usize>,
}

impl<'a> DependencyWalk<'a> {
    /// Returns a walk that has found nothing. `items` are the range table entries that are items,
    /// each with the number of its source.
    pub fn new(shadows: &'a [Shadow], items: HashMap<usize, usize>) -> DependencyWalk<'a> {
        DependencyWalk {
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
        }
    }
}

impl DependencyWalk<'_> {
    /// Walks a query, and returns the sources that it reads.
    ///
    /// # Safety
    /// `query` is a tree that the server has analyzed, and nobody changes it during the walk.
    pub unsafe fn query(&mut self, query: *mut pg_sys::Query) -> BTreeSet<usize> {
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
    ///
    /// # Safety
    /// `expr` belongs to the last query of `stack`, which contains the queries around it.
    pub unsafe fn trace(
        &self,
        expr: *mut pg_sys::Node,
        stack: &[*mut pg_sys::Query],
    ) -> Option<(usize, i16)> {
        // SAFETY: the caller upholds the same contract.
        match unsafe { self.follow(expr, stack) } {
            Some(Origin::Column(source, number)) => Some((source, number)),
            _ => None,
        }
    }

    /// Returns where the value of an expression comes from, through the names that queries give it.
    unsafe fn follow(
        &self,
        expr: *mut pg_sys::Node,
        stack: &[*mut pg_sys::Query],
    ) -> Option<Origin> {
        // SAFETY: as in `query`: the code reads each node as the type that its tag names, and
        // `stack` contains the queries around the node.
        unsafe {
            if expr.is_null() {
                return None;
            }
            if !is_a(expr, NodeTag::T_Var) {
                return Some(Origin::Expression(expr, stack.to_vec()));
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
                pg_sys::RTEKind::RTE_RELATION => {
                    self.item(rte).map(|source| Origin::Column(source, number))
                }
                pg_sys::RTEKind::RTE_SUBQUERY => self.follow_output((*rte).subquery, number, here),
                pg_sys::RTEKind::RTE_CTE => {
                    let outer = level.checked_sub((*rte).ctelevelsup as usize)?;
                    let ctes = PgList::<pg_sys::CommonTableExpr>::from_pg((*stack[outer]).cteList);
                    let name = CStr::from_ptr((*rte).ctename);
                    let cte = ctes.iter_ptr().find(|c| CStr::from_ptr((**c).ctename) == name)?;
                    if (*cte).cterecursive {
                        return None;
                    }
                    let inner = (*cte).ctequery.cast::<pg_sys::Query>();
                    self.follow_output(inner, number, &stack[..=outer])
                }
                pg_sys::RTEKind::RTE_JOIN => {
                    let aliases = PgList::<pg_sys::Node>::from_pg((*rte).joinaliasvars);
                    self.follow(aliases.get_ptr(number as usize - 1)?, here)
                }
                #[cfg(feature = "pg18")]
                pg_sys::RTEKind::RTE_GROUP => {
                    let exprs = PgList::<pg_sys::Node>::from_pg((*rte).groupexprs);
                    self.follow(exprs.get_ptr(number as usize - 1)?, here)
                }
                _ => None,
            }
        }
    }

    /// Returns where the value of an output column of a subquery comes from. `outer` are the queries
    /// around the subquery.
    unsafe fn follow_output(
        &self,
        inner: *mut pg_sys::Query,
        number: i16,
        outer: &[*mut pg_sys::Query],
    ) -> Option<Origin> {
        // SAFETY: as in `query`.
        unsafe {
            if !(*inner).setOperations.is_null() || !(*inner).groupingSets.is_null() {
                return None;
            }
            let entries = PgList::<pg_sys::TargetEntry>::from_pg((*inner).targetList);
            let entry = entries.get_ptr(number as usize - 1)?;
            self.follow((*entry).expr.cast(), &[outer, &[inner]].concat())
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
            let mut by = Vec::new();
            for group in PgList::<pg_sys::SortGroupClause>::from_pg(clause).iter_ptr() {
                let entry =
                    entries.iter_ptr().find(|e| (**e).ressortgroupref == (*group).tleSortGroupRef);
                if let Some(entry) = entry {
                    by.extend(self.follow((*entry).expr.cast(), &self.stack));
                }
            }
            sources.iter().all(|source| {
                let shadow = &self.shadows[*source];
                shadow.key.iter().all(|k| by.iter().any(|origin| self.is_key(*source, k, origin)))
            })
        }
    }
    /// Returns the source, and the column or the expression of its key that an expression of the
    /// query around all others always equals.
    ///
    /// # Safety
    /// `expr` belongs to `tree`.
    pub unsafe fn origin_of(
        &self,
        expr: *mut pg_sys::Node,
        tree: *mut pg_sys::Query,
    ) -> Option<(usize, String)> {
        // SAFETY: the caller upholds the same contract.
        unsafe {
            let origin = self.follow(expr, &[tree])?;
            if let Origin::Column(source, number) = origin {
                return Some((source, self.shadows[source].column(number)?.clone()));
            }
            let named = self.shadows.iter().enumerate().flat_map(|(source, shadow)| {
                shadow.key_expressions.iter().map(move |(name, _)| (source, name))
            });
            let mut named = named.map(|(source, name)| (source, name.clone()));
            named.find(|(source, name)| self.is_key(*source, name, &origin))
        }
    }

    /// Reports whether a value is the column `name` of a source's key.
    unsafe fn is_key(&self, source: usize, name: &str, origin: &Origin) -> bool {
        let shadow = &self.shadows[source];
        match origin {
            Origin::Column(of, number) => {
                *of == source && shadow.column(*number).is_some_and(|column| column == name)
            }
            Origin::Expression(expression, stack) => {
                let Some(key) = shadow.key_expression(name) else { return false };
                // SAFETY: the variables belong to the expression, and so to the last query of the
                // stack.
                let column = |var| match unsafe { self.trace(var, stack) } {
                    Some((of, number)) if of == source => Some(number),
                    _ => None,
                };
                // SAFETY: both expressions belong to analyzed trees.
                unsafe { key_rules::is_same_over_row(*expression, &column, key) }
            }
        }
    }
}

/// Where the value of an expression comes from.
enum Origin {
    /// A column of an item of a source.
    Column(usize, i16),
    /// An expression of the last of these queries.
    Expression(*mut pg_sys::Node, Vec<*mut pg_sys::Query>),
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
