//! The section `derived` of `coco.explain`: what coco found in the queries of a flow that derives its
//! lookups.

use crate::catalog::model::{Flow, Target};
use crate::inspect::explain::finding::{Finding, finding, names};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg, ident};

/// Describes the source and the lookups that coco found in the queries of a flow.
pub fn derivations(flow: &Flow) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    if !flow.derives_lookups {
        return Ok(all);
    }
    for source in &flow.sources {
        let covers = |target: &&Target| target.covered.is_some();
        let why = match flow.targets.iter().find(covers).and_then(|t| t.covered.as_ref()) {
            Some(covered) => {
                let covered: Vec<String> = covered.iter().map(|c| ident(c)).collect();
                format!(
                    "the columns ({}) of the query are its key ({})",
                    covered.join(", "),
                    names(&source.key)
                )
            }
            None => "the declaration names it".to_owned(),
        };
        let what = format!("{} is the source: {why}", source.relation_name);
        all.push(finding("derived", &source.name, what));
    }
    for lookup in flow.lookups.iter().filter(|lookup| lookup.is_derived) {
        let relation = &lookup.relation;
        let what = match affects(relation.id)? {
            Some(text) => format!(
                "{} is a lookup: equalities of the query lead from ({}) to the items, by {text}",
                relation.relation_name,
                names(&relation.key)
            ),
            None => format!(
                "{} is a lookup of which each change affects every item: no equality between columns leads from it to the item at each place where the query reads it",
                relation.relation_name
            ),
        };
        all.push(finding("derived", &relation.name, what));
    }
    Ok(all)
}

fn affects(lookup: i32) -> Result<Option<String>> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar("select affects from coco_internal.source where id = $1", &[arg(lookup)])
}
