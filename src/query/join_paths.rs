//! Chooses how a changed row of a relation leads to the items that it affects: over which columns,
//! and through which other relations.
//!
//! Caller: `declare`.

use pgrx::pg_sys;
use std::collections::HashMap;

use crate::query::joins::{Equality, Joins};

/// The step from a reading towards the item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number of the next reading.
    pub with: usize,
    /// The numbers of the equalities between the two, all with the same row of `with`.
    pub equalities: Vec<usize>,
    /// The columns of the reading that the equalities compare, each once.
    pub columns: Vec<i16>,
}

/// The numbers of the columns of primary keys, by relation.
pub type PrimaryKeys = HashMap<u32, Vec<i16>>;

/// Returns the first step for each reading; `None` for the item, and for a reading of which any row
/// may matter to any item. Following the steps from a reading ends at the item.
pub fn find_steps(joins: &Joins, primary_keys: &PrimaryKeys) -> Vec<Option<Step>> {
    let mut steps: Vec<Option<Step>> = vec![None; joins.readings.len()];
    let mut is_reached: Vec<bool> = joins.readings.iter().map(|r| r.is_item).collect();
    loop {
        let open = (0..steps.len()).filter(|n| !is_reached[*n] && !joins.readings[*n].is_sampled);
        let found: Vec<(usize, Step)> = open
            .filter_map(|n| {
                let key = primary_keys.get(&relation(joins, n)).map_or(&[][..], Vec::as_slice);
                Some((n, best_step(&joins.equalities, n, &is_reached, key)?))
            })
            .collect();
        if found.is_empty() {
            return steps;
        }
        for (n, step) in found {
            is_reached[n] = true;
            steps[n] = Some(step);
        }
    }
}

fn relation(joins: &Joins, reading: usize) -> u32 {
    let relation: pg_sys::Oid = joins.readings[reading].relation;
    relation.to_u32()
}

/// Returns the step to a reached reading that compares the whole primary key, or else the most
/// columns.
fn best_step(
    equalities: &[Equality],
    reading: usize,
    is_reached: &[bool],
    primary_key: &[i16],
) -> Option<Step> {
    // The equalities with one row of one reading, in the order of the query.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let usable = equalities.iter().enumerate().filter(|(_, e)| e.of == reading);
    for (n, equality) in usable.filter(|(_, e)| is_reached[e.with]) {
        let is_same = |group: &&mut Vec<usize>| {
            let first = &equalities[group[0]];
            first.with == equality.with && first.path == equality.path
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(n),
            None => groups.push(vec![n]),
        }
    }
    let has_key = |group: &[usize]| {
        let compares = |column: &i16| group.iter().any(|n| equalities[*n].column == *column);
        !primary_key.is_empty() && primary_key.iter().all(compares)
    };
    let columns = |group: &[usize]| {
        let mut columns: Vec<i16> = group.iter().map(|n| equalities[*n].column).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    };
    let rank = |group: &Vec<usize>| (has_key(group), columns(group).len());
    let best = groups.into_iter().reduce(|best, next| match rank(&next) > rank(&best) {
        true => next,
        false => best,
    })?;
    let with = equalities[best[0]].with;
    if has_key(&best) {
        let in_key = |n: &usize| primary_key.contains(&equalities[*n].column);
        let equalities = best.into_iter().filter(in_key).collect();
        return Some(Step { with, equalities, columns: primary_key.to_vec() });
    }
    let columns = columns(&best);
    Some(Step { with, equalities: best, columns })
}
