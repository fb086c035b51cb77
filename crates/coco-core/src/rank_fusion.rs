//! Reciprocal rank fusion: one ranking of several (Cormack, Clarke and Büttcher, 2009).

use std::collections::HashMap;
use std::hash::Hash;

/// The constant of the method. It makes the first places of a ranking count for little more than the
/// next ones.
const DAMPING: f64 = 60.0;

/// Returns the elements of rankings, best first, with their scores: an element's score is the sum of
/// 1 / (60 + place) over the rankings that contain it, where the first place is 1. Elements with
/// equal scores keep the order in which the rankings, one after the other, mention them.
pub fn fuse<T: Eq + Hash + Clone>(rankings: &[Vec<T>]) -> Vec<(T, f64)> {
    let mut places: HashMap<&T, usize> = HashMap::new();
    let mut fused: Vec<(T, f64)> = Vec::new();
    for ranking in rankings {
        for (place, element) in (1..).zip(ranking) {
            let score = 1.0 / (DAMPING + f64::from(place));
            match places.get(element) {
                Some(at) => fused[*at].1 += score,
                None => {
                    places.insert(element, fused.len());
                    fused.push((element.clone(), score));
                }
            }
        }
    }
    // A stable sort.
    fused.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    fused
}

#[cfg(test)]
mod tests {
    use super::fuse;

    #[test]
    fn an_element_of_two_rankings_comes_before_those_of_one() {
        let fused = fuse(&[vec!["a", "b", "c"], vec!["d", "b"]]);
        let order: Vec<&str> = fused.iter().map(|(element, _)| *element).collect();
        assert_eq!(order, ["b", "a", "d", "c"]);
        assert!((fused[0].1 - 2.0 / 62.0).abs() < 1e-12);
        assert!((fused[3].1 - 1.0 / 63.0).abs() < 1e-12);
    }

    #[test]
    fn one_ranking_keeps_its_order() {
        let fused = fuse(&[vec![3, 1, 2], vec![]]);
        assert_eq!(fused.iter().map(|(n, _)| *n).collect::<Vec<i32>>(), [3, 1, 2]);
        assert!(fuse::<i32>(&[]).is_empty());
    }
}
