//! What a batch of items recalls of the results of memoised functions, and what it misses.
//!
//! A result is addressed by its function and by the fingerprint of its input; the input itself is then
//! compared, so that two inputs of one fingerprint never share a result.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::fingerprint::Hasher;

/// A memoised function of a flow, as it is now: another after it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub i32);

/// Where an entry is in [`MemoBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryIndex(usize);

/// Bytes of a value, `None` for NULL.
pub type Bytes = Option<Rc<[u8]>>;

/// The type of a result, by a fingerprint of its definition.
pub type ResultType = [u8; 16];

/// What shows that a result is that of its input, and of which type its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// There is no result yet.
    Open,
    /// As the store has it; not compared with the result yet.
    Stored(i64),
    /// The result is known to be of this type: it was computed here, or its seal was compared.
    Checked(ResultType),
}

/// A hash over a result, its type, and what it is the result of. A stored result whose seal is another
/// is none: its type was defined anew, or the store was written to by another hand.
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

/// A result that was computed, as of its type.
#[derive(Clone, Debug)]
pub struct ComputedResult {
    pub result: Bytes,
    pub of: ResultType,
}

/// Why there is no result: the input's fault, which ends the evaluation of the items that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoError {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for in this pass.
    Asked,
    /// Looked for in the store, and not there.
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
    /// Its number in the store, once it is there.
    pub stored: Option<i64>,
}

impl MemoEntry {
    /// The result that is to be stored, with its seal; `None` where there is none that is believed.
    pub fn sealed(&self) -> Option<(&Bytes, i64)> {
        match (&self.state, &self.seal) {
            (State::Known(result), Seal::Checked(of)) => {
                Some((result, seal(of, self.function, &self.input, result)))
            }
            _ => None,
        }
    }
}

/// The entries that the items of a batch have asked for.
#[derive(Default)]
pub struct MemoBatch {
    entries: Vec<MemoEntry>,
    indexes: HashMap<(FunctionId, i64), Vec<EntryIndex>>,
    bytes: usize,
    uses: BTreeMap<usize, BTreeSet<EntryIndex>>,
    /// Items that cannot be evaluated yet, and which call in the query has kept them from it.
    missing: BTreeMap<usize, i32>,
    /// Entries of the store whose seal was not that of their result: they are not taken again.
    rejected: HashSet<i64>,
}

impl MemoBatch {
    /// The entry of an input; a new one is only asked for yet.
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

    /// Adds an entry of the store, or lets one that was asked for know its result. Whether its seal fits
    /// shows when the result is used.
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

    /// Settles an entry with a result that was computed.
    pub fn set_computed(&mut self, index: EntryIndex, kept: ComputedResult) {
        self.set_state(index, State::Known(kept.result));
        self.entries[index.0].seal = Seal::Checked(kept.of);
    }

    pub fn set_state(&mut self, index: EntryIndex, state: State) {
        if let State::Known(Some(result)) = &state {
            self.bytes += result.len();
        }
        self.entries[index.0].state = state;
    }

    /// The result of an entry, for a reader that takes it as of this type. A result whose seal does not fit
    /// is forgotten: the entry is then one that is asked for, and has no result.
    pub fn result(&mut self, index: EntryIndex, of: &ResultType) -> Option<Bytes> {
        let entry = &mut self.entries[index.0];
        let State::Known(result) = &entry.state else { return None };
        let fits = match entry.seal {
            Seal::Checked(known) => known == *of,
            Seal::Stored(stored) => stored == seal(of, entry.function, &entry.input, result),
            Seal::Open => false,
        };
        if fits {
            entry.seal = Seal::Checked(*of);
            return Some(result.clone());
        }
        self.rejected.extend(entry.stored.take());
        entry.seal = Seal::Open;
        entry.state = State::Asked;
        None
    }

    pub fn get(&self, index: EntryIndex) -> &MemoEntry {
        &self.entries[index.0]
    }

    /// An item's result rests on this entry.
    pub fn record_use(&mut self, item: usize, index: EntryIndex) {
        self.uses.entry(item).or_default().insert(index);
    }

    /// An item cannot be evaluated yet, for want of the result of a call of this number. `false`: what
    /// the call was given may come from another that has no result yet, so that nothing is to be
    /// asked for. Calls of number 0 rest on no other.
    pub fn record_miss(&mut self, item: usize, call: i32) -> bool {
        *self.missing.entry(item).or_insert(call) == call
    }

    /// Items are evaluated (again): what they use is to be seen.
    pub fn begin_evaluation(&mut self, items: impl Iterator<Item = usize>) {
        self.missing.clear();
        for item in items {
            self.uses.remove(&item);
        }
    }

    /// The items that could not be evaluated.
    pub fn take_missing(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.missing).into_keys().collect()
    }

    /// What is known, and not in the store.
    pub fn unstored_entries(&self) -> Vec<EntryIndex> {
        let known = |e: &MemoEntry| {
            e.stored.is_none() && matches!((&e.state, e.seal), (State::Known(_), Seal::Checked(_)))
        };
        let indexes = self.entries.iter().enumerate().filter(|(_, e)| known(e));
        indexes.map(|(n, _)| EntryIndex(n)).collect()
    }

    /// What the items use, by item.
    pub fn uses(&self) -> &BTreeMap<usize, BTreeSet<EntryIndex>> {
        &self.uses
    }

    /// These are in the store now.
    pub fn mark_stored(&mut self, numbers: &[(EntryIndex, i64)]) {
        for (index, number) in numbers {
            self.entries[index.0].stored = Some(*number);
        }
    }

    /// About how much memory all of it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, if it is more than that.
    pub fn clear_if_larger_than(&mut self, bytes: usize) {
        if self.bytes > bytes {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        *self = MemoBatch { rejected: std::mem::take(&mut self.rejected), ..MemoBatch::default() };
    }
}

/// What the calls of one function came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Results that items rest on, a result once an item: hits and misses.
    pub calls: i64,
    /// Of these, how many had to be computed.
    pub misses: i64,
    /// Inputs for which there was no result, through their own fault.
    pub errors: i64,
    /// Requests to a provider, or calls of a batch function.
    pub requests: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    /// What it cost, in the unit of the server's prices.
    pub cost: f64,
    /// Bytes of the results that were computed.
    pub bytes: i64,
    /// Time it took to compute them, in microseconds.
    pub micros: i64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, more: Stats) {
        self.calls += more.calls;
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
        MemoEntry { function: F, fingerprint: 1, input, state, seal, stored: Some(id) }
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
            // Of another type, of another result, of none, of another input, of another function.
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
            // It is asked for anew, is not taken again, and what is computed is stored as a new one.
            assert_eq!(batch.get(index).state, State::Asked);
            batch.load(stored(7, "a", result, sealed));
            assert_eq!(batch.get(index).state, State::Asked);
            batch.set_computed(index, computed("A", of));
            assert_eq!(batch.unstored_entries(), [index]);
            assert_eq!(batch.result(index, &of), Some(bytes("A")));
        }
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
