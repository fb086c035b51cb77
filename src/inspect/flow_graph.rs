//! The caller's flows as a graph. A relation that is the target of one flow and the source of
//! another is a single node.

use pgrx::pg_sys;
use std::collections::HashMap;

use crate::catalog::flow_rows;
use crate::memo::called_functions;
use crate::pg::error::Result;
use crate::pg::spi::{self, Arg, arg};
use coco_report::graph::{EdgeKind, Graph, Health, NodeKind};

/// Returns the graph of one flow, or of all flows that the caller may see. With `estimates`, adds
/// each relation's row count as of the last ANALYZE.
pub fn graph(flow: Option<&str>, estimates: bool) -> Result<Graph> {
    if let Some(name) = flow {
        // Raises an error if the flow does not exist or the caller may not see it.
        flow_rows::identify_flow(name)?;
    }
    let mut read = Reading { only: flow, graph: Graph::default(), tables: HashMap::new() };
    read.flows()?;
    read.sources()?;
    read.lookups()?;
    read.functions()?;
    read.targets()?;
    if estimates {
        read.estimates()?;
    }
    Ok(read.graph)
}

/// A graph under construction.
struct Reading<'a> {
    only: Option<&'a str>,
    graph: Graph,
    /// Nodes of relations, by the relations' OIDs.
    tables: HashMap<u32, usize>,
}

impl Reading<'_> {
    fn flow(&self) -> [Arg<'static>; 1] {
        [arg(self.only.map(str::to_owned))]
    }

    fn flow_node(&mut self, name: &str) -> usize {
        self.graph.node_index(NodeKind::Flow, name, None)
    }

    /// Returns the node of a relation. `name` is the output of `regclass`, which is the OID if the
    /// relation was dropped.
    fn table(&mut self, relation: pg_sys::Oid, name: &str) -> usize {
        match self.tables.get(&relation.to_u32()) {
            Some(node) => *node,
            None => {
                let node = self.graph.node_index(NodeKind::Table, name, None);
                self.tables.insert(relation.to_u32(), node);
                node
            }
        }
    }

    fn flows(&mut self) -> Result<()> {
        let rows = spi::select(
            "select flow, state, pending, failed_items from coco.status
              where $1 is null or flow = $1 order by flow",
            &self.flow(),
            |r| {
                let (flow, state) =
                    (spi::required::<String>(r, 1)?, spi::required::<String>(r, 2)?);
                Ok((flow, state, r.get::<i64>(3)?, r.get::<i64>(4)?))
            },
        )?;
        for (flow, state, pending, failing) in rows {
            let node = self.flow_node(&flow);
            let node = &mut self.graph.nodes[node];
            node.health = Some(Health::of_state(&state));
            node.notes.push(state);
            let counted = [(pending.unwrap_or(0), "pending"), (failing.unwrap_or(0), "failing")];
            let counted = counted.iter().filter(|(n, _)| *n > 0);
            node.notes.extend(counted.map(|(n, what)| format!("{n} {what}")));
        }
        Ok(())
    }

    fn sources(&mut self) -> Result<()> {
        let rows = spi::select(
            "select s.flow, s.source, s.relation::oid, s.relation::text, c.relname::text
               from coco.sources s left join pg_catalog.pg_class c on c.oid = s.relation
              where $1 is null or s.flow = $1 order by s.flow, s.source",
            &self.flow(),
            |r| {
                let relation: (pg_sys::Oid, String) = (spi::required(r, 3)?, spi::required(r, 4)?);
                let names: (String, String) = (spi::required(r, 1)?, spi::required(r, 2)?);
                Ok((names, relation, r.get::<String>(5)?))
            },
        )?;
        for ((flow, source), (relation, shown), relname) in rows {
            let (from, to) = (self.table(relation, &shown), self.flow_node(&flow));
            // The name in the query, if it differs from the relation's own name.
            let label = Some(source).filter(|s| relname.as_ref() != Some(s));
            self.graph.add_edge(from, to, EdgeKind::Source, label);
        }
        Ok(())
    }

    fn lookups(&mut self) -> Result<()> {
        let rows = spi::select(
            "select flow, relation::oid, relation::text from coco.lookups
              where $1 is null or flow = $1 order by flow, lookup",
            &self.flow(),
            |r| {
                let relation: (pg_sys::Oid, String) = (spi::required(r, 2)?, spi::required(r, 3)?);
                Ok((spi::required::<String>(r, 1)?, relation))
            },
        )?;
        for (flow, (relation, shown)) in rows {
            let (from, to) = (self.table(relation, &shown), self.flow_node(&flow));
            self.graph.add_edge(from, to, EdgeKind::Lookup, Some("lookup".to_owned()));
        }
        Ok(())
    }

    fn functions(&mut self) -> Result<()> {
        let rows = spi::select(
            "select flow, pg_catalog.array_agg(query_view::oid) from coco.targets
              where ($1 is null or flow = $1) and query_view is not null
              group by flow order by flow",
            &self.flow(),
            |r| Ok((spi::required::<String>(r, 1)?, spi::required::<Vec<pg_sys::Oid>>(r, 2)?)),
        )?;
        for (flow, views) in rows {
            for function in called_functions::called_functions(&views)? {
                let from = self.graph.node_index(NodeKind::Function, &function.name, None);
                let to = self.flow_node(&flow);
                self.graph.add_edge(from, to, EdgeKind::Call, None);
            }
        }
        Ok(())
    }

    fn targets(&mut self) -> Result<()> {
        let rows = spi::select(
            "select flow, target, relation::oid, relation::text, server from coco.targets
              where $1 is null or flow = $1 order by flow, target",
            &self.flow(),
            |r| {
                let names: (String, String) = (spi::required(r, 1)?, spi::required(r, 2)?);
                let relation = r.get::<pg_sys::Oid>(3)?.zip(r.get::<String>(4)?);
                Ok((names, relation, r.get::<String>(5)?))
            },
        )?;
        for ((flow, target), relation, server) in rows {
            let from = self.flow_node(&flow);
            let to = match relation {
                Some((relation, shown)) => self.table(relation, &shown),
                None => self.graph.node_index(NodeKind::External, &target, server.as_deref()),
            };
            self.graph.add_edge(from, to, EdgeKind::Target, None);
        }
        Ok(())
    }

    fn estimates(&mut self) -> Result<()> {
        let oids: Vec<pg_sys::Oid> =
            self.tables.keys().map(|oid| pg_sys::Oid::from(*oid)).collect();
        let rows = spi::select(
            "select oid, reltuples::int8 from pg_catalog.pg_class
              where oid = any ($1) and relkind in ('r', 'p', 'm') and reltuples >= 0",
            &[arg(oids)],
            |r| Ok((spi::required::<pg_sys::Oid>(r, 1)?, spi::required::<i64>(r, 2)?)),
        )?;
        for (oid, count) in rows {
            if let Some(node) = self.tables.get(&oid.to_u32()) {
                self.graph.nodes[*node]
                    .notes
                    .push(format!("about {} rows", coco_report::format_count(count)));
            }
        }
        Ok(())
    }
}
