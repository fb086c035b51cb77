//! Precommit: which target keys are carried over, written and deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::version::Fingerprint;

/// What is known of one target key of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyState {
    /// Fingerprints of the value under which the key was committed. Empty: never committed.
    pub committed: Vec<Fingerprint>,
    /// Fingerprints of attempts staged and not committed; `None` is a staged deletion.
    pub staged: Vec<Option<Fingerprint>>,
}

/// What an item's precommit asks of one target. Every key in `upsert` and `delete` is staged
/// before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff<K> {
    pub carry_over: BTreeSet<K>,
    pub upsert: BTreeMap<K, Fingerprint>,
    pub delete: BTreeSet<K>,
}

/// Compares the rows just evaluated with what the item has at the target. With `carry_over`
/// false (a reexport) every row is written.
pub fn diff<K: Ord + Clone>(
    existing: &BTreeMap<K, KeyState>,
    evaluated: &BTreeMap<K, Fingerprint>,
    carry_over: bool,
) -> Diff<K> {
    let mut result =
        Diff { carry_over: BTreeSet::new(), upsert: BTreeMap::new(), delete: BTreeSet::new() };
    for (key, value) in evaluated {
        let unchanged = existing.get(key).is_some_and(|state| state.holds_only(value));
        if carry_over && unchanged {
            result.carry_over.insert(key.clone());
        } else {
            result.upsert.insert(key.clone(), *value);
        }
    }
    result.delete = existing.keys().filter(|k| !evaluated.contains_key(k)).cloned().collect();
    result
}

impl KeyState {
    /// Whether the target can hold nothing but this value: it was committed, and no attempt since
    /// may have left another.
    fn holds_only(&self, value: &Fingerprint) -> bool {
        !self.committed.is_empty()
            && self.committed.iter().all(|c| c == value)
            && self.staged.iter().all(|s| s.as_ref() == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(n: u8) -> Fingerprint {
        Fingerprint([n; 16])
    }
    fn committed(keys: &[(&str, u8)]) -> BTreeMap<String, KeyState> {
        let state = |v| KeyState { committed: vec![f(v)], staged: vec![] };
        keys.iter().map(|(k, v)| (k.to_string(), state(*v))).collect()
    }
    fn rows(keys: &[(&str, u8)]) -> BTreeMap<String, Fingerprint> {
        keys.iter().map(|(k, v)| (k.to_string(), f(*v))).collect()
    }
    fn names<'a>(keys: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
        keys.into_iter().map(String::as_str).collect()
    }

    #[test]
    fn first_run_writes_k1_k2_k3() {
        let d = diff(&committed(&[]), &rows(&[("K1", 1), ("K2", 2), ("K3", 3)]), true);
        assert_eq!(names(d.upsert.keys()), ["K1", "K2", "K3"]);
        assert!(d.delete.is_empty() && d.carry_over.is_empty());
    }

    #[test]
    fn report_pdf_now_has_only_two_pages_so_k3_is_deleted() {
        let before = committed(&[("K1", 1), ("K2", 2), ("K3", 3)]);
        let d = diff(&before, &rows(&[("K1", 1), ("K2", 9)]), true);
        assert_eq!(names(&d.carry_over), ["K1"]);
        assert_eq!(names(d.upsert.keys()), ["K2"]);
        assert_eq!(names(&d.delete), ["K3"]);
    }

    #[test]
    fn removed_deletes_k1_and_k2() {
        let d = diff(&committed(&[("K1", 1), ("K2", 2)]), &rows(&[]), true);
        assert_eq!(names(&d.delete), ["K1", "K2"]);
    }

    #[test]
    fn reexport_carries_nothing_over() {
        let d = diff(&committed(&[("K1", 1)]), &rows(&[("K1", 1)]), false);
        assert_eq!(names(d.upsert.keys()), ["K1"]);
    }

    #[test]
    fn a_staged_attempt_with_another_value_forces_a_write() {
        let mut before = committed(&[("K1", 1), ("K2", 2)]);
        before.entry("K1".into()).or_default().staged.push(Some(f(7)));
        before.entry("K2".into()).or_default().staged.push(Some(f(2)));
        let d = diff(&before, &rows(&[("K1", 1), ("K2", 2)]), true);
        assert_eq!(names(d.upsert.keys()), ["K1"]);
        assert_eq!(names(&d.carry_over), ["K2"]);
    }

    #[test]
    fn what_a_crashed_attempt_staged_is_deleted_if_it_is_not_produced() {
        let staged = KeyState { committed: vec![], staged: vec![Some(f(1))] };
        let before = BTreeMap::from([("K9".to_string(), staged)]);
        let d = diff(&before, &rows(&[]), true);
        assert_eq!(names(&d.delete), ["K9"]);
    }

    #[test]
    fn a_staged_deletion_means_the_row_may_be_gone() {
        let state = KeyState { committed: vec![f(1)], staged: vec![None] };
        let d = diff(&BTreeMap::from([("K1".to_string(), state)]), &rows(&[("K1", 1)]), true);
        assert_eq!(names(d.upsert.keys()), ["K1"]);
    }
}
