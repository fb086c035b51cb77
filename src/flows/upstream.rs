//! Which flows feed which. A flow feeds another one if it writes a table of this database that the
//! other one follows as a source or a lookup: the table itself, through a view, or as a partition
//! or the parent of one.
//!
//! The result covers all flows, whoever owns them, because flows of different roles may feed each
//! other. Callers decide which of them a user may see.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi;
use coco_core::flow_order::FlowOrder;

/// A flow of this database, whoever owns it.
pub struct ChainedFlow {
    pub name: String,
    pub id: i32,
    pub owner: pg_sys::Oid,
    pub is_paused: bool,
    pub has_target: bool,
    /// Whether the flow is a version of another one.
    pub is_version: bool,
}

impl ChainedFlow {
    /// Reports whether the current role has the rights of the flow's owner.
    pub fn is_usable(&self) -> bool {
        acting_role::has_rights_of(self.owner)
    }
}

/// All flows of this database in the order of their declaration, and which of them feed which. The
/// numbers in `order` are positions in `flows`.
pub struct FlowChains {
    pub flows: Vec<ChainedFlow>,
    pub order: FlowOrder,
}

impl FlowChains {
    /// Returns the position of a flow.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.flows.iter().position(|flow| flow.name == name)
    }

    /// Returns the flows that feed a flow, directly or through others, each after those that feed
    /// it. The flow itself is not among them.
    pub fn feeding(&self, flow: usize) -> Vec<usize> {
        self.order.sorted(self.order.upstream(flow).into_iter().filter(|other| *other != flow))
    }
}

/// The pairs of flows of which the first feeds the second. A view counts as the relations that it
/// reads, and a table as its partitions and children. A partition is also written through its
/// parents.
const FEEDS: &str = "
with recursive below (flow, relation) as (
  select s.flow, s.relation::oid from coco_internal.source s
   union
  select b.flow, d.relation
    from below b cross join lateral (
      select d.refobjid
        from pg_class c
        join pg_rewrite w on w.ev_class = c.oid
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                        and d.refclassid = 'pg_class'::regclass
       where c.oid = b.relation and c.relkind = 'v'
       union all
      select i.inhrelid from pg_inherits i where i.inhparent = b.relation) as d (relation)
), above (flow, relation) as (
  select flow, relation from below
   union
  select a.flow, i.inhparent
    from above a join pg_inherits i on i.inhrelid = a.relation
    join pg_class p on p.oid = i.inhparent and p.relkind = 'p'
)
select distinct w.id, f.id
  from above a
  join coco_internal.target t on t.relation::oid = a.relation and t.server is null
  join coco_internal.flow w on w.flow = t.flow
  join coco_internal.flow f on f.flow = a.flow";

/// Reads which flows feed which.
pub fn read_chains() -> Result<FlowChains> {
    let _as = RoleGuard::extension_owner()?;
    // Also sees what this transaction has just declared.
    let _now = PinnedSnapshot::take();
    let flows = spi::select(
        "select f.flow, f.id, f.owner::oid, f.paused,
                exists (select from coco_internal.target t where t.flow = f.flow),
                exists (select from coco_internal.version v where v.flow = f.id)
           from coco_internal.flow f order by f.id",
        &[],
        |r| {
            Ok(ChainedFlow {
                name: spi::required(r, 1)?,
                id: spi::required(r, 2)?,
                owner: spi::required(r, 3)?,
                is_paused: spi::required(r, 4)?,
                has_target: spi::required(r, 5)?,
                is_version: spi::required(r, 6)?,
            })
        },
    )?;
    let edges = spi::select(FEEDS, &[], |r| {
        Ok((spi::required::<i32>(r, 1)?, spi::required::<i32>(r, 2)?))
    })?;
    let at = |id: i32| flows.binary_search_by_key(&id, |flow: &ChainedFlow| flow.id).ok();
    let edges: Vec<(usize, usize)> =
        edges.into_iter().filter_map(|(from, to)| at(from).zip(at(to))).collect();
    let order = FlowOrder::new(flows.len(), edges);
    Ok(FlowChains { flows, order })
}

/// Fails if a flow feeds itself, directly or through others. Call it when a declaration has stored
/// a target or a lookup of the flow.
pub fn check_no_cycle(name: &str) -> Result<()> {
    let chains = read_chains()?;
    let cycle = chains.find(name).and_then(|flow| chains.order.cycle_through(flow));
    let Some(cycle) = cycle else { return Ok(()) };
    let shown: Vec<String> = cycle
        .iter()
        .map(|flow| &chains.flows[*flow])
        .map(|flow| match flow.is_usable() {
            true => format!("\"{}\"", flow.name),
            false => "a flow of another role".to_owned(),
        })
        .collect();
    let detail = match cycle.len() {
        ..=2 => "The flow would follow a table that it writes itself.".to_owned(),
        _ => {
            format!("Each of these flows writes what the next one follows: {}.", shown.join(", "))
        }
    };
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
        format!("flow \"{name}\" would feed itself"),
    )
    .detail(detail)
    .hint("Choose another target, or follow a relation that these flows do not write."))
}
