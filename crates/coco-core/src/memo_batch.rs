//! The memo entries that a batch of items uses, and the calls whose results are missing.
//!
//! An entry is found by its function and the fingerprint of its input. The input itself is then
//! compared, so two inputs with the same fingerprint never share a result.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::fingerprint::Hasher;

/// The id of a memoized function in one version. It changes when the function changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub i32);

/// The position of an entry in [`MemoBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryIndex(usize);

/// Bytes of a value. `None` is NULL.
pub type Bytes = Option<Rc<[u8]>>;

/// The type of a result, as a fingerprint of the type's definition.
pub type ResultType = [u8; 16];

/// The proof that a result belongs to its input, and the type of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The entry has no result yet.
    Open,
    /// The stored seal. It has not been compared with the result yet.
    Stored(i64),
    /// The seal of an entry of another store. It has not been compared with the result yet.
    Reusable(ReusableSeal),
    /// The result has this type: it was computed in this process, or its seal was compared.
    Checked(ResultType),
}

/// An entry of another store with its seal, which covers the function's id in that store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReusableSeal {
    pub function: FunctionId,
    /// The number of the entry in that store.
    pub entry: i64,
    pub seal: i64,
}

/// Returns a hash over a result, its type, its function and its input. A stored result with another
/// seal is not used: its type was redefined, or someone else wrote to the store.
pub fn seal(of: &ResultType, function: FunctionId, input: &[u8], result: &Bytes) -> i64 {
    let mut hasher = Hasher::new();
    hasher.part(of).part(&function.0.to_le_bytes()).part(input);
    match result {
        Some(bytes) => hasher.part(bytes),
        None => hasher.null(),
    };
    let mut half = [0; 8];
    half.copy_from_slice(&hasher.finish().0[..8]);
    i64::from_le_bytes(half)
}

/// A computed result, with its type.
#[derive(Clone, Debug)]
pub struct ComputedResult {
    pub result: Bytes,
    pub of: ResultType,
}

/// The error of a call whose input has no result. It ends the evaluation of the items that made the
/// call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoError {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Requested in this pass.
    Asked,
    /// Not found in the store.
    Absent,
    Known(Bytes),
    Failed(MemoError),
}

#[derive(Clone, Debug)]
pub struct MemoEntry {
    pub function: FunctionId,
    pub fingerprint: i64,
    pub input: Rc<[u8]>,
    pub state: State,
    pub seal: Seal,
    /// The number of the entry in the store, once it is stored.
    pub stored: Option<i64>,
    /// The time at which the result was computed (microseconds since 1970) if it comes from another
    /// store. `None` if it was computed now, or is in the store.
    pub made: Option<i64>,
}

impl MemoEntry {
    /// Returns the result and its seal, for the store. Returns `None` if there is no checked
    /// result.
    pub fn sealed(&self) -> Option<(&Bytes, i64)> {
        match (&self.state, &self.seal) {
            (State::Known(result), Seal::Checked(of)) => {
                Some((result, seal(of, self.function, &self.input, result)))
            }
            _ => None,
        }
    }
}

/// The entries that the items of a batch have requested.
#[derive(Default)]
pub struct MemoBatch {
    entries: Vec<MemoEntry>,
    indexes: HashMap<(FunctionId, i64), Vec<EntryIndex>>,
    bytes: usize,
    uses: BTreeMap<usize, BTreeSet<EntryIndex>>,
    /// Items that cannot be evaluated yet, each with the number of the call whose result is
    /// missing.
    missing: BTreeMap<usize, i32>,
    /// Stored entries whose seal did not match their result. They are not loaded again.
    rejected: HashSet<i64>,
    /// The same for entries of other stores, each with its function's id.
    rejected_reusable: HashSet<(FunctionId, i64)>,
    /// The number of results of other stores that were used, by function.
    reused: BTreeMap<FunctionId, i64>,
}

impl MemoBatch {
    /// Returns the entry of an input. If there is none, adds one in the state `Asked`.
    pub fn entry(&mut self, function: FunctionId, fingerprint: i64, input: &[u8]) -> EntryIndex {
        let known = self.indexes.get(&(function, fingerprint)).and_then(|indexes| {
            indexes.iter().find(|index| *self.entries[index.0].input == *input).copied()
        });
        known.unwrap_or_else(|| {
            let input = Rc::from(input);
            self.add(MemoEntry {
                function,
                fingerprint,
                input,
                state: State::Asked,
                seal: Seal::Open,
                stored: None,
                made: None,
            })
        })
    }

    fn add(&mut self, entry: MemoEntry) -> EntryIndex {
        let index = EntryIndex(self.entries.len());
        self.bytes += entry.input.len() + size_of::<MemoEntry>();
        if let State::Known(Some(result)) = &entry.state {
            self.bytes += result.len();
        }
        self.indexes.entry((entry.function, entry.fingerprint)).or_default().push(index);
        self.entries.push(entry);
        index
    }

    /// Adds a stored entry, or completes a requested one. The seal is compared when the result is
    /// used.
    pub fn load(&mut self, entry: MemoEntry) {
        if entry.stored.is_some_and(|id| self.rejected.contains(&id)) {
            return;
        }
        let index = self.entry(entry.function, entry.fingerprint, &entry.input);
        if let Some(id) = entry.stored {
            self.entries[index.0].stored = Some(id);
        }
        self.set_state(index, entry.state);
        self.entries[index.0].seal = entry.seal;
    }

    /// Completes a requested entry by an entry of another store. The seal is compared when the
    /// result is used. The entry then counts as new for the own store.
    pub fn load_reusable(&mut self, found: MemoEntry) {
        let Seal::Reusable(other) = found.seal else { return };
        if self.rejected_reusable.contains(&(other.function, other.entry)) {
            return;
        }
        let requested = |index: &&EntryIndex| {
            let entry = &self.entries[index.0];
            entry.state == State::Asked && *entry.input == *found.input
        };
        let indexes = self.indexes.get(&(found.function, found.fingerprint));
        let Some(index) = indexes.and_then(|all| all.iter().find(requested)).copied() else {
            return;
        };
        self.set_state(index, found.state);
        let entry = &mut self.entries[index.0];
        (entry.seal, entry.made) = (found.seal, found.made);
    }

    /// Stores a computed result in an entry.
    pub fn set_computed(&mut self, index: EntryIndex, kept: ComputedResult) {
        self.set_state(index, State::Known(kept.result));
        let entry = &mut self.entries[index.0];
        (entry.seal, entry.made) = (Seal::Checked(kept.of), None);
    }

    pub fn set_state(&mut self, index: EntryIndex, state: State) {
        if let State::Known(Some(result)) = &state {
            self.bytes += result.len();
        }
        self.entries[index.0].state = state;
    }

    /// Returns the result of an entry, read as this type. If the seal does not match, drops the
    /// result, sets the entry back to `Asked`, and returns `None`.
    pub fn result(&mut self, index: EntryIndex, of: &ResultType) -> Option<Bytes> {
        let entry = &mut self.entries[index.0];
        let State::Known(result) = &entry.state else { return None };
        let fits = match entry.seal {
            Seal::Checked(known) => known == *of,
            Seal::Stored(stored) => stored == seal(of, entry.function, &entry.input, result),
            Seal::Reusable(other) => other.seal == seal(of, other.function, &entry.input, result),
            Seal::Open => false,
        };
        if fits {
            if let Seal::Reusable(_) = entry.seal {
                *self.reused.entry(entry.function).or_default() += 1;
            }
            entry.seal = Seal::Checked(*of);
            return Some(result.clone());
        }
        if let Seal::Reusable(other) = entry.seal {
            self.rejected_reusable.insert((other.function, other.entry));
        }
        self.rejected.extend(entry.stored.take());
        entry.seal = Seal::Open;
        entry.state = State::Asked;
        None
    }

    pub fn get(&self, index: EntryIndex) -> &MemoEntry {
        &self.entries[index.0]
    }

    /// Records that an item uses an entry.
    pub fn record_use(&mut self, item: usize, index: EntryIndex) {
        self.uses.entry(item).or_default().insert(index);
    }

    /// Records that an item lacks the result of the call with this number. Returns whether the
    /// result may be requested. It may not be if another call of the item already lacks its result:
    /// this call's arguments may depend on that result. Calls with number 0 depend on no other
    /// call.
    pub fn record_miss(&mut self, item: usize, call: i32) -> bool {
        *self.missing.entry(item).or_insert(call) == call
    }

    /// Starts an evaluation of these items. Forgets the entries that they used before.
    pub fn begin_evaluation(&mut self, items: impl Iterator<Item = usize>) {
        self.missing.clear();
        for item in items {
            self.uses.remove(&item);
        }
    }

    /// Returns the items that could not be evaluated, and forgets them.
    pub fn take_missing(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.missing).into_keys().collect()
    }

    /// Returns the entries with a checked result that are not in the store.
    pub fn unstored_entries(&self) -> Vec<EntryIndex> {
        let known = |e: &MemoEntry| {
            e.stored.is_none() && matches!((&e.state, e.seal), (State::Known(_), Seal::Checked(_)))
        };
        let indexes = self.entries.iter().enumerate().filter(|(_, e)| known(e));
        indexes.map(|(n, _)| EntryIndex(n)).collect()
    }

    /// Returns the entries that each item uses.
    pub fn uses(&self) -> &BTreeMap<usize, BTreeSet<EntryIndex>> {
        &self.uses
    }

    /// Records the store numbers of entries that were just stored.
    pub fn mark_stored(&mut self, numbers: &[(EntryIndex, i64)]) {
        for (index, number) in numbers {
            self.entries[index.0].stored = Some(*number);
        }
    }

    /// Returns how many results of other stores were used since the last call of this method.
    pub fn take_reused(&mut self) -> BTreeMap<FunctionId, i64> {
        std::mem::take(&mut self.reused)
    }

    /// Returns the approximate memory in bytes that the entries use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all entries if they use more than this many bytes.
    pub fn clear_if_larger_than(&mut self, bytes: usize) {
        if self.bytes > bytes {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        *self = MemoBatch {
            rejected: std::mem::take(&mut self.rejected),
            rejected_reusable: std::mem::take(&mut self.rejected_reusable),
            reused: std::mem::take(&mut self.reused),
            ..MemoBatch::default()
        };
    }
}

/// Counts of the calls of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Results that items use, counted once per item: hits and misses.
    pub calls: i64,
    /// Results that were copied from another store instead of being computed: a part of the hits.
    pub reused: i64,
    /// Results that had to be computed.
    pub misses: i64,
    /// Inputs for which the call failed because of the input.
    pub errors: i64,
    /// Requests to a provider, or calls of a batch function.
    pub requests: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    /// Cost, in the unit of the server's prices.
    pub cost: f64,
    /// Bytes of the computed results.
    pub bytes: i64,
    /// Time spent on computing, in microseconds.
    pub micros: i64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, more: Stats) {
        self.calls += more.calls;
        self.reused += more.reused;
        self.misses += more.misses;
        self.errors += more.errors;
        self.requests += more.requests;
        self.tokens_in += more.tokens_in;
        self.tokens_out += more.tokens_out;
        self.cost += more.cost;
        self.bytes += more.bytes;
        self.micros += more.micros;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: FunctionId = FunctionId(1);

    const TEXT: ResultType = [1; 16];
    const OTHER: ResultType = [2; 16];

    fn bytes(text: &str) -> Bytes {
        Some(Rc::from(text.as_bytes()))
    }

    fn computed(text: &str, of: ResultType) -> ComputedResult {
        ComputedResult { result: bytes(text), of }
    }

    fn known(text: &str) -> State {
        State::Known(bytes(text))
    }

    fn stored(id: i64, input: &str, result: Bytes, seal: i64) -> MemoEntry {
        let (state, seal) = (State::Known(result), Seal::Stored(seal));
        let input = Rc::from(input.as_bytes());
        MemoEntry { function: F, fingerprint: 1, input, state, seal, stored: Some(id), made: None }
    }

    /// An entry of another store, where the function has the id 9.
    fn reusable(entry: i64, input: &str, result: Bytes, sealed: i64) -> MemoEntry {
        let other = ReusableSeal { function: FunctionId(9), entry, seal: sealed };
        let of_own = stored(0, input, result, 0);
        MemoEntry { seal: Seal::Reusable(other), stored: None, made: Some(5), ..of_own }
    }

    #[test]
    fn inputs_of_one_fingerprint_do_not_share_a_result() {
        let mut batch = MemoBatch::default();
        let a = batch.entry(F, 7, b"a");
        let b = batch.entry(F, 7, b"b");
        assert_ne!(a, b);
        batch.set_state(a, known("A"));
        assert_eq!(batch.entry(F, 7, b"a"), a);
        assert_eq!(batch.get(a).state, known("A"));
        assert_eq!(batch.get(b).state, State::Asked);
    }

    #[test]
    fn functions_do_not_share_results() {
        let mut batch = MemoBatch::default();
        assert_ne!(batch.entry(F, 7, b"a"), batch.entry(FunctionId(2), 7, b"a"));
    }

    #[test]
    fn an_item_that_is_evaluated_again_uses_what_it_uses_then() {
        let mut batch = MemoBatch::default();
        let (a, b) = (batch.entry(F, 1, b"a"), batch.entry(F, 2, b"b"));
        batch.record_use(0, a);
        batch.record_use(1, a);
        assert!(batch.record_miss(1, 2) && batch.record_miss(1, 2));
        assert!(!batch.record_miss(1, 1));
        assert_eq!(batch.take_missing(), BTreeSet::from([1]));
        batch.begin_evaluation([1].into_iter());
        batch.record_use(1, b);
        assert_eq!(batch.uses()[&0], BTreeSet::from([a]));
        assert_eq!(batch.uses()[&1], BTreeSet::from([b]));
    }

    #[test]
    fn what_is_stored_is_not_stored_again() {
        let mut batch = MemoBatch::default();
        let a = batch.entry(F, 1, b"a");
        assert!(batch.unstored_entries().is_empty());
        batch.set_computed(a, computed("A", TEXT));
        assert_eq!(batch.unstored_entries(), [a]);
        batch.mark_stored(&[(a, 12)]);
        assert!(batch.unstored_entries().is_empty());
        batch.load(stored(3, "b", bytes("B"), 0));
        assert!(batch.unstored_entries().is_empty() && batch.bytes() > 0);
    }

    #[test]
    fn a_stored_result_is_taken_only_under_its_seal() {
        let right = |result: &Bytes| seal(&TEXT, F, b"a", result);
        for (result, sealed, of, taken) in [
            (bytes("A"), right(&bytes("A")), TEXT, true),
            (None, right(&None), TEXT, true),
            // With another type, another result, no result, another input, another function.
            (bytes("A"), right(&bytes("A")), OTHER, false),
            (bytes("A"), right(&bytes("B")), TEXT, false),
            (None, right(&bytes("A")), TEXT, false),
            (bytes(""), right(&None), TEXT, false),
            (bytes("A"), seal(&TEXT, F, b"b", &bytes("A")), TEXT, false),
            (bytes("A"), seal(&TEXT, FunctionId(2), b"a", &bytes("A")), TEXT, false),
        ] {
            let mut batch = MemoBatch::default();
            batch.load(stored(7, "a", result.clone(), sealed));
            let index = batch.entry(F, 1, b"a");
            let found = batch.result(index, &of);
            assert_eq!(found, taken.then_some(result.clone()));
            if taken {
                assert_eq!(batch.result(index, &TEXT), Some(result));
                continue;
            }
            // The entry is requested again, the stored one is not loaded again, and a new result is
            // stored.
            assert_eq!(batch.get(index).state, State::Asked);
            batch.load(stored(7, "a", result, sealed));
            assert_eq!(batch.get(index).state, State::Asked);
            batch.set_computed(index, computed("A", of));
            assert_eq!(batch.unstored_entries(), [index]);
            assert_eq!(batch.result(index, &of), Some(bytes("A")));
        }
    }

    #[test]
    fn a_result_of_another_store_is_taken_only_under_the_seal_that_it_has_there() {
        let there = |result: &Bytes| seal(&TEXT, FunctionId(9), b"a", result);
        let mut batch = MemoBatch::default();
        // Nobody has asked for it.
        batch.load_reusable(reusable(1, "a", bytes("A"), there(&bytes("A"))));
        assert_eq!(batch.bytes(), 0);
        let a = batch.entry(F, 1, b"a");
        // Another result, and the seal of the own store.
        for (entry, sealed) in [(2, there(&bytes("B"))), (3, seal(&TEXT, F, b"a", &bytes("A")))] {
            batch.load_reusable(reusable(entry, "a", bytes("A"), sealed));
            assert_eq!(batch.result(a, &TEXT), None);
            batch.load_reusable(reusable(entry, "a", bytes("A"), sealed));
            assert_eq!(batch.get(a).state, State::Asked, "a rejected one is not loaded again");
        }
        assert!(batch.take_reused().is_empty());
        batch.load_reusable(reusable(4, "a", bytes("A"), there(&bytes("A"))));
        assert!(batch.unstored_entries().is_empty(), "it is not checked yet");
        assert_eq!(batch.result(a, &TEXT), Some(bytes("A")));
        assert_eq!(batch.result(a, &TEXT), Some(bytes("A")));
        assert_eq!((batch.unstored_entries(), batch.get(a).made), (vec![a], Some(5)));
        assert_eq!(batch.get(a).sealed(), Some((&bytes("A"), seal(&TEXT, F, b"a", &bytes("A")))));
        batch.clear();
        assert_eq!(batch.take_reused(), BTreeMap::from([(F, 1)]));
        assert!(batch.take_reused().is_empty());
    }

    #[test]
    fn a_result_of_another_store_replaces_none_that_is_known() {
        let mut batch = MemoBatch::default();
        let a = batch.entry(F, 1, b"a");
        batch.set_computed(a, computed("own", TEXT));
        let there = seal(&TEXT, FunctionId(9), b"a", &bytes("A"));
        batch.load_reusable(reusable(1, "a", bytes("A"), there));
        assert_eq!(batch.result(a, &TEXT), Some(bytes("own")));
        assert!(batch.take_reused().is_empty());
    }

    #[test]
    fn a_result_is_not_read_as_of_another_type_than_it_was_computed_as() {
        let mut batch = MemoBatch::default();
        let a = batch.entry(F, 1, b"a");
        batch.set_computed(a, computed("A", TEXT));
        assert_eq!(batch.result(a, &OTHER), None);
        assert_eq!(batch.get(a).state, State::Asked);
    }
}
