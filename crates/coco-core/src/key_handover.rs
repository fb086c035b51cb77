//! Target keys that pass from one item to another within a batch, and the claims that are rejected.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// A claim of one item to a target key that another item has owned so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub claimant: usize,
    pub holder: usize,
}

/// Returns the rejected items: those in `own`, which are rejected for another reason, and each item
/// that claims a key of a rejected item. A rejected item keeps its keys, so nobody else can have
/// them. The value is the index of the blocking claim, or `None` for the items in `own`.
pub fn find_rejected(own: &BTreeSet<usize>, claims: &[Claim]) -> BTreeMap<usize, Option<usize>> {
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (n, claim) in claims.iter().enumerate() {
        waiting.entry(claim.holder).or_default().push(n);
    }
    let mut all: BTreeMap<usize, Option<usize>> = own.iter().map(|i| (*i, None)).collect();
    let mut next: Vec<usize> = own.iter().copied().collect();
    while let Some(holder) = next.pop() {
        for n in waiting.remove(&holder).unwrap_or_default() {
            let claimant = claims[n].claimant;
            if let Entry::Vacant(vacant) = all.entry(claimant) {
                vacant.insert(Some(n));
                next.push(claimant);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(own: &[usize], claims: &[(usize, usize)]) -> Vec<usize> {
        let claims: Vec<Claim> = claims
            .iter()
            .map(|(claimant, holder)| Claim { claimant: *claimant, holder: *holder })
            .collect();
        find_rejected(&own.iter().copied().collect(), &claims).into_keys().collect()
    }

    #[test]
    fn keys_that_merely_change_hands_refuse_nobody() {
        assert!(run(&[], &[(1, 2), (2, 1), (3, 4), (4, 5)]).is_empty());
    }

    #[test]
    fn who_claims_a_key_of_one_that_is_refused_is_refused_too() {
        assert_eq!(run(&[5], &[(3, 4), (4, 5), (1, 2), (2, 1), (6, 3)]), [3, 4, 5, 6]);
    }

    #[test]
    fn a_ring_with_one_that_is_refused_stays_as_it_is() {
        assert_eq!(run(&[1], &[(1, 2), (2, 3), (3, 1)]), [1, 2, 3]);
    }
}
